"""Dictation reads drafts that are drafts of its cases, and nothing else."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from arcuate.hospital.dictation import Draft, completed, load_words, read_draft
from arcuate.hospital.morning import Morning, make_morning

from .house_double import draft_message

NOW = datetime(2026, 3, 17, 11, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def morning() -> Morning:
    return make_morning(7, NOW, ZoneInfo("Europe/Zurich"))


def test_a_signed_report_is_no_draft(morning: Morning) -> None:
    case = morning.cases[0]
    raw = draft_message(case.accession, case.person.number, ["x"], sent=NOW, control_id="1").replace(b"|P|", b"|F|")
    assert read_draft(raw, {case.accession: case}) is None


def test_a_draft_of_an_unknown_case_is_left_alone(morning: Morning) -> None:
    raw = draft_message("ELSE1", "S1", ["x"], sent=NOW, control_id="1")
    assert read_draft(raw, {morning.cases[0].accession: morning.cases[0]}) is None


@pytest.mark.parametrize(
    ("line", "measured"), [("Hippocampus, left: 3.1 mL", True), ("small", False), ("12ml", True), ("email", False)]
)
def test_volumes_are_seen_in_a_draft(line: str, measured: bool) -> None:
    assert Draft("A", ("FINDINGS", line), "").measured is measured


def test_gaps_are_filled_and_the_draft_mark_goes() -> None:
    words = load_words()
    lines = (
        "DRAFT, not signed.",
        "FINDINGS",
        "3 mL",
        "[Findings: to be dictated]",
        "",
        "IMPRESSION",
        "[Impression: to be dictated]",
        "",
    )
    assert completed(Draft("A", lines, ""), words) == ("FINDINGS", "3 mL", words.findings, "", "IMPRESSION")
    assert completed(Draft("A", (), ""), words)[-1] == "IMPRESSION"
