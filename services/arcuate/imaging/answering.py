"""Somebody asks for volumes: `ImagingStudy/$quantify` answers with Observations, a refusal, or "still being measured"."""

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from sqlmodel import Session

from arcuate.imaging import comparison, lesion_dates, pausing, resources, shadow, standing, store, worklist
from arcuate.imaging.context import Imaging
from arcuate.imaging.domain import Refusal, RefusalCode, refusal_from_json
from arcuate.imaging.pipelines import SHADOW, Pipeline, asked_by, pipelines
from arcuate.imaging.resources import Said
from arcuate.imaging.structures import parts
from arcuate.imaging.tables import InstanceRow, MeasurementRow, StudyRow, work
from arcuate.kernel.codes import SYSTEM_DICOM_UID, Json, identifier_value
from arcuate.kernel.errors import BadInput, Unavailable
from arcuate.kernel.fhir import bundle

_UID_PREFIX = "urn:oid:"


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
        return [resources.refusal(_identity_refusal(row), study, order, row.id, now, pipelines()[0])]
    if row.state != store.SETTLED:
        return None
    asked = asked_by([store.parsed(instance, imaging.spool) for instance in used])
    answers: list[list[Json] | None] = []
    paused = await imaging.database.read(pausing.paused)
    for pipeline in asked:
        if (pause := paused.get(pipeline.name)) and not await _finished(imaging, uid, used, pipeline):
            said = resources.refusal(pausing.refusal(pause), study, order, row.id, now, pipeline)
            answers.append([said] if imaging.speaks(pipeline) else [])
            continue
        done = await _asked(imaging, row, uid, used, pipeline)
        if imaging.speaks(pipeline):
            answers.append(await _present(imaging, row, done, study, order, pipeline) if done.finished else None)
    made = [resource for answer in answers for resource in answer or ()]
    made += await _not_asked_any_more(imaging, row, study, order, asked)
    return None if any(answer is None for answer in answers) else made


async def _finished(imaging: Imaging, uid: str, used: Sequence[InstanceRow], pipeline: Pipeline) -> bool:
    """Whether these images were measured by a pipeline already."""
    key = measurement_key(uid, used, imaging.models_dir, pipeline)
    row = await imaging.database.read(lambda s: s.get(MeasurementRow, key))
    return row is not None and row.finished is not None


async def _asked(
    imaging: Imaging, row: StudyRow, uid: str, used: Sequence[InstanceRow], pipeline: Pipeline
) -> MeasurementRow:
    """Return the measurement of these images by a pipeline, asked for where it is new."""
    key, study_id, now = measurement_key(uid, used, imaging.models_dir, pipeline), row.id, imaging.clock.now()

    def ask(session: Session) -> MeasurementRow:
        asked = store.ask_measurement(session, key, study_id, pipeline.name, now)
        if asked.finished is None and imaging.speaks(pipeline):
            worklist.schedule(session, asked, session.get_one(StudyRow, study_id), pipeline, now)
        return asked

    done = await imaging.database.write(ask)
    if done.finished is None and imaging.speaks(pipeline):
        await _check_not_parked(imaging, key)
    return done


async def _not_asked_any_more(
    imaging: Imaging, row: StudyRow, study: Json, order: Json | None, asked: Sequence[Pipeline]
) -> list[Json]:
    """Take back what pipelines said that the study, as it is now, does not ask for: a refusal of the first, for example."""
    study_id, at = row.id, imaging.clock.now()
    left = [p for p in pipelines() if p not in asked and imaging.speaks(p)]
    said = await imaging.database.read(lambda s: {p.name: store.measurements(s, study_id, p.name) for p in left})
    return [
        resources.withdrawn(key, study, order, row.id, at, p)
        for p in left
        for key in sorted({key for old in said[p.name] for key in _keys(old)})
    ]


def _study_and_used(session: Session, uid: str) -> tuple[StudyRow | None, list[InstanceRow]]:
    row = store.study_by_uid(session, uid)
    return row, store.instances(session, row.id) if row else []


async def _answer_without_images(
    imaging: Imaging, row: StudyRow | None, uid: str, study: Json, order: Json | None
) -> list[Json] | None:
    """Answer with the last measurement when the images have gone from the spool since, else refuse."""
    if row is not None:
        study_id = row.id
        speaking = [p for p in pipelines() if imaging.speaks(p)]
        done = await imaging.database.read(
            lambda s: [(p, found[0]) for p in speaking if (found := store.measurements(s, study_id, p.name))]
        )
        if done:
            answers = [await _present(imaging, row, last, study, order, p) for p, last in done]
            return None if any(a is None for a in answers) else [r for answer in answers for r in answer or ()]
    own_id = row.id if row else hashlib.sha256(uid.encode()).hexdigest()[:32]
    gone = Refusal(RefusalCode.GONE, "The images of this study are not here", "Send the study again from the PACS.")
    return [resources.refusal(gone, study, order, own_id, imaging.clock.now(), pipelines()[0])]


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
    imaging: Imaging, row: StudyRow, done: MeasurementRow, study: Json, order: Json | None, pipeline: Pipeline
) -> list[Json] | None:
    """Return what a measurement says as resources; None while its comparison with an earlier date is being made."""
    assert done.finished is not None
    dates = None
    if done.refusal:
        reason = refusal_from_json(json.loads(done.refusal))
        assert reason is not None
        made = [resources.refusal(reason, study, order, row.id, done.finished, pipeline)]
    else:
        said = Said.of(json.loads(row.said))
        started = resources.when(said.date, said.time, imaging.site.zone)
        summary = json.loads(done.summary or "{}")
        if row.missing:  # of the study as it stands now, not of the measurement
            summary["warnings"] = [f"{resources.INCOMPLETE}{row.missing}.", *summary["warnings"]]
        volumes = resources.observations(summary, study, order, row.id, done.finished, started)
        recorded = await _earlier(imaging, study)
        dates = await lesion_dates.ask(imaging, pipeline, done, volumes, recorded)
        if dates is not None and dates.row.finished is None:
            return None
        # The limits of measurement error are those of brain volumes on MR: what speaks out of a shadow is compared with nothing.
        alone = pipeline.mode == SHADOW
        told = shadow.spoken(volumes, pipeline, imaging.settings) if alone else comparison.in_context(volumes, recorded)
        if dates is not None:
            stated = resources.observations(dates.summary(summary), study, order, row.id, done.finished, started)
            told = dates.beside(told, stated)
        made = standing.as_judged(told, recorded)
    study_id = row.id
    earlier = await imaging.database.read(lambda s: store.measurements(s, study_id, pipeline.name))
    left = {key for old in earlier for key in _keys(old)} - _keys(done)
    if await lesion_dates.stated_before(imaging, study_id):
        left |= set(lesion_dates.PARTS) if done.refusal or dates is None or dates.row.result is None else set()
    at = done.finished
    return made + [resources.withdrawn(key, study, order, row.id, at, pipeline) for key in sorted(left)]


async def _earlier(imaging: Imaging, study: Json) -> list[Json]:
    """Return the imaging Observations that the record holds of the study's patient; none while it is not joined to one."""
    subject = str((study.get("subject") or {}).get("reference") or "")
    if not subject.startswith("Patient/"):
        return []
    return await imaging.fhir.search("Observation", {"subject": subject, "category": "imaging"})


def _keys(done: MeasurementRow) -> set[str]:
    """Return the parts for which a measurement gave an Observation."""
    if done.refusal or not done.summary:
        return {done.pipeline}
    told = json.loads(done.summary)
    values = {(v["structure"], v["side"]) for v in [*told["volumes"], *told.get("values", ())]}
    return {p.key for p in parts() if (p.structure, p.side) in values}


def measurement_key(uid: str, rows: Sequence[InstanceRow], models_dir: Path, pipeline: Pipeline) -> str:
    """Return the name of a measurement: these images, by this pipeline with these models and rules."""
    facts = hashlib.sha256(f"{uid} {pipeline.name}".encode())
    for digest in sorted(row.digest for row in rows):
        facts.update(digest.encode())
    for rules in (*pipeline.rules, *pipeline.inputs.values(), *pipeline.otherwise.values()):
        facts.update(files("arcuate.imaging").joinpath(rules).read_bytes())
    for model in pipeline.models.values():
        described = models_dir / model / "model.toml"
        facts.update(described.read_bytes() if described.exists() else b"none")
    return facts.hexdigest()
