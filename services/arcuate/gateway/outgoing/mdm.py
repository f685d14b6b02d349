"""A signed DiagnosticReport to MDM^T02, T10 where it replaces one (HL7 v2.5.1 chapter 9.6): the report as a PDF in OBX-5 (ED).

The PDF is the one that the report carries; where it carries none, its text on pages, and the text itself where the pages cannot show it all.
"""

import base64

from arcuate.gateway.outgoing import oru, pdf
from arcuate.gateway.outgoing.oru import Content
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2 import build, timestamps
from arcuate.kernel.hl7v2.build import Value, segment


def event(report: Json) -> str:
    """Return T02 for a first version, T10 for one that replaces it."""
    return "T02" if report["status"] == "final" else "T10"


def message(envelope: build.Envelope, content: Content) -> bytes:
    """Return the message."""
    sent = timestamps.write(envelope.sent, envelope.zone)
    lines = [segment("EVN", {1: envelope.event, 2: sent}), oru.pid(content.patient), segment("PV1", {1: "1", 2: "U"})]
    for place, order in enumerate(content.orders, 1):
        lines += [oru.orc(order), oru.obr(order, place, content.report)]
    return build.message(envelope, [*lines, _txa(content), *_obx(content)])


def _txa(content: Content) -> str:
    report = content.report
    placer, filler, _ = oru.numbers(content.orders[0])
    number: Value = (oru.report_number(report), "ARCUATE")
    fields: dict[int, Value] = {1: "1", 2: "DI", 3: "AP", 12: number, 14: placer, 15: filler, 17: "LA", 19: "AV"}
    for place, name in ((4, "effectiveDateTime"), (6, "issued"), (7, "issued")):
        if text := report.get(name):
            fields[place] = oru.time_of(str(text))
    readers = [str(one["display"]) for one in report.get("resultsInterpreter", []) if one.get("display")]
    if readers:
        fields |= {9: ("", readers[0]), 22: ("", readers[0])}
    if event(report) == "T10":
        fields[13] = number
    return segment("TXA", fields)


def _obx(content: Content) -> list[str]:
    report = content.report
    carried = next((one for one in report.get("presentedForm", []) if _is_pdf(one)), None)
    if carried is not None:
        data, complete = str(carried["data"]), True
    else:
        made, complete = pdf.document([*_heading(content), *oru.plain_text(report)])
        data = base64.b64encode(made).decode()
    document: Value = ("ARCUATE", "AP", "PDF", "Base64", data)
    lines = [oru.obx(1, "ED", oru.STUDY, "", document, oru.status(report))]
    pieces = [] if complete else [piece for line in oru.plain_text(report) for piece in oru.wrapped(line)]
    return lines + [
        oru.obx(place, "TX", oru.STUDY, "", piece or " ", oru.status(report)) for place, piece in enumerate(pieces, 2)
    ]


def _is_pdf(form: Json) -> bool:
    return str(form.get("contentType", "")).startswith("application/pdf") and bool(form.get("data"))


def _heading(content: Content) -> list[str]:
    """Whose report it is: a page may be printed, and lie alone."""
    patient, report = content.patient, content.report
    name: Json = next(iter(patient.get("name", [])), {})
    words = " ".join([*name.get("given", []), str(name.get("family", ""))]).strip() or "Name not known"
    ids = ", ".join(str(one["value"]) for one in patient.get("identifier", []) if one.get("value"))
    exams = ", ".join(str(oru.coded(order.get("code") or report.get("code") or {})[1]) for order in content.orders)
    accessions = ", ".join(oru.numbers(order)[2] for order in content.orders)
    kind = {"final": "Signed report", "amended": "Amended report", "corrected": "Corrected report"}
    return [
        f"{kind.get(report['status'], 'Signed report')}: {exams}", f"Patient: {words}, born {patient.get('birthDate', 'not known')}, {ids}",
        f"Accession: {accessions}   Issued: {report.get('issued', 'not stated')}", "",
    ]  # fmt: skip
