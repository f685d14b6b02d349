"""On SQLite: where the door keeps what it takes, a file of its own (`door.db`), and how it comes from there into the journal.

A SQLite file has one writer at a time. In a file of its own the door waits for nobody: neither for the mapping, which writes in the
gateway's file all day, nor for a program that was set aside by the machine while it held the lock. Its table has one B-tree and only
grows at its end, so that a commit costs little more than its flush. The program moves the rows into the journal in the order of their
numbers (`Mover`), and notes in the same transaction how far it has come; what has been moved the door removes.

A repetition is looked for in the journal and, for what has not been moved yet, in memory.
"""

import contextlib
import hashlib
import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import make_url
from sqlmodel import Session

from arcuate.gateway.keeper import Kept, NewFrame, not_kept
from arcuate.kernel.db import Database
from arcuate.kernel.db.driver import Driver, SqliteDriver, driver_of, insert, is_disc_error, marks, sqlite_instant
from arcuate.kernel.errors import ArcuateError

_LOCKED_S = 15.0  # for a backup, or a door that ends while the next begins
_TIDY_AFTER = 500  # arrivals
_CHECKPOINT_PAGES = 2000
_TOGETHER = 64
_CURSOR = "arrivals"

_COLUMNS = (
    "number", "what", "received", "peer", "profile", "sender", "control_id", "kind", "size", "content_hash", "resend_key", "raw", "spool",
    "answer_code", "answer", "warning",
)  # fmt: skip
_FRAME, _AGAIN, _NOTE = "frame", "again", "note"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS arrival (number INTEGER PRIMARY KEY, what TEXT NOT NULL, received TEXT NOT NULL, peer TEXT, profile TEXT, "
    "sender TEXT, control_id TEXT, kind TEXT, size INTEGER, content_hash TEXT, resend_key TEXT, raw BLOB, spool TEXT, answer_code TEXT, "
    "answer BLOB, warning TEXT)"
)
_ADD = f"INSERT INTO arrival ({', '.join(_COLUMNS)}) VALUES ({marks(len(_COLUMNS))})"  # noqa: S608 - names above
_LAST = "SELECT max(number) FROM arrival"
_UNKNOWN = (
    "SELECT number, sender, control_id, content_hash FROM arrival WHERE number > ? AND what = 'frame' ORDER BY number"
)
_ONE = "SELECT received, answer_code, answer FROM arrival WHERE number = ?"
# The last row stays, moved or not, so that no number is given twice.
_REMOVE = "DELETE FROM arrival WHERE number <= ? AND number < (SELECT max(number) FROM arrival)"

_MOVED = "SELECT value FROM cursor WHERE name = 'arrivals'"
_USED = "SELECT 1 FROM frame WHERE sender = ? AND control_id = ? LIMIT 1"
_SAME_ID = "SELECT 1 FROM frame WHERE sender = ? AND control_id = ? AND received >= ? LIMIT 1"
_SAME = "SELECT received, answer_code, answer FROM frame WHERE resend_key = ?"
_NEWEST = "SELECT received, answer_code, answer, content_hash FROM frame WHERE sender = ? ORDER BY number DESC LIMIT 1"
_COUNT = (
    "UPDATE frame SET resends = resends + 1, resent = ? WHERE number = "
    "(SELECT max(number) FROM frame WHERE sender = ? AND control_id = ? AND content_hash = ?)"
)


class _Earlier(NamedTuple):
    """A frame that one repeats; `received` as the file keeps it."""

    received: str
    code: str
    answer: bytes


def door_file(journal: Path) -> Path:
    """Return where the door keeps what it takes, beside the gateway's own file."""
    return journal.with_name("door.db")


class SqliteKeeper:
    """Keeps frames in the door's file.

    Args:
        journal: The gateway's file, which is migrated already.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = _connect(journal)
        self._journal.execute("PRAGMA query_only=ON")
        self._own = _connect(door_file(journal))
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"wal_autocheckpoint={_CHECKPOINT_PAGES}"):
            self._own.execute(f"PRAGMA {pragma}")
        self._own.execute(_TABLE)
        self._recent = _Recent()
        self._since_tidy = 0
        self.distrusted = False

    def keep(self, frames: Sequence[NewFrame], window: datetime) -> list[Kept | ArcuateError]:
        """Commit frames in one transaction; if one of them cannot be kept, each in its own."""
        if self.distrusted:
            return [not_kept(None)] * len(frames)
        try:
            kept: list[Kept | ArcuateError] = list(self._together(frames, sqlite_instant(window)))
        except sqlite3.OperationalError as error:
            self.distrusted = is_disc_error(error)
            return [not_kept(error)] * len(frames)
        except Exception as error:  # noqa: BLE001 - one frame's fault must not cost the others their acknowledgements
            if len(frames) == 1:
                return [not_kept(error)]
            return [kept for frame in frames for kept in self.keep([frame], window)]
        self._since_tidy += len(frames)
        if self._since_tidy >= _TIDY_AFTER:
            self._tidy()
        return kept

    def note(self, at: datetime, peer: str, kind: str, size: int, raw: bytes) -> None:
        """Keep what happened beside whole frames."""
        try:
            self._write(
                [], [(_NOTE, sqlite_instant(at), peer, None, None, None, kind, size, None, None, raw, *[None] * 4)]
            )
        except sqlite3.Error as error:
            raise not_kept(error) from error

    def close(self) -> None:
        """Close the files."""
        self._own.close()
        self._journal.close()

    def _together(self, frames: Sequence[NewFrame], since: str) -> list[Kept]:
        kept: list[Kept] = []
        self._write(kept, [], frames, since)
        return kept

    def _write(
        self, kept: list[Kept], rows: list[tuple[Any, ...]], frames: Sequence[NewFrame] = (), since: str = ""
    ) -> None:
        """Write arrivals in one transaction: rows as they are, frames unless they repeat one; `kept` gets the answers."""
        self._own.execute("BEGIN IMMEDIATE")
        try:
            last = self._caught_up()
            self._journal.execute("BEGIN")
            for frame in frames:
                kept.append(self._look(frame, since, last + 1 + len(rows), rows))
            self._own.executemany(_ADD, [(last + 1 + place, *row) for place, row in enumerate(rows)])
            self._own.execute("COMMIT")
            self._recent.upto = last + len(rows)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._own.execute("ROLLBACK")
            self._recent = _Recent()  # what is not kept is not remembered: the next one reads anew what stands
            raise
        finally:
            if self._journal.in_transaction:
                self._journal.execute("COMMIT")

    def _caught_up(self) -> int:
        """Return the number of the last arrival; what another door has added is remembered too."""
        last: int | None = self._own.execute(_LAST).fetchone()[0]
        if last is None:
            last = self._moved()  # an empty file: numbers go on behind what the journal has
        if last != self._recent.upto:
            for number, sender, control_id, content in self._own.execute(_UNKNOWN, (self._recent.upto,)):
                self._recent.add(number, sender, control_id, content)
        return last

    def _look(self, frame: NewFrame, since: str, number: int, rows: list[tuple[Any, ...]]) -> Kept:
        """Return the answer to a frame, and add the row that it needs; `number` is that of a frame that repeats none."""
        content, received, key, reused = frame.digest.hex(), sqlite_instant(frame.received), None, False
        if frame.control_id:
            key = hashlib.sha256(f"{frame.sender}\0{frame.control_id}\0{content}".encode()).hexdigest()
            earlier, reused = self._same(frame, content, key, since, number, rows)
        else:
            # Without MSH-10 a message is compared only with the last one of the same sender.
            earlier = self._last_of(frame.sender, content, number, rows)
        if earlier is not None and earlier.received >= since:
            rows.append(
                (_AGAIN, received, None, None, frame.sender, frame.control_id, None, None, content, *[None] * 6)
            )
            return Kept(earlier.code, earlier.answer, repeated=True)
        self._recent.add(number, frame.sender, frame.control_id, content)
        rows.append((
            _FRAME, received, frame.peer, frame.profile, frame.sender, frame.control_id, frame.kind, frame.size, content, key, frame.raw,
            frame.spool, frame.answer_code, frame.answer, "control id reused" if reused else "",
        ))  # fmt: skip
        return Kept(frame.answer_code, frame.answer, repeated=False)

    def _same(
        self, frame: NewFrame, content: str, key: str, since: str, number: int, rows: Sequence[tuple[Any, ...]]
    ) -> tuple[_Earlier | None, bool]:
        """Return the frame of this sender with this MSH-10 and content, and whether the MSH-10 was used in the window at all."""
        recent = self._recent.known.get((frame.sender, frame.control_id))
        used = False
        if recent:
            newest = self._arrival(next(reversed(recent.values())), number, rows)
            used = newest is not None and newest.received >= since
            found = self._arrival(recent[content], number, rows) if content in recent else None
            if found is not None:
                return found, used
        ask = self._journal.execute
        if ask(_USED, (frame.sender, frame.control_id)).fetchone() is None:
            return None, used
        same = ask(_SAME, (key,)).fetchone()
        used = used or ask(_SAME_ID, (frame.sender, frame.control_id, since)).fetchone() is not None
        return (_Earlier(*same) if same else None), used

    def _last_of(self, sender: str, content: str, number: int, rows: Sequence[tuple[Any, ...]]) -> _Earlier | None:
        newest = self._recent.newest.get(sender)
        if newest is not None:
            return self._arrival(newest[0], number, rows) if newest[1] == content else None
        last = self._journal.execute(_NEWEST, (sender,)).fetchone()
        return _Earlier(*last[:3]) if last is not None and last[3] == content else None

    def _arrival(self, number: int, next_number: int, rows: Sequence[tuple[Any, ...]]) -> _Earlier | None:
        """Return a remembered frame: of this transaction, or from the file."""
        place = number - (next_number - len(rows))
        if place >= 0:
            return _Earlier(rows[place][1], rows[place][12], rows[place][13])
        found = self._own.execute(_ONE, (number,)).fetchone()
        return _Earlier(*found) if found else None

    def _moved(self) -> int:
        found = self._journal.execute(_MOVED).fetchone()
        return int(found[0]) if found else 0

    def _tidy(self) -> None:
        """Remove and forget what stands in the journal; what cannot be removed now is removed next time."""
        self._since_tidy = 0
        with contextlib.suppress(sqlite3.Error):
            moved = self._moved()
            self._own.execute(_REMOVE, (moved,))
            self._recent.forget(moved)


class _Recent:
    """What has arrived and may not stand in the journal yet, by what a repetition is recognised by.

    Attributes:
        upto: The number of the last arrival that was looked at.
        known: By sender and MSH-10 the number of the last frame with each content, the newest at the end.
        newest: Number and content of each sender's last frame.
    """

    def __init__(self) -> None:
        self.upto = 0
        self.known: dict[tuple[str, str], dict[str, int]] = {}
        self.newest: dict[str, tuple[int, str]] = {}
        self._order: deque[tuple[int, str, str, str]] = deque()

    def add(self, number: int, sender: str, control_id: str, content: str) -> None:
        """Remember one."""
        numbers = self.known.setdefault((sender, control_id), {})
        numbers.pop(content, None)
        numbers[content] = number
        self.newest[sender] = (number, content)
        self._order.append((number, sender, control_id, content))

    def forget(self, upto: int) -> None:
        """Forget those that stand in the journal."""
        while self._order and self._order[0][0] <= upto:
            number, sender, control_id, content = self._order.popleft()
            numbers = self.known.get((sender, control_id), {})
            if numbers.get(content) == number:
                del numbers[content]
                if not numbers:
                    del self.known[sender, control_id]
            if self.newest.get(sender, (0, ""))[0] == number:
                del self.newest[sender]


class Mover:
    """The program's side: brings arrivals into the journal, in their order, each once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file = door_file(Path(make_url(database.url).database or "")) if database.is_sqlite else None
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    async def move(self) -> int:
        """Move some arrivals; returns how many.

        Raises:
            StorageFault: The journal did not take them, or the door's file cannot be read.
        """
        if self._file is None:
            return 0
        after, rows = await self._database.read(self._waiting)
        return await self._database.write(lambda s: _take(s, after, rows)) if rows else 0

    def move_all(self) -> None:
        """Move all that wait (command line)."""
        while (found := self._database.read_sync(self._waiting))[1]:
            self._database.write_sync(lambda s, found=found: _take(s, *found))  # type: ignore[misc]

    def close(self) -> None:
        """Close the door's file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _waiting(self, session: Session) -> tuple[int, list[tuple[Any, ...]]]:
        """Return how far the journal has come, and the arrivals behind that."""
        after = _moved_upto(session)
        with self._lock:
            driver = self._opened()
            query = f"SELECT {', '.join(_COLUMNS)} FROM arrival WHERE number > ? ORDER BY number LIMIT ?"  # noqa: S608 - names above
            return after, driver.rows(query, (after, _TOGETHER)) if driver is not None else []

    def _opened(self) -> SqliteDriver | None:
        """Return the door's file, once a door has made its table."""
        if self._connection is None and self._file is not None and self._file.exists():
            connection = _connect(self._file)
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'arrival'").fetchone() is None:
                connection.close()
                return None
            connection.execute("PRAGMA query_only=ON")
            self._connection = connection
        return SqliteDriver(self._connection) if self._connection is not None else None


def _take(session: Session, after: int, rows: Sequence[tuple[Any, ...]]) -> int:
    """Write arrivals into the journal, unless somebody else has done it meanwhile."""
    if _moved_upto(session) != after:
        return 0
    driver = driver_of(session.connection())
    # The door took all of these for new: an equal one from before the window is no longer what a repetition repeats.
    newest = {row[10]: row[0] for row in rows if row[10] is not None}
    if newest:
        driver.rows(f"UPDATE frame SET resend_key = NULL WHERE resend_key IN ({marks(len(newest))})", list(newest))  # noqa: S608 - marks
    waiting: list[tuple[Any, ...]] = []
    for row in rows:
        if row[1] == _FRAME:
            waiting.append((*row[2:10], row[10] if newest.get(row[10]) == row[0] else None, *row[11:], 0, True))
        elif row[1] == _AGAIN:
            _insert_frames(driver, waiting)  # what it repeats is the last equal one before it
            driver.rows(_COUNT, (row[2], row[5], row[6], row[9]))
    _insert_frames(driver, waiting)
    notes = [(row[2], row[3], row[7], row[8], row[11]) for row in rows if row[1] == _NOTE]
    insert(driver, "transport", ("at", "peer", "kind", "size", "raw"), notes)
    driver.rows(
        "INSERT INTO cursor (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_CURSOR, rows[-1][0]),
    )
    return len(rows)


def _insert_frames(driver: Driver, waiting: list[tuple[Any, ...]]) -> None:
    insert(driver, "frame", (*_COLUMNS[2:], "resends", "unread"), waiting)
    waiting.clear()


def _moved_upto(session: Session) -> int:
    found = driver_of(session.connection()).rows(_MOVED)
    return int(found[0][0]) if found else 0


def _connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=_LOCKED_S, isolation_level=None, check_same_thread=False)
