"""Types of this field: an exam, a rule, a flag, and the three-valued facts that rules are asked about. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class FlagClass(StrEnum):
    """The classes of flags: the codes of `urn:arcuate:cs:flag`."""

    MRI_SAFETY = "mri_safety"
    CONTRAST_RENAL = "contrast_renal"
    CONTRAST_ALLERGY = "contrast_allergy"
    PREGNANCY = "pregnancy"
    RADIATION = "radiation"
    LATERALITY = "laterality"
    BODY_PART = "body_part_mismatch"
    DUPLICATE = "duplicate"
    INDICATION_EXAM = "indication_exam_mismatch"
    PROTOCOL = "protocol_mismatch"
    PRIORITY = "priority_mismatch"
    MISSING = "missing_information"
    SEDATION = "sedation_prep"
    IDENTITY = "identity"
    APPROPRIATENESS = "appropriateness"


TOPIC_PROTOCOL: Final = "protocol"
"""Topic of a card that only suggests a protocol; not a flag."""

TOPIC_INCOMPLETE: Final = "incomplete"
"""Topic of a card that says which checks could not run; not a flag."""

HOLD: Final = "HOLD"
"""The protocol name that says: somebody must answer first."""


class Severity(StrEnum):
    """Whether a flag stops the signer or informs."""

    INTERRUPTIVE = "interruptive"
    PASSIVE = "passive"


class Absent:
    """The value of a fact that was looked for and is not on file; every comparison with it is false.

    It differs from None, which means that nobody could look: a rule that needs such a fact stays undecided.
    """

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "not on file"


ABSENT: Final = Absent()

Value = str | int | float | bool | tuple[str, ...] | Absent | None
"""What a fact may be: known, ABSENT (looked for, not there) or None (could not be looked for)."""


@dataclass(frozen=True)
class Exam:
    """An orderable exam by its attributes; rules ask for these and never for a code.

    Attributes:
        code: Code in `urn:arcuate:cs:exam`, or empty where the order's text was understood without one.
        modality: `MR`, `CT`, `RF`, `XA`, or None when it is not known.
        region: Region as in the catalogue; None when it is not known.
        contrast: `none`, `gbca`, `iodinated`, `intrathecal`; None when the order does not say.
        side: `left`, `right`, `bilateral`, or None for an exam without a side.
        technique: Words of the name that narrow what the exam can answer: rapid, functional, angiography, venography, ...
        phases: 2 when it is done without and with contrast.
        source: `catalogue`, `text` or `unknown`.
    """

    code: str = ""
    display: str = ""
    modality: str | None = None
    region: str | None = None
    contrast: str | None = None
    side: str | None = None
    technique: tuple[str, ...] = ()
    phases: int = 1
    source: str = "unknown"

    @property
    def known(self) -> bool:
        """True when modality and region are known."""
        return self.modality is not None and self.region is not None


@dataclass(frozen=True)
class Fix:
    """What one key does about a flag.

    Attributes:
        sentence: What to do, as a person says it.
        action: `""` (nothing to press), `set_priority`, `replace_exam`, `withdraw` or `order_egfr`.
        argument: What the action needs: a priority, or the attributes of the exam that fits.
    """

    sentence: str
    action: str = ""
    argument: str = ""


@dataclass(frozen=True)
class Flag:
    """One rule that fired on one order."""

    rule: str
    version: int
    flag_class: FlagClass
    severity: Severity
    sentence: str
    fix: Fix
    source: str
    evidence: tuple["Evidence", ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What a flag used.

    Attributes:
        words: As a person reads it: `eGFR 19 mL/min/{1.73_m2}, 8 days old`.
        reference: `Type/id` of the resource, or empty for words of the order itself.
    """

    words: str
    reference: str = ""


@dataclass(frozen=True)
class Undecided:
    """A check that could not run, and why."""

    flag_class: FlagClass
    why: str


@dataclass(frozen=True)
class Suggestion:
    """A protocol for the order.

    Attributes:
        name: One of the names in `data/protocol_names.json`.
        why: The reason in words.
        row: The row of `protocols.toml` that chose it.
    """

    name: str
    display: str
    why: str
    row: str


@dataclass(frozen=True)
class Decision:
    """Everything that is said about one order."""

    flags: tuple[Flag, ...] = ()
    suggestion: Suggestion | None = None
    undecided: tuple[Undecided, ...] = ()
    ran: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def interrupts(self) -> bool:
        """True when a flag stops the signer."""
        return any(flag.severity is Severity.INTERRUPTIVE for flag in self.flags)
