"""The same happenings in the words of other senders: OMI and OMG instead of ORM, SIU before its order, A08 in between, corrections,
addenda, cancellations by every code, numbers that change. What stands in the end is the same."""

import base64

import pytest
from tests.gateway.conftest import Site

from arcuate.kernel.errors import Json

WHO = "PID|1||4711^^^KLINIK^PI||Muster^Anna^^^Frau||19700523|F"


def msh(kind: str, control_id: str, at: str, sender: str = "ORBIS|KLINIK", version: str = "2.5.1") -> str:
    return f"MSH|^~\\&|{sender}|ARCUATE|NEURO|{at}||{kind}|{control_id}|P|{version}|||AL|NE|CHE|8859/1"


def joined(*segments: str) -> str:
    return "\r".join(segments) + "\r"


def omi(
    control: str, number: str, at: str, *, accession: str = "A100", state: str = "SC", status_pid: str = WHO
) -> str:
    return joined(
        msh("OMI^O23^OMI_O23", number, at), status_pid, "PV1|1|O|NEU^^^KLINIK",
        f"ORC|{control}|PL1^ORBIS||GR1^ORBIS|{state}||||{at}|||12^Arzt^Max", "TQ1|1||||||20260320100000||R",
        "OBR|1|PL1^ORBIS||MRSCH^MR Schädel^L||||||||||||12^Arzt^Max", f"IPC|{accession}|RP1|1.2.3.77|SPS1|MR",
    )  # fmt: skip


def siu(
    event: str,
    number: str,
    at: str,
    *,
    start: str = "20260320100000",
    first: str = "SCH77",
    order: str = "PL1",
    status: str = "",
) -> str:
    return joined(
        msh(f"SIU^{event}^SIU_S12", number, at, "MEDOS|KLINIK", "2.3"),
        f"SCH|{first}^MEDOS|||||ROUTINE|||30|min|^^30^{start}||||||||||||||{status}|{order}^ORBIS",
        WHO, "RGS|1", f"AIS|1||MRSCH^MR Schädel^L|{start}|||30|min", "AIL|1||MR2^^^KLINIK",
    )  # fmt: skip


def oru(number: str, at: str, status: str, *lines: str, accession: str = "A100", who: str = WHO) -> str:
    text = [f"OBX|{n}|FT|&GDT^Befund||{line}||||||{status}" for n, line in enumerate(lines, 1)]
    return joined(
        msh("ORU^R01", number, at, "DICTA|KLINIK", "2.3.1"), who, "ORC|RE|PL1^ORBIS",
        f"OBR|1|PL1^ORBIS|{accession}|MRSCH^MR Schädel^L|||20260320101500|||||||||||||||{at}|||{status}|||||||77&Rad&Rita", *text,
    )  # fmt: skip


def text_of(report: Json) -> str:
    return base64.b64decode(report["presentedForm"][0]["data"]).decode()


async def the_report(site: Site) -> Json:
    (report,) = await site.find("DiagnosticReport")
    return report


async def test_a_booking_and_a_report_before_their_order_join_when_it_comes_as_omi(site: Site) -> None:
    await site.apply(siu("S12", "1", "20260317090000"), oru("2", "20260320110000", "F", "Kein Infarkt."))
    assert await site.find("DiagnosticReport") == []
    await site.apply(omi("NW", "3", "20260317080000"))
    order = await site.order("A100")
    (appointment,) = await site.find("Appointment")
    assert appointment["basedOn"] == [{"reference": f"ServiceRequest/{order['id']}"}]
    assert text_of(await the_report(site)) == "Kein Infarkt."
    assert len(await site.find("Patient")) == 1


async def test_every_word_for_gone_revokes_before_and_after_the_order(site: Site) -> None:
    def of(n: int, control: str, at: str, number: int) -> str:
        return omi(control, f"{number}", at, accession=f"A{n}").replace("PL1", f"PL{n}")

    words = ("CA", "OC", "CR", "DC", "OD", "DR")
    for n, word in enumerate(words, 500):
        await site.apply(of(n, "NW", "20260317080000", 10 * n), of(n, word, "20260317090000", 10 * n + 1))
        await site.apply(of(n + 100, word, "20260317090000", 10 * n + 2))
        await site.apply(of(n + 100, "NW", "20260317080000", 10 * n + 3))
    assert {one["status"] for one in await site.find("ServiceRequest")} == {"revoked"}
    assert len(await site.find("ServiceRequest")) == 2 * len(words)


@pytest.mark.long
async def test_a_discontinuation_by_status_alone_revokes(site: Site) -> None:
    await site.apply(omi("NW", "1", "20260317080000"), omi("SC", "2", "20260317090000", state="DC"))
    assert (await site.order("A100"))["status"] == "revoked"


@pytest.mark.long
async def test_a_registration_in_between_renames_and_the_old_name_in_later_messages_is_no_other_person(
    site: Site,
) -> None:
    new = WHO.replace("Muster^Anna", "Neu^Anna")
    await site.apply(omi("NW", "1", "20260317080000"))
    await site.apply(joined(msh("ADT^A08", "2", "20260317083000"), "EVN|A08|20260317083000", new, "PV1|1|O"))
    await site.apply(siu("S12", "3", "20260317090000"), oru("4", "20260320110000", "F", "Unauffällig."))
    (patient,) = await site.find("Patient")
    assert patient["name"][0]["family"] == "Neu"
    assert (await the_report(site))["status"] == "final"
    assert await site.errors() == []


async def test_a_missed_visit_is_booked_anew_under_another_number(site: Site) -> None:
    await site.apply(
        omi("NW", "1", "20260317080000"), siu("S12", "2", "20260317090000"), siu("S26", "3", "20260320103000")
    )
    await site.apply(siu("S12", "4", "20260320110000", first="SCH78", start="20260327100000"))
    order = await site.order("A100")
    stands = {one["status"]: one for one in await site.find("Appointment")}
    assert set(stands) == {"noshow", "booked"}
    assert stands["booked"]["basedOn"] == [{"reference": f"ServiceRequest/{order['id']}"}]
    # The old one is told again, late: it stays missed, and the new one stands.
    await site.apply(siu("S14", "5", "20260320101000", status="Booked"))
    assert {one["status"] for one in await site.find("Appointment")} == {"noshow", "booked"}


async def test_a_correction_replaces_text_and_conclusion_and_an_addendum_follows_it(site: Site) -> None:
    await site.apply(omi("NW", "1", "20260317080000"), oru("2", "20260320110000", "F", "Text.", "IMPRESSION: Infarkt."))
    await site.apply(
        joined(*oru("3", "20260320113000", "F", "Text.").strip("\r").split("\r"), "OBX|2|TX|&IMP||Infarkt.||||||F")
    )
    assert (await the_report(site))["conclusion"] == "Infarkt."
    await site.apply(oru("4", "20260320120000", "C", "Korrigiert: kein Infarkt."))
    report = await the_report(site)
    assert (report["status"], text_of(report)) == ("corrected", "Korrigiert: kein Infarkt.")
    assert "conclusion" not in report
    # The final of before comes once more, late: nothing goes back.
    await site.apply(oru("5", "20260320110000", "F", "Text."))
    assert text_of(await the_report(site)) == "Korrigiert: kein Infarkt."


async def test_words_in_notes_are_not_lost(site: Site) -> None:
    await site.apply(omi("NW", "1", "20260317080000"))
    lines = oru("2", "20260320110000", "F").strip("\r").split("\r")
    await site.apply(joined(*lines, "NTE|1|L|Befund im Kommentar.", "NTE|2|L|Zweite Zeile."))
    assert text_of(await the_report(site)) == "Befund im Kommentar.\n\nZweite Zeile."
    lab = "OBX|1|NM|2160-0^Kreatinin^LN||88|umol/L|||||F|||20260320090000"
    await site.apply(
        joined(
            msh("ORU^R01", "3", "20260320091500", "LABOR|KLINIK"),
            WHO,
            "OBR|1||L1|2160-0^Kreatinin^LN|||20260320090000",
            lab,
            "NTE|1||hämolytisch",
        )
    )
    (value,) = await site.find("Observation", code="http://loinc.org|2160-0")
    assert value["note"] == [{"text": "hämolytisch"}]


@pytest.mark.long
async def test_two_patients_in_one_result_each_get_their_own(site: Site) -> None:
    other = "PID|2||4712^^^KLINIK^PI||Anders^Otto||19500101|M"
    await site.apply(omi("NW", "1", "20260317080000"))
    await site.apply(omi("NW", "2", "20260317080000", accession="A300", status_pid=other).replace("PL1", "PL3"))
    one = oru("3", "20260320110000", "F", "Erster.").strip("\r").split("\r")
    two = [
        segment.replace("PL1", "PL3")
        for segment in oru("3", "20260320110000", "F", "Zweiter.", accession="A300", who=other)
        .strip("\r")
        .split("\r")[1:]
    ]
    await site.apply(joined(*one, *two))
    found = {text_of(report): report["subject"]["reference"] for report in await site.find("DiagnosticReport")}
    assert set(found) == {"Erster.", "Zweiter."}
    assert len(set(found.values())) == 2


@pytest.mark.long
async def test_a_number_that_changes_in_mid_journey_keeps_the_case_of_one_person(site: Site) -> None:
    await site.apply(omi("NW", "1", "20260317080000"), siu("S12", "2", "20260317090000"))
    new = WHO.replace("4711", "9911")
    await site.apply(
        joined(msh("ADT^A47", "3", "20260318080000"), "EVN|A47|20260318080000", new, "MRG|4711^^^KLINIK^PI")
    )
    await site.apply(
        oru("4", "20260320110000", "F", "Nach der Änderung.", who=new), oru("5", "20260320120000", "C", "Noch einmal.")
    )
    assert text_of(await the_report(site)) == "Noch einmal."
    (patient,) = await site.find("Patient")
    assert {one["value"] for one in patient["identifier"]} >= {"4711", "9911"}
    assert await site.errors() == []


@pytest.mark.long
async def test_one_report_for_two_accessions_is_corrected_for_both(site: Site) -> None:
    await site.apply(
        omi("NW", "1", "20260317080000"), omi("NW", "2", "20260317080000", accession="A400").replace("PL1", "PL4")
    )
    both = oru("3", "20260320110000", "F", "Beide.").strip("\r").split("\r")
    both.insert(3, "OBR|2|PL4^ORBIS|A400|MRHWS^MR HWS^L|||20260320101500||||||||||||||||20260320110000|||F")
    await site.apply(joined(*both))
    assert len((await the_report(site))["basedOn"]) == 2
    await site.apply(oru("4", "20260320120000", "C", "Beide, korrigiert."))
    report = await the_report(site)
    assert (len(report["basedOn"]), text_of(report)) == (2, "Beide, korrigiert.")


async def test_the_wrong_patient_on_a_known_accession_changes_nothing_in_any_kind_of_message(site: Site) -> None:
    await site.apply(omi("NW", "1", "20260317080000"), siu("S12", "2", "20260317090000"))
    wrong = "PID|1||5555^^^KLINIK^PI||Falsch^Fritz||19440404|M"
    before = [await site.order("A100"), *await site.find("Appointment")]
    await site.apply(
        omi("XO", "3", "20260318080000", status_pid=wrong), siu("S13", "4", "20260318080000", start="20260321100000").replace(WHO, wrong),
        oru("5", "20260320110000", "F", "Fremd.", who=wrong), omi("CA", "6", "20260318090000", status_pid=wrong),
    )  # fmt: skip
    assert [await site.order("A100"), *await site.find("Appointment")] == before
    assert await site.find("DiagnosticReport") == []
    assert {one["cause"] for one in await site.errors()} == {"identity conflict"}
    assert len(await site.errors()) == 4


@pytest.mark.long
async def test_times_that_run_backwards_keep_no_message_back(site: Site) -> None:
    visit = "PV1|1|O|NEU^^^KLINIK" + "|" * 16 + "V1" + "|" * 25 + "20260317100000|20260316100000"
    await site.apply(omi("NW", "1", "20260317080000").replace("PV1|1|O|NEU^^^KLINIK", visit))
    await site.apply(
        omi("SC", "2", "20260320120000", state="CM").replace(
            "MR Schädel^L||||", "MR Schädel^L|||20260320110000|20260320100000", 1
        )
    )
    assert await site.errors() == []
    assert [one["status"] for one in await site.find("Procedure")] == ["completed"]
    (encounter,) = await site.find("Encounter")
    assert "end" not in encounter["period"]
