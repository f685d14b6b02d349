"""FHIR types: what is refused, and which element is named."""

import random
from typing import Any

import pytest

from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir import shapes, types

PATIENT: dict[str, Any] = {"resourceType": "Patient"}


def where(resource: dict[str, Any], **more: Any) -> tuple[str, str]:
    with pytest.raises(BadInput) as refused:
        types.validate(resource, **more)
    return refused.value.where, refused.value.code


@pytest.mark.parametrize("by_package", [False, True])
@pytest.mark.parametrize(
    ("resource", "expression", "code"),
    [
        ({}, "Resource.resourceType", "structure"),
        ({"resourceType": "Unicorn"}, "Unicorn.resourceType", "structure"),
        ({"resourceType": "HumanName"}, "HumanName.resourceType", "structure"),
        ({"resourceType": "Resource"}, "Resource.resourceType", "structure"),
        ({**PATIENT, "id": "x" * 65}, "Patient.id", "value"),
        ({**PATIENT, "id": "a b"}, "Patient.id", "value"),
        ({**PATIENT, "name": {"family": "A"}}, "Patient.name", "structure"),
        ({**PATIENT, "name": [{"family": ["A"]}]}, "Patient.name[0].family", "structure"),
        ({**PATIENT, "name": [{"fam ily": "A"}]}, "Patient.name[0].fam?ily", "structure"),
        ({**PATIENT, "name": [{"use": "nick"}]}, "Patient.name[0].use", "code-invalid"),
        ({**PATIENT, "birthDate": "17.3.1980"}, "Patient.birthDate", "value"),
        ({**PATIENT, "deceasedBoolean": True, "deceasedDateTime": "2020"}, "Patient.deceased", "structure"),
        ({**PATIENT, "photo": [{"data": "%%%"}]}, "Patient.photo[0].data", "value"),
        ({**PATIENT, "contained": [{"resourceType": "Patient", "gender": "F"}]}, "Patient.contained[0].gender", "code-invalid"),
        ({**PATIENT, "contained": ["x"]}, "Patient.contained[0]", "structure"),
        ({**PATIENT, "communication": [{"preferred": True}]}, "Patient.communication[0].language", "required"),
        ({**PATIENT, "managingOrganization": {"reference": "Patient/1"}}, "Patient.managingOrganization.reference", "value"),
        ({**PATIENT, "fhir_comments": "x"}, "Patient.fhir_comments", "structure"),
        ({"resourceType": "Observation", "code": {"text": "x"}}, "Observation.status", "required"),
        ({"resourceType": "Slot", "status": "free", "schedule": {"reference": "Schedule/1"}, "start": "2026-03-17T09:00", "end": "x"},
         "Slot.start", "value"),
        ({"resourceType": "ImagingStudy", "status": "available", "subject": {"reference": "#p"},
          "contained": [{"resourceType": "Location", "id": "p"}]}, "ImagingStudy.subject.reference", "value"),
    ],
)  # fmt: skip
def test_a_fault_names_its_element(resource: dict[str, Any], expression: str, code: str, by_package: bool) -> None:
    assert where(resource, by_package=by_package) == (expression, code)


def test_the_place_in_a_bundle_is_part_of_the_expression() -> None:
    assert where({**PATIENT, "gender": "F"}, path="Bundle.entry[3].resource") == (
        "Bundle.entry[3].resource.gender",
        "code-invalid",
    )


def test_an_error_tells_no_value() -> None:
    with pytest.raises(BadInput) as refused:
        types.validate({**PATIENT, "birthDate": "Anna Muster 1980", "gender": "female"})

    assert "Muster" not in str(refused.value)


def test_null_stands_only_beside_its_companion() -> None:
    extension = [{"url": "http://example.org/x", "valueString": "y"}]
    types.validate({**PATIENT, "name": [{"given": ["Anna", None], "_given": [None, {"extension": extension}]}]})
    types.validate(
        {"resourceType": "Observation", "_status": {"extension": extension}, "code": {"text": "x"}}, by_package=False
    )

    assert where({**PATIENT, "name": [None]}) == ("Patient.name[0]", "structure")


def test_random_damage_that_the_package_sees_is_seen_before_it() -> None:
    """The quick checks stand alone for the house's own rooms, so they must refuse whatever the package refuses."""
    whole: dict[str, Any] = {
        "resourceType": "Appointment", "id": "a", "status": "booked", "start": "2026-03-17T09:00:00Z", "end": "2026-03-17T09:30:00Z",
        "minutesDuration": 30, "priority": 1, "created": "2026-03-01", "identifier": [{"system": "urn:x", "value": "1", "use": "usual"}],
        "reasonCode": [{"text": "pain", "coding": [{"system": "urn:x", "code": "p", "userSelected": False}]}],
        "basedOn": [{"reference": "ServiceRequest/1"}], "supportingInformation": [{"reference": "#o"}],
        "participant": [{"actor": {"reference": "Patient/1"}, "status": "accepted", "period": {"start": "2026-03-17"}}],
        "extension": [{"url": "http://example.org/x", "valueDecimal": 1.5}],
        "contained": [{"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}, "valueInteger": 3}],
    }  # fmt: skip
    types.validate(whole)
    chance = random.Random(7)
    seen = 0
    for _ in range(1500):
        damaged = _damaged(whole, chance)
        try:
            shapes.model_of("Appointment").model_validate(damaged)
        except Exception:  # noqa: BLE001 - whatever the package says, it refuses
            seen += 1
            with pytest.raises(BadInput):
                types.validate(damaged, by_package=False)
    assert seen > 500


def _damaged(value: Any, chance: random.Random) -> Any:
    """Return a copy with one place deleted, renamed or replaced."""
    holders = list(_holders(value))
    target, name = chance.choice([(holder, name) for holder in holders for name in holder])
    change = chance.choice(["delete", "rename", 7, "x y  z", [], {}, True, "2020-02-30", 1.5, "", None])

    def rebuilt(inner: Any) -> Any:
        if isinstance(inner, list):
            return [rebuilt(one) for one in inner]
        if not isinstance(inner, dict):
            return inner
        made = {}
        for key, one in inner.items():
            if inner is target and key == name and key != "resourceType":
                if change == "rename":
                    made[f"{key}x"] = one
                elif change != "delete":
                    made[key] = change
            else:
                made[key] = rebuilt(one)
        return made

    return rebuilt(value)


def _holders(value: Any) -> Any:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _holders(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _holders(inner)
