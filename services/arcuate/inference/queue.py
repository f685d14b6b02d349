"""Requests in front of the one engine process: by priority, in order of arrival, together where shapes agree.

Priority and time limit are the request parameters of Triton's scheduling policy, which the protocol lets pass: `priority`
(1 is first; 0 or none is the model's own) and `timeout` (microseconds in the queue and the engine together).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as Total

from arcuate.inference.domain import ModelDescription, Tensor
from arcuate.inference.host import EngineHost
from arcuate.kernel.background import stop
from arcuate.kernel.errors import ArcuateError, Unavailable


@dataclass(order=True)
class _Item:
    """One request that waits or runs; ordered by priority, then by arrival."""

    priority: int
    number: int
    description: ModelDescription = field(compare=False)
    inputs: Mapping[str, Tensor] = field(compare=False)
    outputs: tuple[str, ...] = field(compare=False)
    answer: asyncio.Future[dict[str, Tensor]] = field(compare=False)
    since: float = field(compare=False)

    @property
    def kind(self) -> tuple[object, ...]:
        """Requests of one kind may be computed together: model, outputs, shapes behind the first axis."""
        return self.description.name, self.outputs, tuple(t.shape[1:] for t in self.inputs.values())

    @property
    def rows(self) -> int:
        """Size of the first axis."""
        return int(next(iter(self.inputs.values())).shape[0])


class Metrics:
    """What the queue counts, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge("arcuate_inference_waiting", "Requests that wait.", ["model"], registry=registry)
        self.done = Total("arcuate_inference_requests", "Requests by outcome.", ["model", "outcome"], registry=registry)
        self.queued = Histogram("arcuate_inference_queue_seconds", "Seconds of waiting.", ["model"], registry=registry)
        self.computed = Histogram("arcuate_inference_seconds", "Seconds in the engine.", ["model"], registry=registry)
        self.batches = Total("arcuate_inference_batches", "Calls of the engine.", ["model"], registry=registry)


class RequestQueue:
    """Gives the engine one batch at a time."""

    def __init__(self, host: EngineHost, metrics: Metrics) -> None:
        self._host, self._metrics = host, metrics
        self._heap: list[_Item] = []
        self._numbers = itertools.count()
        self._waiting: Counter[str] = Counter()
        self._running: Sequence[_Item] = ()
        self._work: asyncio.Task[dict[str, Tensor]] | None = None
        self._pump: asyncio.Task[None] | None = None

    async def infer(
        self,
        description: ModelDescription,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[str],
        priority: int | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Tensor]:
        """Outputs of a model. A caller that is cancelled, or too late, leaves the queue; if it ran alone, its network is stopped.

        Raises:
            Unavailable: The line of this model is full, the time limit is over, or the engine failed.
        """
        name, limits = description.name, description.limits
        if self._waiting[name] >= limits.waiting:
            self._metrics.done.labels(name, "refused").inc()
            raise Unavailable(f"{self._waiting[name]} requests wait for {name} already", retry_after_s=limits.seconds)
        future: asyncio.Future[dict[str, Tensor]] = asyncio.get_running_loop().create_future()
        item = _Item(
            priority or limits.priority, next(self._numbers), description, inputs, tuple(outputs), future, time.monotonic()
        )  # fmt: skip
        self._put(item)
        outcome = "failed"
        try:
            async with asyncio.timeout(timeout_s):
                found = await asyncio.shield(future)
            outcome = "answered"
            return found
        except TimeoutError:
            outcome = "late"
            raise Unavailable(f"{name} did not answer within the {timeout_s:g} s that the caller gave it") from None
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._metrics.done.labels(name, outcome).inc()
            self._leave(item)

    async def stop(self) -> None:
        """Ends what runs; whoever waits is told."""
        for item in [*self._heap, *self._running]:
            if not item.answer.done():
                item.answer.set_exception(Unavailable("The inference service is being stopped"))
                item.answer.exception()  # seen: its caller may have gone
        self._heap.clear()
        if self._pump is not None:
            await stop(self._pump)

    def _put(self, item: _Item) -> None:
        heapq.heappush(self._heap, item)
        self._count(item, 1)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._serve())

    def _leave(self, item: _Item) -> None:
        """Take a request that nobody waits for any more out of the line, or stop its network if it runs alone."""
        if item.answer.done():
            return
        item.answer.cancel()
        if item in self._heap:
            self._heap.remove(item)
            heapq.heapify(self._heap)
            self._count(item, -1)
        elif self._work is not None and all(other.answer.cancelled() for other in self._running):
            self._work.cancel()

    def _count(self, item: _Item, change: int) -> None:
        self._waiting[item.description.name] += change
        self._metrics.waiting.labels(item.description.name).set(self._waiting[item.description.name])

    async def _serve(self) -> None:
        while self._heap:
            batch = self._running = self._next()
            name = batch[0].description.name
            for item in batch:
                self._metrics.queued.labels(name).observe(time.monotonic() - item.since)
            self._metrics.batches.labels(name).inc()
            self._work = asyncio.create_task(self._host.infer(name, _joined(batch), list(batch[0].outputs)))
            try:
                with self._metrics.computed.labels(name).time():
                    found = await self._work
            except ArcuateError as error:
                for item in batch:
                    if not item.answer.done():
                        item.answer.set_exception(error)
            except asyncio.CancelledError:
                if any(not item.answer.done() for item in batch):  # the queue itself is being stopped
                    self._work.cancel()
                    raise
            else:
                _hand_out(batch, found)
            finally:
                self._running, self._work = (), None

    def _next(self) -> list[_Item]:
        """The first request and those of its kind that fit into one call, in their order."""
        first = heapq.heappop(self._heap)
        batch, rows, most = [first], first.rows, first.description.limits.batch
        for item in sorted(self._heap):
            if rows < most and item.kind == first.kind and rows + item.rows <= most:
                batch.append(item)
                rows += item.rows
                self._heap.remove(item)
        heapq.heapify(self._heap)
        for item in batch:
            self._count(item, -1)
        return batch


def _joined(batch: Sequence[_Item]) -> Mapping[str, Tensor]:
    if len(batch) == 1:
        return batch[0].inputs
    return {name: np.concatenate([item.inputs[name] for item in batch]) for name in batch[0].inputs}


def _hand_out(batch: Sequence[_Item], found: Mapping[str, Tensor]) -> None:
    at = 0
    for item in batch:
        whole = len(batch) == 1
        rows = slice(at, at + item.rows)
        at += item.rows
        if not item.answer.done():
            item.answer.set_result(dict(found) if whole else {name: tensor[rows] for name, tensor in found.items()})
