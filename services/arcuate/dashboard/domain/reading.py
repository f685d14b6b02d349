"""The reader's list: what is due, who has a case, what the machine says of it as facts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from arcuate.dashboard import facts
from arcuate.dashboard.domain.frame import Mark
from arcuate.kernel.codes import CS_STRUCTURE

Json = dict[str, Any]

_LABELS = {
    "why": "Why", "must": "Must", "due": "Due", "load": "Load", "continuity": "Prior", "raised": "Raised", "next-best": "Else",
    "plan": "Plan", "excluded": "Not for",
}  # fmt: skip


@dataclass(frozen=True)
class Lease:
    """Who has a case open, and since when."""

    by: str
    since: datetime


def lease_of(task: Json, now: datetime, length: timedelta) -> Lease | None:
    """Return who has a case open; a lease ends some time after the last act of its holder."""
    if task.get("status") != "in-progress":
        return None
    last = facts.instant(task.get("lastModified"))
    since = facts.instant((task.get("executionPeriod") or {}).get("start")) or last
    if last is None or since is None or now - last > length:
        return None
    return Lease(str((task.get("owner") or {}).get("display") or "another reader"), since)


@dataclass(frozen=True)
class ReceiptLine:
    """One row of a receipt: label and sentence."""

    label: str
    sentence: str


def receipt_lines(receipt: Sequence[Json]) -> tuple[ReceiptLine, ...]:
    """Return a receipt's rows with labels as people say them; unknown labels keep their code."""
    return tuple(ReceiptLine(_LABELS.get(str(r["label"]), str(r["label"])), str(r["sentence"])) for r in receipt)


@dataclass(frozen=True)
class Word:
    """What the machine says, as a fact: never a rank, never "normal" for silence.

    Attributes:
        tone: "", "machine" or "look".
    """

    title: str
    detail: str = ""
    mark: Mark | None = None
    tone: str = ""


def machine_word(observations: Sequence[Json], has_images: bool, note: str, stage: str) -> Word:
    """Return what the machine says of a case.

    Args:
        observations: Measurements of the case's images, refusals among them.
        note: What journey last noted about measuring.
        stage: Where the case stands.
    """
    values = [
        o for o in observations if "valueQuantity" in o and o.get("status") not in ("cancelled", "entered-in-error")
    ]
    if values:
        accepted = sum(o.get("status") in ("final", "amended", "corrected") for o in values)
        state = f"{accepted} accepted" if accepted else "not reviewed"
        number = f"{len(values)} volume{'s' if len(values) > 1 else ''}"
        return Word(f"{number}, {state}", _highlight(values), Mark.MACHINE, "machine")
    refused = next((o for o in observations if "dataAbsentReason" in o and o.get("status") != "cancelled"), None)
    if refused is not None:
        notes = [str(n.get("text") or "") for n in refused.get("note") or []]
        what = _uncapital(str(refused["dataAbsentReason"].get("text") or "see the case"))
        return Word(f"Refused: {what}", " ".join(notes[1:2]), Mark.UNKNOWN, "look")
    if not has_images:
        return Word("No images yet", "read without them until they come", Mark.UNKNOWN)
    if stage == "scanned":
        return Word("Being measured", "about half a minute", Mark.WAITING)
    return Word("Not measured", note or "no tool for this exam", Mark.UNKNOWN)


def _uncapital(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _highlight(values: Sequence[Json]) -> str:
    """Return one pair of values that most readers look for first; sides in full."""
    for wanted in ("hippocampus", "lateral-ventricle"):
        sides = {_side(o): o for o in values if facts.has_code(o.get("code"), CS_STRUCTURE, wanted)}
        if "right" in sides and "left" in sides:
            right, left = _amount(sides["right"]), _amount(sides["left"])
            return f"{wanted.replace('-', ' ')} right {right.split()[0]}, left {left}"
    first = values[0]
    return f"{facts.text_of(first.get('bodySite')) or facts.text_of(first.get('code'))} {_amount(first)}"


def _side(observation: Json) -> str:
    words = facts.text_of(observation.get("bodySite")).lower().split()
    return words[0] if words else ""


def _amount(observation: Json) -> str:
    quantity = observation["valueQuantity"]
    return f"{float(quantity['value']):.1f} {quantity.get('unit') or quantity.get('code') or ''}".strip()


@dataclass(frozen=True)
class Ready:
    """What is there already: a word, and whether it is."""

    word: str
    there: bool


@dataclass(frozen=True)
class CaseRow:
    """One row of a reader's list.

    Attributes:
        due: Until when it is to be read; None when nobody stated it.
        share: Share of the time used.
        tone: "", "look" or "stop" by what is left.
        task: Id and version of the reading Task.
        minutes: Expected reading time; None when assignment does not say.
        owner: Name of its reader; empty on the shared list.
    """

    task: str
    version: str
    case: str
    name: str
    exam: str
    accession: str
    due: datetime | None
    share: float
    tone: str
    word: Word
    why: str
    ready: tuple[Ready, ...]
    minutes: int | None
    owner: str
    mine: bool
    lease: Lease | None
    priority: str
    receipt: tuple[ReceiptLine, ...] = ()
    given: datetime | None = None


def due_tone(due: datetime | None, now: datetime, look_min: float, stop_min: float) -> str:
    """Return how strongly a due time is marked."""
    if due is None:
        return ""
    left = (due - now) / timedelta(minutes=1)
    return "stop" if left < stop_min else "look" if left < look_min else ""


def used_share(begun: datetime | None, due: datetime | None, now: datetime) -> float:
    """Return the share of the time to read that is used, 0 to 1."""
    if begun is None or due is None or due <= begun:
        return 1.0 if due is not None and now >= due else 0.0
    return min(1.0, max(0.0, (now - begun) / (due - begun)))
