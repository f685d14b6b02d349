"""Times, durations, chances and names as people read them (design page, section 7): 24 h, no dashes, units with a space."""

import math
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from zoneinfo import ZoneInfo

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_LEAST_CASES = 20


@dataclass(frozen=True)
class Wording:
    """Writes times for one site at one moment.

    Attributes:
        now: Aware.
    """

    now: datetime
    zone: ZoneInfo

    @property
    def today(self) -> str:
        """Return today as a heading: "Tue 17 Mar"."""
        return f"{self.now.astimezone(self.zone):%a} {self.day(self.now)}"

    def clock(self, moment: datetime) -> str:
        """Return the time of day: "13:42"."""
        return f"{moment.astimezone(self.zone):%H:%M}"

    def day(self, moment: datetime) -> str:
        """Return the day: "17 Mar", or "17 Mar 2025" in another year."""
        local, now = moment.astimezone(self.zone), self.now.astimezone(self.zone)
        return f"{local.day} {local:%b}" + ("" if local.year == now.year else f" {local.year}")

    def date(self, day: date) -> str:
        """Return a calendar day: "3 Apr 2024"."""
        return f"{day.day} {day:%b} {day.year}"

    def is_today(self, moment: datetime) -> bool:
        """Return whether it is the site's today."""
        return moment.astimezone(self.zone).date() == self.now.astimezone(self.zone).date()

    def when(self, moment: datetime) -> str:
        """Return the time, with the day if it is not today: "13:42", "24 Feb 14:40"."""
        return self.clock(moment) if self.is_today(moment) else f"{self.day(moment)} {self.clock(moment)}"

    def ago(self, moment: datetime) -> str:
        """Return how long ago: "38 s ago", "19 min ago"; "just now" below a second."""
        seconds = (self.now - moment).total_seconds()
        return "just now" if seconds < 1 else f"{span(seconds)} ago"

    def due(self, moment: datetime) -> str:
        """Return what is left until a due time: "14 min", "1 h 32", "tomorrow", "7 min late"."""
        left = (moment - self.now).total_seconds()
        if left < 0:
            return f"{span(-left)} late"
        days = (moment.astimezone(self.zone).date() - self.now.astimezone(self.zone).date()).days
        if days == 1:
            return "tomorrow"
        return f"in {days} days" if days > 1 else span(left, whole_minutes=True)


def span(seconds: float, *, whole_minutes: bool = False) -> str:
    """Return a duration: "0.3 s", "38 s", "19 min", "1 h 32", "26 days"; none is negative, whatever the clocks of two hosts say."""
    seconds = max(0.0, seconds)
    if seconds < 10 and not whole_minutes:
        return f"{seconds:.1f} s" if 0.05 <= seconds < 1 else f"{seconds:.0f} s"
    if seconds < _MINUTE and not whole_minutes:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{math.floor(seconds / _MINUTE)} min"
    if seconds < 2 * _DAY:
        return f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // _MINUTE):02d}"
    return f"{int(seconds // _DAY)} days"


def percent(chance: float) -> str:
    """Return a chance: "41 %"; never 0 or 100, which no forecast can mean."""
    return f"{min(99, max(1, round(100 * chance)))} %"


def of_count(part: int, whole: int) -> str:
    """Return a frequency: "24 of 58", or that the cases are too few to say."""
    return f"{part} of {whole}" if whole >= _LEAST_CASES else "too few"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a counted noun: "1 case", "4 cases"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def volume(value: Decimal, unit: str) -> str:
    """Return a measured value, no finer than it can be known: "1,142 mL", "53.8 mL", "2.31 mL"; a count "12", a ratio "0.31"."""
    counted = unit.startswith("{")
    digits = 0 if counted or value >= 100 else 1 if value >= 10 else 2
    rounded = value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{rounded:,}" if counted or unit == "1" else f"{rounded:,} {unit}"


def listed(items: list[str], most: int = 3) -> str:
    """Return items as one phrase; what is left out is counted."""
    shown, rest = items[:most], len(items) - most
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
