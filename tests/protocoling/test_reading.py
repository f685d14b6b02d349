"""What is understood of an indication, and what is denied in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.protocoling.lexicon import Lexicon, load_lexicon, phrase_pattern
from arcuate.protocoling.reading import LIMIT, read
from arcuate.protocoling.statements import durations_days, said_egfr, said_persons, said_weeks, spinal_levels

LEXICON = load_lexicon()


@pytest.mark.parametrize(
    ("text", "concept", "said"),
    [
        ("new seizures", "seizure", True),
        ("no seizures", "seizure", False),
        ("denies seizures, headache or fever", "headache", False),
        ("denies headache, new seizures", "seizure", True),
        ("no headache, seizure, or fever", "seizure", False),
        ("no fever but seizures since May", "seizure", True),
        ("seizure: no", "seizure", False),
        ("seizures ruled out", "seizure", False),
        ("mother with seizures", "seizure", False),
        ("no change in seizures", "seizure", True),
        ("r/o seizure", "seizure", True),
        ("seizure?", "seizure", True),
        ("without headache. seizures", "seizure", True),
        ("KEINE Angaben", "seizure", False),
    ],
)
def test_denied_and_said(text: str, concept: str, said: bool) -> None:
    assert read(text, LEXICON).says(concept) is said


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("left arm pain", {("left", "arm")}),
        ("pain L arm", {("left", "arm")}),
        ("r/o stroke", set()),
        ("right handed, LBP", set()),
        ("L-spine pain", set()),
        ("hearing loss right", {("right", "ear")}),
        ("weakness L>R", {("bilateral", "body")}),
        ("s/p L mastectomy, R arm weakness", {("left", "chest"), ("right", "arm")}),
        ("L4-5 stenosis", set()),
    ],
)
def test_sides(text: str, sides: set[tuple[str, str]]) -> None:
    assert {(s.side, s.group) for s in read(text, LEXICON).sides} == sides


def test_a_person_is_taken_from_the_text_but_a_relative_or_an_earlier_age_is_not() -> None:
    assert [(p.age_years, p.sex) for p in said_persons("38 y/o male with ha")] == [(38.0, "male")]
    assert [(p.age_years, p.sex) for p in said_persons("62f with vertigo")] == [(62.0, "female")]
    assert said_persons("seizures since 6 y/o, father died at 40 yo, brother is a 30 yo male") == ()
    assert said_persons("6m f/u, 3 m fall") == ()


def test_numbers_of_the_text() -> None:
    assert durations_days("lbp x 3 wks") == (21.0,)
    assert durations_days("6 month f/u") == ()
    assert said_weeks("g2p1 at 30 wks") == 30
    assert said_weeks("pain for 9 wks") is None
    found = said_egfr("ckd, egfr is now <15")
    assert found is not None
    assert found.value == 14
    assert spinal_levels("c5-6 and l4/5; t2 hyperintense lesion") == ("cervical spine", "lumbar spine")


def test_a_text_over_the_limit_is_cut_and_says_so() -> None:
    reading = read("seizure " * LIMIT, LEXICON)
    assert reading.cut
    assert reading.says("seizure")


@given(st.text(max_size=300))
def test_no_text_stops_the_reading(text: str) -> None:
    read(text, LEXICON)
    said_persons(text.lower())
    durations_days(text.lower())
    spinal_levels(text.lower())


@given(st.text(alphabet="noder ,.;?lr/:seizure-()\n", max_size=4000))
def test_texts_of_cue_words_are_read_without_failing(text: str) -> None:
    read(text, LEXICON)


@pytest.mark.parametrize("phrase", ["", "  ", ".. leads", "(neck", "a)b("])
def test_a_broken_phrase_is_refused_by_name(phrase: str) -> None:
    from arcuate.kernel.errors import BadInput

    with pytest.raises(BadInput):
        phrase_pattern(phrase)


def test_every_concept_can_be_found_by_something(rulebook: object) -> None:
    lexicon: Lexicon = LEXICON
    for concept in lexicon.concepts.values():
        assert concept.words is not None or concept.icd10 or concept.snomed, concept.name
