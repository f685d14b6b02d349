"""How far an order is, to ORM^O01 or OMG^O19 with ORC-1 SC (HL7 v2.5.1 chapter 4.4.1, 4.4.6), or to ORU^R01 with OBR-25 and no value
(chapter 7.3.1): for who placed it."""

from datetime import datetime
from zoneinfo import ZoneInfo

from arcuate.gateway.outgoing import oru, states
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2 import build, timestamps
from arcuate.kernel.hl7v2.build import segment

STRUCTURES = {"ORM": ("O01", "ORM_O01"), "OMG": ("O19", "OMG_O19"), "ORU": ("R01", "ORU_R01")}
_TABLES = {"ServiceRequest": "order", "Procedure": "exam"}


def code(before: Json | None, now: Json) -> str:
    """Return ORC-5 of a change of an order or exam; the empty string where how far it is stays the same.

    An order that is new here and only stands says nothing: nobody asked how far it is.
    """
    table = _TABLES[str(now["resourceType"])]
    said = states.said(table, str(now.get("status")))
    stood = states.said(table, str((before or {}).get("status", "")))
    if said == stood or (before is None and now["resourceType"] == "ServiceRequest" and now.get("status") == "active"):
        return ""
    return said


def message(
    envelope: build.Envelope, code: str, order: Json, patient: Json, changed: datetime, zone: ZoneInfo
) -> bytes:
    """Return the message."""
    placer, filler, _ = oru.numbers(order)
    when = timestamps.write(changed, zone)
    orc = segment("ORC", {1: "SC", 2: placer, 3: filler, 5: code, 9: when})
    if envelope.type != "ORU":
        return build.message(envelope, [oru.pid(patient), orc, oru.obr(order, 1)])
    # The report itself says F or C when it goes: here a done exam is "some, but not all, results available" at most.
    return build.message(
        envelope, [oru.pid(patient), orc, oru.obr(order, 1, result_status=states.said("result", code))]
    )
