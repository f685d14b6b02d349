"""ADT^A40, A37, A47: merging, taking a merge back, changing a number (HL7 has no table for them).

A merge: the survivor stands in PID-3, who is merged away in MRG-1. Both records stay; the loser is marked and linked, and searches
follow the link. What comes under the loser's number afterwards is written to the loser's record, so undoing a merge is removing the
link: every number has its own back.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from arcuate.gateway.mapping import pid as pids
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.mapping.model import ContentFault, Mapped, Standing, token, tokens, with_identifiers
from arcuate.gateway.mapping.pid import Person
from arcuate.gateway.profile import Profile
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.hl7v2.message import Message, Segment


def pairs(message: Message) -> list[tuple[Segment, Segment]]:
    """Return each PID with the MRG behind it.

    Raises:
        ContentFault: There is none.
    """
    found: list[tuple[Segment, Segment]] = []
    pid: Segment | None = None
    for segment in message:
        if segment.id == "PID":
            pid = segment
        elif segment.id == "MRG" and pid is not None:
            found.append((pid, segment))
    if not found:
        raise ContentFault("no merge", "A merge needs PID and MRG", "MRG", "100")
    return found


def keys_of(mrg: Segment, profile: Profile, sender: Sender) -> list[Json]:
    """Return the identifiers in MRG-1 (MRG-2, MRG-4 in old messages)."""
    for field in (1, 4, 2):
        _, keys = pids.identifiers([mrg[field]], profile, sender)
        if keys:
            return keys
    return []


def apply(
    pid: Segment, mrg: Segment, profile: Profile, sender: Sender, standing: Standing, received: datetime
) -> Mapped:
    """Return one merge. A repeated one changes nothing.

    Raises:
        ContentFault: Into itself (205), in a circle, or without a number.
    """
    winners, losers = pids.keys_of(pid, profile, sender), keys_of(mrg, profile, sender)
    if not losers:
        raise ContentFault("no patient", "MRG-1 names no patient", "MRG-1", "101")
    if token(winners[0] if winners else {}) == token(losers[0]):
        raise ContentFault("merge into itself", "MRG-1 matches PID-3", "MRG-1", "205")
    survivor = _survivor(pid, winners, losers, profile, sender, standing)
    loser = next((standing.literal[token(key)] for key in losers if token(key) in standing.literal), None)
    if loser is not None and _is_merged_into(loser, survivor, standing):
        return Mapped(survivor.entries, survivor.made, note="The two were merged already")
    gone = _gone(loser, losers, mrg, survivor)
    entry = bundle.update(gone, version_of(loser)) if loser else bundle.create(gone, {"identifier": token(losers[0])})
    marks = {merge_mark(token(losers[0])): received}
    return Mapped(_linked(survivor, entry, loser), [*survivor.made, "patient merged"], marks=marks)


def merge_mark(loser: str) -> str:
    """Return the key under which the time of a merge is kept, by the loser's number."""
    return f"merged|{loser}"


def _survivor(
    pid: Segment, winners: Sequence[Json], losers: Sequence[Json], profile: Profile, sender: Sender, standing: Standing
) -> Person:
    stands = next((standing.literal[token(key)] for key in winners if token(key) in standing.literal), None)
    if stands is not None and stands["id"] in standing.successor:
        target = standing.successor[stands["id"]]
        if any(standing.literal.get(token(key), {}).get("id") == target for key in losers):
            raise ContentFault(
                "circular merge", "The patient in PID-3 was merged into the one in MRG-1 before", "MRG-1", "205"
            )
    return pids.person(pid, profile, sender, standing, registration=True)


def _is_merged_into(loser: Json, survivor: Person, standing: Standing) -> bool:
    into = standing.successor.get(loser["id"])
    return into is not None and survivor.current is not None and into == survivor.current["id"]


def _gone(loser: Json | None, losers: Sequence[Json], mrg: Segment, survivor: Person) -> Json:
    made: Json = {"resourceType": "Patient", **(loser or {})}
    made["identifier"] = with_identifiers(made.get("identifier", []), losers)
    made["active"] = False
    kept = [link for link in made.get("link", []) if link.get("type") != "replaced-by"]
    made["link"] = [*kept, {"other": survivor.reference, "type": "replaced-by"}]
    return made


def _linked(survivor: Person, gone: Entry, loser: Json | None) -> list[Entry]:
    """The survivor names whom it replaces, in the entry that changes it anyway or in one of its own."""
    other = codes.reference("Patient", loser["id"]) if loser else gone.reference
    link = {"other": other, "type": "replaces"}
    if survivor.entry is not None and survivor.entry.resource is not None:
        resource = survivor.entry.resource
        resource["link"] = [*resource.get("link", []), link]
        return [survivor.entry, gone]
    current = survivor.current or {}
    changed = {**current, "link": [*current.get("link", []), link]}
    return [bundle.update(changed, version_of(current)), gone]


def undo(message: Message, profile: Profile, sender: Sender, standing: Standing) -> Mapped:
    """Return the undoing of a merge (A37: two PID, in whichever order). What was never merged stays as it is.

    Raises:
        ContentFault: There are not two patients, or one of them is not known.
    """
    found = [_literal(pid, profile, sender, standing) for pid in message.all("PID")]
    if len(found) != 2:
        raise ContentFault("no merge", "Taking a merge back needs two PID", "PID", "100")
    for loser, survivor in (found, found[::-1]):
        if any(_points_at(link, "replaced-by", survivor) for link in loser.get("link", [])):
            return Mapped(
                [_unlinked(loser, survivor, active=True), _unlinked(survivor, loser)], ["merge taken back"],
                note=_written_since(loser, survivor, standing),
            )  # fmt: skip
    return Mapped(note="The two were not merged", stale=True)


def _literal(pid: Segment, profile: Profile, sender: Sender, standing: Standing) -> Json:
    keys = pids.keys_of(pid, profile, sender)
    found = next((standing.literal[token(key)] for key in keys if token(key) in standing.literal), None)
    if found is None:
        raise ContentFault("unknown patient", "A patient of the merge is not known here", "PID-3", "204")
    return found


def _points_at(link: Json, kind: str, patient: Json) -> bool:
    return link.get("type") == kind and (link.get("other") or {}).get("reference") == f"Patient/{patient['id']}"


def _unlinked(patient: Json, other: Json, *, active: bool | None = None) -> Entry:
    kept = [
        link
        for link in patient.get("link", [])
        if (link.get("other") or {}).get("reference") != f"Patient/{other['id']}"
    ]
    made = {**patient, "link": kept}
    if not kept:
        del made["link"]
    if active is not None:
        made["active"] = active
    return bundle.update(made, version_of(patient))


def _written_since(loser: Json, survivor: Json, standing: Standing) -> str:
    """A person must look at orders that came under the survivor's number while the two were one (row 024)."""
    times = [at for one in tokens(loser) if (at := standing.marks.get(merge_mark(one)))]
    merged = max(times).isoformat(timespec="milliseconds") if times else ""
    mine = [
        one for one in standing.resources.get("ServiceRequest", ())
        if (one.get("subject") or {}).get("reference") == f"Patient/{survivor['id']}" and _changed(one) > merged
    ]  # fmt: skip
    if not mine:
        return ""
    named = ", ".join(filter(None, (codes.accession_of(one) for one in mine))) or str(len(mine))
    return f"Look at the orders that were written for the survivor since the merge: {named}"


def _changed(resource: Json) -> str:
    """Instant of the last change in UTC, comparable as text."""
    text = str((resource.get("meta") or {}).get("lastUpdated", ""))
    return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="milliseconds") if text else ""


def renumber(pid: Segment, mrg: Segment, profile: Profile, sender: Sender, standing: Standing) -> Mapped:
    """Return a change of number (A47): the patient of MRG-1 is known under PID-3 from now on; the old number still finds them.

    Raises:
        ContentFault: Into itself (205), without a number, or the new number is somebody else's.
    """
    new, old = pids.keys_of(pid, profile, sender), keys_of(mrg, profile, sender)
    if not old or not new:
        raise ContentFault("no patient", "MRG-1 or PID-3 names no patient", "MRG-1" if new else "PID-3", "101")
    if token(new[0]) == token(old[0]):
        raise ContentFault("merge into itself", "MRG-1 matches PID-3", "MRG-1", "205")
    current = next((standing.literal[token(key)] for key in old if token(key) in standing.literal), None)
    other = next((standing.literal[token(key)] for key in new if token(key) in standing.literal), None)
    if current is not None and other is not None and current["id"] != other["id"]:
        raise ContentFault(
            "identity conflict",
            "The new number belongs to another patient; a merge is meant, or a person must look",
            "PID-3",
            "204",
        )
    current = current or other
    made = pids.patient(current or {}, pid, profile, sender)
    retired = {token(one) for one in old}
    kept = with_identifiers(made["identifier"], old)
    made["identifier"] = [{**one, "use": "old"} if token(one) in retired else one for one in kept]
    if made == current:
        return Mapped(note="The number was changed already")
    if current is None:
        return Mapped([bundle.create(made, {"identifier": token(new[0])})], ["patient new"])
    return Mapped([bundle.update(made, version_of(current))], ["number changed"])
