"""Keeps the engine process: starts it, hands it one request at a time, ends it when it is late, starts it anew."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arcuate.inference import framing, store
from arcuate.inference.domain import ModelState, Tensor
from arcuate.inference.memory_files import KEPT_REQUEST_BYTES, AnswerFiles, MemoryFile
from arcuate.kernel.errors import NotFound, Unavailable
from arcuate.kernel.log import Logger

_BUFFER = 64 << 20
LOAD_LIMIT_S = 120.0


@dataclass(frozen=True)
class EngineSettings:
    """How the process runs; see settings.py."""

    engine: str
    threads: int
    niceness: int
    limit_s: float


class EngineHost:
    """The models of a folder, and the process that computes them."""

    def __init__(self, models_dir: Path, settings: EngineSettings, log: Logger) -> None:
        self._models_dir, self._settings, self._log = models_dir, settings, log
        self._process: asyncio.subprocess.Process | None = None
        self._beside: socket.socket | None = None
        self._request, self._answers = MemoryFile(), AnswerFiles()
        self._turn = asyncio.Lock()
        self.states: dict[str, ModelState] = store.models_in(models_dir)
        self.platform = ""
        self.started = False

    def state(self, name: str) -> ModelState:
        """A model that stands here; NotFound else."""
        if name not in self.states:
            raise NotFound(f"There is no model {name!r}", todo=f"Models here: {', '.join(self.states) or 'none'}.")
        return self.states[name]

    async def start(self) -> None:
        """Starts the process and loads every model, unless it runs."""
        async with self._turn:
            await self._ensure()

    async def infer(self, name: str, inputs: Mapping[str, Tensor], outputs: list[str]) -> dict[str, Tensor]:
        """Outputs of a model. Unavailable, with the reason, when it is disabled, late or has crashed."""
        async with self._turn:
            await self._ensure()
            state = self.state(name)
            if not state.ready:
                raise Unavailable(f"The model {name} is disabled: {state.reason}", retry_after_s=60)
            head: dict[str, Any] = {"op": "infer", "model": name, "outputs": outputs}
            limits = state.description.limits
            head["memory_mib"] = limits.memory_mib
            answer, found = await self._ask(head, inputs, limits.seconds or self._settings.limit_s)
        if not answer.get("ok"):
            raise Unavailable(f"The model {name} could not answer: {answer.get('reason')}", retry_after_s=60)
        return found

    async def stop(self) -> None:
        """Ends the process."""
        async with self._turn:
            await self._end()

    async def _ensure(self) -> None:
        if self._process is not None and self._process.returncode is None:
            return
        await self._end()
        settings = self._settings
        self._beside, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "arcuate.inference.worker", str(self._models_dir), settings.engine, str(settings.threads),
                str(settings.niceness), str(theirs.fileno()), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                limit=_BUFFER, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        for name, state in store.models_in(self._models_dir).items():
            self.states[name] = await self._loaded(name, state)
        self.started = True

    async def _loaded(self, name: str, state: ModelState) -> ModelState:
        if not state.ready:
            return state
        answer, _ = await self._ask({"op": "load", "model": name}, {}, LOAD_LIMIT_S)
        if answer.get("ok"):
            self.platform = str(answer["platform"])
            return state
        self._log.error("model disabled", model=name, reason=answer.get("reason"))
        return replace(state, reason=str(answer.get("reason")))

    async def _ask(
        self, head: Mapping[str, Any], tensors: Mapping[str, Tensor], limit_s: float
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            async with asyncio.timeout(limit_s):
                return await self._exchange(head, tensors)
        except TimeoutError:
            await self._end()
            raise Unavailable(f"The network did not answer within {limit_s:g} s and was stopped") from None
        except (OSError, EOFError, framing.BrokenFrame) as error:
            code = self._process.returncode if self._process is not None else None
            self._log.error("engine process failed", error=type(error).__name__, exit_code=code)
            await self._end()
            raise Unavailable("The engine process failed; it is started anew") from error
        except asyncio.CancelledError:
            # A frame may be half read: the pipe is of no use any more.
            await self._end()
            raise

    async def _exchange(
        self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None or self._beside is None:
            raise EOFError
        offered = self._answers.free()
        process.stdin.write(framing.shared(head, tensors, self._beside, self._request, offered))
        await process.stdin.drain()
        size, body = framing.sizes(await process.stdout.readexactly(framing.PREFIX.size))
        told = await process.stdout.readexactly(size)
        if self._request.size > KEPT_REQUEST_BYTES:
            self._request = MemoryFile()
        # They came before the frame did: nothing is waited for here.
        files = framing.taken(self._beside, body)
        if not files:
            return framing.unpacked(told, b"")
        file = offered if offered is not None and offered.is_same(files[0]) else files[0]
        return framing.unpacked(told, self._answers.lent(file, body))

    async def _end(self) -> None:
        process, self._process = self._process, None
        # A process that is being ended may still write into them; answers that are held keep their pages.
        self._request, self._answers = MemoryFile(), AnswerFiles()
        if self._beside is not None:
            self._beside.close()
            self._beside = None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
