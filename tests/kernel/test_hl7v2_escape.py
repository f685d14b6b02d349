"""Escape sequences (row 019): decoded once and only once, unknown ones kept, and no text can forge a segment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.kernel.hl7v2 import escape
from arcuate.kernel.hl7v2.delimiters import Delimiters
from arcuate.kernel.hl7v2.message import Message

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (r"A \T\ B", "A & B"),
        (r"4\E\5", "4\\5"),
        (r"\F\\S\\R\\T\\E\ ", "|^~&\\ "),
        (r"line one\.br\line two", "line one\nline two"),
        (r"\X0D\\X0A\end", "\r\nend"),
        (r"\H\high\N\ light", "high light"),
        (r"https://a.example/?x=1\T\y=2", "https://a.example/?x=1&y=2"),
        (r"three\.sp3\lines", "three\n\n\nlines"),
        (r"\E\F\E\ ", "\\F\\ "),
    ],
)
def test_f019_sequences_mean_what_chapter_2_7_says(sent: str, meant: str) -> None:
    assert escape.decode(sent) == meant


@pytest.mark.parametrize(
    "kept", [r"4\5", r"C:\temp\file", r"\Zlocal1\ ", r"\Q\ ", "ends with \\", r"\X0\ ", r"\C2842\ ", r"\XZZ\ "]
)
def test_f019_what_is_no_sequence_stays_as_it_was_sent(kept: str) -> None:
    assert escape.decode(kept) == kept


def test_f019_an_unclosed_escape_does_not_swallow_the_next_sequence() -> None:
    assert escape.decode(r"4\5\F\6") == "4\\5|6"


def test_f019_bytes_of_one_character_sent_one_by_one_are_read_together() -> None:
    assert escape.decode(r"OPERA\XC7\\XC3\O", codecs=("utf-8", "iso8859-1")) == "OPERAÇÃO"
    assert escape.decode(r"\XC3\\X89\cole") == "École"


@given(TEXT)
def test_f019_any_text_goes_out_and_comes_back_equal(text: str) -> None:
    assert escape.decode(escape.encode(text)) == text


@given(TEXT, st.permutations("|^~\\&#@$%!").map(lambda signs: Delimiters(*signs[:6])))
def test_f019_any_text_survives_any_delimiters(text: str, delimiters: Delimiters) -> None:
    assert escape.decode(escape.encode(text, delimiters), delimiters) == text


def test_f022_two_quotes_as_text_do_not_delete_what_the_receiver_has() -> None:
    quotes = '""'
    message = Message.parse(f"MSH|^~\\&|A\rOBX|1|TX|||{escape.encode(quotes)}\r".encode())
    assert message.value("OBX-5") == quotes
    assert not message.null("OBX-5")


@given(TEXT)
def test_no_text_can_end_its_field_its_segment_or_its_frame(text: str) -> None:
    written = f"MSH|^~\\&|A\rOBX|1|TX|||{escape.encode(text)}|||after\r"
    message = Message.parse(written.encode())

    assert [segment.id for segment in message] == ["MSH", "OBX"]
    assert message.segments[1][5].text == text
    assert message.value("OBX-8") == "after"
    assert not set(escape.encode(text)) & set("\r\n\x0b\x1c")
