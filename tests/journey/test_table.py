"""Where a case stands follows from its facts, whatever the order in which they came."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.journey.domain import Answered, Facts, same_person
from arcuate.journey.table import load_table, mark_of
from arcuate.kernel.errors import Defect

TABLE = load_table()
NOW = datetime(2026, 3, 17, 9, tzinfo=UTC)
STAGES = [stage.name for stage in TABLE.stages]


def resource(kind: str, version: int = 1, **fields: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": kind.lower(), "meta": {"versionId": str(version)}, **fields}


def answered(*names: str) -> dict[str, Answered]:
    return {name: Answered("x", NOW) for name in names}


ORDER = resource("ServiceRequest", status="active")
STUDY = resource("ImagingStudy")
FINAL = resource("DiagnosticReport", status="final")


@pytest.mark.parametrize(
    ("facts", "stage"),
    [
        (Facts(), "waiting"),
        (Facts(order=ORDER), "ordered"),
        (Facts(order=ORDER, answered=answered("check")), "checked"),
        (Facts(order=ORDER, appointments=(resource("Appointment", status="booked"),)), "booked"),
        (Facts(order=ORDER, appointments=(resource("Appointment", status="arrived"),)), "arrived"),
        (Facts(order=ORDER, procedures=(resource("Procedure", status="in-progress"),)), "arrived"),
        (Facts(order=ORDER, procedures=(resource("Procedure", status="completed"),)), "scanned"),
        (Facts(order=ORDER, studies=(STUDY,)), "scanned"),
        (Facts(order=ORDER, studies=(STUDY,), answered=answered("quantify")), "quantified"),
        (
            Facts(order=ORDER, procedures=(resource("Procedure", status="completed"),), images_overdue=True),
            "quantified",
        ),
        (Facts(order=ORDER, studies=(STUDY,), answered=answered("quantify", "assign")), "assigned"),
        (Facts(order=ORDER, reports=(FINAL,)), "signed"),
        (Facts(order={**ORDER, "status": "revoked"}), "cancelled"),
        (Facts(order={**ORDER, "status": "revoked"}, reports=(FINAL,)), "signed"),
        (Facts(order=ORDER, appointments=(resource("Appointment", status="noshow"),), expired=True), "expired"),
        (Facts(order=ORDER, held="names differ"), "parked"),
        (Facts(order=ORDER, studies=(STUDY,), held="names differ"), "scanned"),
        (Facts(order={**ORDER, "status": "revoked"}, held="names differ"), "cancelled"),
    ],
)
def test_a_case_stands_where_its_facts_put_it(facts: Facts, stage: str) -> None:
    assert TABLE.standing(facts)[0] == stage


def test_a_signed_report_is_delivered_only_when_a_receiver_acknowledged_it() -> None:
    about = [{"reference": "DiagnosticReport/diagnosticreport"}]
    other = [{"reference": "DiagnosticReport/draft"}]
    for status, ref, stage in (
        ("in-progress", about, "signed"),
        ("completed", other, "signed"),
        ("completed", about, "delivered"),
    ):
        facts = Facts(
            order=ORDER, reports=(FINAL,), communications=(resource("Communication", status=status, about=ref),)
        )
        assert TABLE.standing(facts)[0] == stage


def delivery(number: int, receiver: str, status: str) -> dict[str, Any]:
    return resource(
        "Communication", status=status, about=[{"reference": "DiagnosticReport/diagnosticreport"}],
        recipient=[{"display": receiver}], identifier=[{"value": f"out-{number}"}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("deliveries", "stage", "waits_for"),
    [
        ([delivery(1, "ehr", "completed"), delivery(2, "ris", "in-progress")], "delivered", ""),
        (
            [delivery(1, "ehr", "completed"), delivery(10, "ehr", "in-progress")],
            "signed",
            "a receiver's acknowledgement",
        ),
        ([delivery(10, "ehr", "completed"), delivery(2, "ehr", "in-progress")], "delivered", ""),
        ([delivery(1, "ehr", "on-hold")], "signed", "a person: a receiver refused the report"),
    ],
)
def test_one_receiver_is_enough_but_who_holds_an_older_version_must_get_the_addendum_too(
    deliveries: list[dict[str, Any]], stage: str, waits_for: str
) -> None:
    facts = Facts(order=ORDER, reports=(FINAL,), communications=tuple(deliveries))
    assert TABLE.standing(facts) == (stage, waits_for)


def test_a_question_is_put_again_only_when_what_it_follows_has_changed() -> None:
    facts = Facts(order=ORDER)
    [(ask, mark)] = [(a, m) for a, m in TABLE.next_asks(facts) if a.name == "check"]
    settled = {"check": Answered(mark, NOW)}

    assert "check" not in {a.name for a, _ in TABLE.next_asks(Facts(order=ORDER, answered=settled))}
    changed = Facts(order=resource("ServiceRequest", 2, status="active"), answered=settled)
    assert "check" in {a.name for a, _ in TABLE.next_asks(changed)}
    assert mark_of(ask, facts) != mark_of(ask, changed)


def asked(facts: Facts) -> set[str]:
    return {ask.name for ask, _ in TABLE.next_asks(facts)}


def test_f051_a_hold_holds_the_reading_of_what_is_in_doubt_and_nothing_else() -> None:
    booked = resource("Appointment", status="booked")
    assert asked(Facts(order=ORDER, appointments=(booked,), held="names differ")) == {"check", "attendance", "wait"}
    done = Facts(order=ORDER, procedures=(resource("Procedure", status="completed"),), images_overdue=True)
    assert {"assign", "draft"} <= asked(done)
    assert asked(replace(done, held="names differ")) == {"check"}
    assert TABLE.standing(replace(done, held="names differ"))[0] == "parked"
    own = replace(done, studies=(STUDY,), answered=answered("quantify"), held="names differ")
    assert {"quantify", "assign", "draft"} <= asked(own)
    assert TABLE.standing(replace(own, reports=(FINAL,)))[0] == "signed"


def test_nothing_is_asked_for_a_cancelled_or_a_signed_case() -> None:
    for facts in (
        Facts(order={**ORDER, "status": "revoked"}, studies=(STUDY,)),
        Facts(order={**ORDER, "status": "revoked"}, held="names differ"),
        Facts(order=ORDER, studies=(STUDY,), reports=(FINAL,)),
    ):
        assert not list(TABLE.next_asks(facts))


def test_a_table_that_names_an_unknown_condition_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stages.toml"
    path.write_text(
        '[[stage]]\nname="x"\nreached="no_such"\nwaits_for=""\n[[ask]]\nname="a"\nwhen=[]\nfollows=[]\noperation=""\ntakes=[]\nlimit=""\nsilent=""\n'
    )
    with pytest.raises(Defect, match="no_such"):
        load_table(path)


@given(
    st.permutations(
        [ORDER, STUDY, resource("Appointment", status="fulfilled"), resource("Procedure", status="completed"), FINAL]
    )
)
def test_any_order_and_repetition_of_the_facts_gives_the_same_end_and_stages_never_fall_back(
    arriving: list[dict[str, Any]],
) -> None:
    seen: dict[str, dict[str, Any]] = {}
    stages = []
    for fact in itertools.chain(arriving, arriving):
        seen[fact["resourceType"]] = fact
        facts = Facts(
            order=seen.get("ServiceRequest"),
            studies=tuple(filter(None, [seen.get("ImagingStudy")])),
            appointments=tuple(filter(None, [seen.get("Appointment")])),
            procedures=tuple(filter(None, [seen.get("Procedure")])),
            reports=tuple(filter(None, [seen.get("DiagnosticReport")])),
        )
        stages.append(TABLE.standing(facts)[0] if facts.order else "ordered")

    positions = [STAGES.index(stage) for stage in stages]
    assert positions == sorted(positions)
    assert stages[-1] == "signed"


def person(number: str = "1", system: str | None = "urn:a", family: str = "", birth: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"identifier": [{"system": system, "value": number} if system else {"value": number}]}
    if family:
        made["name"] = [{"family": family}]
    if birth:
        made["birthDate"] = birth
    return made


@pytest.mark.parametrize(
    ("known", "said", "conflict"),
    [
        (person(), person("2"), True),
        (person(), person("1", None), False),
        (person(), person("2", None), True),
        (person(family="A", birth="1950-01-01"), person(family="B", birth="1960-01-01"), True),
        (person(family="A", birth="1950-01-01"), person(family="B", birth="1950-01-01"), False),
        (person(family="A", birth="1950-01-01"), person(family="a"), False),
        (person(family="A"), person(family="B"), False),
    ],
)
def test_identity_conflicts_by_number_or_by_name_and_birth_date_together(
    known: dict[str, Any], said: dict[str, Any], conflict: bool
) -> None:
    assert bool(same_person(known, said)) is conflict
