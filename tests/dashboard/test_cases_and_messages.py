"""Pure decisions of the case page, the reader's list, connections and parked messages."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.dashboard.domain import case as cases
from arcuate.dashboard.domain import integration, reading
from arcuate.dashboard.domain.case import Reached, Way
from arcuate.dashboard.domain.frame import Mark
from arcuate.dashboard.domain.integration import Traffic
from arcuate.dashboard.pages.case import measured_rows
from arcuate.dashboard.words import Wording

NOW = datetime(2026, 3, 17, 12, 42, tzinfo=UTC)
SAY = Wording(NOW, ZoneInfo("Europe/Zurich"))


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def test_a_late_begin_is_marked_on_the_way_to_it() -> None:
    reached = {"arrived": Reached(ago(95)), "scanned": Reached(ago(60), ago(25))}

    made = cases.stops(Way(reached, "scanned", planned=ago(86)), SAY)

    scanned = made[cases.STAGES.index("scanned")]
    assert (scanned.late, scanned.since, scanned.when) == (True, "35 min wait", "12:42 to 13:17")


def test_a_stage_that_nobody_told_is_hollow_and_what_is_next_says_when() -> None:
    made = cases.stops(Way({"ordered": Reached(ago(60)), "arrived": Reached(ago(5))}, "arrived", planned=NOW), SAY)

    assert [s.state for s in made] == [
        "done",
        "skipped",
        "skipped",
        "done",
        "now",
        "ahead",
        "ahead",
        "ahead",
        "ahead",
        "ahead",
    ]
    assert made[4].when == "13:42"


def test_a_cancelled_case_expects_nothing_more() -> None:
    made = cases.stops(Way({"ordered": Reached(ago(60)), "checked": Reached(ago(59))}, "cancelled"), SAY)

    assert {s.state for s in made[2:]} == {"skipped"}
    assert made[2].when == "cancelled"


def test_a_case_past_its_due_time_says_late() -> None:
    reached = {name: Reached(ago(60)) for name in cases.STAGES[:8]}

    signed = cases.stops(Way(reached, "drafted", due=ago(7)), SAY)[8]

    assert (signed.state, signed.when, signed.late) == ("now", "due 13:35", True)


def test_a_draft_shows_what_a_person_must_state_and_what_nobody_has_reviewed() -> None:
    text = """EXAM
MRI brain

INDICATION, AS TYPED
> headache, worse since March
Right hippocampus: 2.31 mL [1] (machine value, not reviewed)
Left hippocampus: 0.31 mL [1], outside what is plausible (machine value, not reviewed)
Third ventricle: 1.20 mL [1] (accepted by Reader-04)
[Findings: to be dictated]
"""

    made = cases.draft_lines(text)

    kinds = ["head", "plain", "blank", "head", "quote", "machine", "machine", "plain", "open"]
    assert [line.kind for line in made] == kinds
    assert made[3].text == "Indication, as typed"
    assert made[4].text == "headache, worse since March"
    assert (made[5].text, made[5].value, made[5].after) == (
        "Right hippocampus:", "2.31 mL", "[1] (machine value, not reviewed)"
    )  # fmt: skip
    assert "outside what is plausible" in made[6].after


@given(st.text())
def test_any_draft_text_can_be_shown_whole(text: str) -> None:
    shown = "".join(line.text + line.value + line.after for line in cases.draft_lines(text))

    assert sum(c.isalnum() for c in shown) <= sum(c.isalnum() for c in text) + 1
    assert len(cases.draft_lines(text)) >= 1


def observation(structure: str, side: str, value: str, status: str = "preliminary") -> dict[str, Any]:
    coding = {"left": "7771000", "right": "24028007"}.get(side)
    site = {
        "text": f"{side} {structure}",
        "coding": [{"system": "http://snomed.info/sct", "code": coding}] if coding else [],
    }
    return {
        "resourceType": "Observation", "status": status, "bodySite": site, "valueQuantity": {"value": Decimal(value), "unit": "mL"},
        "code": {"coding": [{"system": "urn:arcuate:cs:structure", "code": structure, "display": structure}]},
    }  # fmt: skip


def test_sides_stand_beside_each_other_and_a_row_is_reviewed_only_when_both_are() -> None:
    rows = measured_rows([
        observation("hippocampus", "right", "2.31", "final"), observation("hippocampus", "left", "2.74"), observation("third-ventricle", "", "1.2"),
        observation("brainstem", "", "20", "cancelled"),
    ])  # fmt: skip

    assert [r.code for r in rows] == ["hippocampus", "third-ventricle"]
    assert rows[0].values == {"right": Decimal("2.31"), "left": Decimal("2.74")}
    assert not rows[0].reviewed
    assert rows[0].difference == "left 17 % larger"


def test_silence_of_a_machine_is_never_shown_as_normal() -> None:
    refused = {
        "resourceType": "Observation",
        "dataAbsentReason": {"text": "Movement"},
        "note": [{"text": "Movement."}, {"text": "Scan again."}],
    }

    assert reading.machine_word([], False, "", "assigned").title == "No images yet"
    assert reading.machine_word([], True, "", "scanned").title == "Being measured"
    assert reading.machine_word([], True, "", "drafted").title == "Not measured"
    assert reading.machine_word([refused], True, "", "drafted").title == "Refused: movement"
    assert (
        "not reviewed" in reading.machine_word([observation("hippocampus", "right", "2.3")], True, "", "drafted").title
    )


def test_a_lease_ends_by_itself() -> None:
    task = {"status": "in-progress", "owner": {"display": "Reader-07"}, "lastModified": ago(9).isoformat()}

    lease = reading.lease_of(task, NOW, timedelta(minutes=10))

    assert lease is not None
    assert lease.by == "Reader-07"
    assert reading.lease_of({**task, "lastModified": ago(11).isoformat()}, NOW, timedelta(minutes=10)) is None
    assert reading.lease_of({**task, "status": "accepted"}, NOW, timedelta(minutes=10)) is None


def test_a_sender_is_quiet_only_against_its_own_habit() -> None:
    each_minute = Traffic(tuple(ago(14 + i) for i in range(40)))
    few = Traffic(tuple(ago(14 + i) for i in range(5)))

    assert integration.quiet(ago(14), each_minute, NOW) == "14 min, usual 1 min"
    assert integration.quiet(ago(14), few, NOW) == ""
    assert integration.quiet(ago(5), each_minute, NOW) == ""


def test_a_curve_is_drawn_only_when_the_whole_hour_is_known() -> None:
    known = Traffic((ago(0.5), ago(0.6), ago(59.5), ago(61)))

    assert known.per_minute(NOW) == [1, *[0] * 58, 2]
    assert Traffic(known.times, complete=False).per_minute(NOW) is None


def test_a_message_without_an_end_is_counted_as_lost() -> None:
    rows, lost = integration.accounted(10, {"applied": 7, "parked": 2})

    assert lost == 1
    assert dict(rows)["Parked with a reason"] == 2


MESSAGE = "MSH|^~\\&|RIS|NG|ARCUATE|NG|20260317131604||ORM^O01|71183|P|2.3.1\rPID|1||SYN0455^^^NG^MR||DOE^SYN||19710231|F\rOBX|1||a\rOBX|2||b\r"


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("PID", 7), "197102", "DOE^SYN||197102|F"), (("PID", 11), "x", "19710231|F|||x"), (("MSH", 9), "ORU^R01", "||ORU^R01|71183"),
        (("MSH", 3), "LAB", "MSH|^~\\&|LAB|NG"),
    ],
)  # fmt: skip
def test_mending_one_field_leaves_every_other_byte(place: tuple[str, int], value: str, expected: str) -> None:
    made = integration.mended(MESSAGE, *place, value)

    assert expected in made
    assert made.count("\r") == MESSAGE.count("\r")


@given(
    st.sampled_from(["PID", "OBX"]),
    st.integers(1, 40),
    st.text(st.characters(blacklist_characters="\r\n|"), max_size=20),
)
def test_mending_changes_one_segment_only(segment: str, number: int, value: str) -> None:
    before, after = MESSAGE.split("\r"), integration.mended(MESSAGE, segment, number, value).split("\r")

    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert len(changed) <= 1
    assert after[next(i for i, line in enumerate(after) if line[:3] == segment)].split("|")[number] == value


def test_the_largest_group_of_parked_messages_comes_first_and_what_is_left_out_is_counted() -> None:
    items = [
        integration.ParkedItem(f"in-{i}", "no patient" if i else "no order", "ORM^O01", "RIS", NOW, "parked")
        for i in range(9)
    ]

    groups = integration.grouped(items, {"no order": 1, "no patient": 40}, 6)

    assert [(g.cause, g.count, len(g.items)) for g in groups] == [("no patient", 40, 6), ("no order", 1, 1)]


def test_a_case_that_stops_has_a_mark_with_a_shape() -> None:
    assert {m.value for m in Mark} >= {"stop", "look", "done", "waiting", "unknown", "machine", "person", "running"}
