"""What does not move or was never put in its place, in lists that a person can work through."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx

from arcuate.journey import store
from arcuate.journey.room import Journey
from arcuate.journey.table import Table
from arcuate.journey.tables import WORK, CaseRow
from arcuate.kernel.codes import SYSTEM_ACCESSION
from arcuate.kernel.errors import ArcuateError, Json

LISTS: Mapping[str, str] = {
    "held": "Held until a person has decided",
    "stuck": "Standing in a stage for longer than its time limit",
    "never_scheduled": "Ordered and never scheduled",
    "orphaned": "Images without an order",
    "not_filed": "Acknowledged to the sender but not filed",
    "failed": "Cases that could not be brought forward",
}
_MOST = 500
_ASKED = 200
_TIMEOUT_S = 10.0


async def reconcile(journey: Journey) -> dict[str, Any]:
    """Return all lists, each with its whole count, what is shown of it, and which room was silent."""
    now = journey.clock.now()
    rows, total = await journey.database.read(lambda s: store.overdue(s, now, _MOST))
    failed = await journey.database.read(WORK.parked)
    lists: dict[str, list[Json]] = {name: [] for name in LISTS}
    for row in rows:
        name, why = why_listed(journey.table, row)
        lists[name].append(line(row, why))
    lists["failed"] = [
        {"case": job.payload.get("case"), "since": job.parked_at.isoformat(), "why": job.reason} for job in failed
    ]
    lists["not_filed"], silent = await _not_filed(journey.http, now, journey.settings.filing_limit_s)
    return {
        "as_of": now.isoformat(),
        "complete": total <= len(rows),
        "silent": silent,
        "lists": [
            {"name": name, "title": LISTS[name], "count": len(items), "items": items} for name, items in lists.items()
        ],
    }


def why_listed(table: Table, row: CaseRow) -> tuple[str, str]:
    """Return the list on which an overdue or held case stands, and the sentence that says what to do."""
    if row.held:
        aside = table.aside["parked"]
        return aside.listed, f"{row.held}. {aside.overdue}"
    stage = table.stage(row.stage)
    return (stage.listed, stage.overdue) if stage is not None else ("stuck", "")


def line(row: CaseRow, why: str) -> Json:
    """Return an overdue case as a list shows it."""
    return {
        "case": row.id, "accession": row.accession, "order": f"ServiceRequest/{row.order_id}" if row.order_id else None,
        "patient": f"Patient/{row.patient_id}" if row.patient_id else None, "stage": row.stage, "since": row.since.isoformat(),
        "due": row.due.isoformat() if row.due else None, "waits_for": row.waits_for, "why": why,
    }  # fmt: skip


async def parked_about(http: httpx.AsyncClient, accession: str | None) -> list[Json] | None:
    """Return the parked messages that name a case, oldest first; None when the gateway does not answer.

    They have changed nothing: a message of another patient for this accession number is shown here so that people see it on the case, too.
    """
    if not accession:
        return []
    silent: list[str] = []
    errors = await _get(http, "gateway", f"/gateway/errors?limit={_ASKED}", silent)
    name = f"{SYSTEM_ACCESSION}|{accession}"
    named = [
        one for one in errors.get("items") or () if one.get("state") == "parked" and name in (one.get("orders") or ())
    ]
    found = [
        {"item": one["id"], "cause": one.get("cause"), "kind": one.get("kind"), "sender": one.get("sender"),
         "since": one.get("received"), "why": one.get("reason") or ""}
        for one in named
    ]  # fmt: skip
    return None if silent else sorted(found, key=lambda one: str(one["since"]))


async def _not_filed(http: httpx.AsyncClient, now: datetime, limit_s: float) -> tuple[list[Json], list[str]]:
    """Ask the doors what they have taken and not put into the record: messages of the gateway, studies of imaging."""
    silent: list[str] = []
    errors = await _get(http, "gateway", f"/gateway/errors?limit={_ASKED}", silent)
    waiting = await _get(http, "gateway", f"/gateway/journal?state=waiting&limit={_ASKED}", silent)
    studies = await _get(http, "imaging", "/imaging/studies", silent)
    before = now - timedelta(seconds=limit_s)
    found = [_message(one, one) for one in errors.get("items") or () if not _is_past(one)]
    for row in waiting.get("items") or ():
        if _at(row["received"]) <= before:
            found += [_message(row, one) for one in row.get("messages") or () if _is_waiting(row, one)]
    found += [_study(one) for one in studies.get("studies") or () if _is_unfiled(one, before)]
    return sorted(found, key=lambda one: str(one["since"])), sorted(set(silent))


def _is_past(message: Json) -> bool:
    """Say whether a message was taken over from the past: it waits in the error queue, and nobody waits for it."""
    return str(message.get("sender") or "").startswith("history|")


def _is_waiting(frame: Json, message: Json) -> bool:
    return message.get("state") == "waiting" and not _is_past(frame)


def _message(frame: Json, message: Json) -> Json:
    why = message.get("reason") or message.get("note") or "Taken and not applied yet: does the record answer?"
    return {
        "item": message["id"], "journal": frame.get("journal") or frame.get("number"), "sender": frame.get("sender"),
        "kind": message.get("kind"), "state": message.get("state"), "cause": message.get("cause") or message.get("state"),
        "since": frame.get("received"), "orders": message.get("orders") or [], "why": why,
    }  # fmt: skip


def _is_unfiled(study: Json, before: datetime) -> bool:
    held = bool(study.get("conflict")) and not study.get("released_by")
    return held or (not study.get("imaging_study") and _at(study.get("last_received")) <= before)


def _study(study: Json) -> Json:
    return {
        "item": f"study-{study.get('id')}", "journal": None, "sender": None, "kind": "images", "state": study.get("state"),
        "cause": "identity conflict" if study.get("conflict") else "images", "since": study.get("last_received"), "orders": [],
        "why": study.get("conflict") or "Received and not in the record yet",
    }  # fmt: skip


def _at(text: object) -> datetime:
    return datetime.fromisoformat(str(text))


async def _get(http: httpx.AsyncClient, room: str, path: str, silent: list[str]) -> Json:
    try:
        answer = await http.get(path, timeout=_TIMEOUT_S)
        if answer.status_code == httpx.codes.OK:
            body: Json = answer.json()
            return body
    except (httpx.HTTPError, ArcuateError, ValueError):
        pass
    silent.append(room)
    return {}
