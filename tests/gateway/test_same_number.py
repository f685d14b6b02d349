"""Numbers without an assigner: one hospital's number, spoken by several systems; and two systems' numbers that only look alike."""

from tests.gateway.conftest import Site
from tests.gateway.messages import merge, order, registration, result


def bare(message: str, application: str = "") -> str:
    """A message whose patient numbers name no assigner, from another application."""
    made = message.replace("^^^HOSP^MR", "")
    head, rest = made.split("\r", 1)
    fields = head.split("|")
    fields[2] = application or fields[2]
    return "|".join(fields) + "\r" + rest


async def patients(site: Site) -> list[str]:
    """Numbers of every patient, merged away or not, sorted by person."""
    return sorted("+".join(sorted({i["value"] for i in one["identifier"]})) for one in await site.find("Patient"))


async def test_a_report_of_another_system_finds_the_order_and_its_patient(site: Site) -> None:
    await site.apply(bare(order("ACC1", "100")))
    await site.apply(bare(result("ACC1", "100", name="", born="")))

    [report] = await site.find("DiagnosticReport")
    assert report["subject"] == (await site.order("ACC1"))["subject"]
    assert await patients(site) == ["100"]
    assert await site.errors() == []


async def test_f025_a_report_with_another_number_still_waits_for_a_person(site: Site) -> None:
    await site.apply(bare(order("ACC1", "100")), bare(result("ACC1", "101", name="", born="")))

    assert await site.find("DiagnosticReport") == []
    assert [one["cause"] for one in await site.errors()] == ["identity conflict"]


async def test_f025_name_and_birth_date_outweigh_an_equal_number(site: Site) -> None:
    await site.apply(bare(order("ACC1", "100")), bare(result("ACC1", "100", name="Roe^Mary", born="19550505")))

    assert await site.find("DiagnosticReport") == []
    assert [one["cause"] for one in await site.errors()] == ["identity conflict"]


async def test_registration_and_order_of_two_systems_are_one_patient_when_name_and_birth_date_agree(site: Site) -> None:
    await site.apply(bare(registration("A04", "100"), "HIS"), bare(order("ACC1", "100", control_id="2"), "RIS"))

    [patient] = await site.find("Patient")
    assert patient["address"][0]["city"] == "Town"
    assert (await site.order("ACC1"))["subject"]["reference"] == f"Patient/{patient['id']}"


async def test_equal_numbers_of_two_persons_stay_two_patients(site: Site) -> None:
    other = "100||Roe^Mary||19550505|F"
    await site.apply(bare(registration("A04", pid=other), "HIS"), bare(order("ACC1", "100", control_id="2"), "RIS"))
    assert len(await site.find("Patient")) == 2


async def test_a_number_alone_joins_nobody(site: Site) -> None:
    await site.apply(bare(registration("A04", pid="100"), "HIS"), bare(order("ACC1", "100", control_id="2"), "RIS"))
    assert len(await site.find("Patient")) == 2


async def test_numbers_of_two_stated_assigners_are_never_one(site: Site) -> None:
    other = registration("A04", "100").replace("^^^HOSP^MR", "^^^OTHER^MR")
    await site.apply(other, order("ACC1", "100", control_id="2"))
    assert len(await site.find("Patient")) == 2


async def test_a_merge_told_by_registration_reaches_the_orders_of_the_ris(site: Site) -> None:
    one, two = order("ACC1", "100"), order("ACC2", "200", placer="P2", control_id="2", name="Doh^Jane", born="19800110")
    await site.apply(bare(one, "RIS"), bare(two, "RIS"))
    await site.apply(bare(merge("100", "200"), "HIS"))

    survivor = next(one for one in await site.find("Patient") if one["active"])
    assert survivor["identifier"][0]["value"] == "100"
    found = await site.find("ServiceRequest", patient=survivor["id"])
    assert sorted(one["identifier"][0]["value"] for one in found) == ["ACC1", "ACC2"]
    assert await site.errors() == []
