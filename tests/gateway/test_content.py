"""Content of messages (rows 018 to 028): the right patient, order and booking, whatever came in which order."""

import base64

import pytest
from tests.gateway.conftest import Site
from tests.gateway.messages import booking, merge, order, registration, result

from arcuate.kernel.errors import Json


def text_of(report: Json) -> str:
    return base64.b64decode(report["presentedForm"][0]["data"]).decode()


# 018, 019, 020: characters, escapes, spellings


@pytest.mark.parametrize(
    ("name", "encoding", "said"),
    [
        ("José", "utf-8", "8859/1"),
        ("José", "cp1252", ""),
        ("Łukasz", "iso8859-2", "8859/2"),
        ("Иван", "utf-8", ""),
        ("李", "utf-8", "ASCII"),
    ],
)
async def test_f018_names_show_exactly_and_bytes_stay(site: Site, name: str, encoding: str, said: str) -> None:
    raw = order(name=f"{name}^Jane").replace("|2.5.1\r", f"|2.5.1||||||{said}\r", 1).encode(encoding)
    await site.apply(raw)

    assert (await site.patient("100"))["name"][0]["family"] == name
    assert (await site.http.get("/gateway/journal/1/raw")).content == raw
    assert (await site.journal())[0]["messages"][0]["charset"].startswith(
        "utf-8 by bytes" if encoding == "utf-8" else encoding
    )


async def test_f018_what_fits_no_character_set_is_stored_and_parked(site: Site) -> None:
    raw = order(name="X^Jane").encode().replace(b"X^Jane", b"\x81\x8d\xff^Jane")
    assert await site.apply(raw) == ["AA"]
    assert [(one["cause"], one["location"]) for one in await site.errors()] == [("unreadable", "MSH-18")]


async def test_f019_text_is_decoded_once_on_the_way_in(site: Site) -> None:
    text = r"A \T\ B, 4\E\5, https://x.example/?a=1\T\b=2, \E\F\E\ stays\.br\second line"
    await site.apply(order(), result(text=text))

    report = (await site.find("DiagnosticReport"))[0]
    assert text_of(report) == "A & B, 4\\5, https://x.example/?a=1&b=2, \\F\\ stays\nsecond line"


async def test_f020_the_same_order_in_many_spellings_is_one_order(site: Site) -> None:
    plain = order()
    spellings = [
        plain,
        plain.replace("\r", "\n"),
        plain.replace("\r", "\r\n"),
        "\ufeff" + plain,
        "\r\n" + plain,
        plain.replace("^~\\&|", "^~\\&#|", 1),
        plain.replace("^~\\&|", "^~\\|", 1),
        plain.replace("^~\\&|", "^~&|", 1),
        plain.replace("^~\\&|", "^~\\\\&|", 1),
        plain.replace("|", "!"),
        plain.replace("^~\\&", "@~\\&").replace("^", "@"),
        plain.replace("\r", "|||\r") + "ZZZ|local|1\r",
        plain.replace("PID|", "pid|"),
    ]
    for number, one in enumerate(spellings):
        await site.apply(
            one.replace("O01^ORM_O01|1|", f"O01^ORM_O01|{number}|")
            .replace("!1!P!", f"!{number}!P!")
            .replace("_O01|1|", f"_O01|{number}|")
        )

    request = await site.order("ACC1")
    assert request["meta"]["versionId"] == "1", [row["messages"] for row in await site.journal()]
    assert len(await site.find("Patient")) == 1
    assert await site.errors() == []


# 021, 022: times, null


async def test_f021_a_time_without_offset_is_the_senders_and_a_date_stays_a_date(site: Site) -> None:
    await site.apply(
        order(born="19800101"),
        order("ACC2", placer="P2", control_id="2", when="20260701"),
        order("ACC3", placer="P3", control_id="3", when="202603181100-0500"),
    )

    assert (await site.order("ACC1"))["occurrenceDateTime"] == "2026-03-18T11:00:00+01:00"
    assert (await site.order("ACC2"))["occurrenceDateTime"] == "2026-07-01"
    assert (await site.order("ACC3"))["occurrenceDateTime"] == "2026-03-18T11:00:00-05:00"
    assert (await site.patient("100"))["birthDate"] == "1980-01-01"


async def test_f021_what_is_no_time_parks_the_message(site: Site) -> None:
    assert await site.apply(order(when="20261399"), registration(pid="7^^^HOSP^MR||X^Y||not-a-date")) == ["AA", "AA"]
    assert {(one["cause"], one["condition"]) for one in await site.errors()} == {("invalid time", "102")}
    assert await site.find("ServiceRequest") == []


async def test_f022_empty_keeps_and_null_deletes(site: Site) -> None:
    full = "100^^^HOSP^MR||Doe^Jane||19800101|F|||1 Main St^^Town||0791234567^PRN^CP|0441112233^WPN^PH"
    await site.apply(registration(pid=full))
    await site.apply(registration(pid="100^^^HOSP^MR||Doe^Jane||||||||", control_id="21"))
    kept = await site.patient("100")
    assert kept["birthDate"] == "1980-01-01" and len(kept["telecom"]) == 2 and kept["meta"]["versionId"] == "1"

    await site.apply(registration(pid='100^^^HOSP^MR||Doe^Jane||""|""|||""||""|', control_id="22"))
    changed = await site.patient("100")
    assert {"birthDate", "gender", "address"} & changed.keys() == set()
    assert [one["use"] for one in changed["telecom"]] == ["work"]
    assert '""' not in str(changed)
    before = await site.fhir.read("Patient", changed["id"], "1")
    assert before["birthDate"] == "1980-01-01"


# 023: merges


async def test_f023_a_merge_links_the_loser_and_later_messages_of_it_go_to_the_survivor(site: Site) -> None:
    await site.apply(order("ACC1", "200", placer="P1"), registration(patient="100"), merge("100", "200"))

    loser, survivor = await site.patient("200"), await site.patient("100")
    assert loser["active"] is False and survivor["active"] is True
    assert loser["link"] == [{"other": {"reference": f"Patient/{survivor['id']}"}, "type": "replaced-by"}]
    assert [r["id"] for r in await site.find("ServiceRequest", patient=survivor["id"])] == [
        (await site.order("ACC1"))["id"]
    ]

    await site.apply(
        order("ACC2", "200", placer="P2", control_id="31"), order("ACC1", "100", control="XO", control_id="32")
    )
    # It stays with the number that it came under (so that a merge can be undone) and is found under the survivor's.
    assert {r["identifier"][0]["value"] for r in await site.find("ServiceRequest", patient=survivor["id"])} == {
        "ACC1",
        "ACC2",
    }
    assert await site.errors() == []


async def test_f023_a_merge_of_unknown_patients_creates_both_and_a_repeated_one_changes_nothing(site: Site) -> None:
    await site.apply(merge("100", "200"), merge("100", "200", control_id="31"))

    assert (await site.patient("200"))["meta"]["versionId"] == "1"
    assert (await site.patient("100"))["meta"]["versionId"] == "1"
    assert len((await site.patient("100"))["link"]) == 1


async def test_f023_a_merge_into_itself_and_in_a_circle_wait_for_a_person(site: Site) -> None:
    await site.apply(merge("100", "100"), merge("100", "200", control_id="31"), merge("200", "100", control_id="32"))

    assert [(one["cause"], one["condition"]) for one in await site.errors()] == [
        ("circular merge", "205"),
        ("merge into itself", "205"),
    ]
    assert (await site.patient("100"))["active"] is True


# 025: wrong patient


async def test_f025_an_order_of_another_patient_changes_nothing(site: Site) -> None:
    await site.apply(order("ACC1", "100"))
    assert await site.apply(order("ACC1", "999", control="XO", control_id="2", name="Roe^Rick")) == ["AA"]

    (item,) = await site.errors()
    assert (item["cause"], item["condition"]) == ("identity conflict", "204")
    assert "urn:arcuate:id:accession|ACC1" in item["orders"]  # the case of this order shows it
    assert (await site.order("ACC1"))["meta"]["versionId"] == "1"
    assert await site.find("Patient", identifier="urn:arcuate:id:patient:HOSP|999") == []


async def test_f025_name_and_birth_date_both_wrong_is_another_person(site: Site) -> None:
    await site.apply(order("ACC1", "100"))
    await site.apply(
        order("ACC2", "100", placer="P2", control_id="2", name="Roe^Rick", born="19510505"),
        order("ACC3", "100", placer="P3", control_id="3", name="Miller^Jane", born="19800101"),  # married
        order("ACC4", "100", placer="P4", control_id="4", name="DOE^J.", born="19800110"),  # typing error
        booking(number="B2", control_id="5", accession="ACC1", name="Roe^Rick", born="19510505"),
    )

    assert {r["identifier"][0]["value"] for r in await site.find("ServiceRequest")} == {"ACC1", "ACC3", "ACC4"}
    assert [one["cause"] for one in await site.errors()] == ["identity conflict"] * 2
    assert (await site.patient("100"))["name"][0]["family"] == "Doe"


async def test_f025_two_patients_in_one_order_message_are_refused_and_in_a_result_each_is_handled(site: Site) -> None:
    await site.apply(order("ACC1", "100"), order("ACC2", "101", placer="P2", control_id="2", name="Roe^Rick"))
    both = order("ACC3", "100", placer="P3", control_id="3") + order("ACC4", "101").split("\r", 1)[1]
    await site.apply(both)
    assert [one["cause"] for one in await site.errors()] == ["identity conflict"]
    assert len(await site.find("ServiceRequest")) == 2

    second = result("ACC2", "777", name="Roe^Rick").split("\r", 1)[1]
    await site.apply(result("ACC1", "100") + second)
    reports = await site.find("DiagnosticReport")
    assert [one["basedOn"][0]["reference"] for one in reports] == [f"ServiceRequest/{(await site.order('ACC1'))['id']}"]
    assert [one["cause"] for one in await site.errors()] == ["identity conflict"] * 2


# 026: cancel before new


async def test_f026_a_cancel_before_its_order_revokes_it_when_it_was_placed_earlier(site: Site) -> None:
    assert await site.apply(order(control="CA", control_id="2", at="20260317103000")) == ["AA"]
    assert [row["messages"][0]["state"] for row in await site.journal()] == ["kept"]
    assert await site.find("ServiceRequest") == [] and await site.find("Patient") == []

    await site.apply(order(control="NW", control_id="1", at="20260317100000"))
    assert (await site.order("ACC1"))["status"] == "revoked"


async def test_f026_an_order_placed_again_after_the_cancel_is_active_and_says_so(site: Site) -> None:
    await site.apply(
        order(control="CA", control_id="2", at="20260317100000"),
        order(control="NW", control_id="3", at="20260317110000"),
    )

    request = await site.order("ACC1")
    assert request["status"] == "active"
    assert "cancellation" in request["note"][0]["text"]


async def test_f026_a_change_after_the_cancel_does_not_bring_the_order_back(site: Site) -> None:
    await site.apply(
        order(control="CA", control_id="2", at="20260317103000"),
        order(control="NW", control_id="1", at="20260317100000"),
        order(control="XO", control_id="3", at="20260317104000"),
    )
    assert (await site.order("ACC1"))["status"] == "revoked"


async def test_f026_a_cancel_is_not_kept_for_ever(site: Site) -> None:
    await site.apply(order(control="CA", control_id="2", at="20260317103000"))
    site.clock.advance(73 * 3600)
    await site.apply(order(control="NW", control_id="1", at="20260317100000"))

    assert (await site.order("ACC1"))["status"] == "active"
    await site.errors()
    assert (await site.journal())[0]["messages"][0]["state"] == "expired"


# 027: several accessions, states


async def test_f027_each_accession_is_an_order_of_its_own_and_a_report_names_all_it_answers(site: Site) -> None:
    second = "ORC|NW|P2^RIS|ACC2^RIS|G1^RIS\rOBR|2|P2^RIS|ACC2^RIS|MRCS^MR C-Spine^L||||||||||||||ACC2|RP2|SPS2\r"
    await site.apply(order("ACC1").replace("|ACC1^RIS||", "|ACC1^RIS|G1^RIS|") + second)
    one, two = await site.order("ACC1"), await site.order("ACC2")
    assert one["requisition"]["value"] == two["requisition"]["value"] == "G1"
    assert (one["code"]["text"], two["code"]["text"]) == ("MR Brain", "MR C-Spine")

    both = "OBR|2|P2^RIS|ACC2^RIS|MRCS^MR C-Spine^L||||||||||||||ACC2|||||||F\r"
    await site.apply(result("ACC1", groups=both))
    reports = await site.find("DiagnosticReport")
    assert [[ref["reference"] for ref in report["basedOn"]] for report in reports] == [
        [f"ServiceRequest/{o['id']}" for o in (one, two)]
    ]


async def test_f027_an_exam_begins_is_done_and_never_goes_back(site: Site) -> None:
    await site.apply(
        order(), order(control="SC", state="IP", control_id="2", at="20260318110500"),
        order(control="SC", state="CM", control_id="3", at="20260318114000"), order(control="SC", state="IP", control_id="4", at="20260318114500"),
    )  # fmt: skip

    exam = (await site.find("Procedure"))[0]
    assert exam["status"] == "completed"
    assert exam["performedPeriod"] == {"start": "2026-03-18T11:05:00+01:00", "end": "2026-03-18T11:40:00+01:00"}
    assert (await site.order("ACC1"))["status"] == "completed"

    await site.apply(order(control="CA", control_id="5", at="20260318120000"))
    assert [one["cause"] for one in await site.errors()] == ["illegal status step"]
    assert (await site.order("ACC1"))["status"] == "completed"


# 028: results before their order


async def test_f028_a_result_waits_for_its_order_and_joins_by_itself(site: Site) -> None:
    assert await site.apply(result()) == ["AA"]
    assert [(one["state"], one["orders"][0]) for one in await site.errors()] == [
        ("unmatched", "urn:arcuate:id:accession|ACC1")
    ]
    assert await site.find("DiagnosticReport") == [] and await site.find("Patient") == []

    site.clock.advance(3600)
    await site.apply(order())
    assert [one["status"] for one in await site.find("DiagnosticReport")] == ["final"]
    assert await site.errors() == []


async def test_f028_a_result_whose_order_never_comes_is_shown_to_a_person(site: Site) -> None:
    await site.apply(result())
    site.clock.advance(8 * 86400)

    assert [(one["state"], one["cause"]) for one in await site.errors()] == [("parked", "no order came")]


async def test_f028_a_result_is_never_matched_by_name_alone(site: Site) -> None:
    await site.apply(order("ACC1"), result("ACC9").replace("|P1^RIS|ACC9", "||ACC9"))
    assert [one["state"] for one in await site.errors()] == ["unmatched"]


# Bookings


async def test_a_booking_is_made_moved_missed_and_made_again(site: Site) -> None:
    await site.apply(order(), booking())
    first = (await site.find("Appointment"))[0]
    assert first["status"] == "booked" and first["minutesDuration"] == 30
    assert (first["start"], first["end"]) == ("2026-03-18T11:00:00+01:00", "2026-03-18T11:30:00+01:00")
    assert first["basedOn"] == [{"reference": f"ServiceRequest/{(await site.order('ACC1'))['id']}"}]
    kinds = [participant["actor"]["reference"].split("/")[0] for participant in first["participant"]]
    assert kinds == ["Patient", "Location"]

    await site.apply(
        booking("S13", start="20260319080000", control_id="11", at="20260317120000"),
        booking("S26", start="20260319080000", status="Noshow", control_id="12", at="20260319090000"),
    )
    missed = (await site.find("Appointment"))[0]
    assert missed["status"] == "noshow" and missed["cancelationReason"]["text"] == "REASON"
    await site.apply(booking("S12", start="20260320080000", control_id="13", at="20260319100000"))
    again = (await site.find("Appointment"))[0]
    assert again["status"] == "booked" and again["start"].startswith("2026-03-20") and "cancelationReason" not in again


async def test_a_late_reschedule_changes_nothing(site: Site) -> None:
    await site.apply(
        order(), booking(), booking("S13", start="20260320080000", control_id="12", at="20260317150000"),
        booking("S13", start="20260319080000", control_id="11", at="20260317140000"),
    )  # fmt: skip

    assert (await site.find("Appointment"))[0]["start"].startswith("2026-03-20")
    assert (await site.journal())[-1]["messages"][0]["state"] == "ignored"


async def test_a_booking_before_its_order_is_linked_when_the_order_comes(site: Site) -> None:
    await site.apply(booking())
    assert "basedOn" not in (await site.find("Appointment"))[0]
    await site.apply(order())
    assert (await site.find("Appointment"))[0]["basedOn"] == [
        {"reference": f"ServiceRequest/{(await site.order('ACC1'))['id']}"}
    ]


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        ("S15", "Booked", "cancelled"),
        ("S17", "Deleted", "cancelled"),
        ("S14", "Arrived", "arrived"),
        ("S14", "Complete", "fulfilled"),
    ],
)
async def test_events_and_status_words_decide_the_booking(site: Site, event: str, status: str, code: str) -> None:
    await site.apply(booking(), booking(event, status=status, control_id="11", at="20260317120000"))
    made = (await site.find("Appointment"))[0]
    assert made["status"] == code
    if event == "S17":
        assert made["cancelationReason"]["coding"][0]["code"] == "oth-err"


# Visits, reports, laboratory


async def test_a_visit_arrives_with_a04(site: Site) -> None:
    await site.apply(registration("A04", visit="V77^^^HOSP^VN"))
    visit = (await site.find("Encounter"))[0]
    assert visit["status"] == "arrived" and visit["class"]["code"] == "AMB"
    assert visit["identifier"][0]["system"] == "urn:arcuate:id:visit:HOSP"


async def test_a_correction_replaces_the_report_and_a_late_preliminary_does_not(site: Site) -> None:
    await site.apply(
        order(), result(status="P", text="Preliminary words"), result(status="F", text="Final words", control_id="41", at="20260317130000"),
        result(status="C", text="Corrected words", control_id="42", at="20260317140000"),
        result(status="P", text="Old words", control_id="43", at="20260317125000"),
    )  # fmt: skip

    reports = await site.find("DiagnosticReport")
    assert [(report["status"], text_of(report)) for report in reports] == [("corrected", "Corrected words")]
    assert (await site.journal())[-1]["messages"][0]["state"] == "ignored"


async def test_a_laboratory_value_belongs_to_the_patient_without_an_order(site: Site) -> None:
    values = "OBX|1|NM|98979-8^eGFR CKD-EPI 2021^LN||54|mL/min/{1.73_m2}^^UCUM|||||F|||20260316080000\r"
    message = (
        "MSH|^~\\&|LAB|HOSP|ARCUATE|NEURO|20260317120000||ORU^R01|70|P|2.5.1\rPID|1||100^^^HOSP^MR||Doe^Jane||19800101|F\r"
        f"OBR|1|L1^LAB|L1^LAB|98979-8^eGFR^LN|||20260316080000|||||||||||||||||CH|F\r{values}"
    )
    await site.apply(message)
    value = (await site.find("Observation"))[0]
    assert value["valueQuantity"]["code"] == "mL/min/{1.73_m2}"
    assert value["subject"]["reference"] == f"Patient/{(await site.patient('100'))['id']}"
    assert await site.errors() == []


async def test_values_that_come_with_an_order_support_it(site: Site) -> None:
    await site.apply(order(more="OBX|1|NM|2160-0^Creatinine^LN||1.10|mg/dL|||||F\rNTE|1||claustrophobic\r"))
    request = await site.order("ACC1")
    observation = await site.fhir.read("Observation", request["supportingInfo"][0]["reference"].split("/")[1])
    assert str(observation["valueQuantity"]["value"]) == "1.10"
    assert request["note"] == [{"text": "claustrophobic"}]


async def test_a_repeated_state_writes_no_new_version(site: Site) -> None:
    await site.apply(
        order(),
        order(control="XO", control_id="2"),
        booking(),
        booking(control_id="11"),
        result(),
        result(control_id="41"),
    )
    for kind in ("Patient", "ServiceRequest", "Appointment", "DiagnosticReport"):
        assert [one["meta"]["versionId"] for one in await site.find(kind)] == ["1"], kind


async def test_values_in_loinc_need_no_order_though_their_section_is_not_said(site: Site) -> None:
    lab = (
        result("L77", text="x").split("OBX")[0]
        + "OBX|1|NM|33914-3^eGFR^LN||58|mL/min/1.73m2|>60|L|||F|||20260316080000\rOBX|2|ST|X^Remark^L||fasting||||||F\r"
    )
    await site.apply(lab)
    values = {one["code"]["text"]: one for one in await site.find("Observation")}
    assert values["eGFR"]["valueQuantity"]["value"] == 58
    assert values["eGFR"]["effectiveDateTime"] == "2026-03-16T08:00:00+01:00"
    assert await site.errors() == []


@pytest.mark.parametrize("section", ["MR", ""])
async def test_an_imaging_result_of_an_unknown_order_goes_on_waiting(site: Site, section: str) -> None:
    text = result("A77", text="Normal brain.").replace("|||F\r", f"||{section}|F\r", 1)
    value = "OBX|9|NM|33914-3^eGFR^LN||58|mL/min/1.73m2|>60|L|||F\r"
    await site.apply(text + value)
    assert await site.find("Observation") == []
    assert [one["state"] for one in await site.errors()] == ["unmatched"]
