"""A morning is a whole story: seeded, over before it should be, with every way a case can end."""

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcuate.hospital.exams import load_exams
from arcuate.hospital.morning import Kind, Morning, expected_ends, make_morning
from arcuate.hospital.orders import Wording, load_wording, write_indication
from arcuate.hospital.priors import past_entries
from arcuate.hospital.readers import roster_entries
from arcuate.hospital.settings import HospitalSettings
from arcuate.kernel.fhir import bundle, types

ZURICH = ZoneInfo("Europe/Zurich")
NOON = datetime(2026, 3, 17, 11, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def morning() -> Morning:
    return make_morning(7, NOON, ZURICH)


def test_same_seed_and_time_same_morning() -> None:
    assert make_morning(7, NOON, ZURICH) == make_morning(7, NOON, ZURICH)
    assert make_morning(7, NOON, ZURICH) != make_morning(8, NOON, ZURICH)


async def test_the_script_has_every_end(morning: Morning) -> None:
    ends = Counter((await expected_ends(morning)).values())
    assert set(ends) == {"delivered", "cancelled", "expired"}
    assert 12 <= sum(ends.values()) <= 16
    assert len(await expected_ends(morning)) == sum(ends.values())


def test_two_to_four_cases_have_images_and_one_exam_has_none(morning: Morning) -> None:
    assert 2 <= sum(c.ventricles is not None for c in morning.cases) <= 4
    assert any(c.ventricles is None and c.end == "delivered" and c.exam.region == "brain" for c in morning.cases)
    assert all(c.exam_done.region == "brain" for c in morning.cases if c.ventricles is not None)


@settings(max_examples=60, deadline=None)
@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),
    st.sampled_from(["Europe/Zurich", "America/New_York", "Asia/Kolkata"]),
)
def test_at_any_hour_the_scripted_cases_lie_before_now_and_steps_are_in_order(now: datetime, zone: str) -> None:
    morning = make_morning(3, now, ZoneInfo(zone))
    assert [s.at for s in morning.steps] == sorted(s.at for s in morning.steps)
    last = {step.case.key: step.at for step in morning.steps}
    for case in morning.cases:
        if case.end != "open":
            assert last[case.key] <= now + timedelta(minutes=1), case.key
        assert case.ordered <= case.booked
        mine = [s.kind for s in morning.steps if s.case.key == case.key]
        order = [Kind.REGISTER, Kind.ORDER, Kind.BOOK, Kind.ARRIVE, Kind.BEGIN, Kind.DONE]
        assert [k for k in mine if k in order] == [k for k in order if k in mine]


def test_the_board_shows_done_running_waiting_and_later_cases(morning: Morning) -> None:
    now = morning.made_at
    state = Counter()
    for case in morning.cases:
        kinds = {s.kind for s in morning.steps if s.case.key == case.key and s.at <= now}
        word = next((k for k in (Kind.DONE, Kind.NO_SHOW, Kind.BEGIN, Kind.ARRIVE, Kind.BOOK) if k in kinds), None)
        state[word] += 1
    assert state[Kind.DONE] >= 10
    assert state[Kind.BEGIN] == 3
    assert state[Kind.ARRIVE] >= 2
    assert state[Kind.BOOK] >= 8
    assert len({c.scanner for c in morning.cases}) == 4


def test_nobody_is_booked_twice_at_once_on_a_scanner(morning: Morning) -> None:
    for scanner in {c.scanner for c in morning.cases}:
        slots = sorted(
            (c.slot, c.slot + timedelta(minutes=c.minutes))
            for c in morning.cases
            if c.scanner == scanner and c.course != "withdrawn"
        )
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(slots))


def test_numbers_are_unique_legal_and_marked_as_synthetic(morning: Morning) -> None:
    accessions = [c.accession for c in morning.cases]
    assert len(set(accessions)) == len(accessions)
    assert all(len(a) <= 16 for a in accessions)
    assert all(c.person.family.startswith("Synthetic-") for c in morning.cases)


def test_every_flagged_kind_of_error_is_in_the_morning(morning: Morning) -> None:
    texts = " | ".join(c.indication for c in morning.cases)
    for word in ("pacemaker", "pregnant", "CKD", "Left arm"):
        assert word in texts
    people = Counter(c.person.number for c in morning.cases)
    assert people.most_common(1)[0][1] == 2  # the duplicate


def test_roster_and_past_are_valid_fhir(morning: Morning) -> None:
    entries = [*roster_entries(morning.readers), *past_entries(morning.cases)]
    made = bundle.transaction(entries)
    types.validate(made)
    kinds = Counter(str(e.resource["resourceType"]) for e in entries if e.resource)
    assert (
        kinds["Practitioner"] == kinds["PractitionerRole"] == kinds["Schedule"] == kinds["Slot"] == len(morning.readers)
    )
    assert kinds["Appointment"] >= 5
    assert kinds["DiagnosticReport"] >= 3
    assert {str(e.resource["status"]) for e in entries if e.resource and e.resource["resourceType"] == "Appointment"} == {
        "noshow", "fulfilled",
    }  # fmt: skip


def test_no_indication_says_of_a_person_what_only_the_other_sex_can_have() -> None:
    import random

    wording, rates = load_wording(), HospitalSettings(poor_indication_share=0.0)
    exams = [e for e in load_exams() if e.share and e.region in wording.regions]
    for sex, other in (("F", ("prostate", "low t,")), ("M", ("menses", "postpartum", "ocp", "pregnant"))):
        texts = [write_indication(e, wording, rates, random.Random(n), sex).lower() for e in exams for n in range(80)]
        assert not [text for text in texts if any(word in text for word in other)]
    known = {*wording.past, *wording.deny, *_complaints(wording)}
    assert {one for said in wording.only.values() for one in said} <= known  # a phrase that was reworded is noticed


def _complaints(wording: Wording) -> list[str]:
    return [one for region in wording.regions.values() for one in region["complaint"]]


def test_indications_are_seeded_short_and_written_by_people_in_a_hurry() -> None:
    import random

    wording, rates = load_wording(), HospitalSettings()
    exams = [e for e in load_exams() if e.share and e.region in wording.regions]
    texts = [write_indication(e, wording, rates, random.Random(n), "FM"[n % 2]) for e in exams for n in range(60)]
    assert len(set(texts)) > 0.5 * len(texts)
    assert all(0 < len(t) < 160 and "{" not in t for t in texts)
    assert any(t.isupper() for t in texts)
    for exam in load_exams():
        if exam.side:
            other = {"left": "right", "right": "left"}[exam.side]
            assert not any(
                other in write_indication(exam, wording, rates, random.Random(n), "F").lower() for n in range(80)
            )
