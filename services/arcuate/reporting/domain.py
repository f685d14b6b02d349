"""Types of this field: templates, measured and missing values, passports, drafts. Pure."""

from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from arcuate.reporting.comparisons import Comparisons

IMPRESSION: Final = "[Impression: to be dictated]"
"""Stands where the impression will; it is never filled by the house."""

UNREVIEWED: Final = "machine value, not reviewed"
RESEARCH_USE: Final = (
    "Research use only: the volumes are measured by software that is no medical device. "
    "The reader checks every one against the images."
)


@dataclass(frozen=True)
class Field:
    """One value that a template wants.

    Attributes:
        key: Stable name: `hippocampus-left`.
        label: As the report says it, side in full: `Left hippocampus`.
        structure: Code in `urn:arcuate:cs:structure`, or a code of the system named by `system`.
        side: `left`, `right` or nothing.
        unit: UCUM unit in which it is shown.
        digits: Digits after the point.
        plausible: Limits outside which the value is shown with a warning; they catch mixed units, they are no norm.
    """

    key: str
    label: str
    structure: str
    side: str
    unit: str
    digits: int
    plausible: tuple[Decimal, Decimal]


@dataclass(frozen=True)
class Passport:
    """Where a value comes from and how far it can be believed.

    Attributes:
        series: Which series it was measured on, in words.
        models: `name version (weights SHA-256 …)` for each network that took part.
        quality: How good, on whom; says so when nobody stated it.
        uncertainty: How uncertain; says so when nobody stated it.
        reviewer: Who accepted or corrected it, and when; empty while nobody has.
        machine: What the machine had given, where a person corrected it.
        warnings: What the measurement itself said against the value.
    """

    series: str
    models: tuple[str, ...]
    quality: str
    uncertainty: str
    reviewer: str
    warnings: tuple[str, ...] = ()
    machine: str = ""

    @property
    def state(self) -> str:
        """What the report says beside the value."""
        if self.machine:
            return f"corrected by {self.reviewer}, the machine gave {self.machine}"
        return f"accepted by {self.reviewer}" if self.reviewer else UNREVIEWED


@dataclass(frozen=True)
class Measured:
    """A value for a field.

    Attributes:
        amount: In the field's unit, unrounded.
        source: `Observation/id` of the value, with its version where the record gave one.
        doubt: Why the number itself is doubtful; empty when nothing speaks against it.
    """

    field: Field
    amount: Decimal
    source: str
    passport: Passport
    doubt: str = ""

    @property
    def shown(self) -> str:
        """The number as the report prints it, with its unit."""
        rounded = self.amount.quantize(Decimal(1).scaleb(-self.field.digits), ROUND_HALF_UP)
        return f"{rounded} {self.field.unit}"


@dataclass(frozen=True)
class Missing:
    """A field without a value, and why."""

    field: Field
    reason: str


@dataclass(frozen=True)
class Values:
    """All fields of a template, in its order.

    Attributes:
        further: Measured values of the study for which the template has no field.
        results: References of every Observation that the draft used.
        compared: Sides and dates against each other.
    """

    measured: tuple[Measured, ...]
    missing: tuple[Missing, ...]
    further: int
    results: tuple[str, ...]
    compared: Comparisons = field(default_factory=Comparisons)


@dataclass(frozen=True)
class Section:
    """One section of a draft as checked markup.

    Attributes:
        fault: Why the template's section could not be filled; empty when it could.
    """

    name: str
    html: str
    text: str
    fault: str = ""


@dataclass(frozen=True)
class Change:
    """What is different from the draft before."""

    added: int
    changed: int
    removed: int

    def sentence(self) -> str:
        """Return it as a person reads it."""
        parts = [
            f"{n} {'value' if n == 1 else 'values'} {word}"
            for n, word in zip((self.added, self.changed, self.removed), _WORDS, strict=True)
            if n
        ]
        return ", ".join(parts) or "order, flags or earlier examinations changed"


_WORDS = ("added", "changed", "taken back")


def change(before: dict[str, str], after: dict[str, str]) -> Change:
    """Return the difference between two drafts' values by field."""
    added = sum(key not in before for key in after)
    removed = sum(key not in after for key in before)
    changed = sum(key in after and after[key] != value for key, value in before.items())
    return Change(added, changed, removed)
