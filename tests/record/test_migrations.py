"""The migrations make the tables that the code uses, on both databases."""

from importlib import import_module

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from arcuate.kernel.db import Database


@pytest.mark.parametrize("package", ["arcuate.record", "arcuate.record.audit"])
def test_the_history_ends_at_the_tables_of_the_code(database_url: str, package: str) -> None:
    database = Database(database_url, schema="record")
    database.migrate(package)
    database.migrate(package)
    with database._engine.connect() as connection:
        context = MigrationContext.configure(connection)
        difference = compare_metadata(context, import_module(f"{package}.tables").Base.metadata)
    database.close()

    assert difference == []
