"""What is past: messages and resources of before the start, marked, so that they are read and learned from and move nothing.

A frame of the past stands in the journal under the peer `history`; what it becomes carries `meta.tag` (`kernel.codes.HISTORY_TAG`), at
which journey, the sending and the live line pass by. What live traffic has written is never changed by the past. A live message that
names an order, a booking or a report of the past makes it a live one again.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from arcuate.gateway.mapping.model import Mapped, Standing, tokens
from arcuate.gateway.mapping.plan import Needs
from arcuate.gateway.tables import Frame
from arcuate.kernel.codes import CS_HISTORY, EXT_CHANGED, HISTORY_TAG, is_history
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.fhir.client import version_of

PEER = "history"
SENDER = "history|"
CAUSE = "history: "
_MOVING = ("ServiceRequest", "Appointment", "Procedure", "DiagnosticReport")
NEWER = "What stands there is newer than the past and was left as it is"


def of_frame(frame: Frame) -> bool:
    """Say whether a journal row is of the past."""
    return frame.peer == PEER


def source_of(frame: Frame) -> str:
    """Return what the server or table is called here that a resource of the past came from."""
    return frame.sender.removeprefix(SENDER)


def marked(resource: Json, changed: datetime | None = None) -> Json:
    """Return a resource with the mark of the past; `changed` is when its own system had last changed it."""
    meta = resource.get("meta") or {}
    made = {**resource, "meta": {**meta, "tag": [*_other_tags(meta), HISTORY_TAG]}}
    if changed is not None and resource.get("resourceType") == "Appointment":
        said = {"url": EXT_CHANGED, "valueInstant": changed.isoformat()}
        made["extension"] = [*_other_extensions(resource), said]
    return made


def unmarked(resource: Json) -> Json:
    """Return a resource without that mark."""
    if not is_history(resource):
        return resource
    made = {**resource, "meta": {**resource["meta"], "tag": _other_tags(resource["meta"])}}
    if not made["meta"]["tag"]:
        del made["meta"]["tag"]
    if "extension" in made:
        made["extension"] = _other_extensions(made)
        if not made["extension"]:
            del made["extension"]
    return made


def _other_tags(meta: Json) -> list[Json]:
    return [one for one in meta.get("tag") or [] if one.get("system") != CS_HISTORY]


def _other_extensions(resource: Json) -> list[Json]:
    return [one for one in resource.get("extension") or [] if one.get("url") != EXT_CHANGED]


def past(mapped: Mapped, standing: Standing, at: datetime) -> Mapped:
    """Return what a message of the past becomes: what live traffic has written stays as it is, all else is marked.

    Args:
        at: When the message was sent.
    """
    live = [entry for entry in mapped.entries if _touches_live(entry, standing)]
    kept = [entry for entry in mapped.entries if entry not in live]
    if any(entry.url.split("/")[0] in _MOVING for entry in live):
        # The values of a report that stands anew already belong to it, whatever they are called.
        kept = [entry for entry in kept if not (entry.method == "PUT" and "?" in entry.url)]
    entries = [
        entry if entry.resource is None else replace(entry, resource=marked(entry.resource, at)) for entry in kept
    ]
    note = "; ".join(part for part in (mapped.note, NEWER if live else "") if part)
    return replace(mapped, entries=entries, note=note, stale=mapped.stale or (bool(live) and not entries))


def _touches_live(entry: Entry, standing: Standing) -> bool:
    if entry.method == "DELETE":
        kind, _, logical_id = entry.url.partition("/")
        stands = next((one for one in standing.resources.get(kind, ()) if one["id"] == logical_id), None)
        return not is_history(stands)
    return entry.method == "PUT" and "?" not in entry.url and not is_history(entry.resource)


def alive(mapped: Mapped, standing: Standing, needs: Needs) -> Mapped:
    """Return what a live message becomes: what it names is live from now on."""
    entries = [
        entry if entry.resource is None else replace(entry, resource=unmarked(entry.resource))
        for entry in mapped.entries
    ]
    if not mapped.stale:
        changed = {entry.url for entry in entries}
        entries += [
            bundle.update(unmarked(one), version_of(one)) for one in _named(standing, needs) if f"{one['resourceType']}/{one['id']}" not in changed
        ]  # fmt: skip
    return replace(mapped, entries=entries)


def _named(standing: Standing, needs: Needs) -> Iterator[Json]:
    """The orders, bookings and reports of the past that a message names by their numbers."""
    for kind in _MOVING:
        wanted = set(needs.others.get(kind, ()))
        yield from (one for one in standing.resources.get(kind, ()) if is_history(one) and wanted & set(tokens(one)))
