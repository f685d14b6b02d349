"""Any order and repetition of the same happenings ends in the same state: the table and its facts, without a record or a network."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from arcuate.journey.domain import Answered, Facts, has_images, scanned
from arcuate.journey.facts import missed
from arcuate.journey.table import load_table

TABLE = load_table()
NOW = datetime(2026, 3, 17, 9, tzinfo=UTC)
_ENOUGH = 60


def stated(kind: str, name: str, version: int, **fields: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": name, "meta": {"versionId": str(version)}, **fields}


def life(kind: str, name: str, *states: str, **fields: Any) -> list[dict[str, Any]]:
    """Return the versions that a resource goes through."""
    return [stated(kind, name, n, status=state, **fields) for n, state in enumerate(states, 1)]


ABOUT = [{"reference": "DiagnosticReport/final"}]
EHR = [{"display": "ehr"}]
VISITS = ((), ("booked",), ("booked", "noshow"), ("booked", "cancelled"), ("booked", "arrived", "fulfilled"))


@st.composite
def happenings(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What happens to one order: every version of every resource once, as the record gives them numbers."""
    found = life(
        "ServiceRequest",
        "order",
        *draw(st.sampled_from((("active",), ("active", "revoked"), ("active", "revoked", "active")))),
    )
    for name in ("first", "second"):
        found += life("Appointment", name, *draw(st.sampled_from(VISITS)), start=f"2026-03-1{len(name)}T09:00:00Z")
    found += life("Procedure", "exam", *draw(st.sampled_from(((), ("in-progress",), ("in-progress", "completed")))))
    found += life("ImagingStudy", "images", *draw(st.sampled_from(((), ("available",), ("available", "available")))))
    reports = draw(st.sampled_from(((), ("preliminary", "final"), ("final",), ("final", "corrected"))))
    found += life("DiagnosticReport", "final", *reports)
    if reports:
        told = draw(st.sampled_from(((), ("in-progress",), ("in-progress", "completed"), ("in-progress", "on-hold"))))
        found += life("Communication", "out-1", *told, about=ABOUT, recipient=EHR, identifier=[{"value": "out-1"}])
        if reports[-1] == "corrected" and told:
            again = draw(st.sampled_from((("in-progress",), ("in-progress", "completed"))))
            found += life("Communication", "out-2", *again, about=ABOUT, recipient=EHR, identifier=[{"value": "out-2"}])
    return found


@dataclass
class Department:
    """The record as one case sees it, and rooms that answer at once.

    A repeated or late change of the feed only says that there is news: what is read is the newest version, as in the record.
    """

    newest: dict[str, dict[str, Any]] = field(default_factory=dict)
    answered: dict[str, Answered] = field(default_factory=dict)
    time_is_up: bool = False

    def take(self, resource: dict[str, Any]) -> None:
        known = self.newest.get(resource["id"])
        if known is None or int(known["meta"]["versionId"]) < int(resource["meta"]["versionId"]):
            self.newest[resource["id"]] = resource
        self.settle()

    def of(self, kind: str) -> tuple[dict[str, Any], ...]:
        return tuple(r for r in self.newest.values() if r["resourceType"] == kind)

    def facts(self) -> Facts:
        order = self.newest.get("order")
        known = Facts(
            order=order, patient=stated("Patient", "p", 1), appointments=self.of("Appointment"), procedures=self.of("Procedure"),
            studies=self.of("ImagingStudy"), observations=self.of("Observation"), flags=self.of("DetectedIssue"),
            tasks=self.of("Task"), reports=self.of("DiagnosticReport"), communications=self.of("Communication"),
            answered=self.answered,
        ) if order else Facts()  # fmt: skip
        overdue = self.time_is_up and scanned(known) and not has_images(known)
        return Facts(**{**known.__dict__, "images_overdue": overdue, "expired": self.time_is_up and missed(known)})

    def settle(self) -> None:
        """Ask until nothing is open."""
        for _ in range(_ENOUGH):
            question = next(iter(TABLE.next_asks(self.facts())), None)
            if question is None:
                return
            ask, mark = question
            self._answer(ask.name)
            self.answered[ask.name] = Answered(mark, NOW)
        raise AssertionError("the questions never end")

    def _answer(self, name: str) -> None:
        match name:
            case "quantify":
                self._write("Observation", "volume", status="preliminary")
            case "assign":
                self._write("Task", "reading", status="accepted", owner={"display": "R"})
            case "draft":
                self._write("DiagnosticReport", "draft", status="preliminary")

    def _write(self, kind: str, name: str, **fields: Any) -> None:
        version = int(self.newest.get(name, {"meta": {"versionId": "0"}})["meta"]["versionId"]) + 1
        self.newest[name] = stated(kind, name, version, **fields)

    def end(self) -> tuple[str, str, list[str]]:
        """Return where the case stands when all time limits have passed, what it waits for, and the open questions."""
        self.time_is_up = True
        self.settle()
        facts = self.facts()
        return *TABLE.standing(facts), [ask.name for ask, _ in TABLE.next_asks(facts)]


@settings(max_examples=300)
@given(happenings(), st.data())
def test_any_order_and_repetition_of_the_same_happenings_ends_in_the_same_state(
    happened: list[dict[str, Any]], data: st.DataObject
) -> None:
    in_order, mixed = Department(), Department()
    for one in happened:
        in_order.take(one)
    again = data.draw(st.lists(st.sampled_from(happened), max_size=8))
    patience = data.draw(st.integers(0, len(happened)))
    for number, one in enumerate(data.draw(st.permutations(happened + again))):
        if number == patience:
            mixed.time_is_up = data.draw(st.booleans())
        mixed.take(one)

    assert mixed.end() == in_order.end()


@settings(max_examples=100)
@given(happenings())
def test_every_case_that_can_be_read_and_is_not_signed_ends_with_a_reader_and_a_draft(
    happened: list[dict[str, Any]],
) -> None:
    department = Department()
    for one in happened:
        department.take(one)
    stage, waits_for, open_questions = department.end()

    assert not open_questions
    if stage in ("scanned", "quantified", "assigned"):
        raise AssertionError(f"{stage} waits for {waits_for} although every room answers")
