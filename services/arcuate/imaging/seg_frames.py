"""The frames of a binary segmentation as bytes: packed pixels and functional groups (PS3.3 C.8.20, C.7.6.16; PS3.5 7.5, 8.2).

A whole head has thousands of frames. As objects of a library their functional groups cost ten times what the rest of the
object costs; as bytes (explicit VR, little endian, defined lengths) nearly nothing.
"""

import struct
from collections.abc import Sequence

import numpy as np

from arcuate.imaging.derived import decimal
from arcuate.imaging.geometry import Grid, Slice

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

# Purpose of reference: Source image for image processing operation (CID 7202); derivation: Segmentation (CID 7203).
_SOURCE = ("121322", "DCM", "Source image for image processing operation")
_SEGMENTATION = ("113076", "DCM", "Segmentation")
_TOGETHER = 8  # frames packed at once: any eight frames end at a whole byte


def order(numbers: Numbers, segments: int) -> list[tuple[int, int]]:
    """Return (segment number, slice) of each frame: segment by segment, slices from the last to the first, empty ones left out.

    Args:
        numbers: Segment numbers (slices, rows, columns); 0 is no segment.
    """
    present = np.array([np.bincount(plane.ravel(), minlength=segments + 1) for plane in numbers]) > 0
    return [(number, int(k)) for number in range(1, segments + 1) for k in reversed(np.flatnonzero(present[:, number]))]


def packed(numbers: Numbers, frames: Sequence[tuple[int, int]]) -> bytes:
    """Return the frames as one bit a pixel, first pixel in the lowest bit, without a gap between frames; of even length."""
    parts = []
    for first in range(0, len(frames), _TOGETHER):
        some = np.stack([numbers[k] == number for number, k in frames[first : first + _TOGETHER]])
        parts.append(np.packbits(some, axis=None, bitorder="little").tobytes())
    return _even(b"".join(parts), b"\0")


def functional_groups(grid: Grid, frames: Sequence[tuple[int, int]]) -> bytes:
    """Return the value of PerFrameFunctionalGroupsSequence: derivation, dimension indices, place and segment of each frame."""
    kept = sorted({k for _, k in frames}, reverse=True)
    position = {k: number for number, k in enumerate(kept, 1)}
    of_slice = {k: (_derivation(grid.slices[k]), _place(grid.slices[k])) for k in kept}
    return b"".join(
        _item(
            of_slice[k][0],
            _sequence(0x00209111, _item(_element(0x00209157, "UL", struct.pack("<2I", number, position[k])))),
            of_slice[k][1],
            _sequence(0x0062000A, _item(_element(0x0062000B, "US", struct.pack("<H", number)))),
        )
        for number, k in frames
    )


def _derivation(source: Slice) -> bytes:
    instance = source.instance
    image = [
        _text(0x00081150, "UI", instance.text("SOPClassUID")),
        _text(0x00081155, "UI", instance.sop_uid),
        *([_text(0x00081160, "IS", str(source.index + 1))] if len(instance.frames) > 1 else []),
        _text(0x0028135A, "CS", "YES"),
        _sequence(0x0040A170, _code(*_SOURCE)),
    ]
    return _sequence(
        0x00089124, _item(_sequence(0x00082112, _item(*image)), _sequence(0x00089215, _code(*_SEGMENTATION)))
    )


def _place(source: Slice) -> bytes:
    assert source.frame.position is not None
    return _sequence(0x00209113, _item(_text(0x00200032, "DS", "\\".join(decimal(v) for v in source.frame.position))))


def _code(value: str, scheme: str, meaning: str) -> bytes:
    return _item(_text(0x00080100, "SH", value), _text(0x00080102, "SH", scheme), _text(0x00080104, "LO", meaning))


def _text(tag: int, vr: str, value: str) -> bytes:
    return _element(tag, vr, _even(value.encode("ascii"), b"\0" if vr == "UI" else b" "))


def _element(tag: int, vr: str, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def _sequence(tag: int, items: bytes) -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(items)) + items


def _item(*elements: bytes) -> bytes:
    value = b"".join(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


def _even(value: bytes, filler: bytes) -> bytes:
    return value + filler if len(value) % 2 else value
