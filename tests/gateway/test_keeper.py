"""What the door's keeper answers on PostgreSQL, where all frames of a commit are asked for at once."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from arcuate import gateway as package
from arcuate.gateway.keeper import Kept, NewFrame, PostgresKeeper
from arcuate.kernel.db import Database

NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
WINDOW = NOW - timedelta(days=7)


def frame(control_id: str, content: str, sender: str = "RIS", at: datetime = NOW) -> NewFrame:
    digest = hashlib.sha256(content.encode()).digest()
    answer = f"ACK {sender} {control_id} {content} {at:%d}".encode()
    return NewFrame(
        at, "127.0.0.1", "default", sender, control_id, "ORM^O01", 9, digest, content.encode(), None, "AA", answer
    )


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    made = Database(postgres_url, schema="gateway")
    made.migrate(package)
    yield made
    made.close()


@pytest.fixture
def keeper(database: Database) -> Iterator[PostgresKeeper]:
    made = PostgresKeeper(database.url.replace("postgresql+psycopg", "postgresql"), "gateway")
    yield made
    made.close()


def answers(keeper: PostgresKeeper, *frames: NewFrame, window: datetime = WINDOW) -> list[tuple[str, bool]]:
    kept = keeper.keep(frames, window)
    assert all(isinstance(one, Kept) for one in kept), kept
    return [(one.wire.decode(), one.repeated) for one in kept if isinstance(one, Kept)]


def rows(database: Database) -> list[tuple[str, str, int]]:
    from sqlalchemy import text

    asked = text("SELECT control_id, warning, resends FROM frame ORDER BY number")
    return database.read_sync(lambda s: [(r[0], r[1], r[2]) for r in s.execute(asked)])


def test_f006_among_many_frames_each_repeated_one_gets_its_first_answer(
    keeper: PostgresKeeper, database: Database
) -> None:
    first = [frame(f"N{n}", f"c{n}") for n in range(4)]
    assert answers(keeper, *first) == [(f"ACK RIS N{n} c{n} 17", False) for n in range(4)]
    later = NOW + timedelta(days=1)
    mixed = [frame("N9", "c9", at=later), frame("N2", "c2", at=later), frame("N0", "other", at=later)]
    assert answers(keeper, *mixed) == [
        ("ACK RIS N9 c9 18", False), ("ACK RIS N2 c2 17", True), ("ACK RIS N0 other 18", False),
    ]  # fmt: skip
    assert rows(database) == [
        ("N0", "", 0), ("N1", "", 0), ("N2", "", 1), ("N3", "", 0), ("N9", "", 0), ("N0", "control id reused", 0),
    ]  # fmt: skip


def test_f006_repetitions_within_one_commit_are_recognised(keeper: PostgresKeeper, database: Database) -> None:
    twice = [frame("N1", "a"), frame("N1", "a"), frame("N1", "b"), frame("", "x"), frame("", "x"), frame("", "y")]
    assert [repeated for _, repeated in answers(keeper, *twice)] == [False, True, False, False, True, False]
    assert [(control_id, resends) for control_id, _, resends in rows(database)] == [
        ("N1", 1), ("N1", 0), ("", 1), ("", 0),
    ]  # fmt: skip


def test_f007_what_is_older_than_the_window_is_a_new_message(keeper: PostgresKeeper, database: Database) -> None:
    answers(keeper, frame("N1", "a"), frame("N2", "b"))
    late = NOW + timedelta(days=30)
    again = [frame("N1", "a", at=late), frame("N3", "c", at=late)]
    assert answers(keeper, *again, window=late - timedelta(days=7)) == [
        (f"ACK RIS N1 a {late:%d}", False), (f"ACK RIS N3 c {late:%d}", False),
    ]  # fmt: skip
    assert [warning for _, warning, _ in rows(database)] == ["", "", "", ""]


def test_f043_a_connection_that_was_cut_between_two_commits_costs_no_frame(
    keeper: PostgresKeeper, database: Database
) -> None:
    from sqlalchemy import text

    answers(keeper, frame("N1", "a"), frame("N2", "b"))
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%COMMIT%'"
    )
    assert database.read_sync(lambda s: s.execute(text(cut)).all())
    assert answers(keeper, frame("N3", "c"), frame("N4", "d")) == [
        ("ACK RIS N3 c 17", False), ("ACK RIS N4 d 17", False),
    ]  # fmt: skip
