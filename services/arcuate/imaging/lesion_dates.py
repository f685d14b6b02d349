"""A lesion measurement beside the one before: a durable job compares what both kept (lesion_change.py), values go out as Observations.

The scans themselves may have left the spool: every measurement keeps its head in 8 bits and its labels (viewing.py), and both
dates are compared in that form.
"""

import asyncio
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
from sqlmodel import Session, col, select

from arcuate.imaging import comparison, lesions, store, viewing
from arcuate.imaging.context import Imaging
from arcuate.imaging.derived import Model
from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.lesion_change import Change, Kind, Reading, compare
from arcuate.imaging.pipelines import Pipeline, Volume, named
from arcuate.imaging.tables import ComparisonRow, MeasurementRow, work
from arcuate.kernel.codes import Json, coding, job_system
from arcuate.kernel.errors import NotFound, Unavailable
from arcuate.kernel.work import Apply, Job, Later

METHOD = "lesions"  # of the pipelines (pipelines.toml) whose dates are compared
PARTS = tuple(f"wm-lesions-{kind}{what}" for kind in Kind for what in ("", "-count"))
_LOOK_S = 15.0  # as measuring.py


@dataclass(frozen=True)
class Dates:
    """A comparison and the day of the earlier scan."""

    row: ComparisonRow
    day: str

    def summary(self, summary: Json) -> Json:
        """Return it in the form of a measurement's summary, for `resources.observations`; without values where it was refused."""
        told = json.loads(self.row.result or '{"words": ""}')
        values = [{"structure": p, "side": None, "value": told[p]} for p in PARTS if p in told]
        words = f"Compared with {self.day}, same model and version. {told['words']}"
        return {**summary, "volumes": [], "values": values, "ranges": {}, "intervals": {}, "warnings": [words]}

    def beside(self, volumes: Sequence[Json], stated: Sequence[Json]) -> list[Json]:
        """Return a measurement's Observations and those of the comparison, or with the reason why there are none of it."""
        if self.row.refusal:
            note = {"text": f"Not compared with {self.day}: {self.row.refusal}."}
            return [{**one, "note": [*one.get("note", []), note]} for one in volumes]
        since = {"url": comparison.EXT_SINCE, "valueDate": self.day}
        return [*volumes, *(_judged(one) | {"extension": [*one.get("extension", []), since]} for one in stated)]


def _judged(one: Json) -> Json:
    words = comparison.BEYOND if float(one["valueQuantity"]["value"]) > 0 else comparison.WITHIN
    code = coding(comparison.CS_COMPARISON, words.replace(" ", "-"), words)
    return {**one, "interpretation": [{"coding": [code], "text": words}]}


async def ask(
    imaging: Imaging, pipeline: Pipeline, done: MeasurementRow, volumes: Sequence[Json], recorded: Sequence[Json]
) -> Dates | None:
    """Return the comparison with the last earlier date, asked for where it is new; None where there is none to compare with.

    Args:
        volumes: The measurement as Observations. recorded: What the record holds of the same patient.
    """
    if pipeline.method != METHOD or not volumes:
        return None
    last = comparison.last_comparable(volumes[0], recorded)
    own_id = next((i.partition(":")[0] for i in _numbers(last or {})), "")
    if last is None or not own_id:
        return None
    now = imaging.clock.now()

    def written(session: Session) -> ComparisonRow | None:
        rows = [row for row in store.measurements(session, own_id, pipeline.name) if row.gallery and row.summary]
        before = next((row for row in rows if _model(row) == _model(done)), None)
        if before is None:
            return None
        key = f"{done.key}|{before.key}"
        row = session.get(ComparisonRow, key)
        if row is None:
            row = ComparisonRow(key=key, study_id=done.study_id, now=done.key, before=before.key, asked=now)
            session.add(row)
            session.flush()
            work.enqueue(session, store.COMPARE, now=now, payload={"key": key}, dedupe=f"compare:{key}")
        # One that failed waits for a person; the values do not wait for it.
        failed = row.finished is None and any(job.payload.get("key") == key for job in work.parked(session))
        return None if failed else row

    row = await imaging.database.write(written)
    return Dates(row, str(last["effectiveDateTime"])[:10]) if row is not None else None


async def stated_before(imaging: Imaging, study_id: str) -> bool:
    """Whether a comparison of this study was ever stated."""
    query = select(ComparisonRow.key).where(ComparisonRow.study_id == study_id, col(ComparisonRow.result).is_not(None))
    return await imaging.database.read(lambda s: s.exec(query).first() is not None)


async def compared(imaging: Imaging, job: Job) -> Apply | None:
    """Compare two measurements; the work runs in this process beside the job, so that the job's lease stays short.

    Raises:
        Later: It is not finished yet, or the networks do not answer.
    """
    key = job.payload["key"]
    task = imaging.running.get(key)
    if task is None:
        task = imaging.running[key] = asyncio.create_task(_compared(imaging, key))
    await asyncio.wait({task}, timeout=_LOOK_S)
    if not task.done():
        raise Later(0.1, "the comparison")
    del imaging.running[key]
    try:
        return task.result()
    except Unavailable as error:
        raise Later(15, f"the networks: {error.what}") from error


async def _compared(imaging: Imaging, key: str) -> Apply:
    before, now = await imaging.database.read(lambda s: _rows(s, key))
    async with imaging.turn:
        try:
            readings = [await asyncio.to_thread(_reading, imaging, one) for one in (before, now)]
            brain = await lesions.brain_mask(
                readings[1].flair, imaging.infer, imaging.models_dir, named(now.pipeline).models
            )
            change = await asyncio.to_thread(compare, readings[0], readings[1], brain)
        except NotMeasurable as error:
            return _finished(imaging, key, None, error.refusal.what)
        except (NotFound, OSError):  # measured before volumes were kept
            return _finished(imaging, key, None, "a measurement was kept without its volumes")
    return _finished(imaging, key, _result(change), None)


def _rows(session: Session, key: str) -> tuple[MeasurementRow, MeasurementRow]:
    row = session.get_one(ComparisonRow, key)
    return session.get_one(MeasurementRow, row.before), session.get_one(MeasurementRow, row.now)


def _result(change: Change) -> Json:
    values: dict[str, Any] = {}
    for kind in Kind:
        mine = [lesion.ml for lesion in change.lesions if lesion.kind is kind]
        values[f"wm-lesions-{kind}"] = round(sum(mine), 3)
        values[f"wm-lesions-{kind}-count"] = len(mine)
    return values | {"words": change.words}


def _finished(imaging: Imaging, key: str, result: Json | None, refusal: str | None) -> Apply:
    at = imaging.clock.now()

    def apply(session: Session) -> None:
        row = session.get_one(ComparisonRow, key)
        row.finished, row.result, row.refusal = at, json.dumps(result) if result else None, refusal
        session.add(row)

    return apply


def _reading(imaging: Imaging, row: MeasurementRow) -> Reading:
    packed = imaging.spool.path(str(row.gallery)).read_bytes()
    head, labels = (_image(viewing.unpacked(packed, name)) for name in (viewing.HEAD, viewing.LABELS))
    first, *others = (Model(m["name"], m["version"], m["sha256"]) for m in json.loads(str(row.summary))["models"])
    flair = Volume(np.asarray(head.dataobj, np.float32), np.asarray(head.affine, np.float64))
    return Reading(flair, np.asarray(labels.dataobj) > 0, Model(first.name, first.version, first.digest, tuple(others)))


def _image(packed: bytes) -> Any:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(packed))


def _model(row: MeasurementRow) -> Any:
    return json.loads(str(row.summary))["models"]


def _numbers(one: Json) -> list[str]:
    """Return how this room numbered an Observation: its study's id here and the part, joined by a colon."""
    known = [i for i in one.get("identifier") or [] if i.get("system") == job_system("imaging")]
    return [str(i.get("value")) for i in known]
