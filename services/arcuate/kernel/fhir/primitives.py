"""Forms of FHIR R4's primitive types (2.24.0.1), as quick yes-or-no questions."""

import binascii
import re
from collections.abc import Callable, Mapping
from datetime import date

_DATE = r"[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
_ZONE = r"(Z|[+-]((0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_FULL_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")

Check = Callable[[str], bool]


def _matches(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def _dated(pattern: str) -> Check:
    """Match a pattern, and a day that the calendar has."""
    compiled = re.compile(pattern)

    def check(text: str) -> bool:
        if compiled.fullmatch(text) is None or text.startswith("0000"):
            return False
        found = _FULL_DATE.match(text)
        if found is None:
            return True
        try:
            date(int(found[1]), int(found[2]), int(found[3]))
        except ValueError:
            return False
        return True

    return check


def _is_base64(text: str) -> bool:
    try:
        binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return True


TEXT_FORMS: Mapping[str, Check] = {
    "base64Binary": _is_base64,
    "canonical": _matches(r"\S+"),
    "code": _matches(r"[^\s]+( [^\s]+)*"),
    "date": _dated(_DATE),
    "dateTime": _dated(rf"{_DATE}|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_CLOCK}{_ZONE}"),
    "id": _matches(r"[A-Za-z0-9\-.]{1,64}"),
    "instant": _dated(rf"[0-9]{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T{_CLOCK}{_ZONE}"),
    "oid": _matches(r"urn:oid:[0-2](\.(0|[1-9][0-9]*))+"),
    "time": _matches(_CLOCK),
    "uri": _matches(r"\S+"),
    "url": _matches(r"\S+"),
    "uuid": _matches(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
}

INTEGER_RANGES: Mapping[str, tuple[int, int]] = {
    "integer": (-(2**31), 2**31 - 1),
    "positiveInt": (1, 2**31 - 1),
    "unsignedInt": (0, 2**31 - 1),
}
