"""Registration, merges and their undoing, change of numbers, visits, allergies (rows 022 to 024; HL7 chapter 3)."""

import pytest
from tests.gateway.conftest import Site
from tests.gateway.messages import booking, merge, order, registration, result


def unmerge(one: str, other: str, *, control_id: str = "35", at: str = "20260317110000") -> str:
    return (
        f"MSH|^~\\&|ADT|HOSP|ARCUATE|NEURO|{at}||ADT^A37^ADT_A37|{control_id}|P|2.5.1\r"
        f"EVN|A37|{at}\r"
        f"PID|1||{one}^^^HOSP^MR||Doe^Jane||19800101|F\r"
        f"PID|2||{other}^^^HOSP^MR||Doe^Jane||19800101|F\r"
    )


async def accessions_of(site: Site, patient: str) -> list[str]:
    own = (await site.patient(patient))["id"]
    found = await site.find("ServiceRequest", patient=own)
    return sorted(one["identifier"][0]["value"] for one in found)


@pytest.mark.parametrize("turned", [False, True])
async def test_f024_a_merge_taken_back_gives_each_number_its_own_again(site: Site, turned: bool) -> None:
    await site.apply(
        order("ACC1", "100", placer="P1"), order("ACC2", "200", placer="P2", control_id="2"), merge("100", "200"),
    )  # fmt: skip
    site.clock.advance(5)
    await site.apply(
        order("ACC3", "200", placer="P3", control_id="3"), order("ACC4", "100", placer="P4", control_id="4"),
        result("ACC2", "200", control_id="5"), booking(number="B3", patient="200", accession="ACC3", control_id="6"),
    )  # fmt: skip
    assert await accessions_of(site, "100") == await accessions_of(site, "200") == ["ACC1", "ACC2", "ACC3", "ACC4"]

    await site.apply(unmerge("200", "100") if turned else unmerge("100", "200"))
    assert await accessions_of(site, "100") == ["ACC1", "ACC4"]
    assert await accessions_of(site, "200") == ["ACC2", "ACC3"]
    survivor, loser = await site.patient("100"), await site.patient("200")
    assert "link" not in survivor and "link" not in loser and loser["active"] is True
    assert [one["value"] for one in loser["identifier"]] == ["200"]
    assert [one["value"] for one in survivor["identifier"]] == ["100"]
    assert len(await site.find("DiagnosticReport", patient=loser["id"])) == 1
    assert await site.find("DiagnosticReport", patient=survivor["id"]) == []
    assert len(await site.find("Appointment", patient=loser["id"])) == 1
    note = (await site.journal())[-1]["messages"][0]["note"]
    assert "ACC4" in note and "ACC1" not in note
    assert await site.errors() == []


async def test_f024_a_merge_that_never_was_is_not_taken_back(site: Site) -> None:
    await site.apply(order("ACC1", "100"), order("ACC2", "200", placer="P2", control_id="2"), unmerge("100", "200"))
    assert (await site.journal())[-1]["messages"][0]["state"] == "ignored"

    await site.apply(unmerge("100", "300", control_id="36"))
    assert [one["cause"] for one in await site.errors()] == ["unknown patient"]


async def test_f024_merged_and_parted_the_patients_can_be_merged_again(site: Site) -> None:
    await site.apply(
        order("ACC1", "100"), order("ACC2", "200", placer="P2", control_id="2"), merge("100", "200"), unmerge("100", "200"),
        merge("100", "200", control_id="31", at="20260317120000"),
    )  # fmt: skip
    assert await accessions_of(site, "100") == ["ACC1", "ACC2"]
    assert (await site.patient("200"))["active"] is False


async def test_f023_an_order_under_a_merged_number_may_state_either_persons_name(site: Site) -> None:
    await site.apply(
        order("ACC1", "100", name="Miller^Jane", born="19800101"),
        order("ACC2", "200", placer="P2", control_id="2", name="Doe^J", born="19810101"), merge("100", "200"),
        order("ACC2", "200", placer="P2", control="XO", control_id="3", name="Doe^J", born="19810101"),
        order("ACC2", "200", placer="P2", control="XO", control_id="4", name="Miller^Jane", born="19800101"),
        order("ACC2", "200", placer="P2", control="XO", control_id="5", name="Roe^Rick", born="19500505"),
    )  # fmt: skip
    assert [one["cause"] for one in await site.errors()] == ["identity conflict"]


async def test_f023_a_changed_number_is_the_same_patient_under_both(site: Site) -> None:
    changed = merge("500", "100", control_id="37").replace("A40^ADT_A39", "A47^ADT_A30").replace("EVN|A40", "EVN|A47")
    await site.apply(order("ACC1", "100"), changed, order("ACC2", "500", placer="P2", control_id="2"))

    patient = await site.patient("500")
    assert patient["id"] == (await site.patient("100"))["id"]
    assert [(one["value"], one.get("use")) for one in patient["identifier"]] == [("100", "old"), ("500", None)]
    assert await accessions_of(site, "500") == ["ACC1", "ACC2"]


async def test_f023_a_number_of_somebody_else_is_not_given_away(site: Site) -> None:
    changed = merge("500", "100", control_id="37").replace("A40^ADT_A39", "A47^ADT_A30")
    await site.apply(order("ACC1", "100"), order("ACC2", "500", placer="P2", control_id="2"), changed)
    assert [(one["cause"], one["condition"]) for one in await site.errors()] == [("identity conflict", "204")]
    assert await accessions_of(site, "500") == ["ACC2"]


async def visit_status(site: Site) -> str:
    found = await site.find("Encounter")
    assert len(found) == 1
    return str(found[0]["status"])


async def test_a_visit_follows_its_events_and_no_older_one_turns_it_back(site: Site) -> None:
    for number, (event, status) in enumerate([
        ("A05", "planned"), ("A04", "arrived"), ("A01", "in-progress"), ("A02", "in-progress"), ("A03", "finished"), ("A13", "in-progress"),
        ("A03", "finished"),
    ]):  # fmt: skip
        await site.apply(registration(event, control_id=f"2{number}", at=f"202603171{number}0000", visit="V1"))
        assert await visit_status(site) == status, event
    late = registration("A01", control_id="30", at="20260317103000", visit="V1")
    await site.apply(late, registration("A08", control_id="31", at="20260317180000", visit="V1"))
    assert await visit_status(site) == "finished"


async def test_an_admission_taken_back_is_cancelled(site: Site) -> None:
    await site.apply(
        registration("A01", visit="V1"), registration("A11", control_id="21", at="20260317103000", visit="V1")
    )
    assert await visit_status(site) == "cancelled"


async def test_events_about_a_person_make_no_visit(site: Site) -> None:
    await site.apply(registration("A28", visit="V1"), registration("A31", control_id="21", visit="V1"))
    assert await site.find("Encounter") == []
    assert (await site.patient("100"))["name"][0]["family"] == "Doe"


async def test_f022_an_allergy_is_known_once_changes_and_is_deleted_by_null(site: Site) -> None:
    said = registration() + "AL1|1|DA|C1^Gadobutrol^L|SV|Anaphylaxis~Urticaria|20200101\rAL1|2|FA|^Peanuts||\r"
    again = said.replace("A01|20|", "A01|21|").replace("|SV|", "|MO|").replace("AL1|2|FA|^Peanuts||\r", "")
    await site.apply(said, said.replace("A01|20|", "A01|22|"), again)

    found = {one["code"]["text"]: one for one in await site.find("AllergyIntolerance")}
    assert set(found) == {"Gadobutrol", "Peanuts"}
    gado = found["Gadobutrol"]
    assert gado["patient"]["reference"] == f"Patient/{(await site.patient('100'))['id']}"
    assert gado["reaction"] == [
        {"manifestation": [{"text": "Anaphylaxis"}, {"text": "Urticaria"}], "severity": "moderate"}
    ]
    assert gado["category"] == ["medication"] and gado["onsetDateTime"] == "2020-01-01"
    assert (gado["meta"]["versionId"], found["Peanuts"]["meta"]["versionId"]) == ("2", "1")

    await site.apply(registration(control_id="23") + 'AL1|1||""\r')
    assert await site.find("AllergyIntolerance") == []


async def test_an_allergy_that_comes_with_an_order_is_the_patients(site: Site) -> None:
    await site.apply(order().replace("ORC|", "AL1|1|DRUG|^Iodinated contrast|SEVERE|Dyspnoea\rORC|", 1))
    found = await site.find("AllergyIntolerance", patient=(await site.patient("100"))["id"])
    assert [(one["code"]["text"], one["criticality"]) for one in found] == [("Iodinated contrast", "high")]


async def test_an_allergy_taken_back_is_marked_so_and_a_diagnosis_is_a_condition(site: Site) -> None:
    a60 = registration("A60").split("PV1")[0] + "IAM|1|DA|C1^Gadobutrol^L|SV|Rash|{}|A77\r"
    await site.apply(a60.format("A"), a60.format("D").replace("|20|P|", "|21|P|"))
    (allergy,) = await site.find("AllergyIntolerance")
    assert allergy["verificationStatus"]["coding"][0]["code"] == "entered-in-error" and "clinicalStatus" not in allergy

    await site.apply(registration(control_id="22") + "DG1|1||N18.4^CKD stage 4^I10|||W\r")
    (condition,) = await site.find("Condition")
    assert condition["code"]["coding"][0] == {
        "system": "http://hl7.org/fhir/sid/icd-10", "code": "N18.4", "display": "CKD stage 4",
    }  # fmt: skip
