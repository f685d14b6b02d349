"""What a person said of a value stays when the same model states the same number again. Pure."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from arcuate.kernel.codes import Json

EXT_REVIEW = "urn:arcuate:ext:review"
_JUDGED = frozenset({"final", "corrected", "entered-in-error"})


def as_judged(made: Sequence[Json], recorded: Iterable[Json]) -> list[Json]:
    """Return the Observations of a measurement, those that a person has judged as the record holds them.

    Args:
        made: What is stated now.
        recorded: What the record holds of the same patient.
    """
    judged = {_number(one): one for one in recorded if one.get("status") in _JUDGED and _machine(one) is not None}
    return [_either(one, judged.get(_number(one))) for one in made]


def _either(one: Json, judged: Json | None) -> Json:
    same = (
        judged is not None and _machine(judged) == _amount(one.get("valueQuantity")) and _device(judged) == _device(one)
    )
    return judged if same and judged is not None else one


def _number(one: Json) -> tuple[str, str]:
    known: Json = next(iter(one.get("identifier") or []), {})
    return str(known.get("system")), str(known.get("value"))


def _machine(one: Json) -> Decimal | None:
    """Return the number that the machine had stated before a person judged it."""
    said = (e for e in one.get("extension") or [] if e.get("url") == EXT_REVIEW)
    parts = (part for e in said for part in e.get("extension") or [] if part.get("url") == "machine")
    return next((_amount(part.get("valueQuantity")) for part in parts), None)


def _amount(quantity: Json | None) -> Decimal | None:
    value = (quantity or {}).get("value")
    return None if value is None else Decimal(str(value))


def _device(one: Json) -> list[Json]:
    return [v for c in one.get("contained") or [] if c.get("resourceType") == "Device" for v in c.get("version") or []]
