"""Archives of past years as single items: HL7 messages out of files of any shape, lines of FHIR Bulk Data, rows of tables.

Files are read from the first byte to the last and never unpacked to disk. HL7 files may hold one message or many, plain, as batches, or
framed as they went over the wire (MLLP). zip, tar and gz are opened, one inside another at most; what claims to be small and unpacks
without end is refused.
"""

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from arcuate.kernel.errors import BadInput

MIB = 1024 * 1024
_CHUNK = MIB
_UNPACKED_BYTES = 16 * 1024 * MIB  # of one packed file
_PACKED_RATIO = 400  # text packs 10 to 30 times; what packs more is no archive of messages
_FREE_BYTES = 64 * MIB  # unpacked before the ratio is looked at
_NESTED = 2
# Where a message begins or ends: framing bytes; a header or an envelope at the start of a line.
_BORDER = re.compile(rb"[\x0b\x1c]|[\r\n][\xef\xbb\xbf \t]*(?:(?=MSH[^\w\s])|(?:FHS|BHS|BTS|FTS)(?=[^\w]|\Z)[^\r\n]*)")
_TAIL = 16  # bytes that may be the beginning of a border


@dataclass(frozen=True)
class File:
    """One file of an archive; `name` says where it lies, for people."""

    name: str
    path: str
    stream: IO[bytes]

    @property
    def kind(self) -> str:
        """Return `bulk` for NDJSON, `table` for CSV, else `hl7`."""
        suffix = Path(self.path).suffix.lower()
        return {".ndjson": "bulk", ".jsonl": "bulk", ".csv": "table", ".tsv": "table"}.get(suffix, "hl7")


def files(paths: list[Path], refused: list[tuple[str, str]]) -> Iterator[File]:
    """Yield the files under these paths by name, those in archives too; what cannot be opened is added to `refused`.

    Raises:
        BadInput: A path does not exist.
    """
    for path in paths:
        if not path.exists():
            raise BadInput("There is no such file or folder", where=str(path))
        listed = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        for one in listed:
            name = str(one.relative_to(path)) if path.is_dir() else one.name
            with one.open("rb") as stream:
                yield from _opened(File(name, one.name, stream), one.stat().st_size, refused, _NESTED)


def _opened(file: File, packed: int, refused: list[tuple[str, str]], depth: int) -> Iterator[File]:
    head = file.stream.read(512)
    file.stream.seek(0)
    try:
        if head.startswith(b"PK\x03\x04") and depth:
            yield from _zipped(file, refused, depth - 1)
        elif head.startswith(b"\x1f\x8b") and depth:
            inner = _unpacked(gzip.GzipFile(fileobj=file.stream), packed)
            path = file.path.removesuffix(".gz") if not file.path.endswith(".tgz") else file.path[:-4] + ".tar"
            if path.endswith(".tar"):
                yield from _tarred(File(file.name, path, inner), packed, refused, depth - 1)
            else:
                yield File(file.name, path, inner)
        elif head[257:262] == b"ustar" and depth:
            yield from _tarred(file, packed, refused, depth - 1)
        elif head.startswith((b"PK\x03\x04", b"\x1f\x8b")):
            refused.append((file.name, "An archive inside an archive inside an archive is not opened"))
        else:
            yield file
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        tarfile.TarError,
        NotImplementedError,
        RuntimeError,
        BadInput,
    ) as error:
        # RuntimeError: zipfile's word for a file that asks for a password.
        refused.append((file.name, error.what if isinstance(error, BadInput) else f"Cannot be unpacked: {error}"))


def _zipped(file: File, refused: list[tuple[str, str]], depth: int) -> Iterator[File]:
    with zipfile.ZipFile(file.stream) as packed:
        for one in sorted((one for one in packed.infolist() if not one.is_dir()), key=lambda one: one.filename):
            name = f"{file.name}/{one.filename}"
            try:
                opened: AbstractContextManager[IO[bytes]] = packed.open(one)
            except (RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
                refused.append((name, f"Cannot be unpacked: {error}"))
                continue
            with opened as stream:
                limited = _unpacked(stream, one.compress_size)
                yield from _opened(File(name, Path(one.filename).name, limited), one.compress_size, refused, depth)


def _tarred(file: File, packed: int, refused: list[tuple[str, str]], depth: int) -> Iterator[File]:
    # In the order in which it was packed: a packed stream is read once, from its beginning.
    with tarfile.open(fileobj=file.stream, mode="r|") as archive:
        for one in archive:
            stream = archive.extractfile(one) if one.isreg() else None
            if stream is not None:
                member = File(f"{file.name}/{one.name}", Path(one.name).name, io.BufferedReader(_Again(stream)))
                yield from _opened(member, one.size or packed, refused, depth)


class _Again(io.RawIOBase):
    """A stream of which the beginning can be read twice, though its source is read once."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._head, self._at = source, b"", 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that its beginning can be read again."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go back to the beginning, as long as no more than the beginning was read."""
        if whence or offset > len(self._head):
            raise io.UnsupportedOperation("this stream is read once")
        self._at = offset
        return offset

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Read some bytes."""
        if self._at < len(self._head):
            data = self._head[self._at : self._at + len(buffer)]
        else:
            data = self._source.read(len(buffer))
            if len(self._head) < _CHUNK:
                self._head += data
        self._at += len(data)
        buffer[: len(data)] = data
        return len(data)


class _Unpacked(io.RawIOBase):
    """An unpacked stream that ends with an error where it has grown out of all proportion."""

    def __init__(self, source: IO[bytes] | gzip.GzipFile, packed: int) -> None:
        self._source, self._packed, self._read = source, max(1, packed), 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read again from its beginning."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        self._read = 0
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._source.tell()

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Read some bytes.

        Raises:
            BadInput: More came out than an archive of messages holds.
        """
        data = self._source.read(len(buffer))
        self._read += len(data)
        if self._read > _UNPACKED_BYTES or self._read > max(_FREE_BYTES, self._packed * _PACKED_RATIO):
            raise BadInput(
                "It unpacks to far more than such an archive holds", todo="Unpack it yourself, if it is right."
            )
        buffer[: len(data)] = data
        return len(data)


def _unpacked(source: IO[bytes] | gzip.GzipFile, packed: int) -> IO[bytes]:
    return io.BufferedReader(_Unpacked(source, packed), 64 * 1024)


def messages(stream: IO[bytes], most: int) -> Iterator[tuple[bytes, int]]:
    """Yield the HL7 messages of a file: the bytes, and how many there were (of one over `most`, the beginning is given).

    What stands before the first header is given as it is: a file without any message is one item that the journal refuses.
    """
    held, size = bytearray(), 0
    for piece, ends in _pieces(stream):
        size += len(piece)
        if len(held) < most:
            held += piece[: most - len(held)]
        if ends:
            if held.strip():
                yield bytes(held), size
            held, size = bytearray(), 0
    if held.strip():
        yield bytes(held), size


def _pieces(stream: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield a file in pieces, and whether a message ends behind each."""
    rest = b"\n"  # the first line begins as every other
    given = 1  # so much of `rest` has been given out, or is not of the file
    while True:
        chunk = stream.read(_CHUNK)
        data = rest + chunk
        usable = len(data) if not chunk else _whole_lines(data)
        at = given
        for border in _BORDER.finditer(data, 0, usable):
            line_end = data[border.start()] in b"\r\n"  # belongs to the message that it ends
            yield data[at : max(at, border.start() + line_end)], True
            at = max(at, border.end())
        yield data[at:usable], False
        if not chunk:
            return
        # The last line end is kept, so that a header behind it is seen.
        given = 1 if usable else given
        rest = data[usable - 1 :] if usable else data


def _whole_lines(data: bytes) -> int:
    """How many bytes can be looked at: a border at the end could be cut, so the last line waits unless it is long."""
    end = max(data.rfind(b"\r"), data.rfind(b"\n")) + 1
    return end if len(data) - end < _CHUNK else len(data) - _TAIL


def lines(stream: IO[bytes], most: int) -> Iterator[tuple[bytes, int]]:
    """Yield the lines of an NDJSON file, as `messages` does."""
    while line := stream.readline(most + 1):
        size = len(line)
        while size > most and line and not line.endswith(b"\n"):
            more = stream.readline(most)
            if not more:
                break
            size += len(more)
            if more.endswith(b"\n"):
                break
        if line.strip():
            yield line[:most].strip(b"\r\n"), size
