"""Invariants of FHIR R4: a resource that breaks one is refused, and the error names the rule and the element."""

from typing import Any

import pytest

from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir import types
from arcuate.kernel.fhir.contained import broken_narrative

WHO = [{"actor": {"reference": "Patient/1"}, "status": "accepted"}]
TIMES = {"start": "2026-03-17T09:00:00Z", "end": "2026-03-17T09:30:00Z"}
BOOKED: dict[str, Any] = {"resourceType": "Appointment", "status": "booked", "participant": WHO, **TIMES}
SEEN: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "s:x", "code": "1"}]},
}
ORDER: dict[str, Any] = {
    "resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": {"reference": "Patient/1"},
}  # fmt: skip
ALLERGY: dict[str, Any] = {"resourceType": "AllergyIntolerance", "patient": {"reference": "Patient/1"}}
PATIENT: dict[str, Any] = {"resourceType": "Patient"}
TEXT = '<div xmlns="http://www.w3.org/1999/xhtml">%s</div>'


def without(resource: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name not in names}


@pytest.mark.parametrize(
    ("resource", "rule", "element"),
    [
        (without(BOOKED, "end"), "app-3", "Appointment.start"),
        ({**without(BOOKED, "end"), "status": "proposed"}, "app-2", "Appointment.end"),
        ({**BOOKED, "cancelationReason": {"text": "ill"}}, "app-4", "Appointment.cancelationReason"),
        ({**BOOKED, "participant": [{"status": "accepted"}]}, "app-1", "Appointment.participant[0]"),
        ({**BOOKED, "end": "2026-03-17T09:30:00+02:00"}, "arcuate-end-after-start", "Appointment.end"),
        ({**SEEN, "valueInteger": 1, "dataAbsentReason": {"text": "x"}}, "obs-6", "Observation.dataAbsentReason"),
        ({**SEEN, "valueInteger": 1, "component": [{"code": SEEN["code"]}]}, "obs-7", "Observation.component[0].code"),
        ({**SEEN, "referenceRange": [{"age": {"low": {"value": 1}}}]}, "obs-3", "Observation.referenceRange[0]"),
        ({**SEEN, "valueQuantity": {"value": 1, "code": "mL"}}, "qty-3", "Observation.valueQuantity.system"),
        ({**SEEN, "valueRange": {"low": {"value": 2}, "high": {"value": 1}}}, "rng-2", "Observation.valueRange.high.value"),
        ({**SEEN, "valueRatio": {"numerator": {"value": 1}}}, "rat-1", "Observation.valueRatio"),
        ({**SEEN, "effectivePeriod": {"start": "2026-03-17", "end": "2026-03-16"}}, "per-1", "Observation.effectivePeriod.end"),
        ({**ORDER, "orderDetail": [{"text": "x"}]}, "prr-1", "ServiceRequest.code"),
        ({**ORDER, "occurrenceTiming": {"repeat": {"duration": 1}}}, "tim-1", "ServiceRequest.occurrenceTiming.repeat.durationUnit"),
        ({**ALLERGY}, "ait-1", "AllergyIntolerance.clinicalStatus"),
        ({**PATIENT, "contact": [{"gender": "male"}]}, "pat-1", "Patient.contact[0]"),
        ({**PATIENT, "telecom": [{"value": "1"}]}, "cpt-2", "Patient.telecom[0].system"),
        ({**PATIENT, "photo": [{"data": "AA=="}]}, "att-1", "Patient.photo[0].contentType"),
        ({**PATIENT, "extension": [{"url": "http://e.org"}]}, "ext-1", "Patient.extension[0]"),
        ({**PATIENT, "identifier": [{"system": "urn:dicom:uid", "value": "1.2"}]}, "arcuate-uid", "Patient.identifier[0].value"),
        ({**PATIENT, "generalPractitioner": [{"reference": "#gp"}]}, "ref-1", "Patient.generalPractitioner[0].reference"),
        ({**PATIENT, "contained": [{"resourceType": "Organization", "name": "x", "id": "o"}]}, "dom-3", "Patient.contained[0].id"),
        ({**PATIENT, "managingOrganization": {"reference": "#o"},
          "contained": [{"resourceType": "Organization", "id": "o"}]}, "org-1", "Patient.contained[0]"),
        ({"resourceType": "Organization", "name": "x", "telecom": [{"system": "phone", "value": "1", "use": "home"}]}, "org-3",
         "Organization.telecom[0].use"),
        ({**PATIENT, "text": {"status": "generated", "div": TEXT % "<script>1</script>"}}, "txt-1", "Patient.text.div"),
        ({"resourceType": "Task", "status": "ready", "intent": "order", "authoredOn": "2026-03-17T09:00:00Z",
          "lastModified": "2026-03-17T08:00:00Z"}, "inv-1", "Task.lastModified"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named_with_its_element(resource: dict[str, Any], rule: str, element: str) -> None:
    for by_package in (False, True):
        with pytest.raises(BadInput) as refused:
            types.validate(resource, by_package=by_package)
        assert (refused.value.where, refused.value.code) == (element, "invariant")
        assert f"Invariant {rule}:" in refused.value.what


@pytest.mark.parametrize(
    "resource",
    [
        BOOKED, {**without(BOOKED, "start", "end"), "status": "waitlist"},
        {**BOOKED, "status": "noshow", "cancelationReason": {"text": "x"}},
        {**SEEN, "_valueInteger": {"extension": [{"url": "http://e.org", "valueCode": "x"}]}},
        {**SEEN, "effectivePeriod": {"start": "2026-03", "end": "2026-03-01"}},
        {**ALLERGY, "clinicalStatus": {"coding": [
            {"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]}},
        {**PATIENT, "managingOrganization": {"reference": "#o"},
         "contained": [{"resourceType": "Organization", "id": "o", "name": "x", "partOf": {"reference": "#"}}]},
    ],
)  # fmt: skip
def test_what_keeps_the_rules_passes(resource: dict[str, Any]) -> None:
    types.validate(resource)


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>", '<a href="javascript:alert(1)">x</a>', '<p onclick="x()">x</p>', "<p>x", "<form>x</form>", " ",
        '<img src="x" onerror="y"/>', '<a href=" java&#x73;cript:x">x</a>', '<p xmlns="urn:other">x</p>', "<iframe/>x", "<style>x</style>",
    ],
)  # fmt: skip
def test_f069_a_narrative_holds_formatting_and_nothing_else(inside: str) -> None:
    assert broken_narrative(TEXT % inside) is not None


def test_f083_a_narrative_with_declarations_is_refused_before_it_is_read() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + TEXT % "&b;"

    assert broken_narrative(bomb) is not None
    assert broken_narrative(TEXT % "&b;") is not None
    assert broken_narrative(TEXT % "a&nbsp;b <b>bold</b> <!-- note -->") is None
