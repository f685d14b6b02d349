"""Use cases of people and the clock: looking at a measurement, releasing a study, removing old images; the room's jobs."""

import asyncio
from datetime import timedelta

from sqlmodel import Session

from arcuate.imaging import gallery, store
from arcuate.imaging.context import Imaging
from arcuate.imaging.lesion_dates import compared
from arcuate.imaging.measuring import measure
from arcuate.imaging.pipelines import pipelines
from arcuate.imaging.publishing import settle
from arcuate.imaging.pulling import pull
from arcuate.imaging.receiving import Receiver
from arcuate.imaging.sending import send_results
from arcuate.imaging.tables import MeasurementRow, StudyRow, work
from arcuate.kernel.background import Loops
from arcuate.kernel.errors import Conflict, NotFound
from arcuate.kernel.work import Worker


def make_worker(imaging: Imaging, receiver: Receiver, loops: Loops) -> Worker:
    """Return the worker of this room's jobs."""
    handlers = {
        store.SETTLE: lambda job: settle(imaging, job),
        store.MEASURE: lambda job: measure(imaging, job),
        store.COMPARE: lambda job: compared(imaging, job),
        store.SEND: lambda job: send_results(imaging, job),
        store.PULL: lambda job: pull(imaging, receiver, job),
    }
    imaging.worker = Worker(imaging.database, work, imaging.clock, handlers, name="imaging", loops=loops)
    return imaging.worker


async def study_of(imaging: Imaging, imaging_study_id: str) -> StudyRow:
    """Return the study that the record knows under this id.

    Raises:
        NotFound: This room has not received it.
    """
    row = await imaging.database.read(lambda s: store.study_by_record_id(s, imaging_study_id))
    if row is None:
        raise NotFound("This study is not known here", where=f"ImagingStudy/{imaging_study_id}")
    return row


async def latest(imaging: Imaging, imaging_study_id: str) -> list[MeasurementRow]:
    """Return the latest measurement or refusal of a study by each pipeline that speaks, measurements before refusals.

    Raises:
        NotFound: There is none yet.
    """
    study = await study_of(imaging, imaging_study_id)
    found = await imaging.database.read(lambda s: latest_of(s, imaging, study.id))
    if not found:
        raise NotFound("This study has not been measured yet", where=f"ImagingStudy/{imaging_study_id}")
    return found


def latest_of(session: Session, imaging: Imaging, study_id: str) -> list[MeasurementRow]:
    """Return what `latest` returns, of a study by its id in this room."""
    names = [p.name for p in pipelines() if imaging.speaks(p)]
    done = [row for name in names for row in store.measurements(session, study_id, name)[:1]]
    return sorted(done, key=lambda row: row.summary is None)


async def exhibit(imaging: Imaging, imaging_study_id: str, structure: str | None) -> gallery.Exhibit:
    """Return the picture of a structure, by whichever pipeline measured it.

    Raises:
        NotFound: There is none.
    """
    packed = [imaging.spool.path(done.gallery) for done in await latest(imaging, imaging_study_id) if done.gallery]
    if not packed:
        raise NotFound("There is no picture: the study was refused", where=f"ImagingStudy/{imaging_study_id}")
    shown = await asyncio.to_thread(lambda: [e for file in packed for e in gallery.unpack(file.read_bytes())])
    return gallery.find(shown, structure)


async def qc_picture(imaging: Imaging, imaging_study_id: str) -> bytes:
    """Return the picture of three planes as PNG.

    Raises:
        NotFound: There is none.
    """
    done = (await latest(imaging, imaging_study_id))[0]
    if done.picture is None:
        raise NotFound("There is no picture: the study was refused", where=f"ImagingStudy/{imaging_study_id}")
    return await asyncio.to_thread(imaging.spool.path(done.picture).read_bytes)


async def release(imaging: Imaging, own_id: str, by: str) -> None:
    """Let a person say that the images of the first patient are right; those of others stay set aside for good.

    Raises:
        NotFound: No such study.
        Conflict: Nothing holds it.
    """
    now, quiet = imaging.clock.now(), imaging.settings.quiet_s

    def write(session: Session) -> None:
        study = session.get(StudyRow, own_id, with_for_update=True)
        if study is None:
            raise NotFound("There is no such study", where=own_id)
        if study.conflict is None:
            raise Conflict("Nothing holds this study", where=own_id)
        study.conflict, study.released_by = None, by
        study.state, study.generation = store.RECEIVING, study.generation + 1
        store.enqueue_settling(session, study, now - timedelta(seconds=quiet), quiet)
        session.add(study)

    await imaging.database.write(write)
    imaging.wake()


async def expire(imaging: Imaging) -> int:
    """Remove images that are older than the spool keeps; returns how many files went."""
    before = imaging.clock.now() - timedelta(days=imaging.settings.keep_days)
    files = await imaging.database.write(lambda s: store.expire(s, before))
    await asyncio.to_thread(imaging.spool.drop, files)
    return len(files)
