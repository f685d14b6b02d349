"""Observations to the values of a template: unit and side checked, the newest taken, what is missing with its reason. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from arcuate.kernel.codes import CS_SNOMED, CS_STRUCTURE, Json
from arcuate.kernel.fhir.bundle import of_type
from arcuate.reporting.comparisons import comparisons_of
from arcuate.reporting.domain import Field, Measured, Missing, Values
from arcuate.reporting.passport import CORRECTED, Card, passport_of, rejection_of
from arcuate.reporting.wording import one_line

_GONE = frozenset({"cancelled", "entered-in-error"})
_SIDES = {"7771000": "left", "24028007": "right", "51440002": "bilateral"}
_MILLILITRES = {
    "mL": Decimal(1),
    "ml": Decimal(1),
    "cm3": Decimal(1),
    "mm3": Decimal("0.001"),
    "uL": Decimal("0.001"),
    "L": Decimal(1000),
    "l": Decimal(1000),
    "dm3": Decimal(1000),
}


def structures_of(request: Json) -> frozenset[str]:
    """Return the codes of all structures for which a value was measured."""
    return frozenset(structure_of(o) for o in current(request) if "valueQuantity" in o) - {""}


def current(request: Json) -> list[Json]:
    """Return the Observations of this order's studies that were not taken back."""
    return [o for o in _of_this_order(request) if o.get("status") not in _GONE]


def _of_this_order(request: Json) -> list[Json]:
    order = next(iter(of_type(request, "ServiceRequest")), {})
    studies = {f"ImagingStudy/{s['id']}" for s in of_type(request, "ImagingStudy") if s.get("id")}
    return [o for o in of_type(request, "Observation") if _is_of(o, order, studies)]


def _is_of(observation: Json, order: Json, studies: set[str]) -> bool:
    """A value of another order, or of a study that is not of this order, is never taken."""
    based = {_reference(r) for r in observation.get("basedOn") or []}
    if based and order.get("id") and f"ServiceRequest/{order['id']}" not in based:
        return False
    derived = {r for r in map(_reference, observation.get("derivedFrom") or []) if r.startswith("ImagingStudy/")}
    return not (derived and studies) or bool(derived & studies)


def _reference(value: Any) -> str:
    return str(value.get("reference") or "").split("/_history/")[0] if isinstance(value, dict) else ""


def structure_of(observation: Json) -> str:
    """Return the structure's code in `urn:arcuate:cs:structure`, or nothing."""
    return next((str(c.get("code")) for c in _codings(observation.get("code")) if c.get("system") == CS_STRUCTURE), "")


def side_of(observation: Json) -> str | None:
    """Return the side by code (`bodySite`, DICOM CID 244); None when code and words contradict each other."""
    coded = {
        _SIDES[str(c.get("code"))]
        for c in _codings(observation.get("bodySite"))
        if c.get("system") == CS_SNOMED and str(c.get("code")) in _SIDES
    }
    texts = (str((observation.get(name) or {}).get("text") or "").lower().split() for name in ("bodySite", "code"))
    said = {word for text in texts for word in text if word in {"left", "right"}}
    if len(coded) > 1 or len(said) > 1 or (coded and said and not coded & said):
        return None
    return next(iter(coded or said), "")


def _codings(concept: Any) -> list[Json]:
    return [c for c in (concept or {}).get("coding") or [] if isinstance(c, dict)] if isinstance(concept, dict) else []


def values_of(fields: Sequence[Field], request: Json, cards: Sequence[Card]) -> Values:
    """Return what stands for each field of a template.

    Args:
        fields: The template's fields in their order.
        cards: Cards of this house's models, for the passports.
    """
    observations = current(request)
    devices = {f"Device/{d['id']}": d for d in of_type(request, "Device") if d.get("id")}
    found: dict[tuple[str, str], list[Json]] = {}
    contradictory: set[str] = set()
    for observation in observations:
        structure, side = structure_of(observation), side_of(observation)
        if structure and "valueQuantity" in observation:
            if side is None:
                contradictory.add(structure)
            else:
                found.setdefault((structure, "" if side == "bilateral" else side), []).append(observation)
    refusal, rejected = _refusal(observations, request), _rejected(request)
    measured: list[Measured] = []
    missing: list[Missing] = []
    for field in fields:
        candidates = found.pop((field.structure, field.side), [])
        made = _measured(field, _newest(candidates), devices, cards) if candidates else None
        if isinstance(made, Measured):
            measured.append(made)
        else:
            reason = made or (
                "its side contradicts itself in the source"
                if field.structure in contradictory
                else rejected.get((field.structure, field.side), refusal)
            )
            missing.append(Missing(field, reason))
    results = tuple(_source(o).split("/_history/")[0] for o in observations if o.get("id") and structure_of(o))
    touched = {s for s, _ in rejected} | {structure_of(o) for o in observations if o.get("status") in CORRECTED}
    compared = comparisons_of(observations, frozenset(touched), structure_of)
    further = sum(map(len, found.values()))
    return Values(tuple(measured), tuple(missing), further, tuple(dict.fromkeys(results)), compared)


def _rejected(request: Json) -> dict[tuple[str, str], str]:
    """Return by structure and side why a person has rejected a value of this order's studies."""
    return {
        (structure_of(o), "" if (side := side_of(o)) == "bilateral" else side or ""): rejection_of(o)
        for o in _of_this_order(request)
        if o.get("status") == "entered-in-error" and structure_of(o)
    }


def _newest(candidates: Iterable[Json]) -> Json:
    """Of several values for the same structure and side, the one stated last."""
    return max(
        candidates,
        key=lambda o: (
            str(o.get("issued") or ""),
            str((o.get("meta") or {}).get("lastUpdated") or ""),
            str(o.get("id") or ""),
        ),
    )


def _measured(field: Field, observation: Json, devices: Mapping[str, Json], cards: Sequence[Card]) -> Measured | str:
    """Return the value in the field's unit, or why it cannot be shown."""
    quantity = observation.get("valueQuantity") or {}
    unit = str(quantity.get("code") or quantity.get("unit") or "")
    try:
        amount = Decimal(str(quantity.get("value")))
    except InvalidOperation:
        return "the source states no number"
    if not amount.is_finite() or amount < 0 or (quantity.get("comparator")):
        return "the source states no plain number"
    if unit != field.unit:
        if unit not in _MILLILITRES or field.unit not in _MILLILITRES:
            return f"its unit '{one_line(unit, 20)}' is not known" if unit else "the source states no unit"
        amount = amount * _MILLILITRES[unit] / _MILLILITRES[field.unit]
    low, high = field.plausible
    doubt = "" if low <= amount <= high else f"outside {low} to {high} {field.unit}: check unit and images"
    return Measured(field, amount, _source(observation), passport_of(observation, devices, cards), doubt)


def _source(observation: Json) -> str:
    if not observation.get("id"):
        return ""
    version = (observation.get("meta") or {}).get("versionId")
    return f"Observation/{observation['id']}" + (f"/_history/{version}" if version else "")


def _refusal(observations: Sequence[Json], request: Json) -> str:
    """Return why values are missing: the refusal's own words, no images, or not measured yet."""
    for observation in observations:
        if structure_of(observation) and "dataAbsentReason" in observation:
            notes = [one_line(str(n.get("text")), 300) for n in observation.get("note") or [] if n.get("text")]
            return " ".join(notes).rstrip(".") or one_line(
                str((observation["dataAbsentReason"] or {}).get("text") or "no reason stated")
            )
    if any("valueQuantity" in o and structure_of(o) for o in observations):
        return "not among the values of this measurement"
    return "images are here, no measurement yet" if of_type(request, "ImagingStudy") else "no images have come"
