"""Storage: SQLite (a file a room) or PostgreSQL (a schema a room), with the same code."""

from arcuate.kernel.db.database import Database
from arcuate.kernel.db.types import UtcDateTime
from arcuate.kernel.db.upsert import upsert

__all__ = ["Database", "UtcDateTime", "upsert"]
