"""A study settles and is published: the ImagingStudy in the record once no image has come for a while."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlmodel import Session

from arcuate.imaging import resources, store
from arcuate.imaging.context import Imaging
from arcuate.imaging.domain import Instance
from arcuate.imaging.resources import Said
from arcuate.imaging.tables import StudyRow
from arcuate.kernel.codes import SYSTEM_DICOM_UID, Json, identifier, job_system
from arcuate.kernel.errors import PreconditionFailed, Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.work import Apply, Job, Later

_UID_PREFIX = "urn:oid:"


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
