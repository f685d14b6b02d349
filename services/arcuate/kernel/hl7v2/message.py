"""Lossless reading of HL7 v2 (v2.5.1 chapter 2.6): what was received comes back byte for byte.

A `Message` is a list of segments with the line ends that stood behind them. Fields, repetitions, components and subcomponents are
split when they are asked for; values are decoded once (escape sequences). Nothing is refused here: what is wrong with a
message is told by `inspect.faults`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from arcuate.kernel.errors import BadInput
from arcuate.kernel.hl7v2 import charset as charsets
from arcuate.kernel.hl7v2 import delimiters as delims
from arcuate.kernel.hl7v2 import escape
from arcuate.kernel.hl7v2.charset import Charset
from arcuate.kernel.hl7v2.delimiters import Delimiters
from arcuate.kernel.hl7v2.segments import STANDARD_SEGMENTS
from arcuate.kernel.hl7v2.split import Frame, split

__all__ = ["NULL", "Context", "Field", "Frame", "Message", "Part", "Segment", "split"]

NULL = '""'
_HEADERS = ("MSH", "FHS", "BHS")
# As in `header.BEGIN`: prose about a header is none.
_HEADER = re.compile(r"\||[^\w\s|](?=[^\w\s])")
_LINE_ENDS = re.compile(r"([\r\n]+)")
_PREFIX = re.compile(r"[\ufeff\s\x00]*")
_PATH = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?-(\d+)(?:\[(\d+)\])?(?:\.(\d+)(?:\.(\d+))?)?\Z")


@dataclass(frozen=True, slots=True)
class Context:
    """What is needed to read a field: the message's delimiters and the codecs for hexadecimal escapes."""

    delimiters: Delimiters = delims.DEFAULT
    codecs: tuple[str, ...] = ("utf-8", "cp1252")

    def decode(self, text: str) -> str:
        return escape.decode(text, self.delimiters, self.codecs)


class Part:
    """One repetition of a field. Components and subcomponents are numbered from 1."""

    __slots__ = ("_context", "raw")

    def __init__(self, raw: str, context: Context) -> None:
        self.raw = raw
        self._context = context

    @property
    def null(self) -> bool:
        """`""`: the sender deletes the value (2.5.3)."""
        return self.raw == NULL

    @property
    def text(self) -> str:
        """The whole repetition decoded, component separators left in: for ST, TX and FT."""
        return "" if self.null else self._context.decode(self.raw)

    def component(self, number: int, sub: int = 1) -> str:
        """Decoded component `number`, subcomponent `sub`; the empty string where there is none or it is `""`."""
        text = _nth(
            _nth(self.raw, self._context.delimiters.component, number), self._context.delimiters.subcomponent, sub
        )
        return "" if text == NULL else self._context.decode(text)

    def component_null(self, number: int) -> bool:
        return _nth(self.raw, self._context.delimiters.component, number) == NULL

    @property
    def components(self) -> list[str]:
        """All components, first subcomponent of each, decoded."""
        return [self.component(number + 1) for number in range(self.raw.count(self._context.delimiters.component) + 1)]

    def __bool__(self) -> bool:
        return self.raw not in ("", NULL)


class Field(Part):
    """One field; as a `Part` it is its first repetition."""

    __slots__ = ("whole",)

    def __init__(self, whole: str, context: Context) -> None:
        separator = context.delimiters.repetition
        super().__init__(whole.split(separator, 1)[0] if separator else whole, context)
        self.whole = whole

    @property
    def repetitions(self) -> list[Part]:
        """Every repetition that holds something; `""` counts."""
        separator = self._context.delimiters.repetition
        parts = self.whole.split(separator) if separator else [self.whole]
        return [Part(part, self._context) for part in parts if part]

    @property
    def lines(self) -> list[str]:
        """Every repetition decoded, empty ones kept: the paragraphs of a TX field (2.A.78)."""
        separator = self._context.delimiters.repetition
        parts = self.whole.split(separator) if separator else [self.whole]
        return [self._context.decode(part) for part in parts] if self.whole else []

    @property
    def value(self) -> str:
        """First repetition, first component, first subcomponent, decoded."""
        return self.component(1)

    def __bool__(self) -> bool:
        return self.whole not in ("", NULL)


class Segment:
    """One segment; `segment[5]` is its field 5, always a `Field`."""

    __slots__ = ("_fields", "context", "ending", "id", "text")

    def __init__(self, id: str, text: str, ending: str, context: Context) -> None:
        self.id = id
        self.text = text
        self.ending = ending
        self.context = context
        self._fields: list[str] | None = None

    @property
    def fields(self) -> list[str]:
        """Raw fields; index 0 is the segment id. In MSH, FHS and BHS field 1 is the separator itself (2.15.9)."""
        if self._fields is None:
            fields = self.text.split(self.context.delimiters.field)
            if self.id in _HEADERS:
                fields.insert(1, self.context.delimiters.field)
            self._fields = fields
        return self._fields

    def raw(self, number: int) -> str:
        """Field `number` as sent."""
        fields = self.fields
        return fields[number] if number < len(fields) else ""

    def __getitem__(self, number: int) -> Field:
        return Field(self.raw(number), self.context)

    def __len__(self) -> int:
        """Number of the last field."""
        return len(self.fields) - 1


class Message:
    """A message, or a frame read as one list of segments."""

    __slots__ = ("charset", "context", "prefix", "segments")

    def __init__(self, prefix: str, segments: list[Segment], charset: Charset, context: Context) -> None:
        self.prefix = prefix
        self.segments = segments
        self.charset = charset
        self.context = context

    @classmethod
    def parse(cls, raw: bytes, charset: str = "", default_charset: str = "cp1252") -> Message:
        """Read bytes. `charset` overrides the order of trust of row 018 (see `charset.decode`); never raises."""
        text, used = charsets.decode(raw, charset, default_charset)
        start = _PREFIX.match(text)
        prefix = start.group() if start else ""
        segments, context = _segments(text[len(prefix) :], _codecs(raw, used, default_charset))
        return cls(prefix, segments, used, context)

    def encode(self) -> bytes:
        """The bytes that were read."""
        body = "".join(segment.text + segment.ending for segment in self.segments)
        return charsets.encode(self.prefix + body, self.charset)

    @property
    def header(self) -> Segment | None:
        return self.first("MSH")

    def first(self, id: str) -> Segment | None:
        for segment in self.segments:
            if segment.id == id:
                return segment
        return None

    def all(self, id: str) -> list[Segment]:
        return [segment for segment in self.segments if segment.id == id]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def value(self, path: str) -> str:
        """Decoded value at `SEG[n]-F[r].C.S`, for example `PID-3.1` or `OBX[2]-5`; left-out numbers are 1.

        The empty string where there is nothing, and for `""` (ask `null`).
        """
        part, component, sub = self._at(path)
        return part.component(component, sub) if part else ""

    def null(self, path: str) -> bool:
        """True where the sender states `""`."""
        part, component, _ = self._at(path)
        return part is not None and (part.null or part.component_null(component))

    def raw(self, path: str) -> str:
        """The field at `SEG[n]-F` as sent, with all its repetitions."""
        name, occurrence, field, _, _, _ = _parse_path(path)
        found = self.all(name)[occurrence - 1 : occurrence]
        return found[0].raw(field) if found else ""

    def _at(self, path: str) -> tuple[Part | None, int, int]:
        name, occurrence, number, repetition, component, sub = _parse_path(path)
        found = self.all(name)[occurrence - 1 : occurrence]
        if not found:
            return None, component, sub
        field = found[0][number]
        if repetition == 1:
            return field, component, sub
        parts = field.whole.split(self.context.delimiters.repetition)[repetition - 1 : repetition]
        return (Part(parts[0], found[0].context) if parts else None), component, sub


@lru_cache(maxsize=1024)
def _parse_path(path: str) -> tuple[str, int, int, int, int, int]:
    found = _PATH.match(path)
    if found is None:
        raise BadInput(
            "This is not a path into an HL7 message.", where=path[:40], todo="Write SEG-F.C, for example PID-3.1."
        )
    name, *numbers = found.groups()
    occurrence, field, repetition, component, sub = (int(number or 1) for number in numbers)
    return name, occurrence, field, repetition, component, sub


def _nth(text: str, separator: str, number: int) -> str:
    if not separator:
        return text if number == 1 else ""
    if number == 1:
        end = text.find(separator)
        return text if end < 0 else text[:end]
    parts = text.split(separator, number)
    return parts[number - 1] if len(parts) >= number else ""


def _codecs(raw: bytes, used: Charset, default: str) -> tuple[str, ...]:
    """Codecs for hexadecimal escapes: an ASCII message can hold escaped characters of the set that MSH-18 names."""
    if used.name not in ("ascii", "utf-8"):
        return ("utf-8", used.name) if used.readable else ("utf-8",)
    declared = charsets.codec_of(charsets.declared(raw)) if b"\\X" in raw else None
    return ("utf-8", declared, default) if declared else ("utf-8", default)


def _segments(text: str, codecs: tuple[str, ...]) -> tuple[list[Segment], Context]:
    """Segments of a text; a line that does not begin with a segment id belongs to the field before it, line end included."""
    pieces = _LINE_ENDS.split(text)
    pieces.append("")
    context = Context(delims.DEFAULT, codecs)
    begins = _segment_start(context.delimiters.field)
    segments: list[Segment] = []
    header: Context | None = None
    for index in range(0, len(pieces) - 1, 2):
        line, ending = pieces[index], pieces[index + 1]
        if not line and not ending:
            continue
        id = line[:3]
        if id in _HEADERS and _HEADER.match(line, 3):
            context = Context(_delimiters(line), codecs)
            begins = _segment_start(context.delimiters.field)
            header = header or context
        elif not begins.match(line) or (len(line) == 3 and id not in STANDARD_SEGMENTS and id[0] != "Z"):
            # Some senders write ids in small letters; anything else continues the field before it.
            small = len(line) > 3 and line[3] == context.delimiters.field and id.upper() in STANDARD_SEGMENTS
            if segments and not small:
                last = segments[-1]
                last.text, last.ending = last.text + last.ending + line, ending
                continue
            id = id.upper() if small else ""
        segments.append(Segment(id, line, ending, context))
    return segments, header or context


def _delimiters(line: str) -> Delimiters:
    field = line[3]
    end = line.find(field, 4)
    return delims.read(field, line[4:] if end < 0 else line[4:end])


@lru_cache(maxsize=64)
def _segment_start(field: str) -> re.Pattern[str]:
    return re.compile(rf"[A-Z][A-Z0-9]{{2}}(?:{re.escape(field)}|\Z)")
