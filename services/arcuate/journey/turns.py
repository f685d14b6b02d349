"""What one replica at a time does. On SQLite there is one program, which has every turn; on PostgreSQL a row says whose turn it is."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator

from sqlmodel import Session

from arcuate.journey import store
from arcuate.kernel.background import stop
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database

_KEPT_S = 20.0
_RENEWED_S = 5.0


class Turns:
    """Takes, keeps and gives back turns under a name of this replica's own."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._alone = database.is_sqlite
        self._holder = secrets.token_hex(8)

    async def take(self, name: str, seconds: float = _KEPT_S) -> bool:
        """Take or keep a turn; False while another replica has it."""
        if self._alone:
            return True
        now = self._clock.now()
        return await self._database.write(lambda s: store.take_turn(s, name, self._holder, now, seconds))

    async def end(self, name: str) -> None:
        """Give a turn back, so that nobody has to wait for its end."""
        if not self._alone:
            await self._database.write(lambda s: store.end_turn(s, name, self._holder))

    def mine(self, session: Session, name: str) -> bool:
        """Say inside a transaction whether it still is this replica's turn."""
        return self._alone or store.has_turn(session, name, self._holder)

    @contextlib.asynccontextmanager
    async def kept(self, name: str) -> AsyncIterator[None]:
        """Keep a turn that was taken; ends the block (`CancelledError`) when another replica has taken it meanwhile."""
        block = asyncio.current_task()
        lost = False

        async def renew() -> None:
            nonlocal lost
            while await self.take(name):
                await self._clock.sleep(_RENEWED_S)
            lost = True
            if block is not None:
                block.cancel()

        renewing = None if self._alone else asyncio.create_task(renew())
        try:
            yield
        except asyncio.CancelledError:
            if not lost:
                raise
            if block is not None:
                block.uncancel()  # it was ours: whoever stops the block later is told apart from it
        finally:
            if renewing is not None:
                await stop(renewing)
