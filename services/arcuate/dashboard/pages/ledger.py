"""The accession ledger of journey, as pages read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from arcuate.dashboard import facts
from arcuate.dashboard.rooms import Rooms

STAGES = (
    "ordered",
    "checked",
    "booked",
    "arrived",
    "scanned",
    "quantified",
    "assigned",
    "drafted",
    "signed",
    "delivered",
)
ENDS = ("delivered", "cancelled", "expired")


@dataclass(frozen=True)
class Step:
    """One thing that happened to a case: a stage reached, or a note.

    Attributes:
        kind: "stage" or "note".
        stage: The stage, or the question that the note is about.
    """

    stage: str
    kind: str
    at: datetime
    note: str = ""
    source: str = ""


@dataclass(frozen=True)
class ParkedMessage:
    """A message in the error queue that names a case and was not applied; `item` is the gateway's."""

    item: str
    kind: str
    sender: str
    at: datetime | None
    why: str


@dataclass(frozen=True)
class CaseLine:
    """One case of the ledger; `order` and `patient` are references, empty while unknown.

    Attributes:
        due: Until when it may stand where it stands; None for ever.
        late: That has passed, or a person must decide.
        why_late: What to look at.
        silent: The questions that rooms have not answered, each with what happens meanwhile.
        about: Messages that name the case and were not applied; only where one case is read, None while the gateway is silent.
    """

    id: str
    accession: str
    order: str
    patient: str
    stage: str
    since: datetime
    waits_for: str
    held: str
    steps: tuple[Step, ...] = ()
    due: datetime | None = None
    late: bool = False
    why_late: str = ""
    silent: Mapping[str, str] = field(default_factory=dict)
    about: tuple[ParkedMessage, ...] | None = ()

    @property
    def blocked(self) -> bool:
        """Return whether a hold keeps the case from going on, rather than standing beside it."""
        return bool(self.held) and self.stage == "parked"

    def reached(self, stage: str) -> Step | None:
        """Return the step by which the case reached a stage."""
        return next((s for s in self.steps if s.kind == "stage" and s.stage == stage), None)

    def newest_note(self, *stages: str) -> Step | None:
        """Return the newest note about one of these questions."""
        return next((s for s in reversed(self.steps) if s.kind == "note" and s.stage in stages), None)


@dataclass(frozen=True)
class Ledger:
    """Cases as the ledger lists them.

    Attributes:
        complete: False when the ledger holds more than it lists at once.
    """

    cases: Sequence[CaseLine] = ()
    complete: bool = True
    by_order: Mapping[str, str] = field(default_factory=dict)


_LISTED = 500


async def read_ledger(rooms: Rooms) -> Ledger:
    """Return the newest cases."""
    body = await rooms.get("/journey/cases", {"limit": _LISTED})
    cases = [case_line(row) for row in body["cases"]]
    return Ledger(cases, len(cases) < _LISTED, {c.order: c.id for c in cases if c.order})


async def read_case(rooms: Rooms, case_id: str) -> CaseLine:
    """Return one case.

    Raises:
        NotFound: There is none.
    """
    return case_line(await rooms.get(f"/journey/cases/{case_id}"))


async def read_stuck(rooms: Rooms) -> frozenset[str]:
    """Return the ids of cases that have stood still for too long."""
    body = await rooms.get("/journey/stuck")
    return frozenset(str(row["id"]) for row in body["cases"])


def case_line(row: Mapping[str, Any]) -> CaseLine:
    """Return a row of the ledger's JSON."""
    steps = tuple(
        Step(str(s["stage"]), str(s["kind"]), at, str(s.get("note") or ""), str(s.get("source") or ""))
        for s in row.get("steps") or []
        if (at := facts.instant(s.get("at")))
    )
    since = facts.instant(row.get("since"))
    if since is None:
        raise ValueError("a case of the ledger has no time")
    return CaseLine(
        str(row["id"]), str(row.get("accession") or ""), str(row.get("order") or ""), str(row.get("patient") or ""),
        str(row["stage"]), since, str(row.get("waits_for") or ""), str(row.get("held") or ""), steps, facts.instant(row.get("due")),
        bool(row.get("late")), str(row.get("why_late") or ""), {str(s["ask"]): str(s.get("meanwhile") or "") for s in row.get("silent") or []},
        _about(row.get("about", [])),
    )  # fmt: skip


def _about(rows: Sequence[Mapping[str, Any]] | None) -> tuple[ParkedMessage, ...] | None:
    if rows is None:
        return None
    return tuple(
        ParkedMessage(
            str(one["item"]), str(one.get("kind") or "message"), str(one.get("sender") or "").split("|", maxsplit=1)[0],
            facts.instant(one.get("since")), str(one.get("why") or ""),
        )
        for one in rows
    )  # fmt: skip
