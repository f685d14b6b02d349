"""Commits frames before anything positive is answered, with the driver alone: an ORM costs more than the disc.

One keeper belongs to one door. `keep` writes all frames that are given together in one transaction; what they hold is read later
(`sorter`). On PostgreSQL they are committed to the journal itself, where two doors may keep the same frame at the same moment: the unique
`resend_key` decides. On SQLite the door has a file of its own (`arrivals`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

import psycopg

from arcuate.kernel.errors import ArcuateError, StorageFault

_SAME_ID = "SELECT 1 FROM frame WHERE sender = ? AND control_id = ? AND received >= ? LIMIT 1"
_SAME = "SELECT number, received, answer_code, answer FROM frame WHERE resend_key = ?"
_LAST = "SELECT number, received, answer_code, answer, content_hash FROM frame WHERE sender = ? ORDER BY number DESC LIMIT 1"
_AGAIN = "UPDATE frame SET resends = resends + 1, resent = ? WHERE number = ?"
_RELEASE = "UPDATE frame SET resend_key = NULL WHERE number = ?"
_COLUMNS = (
    "received", "peer", "profile", "sender", "control_id", "kind", "size", "content_hash", "resend_key", "raw", "spool",
    "answer_code", "answer", "warning", "resends", "unread",
)  # fmt: skip
_ADD = f"INSERT INTO frame ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - names above
_LOOK = (
    b"SELECT same.number, same.received, same.answer_code, same.answer, EXISTS (SELECT 1 FROM frame used WHERE used.sender = asked.sender "
    b"AND used.control_id = asked.control_id AND used.received >= %s) "
    b"FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY AS asked(key, sender, control_id, place) "
    b"LEFT JOIN frame same ON same.resend_key = asked.key ORDER BY asked.place"
)
_NOTE = "INSERT INTO transport (at, peer, kind, size, raw) VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class NewFrame:
    """A frame to journal, with the answer that it gets if it repeats no other."""

    received: datetime
    peer: str
    profile: str
    sender: str
    control_id: str
    kind: str
    size: int
    digest: bytes
    raw: bytes | None
    spool: str | None
    answer_code: str
    answer: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer that belongs to a frame: its own, or the stored one of the frame that it repeats."""

    code: str
    wire: bytes
    repeated: bool


class Keeper(Protocol):
    """The journal as the door sees it.

    Attributes:
        distrusted: The disc failed. What a failed flush has left behind is not known, and flushing again through the same handle proves
            nothing: this keeper keeps nothing any more.
    """

    distrusted: bool

    def keep(self, frames: Sequence[NewFrame], window: datetime) -> list[Kept | ArcuateError]:
        """Commit frames; a repeated one (received since `window`) gets its first answer and leaves no second trace.

        Never raises: what could not be kept for certain is a fault in the place of its frame.
        """
        ...

    def note(self, at: datetime, peer: str, kind: str, size: int, raw: bytes) -> None:
        """Keep what happened on a connection beside whole frames.

        Raises:
            StorageFault: It could not be kept.
        """
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


class PostgresKeeper:
    """Keeps frames in the room's PostgreSQL schema; a lost connection is opened again by the next frame."""

    distrusted = False  # its server looks after its own disc, and ends when a flush fails

    def __init__(self, url: str, schema: str | None) -> None:
        self._url, self._schema = url, schema
        self._connection: psycopg.Connection[Any] | None = None

    def keep(self, frames: Sequence[NewFrame], window: datetime) -> list[Kept | ArcuateError]:
        """Commit frames in one transaction; if one of them cannot be kept, each in its own."""
        for _ in range(2):
            try:
                return list(self._together(frames, window))
            except _NothingSent:
                continue  # the connection was dead before this transaction began
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                return [not_kept(error)] * len(frames)
            except Exception as error:  # noqa: BLE001 - one frame's fault must not cost the others their acknowledgements
                if len(frames) == 1 and not isinstance(error, psycopg.errors.UniqueViolation):
                    return [not_kept(error)]
                if len(frames) > 1:
                    return [kept for frame in frames for kept in self.keep([frame], window)]
                # Another door has kept the same frame at this moment: the second look finds it.
        return [not_kept(psycopg.errors.UniqueViolation())] * len(frames)

    def _together(self, frames: Sequence[NewFrame], window: datetime) -> list[Kept]:
        connection = self._open()
        try:
            named = {(frame.sender, frame.control_id) for frame in frames if frame.control_id}
            if len(named) == len(frames):
                kept = _add_all(connection, frames, window)
            else:  # some without MSH-10, or with the same one: each is compared with those before it
                _begin(connection)
                kept = [_add(connection, frame, window) for frame in frames]
            connection.commit()
        except BaseException:
            self._let_go(connection)
            raise
        return kept

    def _open(self) -> "psycopg.Connection[Any]":
        if self._connection is None or self._connection.closed:
            # The door asks by keys alone: a plan that was made while the journal was empty would read all of it for each frame.
            options = "-c statement_timeout=30000 -c lock_timeout=15000 -c enable_seqscan=off"
            options += f" -c search_path={self._schema}" if self._schema else ""
            self._connection = psycopg.connect(self._url, options=options, connect_timeout=5, prepare_threshold=1)
        return self._connection

    def _let_go(self, connection: "psycopg.Connection[Any]") -> None:
        try:
            connection.rollback()
        except psycopg.Error:
            connection.close()
            self._connection = None

    def note(self, at: datetime, peer: str, kind: str, size: int, raw: bytes) -> None:
        """Keep what happened beside whole frames."""
        try:
            connection = self._open()
        except psycopg.Error as error:
            raise not_kept(error) from error
        try:
            connection.execute(_NOTE.replace("?", "%s").encode(), (at, peer, kind, size, raw))
            connection.commit()
        except psycopg.Error as error:
            self._let_go(connection)
            raise not_kept(error) from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


class _NothingSent(Exception):
    """The connection was lost before a transaction began on it."""


def _begin(connection: "psycopg.Connection[Any]") -> None:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        raise _NothingSent from error


def _add_all(connection: "psycopg.Connection[Any]", frames: Sequence[NewFrame], window: datetime) -> list[Kept]:
    """Journal frames of which no two have the same sender and MSH-10: one question for all, then all rows at once."""
    keys = [_key(frame) for frame in frames]
    senders, ids = [frame.sender for frame in frames], [frame.control_id for frame in frames]
    try:
        found = connection.execute(_LOOK, (window, keys, senders, ids)).fetchall()
    except psycopg.OperationalError as error:
        raise _NothingSent from error  # the first statement: nothing was written yet
    kept, rows = [], []
    for frame, key, (number, received, code, answer, reused) in zip(frames, keys, found, strict=True):
        if number is not None and received >= window:
            connection.execute(_statement(_AGAIN), (frame.received, number))
            kept.append(Kept(code, bytes(answer), repeated=True))
            continue
        if number is not None:
            connection.execute(_statement(_RELEASE), (number,))
        rows.append(_row(frame, key, "control id reused" if reused else ""))
        kept.append(Kept(frame.answer_code, frame.answer, repeated=False))
    if len(rows) == 1:
        connection.execute(_statement(_ADD), rows[0])
    elif rows:
        with connection.cursor() as cursor:
            cursor.executemany(_statement(_ADD), rows)  # sent together, without waiting for each
    return kept


def _key(frame: NewFrame) -> str:
    return hashlib.sha256(f"{frame.sender}\0{frame.control_id}\0{frame.digest.hex()}".encode()).hexdigest()


def _row(frame: NewFrame, key: str | None, warning: str) -> tuple[Any, ...]:
    return (
        frame.received, frame.peer, frame.profile, frame.sender, frame.control_id, frame.kind, frame.size, frame.digest.hex(), key,
        frame.raw, frame.spool, frame.answer_code, frame.answer, warning, 0, True,
    )  # fmt: skip


@lru_cache
def _statement(text: str) -> bytes:
    return text.replace("?", "%s").encode()


def _add(connection: "psycopg.Connection[Any]", frame: NewFrame, window: datetime) -> Kept:
    """Journal one frame in the open transaction."""

    def execute(statement: str, values: Sequence[Any] = ()) -> Any:
        return connection.execute(_statement(statement), values)

    content, key, warning = frame.digest.hex(), None, ""
    if not frame.control_id:
        # Without MSH-10 a message is compared only with the last one of the same sender.
        last = execute(_LAST, (frame.sender,)).fetchone()
        earlier = last if last is not None and last[4] == content else None
    else:
        key = _key(frame)
        earlier = execute(_SAME, (key,)).fetchone()
        if execute(_SAME_ID, (frame.sender, frame.control_id, window)).fetchone() is not None:
            warning = "control id reused"
    if earlier is not None and earlier[1] >= window:
        execute(_AGAIN, (frame.received, earlier[0]))
        return Kept(earlier[2], bytes(earlier[3]), repeated=True)
    if earlier is not None and key is not None:
        execute(_RELEASE, (earlier[0],))
    execute(_ADD, _row(frame, key, warning))
    return Kept(frame.answer_code, frame.answer, repeated=False)


def not_kept(error: BaseException | None) -> StorageFault:
    # The driver's text can hold values of the row: only its class is named.
    kind = type(error).__name__ if error is not None else "no handle on it can be trusted now"
    return StorageFault(f"The database did not keep the frame ({kind})", todo="Send it again later.")
