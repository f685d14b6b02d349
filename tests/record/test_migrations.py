"""The migrations make the tables that the code uses, on both databases."""

from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlmodel import Session

from arcuate.kernel.clock import ManualClock
from arcuate.kernel.db import Database
from arcuate.kernel.db.migrate import configuration

from .record_world import open_replica, patient


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


async def test_texts_that_were_stored_before_are_found_exactly_afterwards(
    database_url: str, tmp_path: Path, clock: ManualClock, stack: AsyncExitStack
) -> None:
    """Before 0004, a text as it was written stood as a token under `KEY:exact`."""
    replica = await open_replica(database_url, tmp_path / "record", clock, stack)
    long = "Straße der ungewöhnlich langen Namen " * 9
    fhir = replica.fhir()
    made = await fhir.create(
        patient("1", name=[{"family": "Müller", "given": ["Zoë", "zoe"]}], address=[{"line": [long]}])
    )

    def back_and_forth(session: Session) -> tuple[int, int]:
        connection = session.connection()
        config = configuration("arcuate.record")
        config.attributes.update(connection=connection, schema="record")
        count = text("SELECT count(*) FROM token_index WHERE param LIKE '%\\:exact'")
        command.downgrade(config, "0003")
        twins = connection.execute(count).scalar_one()
        command.upgrade(config, "head")
        return twins, connection.execute(count).scalar_one()

    before, after = replica.record.database.write_sync(back_and_forth)

    assert before > 0 and after == 0
    searches = {
        "family:exact": {"Müller": 1, "muller": 0, "Mül": 0}, "family": {"MUL": 1}, "given:exact": {"Zoë": 1, "zoe": 1, "ZOE": 0},
        "address:exact": {long: 1, long[:-1]: 0}, "address:contains": {"ungewohnlich": 1}, "family:missing": {"true": 0, "false": 1},
    }  # fmt: skip
    for name, values in searches.items():
        for value, number in values.items():
            assert len(await fhir.search("Patient", {name: value})) == number, (name, value)
    await fhir.update({**made, "name": [{"family": "Meier"}]})
    assert await fhir.search("Patient", {"family:exact": "Müller"}) == []
