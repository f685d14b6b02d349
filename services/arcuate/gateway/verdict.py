"""What can be said of a message at once: its type, the faults of its head, and with that how its frame is answered. Pure."""

from dataclasses import dataclass, replace

from arcuate.gateway.domain import Finding, State, Verdict
from arcuate.gateway.mapping import plan
from arcuate.gateway.profile import Profile
from arcuate.kernel.hl7v2 import ack, inspect
from arcuate.kernel.hl7v2.ack import Error
from arcuate.kernel.hl7v2.header import Header
from arcuate.kernel.hl7v2.inspect import Fault
from arcuate.kernel.hl7v2.message import Message, split

# Table 0357: what the error queue calls a fault of the head, and what the standard calls it.
_CAUSES = {
    "100": ("no header", "Segment sequence error"),
    "101": ("no message type", "Required field missing"),
    "102": ("unreadable", "Data type error"),
    "200": ("unknown message type", "Unsupported message type"),
    "202": ("unknown processing id", "Unsupported processing id"),
    "203": ("unknown version", "Unsupported version id"),
}


@dataclass(frozen=True)
class NewMessage:
    """One message of a frame as the journal keeps it; `keys` are the lines in which its work stands."""

    kind: str
    state: State
    cause: str = ""
    reason: str = ""
    location: str = ""
    condition: str = ""
    note: str = ""
    charset: str = ""
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looked:
    """A message, read and judged by its head.

    Attributes:
        use: What is done with it (`plan.use_of_message`).
    """

    message: Message
    use: str
    row: NewMessage
    finding: Finding


NO_MESSAGE = NewMessage("", State.PARKED, "no header", "There is no MSH segment", "MSH", "100")


def look(raw: bytes, profile: Profile) -> Looked:
    """Read one message and judge its head."""
    message = profile.parse(raw)
    kind, event = plan.message_type(message)
    use = plan.use_of_message(message)
    row = NewMessage(f"{kind}^{event}" if event else kind, State.WAITING, charset=_charset(message))
    if use == "acknowledgement":
        return Looked(message, use, replace(row, state=State.ACKNOWLEDGEMENT), Finding(Verdict.ACKNOWLEDGEMENT))
    found = inspect.faults(message)
    grave = next((fault for fault in found if fault.grave), None)
    if grave is None and use == "unknown":
        grave = Fault("MSH-9", "200", "MSH-9 names no message type that is known here", grave=True)
    if grave is not None:
        return _parked(message, use, row, grave)
    note = "; ".join(fault.words for fault in found)
    if use == "ignored":
        row = replace(row, state=State.IGNORED, note=note or "This event is not used")
    return Looked(message, use, replace(row, note=row.note or note), Finding(Verdict.STORED))


def finding_of(raw: bytes, header: Header | None, profile: Profile) -> Finding:
    """Return how a frame is answered: by the first of its messages that is not simply stored."""
    if header is None:
        return Finding(Verdict.NO_HEADER, ack.NO_HEADER)
    findings = [look(one, profile).finding for one in split(raw).messages]
    if all(found.verdict is Verdict.ACKNOWLEDGEMENT for found in findings):
        return Finding(Verdict.ACKNOWLEDGEMENT)
    first = next((found for found in findings if found.verdict is not Verdict.STORED), Finding(Verdict.STORED))
    return Finding(Verdict.STORED) if first.verdict is Verdict.ACKNOWLEDGEMENT else first


def too_large(kind: str, size: int, limit: int) -> NewMessage:
    """Return the row of a message of which not all was read."""
    return NewMessage(kind, State.PARKED, "too large", f"{size} bytes; the limit is {limit}", "", "207")


def _parked(message: Message, use: str, row: NewMessage, fault: Fault) -> Looked:
    cause, condition = _CAUSES.get(fault.code, ("unreadable", "Data type error"))
    verdict = Verdict.NOT_FOR_US if fault.code in ("200", "202", "203") else Verdict.CONTENT_FAULT
    error = Error(fault.code, condition, fault.words, fault.location.replace("-", "^1^"))
    parked = replace(
        row, state=State.PARKED, cause=cause, reason=fault.words, location=fault.location, condition=fault.code
    )
    return Looked(message, use, parked, Finding(verdict, error))


def _charset(message: Message) -> str:
    return f"{message.charset.name} by {message.charset.source}"
