"""Acknowledgements (HL7 v2.5.1 chapter 2.9): MSA-2 gives the sender's MSH-10 back byte for byte, MSH-10 is our own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from arcuate.kernel.hl7v2.header import Header
from arcuate.kernel.hl7v2.inspect import VERSIONS

Code = Literal["AA", "AE", "AR", "CA", "CE", "CR"]

_VERSIONS = frozenset(version.encode() for version in VERSIONS)
_WITHOUT_ERR_3 = frozenset((b"2.1", b"2.2", b"2.3", b"2.3.1", b"2.4"))
_WITHOUT_MSH_9_3 = frozenset((b"2.1", b"2.2", b"2.3"))


@dataclass(frozen=True, slots=True)
class Error:
    """One ERR segment. `code` and `meaning` are of table 0357; `text` holds no patient data; `location` as in ERR-2."""

    code: str
    meaning: str
    text: str
    location: str = ""


NOT_STORED = Error("207", "Application internal error", "Not stored, send again")
NO_HEADER = Error("100", "Segment sequence error", "No MSH segment", "MSH^1")
UNKNOWN_TYPE = Error("200", "Unsupported message type", "MSH-9 names no message type that is known here", "MSH^1^9")
UNKNOWN_PROCESSING_ID = Error("202", "Unsupported processing id", "MSH-11 is not P, T or D", "MSH^1^11")
UNKNOWN_VERSION = Error("203", "Unsupported version id", "MSH-12 is not a version that is known here", "MSH^1^12")


def too_large(limit: int) -> Error:
    """The error for a frame over the limit in bytes."""
    return Error("207", "Application internal error", f"Message over {limit} bytes")


def build(header: Header | None, code: Code, control_id: str, now: datetime, error: Error | None = None) -> bytes:
    """Return an ACK as it goes into a frame, in the sender's delimiters, ended by CR.

    `header` is the MSH of the message that is answered, None where it had none. `control_id` is the answer's own MSH-10 (20 ASCII
    characters at most), `now` an instant in UTC.
    """
    fs, encoding = _delimiters(header)
    cs = encoding[:1]
    stated = header.field(12).split(cs)[0].strip() if header else b""
    version = stated if stated in _VERSIONS else b"2.5.1"
    msa = [b"MSA", code.encode(), header.control_id if header else b""]
    if error is not None and version in _WITHOUT_ERR_3:
        msa.append(error.text.encode("ascii", "replace"))
    segments = [fs.join(_msh(header, encoding, version, control_id, now)), fs.join(msa)]
    if error is not None:
        segments.append(fs.join(_err(error, cs)))
    return b"\r".join(segments) + b"\r"


def _msh(header: Header | None, encoding: bytes, version: bytes, control_id: str, now: datetime) -> list[bytes]:
    written = f"{now:%Y%m%d%H%M%S}+0000".encode()
    own = control_id.encode("ascii")
    if header is None:
        return [b"MSH", encoding, b"ARCUATE", b"", b"", b"", written, b"", b"ACK", own, b"P", version]
    cs, event, processing = encoding[:1], header.type[1].encode(), header.field(11)
    kind = b"ACK"
    if event:
        kind = cs.join((b"ACK", event) if version in _WITHOUT_MSH_9_3 else (b"ACK", event, b"ACK"))
    if processing[:1] not in (b"P", b"T", b"D"):
        processing = b"P"
    route = (header.field(5) or b"ARCUATE", header.field(6), header.field(3), header.field(4))
    charset = [b"", b"", b"", b"", b"", header.field(18)] if header.field(18) else []
    return [b"MSH", encoding, *route, written, b"", kind, own, processing, version, *charset]


def _err(error: Error, cs: bytes) -> list[bytes]:
    location = error.location.encode("ascii", "replace").replace(b"^", cs)
    condition = cs.join((error.code.encode(), error.meaning.encode("ascii", "replace"), b"HL70357"))
    return [b"ERR", b"", location, condition, b"E", b"", b"", b"", error.text.encode("ascii", "replace")]


def _delimiters(header: Header | None) -> tuple[bytes, bytes]:
    """The sender's delimiters where they can be used, else the standard ones."""
    if header is None:
        return b"|", b"^~\\&"
    encoding = header.fields[2]
    usable = 3 <= len(encoding) <= 5 and len(set(encoding)) == len(encoding) and encoding.isascii()
    if not usable or any(chr(byte).isalnum() or byte <= 0x20 for byte in encoding) or header.separator in encoding:
        # The echoed bytes must still be one field: the separator stays the sender's.
        return header.separator, b"^~\\&" if header.separator not in b"^~\\&" else b"@~\\&"
    return header.separator, encoding


@dataclass(frozen=True, slots=True)
class Answer:
    """What an acknowledgement says. `text` is ERR-8, else MSA-3."""

    code: str
    control_id: bytes
    text: str


def read(raw: bytes) -> Answer | None:
    """MSA of an acknowledgement; None where there is no MSA."""
    lines = raw.replace(b"\n", b"\r").split(b"\r")
    fs = next((line[3:4] for line in lines if line.lstrip(b"\xef\xbb\xbf \t")[:3] == b"MSH"), b"|")
    msa: list[bytes] | None = None
    text = b""
    for line in lines:
        fields = line.split(fs)
        if fields[0] == b"MSA" and msa is None:
            msa = fields
            text = fields[3] if len(fields) > 3 else b""
        elif fields[0] == b"ERR" and len(fields) > 8 and fields[8]:
            text = fields[8]
    if msa is None:
        return None
    code = msa[1].decode("ascii", "replace").strip() if len(msa) > 1 else ""
    return Answer(code, msa[2] if len(msa) > 2 else b"", text.decode("utf-8", "replace"))
