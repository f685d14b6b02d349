"""Acknowledgements echo MSH-10 byte for byte; what we send is valid, and its text cannot become structure."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.kernel.errors import Defect
from arcuate.kernel.hl7v2 import ack, build, header
from arcuate.kernel.hl7v2.build import segment
from arcuate.kernel.hl7v2.message import Message

NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize("control_id", [b"MSG1", b"9.8.7^6&5", b"caf\xe9", b" 12 ", b"", b"x" * 300])
@pytest.mark.parametrize(
    "head", [b"MSH|^~\\&|A|B|C|D|20260101||", b"MSH#@~\\&#A#B#C#D#20260101##", b"\xef\xbb\xbf\r\nMSH|^~\\&#|A|B|C|D|||"]
)
def test_msa_2_is_the_senders_msh_10_byte_for_byte(head: bytes, control_id: bytes) -> None:
    sep = b"#" if b"MSH#" in head else b"|"
    msh = header.read(head + sep.join([b"ADT^A01", control_id, b"P", b"2.5"]) + b"\rPID|1\r")
    assert msh is not None
    said = ack.read(ack.build(msh, "AA", "OWN1", NOW))

    assert said is not None
    assert (said.code, said.control_id) == ("AA", control_id)
    own = header.read(ack.build(msh, "AA", "OWN1", NOW))
    assert own is not None and own.control_id == b"OWN1"


def test_an_answer_goes_back_to_where_the_message_came_from_and_says_why_it_refuses() -> None:
    msh = header.read(b"MSH|^~\\&|RIS|HOSP|ARC|NEURO|20260101||ORM^O01^ORM_O01|5|T|2.4\rPID|1\r")
    answer = Message.parse(ack.build(msh, "AR", "OWN1", NOW, ack.NOT_STORED))

    assert [answer.value(f"MSH-{n}") for n in (3, 4, 5, 6, 11, 12)] == ["ARC", "NEURO", "RIS", "HOSP", "T", "2.4"]
    assert answer.value("MSH-9.2") == "O01"
    assert (
        answer.value("ERR-3.1") == "207"
        and answer.value("ERR-4") == "E"
        and answer.value("ERR-8") == "Not stored, send again"
    )
    assert answer.value("MSA-3") == "Not stored, send again"


def test_a_frame_without_header_is_answered_all_the_same() -> None:
    said = ack.read(ack.build(None, "AR", "OWN1", NOW, ack.NO_HEADER))
    assert said is not None and (said.code, said.control_id, said.text) == ("AR", b"", "No MSH segment")


def test_the_content_is_equal_when_only_msh_7_differs() -> None:
    one, two, other = (
        b"MSH|^~\\&|A|B|C|D|%s||ADT^A08|5|P|2.5\rPID|%d\r" % (time, number)
        for time, number in ((b"20260101", 1), (b"20260102123000", 1), (b"20260101", 2))
    )
    assert header.content_hash(one, header.read(one)) == header.content_hash(two, header.read(two))
    assert header.content_hash(one, header.read(one)) != header.content_hash(other, header.read(other))


@pytest.mark.parametrize("raw", [b"", b"PID|1", b"MSH", b"MSH|", b"MSH\r", b"MSHX^~", b"\x00\x01"])
def test_what_is_no_header_or_a_short_one_does_not_fail(raw: bytes) -> None:
    msh = header.read(raw)
    ack.build(msh, "AA", "OWN1", NOW)


def _report(text: str) -> bytes:
    envelope = build.Envelope("ORU", "R01", "ORU_R01", "OWN1", NOW, ZoneInfo("Europe/Zurich"), to_application="DICT")
    return build.message(envelope, [
        segment("PID", {1: "1", 3: ("123", "", "", "HOSP", "MR"), 5: ("Doe", "Jane")}),
        segment("OBR", {1: "1", 3: "A1", 4: ("MRBR", "MR Brain", "L"), 25: "P"}),
        segment("OBX", {1: "1", 2: "TX", 3: ("18748-4", "Diagnostic imaging study", "LN"), 5: text, 11: "P"}),
    ])  # fmt: skip


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_f019_report_text_comes_back_equal_from_our_own_message(text: str) -> None:
    message = Message.parse(_report(text))

    assert [one.id for one in message] == ["MSH", "PID", "OBR", "OBX"]
    assert message.segments[3][5].text == text


@pytest.mark.parametrize("text", ["A & B", "4\\5", "a\rPID|2||666", "\\F\\", "two\nlines", "5 > 3 ^ 2 ~ 1 | 0"])
def test_what_we_build_is_valid_in_the_eyes_of_hl7apy(text: str) -> None:
    build.check(_report(text))


def test_an_invalid_message_of_ours_is_a_defect_that_names_the_place() -> None:
    envelope = build.Envelope("ORU", "R01", "ORU_R01", "OWN1", NOW, ZoneInfo("Europe/Zurich"))
    with pytest.raises(Defect, match="OBR"):
        build.check(build.message(envelope, [segment("OBR", {1: "1"}), segment("OBX", {1: "1", 2: "TX"})]))
