"""What this room knows of images: headers as facts, reasons as types. Pure: no files, no clock, no framework."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from arcuate.kernel.errors import Refused

Triple = tuple[float, float, float]
Person = tuple[str, str, str, str]  # number, its issuer, name, birth date


class RefusalCode(StrEnum):
    """Why something is not measured: the codes of `urn:arcuate:cs:refusal`."""

    NOT_DICOM = "not-dicom"
    DAMAGED = "damaged"
    HOSTILE = "hostile"
    TOO_LARGE = "too-large"
    ENCODING = "encoding-not-supported"
    ILLEGAL_UID = "illegal-uid"
    IDENTITY = "identity-conflict"
    DUPLICATE = "duplicate-conflict"
    MIXED = "mixed-series"
    ORIENTATION = "orientation-unknown"
    INCOMPLETE = "incomplete-series"
    IRREGULAR = "irregular-geometry"
    NOT_SUITED = "not-suited"
    NO_SERIES = "no-usable-series"
    EMPTY = "empty-image"
    NOT_PLAUSIBLE = "not-plausible"
    NO_MODEL = "no-model"
    GONE = "images-gone"
    CANCELED = "canceled"
    PAUSED = "paused"


@dataclass(frozen=True)
class Refusal:
    """A reason that a technologist can act on.

    Attributes:
        what: What is wrong, without patient data.
        todo: What to do about it.
    """

    code: RefusalCode
    what: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.what.rstrip('.')}. {self.todo}".strip()


class NotMeasurable(Refused):
    """Images that must not be measured; carries the typed reason."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.what, todo=refusal.todo)
        self.refusal = refusal


def refuse(code: RefusalCode, what: str, todo: str = "") -> NotMeasurable:
    """Return the error of a refusal, to be raised by the caller."""
    return NotMeasurable(Refusal(code, what, todo))


@dataclass(frozen=True)
class Frame:
    """One frame's plane in the patient coordinate system (DICOM PS3.3 C.7.6.2).

    Attributes:
        position: Centre of the first voxel transmitted, LPS, mm; None where the header lacks it.
        orientation: Direction cosines of the row and of the column; None where the header lacks them.
        spacing: Distance between rows and between columns, mm; None where the header lacks them.
        thickness: Nominal slice thickness, mm.
        slope, intercept: Modality LUT of this frame.
    """

    position: Triple | None
    orientation: tuple[Triple, Triple] | None
    spacing: tuple[float, float] | None
    thickness: float | None = None
    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True)
class Instance:
    """What one received file states about itself.

    Attributes:
        path: Where it lies.
        digest: SHA-256 of the data set (the bytes behind the file meta information).
        tags: Values of the attributes in `headers.toml` by DICOM keyword; sequences and pixels are not among them.
        frames: Its planes, in the order of its pixel data.
        dropped: Keywords whose value is not legal in DICOM, with the rule; such values are not passed on.
        remarks: What was odd but harmless, in words.
        damage: Why its pixels must not be used; None where nothing speaks against it.
    """

    path: str
    digest: str
    size: int
    transfer_syntax: str
    tags: Mapping[str, Any]
    frames: tuple[Frame, ...]
    dropped: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    damage: Refusal | None = None

    def text(self, keyword: str) -> str:
        """Return a value as text; several values are joined by a backslash, a missing one is empty."""
        value = self.tags.get(keyword)
        if value is None:
            return ""
        return "\\".join(str(v) for v in value) if isinstance(value, list) else str(value)

    def number(self, keyword: str) -> float | None:
        """Return a single numeric value, or None."""
        value = self.tags.get(keyword)
        return float(value) if isinstance(value, int | float) else None

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID."""
        return self.text("SOPInstanceUID")

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return self.text("SeriesInstanceUID")

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return self.text("StudyInstanceUID")

    @property
    def person(self) -> Person:
        """Whose image this is, as the image states it: number, its issuer, name, birth date."""
        return (
            self.text("PatientID").strip(),
            self.text("IssuerOfPatientID").strip(),
            self.text("PatientName").strip("^ "),
            self.text("PatientBirthDate").strip(),
        )


def persons_conflict(one: Person, other: Person) -> bool:
    """Return whether two images of one study state different people.

    Different numbers or issuers do; so do different names together with different birth dates. What one of them leaves
    empty conflicts with nothing.
    """
    number, issuer, name, birth = (
        bool(a and b and a.casefold() != b.casefold()) for a, b in zip(one, other, strict=True)
    )
    return number or issuer or (name and birth)


@dataclass(frozen=True)
class Unreadable:
    """A file of which not even the header could be read."""

    path: str
    refusal: Refusal


# ---- JSON forms: how facts travel from the reading process and rest in the database ----------------------------------


def instance_to_json(instance: Instance) -> dict[str, Any]:
    """Return the JSON form of an instance."""
    return {
        "path": instance.path,
        "digest": instance.digest,
        "size": instance.size,
        "transfer_syntax": instance.transfer_syntax,
        "tags": dict(instance.tags),
        "frames": [[f.position, f.orientation, f.spacing, f.thickness, f.slope, f.intercept] for f in instance.frames],
        "dropped": dict(instance.dropped),
        "remarks": list(instance.remarks),
        "damage": [instance.damage.code, instance.damage.what, instance.damage.todo] if instance.damage else None,
    }


def instance_from_json(made: Mapping[str, Any], path: str | None = None) -> Instance:
    """Return the instance of a JSON form; `path` replaces the path kept in it."""
    return Instance(
        path=path or str(made["path"]),
        digest=made["digest"],
        size=made["size"],
        transfer_syntax=made["transfer_syntax"],
        tags=made["tags"],
        frames=tuple(_frame(*values) for values in made["frames"]),
        dropped=made["dropped"],
        remarks=tuple(made["remarks"]),
        damage=refusal_from_json(made["damage"]),
    )


def refusal_from_json(made: list[str] | None) -> Refusal | None:
    """Return the refusal of its JSON form `[code, what, todo]`."""
    return Refusal(RefusalCode(made[0]), made[1], made[2]) if made else None


def _frame(
    position: list[float] | None,
    orientation: list[list[float]] | None,
    spacing: list[float] | None,
    thickness: float | None,
    slope: float,
    intercept: float,
) -> Frame:
    return Frame(
        position=_triple(position) if position else None,
        orientation=(_triple(orientation[0]), _triple(orientation[1])) if orientation else None,
        spacing=(spacing[0], spacing[1]) if spacing else None,
        thickness=thickness,
        slope=slope,
        intercept=intercept,
    )


def _triple(values: list[float]) -> Triple:
    return (values[0], values[1], values[2])
