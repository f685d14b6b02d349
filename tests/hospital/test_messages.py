"""What the hospital says over HL7 is right on the wire."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from arcuate.hospital.messages import Writer
from arcuate.hospital.morning import Case, Kind, Morning, make_morning
from arcuate.hospital.telling import tell
from arcuate.kernel.hl7v2 import build, header
from arcuate.kernel.hl7v2.message import Message

ZURICH = ZoneInfo("Europe/Zurich")
NOON = datetime(2026, 3, 17, 11, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def morning() -> Morning:
    return make_morning(7, NOON, ZURICH)


@pytest.fixture(scope="module")
def everything(morning: Morning) -> list[bytes]:
    writer = Writer(ZURICH)
    said = [raw for s in morning.steps if s.kind is not Kind.IMAGES for raw in tell(s, s.case.slot, writer).messages]
    case = morning.cases[0]
    final = writer.final_report(
        case, NOON, ["FINDINGS: a & b | c ^ d ~ e \\ f", "", "right side"], "Invented.", "Reader-01"
    )
    return [*said, final, writer.laboratory(case, NOON, 55)]


def _case(morning: Morning, key: str) -> Case:
    return next(c for c in morning.cases if c.key == key)


def test_the_same_event_is_the_same_message_and_every_event_has_its_own_number(
    morning: Morning, everything: list[bytes]
) -> None:
    writer = Writer(ZURICH)
    case = morning.cases[0]
    assert writer.order(case, NOON) == writer.order(case, NOON)
    numbers = [Message.parse(raw).first("MSH")[10].value for raw in everything]  # type: ignore[index]
    assert len(set(numbers)) == len(numbers)
    assert all(len(n) <= 20 for n in numbers)


def test_an_order_carries_its_numbers_where_the_default_profile_reads_them(morning: Morning) -> None:
    case = _case(morning, "memory")
    message = Message.parse(Writer(ZURICH).order(case, NOON))
    obr, orc = message.first("OBR"), message.first("ORC")
    assert obr is not None
    assert orc is not None
    assert obr[18].value == obr[3].component(1) == orc[3].component(1) == case.accession
    assert orc[2].component(1) == case.placer
    assert (obr[4].component(1), obr[4].component(3)) == ("MRBR0", "99ARCUATE")
    assert obr[31].component(2) == case.indication


def test_a_booking_names_its_order_and_its_status(morning: Morning) -> None:
    case = _case(morning, "memory")
    sch = Message.parse(Writer(ZURICH).booking("S14", case, NOON, case.slot, status="Arrived")).first("SCH")
    assert sch is not None
    assert (sch[26].component(1), sch[27].component(1)) == (case.placer, case.accession)
    assert sch[25].component(1) == "Arrived"
    assert sch[11].component(4).startswith(f"{case.slot.astimezone(ZURICH):%Y%m%d%H%M}")


def test_text_with_delimiters_comes_back_as_it_was(everything: list[bytes]) -> None:
    final = next(Message.parse(raw) for raw in everything if b"FINDINGS" in raw)
    obx = [segment[5].text for segment in final if segment.id == "OBX"]
    assert obx[0] == "FINDINGS: a & b | c ^ d ~ e \\ f"
    assert obx[-1] == "Invented."


def test_a_laboratory_value_before_the_order_is_stated_with_its_age(morning: Morning) -> None:
    case = next(c for c in morning.cases if c.egfr is not None and c.egfr_at is None)
    obx = Message.parse(Writer(ZURICH).order(case, NOON)).first("OBX")
    assert obx is not None
    assert obx[3].component(1) == "98979-8"
    assert obx[14].value.startswith(f"{(NOON - timedelta(days=3)).astimezone(ZURICH):%Y%m%d}")


def test_hl7apy_takes_every_message_that_it_has_a_grammar_for(everything: list[bytes]) -> None:
    # hl7apy 1.3.5 wants all branches of the choice in ORM^O01 at once; the referee below judges those.
    first_of_a_kind = {tuple(header.read(raw).type): raw for raw in everything}  # type: ignore[union-attr]
    for raw in first_of_a_kind.values():
        if b"ORM^O01" not in raw:
            build.check(raw)


def test_a_laboratory_reports_under_numbers_of_its_own(morning: Morning) -> None:
    case = next(c for c in morning.cases if c.egfr_at is not None)
    writer = Writer(ZURICH)
    assert b"|NM|" not in writer.order(case, NOON)
    message = Message.parse(writer.laboratory(case, NOON, 58))
    obr, obx = message.first("OBR"), message.first("OBX")
    assert obr is not None
    assert obx is not None
    assert case.accession not in (obr[2].component(1), obr[3].component(1), obr[18].value)
    assert (obr[24].value, obx[5].value, obx[6].component(1)) == ("CH", "58", "mL/min/{1.73_m2}")
