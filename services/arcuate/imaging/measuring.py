"""One measurement as a durable job: images of the spool in, volumes, SEG, SR and pictures kept."""

import asyncio
import json
import tempfile
from datetime import datetime
from pathlib import Path

from sqlmodel import Session

from arcuate.imaging import store, worklist
from arcuate.imaging.context import Imaging
from arcuate.imaging.deriving import Derived, derive
from arcuate.imaging.domain import Instance, NotMeasurable, Refusal, RefusalCode, Unreadable
from arcuate.imaging.pipelines import named
from arcuate.imaging.quantify import Measurement, measure_study, summary
from arcuate.imaging.store import Arrival
from arcuate.imaging.tables import InstanceRow, MeasurementRow, StudyRow, work
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.log import get_logger
from arcuate.kernel.work import Apply, Job, Later

_CANCELED = Refusal(
    RefusalCode.CANCELED, "The measurement was cancelled on request", "Send an image again to have it measured."
)
_LOOK_S = 15.0  # how long one attempt waits for a running measurement before it gives the lease back


async def measure(imaging: Imaging, job: Job) -> Apply | None:
    """Wait for the measurement of a key; it runs in this process beside the job, so that the job's lease stays short.

    Raises:
        Later: It is not finished yet, or the networks do not answer.
    """
    key, now = job.payload["key"], imaging.clock.now()
    task = imaging.running.get(key)
    if task is None:
        if not await imaging.database.write(lambda s: worklist.begin(s, key, now)):
            return _refused(imaging, key, _CANCELED)
        task = imaging.running[key] = asyncio.create_task(_measured(imaging, key))
    await asyncio.wait({task}, timeout=_LOOK_S)
    if not task.done():
        raise Later(0.1, "the measurement")
    del imaging.running[key]
    if task.cancelled():
        if await imaging.database.read(lambda s: worklist.cancel_requested(s, key)):
            return _refused(imaging, key, _CANCELED)
        raise Later(1, "the measurement")
    try:
        return task.result()
    except Unavailable as error:
        raise Later(15, f"the networks: {error.what}") from error


async def _measured(imaging: Imaging, key: str) -> Apply:
    row, study, rows = await imaging.database.read(lambda s: _material(s, key))
    found: list[Instance | Unreadable] = [store.parsed(r, imaging.spool) for r in rows]
    at = row.asked.astimezone(imaging.site.zone)
    async with imaging.turn:
        with tempfile.TemporaryDirectory(prefix="arcuate-") as folder:
            try:
                measurement = await measure_study(
                    found, named(row.pipeline), imaging.reader, Path(folder), imaging.models_dir, imaging.infer
                )
                made = await asyncio.to_thread(derive, measurement, at)
            except NotMeasurable as error:
                get_logger("imaging").info("study refused", study=study.id, code=error.refusal.code)
                return _refused(imaging, key, error.refusal)
            return await asyncio.to_thread(_kept, imaging, key, study, measurement, made)


def _material(session: Session, key: str) -> tuple[MeasurementRow, StudyRow, list[InstanceRow]]:
    row = session.get_one(MeasurementRow, key)
    return row, session.get_one(StudyRow, row.study_id), store.instances(session, row.study_id)


def _refused(imaging: Imaging, key: str, reason: Refusal) -> Apply:
    now = imaging.clock.now()

    def apply(session: Session) -> None:
        row = session.get_one(MeasurementRow, key)
        row.finished, row.refusal = now, json.dumps([reason.code, reason.what, reason.todo])
        session.add(row)
        worklist.give_up(session, key, now, reason.what)

    return apply


def _kept(imaging: Imaging, key: str, study: StudyRow, measurement: Measurement, made: Derived) -> Apply:
    """Keep SEG, SR, key images and pictures in the spool; returns what writes them down. A shadow's objects are not kept: nobody sees them."""
    spool, now = imaging.spool, imaging.clock.now()
    objects = (made.seg, made.sr, *made.key_images) if imaging.speaks(measurement.pipeline) else ()
    arrivals = [_arrival(imaging, content, now) for content in objects if content is not None]
    gallery_file, picture_file = spool.write(made.gallery), spool.write(made.qc)
    choices = [scan.choice for scan in measurement.scans.values() if scan.choice]
    dropped = sorted({f"{k} {why}" for c in choices for i in c.instances for k, why in i.dropped.items()})
    text = json.dumps(summary(measurement, dropped), ensure_ascii=False)
    study_id, send_to_pacs = study.id, bool((imaging.settings.pacs_host or imaging.settings.pacs_stow) and arrivals)

    def apply(session: Session) -> None:
        row = session.get_one(MeasurementRow, key)
        row.finished, row.summary, row.gallery, row.picture = now, text, gallery_file, picture_file
        session.add(row)
        for arrival in arrivals:
            store.note_derived(session, study_id, arrival)
        worklist.finish(session, key, now, [arrival.instance for arrival in arrivals])
        if send_to_pacs:
            payload = {"sops": [a.instance.sop_uid for a in arrivals]}
            work.enqueue(
                session, store.SEND, now=now, keys=(f"send:{study_id}",), payload=payload, dedupe=f"send:{key}"
            )

    return apply


def _arrival(imaging: Imaging, content: bytes, now: datetime) -> Arrival:
    file = imaging.spool.write(content)
    instance = imaging.reader.header(imaging.spool.path(file))
    if isinstance(instance, Unreadable):
        raise NotMeasurable(instance.refusal)
    return Arrival(instance, file, "arcuate", now)
