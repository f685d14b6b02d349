"""Where frames lie that are too large for the database: a file each, on disk before anything positive is answered."""

import hashlib
import os
import secrets
from pathlib import Path

from arcuate.kernel.hl7v2 import header as headers


class Spool:
    """One frame on its way to disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{secrets.token_hex(12)}.hl7"
        self._file = self.path.open("xb")

    @property
    def name(self) -> str:
        """Return the name under which the journal refers to it."""
        return self.path.name

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._file.write(data)

    def keep(self) -> None:
        """Force it to disk, directory entry included."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove it."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def digest(self, head: bytes) -> bytes:
        """Return the content hash, MSH-7 left out, as for frames in memory."""
        header = headers.read(head)
        content = hashlib.sha256()
        with self.path.open("rb") as file:
            if header is not None:
                content.update(file.read(header.time_start))
                file.seek(header.time_end)
            while chunk := file.read(1 << 20):
                content.update(chunk)
        return content.digest()


def read(folder: Path, name: str) -> bytes:
    """Return the bytes of a spooled frame."""
    return (folder / Path(name).name).read_bytes()
