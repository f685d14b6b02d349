"""Profiles of senders as data, and what a profile makes of sample messages before it goes live."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from tests.gateway.messages import booking, order, registration, result

from arcuate.gateway import preview, profile
from arcuate.gateway.mapping import plan
from arcuate.gateway.mapping.model import Standing
from arcuate.gateway.outgoing import oru
from arcuate.kernel.errors import BadInput

ZURICH = ZoneInfo("Europe/Zurich")


def own(folder: Path, text: str) -> profile.Profile:
    path = folder / "cerner.toml"
    path.write_text('name = "own"\n' + text)
    return profile.read(path)


def one(text: str, used: profile.Profile | None = None) -> preview.Preview:
    (found,) = preview.preview(text.encode(), used or profile.read(), ZURICH)
    return found


def test_a_preview_says_what_a_message_becomes() -> None:
    shown = one(order())
    assert shown.outcome == "applied: patient new; order new"
    assert any("100 (patient:HOSP); Doe, Jane; born 1980-01-01; female" in line for line in shown.lines)
    assert any("ACC1 (accession)" in line and "planned 2026-03-18T11:00:00+01:00" in line for line in shown.lines)
    assert one(booking()).lines[-1].endswith("booked; 2026-03-18T11:00:00+01:00 to 2026-03-18T11:30:00+01:00")


def test_a_result_is_shown_as_though_its_order_were_known() -> None:
    shown = one(result(text="Normal brain."))
    assert "report new (final)" in shown.outcome
    assert any("1 order(s)" in line and "Normal brain." in line for line in shown.lines)


def test_a_place_that_says_something_else_is_named() -> None:
    doubtful = order().replace("|ACC1|RP1|SPS1|", "|OTHER7|RP1|SPS1|")
    assert any("OBR-18.1 OTHER7 was taken, not OBR-3.1 ACC1" in doubt for doubt in one(doubtful).doubts)


def test_a_profile_decides_where_the_numbers_live_and_what_times_mean(tmp_path: Path) -> None:
    used = own(
        tmp_path,
        '[reading]\ntime_zone = "America/New_York"\n[[accession]]\npath = "OBR-20.1"\n[order_control]\nNW = "status"\n'
        '[priority_map]\n"7" = "stat"\n',
    )
    shown = one(order().replace("^^R||||", "^^7||||"), used)
    line = next(line for line in shown.lines if line.startswith("order"))
    assert "SPS1 (accession)" in line and "planned 2026-03-18T11:00:00-04:00" in line and "; stat;" in line


def test_a_message_of_another_sender_is_named(tmp_path: Path) -> None:
    used = own(tmp_path, '[sender]\napplication = "CERNER*"\n')
    assert one(order(), used).doubts == ("not a sender of this profile",)


def test_what_waits_for_a_person_says_where(tmp_path: Path) -> None:
    shown = one(order().replace("|19800101|", "|yesterday|"))
    assert shown.outcome.startswith("parked:") and "PID-7" in shown.outcome


@pytest.mark.parametrize(
    "text",
    [
        "[[accession]]\npath = 'nowhere'\n",
        "[answers]\ncontent_fault = 'maybe'\n",
        "[reading]\ntime_zone = 'Mars'\n",
        "[order_control]\nNW = 'neww'\n",
        "[booking_status]\nHere = 'here'\n",
        "[procedure_map]\nMRBR = ' '\n",
        "[location_map]\nMR1 = 2\n",
        "= =",
    ],
)
def test_a_profile_with_a_fault_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput) as refused:
        own(tmp_path, text)
    assert refused.value.what


def test_files_are_counted_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text(order())
    (tmp_path / "b.hl7").write_text("no HL7 at all")
    lines = list(preview.report(sorted(tmp_path.glob("*.hl7")), profile.read(), ZURICH))
    assert lines[-1] == "applied 1  parked 1"


def test_an_unknown_priority_word_does_not_hide_stat() -> None:
    text = order().replace("ORC|NW|P1^RIS|ACC1^RIS||||||", "ORC|NW|P1^RIS|ACC1^RIS||||^^^^^Someday||")
    text = text.replace("OBR|1|", "TQ1|1||||||||S^Stat^HL70485\rOBR|1|")
    assert "; stat;" in next(line for line in one(text).lines if line.startswith("order"))
    assert "; stat;" in next(line for line in one(text.replace("S^Stat", "9^STAT")).lines if line.startswith("order"))


def test_text_that_answers_several_questions_says_which() -> None:
    shown = result(text="x").split("OBX")[0] + (
        "OBX|1|TX|F^Findings||No bleed.||||||F\rOBX|2|TX|F^Findings||No mass.||||||F\rOBX|3|TX|I^Impression||Normal.||||||F\r"
    )
    used = profile.read()
    (line,) = [line for line in one(shown, used).lines if line.startswith("report")]
    assert "Findings:\\nNo bleed.\\nNo mass.\\nImpression: Normal." in line


MAPS = '[procedure_map]\nMRBR = "MR-BRAIN-WO"\n[location_map]\n"MR1" = "Scanner 2"\n"MRI" = "HOSP|Waiting room"\n'


def test_a_profile_says_what_the_house_calls_an_exam_and_a_place(tmp_path: Path) -> None:
    used = own(tmp_path, MAPS)
    assert any("; MR Brain [MRBR, house MR-BRAIN-WO];" in line for line in one(order(), used).lines)
    booked = one(booking(), used).lines
    assert any("; MR Brain [MRBR, house MR-BRAIN-WO]; booked;" in line for line in booked)
    assert any("Scanner 2 (location:house); Scanner 2" in line for line in booked)
    assert any(line.endswith("; Waiting room") for line in one(registration("A01", visit="V1"), used).lines)
    reported = one(result().replace("MRBR^MR Brain^L", "70551^Brain^C4^MRBR^MR Brain^L"), used)
    assert "report new (final)" in reported.outcome and not reported.doubts


def test_the_senders_own_code_of_an_exam_stays_first_so_that_it_is_what_goes_back(tmp_path: Path) -> None:
    message = own(tmp_path, MAPS).parse(order().encode())
    context = plan.Context.of(message, own(tmp_path, MAPS), ZURICH, datetime(2026, 3, 17, tzinfo=UTC))
    mapped, _ = plan.apply("order", context, Standing())
    (made,) = [entry.resource for entry in mapped.entries if entry.resource and "code" in entry.resource]
    assert [coding["code"] for coding in made["code"]["coding"]] == ["MRBR", "MR-BRAIN-WO"]
    assert oru.coded(made["code"])[0] == "MRBR"


def test_codes_that_no_map_knows_are_named(tmp_path: Path) -> None:
    used = own(tmp_path, '[procedure_map]\nCTHD = "CT-HEAD"\n[location_map]\n"MR9" = "Scanner 9"\n')
    doubts = one(order(control="QQ", state="ZZ"), used).doubts
    assert {"ORC-1 QQ is not in order_control", "ORC-5 ZZ is not in order_status"} <= set(doubts)
    assert "OBR-4 MR Brain is not in procedure_map" in doubts
    booked = one(booking(status="Perhaps"), used).doubts
    assert {"SCH-25 Perhaps is not in booking_status", "AIL-3 MR1 is not in location_map"} <= set(booked)
    assert {"OBR-25 Q is not in result_status", "OBX-11 Q is not in observation_status"} <= set(
        one(result(status="Q"), used).doubts
    )


def test_each_status_of_a_sender_can_be_given_a_meaning(tmp_path: Path) -> None:
    used = own(
        tmp_path,
        '[order_control]\nQQ = "cancel"\nNW = "status"\n[order_status]\nDONE = "completed"\n[exam_status]\nDONE = "completed"\n'
        '[result_status]\nZ = "preliminary"\n[observation_status]\nZ = ""\n[booking_status]\nHere = "arrived"\n',
    )
    assert one(order(control="QQ"), used).outcome.startswith("waits: The order is not known yet; the cancellation")
    assert "exam completed" in one(order(state="DONE"), used).outcome
    assert "(preliminary)" in one(result(status="Z"), used).outcome
    assert any("; 0 value(s); ; begins: ''" in line for line in one(result(status="Z"), used).lines)
    assert "(arrived)" in one(booking(status="HERE"), used).outcome
