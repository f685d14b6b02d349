"""OBX to Observation (segments/OBX__Observation.csv), and the text and documents that OBX carries."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from arcuate.gateway.mapping import datatypes, terms
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.profile import Profile
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2.message import Field, Segment

_TEXT = frozenset(("TX", "FT", "ST", ""))
_VALUES = frozenset(("NM", "SN", "CE", "CWE", "CF", "CNE"))
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}\Z")


@dataclass(frozen=True)
class Result:
    """OBX of one order, by what they carry."""

    text: str
    conclusion: str
    values: Sequence[Segment]
    documents: Sequence[Json]


def read(segments: Sequence[Segment], profile: Profile) -> Result:
    """Sort OBX into narrative, discrete values and documents; deleted lines (OBX-11 D) are left out."""
    blocks: list[tuple[str, list[str]]] = []
    conclusion: list[str] = []
    values: list[Segment] = []
    documents: list[Json] = []
    for obx in segments:
        kind = obx[2].value.strip().upper()
        if profile.translate("observation_status", obx[11].value.strip() or "F") == "":
            continue
        if kind in _VALUES or (kind in ("ST", "") and obx[6] and datatypes.nm(obx[5].value) is not None):
            values.append(obx)
        elif kind == "ED":
            documents += [document for part in datatypes.repetitions(obx[5]) if (document := _document(part.raw, obx))]
        elif kind == "RP":
            documents += _pointer(obx[5])
        elif kind in _TEXT:
            found = text_lines(obx[5])
            label = datatypes.one_line(obx[3].component(2))
            if not blocks or blocks[-1][0] != label:
                blocks.append((label, []))
            blocks[-1][1].extend(found)
            if _is_impression(obx):
                conclusion += found
    return Result(_joined(_labelled(blocks)), _joined(conclusion), values, documents)


def _labelled(blocks: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Lines of all blocks; where they answer different questions (OBX-3), each says which, unless its text does so itself."""
    if len({label for label, _ in blocks if label}) < 2:
        return [line for _, block in blocks for line in block]
    lines: list[str] = []
    for label, block in blocks:
        first = next((line for line in block if line.strip()), "")
        if not label or first.strip().casefold().startswith(label.casefold()):
            lines += block
        elif len(block) == 1:
            lines.append(f"{label}: {first.strip()}")
        else:
            lines += [f"{label}:", *block]
    return lines


def text_lines(field: Field) -> list[str]:
    """Return the paragraphs of a TX, FT or ST field; line commands and raw line ends inside it make lines."""
    return [clean for line in field.lines for clean in datatypes.clean_lines(line)]


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines).strip("\n")


def _is_impression(obx: Segment) -> bool:
    """`&IMP` in OBX-3 (7.4.2.3), or a word of it."""
    code, display = obx[3].component(1).strip().upper(), obx[3].component(2).strip().upper()
    return (
        obx[3].component(1, 2).strip() == "IMP" or code in ("IMP", "IMPRESSION", "19005-8") or "IMPRESSION" in display
    )


def _document(raw: str, obx: Segment) -> Json | None:
    """ED[Attachment]: source^type^subtype^encoding^data. Base64 that is none is left out; the message keeps it."""
    pieces = raw.split(obx.context.delimiters.component)
    if len(pieces) < 5:
        return None
    kind, subtype, encoding, data = pieces[1:5]
    mime = terms.table("attachment").get(f"{kind}/{subtype}")
    packed = re.sub(r"\\\.br\\|\s", "", data)
    if encoding.strip().upper() != "BASE64" or not packed or not _BASE64.match(packed):
        return None
    try:
        content = base64.b64decode(packed, validate=True)
    except binascii.Error:
        return None
    if content.startswith(b"%PDF"):
        mime = "application/pdf"
    made: Json = {"contentType": mime or "application/octet-stream", "data": base64.b64encode(content).decode()}
    if title := datatypes.one_line(obx[3].component(2)):
        made["title"] = title
    return made


def _pointer(field: Field) -> list[Json]:
    """RP[Attachment]: only an address that can be opened is one."""
    return [
        {"url": address}
        for part in datatypes.repetitions(field)
        if urlsplit(address := part.component(1).strip()).scheme in ("http", "https") and " " not in address
    ]


@dataclass(frozen=True)
class About:
    """What an observation belongs to: its order or report number, subject and order, and the time where OBX-14 has none."""

    number: str
    subject: Json
    based_on: Sequence[Json]
    time: str


def observation(obx: Segment, place: int, about: About, profile: Profile, sender: Sender) -> Json | None:
    """Return the Observation of one OBX; `place` tells repeated codes apart. None where OBX-3 names nothing."""
    code = datatypes.cwe(obx[3], sender)
    if code is None:
        return None
    status = profile.translate("observation_status", obx[11].value.strip() or "F") or "unknown"
    number = "|".join(
        (about.number, datatypes.one_line(obx[3].component(1)), datatypes.one_line(obx[4].value), str(place))
    )
    system = f"urn:arcuate:id:observation:{quote(sender.authority, safe='')}"
    made: Json = {
        "resourceType": "Observation",
        "identifier": [{"system": system, "value": number.replace("|", ".")}],
        "status": status,
        "code": code,
        "subject": about.subject,
    }
    if about.based_on:
        made["basedOn"] = list(about.based_on)
    moment = datatypes.ts(obx[14].value, sender, "OBX-14")
    if time := moment.fhir if moment else about.time:
        made["effectiveDateTime"] = time
    made.update(_value(obx, sender))
    if flags := datatypes.first([_flag(part.component(1), sender) for part in datatypes.repetitions(obx[8])]):
        made["interpretation"] = flags
    if reference := datatypes.one_line(obx[7].text):
        made["referenceRange"] = [{"text": reference}]
    if site := datatypes.cwe(obx[20], sender):
        made["bodySite"] = site
    if method := datatypes.cwe(obx[17], sender):
        made["method"] = method
    return made


def _flag(sent: str, sender: Sender) -> Json | None:
    """OBX-8 (table 0078, InterpretationCodes.csv): a code that is none of the table is text."""
    code = datatypes.one_line(sent)
    if code in terms.codes("interpretation"):
        return codes.concept("http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", code)
    return {"text": code} if code else None


def _value(obx: Segment, sender: Sender) -> Json:
    kind = obx[2].value.strip().upper()
    field = obx[5]
    if kind == "SN":
        return _structured(field, obx)
    if kind in ("CE", "CWE", "CF", "CNE"):
        concept = datatypes.cwe(field, sender)
        return {"valueCodeableConcept": concept} if concept else _absent()
    number = datatypes.nm(field.value)
    if number is not None:
        return {"valueQuantity": {"value": number, **_unit(obx)}}
    text = datatypes.clean(field.text)
    return {"valueString": text} if text else _absent()


def _structured(field: Field, obx: Segment) -> Json:
    """SN: comparator^number^separator^number (2.A.71)."""
    comparator, low, separator, high = (field.component(place).strip() for place in range(1, 5))
    first, second = datatypes.nm(low), datatypes.nm(high)
    if first is None:
        text = datatypes.one_line(field.text)
        return {"valueString": text} if text else _absent()
    if separator == "-" and second is not None:
        return {"valueRange": {"low": {"value": first, **_unit(obx)}, "high": {"value": second, **_unit(obx)}}}
    if separator in (":", "/") and second is not None:
        return {"valueRatio": {"numerator": {"value": first}, "denominator": {"value": second}}}
    made: Json = {"value": first, **_unit(obx)}
    if comparator in ("<", "<=", ">", ">="):
        made["comparator"] = comparator
    return {"valueQuantity": made}


def _unit(obx: Segment) -> Json:
    """OBX-6. Only a unit that is known to be UCUM is called so; others stay text."""
    unit = datatypes.one_line(obx[6].component(1)) or datatypes.one_line(obx[6].component(2))
    if not unit:
        return {}
    ucum = terms.table("units").get(unit)
    return {"unit": unit, "system": codes.CS_UCUM, "code": ucum} if ucum else {"unit": unit}


def _absent() -> Json:
    return {
        "dataAbsentReason": codes.concept(
            "http://terminology.hl7.org/CodeSystem/data-absent-reason", "unknown", "Unknown"
        )
    }
