"""After the acknowledgement: what a journaled frame holds, and in which lines the work on each message stands.

Frames are sorted in the order of the journal, a batch in one transaction. One sorter at a time takes frames (of several programs
on one PostgreSQL journal too), so that the numbers of the jobs have the order of the frames.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from zoneinfo import ZoneInfo

from arcuate.gateway import domain, store, verdict
from arcuate.gateway.arrivals import Mover
from arcuate.gateway.domain import State
from arcuate.gateway.mapping import plan
from arcuate.gateway.mapping.model import ContentFault
from arcuate.gateway.mapping.plan import Context
from arcuate.gateway.profile import Profile, Profiles
from arcuate.gateway.settings import GatewaySettings
from arcuate.gateway.store import Sorted, Unread
from arcuate.gateway.verdict import Looked, NewMessage
from arcuate.kernel.background import Loops
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import ArcuateError
from arcuate.kernel.hl7v2 import header as headers
from arcuate.kernel.hl7v2.message import Message, split
from arcuate.kernel.limit import computing_time
from arcuate.kernel.log import get_logger

_TOGETHER = 64
_POLL_S = 0.5  # a door that could not say that it stored something
_LONG_BYTES = 64 * 1024


class Sorter:
    """Reads what the door has stored.

    Args:
        on_sorted: Called when there is work for the mapping.
    """

    def __init__(
        self, database: Database, profiles: Profiles, settings: GatewaySettings, clock: Clock, zone: ZoneInfo,
        on_sorted: Callable[[], None], loops: Loops | None = None,
    ) -> None:  # fmt: skip
        self._database, self._profiles, self._settings = database, profiles, settings
        self._clock, self._zone, self._on_sorted = clock, zone, on_sorted
        self._mover, self._loops = Mover(database), loops or Loops("gateway")
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._log = get_logger("gateway")

    def wake(self) -> None:
        """Say that the door has stored something."""
        self._wake.set()

    def run(self) -> AbstractAsyncContextManager[None]:
        """Sort in the background until the context is left; what is not sorted by then is sorted at the next start."""
        return self._loops.run("sorter", self._forever)

    async def _forever(self) -> None:
        try:
            await self._whenever_told()
        finally:
            self._mover.close()

    async def _whenever_told(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.sort()
            except ArcuateError as error:
                self._log.warning("cannot sort the journal", reason=error.what)
            except Exception as error:  # noqa: BLE001 - the edge of a background task: it goes on at the next turn
                self._log.error("cannot sort the journal", error=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._wake.wait()

    async def sort(self) -> int:
        """Sort all frames that are unread; returns how many."""
        done = 0
        async with self._one_at_a_time:
            while True:
                moved = await self._mover.move()
                frames = await self._database.read(lambda s: store.unread(s, _TOGETHER))
                if frames:
                    done += await self._write([await self._sorted(frame) for frame in frames])
                    self._on_sorted()
                elif not moved:
                    return done

    async def _write(self, found: Sequence[Sorted]) -> int:
        """Write what frames hold; what cannot be written of one holds up no other."""
        try:
            return await self._database.write(lambda s: store.add_sorted(s, found))
        except ArcuateError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever stands in a message must not stop those behind it
            if len(found) > 1:
                return sum([await self._write([one]) for one in found])
            self._log.error("frame not sorted", number=found[0].frame.number, error=type(error).__name__)
            waiting = Sorted(found[0].frame, (NewMessage("", State.WAITING),))
            return await self._database.write(lambda s: store.add_sorted(s, [waiting]))

    async def _sorted(self, frame: Unread) -> Sorted:
        try:
            # A long message takes its time; pages and the mapping that share this loop go on meanwhile.
            if frame.size > _LONG_BYTES and frame.raw is not None:
                return await asyncio.to_thread(self._read, frame)
            await asyncio.sleep(0)
            with computing_time(self._settings.mapping_s):
                return self._read(frame)
        except Exception as error:  # noqa: BLE001 - what cannot be read here is told by the mapping, which parks it
            self._log.error("frame not read", error=type(error).__name__)
            return Sorted(frame, (NewMessage(frame.kind, State.WAITING),))

    def _read(self, frame: Unread) -> Sorted:
        if frame.raw is None:
            return Sorted(frame, (verdict.too_large(frame.kind, frame.size, self._settings.processed_bytes),))
        if frame.size > len(frame.raw):
            return Sorted(frame, (verdict.too_large(frame.kind, frame.size, self._settings.spooled_bytes),))
        header = headers.read(frame.raw)
        if header is None:
            return Sorted(frame, (verdict.NO_MESSAGE,))
        profile, whole = self._profiles.of_header(header), split(frame.raw)
        rows = tuple(self._row(verdict.look(one, profile), profile) for one in whole.messages)
        warning = f"BTS-1 says {whole.declared}, the batch holds {len(whole.messages)}" if whole.miscounted else ""
        return Sorted(frame, rows, warning)

    def _row(self, looked: Looked, profile: Profile) -> NewMessage:
        if looked.row.state is not State.WAITING:
            return looked.row
        return replace(looked.row, keys=self._keys(looked.use, looked.message, profile))

    def keys_of(self, raw: bytes) -> tuple[str, ...]:
        """Return the lines in which a message stands (for a replay)."""
        profile = self._profiles.of_header(headers.read(raw))
        message = profile.parse(raw)
        return self._keys(plan.use_of_message(message), message, profile)

    def _keys(self, use: str, message: Message, profile: Profile) -> tuple[str, ...]:
        """The lines in which the message stands; what cannot be found out here is told by the mapping."""
        try:
            wanted = plan.needs(use, Context.of(message, profile, self._zone, self._clock.now()))
        except ContentFault:
            return ()
        others = (one for kind in ("ServiceRequest", "Appointment") for one in wanted.others.get(kind, ()))
        return domain.queue_keys(wanted.patients, others)
