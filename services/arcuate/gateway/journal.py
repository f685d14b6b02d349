"""The journal from the command line: list it, show one frame, export all byte for byte."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import make_url
from sqlmodel import Session, col, select

from arcuate.gateway import spool, store
from arcuate.gateway.arrivals import Mover
from arcuate.gateway.tables import Frame, Message
from arcuate.kernel.db import Database
from arcuate.kernel.errors import BadInput

_PAGE = 500


def lines(database: Database) -> Iterator[str]:
    """Yield one line a frame, oldest first: number, time, sender, type, answer, what became of it. No patient data."""
    yield f"{'number':>7}  {'received (UTC)':19}  {'sender':30}  {'type':9}  {'bytes':>9}  {'answer':6}  became"
    _catch_up(database)
    after = 0
    while page := database.read_sync(lambda s, after=after: _page(s, after)):  # type: ignore[misc]
        for frame, became in page:
            after = frame.number or 0
            sender = frame.sender[:30].encode("ascii", "replace").decode()
            yield (
                f"{frame.number:>7}  {frame.received:%Y-%m-%d %H:%M:%S}  {sender:30}  {frame.kind[:9]:9}  {frame.size:>9}  "
                f"{frame.answer_code or '-':6}  {became}"
            )


def _page(session: Session, after: int) -> list[tuple[Frame, str]]:
    frames = session.exec(select(Frame).where(col(Frame.number) > after).order_by(col(Frame.number)).limit(_PAGE)).all()
    numbers = [frame.number for frame in frames]
    became: dict[int, list[str]] = {}
    for message in session.exec(select(Message).where(col(Message.frame).in_(numbers)).order_by(col(Message.id))).all():
        words = message.state if not message.cause else f"{message.state} ({message.cause})"
        became.setdefault(message.frame, []).append(words)
    return [(frame, "; ".join(dict.fromkeys(became.get(frame.number or 0, [])))) for frame in frames]


def raw(database: Database, number: int, spool_dir: Path | None = None) -> bytes:
    """Return one frame as it was received.

    Raises:
        NotFound: The journal has no such number.
        BadInput: It lies in the spool and nobody said where that is.
    """
    _catch_up(database)
    return _bytes(database.read_sync(lambda s: store.frame(s, number)), _spool_dir(database, spool_dir))


def export(database: Database, folder: Path, spool_dir: Path | None = None) -> int:
    """Write every frame into a folder, byte for byte, one file a frame, named by journal number; returns how many.

    Raises:
        BadInput: The folder holds files already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BadInput("The folder is not empty", where=str(folder), todo="Name an empty or a new folder.")
    _catch_up(database)
    where, written, after = _spool_dir(database, spool_dir), 0, 0
    while True:
        page = database.read_sync(lambda s, after=after: _raw_page(s, after))  # type: ignore[misc]
        if not page:
            return written
        for frame in page:
            after = frame.number or 0
            (folder / f"{frame.number:08d}.hl7").write_bytes(_bytes(frame, where))
            written += 1


def _catch_up(database: Database) -> None:
    """Bring what the door has taken into the journal, whether or not a program runs that does it."""
    mover = Mover(database)
    try:
        mover.move_all()
    finally:
        mover.close()


def _raw_page(session: Session, after: int) -> list[Frame]:
    return list(
        session.exec(select(Frame).where(col(Frame.number) > after).order_by(col(Frame.number)).limit(50)).all()
    )


def _spool_dir(database: Database, named: Path | None) -> Path | None:
    """The spool lies beside the room's SQLite file."""
    path = make_url(database.url).database if database.is_sqlite else None
    return named or (Path(path).parent / "spool" if path else None)


def _bytes(frame: Frame, spool_dir: Path | None) -> bytes:
    if frame.raw is not None:
        return frame.raw
    if spool_dir is None:
        raise BadInput(
            "This frame lies in the spool folder", where=f"journal {frame.number}", todo="Name the spool folder."
        )
    return spool.read(spool_dir, frame.spool or "")
