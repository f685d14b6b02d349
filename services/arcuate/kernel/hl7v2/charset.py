"""Which characters the bytes of a message mean, in a fixed order of trust, recorded with the text.

Profile override; strict UTF-8 when the bytes are valid UTF-8; MSH-18 (HL7 table 0211); the profile's default. Senders leave
MSH-18 empty or state ISO 8859-1 for bytes that are UTF-8, so the bytes are asked before the header.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

Source = Literal["profile", "bytes", "MSH-18", "default", "none"]

# HL7 table 0211 and the spellings seen beside it, as Python codec names.
TABLE_0211 = {
    "ASCII": "ascii",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "UTF8": "utf-8",
    "UNICODE": "utf-8",
    "ISO IR6": "ascii",
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "CNS 11643-1992": "big5",
    "BIG-5": "big5",
    **{f"8859/{part}": f"iso8859-{part}" for part in (*range(1, 12), 13, 14, 15, 16)},
}

_MSH_18 = re.compile(rb"(?:^|[\r\n])[\xef\xbb\xbf \t]*MSH([^\w\s])((?:(?!\1)[^\r\n])*\1){16}((?:(?!\1)[^\r\n~])*)")


@dataclass(frozen=True, slots=True)
class Charset:
    """The codec that was used and why. `name` is "undecodable" when no codec of the order of trust fits the bytes."""

    name: str
    source: Source

    @property
    def readable(self) -> bool:
        return self.source != "none"


ASCII = Charset("ascii", "bytes")
UTF_8 = Charset("utf-8", "bytes")
UNDECODABLE = Charset("undecodable", "none")


def codec_of(name: str) -> str | None:
    """Python codec of a name from table 0211 or an ordinary codec name; None when unknown."""
    known = TABLE_0211.get(name.strip().upper())
    if known is not None:
        return known
    try:
        return codecs.lookup(name.strip()).name if name.strip() and not name.strip().isdigit() else None
    except LookupError:
        return None


def declared(raw: bytes) -> str:
    """MSH-18, first repetition, as written; the empty string when it is absent."""
    found = _MSH_18.search(raw)
    return found.group(3).decode("ascii", "replace") if found else ""


def decode(raw: bytes, override: str = "", default: str = "cp1252") -> tuple[str, Charset]:
    """Text of the bytes and the codec used. Undecodable bytes become surrogates, so that encoding gives them back."""
    if override:
        codec = codec_of(override)
        text = _try(raw, codec) if codec else None
        if codec and text is not None:
            return text, Charset(codec, "profile")
    if raw.isascii():
        return raw.decode("ascii"), ASCII
    text = _try(raw, "utf-8")
    if text is not None:
        return text, UTF_8
    candidates: tuple[tuple[str | None, Source], ...] = (
        (codec_of(declared(raw)), "MSH-18"),
        (codec_of(default), "default"),
    )
    for codec, source in candidates:
        text = _try(raw, codec) if codec else None
        if codec and text is not None:
            return text, Charset(codec, source)
    return raw.decode("utf-8", "surrogateescape"), UNDECODABLE


def encode(text: str, charset: Charset) -> bytes:
    """The bytes that `decode` read."""
    if not charset.readable:
        return text.encode("utf-8", "surrogateescape")
    return text.encode(charset.name)


def _try(raw: bytes, codec: str) -> str | None:
    try:
        text = raw.decode(codec)
        # A codec that would not give the same bytes back (stateful ones can) must not be trusted with the only copy.
        return text if text.encode(codec) == raw else None
    except (UnicodeError, LookupError):
        return None
