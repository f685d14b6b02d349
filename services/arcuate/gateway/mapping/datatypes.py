"""HL7 v2 data types to FHIR data types, one function a type, named as in HL7's tables (folder datatypes/)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from urllib.parse import quote
from zoneinfo import ZoneInfo

from arcuate.gateway.mapping import terms
from arcuate.gateway.mapping.model import ContentFault
from arcuate.kernel import codes
from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.hl7v2 import timestamps
from arcuate.kernel.hl7v2.message import Field, Part
from arcuate.kernel.hl7v2.timestamps import Moment

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+\Z")


@dataclass(frozen=True)
class Sender:
    """Who speaks: MSH-3.1 and MSH-4.1, the zone of times without an offset, and what the house calls their exams and places.

    Attributes:
        procedures: The sender's exam code to the house's (`procedure_map` of the profile).
        places: The sender's place, pieces joined by `/`, to the house's (`location_map`).
    """

    application: str
    facility: str
    zone: ZoneInfo
    procedures: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def authority(self) -> str:
        """Return the assigner of numbers that name none."""
        return f"from.{self.application}.{self.facility}"


def period(part: Part, start: int, end: int, whole: int = 0) -> Json:
    """The days from and until which something holds: two components, or before v2.5 one that holds both; empty where neither is a day."""
    stated = {
        "start": _day(part.component(start)) or (_day(part.component(whole, 1)) if whole else ""),
        "end": _day(part.component(end)) or (_day(part.component(whole, 2)) if whole else ""),
    }
    found = {name: day for name, day in stated.items() if day}
    return {"period": found} if found and list(found.values()) == sorted(found.values()) else {}


def is_backwards(period: Json) -> bool:
    """Say whether a Period ends before it begins (invariant per-1), as mistyped ones do."""
    start, end = str(period.get("start", "")), str(period.get("end", ""))
    if not start or not end:
        return False
    if "T" in start and "T" in end:
        return datetime.fromisoformat(end) < datetime.fromisoformat(start)
    return end[:10] < start[: len(end[:10])]


def _day(text: str) -> str:
    try:
        return datetime.strptime(text.strip()[:8], "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def clean(text: str) -> str:
    """Return text that FHIR can hold: control characters become the escape sequences that they came in, ends are trimmed."""
    return _CONTROL.sub(lambda found: f"\\X{ord(found.group()):02X}\\", text).strip()


def clean_lines(text: str) -> list[str]:
    """Return the lines of a text, each cleaned at its end; leading spaces are the writer's layout and stay."""
    text = _CONTROL.sub(lambda found: f"\\X{ord(found.group()):02X}\\", text)
    return [line.rstrip() for line in re.split(r"\r\n|\r|\n", text)]


def one_line(text: str) -> str:
    """Return cleaned text without line ends and double spaces: for codes, names and displays."""
    return " ".join(clean(text).split())


# CX, EI


def hd_authority(part: Part, component: int, sender: Sender) -> str:
    """Return the assigner in component `component` (HD): its namespace, else its OID, else the sender."""
    namespace = one_line(part.component(component))
    if namespace:
        return namespace
    universal, kind = part.component(component, 2).strip(), part.component(component, 3).strip()
    if kind == "ISO" and _OID.match(universal):
        return f"urn:oid:{universal}"
    return one_line(universal) or sender.authority


def ei_authority(part: Part, sender: Sender) -> str:
    """Return the assigner of an EI: EI-2, else the OID in EI-3, else the sender."""
    namespace, universal = one_line(part.component(2)), part.component(3).strip()
    if namespace:
        return namespace
    if part.component(4).strip() == "ISO" and _OID.match(universal):
        return f"urn:oid:{universal}"
    return sender.authority


def ei(part: Part, system: str, kind: str) -> Json | None:
    """EI[Identifier]: the number in EI-1 under a system that its caller has built from `ei_authority`."""
    value = one_line(part.component(1))
    return codes.identifier(system, value, kind) if value else None


def cx(part: Part, sender: Sender) -> tuple[str, Json] | None:
    """CX[Identifier]: the type (CX-5, our spelling; empty when there is none) and the Identifier of a patient's number."""
    value = one_line(part.component(1))
    if not value:
        return None
    kind = part.component(5).strip()
    kind = terms.table("identifier_spelling").get(kind, kind)
    authority = hd_authority(part, 4, sender)
    system = authority if authority.startswith("urn:oid:") else codes.patient_system(authority)
    known = kind in terms.codes("identifier_type")
    made = codes.identifier(system, value, kind if known else None)
    if kind and not known:
        made["type"] = {"text": one_line(kind)}
    return kind, {**made, **period(part, 7, 8)}


# XPN, XAD, XTN, XCN, PL


def xpn(part: Part) -> Json | None:
    """XPN[HumanName]."""
    made: Json = {}
    use = terms.table("name_use").get(part.component(7).strip())
    if use:
        made["use"] = use
    family = one_line(part.component(1))
    given = [name for number in (2, 3) if (name := one_line(part.component(number)))]
    prefix, suffix = one_line(part.component(5)), [s for n in (4, 6) if (s := one_line(part.component(n)))]
    if family:
        made["family"] = family
    if given:
        made["given"] = given
    if prefix:
        made["prefix"] = [prefix]
    if suffix:
        made["suffix"] = suffix
    return {**made, **period(part, 12, 13, 10)} if family or given else None


def xad(part: Part) -> Json | None:
    """XAD[Address]."""
    lines = [line for line in (_street(part), one_line(part.component(2))) if line]
    names = {3: "city", 4: "state", 5: "postalCode", 6: "country", 9: "district"}
    made: Json = {"line": lines} if lines else {}
    for number, name in names.items():
        if text := one_line(part.component(number)):
            made[name] = text
    if not made:
        return None
    kind = part.component(7).strip()
    if use := terms.table("address_use").get(kind):
        made["use"] = use
    if kind == "M":
        made["type"] = "postal"
    return {**made, **period(part, 13, 14, 12)}


def _street(part: Part) -> str:
    """XAD-1 (SAD): the address as written, and street name and house number where they stand only in their own subcomponents."""
    whole, *others = (one_line(part.component(1, sub)) for sub in (1, 2, 3))
    return " ".join([piece for piece in (whole, *(one for one in others if one not in whole)) if piece])


def xtn(part: Part, use: str) -> Json | None:
    """XTN[ContactPoint]; `use` where XTN-2 says nothing. XTN-1 is the oldest form: XTN-12 and XTN-7 come before it (XTN__ContactPoint.csv)."""
    email = one_line(part.component(4))
    pieces = [one_line(part.component(place)) for place in (5, 6, 7, 8)]
    spelled = " ".join(piece for piece in pieces if piece)
    number = one_line(part.component(12)) or (spelled if pieces[2] else "") or one_line(part.component(1)) or spelled
    value = number or email
    if not value:
        return None
    equipment = part.component(3).strip()
    system = "email" if not number else terms.table("telecom_system").get(equipment, "phone")
    if "@" in value:
        system = "email"
    use = terms.table("telecom_use").get(part.component(2).strip(), use)
    made: Json = {"system": system, "value": value, "use": "mobile" if equipment == "CP" else use}
    if (rank := one_line(part.component(18))).isdecimal() and 0 < int(rank[:9]) < 1000:
        made["rank"] = int(rank)
    return {**made, **period(part, 13, 14)}


def xcn(part: Part, sender: Sender) -> Json | None:
    """XCN as a Reference with the person's name and number; who practises is known from the site's roster, not from messages."""
    number = one_line(part.component(1))
    order = (6, 3, 4, 2, 5)  # prefix, given, middle, family, suffix
    display = " ".join(name for place in order if (name := one_line(part.component(place)))) or number
    if not display:
        return None
    made: Json = {"display": display}
    if number and display != number:
        system = f"urn:arcuate:id:practitioner:{quote(hd_authority(part, 9, sender), safe='')}"
        made["identifier"] = {"system": system, "value": number}
    return made


def pl(part: Part, sender: Sender) -> Json | None:
    """PL[Location]: point of care, room and bed as one place with the facility as assigner; or what the house calls this place."""
    pieces = [piece for place in (1, 2, 3) if (piece := one_line(part.component(place)))]
    if not pieces:
        name = one_line(part.component(9)) or one_line(part.component(4))
        pieces = [name] if name else []
    if not pieces:
        return None
    authority = one_line(part.component(4)) or sender.authority
    name, number = one_line(part.component(9)) or " ".join(pieces), "/".join(pieces)
    if house := sender.places.get(number):
        assigner, _, number = house.rpartition("|")
        authority, name = assigner or "house", number
    return {
        "resourceType": "Location",
        "identifier": [{"system": f"urn:arcuate:id:location:{quote(authority, safe='')}", "value": number}],
        "status": "active",
        "name": name,
    }


# CWE, CE, CNE


def cwe(part: Part, sender: Sender) -> Json | None:
    """CWE[CodeableConcept]: both codings as sent, the text as typed (CWE-9, else CWE-2, else CWE-1)."""
    found = [coding for first in (1, 4) if (coding := _coding(part, first, sender))]
    text = next((t for n in (9, 2, 5, 1) if (t := clean(part.component(n)))), "")
    if not text:
        return None
    return {"coding": found, "text": text} if found else {"text": text}


def coded(part: Part, table: str, sender: Sender) -> Json | None:
    """A code of an HL7 table: IS and ID say no system, so the table is it, for a code that stands in it; others are the site's own."""
    made = cwe(part, sender)
    if made is None or made.get("coding") or made["text"] not in terms.table("v2_tables")[table]:
        return made
    return {"coding": [codes.coding(f"http://terminology.hl7.org/CodeSystem/v2-{table}", made["text"])]}


def exam(part: Part, sender: Sender) -> Json | None:
    """CWE of an exam (OBR-4, OBR-44, AIS-3): as sent, and behind it the house's own code where the profile knows the sender's.

    Behind it, because what goes back to the sender carries the first coding.
    """
    made = cwe(part, sender)
    if made is None or not sender.procedures:
        return made
    sent = (one_line(part.component(number)) for number in (1, 4))
    house = next((sender.procedures[code] for code in sent if code in sender.procedures), None)
    if house is None:
        return made
    return {**made, "coding": first([*made.get("coding", []), codes.coding(codes.CS_EXAM, house)])}


def _coding(part: Part, first: int, sender: Sender) -> Json | None:
    code, display, mnemonic = (one_line(part.component(first + offset)) for offset in range(3))
    if not code or (not mnemonic and not display):
        return None
    system = terms.system_of(code, mnemonic) or sent_system(mnemonic, sender)
    return codes.coding(system, code, display or None)


def sent_system(mnemonic: str, sender: Sender) -> str:
    """Return the system of a sender's own codes: a mnemonic means something only with that sender."""
    place = quote(sender.facility or sender.application or "unnamed", safe="")
    return f"urn:arcuate:sent:{place}:{quote(mnemonic or 'L', safe='')}"


# TS, DTM, NM


def ts(text: str, sender: Sender, where: str) -> Moment | None:
    """Return the time, None when the field is empty.

    Raises:
        ContentFault: The field holds something that is no time.
    """
    if not text.strip():
        return None
    try:
        return timestamps.parse(text, sender.zone, where)
    except BadInput as error:
        raise ContentFault("invalid time", f"{where} holds no time that can be read", where, "102") from error


def nm(text: str) -> Decimal | None:
    """Return a number as sent, digit for digit; None when it is none."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def first(parts: list[Json | None]) -> list[Json]:
    """Return what is there, without repetitions."""
    kept: list[Json] = []
    for part in parts:
        if part is not None and part not in kept:
            kept.append(part)
    return kept


def repetitions(field: Field) -> list[Part]:
    """Return the repetitions of a field that hold a value (not `""`)."""
    return [part for part in field.repetitions if part]
