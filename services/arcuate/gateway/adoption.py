"""The same number from another sender: one hospital's systems rarely name the assigner of a patient's number.

A number without an assigner is its sender's own (`from.MSH-3.MSH-4`), so that the counters of two systems never mix. But most often
it is one hospital's number, spoken by its RIS, its dictation and its registration alike. A number that is not known yet is taken for
one that is, when the value is equal, at least one of the two names no assigner, and something else says that it is the same person:
an order of theirs that the message names, name and birth date, or (for the number that a merge ends) the number space of the survivor.
What is neither certain nor contradicted becomes a patient of its own, as before.
"""

from collections.abc import Callable, Collection, Mapping

from arcuate.gateway.mapping import pid
from arcuate.gateway.mapping.model import tokens
from arcuate.gateway.mapping.plan import Named
from arcuate.kernel import codes
from arcuate.kernel.errors import Json

_ASSUMED = codes.patient_system("from.")
_NUMBERS = codes.patient_system("")


def same(
    named: Named, candidates: Mapping[str, Collection[Json]], known: Mapping[str, Json], subjects: Collection[str],
    who_counts: Callable[[Json], Json],
) -> dict[str, Json]:  # fmt: skip
    """Return, by token, the patients who carry an unknown number of this message under another assigner.

    Args:
        named: The patient of the message.
        candidates: By token, patients with a number of the same value.
        known: By token, patients who are known already.
        subjects: Ids of the patients of the orders, bookings and reports that the message names.
        who_counts: Follows merges.
    """
    if any(one in known for one in named.tokens):
        return {}
    stated = named.stated()
    spaces = {_system(one) for number in named.beside if number in known for one in tokens(known[number])}
    found: dict[str, Json] = {}
    for number in named.tokens:
        fitting = [
            one
            for one in candidates.get(number, ())
            if (shared := _shared(number, one))
            and (_named_by_order(one, stated, subjects, who_counts) or pid.agrees(one, stated) or shared & spaces)
        ]
        if fitting and len({who_counts(one)["id"] for one in fitting}) == 1:
            found[number] = next((one for one in fitting if not _is_merged(one)), fitting[0])
    return found


def value_of(number: str) -> str:
    """Return the value in a token."""
    return number.split("|", 1)[1]


def _named_by_order(patient: Json, stated: Json, subjects: Collection[str], who_counts: Callable[[Json], Json]) -> bool:
    return (patient["id"] in subjects or who_counts(patient)["id"] in subjects) and not pid.differs(patient, stated)


def _shared(number: str, patient: Json) -> set[str]:
    """Systems under which the patient carries the value; a stated assigner is compared with assumed ones alone."""
    assumed = _system(number).startswith(_ASSUMED)
    found = {
        str(one.get("system", "")) for one in patient.get("identifier", []) if one.get("value") == value_of(number)
    }
    return {one for one in found if _is_patient_number(one) and (assumed or one.startswith(_ASSUMED))}


def _is_patient_number(system: str) -> bool:
    """Account and visit numbers stand under the assigner's system with their type behind it."""
    return system.startswith("urn:oid:") or (system.startswith(_NUMBERS) and ":" not in system.removeprefix(_NUMBERS))


def _is_merged(patient: Json) -> bool:
    return any(link.get("type") == "replaced-by" for link in patient.get("link", []))


def _system(number: str) -> str:
    return number.split("|", 1)[0]
