"""What the department scans: the table in `data/exams.toml`, and how long an exam takes."""

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from arcuate.hospital.settings import HospitalSettings
from arcuate.kernel.errors import NotFound

Floats = npt.NDArray[np.float64]

SLOWER_AT_1_5_T = 24 / 18
"""Image time of a brain at 1.5 T against 3 T (general knowledge)."""


@dataclass(frozen=True)
class Exam:
    """One orderable exam.

    `minutes` is the mean time on the table at 3 T (or on the CT) without turnover, `booked` the slot in minutes,
    `reading` the mean reading time in minutes; `share` and `emergency` are parts of the modality's planned and
    unplanned work.
    """

    code: str
    display: str
    modality: str
    region: str
    contrast: str
    share: float
    emergency: float
    minutes: float
    booked: int
    reading: float
    skill: str
    side: str = ""


@dataclass(frozen=True)
class Scanner:
    """One scanner: its name on the board, what it is, and its field in tesla (0 for CT)."""

    name: str
    modality: str
    tesla: float


SCANNERS = (Scanner("MR1", "MR", 3.0), Scanner("MR2", "MR", 1.5), Scanner("MR3", "MR", 3.0), Scanner("CT1", "CT", 0.0))


def load_exams() -> tuple[Exam, ...]:
    """Read the department's exams."""
    text = (files("arcuate.hospital") / "data" / "exams.toml").read_text(encoding="utf-8")
    return tuple(Exam(**row) for row in tomllib.loads(text)["exam"])


def exam_of(exams: Sequence[Exam], code: str) -> Exam:
    """Return the exam with that code.

    Raises:
        NotFound: The department does not scan it.
    """
    for exam in exams:
        if exam.code == code:
            return exam
    raise NotFound(f"The synthetic department has no exam {code}", where="hospital/data/exams.toml")


def lognormal(rng: np.random.Generator, mean: Floats | float, cv: float, size: int | None = None) -> Floats:
    """Draw log-normal values with that mean and coefficient of variation."""
    sigma2 = math.log1p(cv * cv)
    drawn: Floats = np.asarray(mean) * np.exp(rng.normal(-sigma2 / 2, math.sqrt(sigma2), size))
    return drawn


def booked_minutes(exam: Exam, scanner: Scanner) -> int:
    """Return the slot's minutes on that scanner, in fives: a quarter more at 1.5 T."""
    return math.ceil(exam.booked * 1.25 / 5) * 5 if scanner.tesla == 1.5 else exam.booked


def preparation_minutes(exam: Exam, setting: str, settings: HospitalSettings, rng: np.random.Generator) -> float:
    """Draw the minutes from arrival until the patient could go onto the table; emergencies come ready."""
    if setting != "AMB":
        return 0.0
    mean = settings.preparation_mr_min if exam.modality == "MR" else settings.preparation_ct_min
    if exam.contrast in ("gbca", "iodinated"):
        mean += settings.preparation_contrast_min
    return float(lognormal(rng, mean, settings.preparation_cv))


def table_minutes(
    exam: Exam,
    scanner: Scanner,
    setting: str,
    settings: HospitalSettings,
    rng: np.random.Generator,
    *,
    technologist_min: float,
) -> float:
    """Draw the minutes on the table.

    Args:
        setting: `AMB`, `EMER` or `IMP` (v3-ActCode); the last two take longer.
        technologist_min: That day's technologist's own addition, in minutes.
    """
    mean = exam.minutes * (SLOWER_AT_1_5_T if scanner.tesla == 1.5 else 1.0)
    if exam.modality == "MR":
        mean += technologist_min
        mean += {"IMP": settings.inpatient_extra_min, "EMER": settings.emergency_extra_min}.get(setting, 0.0)
    return max(2.0, float(lognormal(rng, max(3.0, mean), settings.exam_cv)))
