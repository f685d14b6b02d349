"""Schema migrations: one Alembic history a room, run by one shared environment."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, text

from arcuate.kernel.errors import Conflict

_ENVIRONMENT = Path(__file__).parent / "alembic"
_LOCK = 0x41524355  # "ARCU": one number for all rooms, so that two starting programs take turns


def configuration(package: ModuleType | str) -> Config:
    """Return the Alembic configuration of a room's package."""
    module = import_module(package) if isinstance(package, str) else package
    versions = Path(str(module.__file__)).parent / "migrations" / "versions"
    config = Config()
    config.set_main_option("script_location", str(_ENVIRONMENT))
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "newline")
    return config


def upgrade(engine: Engine, package: ModuleType | str, schema: str | None = None) -> None:
    """Upgrade to the newest revision; a second runner waits for the first (PostgreSQL: advisory lock, SQLite: write lock).

    Raises:
        Conflict: The schema is of a version that this program does not know.
    """
    config = configuration(package)
    with engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config.attributes["connection"] = connection
        config.attributes["schema"] = schema
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise Conflict(
                f"The database has a schema that this version does not know ({error})",
                todo="It was made by a newer version of Arcuate: start that one, or restore a backup from before the upgrade.",
            ) from error
