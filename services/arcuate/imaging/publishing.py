"""A study settles and is published: the ImagingStudy in the record once it is whole, or no image has come for a while."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session

from arcuate.imaging import completion, resources, store
from arcuate.imaging.completion import Statement, Verdict
from arcuate.imaging.context import Imaging
from arcuate.imaging.domain import Instance
from arcuate.imaging.resources import Said
from arcuate.imaging.tables import InstanceRow, StudyRow
from arcuate.kernel.codes import SYSTEM_DICOM_UID, Json, identifier, job_system
from arcuate.kernel.errors import PreconditionFailed, Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.work import Apply, Job, Later

_UID_PREFIX = "urn:oid:"


async def settle(imaging: Imaging, job: Job) -> Apply | None:
    """Publish a study that is known to be whole, or of which no image has come for a while.

    Raises:
        Later: Images are still coming or are known to lack, or the record does not answer.
    """
    study_id, s = job.payload["study"], imaging.settings
    study, rows, told = await imaging.database.read(lambda session: _known(session, study_id))
    if study is None or study.state == store.SETTLED or study.generation != job.payload["generation"]:
        return None
    verdict = completion.judge(told, [store.parsed(row, imaging.spool) for row in rows])
    silent_s = (imaging.clock.now() - study.last_received).total_seconds()
    if (left := completion.seconds_left(verdict, silent_s, s.quiet_s, s.incomplete_s)) > 0:
        raise Later(min(left, s.quiet_s), verdict.missing or "more images of this study")
    record_id = study.record_id
    found = [store.parsed(row, imaging.spool) for row in rows if row.fate == store.USED]
    if study.conflict is None and found:
        record_id = await _publish(imaging, study, found, verdict)
    seen = study.last_received
    return lambda session: _settled(session, imaging, study_id, seen, record_id, verdict)


def _known(session: Session, study_id: str) -> tuple[StudyRow | None, list[InstanceRow], list[Statement]]:
    study = session.get(StudyRow, study_id)
    return study, store.all_received(session, study_id), store.statements(session, study.uid) if study else []


def _settled(
    session: Session, imaging: Imaging, study_id: str, seen: datetime, record_id: str | None, verdict: Verdict
) -> None:
    study = session.get(StudyRow, study_id, with_for_update=True)
    if study is None:
        return
    study.record_id, study.whole_by, study.missing = record_id, verdict.whole_by, verdict.missing
    if study.last_received == seen:
        study.state = store.SETTLED
    else:  # an image came while the record was being written
        study.generation += 1
        store.enqueue_settling(session, study, imaging.clock.now(), imaging.settings.quiet_s)
    session.add(study)


async def _publish(imaging: Imaging, study: StudyRow, found: Sequence[Instance], verdict: Verdict) -> str:
    """Write the ImagingStudy, with what is known to lack; returns its id in the record."""
    said, zone = Said.of(json.loads(study.said)), imaging.site.zone
    query = {"identifier": f"{SYSTEM_DICOM_UID}|{_UID_PREFIX}{study.uid}"}
    try:
        existing = await imaging.fhir.one("ImagingStudy", query)
        if existing is None:
            made = resources.imaging_study(study.uid, said, found, zone, verdict.missing)
            entry = bundle.create(made, query)
        else:
            entry = bundle.update(resources.refresh(existing, said, found, zone, verdict.missing), version_of(existing))
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
