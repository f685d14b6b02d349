"""Decisions of the gateway: states of a message, how a frame is answered, who belongs to which queue. Pure."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from arcuate.gateway.profile import Profile
from arcuate.kernel.hl7v2 import ack, mllp
from arcuate.kernel.hl7v2.ack import Code, Error
from arcuate.kernel.hl7v2.header import Header


class State(StrEnum):
    """Where a message stands."""

    WAITING = "waiting"  # stored and answered, not mapped yet
    APPLIED = "applied"
    IGNORED = "ignored"  # known and not used, or older than what stands
    ACKNOWLEDGEMENT = "acknowledgement"
    PARKED = "parked"  # a person must look
    UNMATCHED = "unmatched"  # a result that waits for its order
    KEPT = "kept"  # a cancellation that waits for its order
    DISCARDED = "discarded"
    EXPIRED = "expired"  # waited in vain


class Verdict(StrEnum):
    """What the door can say about a frame at once."""

    STORED = "stored"
    CONTENT_FAULT = "content fault"
    NOT_FOR_US = "not for us"
    NO_HEADER = "no header"
    TOO_LARGE = "too large"  # over the limit for keeping: refused
    ACKNOWLEDGEMENT = "acknowledgement"
    NOT_STORED = "not stored"


@dataclass(frozen=True)
class Answer:
    """What goes back over the wire: nothing, one acknowledgement, or an accept and an application acknowledgement.

    Attributes:
        code: The code that decides (AA, AE, AR, CA, CE, CR), "" for none.
        close: The connection is closed after it.
    """

    code: str = ""
    wire: bytes = b""
    close: bool = False


@dataclass(frozen=True)
class Finding:
    """What the door found in a frame."""

    verdict: Verdict
    error: Error | None = None


def answer(header: Header | None, finding: Finding, profile: Profile, control_id: str, now: datetime) -> Answer:
    """Return the answer to a frame by FAULTS section 0; `control_id` is the answer's own MSH-10 (18 characters at most)."""
    verdict, error = finding.verdict, finding.error
    if verdict is Verdict.ACKNOWLEDGEMENT:
        return Answer()
    if header is None or verdict in (Verdict.NO_HEADER, Verdict.TOO_LARGE):
        refused = ack.build(header, "AR", control_id, now, error)
        return Answer("AR", mllp.frame(refused), close=verdict is Verdict.TOO_LARGE)
    if verdict is Verdict.NOT_STORED and profile.storage_fault == "close":
        return Answer(close=True)
    if header.enhanced:
        return _enhanced(header, finding, profile, control_id, now)
    code = _original(verdict, profile)
    return Answer(code, mllp.frame(ack.build(header, code, control_id, now, error if code != "AA" else None)))


def _original(verdict: Verdict, profile: Profile) -> Code:
    if verdict is Verdict.NOT_STORED:
        return "AR"
    if verdict is Verdict.STORED or profile.content_fault == "AA":
        return "AA"
    return "AR" if verdict is Verdict.NOT_FOR_US else "AE"


def _enhanced(header: Header, finding: Finding, profile: Profile, control_id: str, now: datetime) -> Answer:
    """MSH-15 asks for the accept acknowledgement, MSH-16 for the application acknowledgement (2.9.3)."""
    verdict = finding.verdict
    negative = profile.content_fault == "AE"
    accept: Code = "CA"
    if verdict is Verdict.NOT_STORED:
        accept = "CE"
    elif verdict is Verdict.NOT_FOR_US and negative:
        accept = "CR"
    wire = b""
    if _asked(header.field(15), positive=accept == "CA", absent=False):
        error = finding.error if accept != "CA" else None
        wire += mllp.frame(ack.build(header, accept, control_id + "c", now, error))
    if accept != "CA":
        # Not accepted: there is nothing to acknowledge later. Who wants no accept acknowledgement learns it by the lost connection.
        return Answer(accept, wire, close=verdict is Verdict.NOT_STORED and not wire)
    application: Code = "AE" if negative and verdict is Verdict.CONTENT_FAULT else "AA"
    if _asked(header.field(16), positive=application == "AA", absent=False):
        error = finding.error if application != "AA" else None
        wire += mllp.frame(ack.build(header, application, control_id + "a", now, error))
    return Answer(accept, wire)


def _asked(condition: bytes, *, positive: bool, absent: bool) -> bool:
    """Table 0155. A condition that is no code of it is answered: no sender waits in vain."""
    match condition.strip():
        case b"":
            return absent
        case b"NE":
            return False
        case b"ER":
            return not positive
        case b"SU":
            return positive
        case _:
            return True


def storable(text: str) -> str:
    """Return text as every database keeps it: bytes of no character set and NUL are replaced."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def queue_key(kind: str, value: str) -> str:
    """Return the name under which work on one patient or order stands in line: a hash, not the number."""
    return f"{kind}:{hashlib.sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}"


def queue_keys(patients: Iterable[str], orders: Iterable[str]) -> tuple[str, ...]:
    """Return the lines that a message stands in, at most 16.

    Patients stand in line by the value of their number alone: two systems of one hospital may call the same assigner differently.
    """
    keys = [queue_key("p", one.split("|", 1)[-1]) for one in patients] + [queue_key("o", one) for one in orders]
    return tuple(dict.fromkeys(keys))[:16]
