"""What a mapping takes and gives: a message and what stands in the record; entries of a transaction, or why there are none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.fhir.bundle import Entry, reference_id


class ContentFault(BadInput):
    """The message cannot be applied and waits for a person.

    Args:
        cause: Short words by which the error queue groups.
        reason: One sentence without patient data.
        where: Segment and field.
        condition: Code of HL7 table 0357.
    """

    def __init__(self, cause: str, reason: str, where: str = "", condition: str = "207") -> None:
        super().__init__(reason, where=where)
        self.cause = cause
        self.condition = condition


def identity_conflict(reason: str, where: str) -> ContentFault:
    """Return the fault of a message whose patient is not the one that stands there (row 025)."""
    return ContentFault("identity conflict", reason, where, "204")


class WaitKind(StrEnum):
    """Why a message waits for an order."""

    RESULT = "unmatched"
    CANCEL = "kept"
    BOOKING = "link"


@dataclass(frozen=True)
class Wait:
    """A message waits for the order with this identifier token."""

    kind: WaitKind
    token: str
    event_at: datetime


@dataclass(frozen=True)
class Mapped:
    """What a message becomes.

    Attributes:
        made: In words, for people: "order new", "patient changed".
        orders: Tokens of the orders that it states; whoever waits for one of them is tried again.
        waits: Orders that it waits for.
        marks: Newest event time by key, so that a later message with an older event changes nothing.
        note: Why nothing was done, or a warning.
        stale: True when something newer stands; nothing is changed.
    """

    entries: Sequence[Entry] = ()
    made: Sequence[str] = ()
    orders: Sequence[str] = ()
    waits: Sequence[Wait] = ()
    marks: Mapping[str, datetime] = field(default_factory=dict)
    note: str = ""
    stale: bool = False


def token(identifier: Json) -> str:
    """Return `system|value` of an Identifier, as searches and our own tables write it."""
    return f"{identifier.get('system', '')}|{identifier.get('value', '')}"


def tokens(resource: Json) -> list[str]:
    """Return the tokens of all identifiers of a resource."""
    found = resource.get("identifier") or []
    return [token(one) for one in ([found] if isinstance(found, dict) else found)]


def with_identifiers(current: Sequence[Json], stated: Sequence[Json | None]) -> list[Json]:
    """Return the identifiers that stand and those that are new; the same number is not listed twice."""
    kept = list(current)
    known = {token(one) for one in kept}
    for one in stated:
        if one is not None and token(one) not in known:
            known.add(token(one))
            kept.append(one)
    return kept


@dataclass(frozen=True)
class Standing:
    """What the record and our own tables hold of what a message names.

    Attributes:
        patients: By identifier token; merges are followed, so it is the patient who counts.
        literal: By identifier token; the patient who carries the number, merged away or not.
        successor: Id of a merged patient to the id of the one who counts.
        resources: Other resources by type, each once.
        cancels: Tokens of orders with a cancellation, and when it happened.
        marks: Newest event time by key.
    """

    patients: Mapping[str, Json] = field(default_factory=dict)
    literal: Mapping[str, Json] = field(default_factory=dict)
    successor: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    cancels: Mapping[str, datetime] = field(default_factory=dict)
    marks: Mapping[str, datetime] = field(default_factory=dict)

    def find(self, resource_type: str, wanted: Sequence[str]) -> list[Json]:
        """Return the resources of a type that carry one of the tokens; those with an earlier token come first."""
        found: list[Json] = []
        for one in wanted:
            for resource in self.resources.get(resource_type, ()):
                if resource not in found and one in tokens(resource):
                    found.append(resource)
        return found

    def is_of(self, resource: Json, patient: Json | None) -> bool:
        """Say whether a resource's subject is this patient, merges followed."""
        subject = reference_id(resource.get("subject"), "Patient")
        if subject is None or patient is None or "id" not in patient:
            return False
        return self.successor.get(subject, subject) == self.successor.get(patient["id"], patient["id"])
