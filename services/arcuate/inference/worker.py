"""The engine process: loads models and answers frames on stdin and stdout, at low priority. Started by host.py.

    python -m arcuate.inference.worker MODELS_DIR ENGINE THREADS NICENESS SOCKET

It ends when stdin ends, so it never outlives the room.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from arcuate.inference import framing, store
from arcuate.inference.domain import ModelDescription, Tensor
from arcuate.inference.memory_files import MemoryFile


class Engine(Protocol):
    """What an engine offers."""

    platform: str

    def infer(self, inputs: Mapping[str, Tensor], outputs: list[str]) -> dict[str, Tensor]:
        """Named outputs of checked inputs."""


class Answering:
    """The models loaded so far and what to do with each request."""

    def __init__(self, models_dir: Path, engine: str, threads: int) -> None:
        self._models_dir, self._engine, self._threads = models_dir, engine, threads
        self._loaded: dict[str, Engine] = {}

    def answer(
        self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Head and tensors of the answer; a fault of one request is told, not raised."""
        try:
            if head["op"] == "load":
                return self._load(str(head["model"])), {}
            with _memory_at_most(int(head.get("memory_mib", 0))):
                found = self._loaded[str(head["model"])].infer(tensors, [str(name) for name in head["outputs"]])
        except Exception as error:  # noqa: BLE001  the engine's own errors have no common base; the room says what failed
            return {"ok": False, "reason": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}, {}
        return {"ok": True}, found

    def _load(self, name: str) -> dict[str, Any]:
        state = store.models_in(self._models_dir)[name]
        reason = state.reason or store.hash_fault(self._models_dir / name, state.description)
        if reason:
            return {"ok": False, "reason": reason}
        self._loaded[name] = self._open(name, state.description)
        return {"ok": True, "platform": self._loaded[name].platform}

    def _open(self, name: str, description: ModelDescription) -> Engine:
        folder = self._models_dir / name
        if self._engine == "torch":
            from arcuate.inference.engine_torch import TorchEngine

            return TorchEngine(folder, description, self._threads)
        from arcuate.inference.engine_onnx import OnnxEngine

        return OnnxEngine(folder, description, self._threads)


@contextlib.contextmanager
def _memory_at_most(mib: int) -> Iterator[None]:
    """Let a call take this much more address space than the process has now; 0: as much as there is."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if mib:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (mib << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _answered(answering: Answering, pipe: BinaryIO, beside: socket.socket) -> bytes | None:
    """The frame that answers the next one of the pipe; None at its end."""
    prefix = pipe.read(framing.PREFIX.size)
    if len(prefix) < framing.PREFIX.size:
        return None
    head, body = framing.sizes(prefix)
    told = pipe.read(head)
    files = framing.taken(beside, body)
    request = framing.unpacked(told, files[0].view(body).data if files else b"")
    answer, found = answering.answer(*request)
    offered = files[1] if len(files) > 1 else None
    fits = offered is not None and offered.size >= sum(tensor.nbytes for tensor in found.values())
    return framing.shared(answer, found, beside, offered if offered is not None and fits else MemoryFile())


def main() -> None:
    """Answers until stdin ends."""
    models_dir, engine, threads, niceness, descriptor = sys.argv[1:6]
    beside = socket.socket(fileno=int(descriptor))
    os.nice(int(niceness))
    # What a library prints must not end up between frames: frames keep the pipe, everything else goes to stderr.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answering = Answering(Path(models_dir), engine, int(threads))
    while (frame := _answered(answering, sys.stdin.buffer, beside)) is not None:
        out.write(frame)
        out.flush()


if __name__ == "__main__":
    main()
