"""What is sent to an endpoint and answered to `$status` and `$events`: Bundles around a SubscriptionStatus (as R4 Parameters)."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import strict
from arcuate.record.domain import etag, instant
from arcuate.record.indexing import datetime_of
from arcuate.record.store import Version
from arcuate.record.subscriptions.wishes import EXTENSIONS

PROFILE = f"{EXTENSIONS}/backport-subscription-status-r4"

_NOT_SENT = ("handshake", "heartbeat")


@dataclass(frozen=True)
class Event:
    """One event of a Subscription: its number, and the version that made it."""

    number: int
    version: Version


@dataclass(frozen=True)
class Said:
    """How a Subscription stands when something is said about it."""

    id: str
    topic: str
    status: str
    events: int
    reason: str | None = None


def notification(base: str, said: Said, kind: str, events: Sequence[Event] = (), content: str = "empty") -> Json:
    """Return the Bundle of a notification; `kind` is handshake, heartbeat, event-notification or query-event."""
    place = f"{base}/Subscription/{said.id}"
    head = {
        "fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": status(base, said, kind, events, with_focus=content != "empty"),
        "request": {"method": "GET", "url": f"{place}/$status"}, "response": {"status": "200"},
    }  # fmt: skip
    entries = [] if content == "empty" else [_entry(base, event, full=content == "full-resource") for event in events]
    return {"resourceType": "Bundle", "type": "history", "entry": [head, *entries]}


def searchset(base: str, resources: Sequence[Json]) -> Json:
    """Return the Bundle of `$status`."""
    made: Json = {"resourceType": "Bundle", "type": "searchset", "total": len(resources)}
    if resources:
        made["entry"] = [
            {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": one, "search": {"mode": "match"}} for one in resources
        ]
    return made


def status(base: str, said: Said, kind: str, events: Sequence[Event] = (), *, with_focus: bool = True) -> Json:
    """Return a SubscriptionStatus."""
    listed: list[Json] = [
        {"name": "subscription", "valueReference": {"reference": f"{base}/Subscription/{said.id}"}},
        {"name": "topic", "valueCanonical": said.topic},
        {"name": "status", "valueCode": said.status},
        {"name": "type", "valueCode": kind},
    ]
    if kind not in _NOT_SENT or kind == "heartbeat":
        listed.append({"name": "events-since-subscription-start", "valueString": str(said.events)})
    listed += [_event(base, event, with_focus=with_focus) for event in events]
    if said.reason:
        listed.append({"name": "error", "valueCodeableConcept": {"text": said.reason}})
    return {"resourceType": "Parameters", "id": str(uuid.uuid4()), "meta": {"profile": [PROFILE]}, "parameter": listed}


def _event(base: str, event: Event, *, with_focus: bool) -> Json:
    parts: list[Json] = [
        {"name": "event-number", "valueString": str(event.number)},
        {"name": "timestamp", "valueInstant": instant(datetime_of(event.version.updated))},
    ]
    if with_focus:
        place = f"{base}/{event.version.resource_type}/{event.version.id}"
        parts.append({"name": "focus", "valueReference": {"reference": place}})
    return {"name": "notification-event", "part": parts}


def _entry(base: str, event: Event, *, full: bool) -> Json:
    version = event.version
    place = f"{version.resource_type}/{version.id}"
    state = "204" if version.body is None else "201" if version.version == 1 else "200"
    made: Json = {
        "fullUrl": f"{base}/{place}",
        "request": {"method": version.method, "url": version.resource_type if version.method == "POST" else place},
        "response": {
            "status": state,
            "etag": etag(version.version),
            "lastModified": instant(datetime_of(version.updated)),
        },
    }
    if full and version.body is not None:
        made["resource"] = strict.loads(version.body.encode(), strict.HOUSE)
    return made
