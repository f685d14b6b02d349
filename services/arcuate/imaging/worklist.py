"""The worklist's rows, and our own quantifications as its items (IHE AI Workflow for Imaging): scheduled, begun, done with their SEG and SR."""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from arcuate.imaging import ups
from arcuate.imaging.derived import uid_of
from arcuate.imaging.domain import Instance
from arcuate.imaging.pipelines import Pipeline
from arcuate.imaging.tables import MeasurementRow, StudyRow, WorkitemRow
from arcuate.imaging.ups import State, Workitem
from arcuate.kernel.errors import Conflict, NotFound

LABEL = "ARCUATE"


def add(session: Session, item: Workitem, now: datetime) -> None:
    """Write a new workitem down.

    Raises:
        Conflict: Its UID is taken (PS3.18 11.4: 409).
    """
    if session.get(WorkitemRow, item.uid) is not None:
        raise Conflict("A workitem of this UID stands already", where=item.uid)
    session.add(
        WorkitemRow(uid=item.uid, state=item.state, dataset=json.dumps(item.attributes), created=now, changed=now)
    )
    session.flush()


def get(session: Session, uid: str, lock: bool = False) -> Workitem:
    """Return a workitem.

    Raises:
        NotFound: There is none.
    """
    row = session.get(WorkitemRow, uid, with_for_update=True if lock else None)
    if row is None:
        raise NotFound("There is no such workitem", where=uid)
    return _item(row)


def save(session: Session, item: Workitem, now: datetime) -> None:
    """Write a changed workitem down."""
    row = session.get_one(WorkitemRow, item.uid)
    row.state, row.transaction_uid, row.cancel_requested = item.state, item.transaction, item.cancel_requested
    row.dataset, row.changed = json.dumps(item.attributes), now
    session.add(row)


def search(session: Session, query: Mapping[str, str], limit: int, offset: int) -> list[Workitem]:
    """Return workitems with these values, latest first."""
    rows = select(WorkitemRow).order_by(col(WorkitemRow.created).desc(), col(WorkitemRow.uid))
    if state := query.get(ups.STATE):
        rows = rows.where(WorkitemRow.state == state)
    rest = {tag: wanted for tag, wanted in query.items() if tag != ups.STATE}
    found: list[Workitem] = []
    for row in session.exec(rows):
        item = _item(row)
        if all(ups.value(item.dataset(), tag) == wanted for tag, wanted in rest.items()):
            found.append(item)
            if len(found) >= offset + limit:
                break
    return found[offset:]


# ---- our own quantifications -----------------------------------------------------------------------------------------


def uid_for(key: str) -> str:
    """Return the UID of a measurement's workitem."""
    return str(uid_of("workitem", key))


def schedule(session: Session, row: MeasurementRow, study: StudyRow, pipeline: Pipeline, now: datetime) -> None:
    """Put a measurement that was asked for into the list."""
    said = json.loads(study.said)
    number, issuer, name, birth = said["person"]
    made = {
        "00741200": _one("CS", "MEDIUM"),
        "00741204": _one("LO", pipeline.title),
        "00741202": _one("LO", LABEL),
        "00404005": _one("DT", _stamp(now)),
        "00404041": _one("CS", "READY"),
        "00404018": _code(pipeline.name, "99ARCUATE", pipeline.title),
        "00404021": {"vr": "SQ", "Value": [_input(study.uid)]},
        "0020000D": _one("UI", study.uid),
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]} if name else {"vr": "PN"},
        "00100020": _one("LO", number),
        "00100021": _one("LO", issuer),
        "00100030": _one("DA", birth),
        "00100040": _one("CS", str(said.get("PatientSex", ""))),
        "00080050": _one("SH", str(said.get("AccessionNumber", ""))),
    }
    item = Workitem(uid_for(row.key), State.SCHEDULED, None, made)
    if session.get(WorkitemRow, item.uid) is None:
        add(session, item, now)


def begin(session: Session, key: str, now: datetime) -> bool:
    """Take a measurement's workitem on; False when it was cancelled before.

    After a power cut it is IN PROGRESS already, and goes on under the transaction UID that stands in the row.
    """
    row = session.get(WorkitemRow, uid_for(key), with_for_update=True)
    if row is None:
        return True  # asked for before there was a list
    item = _item(row)
    if item.state is State.SCHEDULED:
        item = ups.moved(item, State.IN_PROGRESS, f"2.25.{uuid.uuid4().int}").item
        progress = {"vr": "SQ", "Value": [{"00741004": _one("DS", "0"), "00741006": _one("ST", "Being measured")}]}
        save(session, ups.updated(item, {ups.PROGRESS: progress, **_performed(now)}, item.transaction), now)
    return item.state is State.IN_PROGRESS and not item.cancel_requested


def finish(session: Session, key: str, now: datetime, outputs: Sequence[Instance]) -> None:
    """State that a measurement is done, with the objects that it gave (IHE AI Results: SEG and SR of TID 1500)."""
    item = _begun(session, key)
    if item is None:
        return
    progress = {"vr": "SQ", "Value": [{"00741004": _one("DS", "100")}]}
    performed = _performed(_started(item, now), now, outputs)
    item = ups.updated(item, {ups.PROGRESS: progress, **performed}, item.transaction)
    save(session, ups.moved(item, State.COMPLETED, item.transaction).item, now)


def give_up(session: Session, key: str, now: datetime, why: str) -> None:
    """State that a measurement will not be made, and why."""
    item = _begun(session, key)
    if item is None:
        return
    stopped = {"vr": "SQ", "Value": [{"00741004": _one("DS", "0"), ups.CANCEL_REASON: _one("LT", why)}]}
    item = ups.updated(item, {ups.PROGRESS: stopped}, item.transaction)
    save(session, ups.moved(item, State.CANCELED, item.transaction).item, now)


def cancel_requested(session: Session, key: str) -> bool:
    """Whether somebody has asked to cancel a measurement."""
    row = session.get(WorkitemRow, uid_for(key))
    return row is not None and row.cancel_requested


def _begun(session: Session, key: str) -> Workitem | None:
    row = session.get(WorkitemRow, uid_for(key), with_for_update=True)
    return _item(row) if row is not None and row.state == State.IN_PROGRESS else None


def _item(row: WorkitemRow) -> Workitem:
    return Workitem(row.uid, State(row.state), row.transaction_uid, json.loads(row.dataset), row.cancel_requested)


def _started(item: Workitem, now: datetime) -> str:
    found = (item.attributes.get(ups.PERFORMED) or {}).get("Value") or [{}]
    return ups.value(found[0], ups.STARTED) or _stamp(now)


def _performed(
    began: datetime | str, ended: datetime | None = None, outputs: Sequence[Instance] = ()
) -> dict[str, Any]:
    made = {
        ups.STARTED: _one("DT", began if isinstance(began, str) else _stamp(began)),
        "00404028": _code("ARCUATE", "99ARCUATE", "Arcuate"),
    }
    if ended is not None:
        made |= {
            ups.ENDED: _one("DT", _stamp(ended)),
            ups.OUTPUT: {"vr": "SQ", "Value": [_output(one) for one in outputs]},
        }
    return {ups.PERFORMED: {"vr": "SQ", "Value": [made]}}


def _input(study_uid: str) -> dict[str, Any]:
    """Return where the images are (PS3.3 C.30.2, macro Referenced Instances and Access): all of the study, by WADO-RS."""
    return {"0040E020": _one("CS", "DICOM"), "0020000D": _one("UI", study_uid), **_access(study_uid)}


def _output(one: Instance) -> dict[str, Any]:
    reference = {"00081150": _one("UI", one.text("SOPClassUID")), "00081155": _one("UI", one.sop_uid)}
    return {
        "0040E020": _one("CS", "DICOM"),
        "0020000D": _one("UI", one.study_uid),
        "0020000E": _one("UI", one.series_uid),
        "00081199": {"vr": "SQ", "Value": [reference]},
        **_access(one.study_uid),
    }


def _access(study_uid: str) -> dict[str, Any]:
    place = {"00081190": _one("UR", f"/dicom-web/studies/{study_uid}")}
    return {"0040E025": {"vr": "SQ", "Value": [place]}}  # WADO-RS Retrieval Sequence


def _one(vr: str, value: str) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value else {"vr": vr}


def _code(value: str, scheme: str, meaning: str) -> dict[str, Any]:
    return {
        "vr": "SQ",
        "Value": [
            {"00080100": _one("SH", value[:16]), "00080102": _one("SH", scheme), "00080104": _one("LO", meaning)}
        ],
    }


def _stamp(at: datetime) -> str:
    """Return a DT (PS3.5 6.2)."""
    return at.strftime("%Y%m%d%H%M%S%z")
