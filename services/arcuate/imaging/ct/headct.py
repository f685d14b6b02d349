"""The pipeline `head-ct`: what reading.py reads, as values of structures.toml. In shadow until a site has validated it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcuate.imaging.ct.reading import BLOOD, VENTRICLES, HeadCt, load, read
from arcuate.imaging.derived import Measured, Model
from arcuate.imaging.pipelines import Finding, Infer, Pipeline, Scan

HAEMORRHAGE, SHIFT, SPACES, EVANS = (
    "intracranial-haemorrhage",
    "midline-shift",
    "ventricles-lateral-third",
    "evans-index",
)
_LABELS = {BLOOD: 121, VENTRICLES: 122}
_NO_BLOOD = "No blood was found. That does not mean that there is none: thin, old and small haemorrhages are missed."
_NO_VENTRICLES = "The ventricles were not found surely enough."


async def measure(pipeline: Pipeline, scans: Mapping[str, Scan], infer: Infer, models_dir: Path) -> Finding:
    """Read a head CT. No network is asked.

    Raises:
        NotMeasurable: With the reason.
    """
    known = await asyncio.to_thread(load, models_dir)
    volume = scans[pipeline.first_input].volume
    found = await asyncio.to_thread(read, volume, known)
    labels = await asyncio.to_thread(_labels, found, volume.data.shape)
    measured, absent = values(found)
    return Finding(labels, measured, absent, found.warnings, Model(known.atlas.name, known.atlas.version, known.sha256))


def values(found: HeadCt) -> tuple[tuple[Measured, ...], dict[str, str]]:
    """Return the values, and for those that are missing the reason. No blood is no value: it is never said to be absent."""
    measured: list[Measured] = []
    absent: dict[str, str] = {}
    stated = (
        (HAEMORRHAGE, found.blood_ml or None, _NO_BLOOD),
        (SHIFT, None if found.shift_mm is None else abs(found.shift_mm), "The septum pellucidum was not found."),
        (SPACES, found.ventricle_ml, _NO_VENTRICLES),
        (EVANS, found.evans, "The frontal horns were not found."),
    )
    for code, value, why in stated:
        if value is None:
            absent[code] = why
        else:
            measured.append(Measured(code, None, value))
    return tuple(measured), absent


def _labels(found: HeadCt, extent: tuple[int, ...]) -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for number, label in _LABELS.items():
        table[number] = label
    native: NDArray[np.uint8] = table[found.work.native(found.labels, extent)]
    return native
