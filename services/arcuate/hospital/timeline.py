"""The history's calendar: local minutes, opening hours, and FHIR instants with the zone's offset."""

from dataclasses import dataclass
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DAY = 1440.0
"""Minutes a day. A local time is `proleptic ordinal * DAY + minutes after midnight`, as a wall clock shows it."""


def working_days(first: date, last: date) -> list[int]:
    """Return the ordinals of Monday to Friday from first to last, both included."""
    return [day for day in range(first.toordinal(), last.toordinal() + 1) if date.fromordinal(day).weekday() < 5]


def months_before(day: date, months: int) -> date:
    """Return the day after the same day of the month, so many months earlier."""
    number = day.year * 12 + day.month - 1 - months
    first = date(number // 12, number % 12 + 1, 1)
    return date.fromordinal(min(first.toordinal() + day.day, first.toordinal() + 27))


def office_time(times: Floats, latest: Floats, rng: np.random.Generator) -> Floats:
    """Move times into office hours (08:00 to 17:30) of their day, but never past `latest`."""
    moved = np.floor(times / DAY) * DAY + rng.uniform(480, 1050, len(times))
    late = moved >= latest
    moved[late] = latest[late] - rng.uniform(40, 200, int(late.sum()))
    return moved


@dataclass
class Stamper:
    """Writes local times as FHIR dateTime or instant with the zone's offset; remembers each day's offset."""

    zone: ZoneInfo

    def __post_init__(self) -> None:
        self._offsets: dict[int, tuple[str, str]] = {}

    def __call__(self, local: float) -> str:
        """Return e.g. `2026-03-17T13:20:00+01:00`; the offset is that of the day's noon."""
        day = int(local // DAY)
        known = self._offsets.get(day)
        if known is None:
            noon = datetime.combine(date.fromordinal(day), time(12), self.zone)
            text = noon.isoformat()
            known = self._offsets[day] = (text[:11], text[19:])
        seconds = int((local - day * DAY) * 60)
        return f"{known[0]}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{known[1]}"
