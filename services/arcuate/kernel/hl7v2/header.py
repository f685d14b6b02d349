"""MSH as bytes: all that is needed to journal a message and to answer it, without decoding or splitting the rest."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

# A separator other than `|` has encoding characters behind it: "MSH-4-1 is empty" is prose about a header, not one.
BEGIN = rb"(?:\||[^\w\s|](?=[^\w\s]))"
_MSH = re.compile(rb"(?:\A|[\r\n])[\xef\xbb\xbf\s\x00]*(MSH" + BEGIN + rb"[^\r\n]*)")
_BEGIN = re.compile(rb"MSH" + BEGIN)


class Header(NamedTuple):
    """MSH of one message, fields as sent. `start` and `end` bound the segment, `time_start` and `time_end` MSH-7."""

    fields: tuple[bytes, ...]
    start: int
    end: int
    time_start: int
    time_end: int

    def field(self, number: int) -> bytes:
        """MSH-`number`; MSH-1 is the separator."""
        return self.fields[number] if number < len(self.fields) else b""

    @property
    def separator(self) -> bytes:
        return self.fields[1]

    @property
    def control_id(self) -> bytes:
        return self.field(10)

    @property
    def sender(self) -> bytes:
        """MSH-3 and MSH-4, joined by the separator that can stand in neither."""
        return self.field(3) + self.separator + self.field(4)

    @property
    def type(self) -> tuple[str, str]:
        """MSH-9.1 and MSH-9.2; empty where they are not ASCII text."""
        component = self.fields[2][:1] or b"^"
        parts = self.field(9).split(component)
        code, event = parts[0].strip(), parts[1].strip() if len(parts) > 1 else b""
        return _ascii(code), _ascii(event)

    @property
    def enhanced(self) -> bool:
        """MSH-15 or MSH-16 is valued (2.9.2)."""
        return bool(self.field(15).strip() or self.field(16).strip())

    def text(self, number: int) -> str:
        """MSH-`number` for people: undecodable bytes replaced."""
        return self.field(number).decode("utf-8", "replace")


def begins(raw: bytes) -> bool:
    """Say whether these bytes begin with an MSH."""
    return _BEGIN.match(raw) is not None


def read(raw: bytes) -> Header | None:
    """The first MSH of a frame, or None."""
    if raw.startswith(b"MSH") and len(raw) > 8:
        start, end = 0, raw.find(b"\r", 3)
        end = len(raw) if end < 0 else end
        newline = raw.find(b"\n", 3, end)
        end = end if newline < 0 else newline
        if not begins(raw):
            return None
        separator = raw[3:4]
    else:
        found = _MSH.search(raw)
        if found is None:
            return None
        start, end = found.span(1)
        separator = raw[start + 3 : start + 4]
    parts = raw[start:end].split(separator)
    before = start + len(separator.join(parts[:6])) + 1
    present = len(parts) > 6
    time_start, time_end = (before, before + len(parts[6])) if present else (start, start)
    fields = (parts[0], separator, *(parts[1:] or [b""]))
    return Header(fields, start, end, time_start, time_end)


def content_hash(raw: bytes, header: Header | None) -> bytes:
    """SHA-256 of the bytes with MSH-7 left out: equal for a message that is sent again with a new time."""
    if header is None:
        return hashlib.sha256(raw).digest()
    digest = hashlib.sha256(raw[: header.time_start])
    digest.update(raw[header.time_end :])
    return digest.digest()


def _ascii(value: bytes) -> str:
    return value.decode("ascii") if value.isascii() else ""
