"""The state machine of a Unified Procedure Step (DICOM PS3.4 annex CC), pure: a workitem and a request in, a workitem or a refusal out.

A refusal carries the status code of PS3.4 CC.2 beside the HTTP status of PS3.18 chapter 11: 400 where the transaction UID is
missing or wrong, 409 where the request does not fit the state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydicom.uid import UID

from arcuate.kernel.errors import ArcuateError, BadInput

Attributes = Mapping[str, Any]  # DICOM JSON model, PS3.18 F

STATE, TRANSACTION, SOP_CLASS, SOP_UID = "00741000", "00081195", "00080016", "00080018"
PERFORMED, STARTED, ENDED, OUTPUT = "00741216", "00404050", "00404051", "00404033"
PROGRESS, CANCEL_REASON = "00741002", "00741238"
UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
# What a worklist can do without, but not a performer (PS3.4 table CC.2.5-3, required at creation).
REQUIRED = {"00741200": "Scheduled Procedure Step Priority", "00741204": "Procedure Step Label"}
# What only states, never an update, may change.
_FIXED = (STATE, TRANSACTION, SOP_CLASS, SOP_UID)


class State(StrEnum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


FINAL = frozenset({State.COMPLETED, State.CANCELED})


@dataclass(frozen=True)
class Workitem:
    """One step of work.

    Attributes:
        transaction: Of whoever performs it; secret, never part of an answer.
        attributes: Everything else, without state and transaction UID.
        cancel_requested: Somebody has asked the performer to stop.
    """

    uid: str
    state: State
    transaction: str | None
    attributes: Attributes
    cancel_requested: bool = False

    def dataset(self) -> dict[str, Any]:
        """Return it as a worklist shows it."""
        return dict(self.attributes) | {
            SOP_CLASS: {"vr": "UI", "Value": [UPS_PUSH]},
            SOP_UID: {"vr": "UI", "Value": [self.uid]},
            STATE: {"vr": "CS", "Value": [self.state.value]},
        }


class UpsRefused(ArcuateError):
    """A request that the state machine refuses; `ups_code` is the status of PS3.4 CC.2."""

    status, issue_type = 409, "conflict"

    def __init__(self, ups_code: int, what: str) -> None:
        super().__init__(f"{what} ({ups_code:04X})")
        self.ups_code = ups_code


class NotThePerformer(UpsRefused):
    """The transaction UID is missing or wrong (C301)."""

    status = 400

    def __init__(self, what: str) -> None:
        super().__init__(0xC301, what)


@dataclass(frozen=True)
class Changed:
    """The workitem after a request, and a warning where nothing had to change (PS3.4: B304, B306)."""

    item: Workitem
    warning: str | None = None


def value(attributes: Attributes, tag: str) -> str:
    """Return the first value of an attribute as text, or nothing."""
    found = attributes.get(tag)
    listed = found.get("Value") if isinstance(found, Mapping) else None
    return str(listed[0]).strip() if isinstance(listed, list) and listed and listed[0] is not None else ""


def created(uid: str, attributes: Attributes) -> Workitem:
    """Return a new workitem.

    Raises:
        BadInput: It is not SCHEDULED, states a transaction UID, has a bad UID or lacks what a performer needs.
    """
    if not UID(uid, 0).is_valid:
        raise BadInput("The workitem's UID is no legal UID", where=SOP_UID)
    if value(attributes, STATE) != State.SCHEDULED:
        raise BadInput("A workitem begins as SCHEDULED (C309)", where=STATE)
    if value(attributes, TRANSACTION):
        raise BadInput("A new workitem has no transaction UID", where=TRANSACTION)
    for tag, name in REQUIRED.items():
        if not value(attributes, tag):
            raise BadInput(f"{name} is missing or empty", where=tag)
    return Workitem(uid, State.SCHEDULED, None, _open(attributes))


def updated(item: Workitem, attributes: Attributes, transaction: str | None) -> Workitem:
    """Return the workitem with new values; an attribute replaces the one before.

    Raises:
        UpsRefused: C300 in a final state, C301 where the transaction UID is missing or wrong.
        BadInput: It tries to change the state or the identity.
    """
    if item.state in FINAL:
        raise UpsRefused(0xC300, "The workitem may no longer be updated")
    if item.state is State.IN_PROGRESS:
        _check_transaction(item, transaction)
    elif transaction:
        raise UpsRefused(0xC310, "The workitem is not yet IN PROGRESS: it has no transaction UID")
    for tag in (STATE, SOP_CLASS, SOP_UID):
        if tag in attributes and value(attributes, tag) != value(item.dataset(), tag):
            raise BadInput(
                "An update cannot change state, class or UID", where=tag, todo="Change the state at .../state."
            )
    return replace(item, attributes=dict(item.attributes) | _open(attributes))


def moved(item: Workitem, wanted: str, transaction: str | None) -> Changed:
    """Return the workitem in another state (PS3.4 table CC.1.1-2).

    Raises:
        UpsRefused: The transition is not one, or the transaction UID is missing or wrong.
        BadInput: There is no such state.
    """
    if wanted not in set(State):
        raise BadInput("There is no such Procedure Step State", where=STATE)
    state = State(wanted)
    if not transaction or not UID(transaction, 0).is_valid:
        raise NotThePerformer("The transaction UID is missing or no UID")
    if state is State.SCHEDULED:
        raise UpsRefused(0xC303, "Only a new workitem is SCHEDULED")
    if item.state in FINAL:
        if state is item.state:
            _check_transaction(item, transaction)
            code = "B304" if state is State.CANCELED else "B306"
            return Changed(item, f"The workitem is already {state} ({code})")
        raise UpsRefused(0xC300, f"The workitem is {item.state} and may no longer be updated")
    if item.state is State.SCHEDULED:
        if state is not State.IN_PROGRESS:
            raise UpsRefused(0xC310, "The workitem is not yet IN PROGRESS")
        return Changed(replace(item, state=state, transaction=transaction))
    if state is State.IN_PROGRESS:
        raise UpsRefused(0xC302, "The workitem is already IN PROGRESS")
    _check_transaction(item, transaction)
    if state is State.COMPLETED and not _performed(item.attributes):
        raise UpsRefused(0xC304, "Its performed procedure has no start, end and output yet: it cannot be COMPLETED")
    return Changed(replace(item, state=state))


def cancellation_requested(item: Workitem) -> Changed:
    """Return the workitem after somebody asked to cancel it: at once where nobody has begun, else the performer is asked.

    Raises:
        UpsRefused: C311, it is COMPLETED.
    """
    if item.state is State.CANCELED:
        return Changed(item, "The workitem is already CANCELED (B304)")
    if item.state is State.COMPLETED:
        raise UpsRefused(0xC311, "The workitem is already COMPLETED")
    if item.state is State.SCHEDULED:
        return Changed(replace(item, state=State.CANCELED, cancel_requested=True))
    return Changed(replace(item, cancel_requested=True))


def _check_transaction(item: Workitem, transaction: str | None) -> None:
    if not transaction:
        raise NotThePerformer("The transaction UID is missing")
    if transaction != item.transaction:
        raise NotThePerformer("The transaction UID is not the one that this workitem was begun with")


def _performed(attributes: Attributes) -> bool:
    """Whether the final state requirements of COMPLETED are met: start, end and the (possibly empty) list of outputs."""
    items = (attributes.get(PERFORMED) or {}).get("Value") or [{}]
    first = items[0] if isinstance(items[0], Mapping) else {}
    return bool(value(first, STARTED) and value(first, ENDED)) and OUTPUT in first


def _open(attributes: Attributes) -> dict[str, Any]:
    return {tag: found for tag, found in attributes.items() if tag not in _FIXED}
