"""How things are said: names of classes, sentences about what could not run, texts made safe for a card."""

import re
import unicodedata
from collections.abc import Iterable

from arcuate.protocoling.domain import Decision, FlagClass

CLASS_NAMES: dict[FlagClass, str] = {
    FlagClass.MRI_SAFETY: "MR safety",
    FlagClass.CONTRAST_RENAL: "Contrast and kidneys",
    FlagClass.CONTRAST_ALLERGY: "Contrast allergy",
    FlagClass.PREGNANCY: "Pregnancy",
    FlagClass.RADIATION: "Radiation",
    FlagClass.LATERALITY: "Side",
    FlagClass.BODY_PART: "Body part",
    FlagClass.DUPLICATE: "Duplicate",
    FlagClass.INDICATION_EXAM: "Exam against question",
    FlagClass.PROTOCOL: "Contrast or technique",
    FlagClass.PRIORITY: "Priority",
    FlagClass.MISSING: "Missing information",
    FlagClass.SEDATION: "Preparation",
    FlagClass.IDENTITY: "Identity",
    FlagClass.APPROPRIATENESS: "Appropriateness",
}

NOT_IN_CATALOGUE = "The exam is not in the catalogue: checks by exam did not run."
NO_CONTRAST_STATED = "The order does not say whether contrast is given: checks of contrast did not run."

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~&])")


def printable(text: str) -> str:
    """Return a text on one line without control characters."""
    return " ".join("".join(c if unicodedata.category(c)[0] != "C" else " " for c in text).split())


def markdown(text: str) -> str:
    """Return a text that Markdown shows as it stands: no markup, no link, no HTML."""
    return _MARKDOWN.sub(r"\\\1", printable(text)).replace("://", ":\u200b//")


def short(text: str, length: int = 139) -> str:
    """Return a card's summary: one line under 140 characters."""
    line = printable(text)
    return line if len(line) <= length else line[: length - 1].rsplit(" ", 1)[0] + "…"


def could_not_run(
    decision: Decision, missing: Iterable[str] = (), partial: Iterable[str] = (), extra: Iterable[str] = ()
) -> str:
    """Return the sentence about what could not be checked, or nothing when all was.

    Args:
        missing: Kinds of data that were not sent.
        partial: Kinds of which only the first page was sent.
        extra: Further sentences.
    """
    parts = list(extra)
    if missing := list(missing):
        parts.append(f"Not sent: {', '.join(dict.fromkeys(missing))}.")
    if partial := list(partial):
        parts.append(f"Only the first page was sent of: {', '.join(dict.fromkeys(partial))}.")
    classes = list(dict.fromkeys(CLASS_NAMES[u.flag_class] for u in decision.undecided))
    reasons = list(dict.fromkeys(u.why for u in decision.undecided))
    if classes:
        parts.append(f"Checks incomplete: {', '.join(classes)} ({'; '.join(reasons)}).")
    return " ".join((*parts, *decision.notes))
