"""Migrations that are stopped or meet a schema of another time (047), clocks that differ (046), a backup taken under load (048)."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from tests.accept.sizes import size
from tests.gateway.conftest import open_site
from tests.gateway.messages import order

from arcuate import gateway as gateway_package
from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.db import Database
from arcuate.kernel.db.migrate import configuration
from arcuate.kernel.errors import Conflict, Unauthenticated

STEPS = {
    "0001_first": """
        revision, down_revision = "0001", None
        def upgrade():
            op.create_table("one", sa.Column("id", sa.Integer, primary_key=True))
    """,
    "0002_second": """
        revision, down_revision = "0002", "0001"
        def upgrade():
            op.create_table("two", sa.Column("id", sa.Integer, primary_key=True))
            if os.environ.get("STOP_HALF_WAY"):
                print("half way", flush=True)
                time.sleep(600)
            op.create_table("three", sa.Column("id", sa.Integer, primary_key=True))
    """,
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A room's package with a history of two steps, the second of which can be made to stop in its middle."""
    versions = tmp_path / "code" / "aroom" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "code" / "aroom" / "__init__.py").touch()
    for name, text in STEPS.items():
        head = "import os, time\nimport sqlalchemy as sa\nfrom alembic import op\nbranch_labels = depends_on = None\n"
        (versions / f"{name}.py").write_text(head + textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "aroom", raising=False)
    return "aroom"


def _migrate(url: str, code: Path, **environment: str) -> "subprocess.Popen[str]":
    script = f"from arcuate.kernel.db import Database; d = Database({url!r}); d.migrate('aroom'); d.close(); print('done', flush=True)"
    paths = os.pathsep.join([str(code), *(path for path in sys.path if path)])
    return subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths, **environment}, stdout=subprocess.PIPE, text=True
    )  # fmt: skip


def _tables(url: str) -> set[str]:
    engine = sa.create_engine(url)
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_f047_a_migration_killed_half_way_leaves_the_schema_as_it_was_and_the_next_start_finishes_it(
    database_url: str, package: str, tmp_path: Path
) -> None:
    stopped = _migrate(database_url, tmp_path / "code", STOP_HALF_WAY="1")
    assert stopped.stdout is not None and stopped.stdout.readline() == "half way\n"
    second = _migrate(database_url, tmp_path / "code")  # a second runner waits for the first
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(4)
    stopped.send_signal(signal.SIGKILL)
    stopped.wait(20)

    assert second.communicate(timeout=60)[0] == "done\n"
    assert {"one", "two", "three"} <= _tables(database_url)


def test_f047_a_migration_that_fails_changes_nothing(database_url: str, package: str, tmp_path: Path) -> None:
    step = next((tmp_path / "code").rglob("0002_second.py"))
    whole = step.read_text()
    step.write_text(
        whole.replace(
            '    op.create_table("three"', "    raise ValueError('broken step')\n    op.create_table(\"three\""
        )
    )
    database = Database(database_url)
    with pytest.raises(ValueError, match="broken step"):
        database.migrate(package)
    assert "two" not in _tables(database_url)
    step.write_text(whole)
    database.migrate(package)
    database.close()
    assert {"one", "two", "three"} <= _tables(database_url)


def test_f047_a_schema_of_a_newer_version_is_refused_in_words(database_url: str, package: str) -> None:
    database = Database(database_url)
    database.migrate(package)
    database.write_sync(lambda session: session.execute(sa.text("UPDATE alembic_version SET version_num = '0009'")))
    with pytest.raises(Conflict) as caught:
        database.migrate(package)
    database.close()
    assert "0009" in str(caught.value) and "newer" in str(caught.value)


@pytest.mark.long
def test_f047_a_journal_of_many_rows_of_the_first_version_is_upgraded_whole(database_url: str) -> None:
    rows = size(5_000, 1_000_000)
    database = Database(database_url, schema="gateway")
    first = configuration(gateway_package)
    with database._engine.connect() as connection, connection.begin():
        first.attributes["connection"], first.attributes["schema"] = connection, database.schema
        command.upgrade(first, "0001")
    fill = (
        "INSERT INTO frame (received, peer, profile, sender, control_id, kind, size, content_hash, resend_key, raw, answer_code, answer, "
        "warning, resends) SELECT {at}, 'p', 'default', 'RIS', 'N' || n, 'ORM^O01', n, 'h' || n, 'k' || n, {raw}, 'AA', {raw}, '', 0 FROM {n}"
    )
    if database.is_sqlite:
        numbers = f"(WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {rows}) SELECT n FROM t)"
        fill = fill.format(at="'2026-03-17 09:00:00.000000'", raw="x'4d5348'", n=numbers)
    else:
        fill = fill.format(at="'2026-03-17 09:00:00+00'", raw="'MSH'::bytea", n=f"generate_series(1, {rows}) n")
    database.write_sync(lambda s: s.execute(sa.text(fill)) and None)

    began = time.monotonic()
    database.migrate(gateway_package)
    print(
        f"{rows} rows of the journal, {'SQLite' if database.is_sqlite else 'PostgreSQL'}: {time.monotonic() - began:.1f} s"
    )
    asked = sa.text("SELECT count(*), sum(size), sum(CASE WHEN unread THEN 1 ELSE 0 END) FROM frame")
    assert tuple(database.read_sync(lambda s: s.execute(asked).one())) == (rows, rows * (rows + 1) // 2, 0)
    database.migrate(gateway_package)  # nothing is left to do
    database.close()


def test_f046_a_token_of_a_clock_that_is_a_minute_ahead_is_taken_and_later_ones_are_not() -> None:
    key, now = tokens.new_key("access"), datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
    keys = {"keys": [key.as_dict(private=False)]}

    def taken(skew_s: float) -> bool:
        token = tokens.issue(
            key, "urn:here", Principal("one", frozenset({Role.ADMIN}), "one"), now + timedelta(seconds=skew_s)
        )
        try:
            return bool(tokens.decode(token, keys, issuer="urn:here", audience=tokens.AUDIENCE, now=now))
        except Unauthenticated:
            return False

    assert [taken(skew) for skew in (0, 59, 60, 61, 180)] == [True, True, True, False, False]
    assert [taken(-tokens.LIFETIME_S + rest) for rest in (1, 0, -59)] == [True, False, False]  # no leeway at its end


async def test_f048_a_dump_taken_under_load_is_whole_and_goes_on_where_it_stood(
    tmp_path: Path, postgres_server: str, postgres_url: str
) -> None:
    """One pg_dump is one instant of all rooms: what was acknowledged by then is there once, what waited is applied after the restore."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))[-1].parent
    data, settings = tmp_path / "data", GatewaySettings(port=0)
    dump = tmp_path / "dump"
    acknowledged: list[str] = []
    async with open_site(data, settings, postgres_url) as site:

        async def send(first: int, last: int) -> None:
            for number in range(first, last):
                assert await site.send(_change(number)) == ["AA"]
                acknowledged.append(f"N{number}")

        await send(0, 10)
        before = list(acknowledged)
        sending = asyncio.create_task(send(10, 40))
        url = postgres_url.replace("postgresql+psycopg", "postgresql")
        await asyncio.to_thread(
            subprocess.run, [programs / "pg_dump", "-Fc", "-f", dump, url], check=True, capture_output=True
        )
        await sending
        await site.settle()

    restored = f"{postgres_url.split('?', maxsplit=1)[0].rpartition('/')[2]}_restored"
    admin = postgres_server.format(name="postgres").replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{restored}"')
    try:
        target = postgres_server.format(name=restored)
        empty = target.replace("postgresql+psycopg", "postgresql")
        subprocess.run([programs / "pg_restore", "--exit-on-error", "-d", empty, dump], check=True, capture_output=True)
        async with open_site(data, settings, target) as site:
            site.clock.advance(120)  # the leases of the dumped program run out
            await site.settle()
            ids = [row["control_id"] for row in await site.journal()]
            assert ids == [f"N{number}" for number in range(len(ids))] and set(before) <= set(ids)
            kept = await site.order("ACC1")
            assert kept["meta"]["versionId"] == str(len(ids))
            rest = [_change(number) for number in range(len(ids), 40)]  # a sender sends again what has no answer here
            assert await site.apply(*rest) == ["AA"] * len(rest)
            assert (await site.order("ACC1"))["meta"]["versionId"] == "40"
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{restored}" WITH (FORCE)')


def _change(number: int) -> str:
    when = f"2026{number // 28 + 1:02d}{number % 28 + 1:02d}1100"
    return order(control="XO" if number else "NW", control_id=f"N{number}", when=when)
