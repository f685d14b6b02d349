"""One file's header as facts, without decoding its pixels; runs in the reading process only (`parsing_process.py`)."""

import hashlib
import io
import os
import struct
import tomllib
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from arcuate.imaging.domain import RefusalCode as Code

Json = dict[str, Any]

IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
NATIVE = frozenset({IMPLICIT, EXPLICIT, DEFLATED})
ENCAPSULATED = frozenset({
    "1.2.840.10008.1.2.5",  # RLE lossless
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81",  # JPEG-LS
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",  # JPEG 2000
})  # fmt: skip
# MR Image Storage, Enhanced MR Image Storage, Legacy Converted Enhanced MR Image Storage; the same three of CT
MEASURABLE = frozenset({
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4",
})  # fmt: skip
_PIXELS = 0x7FE00000  # from here on pixel data; header attributes have smaller tags
_UNDEFINED = 0xFFFFFFFF
MEBI = 2**20


class Bad(Exception):
    """A file that must not be used: code, what, what to do."""

    def __init__(self, code: Code, what: str, todo: str = "Send the image again from the scanner or the PACS.") -> None:
        super().__init__(what)
        self.code, self.what, self.todo = code, what, todo


_KEYWORDS = tomllib.loads(files("arcuate.imaging").joinpath("headers.toml").read_text("utf-8"))
_WANTED: list[str] = _KEYWORDS["facts"] + _KEYWORDS["carried"]
_GROUPS: Mapping[str, list[str]] = _KEYWORDS["groups"]
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_TAGS = [tag_for_keyword(k) for k in [*_WANTED, _SHARED, _PER_FRAME, "SpecificCharacterSet"]]
# Looked up once: a folder has hundreds of headers.
_LOOKED_UP = [(k, Tag(k), dictionary_VR(k)) for k in _WANTED]


def header(path: str, limits: Json) -> Json:
    """Read the facts of one file without decoding its pixels.

    Returns:
        The JSON form of `domain.Instance`.

    Raises:
        Bad: Not even the header can be trusted.
    """
    with Path(path).open("rb") as raw:
        syntax, start, size = read_meta(path, raw, limits)
        digest = digest_of(raw, start)
        body = body_of(raw, start, size, syntax, limits)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            dataset = read_dataset(
                body, syntax == IMPLICIT, True, stop_when=lambda tag, _vr, _length: tag >= _PIXELS, specific_tags=_TAGS
            )
            tags, dropped = _values(dataset)
            _check_uids(tags)
            frames, damage = [], None
            try:
                _check_is_image(tags, body, syntax == IMPLICIT)
                _check_pixel_module(tags, limits)
                frames = _frames(dataset, tags, limits)
                _check_pixels(body, syntax, tags, len(frames))
            except Bad as bad:
                damage = [bad.code, bad.what, bad.todo]
        return {
            "path": path, "digest": digest, "size": size, "transfer_syntax": syntax, "tags": tags, "frames": frames,
            "dropped": dropped, "remarks": _remarks(said), "damage": damage,
        }  # fmt: skip


def read_meta(path: str, raw: BinaryIO, limits: Json) -> tuple[str, int, int]:
    """Return transfer syntax, where the data set begins, and the file's size."""
    size = os.fstat(raw.fileno()).st_size
    if size > limits["file_bytes"]:
        raise Bad(
            Code.TOO_LARGE,
            f"The file has {size // MEBI} MiB, more than the limit of {limits['file_bytes'] // MEBI} MiB",
        )
    if raw.read(132)[128:] != b"DICM":
        raise Bad(
            Code.NOT_DICOM, "The file is not DICOM (no DICM mark after the preamble)", "Leave it out of the folder."
        )
    meta = read_file_meta_info(path)
    length, syntax = meta.get("FileMetaInformationGroupLength"), str(meta.get("TransferSyntaxUID", ""))
    if not isinstance(length, int) or not 0 < length < size - 144:
        raise Bad(Code.DAMAGED, "The file meta information states no usable length")
    if syntax not in NATIVE | ENCAPSULATED:
        raise Bad(
            Code.ENCODING, f"The transfer syntax {UID(syntax).name if syntax else '(none)'} is not read here",
            "Send it uncompressed, RLE, JPEG-LS or JPEG 2000.",
        )  # fmt: skip
    return syntax, 144 + length, size


def digest_of(raw: BinaryIO, start: int) -> str:
    raw.seek(start)
    digest = hashlib.sha256()
    while block := raw.read(MEBI):
        digest.update(block)
    return digest.hexdigest()


def body_of(raw: BinaryIO, start: int, size: int, syntax: str, limits: Json) -> BinaryIO:
    """Return a stream that stands at the data set; a deflated one is inflated up to a limit."""
    raw.seek(start)
    return io.BytesIO(_inflate(raw, size, limits)) if syntax == DEFLATED else raw


def _inflate(raw: BinaryIO, size: int, limits: Json) -> bytes:
    # No image deflates a hundredfold; a bomb does, up to a thousandfold.
    limit = min(limits["file_bytes"], 100 * size + MEBI)
    engine, parts, total = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    while block := raw.read(1 << 16):
        while block:
            part = engine.decompress(block, MEBI)
            total += len(part)
            if total > limit:
                raise Bad(Code.HOSTILE, f"The deflated file opens to more than {limit // MEBI} MiB")
            parts.append(part)
            block = engine.unconsumed_tail
    if not engine.eof:
        raise Bad(Code.DAMAGED, "The deflated file ends too early")
    return b"".join(parts)


def _values(dataset: Dataset) -> tuple[Json, dict[str, str]]:
    """Return the values of the wanted attributes, and the keywords whose value is not legal with the reason."""
    tags: Json = {}
    dropped: dict[str, str] = {}
    for keyword, tag, vr in _LOOKED_UP:
        if tag not in dataset:
            continue
        try:
            value = _plain(dataset[tag].value, vr)
        except (ValueError, TypeError, OverflowError, struct.error):
            dropped[keyword] = "cannot be read"
            continue
        if value is None:
            continue
        tags[keyword] = value
        if reason := _illegal(keyword, value):
            dropped[keyword] = reason
    return tags, dropped


def _plain(value: Any, vr: str) -> Any:
    """Return a value as JSON knows it: numbers for DS, IS, US, FD, text for the rest; None when empty."""
    if isinstance(value, list | tuple) or (
        hasattr(value, "__iter__") and not isinstance(value, str | bytes) and vr != "PN"
    ):
        several = [_plain(v, vr) for v in value]
        return several if any(v is not None for v in several) else None
    if value is None or value == "":
        return None
    if vr in ("DS", "FD", "FL"):
        number = float(value)
        return number if np.isfinite(number) else None
    if vr in ("IS", "US", "SS", "UL", "SL"):
        return int(value)
    if isinstance(value, bytes):
        raise ValueError("bytes")
    return str(value)


def _illegal(keyword: str, value: Any) -> str:
    """Return why a value that would be carried on is not legal, or nothing."""
    if keyword not in _KEYWORDS["carried"]:
        return ""
    vr = dictionary_VR(keyword)
    for one in value if isinstance(value, list) else [value]:
        if "\ufffd" in str(one):
            return "is not valid in its character set"
        if one not in _KEYWORDS["enumerated"].get(keyword, [one]):
            return "is not one of the values that DICOM allows"
        try:
            validate_value(vr, one, RAISE)
        except ValueError:
            return f"breaks the form of a value of type {vr}"
    return ""


def _check_uids(tags: Json) -> None:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        value = tags.get(keyword)
        parts = value.split(".") if isinstance(value, str) else []
        if not (len(parts) > 1 and len(str(value)) <= 64 and all(p.isascii() and p.isdigit() for p in parts)):
            raise Bad(
                Code.ILLEGAL_UID, f"{keyword} is missing or is no legal UID", "Ask the sender to repair its UIDs."
            )


def _check_is_image(tags: Json, body: BinaryIO, implicit: bool) -> None:
    """Tell what this room never decodes (reports, segmentations, other modalities) from MR and CT images; it still must be whole."""
    if tags["SOPClassUID"] in MEASURABLE:
        return
    here = body.tell()
    head = body.read(12)
    left = body.seek(0, io.SEEK_END) - here - 12
    body.seek(here)
    if len(head) == 12 and struct.unpack("<H", head[:2]) == (0x7FE0,):
        length = struct.unpack("<I", head[4:8] if implicit else head[8:12])[0]
        if length != _UNDEFINED and length > left + 4:
            raise Bad(Code.DAMAGED, f"The pixel data is cut: it states {length} bytes, {left} are there")
    name = UID(tags["SOPClassUID"]).name.removesuffix(" Storage")
    raise Bad(Code.NOT_SUITED, f"It is no MR or CT image ({name})", "Send the images of the head themselves.")


def _check_pixel_module(tags: Json, limits: Json) -> None:
    rows, columns = tags.get("Rows"), tags.get("Columns")
    if not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
        raise Bad(Code.DAMAGED, "Rows or Columns are missing or zero")
    if tags.get("SamplesPerPixel") != 1 or tags.get("PhotometricInterpretation") != "MONOCHROME2":
        raise Bad(
            Code.NOT_SUITED,
            "The image is not a plain grey image (a colour picture or inverted)",
            "Send the series itself.",
        )
    bits = tags.get("BitsAllocated")
    if bits not in (8, 16, 32) or tags.get("PixelRepresentation") not in (0, 1):
        raise Bad(Code.DAMAGED, "BitsAllocated or PixelRepresentation is missing or not 8, 16 or 32 bit integers")
    frames = tags.get("NumberOfFrames", 1)
    if not isinstance(frames, int) or frames < 1 or rows * columns * frames > limits["voxels"]:
        raise Bad(
            Code.TOO_LARGE, f"The image states {rows} x {columns} x {frames} voxels, more than any series of the head"
        )


def _frames(dataset: Dataset, tags: Json, limits: Json) -> list[list[Any]]:
    if _PER_FRAME not in dataset:
        if tags.get("NumberOfFrames", 1) != 1:
            raise Bad(Code.ORIENTATION, "The image has several frames and no geometry for each")
        return [_frame(tags)]
    per_frame = dataset[_PER_FRAME].value
    if len(per_frame) != tags.get("NumberOfFrames"):
        raise Bad(Code.DAMAGED, f"NumberOfFrames and the described frames differ ({len(per_frame)} are described)")
    shared = _group(dataset[_SHARED].value[0]) if _SHARED in dataset and len(dataset[_SHARED].value) else {}
    for ours, theirs in (
        ("EchoTime", "EffectiveEchoTime"),
        ("RepetitionTime", "RepetitionTime"),
        ("FlipAngle", "FlipAngle"),
    ):
        if ours not in tags and theirs in shared:
            tags[ours] = shared[theirs]
    frames = [_frame({**tags, **shared, **_group(item)}) for item in per_frame]
    for keyword in ("SliceThickness", "SpacingBetweenSlices"):
        if keyword in shared:
            tags.setdefault(keyword, shared[keyword])
    return frames


def _group(item: Dataset) -> Json:
    found: Json = {}
    for sequence, keywords in _GROUPS.items():
        if sequence in item and len(item[sequence].value):
            inner = item[sequence].value[0]
            for keyword in keywords:
                if keyword in inner:
                    found[keyword] = _plain(inner[keyword].value, dictionary_VR(keyword))
    return found


def _frame(tags: Json) -> list[Any]:
    """Return position, orientation, spacing, thickness, slope, intercept as `domain.Frame` takes them."""
    cosines = _numbers(tags, "ImageOrientationPatient", 6)
    thickness = tags.get("SliceThickness")
    slope, intercept = tags.get("RescaleSlope", 1.0), tags.get("RescaleIntercept", 0.0)
    if not (isinstance(slope, float) and isinstance(intercept, float)) or slope == 0:
        raise Bad(Code.DAMAGED, "RescaleSlope or RescaleIntercept is no usable number")
    return [
        _numbers(tags, "ImagePositionPatient", 3), [cosines[:3], cosines[3:]] if cosines else None, _numbers(tags, "PixelSpacing", 2),
        thickness if isinstance(thickness, float) else None, slope, intercept,
    ]  # fmt: skip


def _numbers(tags: Json, keyword: str, count: int) -> list[float] | None:
    values = tags.get(keyword)
    if isinstance(values, list) and len(values) == count and all(isinstance(v, float) for v in values):
        return values
    return None


def _check_pixels(body: BinaryIO, syntax: str, tags: Json, frames: int) -> None:
    """Compare the pixel data that is there with what the header promises, without reading it."""
    vr, length = _pixel_element(body, syntax == IMPLICIT)
    begin = body.tell()
    left = body.seek(0, io.SEEK_END) - begin
    body.seek(begin)
    if syntax in ENCAPSULATED:
        if length != _UNDEFINED:
            raise Bad(Code.DAMAGED, "The compressed pixel data states a length")
        _check_fragments(body, left)
        return
    promised = tags["Rows"] * tags["Columns"] * frames * tags["BitsAllocated"] // 8
    if length == _UNDEFINED or length > left:
        raise Bad(Code.DAMAGED, f"The pixel data is cut: it states {length} bytes, {left} are there")
    if not promised <= length <= promised + 1:
        raise Bad(Code.DAMAGED, f"The pixel data has {length} bytes, its header promises {promised}")
    if vr not in ("OW", "OB", ""):
        raise Bad(Code.DAMAGED, "The pixel data is not of type OB or OW")


def _pixel_element(body: BinaryIO, implicit: bool) -> tuple[str, int]:
    """Return VR (empty when implicit) and length of the pixel data element, with the stream behind its head."""
    head = body.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12) or struct.unpack("<HH", head[:4]) != (0x7FE0, 0x0010):
        raise Bad(Code.DAMAGED, "The file holds no pixel data where it should stand")
    if implicit:
        return "", struct.unpack("<I", head[4:])[0]
    return head[4:6].decode("latin-1"), struct.unpack("<I", head[8:])[0]


def _check_fragments(body: BinaryIO, left: int) -> None:
    for group, element, length in _items(body):
        if (group, element) == (0xFFFE, 0xE0DD):
            return
        if (group, element) != (0xFFFE, 0xE000) or length > left:
            break
        body.seek(length, io.SEEK_CUR)
    raise Bad(Code.DAMAGED, "The compressed pixel data is cut or has no end")


def _items(body: BinaryIO) -> Iterator[tuple[int, int, int]]:
    while len(head := body.read(8)) == 8:
        yield struct.unpack("<HHI", head)


def metadata(path: str, limits: Json) -> Json:
    """Return the data set as DICOM JSON (PS3.18 F) without bulk data."""
    with Path(path).open("rb") as raw:
        syntax, start, size = read_meta(path, raw, limits)
        body = body_of(raw, start, size, syntax, limits)
        dataset = read_dataset(body, syntax == IMPLICIT, True, stop_when=lambda tag, _vr, _length: tag >= _PIXELS)
        return dataset.to_json_dict(
            bulk_data_threshold=1024, bulk_data_element_handler=lambda _e: "", suppress_invalid_tags=True
        )


def _remarks(said: Sequence[warnings.WarningMessage]) -> list[str]:
    """Return what was odd, in words of our own: the library's texts can hold values."""
    if any("decod" in str(w.message) for w in said):
        return ["Text in the header is not valid in its stated character set"]
    return []
