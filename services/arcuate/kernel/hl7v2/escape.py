"""Escape sequences of HL7 v2 text (v2.5.1 chapter 2.7), decoded once and once only.

`decode` turns delimiters, hexadecimal data and formatting commands into text and keeps everything that it does not know as it
stands. `encode` writes any text so that no character of it can end a component, a field, a segment or a frame;
`decode(encode(text)) == text` for every text.
"""

from __future__ import annotations

import re

from arcuate.kernel.hl7v2.delimiters import DEFAULT, Delimiters

_NULL = '""'
_HEX = re.compile(r"X((?:[0-9A-Fa-f]{2})+)\Z")
_LINE_COMMAND = re.compile(r"\.(br|sp|ce|fi|nf|in|ti|sk)\s*([+-]?\d{0,3})\Z")
# Local sequences and switches of the character set: one whole, kept as they stand.
_KEPT_WHOLE = re.compile(r"(?:Z[^\r\n]*|C[0-9A-Fa-f]{4}|M[0-9A-Fa-f]{4}(?:[0-9A-Fa-f]{2})?)\Z")
_CONTROL = {chr(code): f"X{code:02X}" for code in (*range(0x20), 0x7F) if code != 0x0A}


def decode(text: str, delimiters: Delimiters = DEFAULT, codecs: tuple[str, ...] = ("utf-8", "cp1252")) -> str:
    """Text without escape sequences; `codecs` are tried in order for hexadecimal data (`\\X..\\`).

    Line commands become line feeds, highlighting (`\\H\\`, `\\N\\`) is left out, unknown and unclosed sequences are kept.
    """
    escape = delimiters.escape
    if not escape or escape not in text:
        return text
    out: list[str] = []
    position = 0
    while True:
        start = text.find(escape, position)
        if start < 0:
            out.append(text[position:])
            return "".join(out)
        out.append(text[position:start])
        piece, position = _sequence(text, start, delimiters, codecs)
        out.append(piece)


def _sequence(text: str, start: int, delimiters: Delimiters, codecs: tuple[str, ...]) -> tuple[str, int]:
    """What the sequence beginning at `start` says, and where the text goes on."""
    escape = delimiters.escape
    end = text.find(escape, start + 1)
    if end < 0:
        return escape, start + 1
    body = text[start + 1 : end]
    plain = _plain(body, delimiters)
    if plain is not None:
        return plain, end + 1
    if _HEX.match(body):
        return _hexadecimal(text, start, end, delimiters, codecs)
    if _KEPT_WHOLE.match(body):
        return text[start : end + 1], end + 1
    # Not a sequence: the character stands for itself, and what follows may be one.
    return escape, start + 1


def _plain(body: str, delimiters: Delimiters) -> str | None:
    if len(body) == 1:
        return {
            "F": delimiters.field,
            "S": delimiters.component,
            "R": delimiters.repetition,
            "E": delimiters.escape,
            "T": delimiters.subcomponent or DEFAULT.subcomponent,
            "P": delimiters.truncation or "#",
            "H": "",
            "N": "",
        }.get(body)
    command = _LINE_COMMAND.match(body)
    return _formatted(command.group(1), command.group(2)) if command else None


def _formatted(command: str, count: str) -> str:
    if command in ("br", "ce"):
        return "\n"
    if command == "sp":
        return "\n" * max(1, int(count or "1"))
    if command == "sk":
        return " " * max(0, int(count or "0"))
    return ""


def _hexadecimal(text: str, start: int, end: int, delimiters: Delimiters, codecs: tuple[str, ...]) -> tuple[str, int]:
    """Hexadecimal data. Sequences back to back are read together: senders write one for each byte of a character."""
    escape = delimiters.escape
    data = bytes.fromhex(text[start + 2 : end])
    while text.startswith(escape + "X", end + 1):
        after = text.find(escape, end + 2)
        more = _HEX.match(text[end + 2 : after]) if after > 0 else None
        if more is None:
            break
        data += bytes.fromhex(more.group(1))
        end = after
    for codec in codecs:
        try:
            return data.decode(codec), end + 1
        except (UnicodeError, LookupError):
            continue
    return text[start : end + 1], end + 1


def encode(text: str, delimiters: Delimiters = DEFAULT) -> str:
    """Text with every delimiter, line end and control character escaped. Lone surrogates are refused by the UTF-8 that follows.

    Delimiters that the message does not have need no escape; without an escape character the delimiters become spaces.
    A text that is just two quotes would say "delete what you have" (chapter 2.5.3): its first quote is escaped.
    """
    if text == _NULL:
        return f'{delimiters.escape}X22{delimiters.escape}"' if delimiters.escape else '" "'
    table = _table(delimiters)
    if not any(character in table for character in text):
        return text
    return "".join(table.get(character, character) for character in text)


def _table(delimiters: Delimiters) -> dict[str, str]:
    escape = delimiters.escape
    names = {
        delimiters.field: "F",
        delimiters.component: "S",
        delimiters.repetition: "R",
        delimiters.subcomponent: "T",
        delimiters.truncation: "P",
        "\n": "X0A" if "." in delimiters.encoding + delimiters.field else ".br",
        **_CONTROL,
    }
    names.pop("", None)
    if not escape:
        return dict.fromkeys(names, " ")
    names[escape] = "E"
    return {character: f"{escape}{name}{escape}" for character, name in names.items()}
