"""The clock of this host beside the database server's: one alert when they differ, one when they agree again."""

from datetime import UTC, datetime

from sqlalchemy import text

from arcuate.kernel.clock import Clock
from arcuate.kernel.db.database import Database
from arcuate.kernel.errors import StorageFault
from arcuate.kernel.log import Logger

MOST_S = 5.0
_LOOK_S = 60.0


async def watch(database: Database, clock: Clock, log: Logger) -> None:
    """Look once a minute, for ever; hosts that share a PostgreSQL server are thereby compared with each other."""
    alerted = False
    while True:
        alerted = await look(database, clock, log, alerted)
        await clock.sleep(_LOOK_S)


async def look(database: Database, clock: Clock, log: Logger, alerted: bool) -> bool:
    """Compare once; returns whether there is an alert now."""
    try:
        server: datetime = await database.read(lambda s: s.execute(text("SELECT clock_timestamp()")).scalar_one())
    except StorageFault:
        return alerted
    ahead = (clock.now() - server.astimezone(UTC)).total_seconds()
    if abs(ahead) > MOST_S and not alerted:
        log.error("alert: the clock of this host and the database server's differ", ahead_s=round(ahead, 1))
    elif abs(ahead) <= MOST_S and alerted:
        log.error("recovered: the clock agrees with the database server's", ahead_s=round(ahead, 1))
    return abs(ahead) > MOST_S
