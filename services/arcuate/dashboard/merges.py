"""Merged patients: who was merged into whom, and taking a merge back by a person (FAULTS 024).

A merge is a link: the loser says `replaced-by`, the survivor `replaces`. What came under either number was always written to that number's
own record, so taking both links away gives everything back; the same two writes are what an ADT^A37 does.
"""

import asyncio

from arcuate.dashboard import facts
from arcuate.dashboard.domain.frame import Notice, Viewer
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.words import Wording, listed
from arcuate.kernel.codes import accession_of, identifier, job_system, reference
from arcuate.kernel.errors import Conflict, Json, NotFound
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import reference_id


async def merged_into(rooms: Rooms, survivor: Json | None) -> list[Json]:
    """Return the patients that were merged into one: those whom it replaces and who say so themselves."""
    others = _linked(survivor or {}, "replaces")
    read = await asyncio.gather(*(_read(rooms, other) for other in others))
    return [one for one in read if one is not None and survivor and survivor["id"] in _linked(one, "replaced-by")]


async def take_back(rooms: Rooms, viewer: Viewer, words: Wording, loser_id: str, reason: str) -> Notice:
    """Take a merge back; both records change together, or none.

    Args:
        reason: On one line; kept as a Provenance of both.

    Raises:
        Conflict: The two are not merged any more.
        PreconditionFailed: One of them has changed meanwhile.
    """
    loser = await rooms.fhir.read("Patient", loser_id)
    winners = _linked(loser, "replaced-by")
    if not winners:
        raise Conflict("The two are not merged any more", todo="Look at the case again.")
    survivor = await rooms.fhir.read("Patient", winners[0])
    merged = await _merged_at(rooms, loser)
    entries = [
        _unlinked(loser, survivor, active=True),
        _unlinked(survivor, loser),
        bundle.create(_why(loser, survivor, viewer, words, reason)),
    ]
    number = f"unmerge:{loser['id']}:{facts.version(loser)}"
    await rooms.fhir.transaction(bundle.transaction(entries, identifier(job_system("dashboard"), number)))
    since = await _written_since(rooms, survivor, merged)
    look = (
        f"Look at what was ordered for the other number since the merge: {listed(since)}."
        if since
        else "Nothing was ordered for the other number since the merge."
    )
    return Notice("The merge is taken back.", f"Each number has its own orders, images and reports again. {look}")


def _linked(patient: Json, kind: str) -> list[str]:
    links = [link for link in patient.get("link") or [] if link.get("type") == kind]
    return [other for link in links if (other := reference_id(link.get("other"), "Patient"))]


async def _read(rooms: Rooms, patient_id: str) -> Json | None:
    try:
        return await rooms.fhir.read("Patient", patient_id)
    except NotFound:
        return None


def _unlinked(patient: Json, other: Json, *, active: bool = False) -> bundle.Entry:
    kept = [link for link in patient.get("link") or [] if reference_id(link.get("other"), "Patient") != other["id"]]
    made = {k: v for k, v in patient.items() if k != "link"} | ({"link": kept} if kept else {})
    return bundle.update(made | ({"active": True} if active else {}), facts.version(patient))


def _why(loser: Json, survivor: Json, viewer: Viewer, words: Wording, reason: str) -> Json:
    return {
        "resourceType": "Provenance", "recorded": words.now.isoformat(timespec="seconds"),
        "target": [reference("Patient", loser["id"]), reference("Patient", survivor["id"])],
        "activity": {"text": "merge taken back"}, "reason": [{"text": reason}], "agent": [{"who": {"display": viewer.name}}],
    }  # fmt: skip


async def _merged_at(rooms: Rooms, loser: Json) -> str:
    """Return when the loser was merged, as the record's history tells; its last change where that is not told."""
    history = await rooms.get(f"/fhir/Patient/{loser['id']}/_history", {"_count": 100})
    merged = [
        one
        for one in bundle.of_type(history, "Patient")
        if _linked(one, "replaced-by") == _linked(loser, "replaced-by")
    ]
    return min((str(one["meta"]["lastUpdated"]) for one in merged), default=str(loser["meta"]["lastUpdated"]))


async def _written_since(rooms: Rooms, survivor: Json, merged: str) -> list[str]:
    """Return the accession numbers of orders that came under the survivor's own number while the two were one."""
    orders = await rooms.fhir.search("ServiceRequest", {"patient": f"Patient/{survivor['id']}"})
    mine = [
        one for one in orders
        if reference_id(one.get("subject"), "Patient") == survivor["id"] and str(one["meta"]["lastUpdated"]) > merged
    ]  # fmt: skip
    return [accession_of(one) or f"order {one['id']}" for one in mine]
