"""The strict gate: bytes to JSON and back, before anything else looks at what came in.

Python's own parser keeps the last of duplicate keys, takes NaN, turns 1.10 into 1.1 and dies of deep nesting. This gate refuses the
first, the second and the last with a place and a reason, and keeps decimals digit for digit (FHIR R4, 2.24.0.1: the precision
of a decimal has a meaning).
"""

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from arcuate.kernel.errors import BadInput, Json, TooLarge

__all__ = ["HOUSE", "OUTSIDE", "Exact", "Json", "Limits", "dumps", "loads", "loads_array"]


@dataclass(frozen=True)
class Limits:
    """What a body may cost: bytes in all, and how deep objects and arrays may nest."""

    size: int = 5 * 1024 * 1024
    depth: int = 64


OUTSIDE = Limits()
"""Callers from outside the house."""

HOUSE = Limits(size=64 * 1024 * 1024)
"""The house's own rooms: a legal report of 5,000 values must pass."""

_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NUMBER_DIGITS = 64
_EXPONENT = 400
_MARK = "\x00" + secrets.token_hex(8)
_MARKED = re.compile('"' + r"\\u0000" + _MARK[1:] + '([^"]*)"')


class Exact(Decimal):
    """A decimal that remembers how it was written, so that it can be written the same way again."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, value: "str | Decimal | int" = "0") -> "Exact":
        """Make a decimal from its text, or from another decimal, whose text it takes over."""
        made = super().__new__(cls, value)
        made.text = value.text if isinstance(value, Exact) else str(value)
        return made

    def __reduce__(self) -> tuple[type["Exact"], tuple[str]]:
        """Copy by text."""
        return type(self), (self.text,)

    def __copy__(self) -> "Exact":
        return self

    def __deepcopy__(self, memo: object) -> "Exact":
        return self


class _Duplicate(dict[str, Any]):
    """An object that names a key twice; found again after parsing, when its place is known."""

    key: str = ""


class _Unusable:
    """Stands where NaN, Infinity or a number beyond all use was."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Hooks:
    """What the parser calls; remembers whether anything needs the search for its place."""

    def __init__(self) -> None:
        self.fault = False

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        self.fault = True
        twice = _Duplicate(made)
        keys = [key for key, _ in pairs]
        twice.key = next(key for position, key in enumerate(keys) if key in keys[:position])
        return twice

    def decimal(self, text: str) -> Any:
        if len(text) > _NUMBER_DIGITS:
            return self.unusable(text)
        try:
            number = Exact(text)
        except InvalidOperation:
            return self.unusable(text)
        return number if abs(number.adjusted()) <= _EXPONENT else self.unusable(text)

    def integer(self, text: str) -> Any:
        if len(text) > _NUMBER_DIGITS:
            return self.unusable(text)
        return Exact(text) if text == "-0" else int(text)

    def unusable(self, text: str) -> _Unusable:
        self.fault = True
        return _Unusable(text)


def loads(data: bytes, limits: Limits = HOUSE) -> Json:
    """Return the JSON object in these bytes; numbers with a point or exponent are `Exact`, others `int`.

    Raises:
        TooLarge: More bytes than the limit.
        BadInput: Not a JSON object in UTF-8 that has one meaning (code `structure`), or nested too deeply (`too-costly`).
    """
    parsed = _loaded(data, limits)
    if not isinstance(parsed, dict):
        raise _structure("The body is no JSON object", todo="Send one resource as an object.")
    return parsed


def loads_array(data: bytes, limits: Limits = HOUSE) -> list[Any]:
    """Return the JSON array in these bytes (a JSON Patch), through the same gate.

    Raises:
        TooLarge: More bytes than the limit.
        BadInput: Not a JSON array in UTF-8 that has one meaning.
    """
    parsed = _loaded(data, limits)
    if not isinstance(parsed, list):
        raise _structure("The body is no JSON array")
    return parsed


def _loaded(data: bytes, limits: Limits) -> Any:
    if len(data) > limits.size:
        raise TooLarge(f"The body has {len(data)} bytes; the limit is {limits.size}", todo="Send less in one request.")
    if data.startswith(_BOMS):
        raise _structure("The body begins with a byte order mark", todo="Send UTF-8 without it.")
    _check_depth(data, limits.depth)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _structure(f"Byte {error.start} is not UTF-8", todo="Send UTF-8.") from None
    hooks = _Hooks()
    parsed = _parse(text, hooks)
    if hooks.fault or "\\u" in text:  # only escapes can bring NUL or half a surrogate pair this far
        _refuse_faults(parsed)
    return parsed


def dumps(resource: Json) -> bytes:
    """Return the compact UTF-8 JSON of a resource; decimals are written digit for digit as they came.

    Raises:
        BadInput: A number that JSON does not know, a lone surrogate or NUL in a text.
    """
    decimals = 0

    def decimal_mark(value: object) -> str:
        nonlocal decimals
        if not isinstance(value, Decimal):
            raise TypeError(f"{type(value).__name__} is no JSON value")
        if not value.is_finite():
            raise ValueError("not a finite number")
        decimals += 1
        return _MARK + (value.text if isinstance(value, Exact) else str(value))

    try:
        text = json.dumps(resource, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=decimal_mark)
        if decimals:
            # Decimals travel through the encoder as marked texts, because it has no way to write a number's own digits.
            text = _MARKED.sub(r"\1", text)
        if "\\u0000" in text and _has_nul(resource):
            raise ValueError("NUL in a text")
        return text.encode("utf-8")
    except (ValueError, UnicodeEncodeError) as error:
        reason = "a lone surrogate in a text" if isinstance(error, UnicodeEncodeError) else str(error)
        raise _structure(f"The resource cannot be written as JSON: {reason}") from None


def _structure(what: str, where: str = "", todo: str = "") -> BadInput:
    return BadInput(what, where=where, todo=todo, code="structure")


def _check_depth(data: bytes, limit: int) -> None:
    """Refuse deep nesting without parsing: matched pairs are taken away from inside out."""
    rest = data.translate(None, _NOT_BRACKETS)
    for _ in range(limit // 2):  # one round takes away one or two levels
        shorter = rest.replace(b"{}", b"").replace(b"[]", b"")
        if not shorter:
            return
        if len(shorter) == len(rest):
            break
        rest = shorter
    # Deep, unbalanced, or brackets inside texts: count exactly.
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > limit:
            raise BadInput(f"Nested deeper than {limit} levels", todo="Send a flatter resource.", code="too-costly")


def _parse(text: str, hooks: _Hooks) -> Any:
    try:
        return json.loads(
            text, parse_float=hooks.decimal, parse_int=hooks.integer, parse_constant=hooks.unusable,
            object_pairs_hook=hooks.object,
        )  # fmt: skip
    except json.JSONDecodeError as error:
        raise _structure(f"Not JSON: {error.msg}", where=f"line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise BadInput("Nested too deeply", code="too-costly") from None


def _refuse_faults(parsed: Any) -> None:
    root = parsed.get("resourceType") if isinstance(parsed, dict) else ""
    for where, value in _walk(parsed, root if isinstance(root, str) and root.isalpha() else ""):
        if isinstance(value, _Duplicate):
            raise _structure(
                f"The key '{_shown(value.key)}' stands twice", where=_shown(where, 400), todo="Send each key once."
            )
        if isinstance(value, _Unusable):
            raise _structure(f"'{_shown(value.text)}' is no number that FHIR knows", where=_shown(where, 400))
        if isinstance(value, str):
            _check_text(value, _shown(where, 400))


def _check_text(value: str, where: str) -> None:
    if "\x00" in value:
        raise _structure("A text holds the character NUL", where=where, todo="Take it out.")
    if not value.isascii() and _SURROGATE.search(value):
        raise _structure("A text holds half of a surrogate pair", where=where, todo="Send both halves or none.")


def _walk(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield every value with its path, keys included as texts."""
    yield where, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield where, key
            yield from _walk(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _walk(inner, f"{where}[{position}]")


def _has_nul(resource: Json) -> bool:
    return any(isinstance(value, str) and "\x00" in value for _, value in _walk(resource, ""))


def _shown(text: str, length: int = 40) -> str:
    """Return a short printable form: error texts carry no long input."""
    return "".join(c if c.isprintable() else "?" for c in text[:length])
