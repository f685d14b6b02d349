"""Writing HL7 v2: values are escaped by us, the whole is checked by hl7apy in its strict mode before it leaves.

hl7apy is not used to write, because it escapes `\\.br\\` and `\\X..\\` a second time and leaves a literal `\\F\\` in a text as it
stands, which the receiver reads as a delimiter (measured with 1.3.5).
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path

from arcuate.kernel.errors import Defect
from arcuate.kernel.hl7v2 import escape, timestamps

VERSION = "2.5.1"
_SHORT = 20  # the shortest limit of text that hl7apy knows: IS
_LONG_VALUE = re.compile(r"[^|^~&\r]{21,}")

Sub = str
Component = Sub | tuple[Sub, ...]
# A field: text; a tuple of components (each text or a tuple of subcomponents); or a list of repetitions of these.
Value = str | tuple[Component, ...] | list["str | tuple[Component, ...]"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """MSH of a message that we send. `structure` is MSH-9.3; `processing_id` is P, T or D."""

    type: str
    event: str
    structure: str
    control_id: str
    sent: datetime
    zone: tzinfo
    application: str = "ARCUATE"
    facility: str = ""
    to_application: str = ""
    to_facility: str = ""
    processing_id: str = "P"


def segment(id: str, fields: Mapping[int, Value]) -> str:
    """One segment from its field numbers and values; empty fields between them are filled in."""
    cells = [_field(fields[number]) if number in fields else "" for number in range(1, max(fields, default=0) + 1)]
    return "|".join([id, *cells]).rstrip("|")


def message(envelope: Envelope, segments: Sequence[str]) -> bytes:
    """A whole message in UTF-8, segments ended by CR. `segments` come from `segment`, without MSH."""
    fields: Mapping[int, Value] = {
        3: envelope.application,
        4: envelope.facility,
        5: envelope.to_application,
        6: envelope.to_facility,
        7: timestamps.write(envelope.sent, envelope.zone),
        9: (envelope.type, envelope.event, envelope.structure),
        10: envelope.control_id,
        11: envelope.processing_id,
        12: VERSION,
        18: "UNICODE UTF-8",
    }
    msh = "|".join(["MSH|^~\\&", *(_field(fields.get(number, "")) for number in range(3, 19))])
    lines = [msh, *segments]
    return "".join(line + "\r" for line in lines).encode("utf-8")


def _field(value: Value) -> str:
    if isinstance(value, list):
        return "~".join(_repetition(repetition) for repetition in value)
    return _repetition(value)


def _repetition(value: str | tuple[Component, ...]) -> str:
    if isinstance(value, str):
        return escape.encode(value)
    return "^".join(_component(component) for component in value).rstrip("^")


def _component(value: Component) -> str:
    if isinstance(value, str):
        return escape.encode(value)
    return "&".join(escape.encode(sub) for sub in value).rstrip("&")


# What hl7apy 1.3.5 reports although the standard allows it: the same filter as any careful user of it needs.
_KNOWN_FAULTS = re.compile(
    r"Missing required child (?:XCN|XPN|CX|CWE|CE|EI|HD|FN|PT|MSG|TS)\w*|Datatype .* is not correct for"
)


def check(raw: bytes) -> None:
    """Let hl7apy read a message strictly and validate it.

    Raises:
        Defect: We built a message that is not valid; the text names segments and fields, never values.
    """
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.exceptions import HL7apyException
    from hl7apy.parser import parse_message
    from hl7apy.validation import Validator

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        report = Path(folder) / "report"
        try:
            parsed = parse_message(_for_hl7apy(raw.decode("utf-8")), validation_level=VALIDATION_LEVEL.STRICT)
            Validator.validate(parsed, report_file=str(report))
        except HL7apyException as error:
            problems = _problems(report) or [type(error).__name__]
        else:
            problems = _problems(report)
    if problems:
        raise Defect("An outgoing HL7 message is not valid: " + "; ".join(problems[:5]))


def _for_hl7apy(text: str) -> str:
    """Shorten every value: hl7apy 1.3.5 refuses lengths that receivers take.

    It holds each OBX-5 to the 199 characters of ST and each assigner to the 20 of IS. The assigner's name came to us in the hospital's own
    messages; cutting it would name another assigner, and refusing it would keep a signed report from its receivers.
    """
    lines = []
    for line in text.split("\r"):
        fields = line.split("|")
        if fields[0] == "OBX" and len(fields) > 5 and fields[2] == "ED" and len(fields[5]) > _SHORT:
            fields[5] = "^TEXT^^A^long"
        start = 2 if fields[0] == "MSH" else 1
        fields[start:] = [
            _LONG_VALUE.sub(lambda found: found.group()[:_SHORT].replace("\\", " "), field) for field in fields[start:]
        ]
        lines.append("|".join(fields))
    return "\r".join(lines)


def _problems(report: Path) -> list[str]:
    if not report.exists():
        return []
    lines = sorted(set(report.read_text().splitlines()))
    return [line[7:120] for line in lines if line.startswith("Error") and not _KNOWN_FAULTS.search(line)]
