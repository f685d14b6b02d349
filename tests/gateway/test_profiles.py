"""Profiles of senders as data, and what a profile makes of sample messages before it goes live."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from tests.gateway.messages import booking, order, result

from arcuate.gateway import preview, profile
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
