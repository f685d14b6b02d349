"""One frame can hold a batch (FHS, BHS, HL7 v2.5.1 chapter 2.10.3) or several messages one after the other."""

from __future__ import annotations

import re
from dataclasses import dataclass

from arcuate.kernel.hl7v2 import header

# A header or trailer at the start of a line; MSH, FHS and BHS need a field separator behind them.
_HEAD = re.compile(rb"(?:\A|[\r\n])[\xef\xbb\xbf \t]*(?:(MSH|FHS|BHS)" + header.BEGIN + rb"|(BTS|FTS)(?=[^\w]|\Z))")


@dataclass(frozen=True, slots=True)
class Frame:
    """The messages of one frame, bytes untouched, in order; `declared` is BTS-1 where the batch has one."""

    messages: tuple[bytes, ...]
    batch: bool = False
    declared: int | None = None

    @property
    def miscounted(self) -> bool:
        return self.declared is not None and self.declared != len(self.messages)


def split(raw: bytes) -> Frame:
    """Messages of a frame. A frame without MSH has none; a single message is returned whole, with all that stands around it."""
    if header.begins(raw) and raw.find(b"MSH", 3) < 0 and b"BTS" not in raw and b"FTS" not in raw:
        return Frame((raw,))
    heads = [
        (found.start(1) if found.group(1) else found.start(2), found.group(1) or found.group(2), found.start())
        for found in _HEAD.finditer(raw)
    ]
    starts = [index for index, (_, name, _) in enumerate(heads) if name == b"MSH"]
    batch = len(starts) != len(heads)
    if len(starts) == 1 and not batch:
        return Frame((raw,))
    messages = tuple(
        raw[heads[index][0] : heads[index + 1][2] + 1 if index + 1 < len(heads) else len(raw)] for index in starts
    )
    return Frame(messages, batch, _declared(raw, heads))


def _declared(raw: bytes, heads: list[tuple[int, bytes, int]]) -> int | None:
    """The sum of all BTS-1 that hold a number."""
    counts = [
        re.match(rb"BTS[^\w\s]\s*(\d{1,9})", raw[start : start + 24]) for start, name, _ in heads if name == b"BTS"
    ]
    numbers = [int(count.group(1)) for count in counts if count]
    return sum(numbers) if numbers else None
