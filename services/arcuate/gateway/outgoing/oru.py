"""DiagnosticReport to ORU^R01 (HL7 v2.5.1 chapter 7.3.1): drafts for dictation (OBR-25 P), signed reports (F, C) for all others."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import unquote

from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2 import build, escape, timestamps
from arcuate.kernel.hl7v2.build import Value, segment

_STATUS = {"preliminary": "P", "final": "F", "amended": "C", "corrected": "C", "appended": "C"}
_SEX = {"female": "F", "male": "M", "other": "O", "unknown": "U"}
_PRIORITY = {"stat": "S", "asap": "A", "urgent": "A", "routine": "R"}
STUDY = ("18748-4", "Diagnostic imaging study", "LN")
_LOCAL = "99ARC"
_NO_NAME = ("", "", "", "", "", "", "U")
MACHINE_VALUE = "Machine value, not reviewed"
_LONGEST = 199
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Content:
    """Everything that one message says."""

    report: Json
    patient: Json
    orders: Sequence[Json]
    observations: Sequence[Json]


def message(envelope: build.Envelope, content: Content) -> bytes:
    """Return the message; one OBR for each order, the content behind the first."""
    lines = [pid(content.patient)]
    for place, order in enumerate(content.orders, 1):
        lines += [orc(order), obr(order, place, content.report)]
        if place == 1:
            lines += [*_removed(content.report), *_content(content)]
    return build.message(envelope, lines)


def pid(patient: Json) -> str:
    """Return PID: numbers with their assigners, names, birth date, sex."""
    ids: Value = [_cx(one) for one in patient.get("identifier", []) if one.get("value")]
    # PID-5 is required; who has no name here (some senders write it elsewhere) gets the unspecified one (table 0200).
    names: Value = [_xpn(name) for name in patient.get("name", [])] or [_NO_NAME]
    fields: dict[int, Value] = {1: "1", 3: ids, 5: names}
    if birth := patient.get("birthDate"):
        fields[7] = timestamps.write_date(birth)
    if sex := _SEX.get(patient.get("gender", "")):
        fields[8] = sex
    return segment("PID", fields)


def _cx(identifier: Json) -> tuple[build.Component, ...]:
    kind = next((coding.get("code", "") for coding in (identifier.get("type") or {}).get("coding", [])), "MR")
    return (str(identifier["value"]), "", "", authority(str(identifier.get("system", ""))), kind)


def authority(system: str) -> tuple[str, ...]:
    """Return the assigner in an identifier system as HD: a namespace, or an OID; nothing where the sender itself was the assigner."""
    if system.startswith("urn:oid:"):
        return ("", system.removeprefix("urn:oid:"), "ISO")
    if not system.startswith("urn:arcuate:id:"):
        return ("",)
    name = unquote(system.split(":", 4)[4]).split(":")[0] if system.count(":") >= 4 else ""
    return ("",) if name.startswith("from.") else (name,)


def _xpn(name: Json) -> tuple[build.Component, ...]:
    given = [str(one) for one in name.get("given", [])]
    prefix, suffix = (" ".join(name.get(part, [])) for part in ("prefix", "suffix"))
    return (str(name.get("family", "")), given[0] if given else "", " ".join(given[1:]), suffix, prefix)


def _number(resource: Json, prefix: str) -> tuple[build.Component, ...]:
    """EI of the first identifier whose system begins so."""
    for one in resource.get("identifier", []):
        system = str(one.get("system", ""))
        if system.startswith(prefix) and not system.endswith(":group"):
            assigner = authority(system)
            return (str(one.get("value", "")), *assigner)
    return ("",)


def numbers(order: Json) -> tuple[tuple[build.Component, ...], tuple[build.Component, ...], str]:
    """Return placer number, filler number and accession of an order; the accession stands in where there is no filler number."""
    accession = codes.accession_of(order) or ""
    placer = _number(order, "urn:arcuate:id:placer:")
    filler = _number(order, "urn:arcuate:id:filler:")
    return placer, filler if filler[0] else (accession,), accession


def orc(order: Json) -> str:
    """Return ORC of a result: the numbers of its order."""
    placer, filler, _ = numbers(order)
    return segment("ORC", {1: "RE", 2: placer, 3: filler})


def obr(order: Json, place: int, report: Json | None = None, result_status: str = "") -> str:
    """Return OBR of an order, and of the report that answers it; `result_status` is OBR-25 where there is no report yet."""
    said = report or {}
    placer, filler, accession = numbers(order)
    fields: dict[int, Value] = {
        1: str(place),
        2: placer,
        3: filler,
        4: coded(order.get("code") or said.get("code") or {}),
        5: _PRIORITY.get(order.get("priority", ""), ""),
        16: ("", str((order.get("requester") or {}).get("display", ""))),
        18: accession,
    }
    if report is not None or result_status:
        fields[25] = status(report) if report is not None else result_status
    for number, name in ((7, "effectiveDateTime"), (22, "issued")):
        if text := said.get(name):
            fields[number] = time_of(str(text))
    reasons = [str(reason["text"]) for reason in order.get("reasonCode", []) if reason.get("text")]
    if reasons:
        fields[31] = [("", reason) for reason in reasons]
    readers = [one.get("display", "") for one in said.get("resultsInterpreter", []) if one.get("display")]
    if readers:
        fields[32] = (("", str(readers[0])),)
    return segment("OBR", fields)


def report_number(report: Json) -> str:
    """Return the number by which the report is known, else our own for it."""
    known = (str(one["value"]) for one in report.get("identifier", []) if one.get("value"))
    return next(known, str(report.get("id", "")))


def status(report: Json) -> str:
    """Return OBR-25 and OBX-11 of a report."""
    return _STATUS[str(report["status"])]


def coded(concept: Json) -> tuple[build.Component, ...]:
    """Return CE: the first coding, its text where it has none."""
    coding: Json = next(iter(concept.get("coding", [])), {})
    text = str(coding.get("display") or concept.get("text") or "")
    code = str(coding.get("code", ""))
    if not code:
        return ("", text or "Imaging report")
    return (code, text, _mnemonic(str(coding.get("system", ""))))


def _mnemonic(system: str) -> str:
    known = {
        codes.CS_LOINC: "LN",
        codes.CS_SNOMED: "SCT",
        codes.CS_DICOM: "DCM",
        "http://www.ama-assn.org/go/cpt": "C4",
    }
    if system.startswith("urn:arcuate:sent:"):
        return unquote(system.rsplit(":", 1)[1])
    return known.get(system, _LOCAL)


def time_of(text: str) -> str:
    """Return a FHIR dateTime as TS in its own zone; a date stays a date."""
    moment = timestamps.parse(text)
    if moment.instant is None or moment.zone is None:
        return timestamps.write_date(moment.date)
    return timestamps.write(moment.instant, moment.zone)


def place(location: Json) -> tuple[build.Component, ...]:
    """Return a Location as PL: point of care, room and bed as they came, and whose place it is."""
    number: Json = next(iter(location.get("identifier", [])), {})
    pieces = str(number.get("value") or location.get("name") or "").split("/", 2)
    return (*pieces, *[""] * (3 - len(pieces)), authority(str(number.get("system", ""))))


def _content(content: Content) -> list[str]:
    """Return OBX: the text line by line, then each measured value."""
    made: list[str] = []
    said = status(content.report)
    lines = plain_text(content.report)
    for piece in (piece for line in lines if lines != [""] for piece in wrapped(line)):
        made.append(obx(len(made) + 1, "TX", STUDY, "", piece or " ", said))
    place = len(made)
    for observation in content.observations:
        place += 1
        made += _value(place, observation, said)
    return made


def obx(
    place: int, kind: str, code: tuple[build.Component, ...], sub: str, value: Value, said: str, **more: Value
) -> str:
    """Return OBX; `more` are further fields by number (`f6`)."""
    fields: dict[int, Value] = {1: str(place), 2: kind, 3: code, 4: sub, 5: value, 11: said}
    fields |= {int(name[1:]): extra for name, extra in more.items()}
    return segment("OBX", fields)


def plain_text(report: Json) -> list[str]:
    """Return the lines of the report; control characters are no text and are left out (row 068)."""
    return _CONTROL.sub("", _raw_text(report)).replace("\r\n", "\n").replace("\r", "\n").strip("\n").split("\n")


def _removed(report: Json) -> list[str]:
    """Return a note where control characters were left out."""
    if not _CONTROL.search(_raw_text(report)):
        return []
    return [segment("NTE", {1: "1", 2: "L", 3: "Control characters were removed from this text"})]


def _raw_text(report: Json) -> str:
    form = next(
        (one for one in report.get("presentedForm", []) if str(one.get("contentType", "")).startswith("text/plain")),
        None,
    )
    if form is None or not form.get("data"):
        return str(report.get("conclusion") or "")
    try:
        return base64.b64decode(form["data"]).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""


def wrapped(line: str) -> list[str]:
    """Return a line in pieces of at most 199 characters as written, broken between words where that is possible.

    TX may be longer, but strict readers (hl7apy among them) hold every OBX-5 to the 199 characters of ST.
    """
    pieces: list[str] = []
    rest = line
    while len(escape.encode(rest)) > _LONGEST:
        most = next(n for n in range(min(len(rest), _LONGEST), 0, -1) if len(escape.encode(rest[:n])) <= _LONGEST)
        space = rest.rfind(" ", 1, most + 1)
        end = space if space > 0 else most
        pieces.append(rest[:end])
        rest = rest[end:].removeprefix(" ")
    return [*pieces, rest]


def _value(place: int, observation: Json, said: str) -> list[str]:
    """Return OBX (and NTE for what nobody has reviewed) of one measurement; a refused one says so in words."""
    code, side = coded(observation.get("code") or {}), _site(observation)
    quantity = observation.get("valueQuantity") or {}
    if isinstance(quantity.get("value"), Decimal | int | float):
        unit = str(quantity.get("code") or quantity.get("unit") or "1")
        units: Value = (unit, str(quantity.get("unit") or unit), "UCUM")
        lines = [
            obx(place, "NM", code, side, f"{Decimal(str(quantity['value'])):f}", said, f6=units, f7=_range(observation))
        ]
    else:
        words: Value = [*wrapped(_words(observation))]
        lines = [obx(place, "ST" if len(words) == 1 else "TX", code, side, words, said)]
    if observation.get("status") in ("preliminary", "registered"):
        device = (observation.get("device") or {}).get("display", "")
        lines.append(segment("NTE", {1: "1", 2: "L", 3: f"{MACHINE_VALUE}{f' ({device})' if device else ''}"}))
    return lines


def _words(observation: Json) -> str:
    text = observation.get("valueString") or (observation.get("valueCodeableConcept") or {}).get("text")
    notes = [str(note["text"]) for note in observation.get("note", []) if note.get("text")]
    return " ".join(str(text or "; ".join(["not measured", *notes])).split())


def _site(observation: Json) -> str:
    """OBX-4 tells left from right where the code is the same."""
    site = observation.get("bodySite") or {}
    text = str(site.get("text") or next((c.get("display", "") for c in site.get("coding", [])), "")).lower()
    return next((side for side in ("bilateral", "left", "right") if side in text), "")


def _range(observation: Json) -> str:
    for one in observation.get("referenceRange", []):
        low, high = ((one.get(end) or {}).get("value") for end in ("low", "high"))
        if low is not None and high is not None:
            return f"{low}-{high}"
        if one.get("text"):
            return str(one["text"])[:60]
    return ""
