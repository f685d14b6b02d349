"""Values of search parameters, read: tokens, dates, numbers, with their prefixes and escapes (FHIR R4, 3.1.1.4)."""

import re
from dataclasses import dataclass
from datetime import tzinfo
from decimal import Decimal, InvalidOperation

from arcuate.kernel.errors import BadInput
from arcuate.record.indexing import Interval, interval_of, short

_PREFIX = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?\Z")


@dataclass(frozen=True)
class Value:
    """One of the alternatives of a parameter.

    Attributes:
        text: A code, id or normalized text.
        exact: A text as it was written, for `:exact`.
        system: A token's system; None when any will do, "" when it must have none.
        any_code: A token of which only the system counts.
        target_type: A reference's type; "" when the value does not say.
        prefix: `eq`, `gt` … for dates and numbers.
        span: The range of time that a date means.
        number: A number with the range that its last digit leaves open: low, value, high.
    """

    text: str = ""
    exact: str = ""
    system: str | None = None
    any_code: bool = False
    target_type: str = ""
    prefix: str = "eq"
    span: Interval = (0, 0)
    number: tuple[float, float, float] = (0.0, 0.0, 0.0)


def token(text: str) -> Value:
    parts = split(text, "|", limit=2)
    if len(parts) == 1:
        return Value(text=short(unescaped(parts[0])))
    system, code = (short(unescaped(part)) for part in parts)
    return Value(text=code, system=system, any_code=code == "")


def number(text: str, name: str) -> Value:
    prefix, rest = prefixed(text)
    parts = split(rest, "|", limit=3)
    if not _NUMBER.match(parts[0]) or prefix == "ap":
        raise bad("This is no number", name)
    try:
        number = _span(Decimal(parts[0]))
    except (InvalidOperation, OverflowError):
        raise bad("This number is out of range", name) from None
    system = short(unescaped(parts[1])) if len(parts) == 3 and parts[1] else None
    return Value(
        text=short(unescaped(parts[-1])) if len(parts) == 3 else "", system=system, prefix=prefix, number=number
    )


def _span(number: Decimal) -> tuple[float, float, float]:
    """Return the range that a written number stands for: 100 is 99.5 to 100.5, 1.10 is 1.095 to 1.105."""
    exponent = number.as_tuple().exponent
    half = Decimal(5).scaleb((exponent if isinstance(exponent, int) and exponent < 0 else 0) - 1)
    return float(number - half), float(number), float(number + half)


def prefixed(text: str) -> tuple[str, str]:
    found = _PREFIX.match(text)
    return (found.group(1) or "eq", found.group(2)) if found else ("eq", text)


def split(text: str, sign: str, limit: int = 1000) -> list[str]:
    """Split at a sign that no backslash precedes; escapes stay in the parts."""
    if "\\" not in text:
        return text.split(sign, limit - 1)
    parts = [""]
    position = 0
    while position < len(text):
        if text[position] == "\\" and position + 1 < len(text):
            parts[-1] += text[position : position + 2]
            position += 2
        elif text[position] == sign and len(parts) < limit:
            parts.append("")
            position += 1
        else:
            parts[-1] += text[position]
            position += 1
    return parts


def unescaped(text: str) -> str:
    """Take away the backslash before `,`, `|`, `$` and `\\`; every other backslash is itself."""
    return re.sub(r"\\([,|$\\])", r"\1", text) if "\\" in text else text


def whole(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise bad("A whole number belongs here", name)
    return int(text)


def bad(what: str, name: str, todo: str = "") -> BadInput:
    return BadInput(what, where=f"the search parameter {name[:60]}", todo=todo, code="value")


def day(text: str, name: str, zone: tzinfo) -> Value:
    """Return a date or time with its prefix."""
    prefix, rest = prefixed(text)
    # A plus sign that was not percent-encoded arrives as a blank.
    span = interval_of(rest.replace(" ", "+"), zone)
    if span is None or prefix == "ap":
        raise bad("This is no date that FHIR knows", name, "Write for example ge2026-03-17 or lt2026-03-17T09:00:00Z.")
    return Value(prefix=prefix, span=span)
