"""Asks a model within a time limit and answers by the stated fallback when it is absent, late or broken (FAULTS 061)."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from arcuate.kernel.errors import ArcuateError
from arcuate.kernel.log import Logger
from arcuate.scheduling.domain import Away, Forecast, ModelName, Moment


class Model(Protocol):
    """What answers: a pure function of a moment."""

    @property
    def name(self) -> ModelName:
        """Return name, version and hash."""
        ...

    def forecast(self, moment: Moment) -> Forecast:
        """Return the forecast at a moment."""
        ...


_THREADS = 2
_QUEUE_S = 2.0  # a morning's bookings come in one second: waiting for a turn is not the model's slowness

Fallback = Callable[[Moment, str], Forecast]


class Forecaster:
    """One model with its fallback; says once when it fails and once when it answers again."""

    def __init__(self, kind: str, model: Model | None, absent: str, limit_s: float, log: Logger) -> None:
        self.kind, self.model, self.absent = kind, model, absent
        self._limit_s, self._log = limit_s, log
        self._down = ""
        # Threads of its own: a model that hangs must not take those of others.
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"forecast-{kind}")
        self._free = asyncio.Semaphore(_THREADS)

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @classmethod
    def load(cls, kind: str, path: Path, loader: Callable[[Path], Model], limit_s: float, log: Logger) -> "Forecaster":
        """Load a model; a missing or changed one leaves the fallback, with the reason."""
        try:
            return cls(kind, loader(path), "", limit_s, log)
        except ArcuateError as error:
            log.warning("model not loaded", model=kind, reason=error.what)
            return cls(kind, None, error.what, limit_s, log)

    @property
    def trouble(self) -> str:
        """Return why the fallback answers, or an empty text."""
        return self.absent if self.model is None else self._down

    async def ask(self, moment: Moment, fallback: Fallback) -> Forecast:
        """Return the model's forecast, or the fallback's with the reason."""
        if self.model is None:
            return replace(fallback(moment, self.absent), away=Away.ABSENT)
        try:
            # A model that is known to hang keeps its threads: nobody waits longer than for one answer then.
            async with asyncio.timeout(self._limit_s if self._down else _QUEUE_S):
                await self._free.acquire()
            running = asyncio.get_running_loop().run_in_executor(self._pool, self.model.forecast, moment)
            running.add_done_callback(self._ended)
            async with asyncio.timeout(self._limit_s):
                found = await asyncio.shield(running)
        except TimeoutError:
            return self._failed(moment, fallback, f"the model did not answer within {self._limit_s * 1000:.0f} ms")
        except Exception as error:  # noqa: BLE001 - whatever a model does, the flow goes on; its text could hold patient data
            return self._failed(moment, fallback, f"the model failed ({type(error).__name__})")
        if self._down:
            self._down = ""
            self._log.info("model answers again", model=self.kind)
        return found

    def _ended(self, running: "asyncio.Future[Forecast]") -> None:
        self._free.release()
        if not running.cancelled():
            running.exception()  # of one that nobody waits for any more

    def _failed(self, moment: Moment, fallback: Fallback, why: str) -> Forecast:
        if not self._down:
            self._log.error("model does not answer", model=self.kind, reason=why)
        self._down = why
        return replace(fallback(moment, why), away=Away.SILENT)
