"""Files in memory (memfd) through which tensors of many MB pass between the room and its engine process: one side writes, the other maps.

To take, clear, map and give back the pages of a tensor costs the room more than all else of a request. So files are used again: the room
keeps those of former answers, mapped, and offers one with the next request as soon as nobody holds the answer in it; the process
writes into it where the new answer fits, else into a new file. An answer that is still held is never written over.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_FILES = 4
KEPT_BYTES = 128 << 20
KEPT_REQUEST_BYTES = 32 << 20


class MemoryFile:
    """A new file, or the one whose descriptor came from the other process. It never shrinks: the other side may have it mapped."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("arcuate-tensors", os.MFD_CLOEXEC) if descriptor is None else descriptor
        self._pages: mmap.mmap | None = None
        weakref.finalize(self, os.close, self.descriptor)

    @property
    def size(self) -> int:
        """Bytes in it."""
        return os.fstat(self.descriptor).st_size

    def is_same(self, other: MemoryFile) -> bool:
        """Whether both descriptors mean one file."""
        return os.path.samestat(os.fstat(self.descriptor), os.fstat(other.descriptor))

    def write(self, parts: Iterable[bytes | memoryview]) -> None:
        """Write the parts one after the other, from the beginning; what lay behind them stays."""
        at = 0
        for part in parts:
            rest = memoryview(part)
            # Written, not mapped: half the cost, as no page is cleared first.
            while rest:
                count = os.pwrite(self.descriptor, rest, at)
                at, rest = at + count, rest[count:]

    def view(self, size: int) -> NDArray[np.uint8]:
        """Its first bytes, read-only; they live as long as the array or a view of it. ValueError where it holds fewer."""
        if self._pages is None or len(self._pages) < size:
            # All pages at once: a fault for each would cost more than the copy that is saved.
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            self._pages = mmap.mmap(self.descriptor, size, flags=flags, prot=mmap.PROT_READ)
        return np.frombuffer(self._pages, np.uint8, size)


class AnswerFiles:
    """Files of former answers that are kept: at most `KEPT_FILES`, of `KEPT_BYTES` together, whether their answers are held or not."""

    def __init__(self) -> None:
        self._files: list[tuple[MemoryFile, weakref.ref[NDArray[Any]]]] = []

    def free(self) -> MemoryFile | None:
        """The largest whose answer nobody holds any more."""
        found = [file for file, answer in self._files if answer() is None]
        return max(found, key=lambda file: file.size, default=None)

    def lent(self, file: MemoryFile, size: int) -> memoryview:
        """The answer in a file, read-only. The file is kept for a later one, unless that is too much: then it goes with its answer."""
        answer = file.view(size)
        files = [(other, held) for other, held in self._files if other is not file] + [(file, weakref.ref(answer))]
        # Those that are held come first, then the largest: a small free one is the cheapest to make anew.
        files.sort(key=lambda entry: (entry[1]() is None, -entry[0].size))
        self._files, left = [], KEPT_BYTES
        for other, held in files[:KEPT_FILES]:
            if other.size <= left:
                left -= other.size
                self._files.append((other, held))
        # Not the array itself: whoever takes a view of a view would hold what numpy deems its base, and that may not be this array.
        return answer.data
