"""Files of received studies under names of our own: written, flushed to the disk and only then named.

A name from outside (UID, AE title, patient) never becomes part of a path.
"""

import os
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from arcuate.kernel.errors import StorageFault, Unavailable

GIBI = 2**30


def new_id() -> str:
    """Return a random id: nothing of a patient or a sender stands in it."""
    return secrets.token_hex(16)


class Spool:
    """A folder of files with a quota.

    Args:
        root: The folder; made when missing.
        quota_bytes: Most bytes that it may hold.
        free_bytes: Bytes of the disk that stay free.
    """

    def __init__(self, root: Path, quota_bytes: int, free_bytes: int) -> None:
        self._incoming, self._files = root / "incoming", root / "files"
        for folder in (self._incoming, self._files):
            folder.mkdir(parents=True, exist_ok=True)
        for left in self._incoming.iterdir():  # from before a crash: nobody was told that it was kept
            left.unlink()
        self._quota, self._free = quota_bytes, free_bytes
        self._lock = threading.Lock()
        self._used = sum(p.stat().st_size for p in self._files.rglob("*") if p.is_file())

    @property
    def used(self) -> int:
        """Bytes that the kept files take."""
        return self._used

    def check_room(self, more: int = 0) -> None:
        """Refuse to take more when the quota or the disk is full.

        Raises:
            Unavailable: There is no space.
        """
        if self._used + more > self._quota:
            raise Unavailable(
                "The space for images is used up", todo="Raise ARCUATE_IMAGING_QUOTA_GIB or lower KEEP_DAYS."
            )
        if shutil.disk_usage(self._files).free - more < self._free:
            raise Unavailable("The disk for images is nearly full", todo="Free some space on it.")

    @contextmanager
    def incoming(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Give a file to write to; it is flushed to the disk at the end, and removed unless it was kept."""
        path = self._incoming / new_id()
        try:
            with path.open("wb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def keep(self, path: Path, name: str) -> str:
        """Flush a file to the disk and give it its final place; returns its name in the spool.

        Raises:
            StorageFault: The disk did not take it; nothing may be acknowledged.
        """
        relative = f"{name[:2]}/{name}"
        target = self._files / relative
        try:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                size = os.fstat(file.fileno()).st_size
            if not target.parent.exists():
                target.parent.mkdir(exist_ok=True)
                _sync_folder(self._files)
            path.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise StorageFault("The disk did not keep the image", todo="Send it again later.") from error
        with self._lock:
            self._used += size
        return relative

    def write(self, content: bytes, suffix: str = "") -> str:
        """Keep bytes of our own; returns their name in the spool."""
        with self.incoming() as (path, file):
            file.write(content)
            file.flush()
            return self.keep(path, new_id() + suffix)

    def path(self, relative: str) -> Path:
        """Return where a kept file lies."""
        return self._files / relative

    def drop(self, relatives: Iterable[str]) -> None:
        """Remove kept files; one that is gone already is no fault."""
        for relative in relatives:
            path = self._files / relative
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            with self._lock:
                self._used -= size

    def sweep(self, known: set[str]) -> int:
        """Remove files that no row names: their sender was never told that they were kept. Returns how many."""
        orphans = [
            relative
            for p in self._files.rglob("*")
            if p.is_file() and (relative := f"{p.parent.name}/{p.name}") not in known
        ]
        self.drop(orphans)
        return len(orphans)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
