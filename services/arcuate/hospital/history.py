"""Months of the synthetic department as FHIR NDJSON: what the attendance and wait models train on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from arcuate.hospital.past import Past, draw_past
from arcuate.hospital.resources import PastResources
from arcuate.hospital.settings import HospitalSettings


@dataclass(frozen=True)
class Written:
    """What was written: resources by type, and the past that they tell."""

    counts: Mapping[str, int]
    past: Past


def write_history(folder: Path, settings: HospitalSettings, seed: int, months: int) -> Written:
    """Write `Type.ndjson` files (R4) of the months before `settings.history_end`.

    Patient, ServiceRequest, Appointment, Encounter (period.start = arrival), Procedure (performedPeriod = on the table) and
    Location. Same settings, seed and months give the same bytes. About 2,000 bookings a month.
    """
    past = draw_past(settings, seed, months)
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for name, resources in PastResources(past, settings, seed).by_type():
        with (folder / f"{name}.ndjson").open("w", encoding="utf-8", newline="\n") as out:
            counts[name] = 0
            for resource in resources:
                out.write(json.dumps(resource, ensure_ascii=False, separators=(",", ":")) + "\n")
                counts[name] += 1
    return Written(counts, past)
