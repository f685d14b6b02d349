"""On SQLite the door has a file of its own: whatever is moved, removed or opened anew in between, each frame is kept once and in order."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from arcuate.gateway import arrivals
from arcuate.gateway.arrivals import Mover, SqliteKeeper
from arcuate.gateway.keeper import Kept, NewFrame
from arcuate.kernel.db import Database

NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty journal as its migrations leave it."""
    folder = tmp_path_factory.mktemp("blank")
    database = Database(f"sqlite:///{folder}/gateway.db")
    database.migrate("arcuate.gateway")
    database.close()
    return folder


def frame(control_id: str, content: str, at: datetime = NOW) -> NewFrame:
    raw, answer = f"{control_id}|{content}".encode(), f"{control_id}{content} at {at}".encode()
    digest = hashlib.sha256(raw).digest()
    return NewFrame(at, "peer", "default", "RIS|X", control_id, "ORM^O01", len(raw), digest, raw, None, "AA", answer)


@dataclass
class Journal:
    """A journal with a door before it; `rows` is what must stand in it: MSH-10, content, how often it was repeated."""

    folder: Path
    database: Database
    door: SqliteKeeper
    rows: list[list[str | int]] = field(default_factory=list)

    def keep(self, *frames: tuple[str, str]) -> None:
        """Let the door keep frames together, and see that each gets the answer that it must."""
        answers = self.door.keep([frame(*one) for one in frames], NOW - WEEK)
        for (control_id, content), answer in zip(frames, answers, strict=True):
            among = self.rows if control_id else self.rows[-1:]  # without MSH-10 only the last one can be repeated
            same = next((row for row in among if row[:2] == [control_id, content]), None)
            assert answer == Kept("AA", frame(control_id, content).answer, repeated=same is not None)
            if same is None:
                self.rows.append([control_id, content, 0])
            else:
                same[2] = int(same[2]) + 1

    def reopen(self) -> None:
        """Begin with another door while the one before still is there."""
        before, self.door = self.door, SqliteKeeper(self.folder / "gateway.db")
        before.close()

    def found(self) -> list[list[str | int]]:
        """Move what waits and return what stands."""
        mover = Mover(self.database)
        mover.move_all()
        mover.close()
        query = sa.text("SELECT control_id, raw, resends FROM frame ORDER BY number")
        rows = self.database.read_sync(lambda session: session.execute(query).all())
        return [[row[0], row[1].decode().split("|")[1], row[2]] for row in rows]


@contextmanager
def journal_in(folder: Path, blank: Path) -> Iterator[Journal]:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(blank, folder)
    journal = Journal(folder, Database(f"sqlite:///{folder}/gateway.db"), SqliteKeeper(folder / "gateway.db"))
    try:
        yield journal
    finally:
        journal.door.close()
        journal.database.close()


FRAMES = st.lists(st.tuples(st.sampled_from(("", "1", "2")), st.sampled_from("ab")), min_size=1, max_size=6)


@settings(max_examples=25)
@given(steps=st.lists(st.one_of(FRAMES, st.sampled_from(("move", "remove", "reopen"))), max_size=12))
def test_f006_each_frame_stands_once_and_in_order_whatever_happens_between_door_and_journal(
    steps: list[list[tuple[str, str]] | str], blank: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with journal_in(tmp_path_factory.getbasetemp() / "arrivals", blank) as journal:
        for step in steps:
            match step:
                case "move":
                    assert journal.found() == journal.rows
                case "remove":
                    journal.door._tidy()
                case "reopen":
                    journal.reopen()
                case _:
                    assert not isinstance(step, str)
                    journal.keep(*step)
        assert journal.found() == journal.rows


def test_two_doors_at_once_know_what_the_other_keeps(blank: Path, tmp_path: Path) -> None:
    with journal_in(tmp_path / "house", blank) as journal:
        other = SqliteKeeper(journal.folder / "gateway.db")
        journal.keep(("1", "a"))
        [again] = other.keep([frame("1", "a")], NOW - WEEK)
        assert isinstance(again, Kept)
        assert again.repeated
        other.close()


def test_after_the_window_an_equal_message_is_a_new_one_without_a_warning(blank: Path, tmp_path: Path) -> None:
    later = NOW + timedelta(days=8)
    with journal_in(tmp_path / "house", blank) as journal:
        journal.keep(("1", "a"))
        [new] = journal.door.keep([frame("1", "a", later)], later - WEEK)
        [again] = journal.door.keep([frame("1", "a", later + WEEK)], later)
        assert isinstance(new, Kept)
        assert isinstance(again, Kept)
        assert (new.repeated, again.repeated) == (False, True)
        assert journal.found() == [["1", "a", 0], ["1", "a", 1]]
        warnings = journal.database.read_sync(lambda s: s.execute(sa.text("SELECT warning FROM frame")).scalars().all())
        assert warnings == ["", ""]


def test_numbers_go_on_behind_the_journal_when_the_doors_file_is_new(blank: Path, tmp_path: Path) -> None:
    """Who restores the gateway's file alone loses what had not been moved, and nothing that comes afterwards."""
    with journal_in(tmp_path / "house", blank) as journal:
        journal.keep(("1", "a"), ("2", "b"))
        assert journal.found() == journal.rows
        journal.door.close()
        for file in journal.folder.glob("door.db*"):
            file.unlink()
        journal.door = SqliteKeeper(journal.folder / "gateway.db")
        journal.keep(("1", "a"), ("3", "c"))
        assert journal.found() == journal.rows


def test_what_the_journal_has_does_not_stay_in_the_doors_file(
    blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "_TIDY_AFTER", 5)
    with journal_in(tmp_path / "house", blank) as journal:
        for number in range(40):
            journal.keep((f"{number}", "a"))
            if number % 4 == 0:
                journal.found()
        assert journal.found() == journal.rows
        left = journal.door._own.execute("SELECT count(*) FROM arrival").fetchone()[0]
        assert left <= 10
