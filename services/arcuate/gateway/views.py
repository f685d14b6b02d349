"""What people see of the gateway: journal, error queue, connections. Plain JSON; only the routes for one item show content."""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from arcuate.gateway import ehr, history, store
from arcuate.gateway.domain import State
from arcuate.gateway.outgoing import queue
from arcuate.gateway.tables import Frame, Message, Outgoing, Transport, work
from arcuate.kernel.errors import Json, NotFound
from arcuate.kernel.hl7v2.message import Message as Hl7Message
from arcuate.kernel.work import ParkedJob

IN_QUEUE = (State.PARKED, State.UNMATCHED)
_MOST = 200
UNBUILT = "could not be built"
REFUSED_ANSWER = "answer of the EHR refused"


def instant(moment: datetime | None) -> str | None:
    """Return a time as ISO 8601."""
    return moment.isoformat(timespec="milliseconds") if moment else None


def errors(session: Session, before: int | None, limit: int, cause: str) -> Json:
    """Return the error queue: counts by cause over all, then the newest items, incoming and outgoing."""
    counted = session.execute(
        sa.select(col(Message.state), col(Message.cause), func.count()).where(col(Message.state).in_(IN_QUEUE))
        .group_by(col(Message.state), col(Message.cause))
    ).all()  # fmt: skip
    groups = [
        {"cause": row[1] or "unmatched", "state": row[0], "count": row[2]}
        for row in sorted(counted, key=lambda row: -row[2])
    ]
    stuck = session.exec(
        select(Outgoing)
        .where(col(Outgoing.state).in_((queue.PARKED, queue.HELD)))
        .order_by(col(Outgoing.id).desc())
        .limit(_MOST)
    ).all()
    if parked := sum(row.state == queue.PARKED for row in stuck):
        groups.append({"cause": "refused by a receiver", "state": "parked", "count": parked})
    given_up = [job for job in work.parked(session) if job.kind != store.MAP]
    for name, number in Counter(map(_cause, given_up)).items():
        groups.append({"cause": name, "state": "parked", "count": number})
    statement = (
        select(Message, Frame)
        .join(Frame, col(Frame.number) == col(Message.frame))
        .where(col(Message.state).in_(IN_QUEUE))
    )
    if before is not None:
        statement = statement.where(col(Message.id) < before)
    if cause:
        statement = statement.where(Message.cause == ("" if cause == "unmatched" else cause))
    rows = session.exec(statement.order_by(col(Message.id).desc()).limit(min(limit, _MOST) + 1)).all()
    shown = rows[: min(limit, _MOST)]
    items = [error_line(message, frame) for message, frame in shown]
    more = shown[-1][0].id if len(rows) > len(shown) else None
    outgoing = [*(outgoing_line(row) for row in stuck), *(job_line(job) for job in given_up)]
    return {"groups": groups, "items": items, "outgoing": outgoing, "before": more}


def job_line(job: ParkedJob) -> Json:
    """Return work on the way out that was given up: what could not be built has no message yet."""
    about = f"{job.payload.get('type', '')}/{job.payload.get('id', '')}" if "type" in job.payload else ""
    return {
        "id": f"job-{job.id}", "receiver": "", "kind": job.kind, "state": "parked", "cause": _cause(job), "reason": job.reason, "about": about,
        "tries": 0, "created": instant(job.parked_at), "sent": None, "changed_by": "",
    }  # fmt: skip


def _cause(job: ParkedJob) -> str:
    return REFUSED_ANSWER if job.kind == ehr.ASK else UNBUILT


def job_item(session: Session, number: int) -> Json:
    """Return one of them.

    Raises:
        NotFound: It is not parked.
    """
    found = next((job for job in work.parked(session) if job.id == number and job.kind != store.MAP), None)
    if found is None:
        raise NotFound("There is no such item in the error queue", where=f"job-{number}")
    return {**job_line(found), "text": "", "charset": "", "segments": []}


def error_line(message: Message, frame: Frame) -> Json:
    """Return one incoming item without content."""
    return {
        "id": f"in-{message.id}",
        "journal": message.frame,
        "position": message.position,
        "received": instant(frame.received),
        "sender": message.sender,
        "kind": message.kind,
        "state": message.state,
        "cause": message.cause or "unmatched",
        "reason": message.reason or message.note,
        "location": message.location,
        "condition": message.condition,
        "orders": [one for one in message.orders.split("\n") if one],
        "changed": instant(message.changed),
        "changed_by": message.changed_by,
    }


def outgoing_line(row: Outgoing) -> Json:
    """Return one outgoing item without content."""
    return {
        "id": f"out-{row.id}",
        "receiver": row.receiver,
        "kind": row.kind,
        "state": row.state,
        "cause": "refused by a receiver",
        "reason": row.reason,
        "about": row.about,
        "tries": row.tries,
        "created": instant(row.created),
        "sent": instant(row.sent),
        "changed_by": row.changed_by,
    }


def segments(message: Hl7Message, location: str) -> list[Json]:
    """Return a message by segments and fields, the faulty field marked."""
    place = re.match(r"([A-Z][A-Z0-9]{2})(?:-(\d+))?", location)
    faulty, number = (place.group(1), int(place.group(2) or 0)) if place else ("", 0)
    return [
        {
            "id": segment.id,
            "fields": [text.encode("utf-8", "replace").decode() for text in segment.fields],
            "faulty": number if segment.id == faulty else None,
        }
        for segment in message
    ]


def journal(session: Session, before: int | None, limit: int, sender: str, state: str) -> Json:
    """Return the newest journal rows with what became of their messages."""
    statement = select(Frame)
    if before is not None:
        statement = statement.where(col(Frame.number) < before)
    if sender:
        statement = statement.where(Frame.sender == sender)
    if state:
        statement = statement.where(col(Frame.number).in_(select(Message.frame).where(Message.state == state)))
    rows = session.exec(statement.order_by(col(Frame.number).desc()).limit(min(limit, _MOST) + 1)).all()
    shown = rows[: min(limit, _MOST)]
    numbers = [row.number for row in shown]
    found: dict[int, list[Message]] = {}
    for message in session.exec(select(Message).where(col(Message.frame).in_(numbers)).order_by(col(Message.id))).all():
        found.setdefault(message.frame, []).append(message)
    items = [frame_line(row, found.get(row.number or 0, [])) for row in shown]
    return {"items": items, "before": shown[-1].number if len(rows) > len(shown) else None}


def frame_line(row: Frame, messages: list[Message]) -> Json:
    """Return one journal row without content."""
    return {
        "number": row.number,
        "received": instant(row.received),
        "peer": row.peer,
        "sender": row.sender,
        "profile": row.profile,
        "kind": row.kind,
        "control_id": row.control_id,
        "size": row.size,
        "answer": row.answer_code,
        "warning": row.warning,
        "resends": row.resends,
        "messages": [
            {"id": f"in-{one.id}", "position": one.position, "kind": one.kind, "state": one.state, "cause": one.cause,
             "reason": one.reason, "made": one.made, "note": one.note, "charset": one.charset}
            for one in messages
        ],
    }  # fmt: skip


def journal_item(session: Session, number: int) -> Json:
    """Return one journal row with its messages."""
    row = store.frame(session, number)
    messages = session.exec(select(Message).where(Message.frame == number).order_by(col(Message.id))).all()
    return frame_line(row, list(messages))


def content(raw: bytes, location: str) -> Json:
    """Return a message for the eye: its text, and its segments with the faulty field marked."""
    message = Hl7Message.parse(raw)
    text = raw.decode(message.charset.name if message.charset.readable else "utf-8", "replace")
    return {"text": text, "charset": message.charset.name, "segments": segments(message, location)}


def senders(session: Session, now_open: Mapping[str, int]) -> list[Json]:
    """Return each sender with its last message and counts; `now_open` are open connections by address."""
    newest = session.execute(
        sa.select(col(Frame.sender), func.count(), func.max(col(Frame.received)), func.max(col(Frame.number)), func.sum(col(Frame.resends)))
        .where(col(Frame.peer) != history.PEER).group_by(col(Frame.sender))
    ).all()  # fmt: skip
    by_state: dict[str, dict[str, int]] = {}
    for sender, state, number in session.execute(
        sa.select(col(Message.sender), col(Message.state), func.count()).group_by(
            col(Message.sender), col(Message.state)
        )
    ).all():
        by_state.setdefault(sender, {})[state] = number
    last = {row[3]: row for row in newest}
    peers = {row.number: row for row in session.exec(select(Frame).where(col(Frame.number).in_(list(last)))).all()}
    found = []
    for sender, count, received, number, resends in newest:
        counts = by_state.get(sender, {})
        peer = peers[number].peer
        found.append({
            "sender": sender, "profile": peers[number].profile, "peer": peer, "open": now_open.get(peer, 0), "received": count,
            "resent": int(resends or 0), "last": instant(received), "last_answer": peers[number].answer_code, "states": counts,
            "waiting": counts.get(State.WAITING, 0), "parked": counts.get(State.PARKED, 0),
            "unmatched": counts.get(State.UNMATCHED, 0),
        })  # fmt: skip
    return sorted(found, key=lambda one: str(one["last"]), reverse=True)


def transport_counts(session: Session) -> dict[str, int]:
    """Return how often each thing beside whole frames happened."""
    rows: Any = session.execute(sa.select(col(Transport.kind), func.count()).group_by(col(Transport.kind))).all()
    return {row[0]: row[1] for row in rows}


def counts(session: Session) -> dict[str, int]:
    """Return how many messages stand in each state: what came in is accounted for."""
    rows: Any = session.execute(sa.select(col(Message.state), func.count()).group_by(col(Message.state))).all()
    return {row[0]: row[1] for row in rows}
