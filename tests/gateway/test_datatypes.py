"""HL7 data types as HL7's own tables (v2-to-FHIR, datatypes/) read them."""

from zoneinfo import ZoneInfo

import pytest

from arcuate.gateway import profile
from arcuate.gateway.mapping import datatypes, obx
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.kernel.hl7v2.message import Context, Field, Message

SENDER = Sender("RIS", "HOSP", ZoneInfo("Europe/Zurich"))


def field(text: str) -> Field:
    return Field(text, Context())


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("0791234567^PRN^CP", "0791234567"),
        ("(041)791234567^PRN^PH^^41^79^1234567", "41 79 1234567"),  # the formatted number is the oldest form
        ("old^PRN^PH^^^^1111^^^^^+41 79 123 45 67", "+41 79 123 45 67"),
        ("written^PRN^PH^^41", "written"),
        ("^NET^Internet^jane@example.org", "jane@example.org"),
    ],
)
def test_of_a_telephone_number_the_newest_form_counts(sent: str, value: str) -> None:
    made = datatypes.xtn(field(sent), "home")
    assert made is not None and made["value"] == value


@pytest.mark.parametrize(
    ("sent", "lines"),
    [
        ("1 Main St^Flat 2^Town", ["1 Main St", "Flat 2"]),
        ("1000&Hospital Lane^Ste. 123^Town", ["1000 Hospital Lane", "Ste. 123"]),
        ("1000 Hospital Lane&Hospital Lane&1000^^Town", ["1000 Hospital Lane"]),
        ("&Main Street&12^^Town", ["Main Street 12"]),
    ],
)
def test_street_and_house_number_are_kept_wherever_they_stand(sent: str, lines: list[str]) -> None:
    made = datatypes.xad(field(sent))
    assert made is not None and made["line"] == lines


def test_a_laboratory_says_how_a_value_is_to_be_taken() -> None:
    raw = b"MSH|^~\\&|LAB|HOSP\rOBX|1|NM|33914-3^eGFR^LN||28|mL/min|>60|L~HH~strange|||F\r"
    (segment,) = Message.parse(raw).all("OBX")
    about = obx.About("1", {"reference": "Patient/1"}, [], "")
    made = obx.observation(segment, 1, about, profile.read(), SENDER)
    assert made is not None
    assert [one.get("text") or one["coding"][0]["code"] for one in made["interpretation"]] == ["L", "HH", "strange"]
