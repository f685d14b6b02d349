"""Write a new migration of a room: `python -m arcuate.kernel.db.revise ROOM "what changes"`; read it before you commit it."""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

from alembic import command

from arcuate.kernel.db.database import Database
from arcuate.kernel.db.migrate import configuration


def revise(room: str, message: str) -> None:
    """Compare the room's tables with its history, both on an empty SQLite file, and write the difference as a revision."""
    package = f"arcuate.{room}"
    tables = import_module(f"{package}.tables")
    config = configuration(package)
    versions = Path(config.get_main_option("version_locations") or "")
    versions.mkdir(parents=True, exist_ok=True)
    number = f"{len(list(versions.glob('*.py'))) + 1:04d}"
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/revise.db")
        database.migrate(package)
        with database._engine.connect() as connection, connection.begin():
            config.attributes.update(connection=connection, metadata=tables.Base.metadata)
            command.revision(config, message, autogenerate=True, version_path=str(versions), rev_id=number)
        database.close()


if __name__ == "__main__":
    revise(sys.argv[1], sys.argv[2])
