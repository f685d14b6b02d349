"""Problems (PRB) of a patient: on the problem list once, changed, ended and taken back; another patient's are not taken."""

from tests.gateway.conftest import Site
from tests.gateway.messages import order, registration

from arcuate.kernel.errors import Json


def problem(event: str, prb: str, *, control_id: str, patient: str = "100", name: str = "Doe^Jane", born: str = "19800101") -> str:  # fmt: skip
    return (
        f"MSH|^~\\&|EHR|HOSP|ARCUATE|NEURO|20260317110000||PPR^{event}^PPR_PC1|{control_id}|P|2.5.1\r"
        f"PID|1||{patient}^^^HOSP^MR||{name}||{born}|F\r{prb}\r"
    )


STENOSIS = "PRB|AD|20260301|I35.0^Aortic stenosis^I10|53692^EHR|||20260228||||||Confirmed|ACTIVE||20250601"


async def problems(site: Site) -> list[Json]:
    who = await site.patient("100")
    return await site.find("Condition", patient=f"Patient/{who['id']}")


def said(condition: Json, name: str) -> str:
    return str(condition[name]["coding"][0]["code"])


async def test_a_problem_stands_on_the_list_once_and_follows_what_its_sender_says(site: Site) -> None:
    await site.apply(problem("PC1", STENOSIS, control_id="1"), problem("PC1", STENOSIS, control_id="2"))
    (made,) = await problems(site)
    assert made["code"]["text"] == "Aortic stenosis" and said(made, "clinicalStatus") == "active"
    assert said(made, "verificationStatus") == "confirmed"
    assert made["category"][0]["coding"][0]["code"] == "problem-list-item" and made["meta"]["versionId"] == "1"
    assert (made["recordedDate"], made["onsetDateTime"]) == ("2026-02-28", "2025-06-01")

    over = (
        STENOSIS.replace("PRB|AD", "PRB|UP")
        .replace("||20260228||", "||20260228||20260310")
        .replace("ACTIVE", "Resolved")
    )
    await site.apply(problem("PC2", over, control_id="3"))
    (ended,) = await problems(site)
    assert said(ended, "clinicalStatus") == "resolved" and ended["abatementDateTime"] == "2026-03-10"

    await site.apply(problem("PC3", STENOSIS.replace("PRB|AD", "PRB|DE"), control_id="4"))
    (gone,) = await problems(site)
    assert said(gone, "verificationStatus") == "entered-in-error" and "clinicalStatus" not in gone


async def test_problems_come_with_registrations_and_orders_and_leave_diagnoses_alone(site: Site) -> None:
    diagnosis = "DG1|1||I35.0^Aortic stenosis^I10|||W\r"
    await site.apply(registration() + diagnosis + "PRB|AD|20260301|^Claustrophobia|7\r")
    await site.apply(order().replace("ORC|", "PRB|AD|20260301|^Cochlear implant|8\rORC|", 1))
    found = await problems(site)
    assert sorted(one["code"]["text"] for one in found) == ["Aortic stenosis", "Claustrophobia", "Cochlear implant"]
    await site.apply(registration(control_id="9") + 'PRB|UP|20260301|""\r')
    assert [one["code"]["text"] for one in await problems(site)] == ["Aortic stenosis"]


async def test_problems_of_somebody_else_under_a_known_number_wait_for_a_person(site: Site) -> None:
    await site.apply(registration(), problem("PC1", STENOSIS, control_id="5", name="Roe^Rita", born="19510505"))
    (parked,) = await site.errors()
    assert parked["cause"] == "identity conflict" and await problems(site) == []
    await site.apply(problem("PC1", "NTE|1||no problem", control_id="6"))
    assert sorted(one["cause"] for one in await site.errors()) == ["identity conflict", "no problem"]
