"""`arcuate backup` and `arcuate restore`: a house on SQLite files, copied while it runs and put back.

All databases are copied as they stood at one instant: writing is held up in all of them until each has begun to read (milliseconds),
then it goes on and the copies are made from what was seen. PostgreSQL has its own tools for this, see docs/howto/backup.md.
"""

import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from arcuate.house import HouseSettings, database_of, locked
from arcuate.kernel.errors import BadInput, Conflict, NotFound, StorageFault

_LIST = "backup.json"
_LOCK_S = 60.0
_DATABASE, _BESIDE = ".db", (".db-wal", ".db-shm", ".lock")
_PAGES = 4096
Say = Callable[[str], None]


def backup(settings: HouseSettings, folder: Path, now: datetime, say: Say) -> None:
    """Copy a house into a new folder; it may run meanwhile.

    Raises:
        BadInput: The house is on PostgreSQL.
        Conflict: The folder exists.
        NotFound: No house has run with this data folder.
        StorageFault: A database is damaged or stays locked.
    """
    data = settings.data_dir.resolve()
    _on_files(settings)
    if not (data / "keys").is_dir():
        raise NotFound(f"No house has run with {data}", todo="Name its folder with --data.")
    if folder.exists():
        raise Conflict(f"{folder} exists already", todo="Name a folder that does not: a backup never overwrites one.")
    being_made = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(being_made, ignore_errors=True)
    being_made.mkdir(parents=True, mode=0o700)
    _copy_databases(data, being_made, sorted(data.glob(f"*/*{_DATABASE}")), say)
    _copy_files(data, being_made)
    files = {str(name): _hash(being_made / name) for name in _files(being_made)}
    (being_made / _LIST).write_text(json.dumps({"made": now.isoformat(), "files": files}, indent=1), encoding="utf-8")
    being_made.rename(folder)
    say(f"{len(files)} files in {folder}, as of {now:%Y-%m-%d %H:%M:%S} UTC")


def restore(settings: HouseSettings, folder: Path, now: datetime, say: Say) -> None:
    """Put a backup back into an empty data folder; sending is halted until a person releases it.

    Raises:
        BadInput: The folder is no backup, or a file of it is missing or was changed.
        Conflict: The data folder is in use or not empty.
    """
    data = settings.data_dir.resolve()
    _on_files(settings)
    names = _checked(folder)
    with locked(data, ("gateway", "record")):
        if any(one.name != "house.lock" for one in data.iterdir()):
            raise Conflict(
                f"{data} is not empty", todo="Name a new folder with --data, or move the old one away first."
            )
        for name in names:
            target = data / name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copy2(folder / name, target)
        for file in sorted(data.glob(f"*/*{_DATABASE}")):
            _intact(file)
    halt_sending(settings, now)
    say(f"{len(names)} files in {data}. Nothing is sent until a person releases it on the page Connections.")


def halt_sending(settings: HouseSettings, now: datetime) -> None:
    """Send no HL7 message until a person releases it; for a house that has been restored and not started yet."""
    from arcuate import gateway as package
    from arcuate.gateway.outgoing import halt

    with contextlib.closing(database_of("gateway", settings)) as database:
        database.migrate(package)
        database.write_sync(lambda session: halt.halt(session, now, halt.RESTORED))


def _on_files(settings: HouseSettings) -> None:
    if settings.database_url:
        raise BadInput("This house is on PostgreSQL", todo="Use pg_dump or a base backup: docs/howto/backup.md.")


def _copy_databases(data: Path, target: Path, files: Sequence[Path], say: Say) -> None:
    with contextlib.ExitStack() as stack:
        readers = stack.enter_context(_at_one_instant(files))
        for file, reader in zip(files, readers, strict=True):
            copy = target / file.relative_to(data)
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.closing(sqlite3.connect(copy)) as made:
                reader.backup(made, pages=_PAGES)
            _intact(copy)
            say(f"{file.parent.name}: {copy.stat().st_size / 2**20:,.1f} MiB")


@contextlib.contextmanager
def _at_one_instant(files: Sequence[Path]) -> Iterator[list[sqlite3.Connection]]:
    """Yield a connection a file, all in read transactions of one instant: no writer commits between the first and the last."""
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(contextlib.closing(_open(file))) for file in files]
        with contextlib.ExitStack() as held:
            for file in files:
                writer = held.enter_context(contextlib.closing(_open(file)))
                try:
                    writer.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    what = f"The database of {file.parent.name} stays locked"
                    raise StorageFault(what, todo="Try again when less is going on.") from error
            for reader in readers:
                reader.execute("BEGIN")
                reader.execute(
                    "SELECT count(*) FROM sqlite_master"
                ).fetchone()  # the snapshot is taken by the first read
        yield readers


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=_LOCK_S, isolation_level=None)


def _copy_files(data: Path, target: Path) -> None:
    """Copy what lies beside the databases: keys, spooled messages and images. Its files are never changed once they have their name."""
    for name in _files(data):
        if name.suffix == _DATABASE or name.name.endswith(_BESIDE):
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):  # expired meanwhile
            shutil.copy2(data / name, copy)


def _files(folder: Path) -> list[Path]:
    return sorted(one.relative_to(folder) for one in folder.rglob("*") if one.is_file())


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _checked(folder: Path) -> list[str]:
    try:
        listed: dict[str, str] = json.loads((folder / _LIST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder} is no backup: {_LIST} is missing or unreadable") from error
    for name, expected in listed.items():
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{_LIST} names a file outside the backup", where=name)
        if not file.is_file():
            raise BadInput(
                "A file of the backup is missing", where=name, todo="Take another backup: nothing was restored."
            )
        if _hash(file) != expected:
            raise BadInput(
                "A file of the backup was changed", where=name, todo="Take another backup: nothing was restored."
            )
    return sorted(listed)


def _intact(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != ("ok",):
        raise StorageFault(f"The database of {file.parent.name} is damaged", todo="Take another backup.")
