"""`ServiceRequest/$check`: flags as DetectedIssue, the protocol in the order's detail, real orders with local codes."""

import copy
from types import ModuleType
from typing import Any

import pytest

from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.fhir import types
from arcuate.protocoling import store

Json = dict[str, Any]
CHECK = "/protocoling/ServiceRequest/$check"


@pytest.fixture
def bundle_of(made: ModuleType, clock: ManualClock) -> Any:
    return lambda vignette: made.bundle_of(vignette, clock.now())


def of(resources: list[Json], kind: str) -> list[Json]:
    return [r for r in resources if r["resourceType"] == kind]


async def test_a_flag_is_a_detected_issue_with_its_fix_and_its_evidence(door: Any, plain: Json, bundle_of: Any) -> None:
    plain.update(ordered={"code": "CTAN", "display": "CT angiography neck"}, indication="carotid stenosis", icd10cm=[])
    plain["labs"] = [{"loinc": "98979-8", "value": 19, "unit": "mL/min/{1.73_m2}", "days_ago": 8}]
    answered = await door.check(bundle_of(plain))

    issue = of(answered, "DetectedIssue")[0]
    assert issue["code"]["coding"][0] == {
        "system": "urn:arcuate:cs:flag", "code": "contrast_renal", "display": "Contrast and kidneys"
    }  # fmt: skip
    assert issue["severity"] == "high"
    assert issue["implicated"] == [{"reference": "ServiceRequest/draft-1"}]
    assert issue["evidence"][0]["detail"] == [{"reference": "Observation/o0"}]
    assert "8 days old" in issue["evidence"][0]["code"][0]["text"]
    assert issue["mitigation"][0]["action"]["text"]
    order = of(answered, "ServiceRequest")[0]
    assert order["orderDetail"][0]["coding"][0]["code"] == "HOLD"
    for resource in answered:
        types.validate(resource)


async def test_the_same_check_again_gives_the_same_identifiers(door: Any, plain: Json, bundle_of: Any) -> None:
    plain["devices"] = [{"text": "Pacemaker", "snomed": "14106009"}]
    first, second = await door.check(bundle_of(plain)), await door.check(bundle_of(plain))
    assert [i["identifier"] for i in of(first, "DetectedIssue")] == [
        i["identifier"] for i in of(second, "DetectedIssue")
    ]
    rows = await door.database.read(lambda s: store.decisions_of(s, "ServiceRequest/draft-1"))
    assert len(rows) == 2


async def test_the_order_itself_and_its_own_booking_are_no_duplicates(
    door: Any, plain: Json, bundle_of: Any, clock: ManualClock
) -> None:
    asked = bundle_of(plain)
    order = asked["entry"][0]["resource"]
    order["authoredOn"] = "2026-03-16T09:00:00Z"
    asked["entry"].append({"resource": copy.deepcopy(order)})
    asked["entry"].append({"resource": {
        "resourceType": "Appointment", "id": "a1", "status": "booked", "start": "2026-03-20T09:00:00Z", "end": "2026-03-20T09:30:00Z",
        "basedOn": [{"reference": "ServiceRequest/draft-1"}], "participant": [{"status": "accepted", "actor": {"reference": "Patient/p1"}}],
    }})  # fmt: skip
    assert of(await door.check(asked), "DetectedIssue") == []


@pytest.mark.parametrize(
    ("text", "flagged"),
    [
        ("MRI BRAIN W WO CONTRAST", "mri_safety"),
        ("MR C-SPINE WO", "mri_safety"),
        ("2361 MRI BRAIN W CONTRAST", "mri_safety"),
        ("CT HEAD WO", ""),
    ],
)
async def test_an_order_with_a_local_code_is_understood_by_its_text(
    door: Any, plain: Json, bundle_of: Any, text: str, flagged: str
) -> None:
    plain["indication"], plain["icd10cm"] = "neck pain and headaches, has a pacemaker", []
    asked = bundle_of(plain)
    asked["entry"][0]["resource"]["code"] = {
        "coding": [{"system": "urn:oid:1.2.3", "code": "X77", "display": text}],
        "text": text,
    }
    codes = {i["code"]["coding"][0]["code"] for i in of(await door.check(asked), "DetectedIssue")} - {"incomplete"}
    assert codes == ({flagged} if flagged else set())


@pytest.mark.parametrize(
    "text",
    [
        "XR CHEST 1 VIEW",
        "Complete blood count",
        "US ABDOMEN LIMITED",
        "MR ABD WO",
        "<b>MRI</b>",
        "",
        "MRI BRAIN AND KNEE",
    ],
)
async def test_an_exam_outside_the_catalogue_is_said_and_not_guessed(
    door: Any, plain: Json, bundle_of: Any, text: str
) -> None:
    asked = bundle_of(plain)
    asked["entry"][0]["resource"]["code"] = {"text": text} if text else {}
    if not text:
        del asked["entry"][0]["resource"]["code"]
    issues = of(await door.check(asked), "DetectedIssue")
    assert [i["code"]["coding"][0]["code"] for i in issues] == ["incomplete"]
    assert "not in the catalogue" in issues[0]["detail"]
    assert issues[0]["severity"] == "low"


async def test_an_order_that_does_not_say_whether_contrast_is_given(door: Any, plain: Json, bundle_of: Any) -> None:
    asked = bundle_of(plain)
    asked["entry"][0]["resource"]["code"] = {"text": "MR Brain"}
    issues = of(await door.check(asked), "DetectedIssue")
    assert [i["code"]["coding"][0]["code"] for i in issues] == ["incomplete"]
    assert "whether contrast" in issues[0]["detail"]


async def test_only_rooms_and_integration_may_ask(door: Any, plain: Json, bundle_of: Any) -> None:
    assert (await door.post(CHECK, bundle_of(plain), Role.RADIOLOGIST)).status_code == 403
    assert (await door.post(CHECK, bundle_of(plain), Role.INTEGRATION)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"resourceType": "Bundle", "type": "collection"},
        {"resourceType": "Patient"},
        {"resourceType": "Bundle", "type": "batch"},
    ],
)
async def test_what_holds_no_order_is_refused(door: Any, body: Json) -> None:
    answer = await door.post(CHECK, body)
    assert answer.status_code == 400
    assert answer.json()["resourceType"] == "OperationOutcome"


async def test_decisions_stand_on_both_databases(
    open_door: Any, database_url: str, plain: Json, bundle_of: Any
) -> None:
    door = await open_door(url=database_url)
    await door.check(bundle_of(plain))
    rows = await door.database.read(lambda s: store.decisions_of(s, "ServiceRequest/draft-1"))
    assert [r.protocol for r in rows] == ["MR_BRAIN_DEMENTIA"]


async def test_the_rules_can_be_read_by_people(door: Any) -> None:
    async with door.http(Role.RADIOLOGIST) as radiologist:
        rules = (await radiologist.get("/protocoling/rules")).json()
    assert {"id", "version", "sentence", "fix", "source", "when"} <= rules[0].keys()
