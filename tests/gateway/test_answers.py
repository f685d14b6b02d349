"""Acknowledging (section 0, rows 008 to 010): nothing positive before the commit, codes by mode and profile."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.gateway.conftest import Site, open_site
from tests.gateway.messages import order

from arcuate.gateway import domain, profile
from arcuate.gateway.arrivals import SqliteKeeper
from arcuate.gateway.domain import Finding, Verdict
from arcuate.gateway.profile import Profile
from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.hl7v2 import ack, header
from arcuate.kernel.hl7v2.mllp import Framed, FrameReader, MllpClient, frame

NOW = datetime(2026, 3, 17, tzinfo=UTC)
FAULT = ack.Error("102", "Data type error", "MSH-2 cannot be read", "MSH^1^2")


def said(wire: bytes) -> list[str]:
    events = FrameReader().feed(wire)
    return [answer.code for event in events if isinstance(event, Framed) and (answer := ack.read(event.payload))]


def profile_of(content_fault: str = "AA", storage_fault: str = "AR") -> Profile:
    folder = profile.load().of("", "")
    values = {name: getattr(folder, name) for name in folder.__dataclass_fields__}
    return Profile(**{**values, "content_fault": content_fault, "storage_fault": storage_fault})


@pytest.mark.parametrize(
    ("accept", "application", "verdict", "content_fault", "codes"),
    [
        ("", "", Verdict.STORED, "AA", ["AA"]),
        ("", "", Verdict.CONTENT_FAULT, "AA", ["AA"]),
        ("", "", Verdict.CONTENT_FAULT, "AE", ["AE"]),
        ("", "", Verdict.NOT_FOR_US, "AA", ["AA"]),
        ("", "", Verdict.NOT_FOR_US, "AE", ["AR"]),
        ("", "", Verdict.NOT_STORED, "AA", ["AR"]),
        ("AL", "NE", Verdict.STORED, "AA", ["CA"]),
        ("AL", "AL", Verdict.STORED, "AA", ["CA", "AA"]),
        ("NE", "AL", Verdict.STORED, "AA", ["AA"]),
        ("NE", "NE", Verdict.STORED, "AA", []),
        ("SU", "ER", Verdict.STORED, "AA", ["CA"]),
        ("ER", "SU", Verdict.STORED, "AA", ["AA"]),
        ("AL", "AL", Verdict.CONTENT_FAULT, "AE", ["CA", "AE"]),
        ("AL", "ER", Verdict.CONTENT_FAULT, "AE", ["CA", "AE"]),
        ("AL", "SU", Verdict.CONTENT_FAULT, "AE", ["CA"]),
        ("AL", "AL", Verdict.CONTENT_FAULT, "AA", ["CA", "AA"]),
        ("AL", "AL", Verdict.NOT_FOR_US, "AE", ["CR"]),
        ("AL", "AL", Verdict.NOT_STORED, "AA", ["CE"]),
        ("ER", "AL", Verdict.NOT_STORED, "AA", ["CE"]),
        ("NE", "AL", Verdict.NOT_STORED, "AA", []),
        ("SL", "", Verdict.STORED, "AA", ["CA"]),
    ],
)  # fmt: skip
def test_f009_each_mode_has_its_codes(
    accept: str, application: str, verdict: Verdict, content_fault: str, codes: list[str]
) -> None:
    msh = header.read(f"MSH|^~\\&|A|B|C|D|2026||ORM^O01|77|P|2.5.1|||{accept}|{application}\r".encode())
    answer = domain.answer(msh, Finding(verdict, FAULT), profile_of(content_fault), "OWN", NOW)

    assert said(answer.wire) == codes
    assert answer.close == (verdict is Verdict.NOT_STORED and not codes)


def test_a_storage_fault_can_close_the_connection_instead() -> None:
    msh = header.read(order().encode())
    answer = domain.answer(
        msh, Finding(Verdict.NOT_STORED, ack.NOT_STORED), profile_of(storage_fault="close"), "OWN", NOW
    )
    assert (answer.wire, answer.close) == (b"", True)


def _pages(site: Site, most: int) -> None:
    """Let the door's file grow to so many pages and no further: a disk that is full."""
    assert isinstance(site.door.keeper, SqliteKeeper)
    site.door.keeper._own.execute(f"PRAGMA max_page_count = {most}")


async def test_f008_a_full_disk_is_never_acknowledged_positively_and_the_door_recovers(site: Site) -> None:
    _pages(site, 1)
    big = "NTE|1||" + "x" * 200_000 + "\r"
    plain, enhanced = (
        order(control_id="1") + big,
        order(control_id="2").replace("|2.5.1\r", "|2.5.1|||AL|AL\r", 1) + big,
    )
    assert await site.send(plain, enhanced) == ["AR", "CE"]
    assert "could not be stored" in str(site.parts.ready())
    assert await site.journal() == []

    _pages(site, 1_000_000)
    assert await site.apply(plain) == ["AA"]
    assert site.parts.ready() is None
    assert (await site.order("ACC1"))["status"] == "active"


async def test_f008_the_reason_stands_in_err(site: Site) -> None:
    _pages(site, 1)
    async with MllpClient("127.0.0.1", site.port, 20) as client:
        answer = (await client.send((order() + "NTE|1||" + "x" * 200_000).encode())).decode()
    assert "207^Application internal error^HL70357|E||||Not stored, send again" in answer


@pytest.mark.parametrize("kind", [b"ACK^O01", b"ACK", b"T", b""])
async def test_acknowledgements_are_journaled_and_never_answered(site: Site, kind: bytes) -> None:
    sent = b"MSH|^~\\&|X|Y|A|B|2026||" + kind + b"|5|P|2.5\rMSA|AA|nobody\r"
    async with MllpClient("127.0.0.1", site.port, 20) as client:
        assert await client.exchange(frame(sent), 0.2) is None
    await site.settle()
    assert [row["messages"][0]["state"] for row in await site.journal()] == ["acknowledgement"]


async def test_a_frame_without_header_is_stored_parked_and_refused(site: Site) -> None:
    assert await site.send(b"FHS|^~\\&|x\rEVN|A01\r", b"hello", b"MSH-4-1 and ORC-2 are empty.\r") == ["AR"] * 3
    assert [(one["cause"], one["state"]) for one in await site.errors()] == [("no header", "parked")] * 3


@pytest.mark.parametrize(
    ("message", "cause", "location"),
    [
        ("MSH|^~\\&|A|B|C|D|2026||ZZZ^Z01|1|P|2.5\rPID|1\r", "unknown message type", "MSH-9"),
        ("MSH|^~\\&|A|B|C|D|2026||ORM^O01|1|P|9.9\rPID|1\r", "unknown version", "MSH-12"),
        ("MSH|^~\\&|A|B|C|D|2026||ORM^O01|1|Q|2.5\rPID|1\r", "unknown processing id", "MSH-11"),
        ("MSH|0000|A|B|C|D|2026||ORM^O01|1|P|2.5\rPID|1\r", "unreadable", "MSH-2"),
        ("MSH|^~\\&|A|B|C|D|2026|||1|P|2.5\rPID|1\r", "no message type", "MSH-9"),
        ("MSH|^~\\&|A|B|C|D|2026||ORM^O01|1|P|2.5\rPID|1\rORC|NW|1\rOBR|1|1\r", "no patient", "PID-3"),
        ("MSH|^~\\&|A|B|C|D|2026||ORM^O01|1|P|2.5\rPID|1||7\rORC|NW\rOBR|1\r", "no order number", "ORC-2"),
        ("MSH|^~\\&|A|B|C|D|2026||SIU^S12|1|P|2.5\rPID|1||7\r", "no booking", "SCH"),
    ],
)  # fmt: skip
async def test_a_content_fault_is_named_by_field_and_never_blocks_the_sender(
    site: Site, message: str, cause: str, location: str
) -> None:
    assert await site.apply(message, order(control_id="2")) == ["AA", "AA"]
    assert [(one["cause"], one["location"]) for one in await site.errors()] == [(cause, location)]
    assert (await site.order("ACC1"))["status"] == "active"


async def test_a_sender_that_can_bear_it_gets_negative_answers(tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "picky.toml").write_text(
        'name = "picky"\n[sender]\napplication = "PICKY"\n[answers]\ncontent_fault = "AE"\n'
    )
    async with open_site(tmp_path / "data", GatewaySettings(port=0, profiles_dir=folder)) as site:
        broken = "MSH|0000|PICKY|B|C|D|2026||ORM^O01|1|P|2.5\rPID|1\r"
        unknown = "MSH|^~\\&|PICKY|B|C|D|2026||ZZZ^Z01|2|P|2.5\rPID|1\r"
        assert await site.send(broken, unknown, broken.replace("PICKY", "OTHER")) == ["AE", "AR", "AA"]
        assert [row["profile"] for row in await site.journal()] == ["picky", "picky", "default"]


async def test_f010_a_batch_is_one_row_and_its_messages_count_one_by_one(site: Site) -> None:
    broken = "MSH|^~\\&|A|B|C|D|2026||ORM^O01|x|P|2.5\rPID|1\r"
    inside = order("ACC1", control_id="1") + broken + order("ACC2", control_id="3", placer="P2")
    assert await site.apply(f"FHS|^~\\&|RIS\rBHS|^~\\&|RIS\r{inside}BTS|99\rFTS|1\r") == ["AA"]

    row = (await site.journal())[0]
    assert [one["state"] for one in row["messages"]] == ["applied", "parked", "applied"]
    assert row["warning"] == "BTS-1 says 99, the batch holds 3"
    assert {codes["value"] for o in await site.find("ServiceRequest") for codes in o["identifier"][:1]} == {
        "ACC1",
        "ACC2",
    }
