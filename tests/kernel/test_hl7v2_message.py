"""Reading (rows 018, 020, 022): nothing is lost, and what is read is what the sender meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.kernel.errors import BadInput
from arcuate.kernel.hl7v2 import header, inspect
from arcuate.kernel.hl7v2.message import Message, split

ORDER = (
    "MSH|^~\\&|RIS|HOSP|PACS|RAD|20260101120000||ORM^O01|1|P|2.5.1\r"
    "PID|1||123^^^HOSP^MR~9^^^EPIC||Doe^Jane\r"
    "ORC|NW|P1|A1\r"
    "OBR|1|P1|A1|MRBR^MR Brain^L\r"
    "ZDS|1.2.3^100\r"
)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_and_come_back_unchanged(raw: bytes) -> None:
    assert Message.parse(raw).encode() == raw
    assert Message.parse(b"MSH|^~\\&|" + raw).encode() == b"MSH|^~\\&|" + raw


@given(
    st.lists(
        st.sampled_from(["MSH|^~\\&|A|B", "PID|1||2", "OBX|1|TX||x", "text", "", "PV1", "\ufeff", "é"]), max_size=8
    ),
    st.lists(st.sampled_from(["\r", "\n", "\r\n", "\r\r\n", "\n\n"]), min_size=8, max_size=8),
)
def test_any_mixture_of_lines_and_line_ends_comes_back_unchanged(lines: list[str], ends: list[str]) -> None:
    raw = "".join(line + end for line, end in zip(lines, ends, strict=False)).encode()

    assert Message.parse(raw).encode() == raw
    assert b"".join(split(raw).messages) in raw


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r\n", "\n\n", "\n\r"])
def test_f020_every_line_end_gives_the_same_order(end: str) -> None:
    message = Message.parse(ORDER.replace("\r", end).encode())

    assert [segment.id for segment in message] == ["MSH", "PID", "ORC", "OBR", "ZDS"]
    assert message.value("OBR-3") == "A1"


@pytest.mark.parametrize(
    ("field", "encoding"),
    [
        ("|", "^~\\&"),
        ("|", "^~\\&#"),
        ("|", "^~\\"),
        ("|", "^~\\\\&"),
        ("|", "^~&"),
        ("#", "@~\\&"),
        ("^", "~|\\&"),
        ("|", "^~\\$"),
    ],
)
def test_f020_delimiters_are_those_of_the_message(field: str, encoding: str) -> None:
    text = ORDER.replace("MSH|^~\\&", "MSH<>")
    text = text.replace("^", "\x01").replace("~", "\x02").replace("|", field).replace("\x01", encoding[0])
    message = Message.parse(text.replace("\x02", encoding[1]).replace("<>", field + encoding).encode())

    assert message.value("PID-3.4") == "HOSP"
    assert message.value("PID-3[2].1") == "9"
    assert message.value("OBR-4.2") == "MR Brain"


@pytest.mark.parametrize("encoding", ["0000", "^000", "????", "^", ""])
def test_f020_impossible_delimiters_are_named_and_the_bytes_kept(encoding: str) -> None:
    raw = f"MSH|{encoding}|A\rPID|1\r".encode()
    message = Message.parse(raw)

    assert next(fault.location for fault in inspect.faults(message) if fault.grave) == "MSH-2"
    assert message.encode() == raw


@pytest.mark.parametrize(
    "prose", ["MSH-4-1, ORC-2 and the rest are empty", "MSH. See below.", "MSH - none", "MSH/FHS segments"]
)
def test_prose_about_a_header_is_no_header(prose: str) -> None:
    assert header.read(prose.encode()) is None and split(prose.encode()).messages == ()
    assert Message.parse(prose.encode()).header is None
    raw = f"MSH|^~\\&|A|B\rOBX|1|TX|||See\n{prose}\nbelow|||F\r".encode()
    message = Message.parse(raw)
    assert [segment.id for segment in message] == ["MSH", "OBX"]
    assert split(raw).messages == (raw,) and message.value("OBX-8") == "F" and message.encode() == raw


def test_a_line_feed_inside_a_field_belongs_to_the_field() -> None:
    raw = b"MSH|^~\\&|A\nOBX|1|TX|||first line\n\nsecond|line\nDX: none|||F\nPV1\n"
    message = Message.parse(raw)

    assert [segment.id for segment in message] == ["MSH", "OBX", "PV1"]
    assert message.segments[1][5].text == "first line\n\nsecond"


def test_segment_ids_in_small_letters_are_segments() -> None:
    message = Message.parse(b"MSH|^~\\&|A\rpid|1||77\r")

    assert message.value("PID-3") == "77"
    assert message.encode() == b"MSH|^~\\&|A\rpid|1||77\r"


def test_byte_order_mark_blank_lines_and_white_space_in_front_are_no_content() -> None:
    message = Message.parse(b"\xef\xbb\xbf \r\n" + ORDER.encode())

    assert message.header is not None
    assert message.value("MSH-10") == "1"


def test_f022_null_is_told_from_empty() -> None:
    message = Message.parse(b'MSH|^~\\&|A\rPID|1||2||Doe^""||""||||\r')

    assert message.null("PID-7") and message.value("PID-7") == ""
    assert message.null("PID-5.2") and message.value("PID-5.2") == ""
    assert not message.null("PID-8") and message.value("PID-8") == ""


@pytest.mark.parametrize("name", ["José", "Łukasz", "Иван", "李", "Müller"])
@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-8", ""), ("utf-8", "8859/1"), ("utf-8", "UNICODE UTF-8"), ("utf-8", "ASCII")]
)
def test_f018_valid_utf_8_is_believed_whatever_msh_18_says(name: str, encoding: str, said: str) -> None:
    raw = f"MSH|^~\\&|A|||||||1|P|2.5||||||{said}\rPID|1||2||{name}^X\r".encode(encoding)
    message = Message.parse(raw)

    assert message.value("PID-5.1") == name
    assert (message.charset.name, message.charset.source) == ("utf-8", "bytes")


@pytest.mark.parametrize(
    ("name", "encoding", "said", "source"),
    [
        ("José", "iso8859-1", "8859/1", "MSH-18"),
        ("Łukasz", "iso8859-2", "8859/2", "MSH-18"),
        ("Иван", "iso8859-5", "8859/5", "MSH-18"),
        ("José", "cp1252", "", "default"),
        ("José", "cp1252", "ASCII", "default"),
        ("José", "cp1252", "nonsense", "default"),
    ],
)
def test_f018_then_msh_18_then_the_default_and_it_is_recorded(name: str, encoding: str, said: str, source: str) -> None:
    raw = f"MSH|^~\\&|A|||||||1|P|2.5||||||{said}\rPID|1||2||{name}^X\r".encode(encoding)
    message = Message.parse(raw)

    assert message.value("PID-5.1") == name
    assert message.charset.source == source
    assert message.encode() == raw


def test_f018_a_profile_overrides_all_and_what_fits_nothing_is_named() -> None:
    cyrillic = "MSH|^~\\&|A|||||||1|P|2.5\rPID|1||2||Иван\r".encode("cp1251")
    assert Message.parse(cyrillic, charset="cp1251").value("PID-5.1") == "Иван"

    broken = b"MSH|^~\\&|A\rPID|1||2||\x81\x8d\xff\r"
    message = Message.parse(broken)
    assert message.encode() == broken
    assert inspect.faults(message)[0].location == "MSH-18"


def test_a_wrong_path_says_how_a_path_is_written() -> None:
    with pytest.raises(BadInput, match=r"PID-3\.1"):
        Message.parse(ORDER.encode()).value("PID3")


def test_a_batch_is_cut_into_its_messages_and_its_count_is_compared() -> None:
    frame = split(b"FHS|^~\\&\rBHS|^~\\&\r" + ORDER.encode() * 3 + b"BTS|2\rFTS|1\r")

    assert len(frame.messages) == 3
    assert frame.messages[1] == ORDER.encode()
    assert frame.batch and frame.miscounted


def test_several_messages_without_a_header_are_cut_and_one_alone_keeps_what_stands_around_it() -> None:
    raw = b"\r\n" + ORDER.encode().replace(b"\r", b"\n") + b"\n"

    assert split(raw).messages == (raw,)
    assert [Message.parse(one).value("MSH-10") for one in split(raw + raw).messages] == ["1", "1"]
    assert split(b"FHS|^~\\&\rEVN|A01\r").messages == ()


@pytest.mark.parametrize(
    ("said", "known"), [("2.9", True), ("2.3\r# a comment of the sender", True), ("2.999", False), ("", True)]
)
def test_the_version_is_read_though_a_stray_line_follows_it(said: str, known: bool) -> None:
    message = Message.parse(f"MSH|^~\\&|A|B|C|D|2026||ADT^A01|1|P|{said}\rPID|1\r".encode())
    assert ("203" not in [fault.code for fault in inspect.faults(message)]) is known
