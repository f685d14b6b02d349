"""Use cases of the imaging room: a study settles and is published; somebody asks for volumes; results go to the PACS."""

import asyncio
import hashlib
import json
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlmodel import Session

from arcuate.imaging import gallery, resources, store
from arcuate.imaging.domain import Instance, NotMeasurable, Refusal, RefusalCode, Unreadable, refusal_from_json
from arcuate.imaging.parsing import Parser
from arcuate.imaging.quantify import Derived, Measurement, derive, measure_series, summary
from arcuate.imaging.resources import Said
from arcuate.imaging.segmentation import RULES, Infer
from arcuate.imaging.sending import Pacs, send
from arcuate.imaging.settings import ImagingSettings
from arcuate.imaging.spool import Spool
from arcuate.imaging.store import Arrival
from arcuate.imaging.structures import parts
from arcuate.imaging.tables import InstanceRow, MeasurementRow, StudyRow, work
from arcuate.kernel.clock import Clock
from arcuate.kernel.codes import SYSTEM_DICOM_UID, Json, identifier, identifier_value, job_system
from arcuate.kernel.db import Database
from arcuate.kernel.errors import ArcuateError, BadInput, Conflict, NotFound, PreconditionFailed, Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.client import FhirClient, version_of
from arcuate.kernel.log import get_logger
from arcuate.kernel.settings import SiteSettings
from arcuate.kernel.work import Apply, Job, Later, Park, Worker

_LOOK_S = 15.0  # how long one attempt waits for a running measurement before it gives the lease back
_UID_PREFIX = "urn:oid:"


@dataclass
class Imaging:
    """What the use cases need.

    Attributes:
        reader: The reading process for measuring; the doors have one of their own, so that they never wait for it.
        running: Measurements that this process is making, by key; the durable job only waits for them.
        turn: Held by the one that is being made: a volume in memory at a time.
    """

    database: Database
    clock: Clock
    site: SiteSettings
    settings: ImagingSettings
    spool: Spool
    fhir: FhirClient
    infer: Infer
    models_dir: Path
    reader: Parser
    running: dict[str, "asyncio.Task[Apply]"] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    worker: Worker | None = None

    def wake(self) -> None:
        """Tell the worker that there may be work."""
        if self.worker is not None:
            self.worker.wake()


def make_worker(imaging: Imaging) -> Worker:
    """Return the worker of this room's jobs."""
    handlers = {
        store.SETTLE: lambda job: settle(imaging, job),
        store.MEASURE: lambda job: measure(imaging, job),
        store.SEND: lambda job: send_results(imaging, job),
    }
    imaging.worker = Worker(imaging.database, work, imaging.clock, handlers, name="imaging")
    return imaging.worker


# ---- a study settles -------------------------------------------------------------------------------------------------


async def settle(imaging: Imaging, job: Job) -> Apply | None:
    """Publish a study of which no image has come for a while.

    Raises:
        Later: Images are still coming, or the record does not answer.
    """
    study_id = job.payload["study"]
    study, rows = await imaging.database.read(
        lambda s: (s.get(StudyRow, study_id), store.instances(s, study_id)),
    )
    if study is None or study.state == store.SETTLED or study.generation != job.payload["generation"]:
        return None
    quiet_until = study.last_received + timedelta(seconds=imaging.settings.quiet_s)
    if (left := (quiet_until - imaging.clock.now()).total_seconds()) > 0:
        raise Later(left, "more images of this study")
    record_id = study.record_id
    if study.conflict is None and rows:
        found = [store.parsed(row, imaging.spool) for row in rows]
        record_id = await _publish(imaging, study, found)
    seen = study.last_received
    return lambda session: _settled(session, imaging, study_id, seen, record_id)


def _settled(session: Session, imaging: Imaging, study_id: str, seen: datetime, record_id: str | None) -> None:
    study = session.get(StudyRow, study_id, with_for_update=True)
    if study is None:
        return
    study.record_id = record_id
    if study.last_received == seen:
        study.state = store.SETTLED
    else:  # an image came while the record was being written
        study.generation += 1
        store.enqueue_settling(session, study, imaging.clock.now(), imaging.settings.quiet_s)
    session.add(study)


async def _publish(imaging: Imaging, study: StudyRow, found: Sequence[Instance]) -> str:
    """Write the ImagingStudy; returns its id in the record."""
    said, zone = Said.of(json.loads(study.said)), imaging.site.zone
    query = {"identifier": f"{SYSTEM_DICOM_UID}|{_UID_PREFIX}{study.uid}"}
    try:
        existing = await imaging.fhir.one("ImagingStudy", query)
        if existing is None:
            made = resources.imaging_study(study.uid, said, found, zone)
            entry = bundle.create(made, query)
        else:
            entry = bundle.update(resources.refresh(existing, said, found, zone), version_of(existing))
        source = identifier(job_system("imaging"), f"{study.id}:published:{study.generation}:{len(found)}")
        answer = await imaging.fhir.transaction(bundle.transaction([entry], source))
    except PreconditionFailed as error:
        raise Later(1, "somebody changed the study in the record") from error
    except Unavailable as error:
        raise Later(10, "the record does not answer") from error
    return _written_id(answer)


def _written_id(answer: Json) -> str:
    response = answer["entry"][0].get("response") or {}
    location = str(response.get("location") or "").split("/_history/")[0]
    return location.rsplit("/", 1)[-1]


# ---- somebody asks for volumes ---------------------------------------------------------------------------------------


async def quantify(imaging: Imaging, request: Json) -> Json | None:
    """Answer `ImagingStudy/$quantify`: Observations of every study in the Bundle, or None while one is still being measured.

    Raises:
        BadInput: No ImagingStudy with a Study Instance UID.
        Unavailable: A measurement failed and waits for a person.
    """
    asked = bundle.of_type(request, "ImagingStudy")
    if not asked:
        raise BadInput("The Bundle holds no ImagingStudy", where="Bundle.entry", todo="Send the study to be measured.")
    orders = bundle.of_type(request, "ServiceRequest")
    answers = [await _answer(imaging, study, _order_of(study, orders)) for study in asked]
    if any(answer is None for answer in answers):
        imaging.wake()
        return None
    return bundle.collection(resource for answer in answers for resource in answer or ())


def _order_of(study: Json, orders: Sequence[Json]) -> Json | None:
    based_on = {str(r.get("reference", "")) for r in study.get("basedOn", ())}
    named = [o for o in orders if f"ServiceRequest/{o.get('id')}" in based_on]
    return next(iter([*named, *orders]), None)


async def _answer(imaging: Imaging, study: Json, order: Json | None) -> list[Json] | None:
    uid = (identifier_value(study, SYSTEM_DICOM_UID) or "").removeprefix(_UID_PREFIX)
    if not uid:
        raise BadInput("The ImagingStudy names no Study Instance UID", where="ImagingStudy.identifier")
    row, used = await imaging.database.read(lambda s: _study_and_used(s, uid))
    now = imaging.clock.now()
    if row is None or (not used and not row.conflict):
        return await _answer_without_images(imaging, row, uid, study, order)
    if row.conflict:
        return [resources.refusal(_identity_refusal(row), study, order, row.id, now)]
    if row.state != store.SETTLED:
        return None
    key, study_id = measurement_key(uid, used, imaging.models_dir), row.id
    done = await imaging.database.write(lambda s: store.ask_measurement(s, key, study_id, now))
    if done.finished is None:
        await _check_not_parked(imaging, key)
        return None
    return await _present(imaging, row, done, study, order)


def _study_and_used(session: Session, uid: str) -> tuple[StudyRow | None, list[InstanceRow]]:
    row = store.study_by_uid(session, uid)
    return row, store.instances(session, row.id) if row else []


async def _answer_without_images(
    imaging: Imaging, row: StudyRow | None, uid: str, study: Json, order: Json | None
) -> list[Json]:
    """Answer with the last measurement when the images have gone from the spool since, else refuse."""
    if row is not None:
        study_id = row.id
        done = await imaging.database.read(lambda s: store.measurements(s, study_id))
        if done:
            return await _present(imaging, row, done[0], study, order)
    own_id = row.id if row else hashlib.sha256(uid.encode()).hexdigest()[:32]
    gone = Refusal(RefusalCode.GONE, "The images of this study are not here", "Send the study again from the PACS.")
    return [resources.refusal(gone, study, order, own_id, imaging.clock.now())]


def _identity_refusal(row: StudyRow) -> Refusal:
    return Refusal(RefusalCode.IDENTITY, row.conflict or "", "Find out whose images they are, then release the study.")


async def _check_not_parked(imaging: Imaging, key: str) -> None:
    parked = await imaging.database.read(work.parked)
    if any(job.kind == store.MEASURE and job.payload.get("key") == key for job in parked):
        raise Unavailable(
            "The measurement failed and waits for a person",
            todo="See the parked jobs of the imaging room.",
            retry_after_s=300,
        )


async def _present(
    imaging: Imaging, row: StudyRow, done: MeasurementRow, study: Json, order: Json | None
) -> list[Json]:
    assert done.finished is not None
    if done.refusal:
        reason = refusal_from_json(json.loads(done.refusal))
        assert reason is not None
        made = [resources.refusal(reason, study, order, row.id, done.finished)]
    else:
        said = Said.of(json.loads(row.said))
        started = resources.when(said.date, said.time, imaging.site.zone)
        made = resources.observations(json.loads(done.summary or "{}"), study, order, row.id, done.finished, started)
    study_id = row.id
    earlier = await imaging.database.read(lambda s: store.measurements(s, study_id))
    standing = {key for old in earlier for key in _keys(old)} - _keys(done)
    at = done.finished
    return made + [resources.withdrawn(key, study, order, row.id, at) for key in sorted(standing)]


def _keys(done: MeasurementRow) -> set[str]:
    """Return the parts for which a measurement gave an Observation."""
    if done.refusal or not done.summary:
        return {resources.VOLUMES}
    values = {(v["structure"], v["side"]) for v in json.loads(done.summary)["volumes"]}
    return {p.key for p in parts() if (p.structure, p.side) in values}


def measurement_key(uid: str, rows: Sequence[InstanceRow], models_dir: Path) -> str:
    """Return the name of a measurement: these images, by these models and rules."""
    facts = hashlib.sha256(uid.encode())
    for digest in sorted(row.digest for row in rows):
        facts.update(digest.encode())
    rules = RULES.read_bytes()
    facts.update(rules)
    for role in ("finder", "segmenter"):
        described = models_dir / tomllib.loads(rules.decode())[role] / "model.toml"
        facts.update(described.read_bytes() if described.exists() else b"none")
    return facts.hexdigest()


# ---- measuring -------------------------------------------------------------------------------------------------------


async def measure(imaging: Imaging, job: Job) -> Apply | None:
    """Wait for the measurement of a key; it runs in this process beside the job, so that the job's lease stays short.

    Raises:
        Later: It is not finished yet, or the networks do not answer.
    """
    key = job.payload["key"]
    task = imaging.running.get(key)
    if task is None:
        task = imaging.running[key] = asyncio.create_task(_measured(imaging, key))
    await asyncio.wait({task}, timeout=_LOOK_S)
    if not task.done():
        raise Later(0.1, "the measurement")
    del imaging.running[key]
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
                measurement = await measure_series(
                    found, imaging.reader, Path(folder), imaging.models_dir, imaging.infer
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

    return apply


def _kept(imaging: Imaging, key: str, study: StudyRow, measurement: Measurement, made: Derived) -> Apply:
    """Keep SEG, SR and pictures in the spool; returns what writes them down."""
    spool, now = imaging.spool, imaging.clock.now()
    arrivals = [_arrival(imaging, content, now) for content in (made.seg, made.sr) if content is not None]
    gallery_file, picture_file = spool.write(made.gallery), spool.write(made.qc)
    assert measurement.choice is not None
    dropped = sorted({f"{k} {why}" for i in measurement.choice.instances for k, why in i.dropped.items()})
    text = json.dumps(summary(measurement, dropped), ensure_ascii=False)
    study_id, send_to_pacs = study.id, bool(imaging.settings.pacs_host)

    def apply(session: Session) -> None:
        row = session.get_one(MeasurementRow, key)
        row.finished, row.summary, row.gallery, row.picture = now, text, gallery_file, picture_file
        session.add(row)
        for arrival in arrivals:
            store.note_derived(session, study_id, arrival)
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


# ---- results go to the PACS ------------------------------------------------------------------------------------------


async def send_results(imaging: Imaging, job: Job) -> None:
    """Send SEG and SR of a measurement to the PACS.

    Raises:
        Later: The PACS does not answer.
        Park: It will not take them.
    """
    s = imaging.settings
    files = await imaging.database.read(lambda session: _files_of(session, job.payload["sops"]))
    paths = [imaging.spool.path(file) for file in files]
    try:
        await asyncio.to_thread(send, paths, Pacs(s.pacs_host, s.pacs_port, s.pacs_ae_title), s.ae_title)
    except Unavailable as error:
        raise Later(30, error.what) from error
    except ArcuateError as error:
        raise Park(str(error)) from error


def _files_of(session: Session, sop_uids: Sequence[str]) -> list[str]:
    return [row.file for row in store.by_sop_uids(session, sop_uids)]


# ---- looking and deciding --------------------------------------------------------------------------------------------


async def study_of(imaging: Imaging, imaging_study_id: str) -> StudyRow:
    """Return the study that the record knows under this id.

    Raises:
        NotFound: This room has not received it.
    """
    row = await imaging.database.read(lambda s: store.study_by_record_id(s, imaging_study_id))
    if row is None:
        raise NotFound("This study is not known here", where=f"ImagingStudy/{imaging_study_id}")
    return row


async def latest(imaging: Imaging, imaging_study_id: str) -> MeasurementRow:
    """Return the latest measurement or refusal of a study.

    Raises:
        NotFound: There is none yet.
    """
    study = await study_of(imaging, imaging_study_id)
    done = await imaging.database.read(lambda s: store.measurements(s, study.id))
    if not done:
        raise NotFound("This study has not been measured yet", where=f"ImagingStudy/{imaging_study_id}")
    return done[0]


async def exhibit(imaging: Imaging, imaging_study_id: str, structure: str | None) -> gallery.Exhibit:
    """Return the picture of a structure.

    Raises:
        NotFound: There is none.
    """
    done = await latest(imaging, imaging_study_id)
    if done.gallery is None:
        raise NotFound("There is no picture: the study was refused", where=f"ImagingStudy/{imaging_study_id}")
    packed = imaging.spool.path(done.gallery)
    return gallery.find(await asyncio.to_thread(lambda: gallery.unpack(packed.read_bytes())), structure)


async def qc_picture(imaging: Imaging, imaging_study_id: str) -> bytes:
    """Return the picture of three planes as PNG.

    Raises:
        NotFound: There is none.
    """
    done = await latest(imaging, imaging_study_id)
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
