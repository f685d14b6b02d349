"""Reading files from outside through a process of its own, under limits of memory and time.

A file that crashes, hangs or starves the reading process is refused with a reason; the next task finds a fresh process.
"""

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arcuate.imaging.domain import (
    Instance,
    NotMeasurable,
    Refusal,
    RefusalCode,
    Unreadable,
    instance_from_json,
    refusal_from_json,
)

Json = dict[str, Any]
MEBI = 2**20


@dataclass(frozen=True)
class Limits:
    """What a file from outside may cost.

    Attributes:
        file_bytes: Largest file.
        voxels: Most voxels of one image or series.
        header_memory_bytes, pixel_memory_bytes: Memory above the idle process while a header is read, while pixels are decoded.
        header_seconds, pixel_seconds: Wall time of one task.
    """

    file_bytes: int = 1024 * MEBI
    voxels: int = 200_000_000
    header_memory_bytes: int = 256 * MEBI
    pixel_memory_bytes: int = 4096 * MEBI
    header_seconds: float = 15.0
    pixel_seconds: float = 300.0


class Parser:
    """One reading process; calls are safe from any thread and run one at a time."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Parser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    @property
    def pid(self) -> int | None:
        """Process id, while there is a process."""
        return self._process.pid if self._process else None

    def header(self, path: Path) -> Instance | Unreadable:
        """Read one file's header facts."""
        try:
            made = self._ask({"task": "header", "path": str(path)}, self.limits.header_seconds)
        except NotMeasurable as error:
            return Unreadable(str(path), error.refusal)
        return instance_from_json(made)

    def folder(self, folder: Path, most: int = 20_000) -> list[Instance | Unreadable]:
        """Read the headers of all files below a folder, in the order of their names.

        Raises:
            NotMeasurable: More files than `most`.
        """
        paths = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and p.name != "DICOMDIR")
        if len(paths) > most:
            raise NotMeasurable(
                Refusal(RefusalCode.TOO_LARGE, f"The folder holds {len(paths)} files", "Give the folder of one study.")
            )
        return [self.header(path) for path in paths]

    def pixels(
        self, frames: Sequence[tuple[str, str, int, float, float]], shape: tuple[int, int, int], out: Path
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Decode frames (path, digest, index, slope, intercept) in order into `out`.

        Returns:
            The volume, float32 (columns, rows, slices).

        Raises:
            NotMeasurable: A file is damaged or its pixels cannot be decoded.
        """
        self._ask({"task": "pixels", "frames": frames, "shape": shape, "out": str(out)}, self.limits.pixel_seconds)
        return _load(out)

    def nifti(
        self, path: Path, out: Path
    ) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float64]]]:
        """Read a NIfTI file.

        Returns:
            The volume, float32 (i, j, k), and its affine, voxel to RAS in mm.

        Raises:
            NotMeasurable: It is no NIfTI image of one volume with a known orientation.
        """
        made = self._ask({"task": "nifti", "path": str(path), "out": str(out)}, self.limits.pixel_seconds)
        return _load(out), np.asarray(made["affine"], dtype=np.float64)

    def metadata(self, path: Path) -> Json:
        """Return a file's attributes as DICOM JSON without bulk data (PS3.18 F).

        Raises:
            NotMeasurable: The file cannot be read.
        """
        return self._ask({"task": "metadata", "path": str(path)}, self.limits.header_seconds)

    def _ask(self, task: Mapping[str, Any], seconds: float) -> Json:
        with self._lock:
            process = self._process if self._process and self._process.poll() is None else self._start()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(task).encode() + b"\n")
                process.stdin.flush()
                line = self._line(process, seconds)
            except BrokenPipeError:
                line = b""
            if not line:
                hung = process.poll() is None
                self._stop()
                what = f"Reading took longer than {seconds:.0f} s" if hung else "The file crashed the reading process"
                raise NotMeasurable(Refusal(RefusalCode.HOSTILE, what, "Do not use this file."))
        made: Json = json.loads(line)
        if refusal := refusal_from_json(made.get("bad")):
            raise NotMeasurable(refusal)
        found: Json = made["ok"]
        return found

    def _start(self) -> subprocess.Popen[bytes]:
        self._stop()
        limits = {k: v for k, v in vars(self.limits).items() if isinstance(v, int)}
        # No more of our environment than Python needs: this process opens files from strangers.
        environment = {k: os.environ[k] for k in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG") if k in os.environ}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "arcuate.imaging.parsing_process", json.dumps(limits)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        self._process = process
        if not self._line(process, 60):
            self._stop()
            raise NotMeasurable(
                Refusal(RefusalCode.DAMAGED, "The reading process does not start", "See the log of this room.")
            )
        return process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """Return one whole line, or nothing when the process ended or the time ran out."""
        assert process.stdout is not None
        parts: list[bytes] = []
        end = time.monotonic() + seconds
        descriptor = process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0 and selector.select(left):
                part = os.read(descriptor, 1 << 20)
                parts.append(part)
                if not part or part.endswith(b"\n"):
                    line = b"".join(parts)
                    return line if line.endswith(b"\n") else b""
        return b""

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _load(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    made: np.ndarray[Any, np.dtype[np.float32]] = np.load(path, mmap_mode="r", allow_pickle=False)
    return made
