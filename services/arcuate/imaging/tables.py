"""Tables of the imaging room."""

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime
from arcuate.kernel.work import WorkTable


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class StudyRow(Base, table=True):
    """One study as it was received.

    `state` is `receiving` until no image has come for a while, then `settled`. `generation` counts how often a late image has
    opened it again. `said` is what the images state of the person and the examination (JSON). `conflict` is why a person must
    look at it before anybody uses it. `whole_by` is who said that nothing else follows, `missing` what is known to lack, in words.
    """

    __tablename__ = "study"
    id: str = Field(primary_key=True)
    uid: str = Field(unique=True)
    record_id: str | None = Field(default=None, index=True)
    state: str
    generation: int
    said: str
    conflict: str | None = None
    released_by: str | None = None
    first_received: datetime = Field(sa_type=UtcDateTime)
    last_received: datetime = Field(sa_type=UtcDateTime, index=True)
    expired: bool = False
    whole_by: str = ""
    missing: str = ""


class StatementRow(Base, table=True):
    """What somebody said of the images of a study (`completion.Statement`), before or after they came.

    `uid` is that of the procedure step, the notification or the transaction; `named` is JSON.
    """

    __tablename__ = "statement"
    uid: str = Field(primary_key=True)
    study_uid: str = Field(primary_key=True, index=True)
    source: str
    ended: bool | None = None
    named: str
    count: int = 0
    at: datetime = Field(sa_type=UtcDateTime, index=True)


class InstanceRow(Base, table=True):
    """One received or derived object; `file` is its name in the spool, never a name from outside.

    `fate`: `used`; `conflict` (other bytes under a SOP Instance UID that stands already); `other-patient`; `derived` (made here).
    """

    __tablename__ = "instance"
    __table_args__ = (UniqueConstraint("sop_uid", "digest"),)
    id: str = Field(primary_key=True)
    study_id: str = Field(foreign_key="study.id", index=True)
    series_uid: str
    sop_uid: str = Field(index=True)
    digest: str
    fate: str
    file: str = Field(unique=True)
    size: int
    header: str
    source: str
    received: datetime = Field(sa_type=UtcDateTime)


class MeasurementRow(Base, table=True):
    """One measurement of one set of images by one pipeline and its models; `key` names all three."""

    __tablename__ = "measurement"
    key: str = Field(primary_key=True)
    study_id: str = Field(foreign_key="study.id", index=True)
    pipeline: str = "brain-volumes"
    asked: datetime = Field(sa_type=UtcDateTime)
    finished: datetime | None = Field(default=None, sa_type=UtcDateTime)
    summary: str | None = None
    refusal: str | None = None
    gallery: str | None = None
    picture: str | None = None


class ComparisonRow(Base, table=True):
    """Two measurements of one person compared lesion by lesion; `result` is the values and words as JSON, `refusal` why not."""

    __tablename__ = "comparison"
    key: str = Field(primary_key=True)
    study_id: str = Field(foreign_key="study.id", index=True)
    now: str = Field(foreign_key="measurement.key")
    before: str = Field(foreign_key="measurement.key")
    asked: datetime = Field(sa_type=UtcDateTime)
    finished: datetime | None = Field(default=None, sa_type=UtcDateTime)
    result: str | None = None
    refusal: str | None = None


class PauseRow(Base, table=True):
    """That a person paused a pipeline or let it go on; never changed, only added to."""

    __tablename__ = "pause"
    id: int | None = Field(default=None, primary_key=True)
    pipeline: str = Field(index=True)
    paused: bool
    reason: str
    by: str
    at: datetime = Field(sa_type=UtcDateTime)


class ShadowOutcomeRow(Base, table=True):
    """What a person found where a pipeline had read in shadow mode (`shadow.Outcome` as JSON); never changed, only added to."""

    __tablename__ = "shadow_outcome"
    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(foreign_key="measurement.key", index=True)
    outcome: str
    by: str
    at: datetime = Field(sa_type=UtcDateTime)


class WorkitemRow(Base, table=True):
    """One Unified Procedure Step of the worklist; `dataset` is its attributes (DICOM JSON) without state and transaction UID."""

    __tablename__ = "workitem"
    uid: str = Field(primary_key=True)
    state: str = Field(index=True)
    transaction_uid: str | None = None
    cancel_requested: bool = False
    dataset: str
    created: datetime = Field(sa_type=UtcDateTime, index=True)
    changed: datetime = Field(sa_type=UtcDateTime)


work = WorkTable(Base.metadata)
