"""ADT^A40: MRG to Patient.link (HL7 has no table for it). The survivor stands in PID-3, who is merged away in MRG-1.

Both records stay; the loser is marked and linked, and searches follow the link. Undoing it is removing the link.
"""

from collections.abc import Sequence

from arcuate.gateway.mapping import pid as pids
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.mapping.model import ContentFault, Mapped, Standing, token, with_identifiers
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


def apply(pid: Segment, mrg: Segment, profile: Profile, sender: Sender, standing: Standing) -> Mapped:
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
    return Mapped(_linked(survivor, entry, loser), [*survivor.made, "patient merged"])


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
