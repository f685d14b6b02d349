"""Queries of the imaging room; each takes the session of a running transaction."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from sqlalchemy import delete, func, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from arcuate.imaging.completion import Source, Statement, judge
from arcuate.imaging.domain import Instance, Person, instance_from_json, instance_to_json, persons_conflict
from arcuate.imaging.spool import Spool, new_id
from arcuate.imaging.tables import InstanceRow, MeasurementRow, StatementRow, StudyRow, work
from arcuate.kernel.work import READY

USED, CONFLICT, OTHER_PATIENT, DERIVED = "used", "conflict", "other-patient", "derived"
RECEIVING, SETTLED = "receiving", "settled"
COPY = "copy"
SETTLE, MEASURE, COMPARE, SEND, EXPIRE, PULL = "settle", "measure", "compare", "send", "expire", "pull"

IDENTITY_CONFLICT = "The images of this study state different patients"


@dataclass(frozen=True)
class Arrival:
    """One object that is about to be noted."""

    instance: Instance
    file: str
    source: str
    received: datetime


def note_arrival(session: Session, arrival: Arrival, quiet_s: float) -> str:
    """Write down a received object and see to it that its study settles; returns its fate, `copy` when it stood already."""
    study = _study_for(session, arrival)
    if _same_bytes(session, arrival.instance):
        return COPY
    fate = _fate(session, study, arrival.instance)
    _insert_instance(session, study.id, arrival, fate)
    if fate == OTHER_PATIENT and study.conflict is None:
        study.conflict = IDENTITY_CONFLICT
    _reopen(session, study, arrival.received, quiet_s)
    _hasten(session, study, arrival.received)
    return fate


class Step(Enum):
    """What became of news of a performed procedure step."""

    CHANGED = auto()
    ENDED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True)
class Said:
    """One statement on a study, under the UID of what carried it."""

    study_uid: str
    uid: str
    statement: Statement


def note_said(session: Session, said: Said, now: datetime) -> None:
    """Write down what somebody said of a study, in place of what the same step, notification or transaction said before."""
    told = said.statement
    session.merge(
        StatementRow(
            uid=said.uid, study_uid=said.study_uid, source=str(told.source), ended=told.ended, named=json.dumps(sorted(told.named)),
            count=told.count, at=now,
        )
    )  # fmt: skip
    session.flush()
    study = study_by_uid(session, said.study_uid)
    if study is not None and study.state == RECEIVING:
        _hasten(session, study, now)
    elif study is not None and not study.expired:  # it was taken for whole already: it stays so, and says what it lacks
        headers = [instance_from_json(json.loads(row.header), "") for row in all_received(session, study.id)]
        verdict = judge(statements(session, study.uid), headers)
        study.whole_by, study.missing = verdict.whole_by, verdict.missing
        session.add(study)


def begin_step(session: Session, uid: str, studies: Iterable[str], begun: Statement, now: datetime) -> bool:
    """Write down that a performed procedure step has begun; False when it stands already."""
    if session.exec(select(StatementRow.uid).where(StatementRow.uid == uid)).first() is not None:
        return False
    for study in studies:
        note_said(session, Said(study, uid, begun), now)
    return True


def change_step(session: Session, uid: str, said: Statement, now: datetime) -> Step:
    """Write down what a performed procedure step says now; the images that it named before stay named where it names none."""
    rows = list(
        session.exec(select(StatementRow).where(StatementRow.uid == uid, StatementRow.source == Source.STEP)).all()
    )
    if not rows:
        return Step.UNKNOWN
    if any(row.ended for row in rows):
        return Step.ENDED
    for row in rows:
        named = said.named or frozenset(json.loads(row.named))
        note_said(session, Said(row.study_uid, uid, Statement(Source.STEP, said.ended, named)), now)
    return Step.CHANGED


def statements(session: Session, study_uid: str) -> list[Statement]:
    """Return what was said of a study."""
    rows = session.exec(select(StatementRow).where(StatementRow.study_uid == study_uid)).all()
    return [Statement(Source(r.source), r.ended, frozenset(json.loads(r.named)), r.count) for r in rows]


def all_received(session: Session, study_id: str) -> list[InstanceRow]:
    """Return a study's objects that came from outside, whatever became of them."""
    return instances(session, study_id, (USED, CONFLICT, OTHER_PATIENT))


def note_derived(session: Session, study_id: str, arrival: Arrival) -> bool:
    """Write down an object that was made here; False when it stands already: a repeated run makes the same identifiers."""
    taken = select(InstanceRow.id).where(InstanceRow.sop_uid == arrival.instance.sop_uid)
    if session.exec(taken).first() is not None:
        return False
    _insert_instance(session, study_id, arrival, DERIVED)
    return True


def study_by_uid(session: Session, uid: str) -> StudyRow | None:
    """Return the study of that Study Instance UID."""
    return session.exec(select(StudyRow).where(StudyRow.uid == uid)).first()


def study_by_record_id(session: Session, record_id: str) -> StudyRow | None:
    """Return the study that stands in the record under that id."""
    return session.exec(select(StudyRow).where(StudyRow.record_id == record_id)).first()


def studies(session: Session, limit: int, offset: int = 0) -> list[StudyRow]:
    """Return studies, latest first."""
    query = select(StudyRow).order_by(col(StudyRow.last_received).desc(), col(StudyRow.id)).limit(limit).offset(offset)
    return list(session.exec(query).all())


def instances(session: Session, study_id: str, fates: Sequence[str] = (USED,)) -> list[InstanceRow]:
    """Return a study's objects with one of these fates, in a stable order."""
    query = (
        select(InstanceRow)
        .where(InstanceRow.study_id == study_id, col(InstanceRow.fate).in_(fates))
        .order_by(col(InstanceRow.series_uid), col(InstanceRow.sop_uid))
    )
    return list(session.exec(query).all())


def by_sop_uids(session: Session, sop_uids: Sequence[str]) -> list[InstanceRow]:
    """Return the objects made here under these SOP Instance UIDs."""
    query = select(InstanceRow).where(col(InstanceRow.sop_uid).in_(sop_uids), InstanceRow.fate == DERIVED)
    return list(session.exec(query).all())


def received(session: Session, sop_uids: Sequence[str]) -> list[InstanceRow]:
    """Return the received objects in use under these SOP Instance UIDs."""
    query = select(InstanceRow).where(col(InstanceRow.sop_uid).in_(sop_uids), InstanceRow.fate == USED)
    return list(session.exec(query).all())


def counts(session: Session, study_id: str) -> dict[str, int]:
    """Return how many objects of a study have which fate."""
    query = select(InstanceRow.fate, func.count()).where(InstanceRow.study_id == study_id).group_by(InstanceRow.fate)
    return dict(session.exec(query).all())


def parsed(row: InstanceRow, spool: Spool) -> Instance:
    """Return the header facts that were read when the object came in."""
    return instance_from_json(json.loads(row.header), str(spool.path(row.file)))


def measurements(session: Session, study_id: str, pipeline: str) -> list[MeasurementRow]:
    """Return a study's finished measurements and refusals by one pipeline, latest first."""
    query = (
        select(MeasurementRow)
        .where(
            MeasurementRow.study_id == study_id,
            MeasurementRow.pipeline == pipeline,
            col(MeasurementRow.finished).is_not(None),
        )
        .order_by(col(MeasurementRow.finished).desc())
    )
    return list(session.exec(query).all())


def measured_elsewhere(session: Session, row: MeasurementRow, most: int) -> list[tuple[str, str]]:
    """Return the latest measurements of other studies by the same pipeline: the study's id in the record and the summary, newest first.

    A study measured twice stands with the later one; at most `most` measurements are looked at.
    """
    query = (
        select(StudyRow.record_id, MeasurementRow.summary)
        .where(MeasurementRow.study_id == StudyRow.id, MeasurementRow.pipeline == row.pipeline)
        .where(MeasurementRow.study_id != row.study_id, col(MeasurementRow.summary).is_not(None))
        .where(col(StudyRow.record_id).is_not(None), col(StudyRow.conflict).is_(None))
        .order_by(col(MeasurementRow.finished).desc())
        .limit(most)
    )
    found: dict[str, str] = {}
    for record_id, summary in session.exec(query).all():
        found.setdefault(str(record_id), str(summary))
    return list(found.items())


def ask_measurement(session: Session, key: str, study_id: str, pipeline: str, now: datetime) -> MeasurementRow:
    """Return the measurement of that key; one that nobody has asked for yet is written down and enqueued."""
    row = session.get(MeasurementRow, key)
    if row is None:
        row = MeasurementRow(key=key, study_id=study_id, pipeline=pipeline, asked=now)
        session.add(row)
        session.flush()
        work.enqueue(
            session, MEASURE, now=now, keys=(f"measure:{study_id}",), payload={"key": key}, dedupe=f"measure:{key}"
        )
    return row


def known_files(session: Session) -> set[str]:
    """Return the names of all files that rows speak of."""
    known = set(session.exec(select(InstanceRow.file)).all())
    for row in session.exec(select(MeasurementRow)).all():
        known |= {name for name in (row.gallery, row.picture) if name}
    return known


def expire(session: Session, before: datetime) -> list[str]:
    """Forget the images of settled studies of which nothing has come since; returns the files to remove.

    Measurements and their pictures stay.
    """
    files: list[str] = []
    session.execute(delete(StatementRow).where(col(StatementRow.at) < before))
    query = select(StudyRow).where(
        col(StudyRow.last_received) < before, StudyRow.state == SETTLED, col(StudyRow.expired).is_(False)
    )
    for study in session.exec(query).all():
        files += session.exec(select(InstanceRow.file).where(InstanceRow.study_id == study.id)).all()
        session.execute(delete(InstanceRow).where(col(InstanceRow.study_id) == study.id))
        study.expired = True
        session.add(study)
    return files


def said_person(study: StudyRow) -> Person:
    """Return whose images a study's first image said they are."""
    number, issuer, name, birth = json.loads(study.said)["person"]
    return (number, issuer, name, birth)


def _study_for(session: Session, arrival: Arrival) -> StudyRow:
    instance = arrival.instance
    said = {
        "person": list(instance.person),
        **{k: instance.tags[k] for k in _SAID if k in instance.tags and k not in instance.dropped},
    }
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(
        insert(StudyRow)
        .values(
            id=new_id(), uid=instance.study_uid, state=SETTLED, generation=0, said=json.dumps(said),
            first_received=arrival.received, last_received=arrival.received, expired=False, whole_by="",
            missing="",
        )
        .on_conflict_do_nothing(index_elements=["uid"])
    )  # fmt: skip
    return session.exec(select(StudyRow).where(StudyRow.uid == instance.study_uid).with_for_update()).one()


_SAID = ("PatientSex", "AccessionNumber", "StudyDate", "StudyTime", "StudyDescription", "StudyID")


def _same_bytes(session: Session, instance: Instance) -> bool:
    query = select(InstanceRow.id).where(InstanceRow.sop_uid == instance.sop_uid, InstanceRow.digest == instance.digest)
    return session.exec(query).first() is not None


def _fate(session: Session, study: StudyRow, instance: Instance) -> str:
    if persons_conflict(said_person(study), instance.person):
        return OTHER_PATIENT
    taken = session.exec(select(InstanceRow.id).where(InstanceRow.sop_uid == instance.sop_uid)).first()
    return CONFLICT if taken is not None else USED


def _insert_instance(session: Session, study_id: str, arrival: Arrival, fate: str) -> None:
    instance = arrival.instance
    session.add(
        InstanceRow(
            id=new_id(), study_id=study_id, series_uid=instance.series_uid, sop_uid=instance.sop_uid, digest=instance.digest,
            fate=fate, file=arrival.file, size=instance.size, header=json.dumps({**instance_to_json(instance), "path": ""}),
            source=arrival.source, received=arrival.received,
        )
    )  # fmt: skip
    session.flush()


def _reopen(session: Session, study: StudyRow, now: datetime, quiet_s: float) -> None:
    study.last_received, study.expired = now, False
    if study.state == SETTLED:
        study.state, study.generation = RECEIVING, study.generation + 1
        enqueue_settling(session, study, now, quiet_s)
    session.add(study)


def enqueue_settling(session: Session, study: StudyRow, now: datetime, quiet_s: float) -> None:
    """See to it that the study is looked at when it has been quiet for long enough."""
    work.enqueue(
        session, SETTLE, now=now, keys=(f"study:{study.id}",), payload={"study": study.id, "generation": study.generation},
        due=now + timedelta(seconds=quiet_s), dedupe=_settling(study),
    )  # fmt: skip


def _hasten(session: Session, study: StudyRow, now: datetime) -> None:
    """Have a study looked at now where somebody said that nothing else follows and all that was named is here."""
    ended = [one.named for one in statements(session, study.uid) if one.ended]
    if not ended:
        return
    held = select(InstanceRow.sop_uid).where(InstanceRow.study_id == study.id, InstanceRow.fate != DERIVED)
    if set(session.exec(held).all()) >= frozenset().union(*ended):
        # Only what waits: a job in hand looks again by itself, after `quiet_s` at the latest.
        waiting = (work.jobs.c.dedupe == _settling(study)) & (work.jobs.c.state == READY)
        session.execute(update(work.jobs).where(waiting).values(due=now))


def _settling(study: StudyRow) -> str:
    return f"settle:{study.id}:{study.generation}"
