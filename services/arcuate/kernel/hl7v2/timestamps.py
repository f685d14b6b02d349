"""Times of HL7 v2 (TS, DTM; v2.5.1 chapter 2.A.22): what was written, no more and no less.

A time without an offset is read in the zone that the sender's profile names, never in the host's; a date stays a date; seconds that
were not sent are not known. What cannot be read is refused with error 102 of table 0357, never replaced by "now".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import IntEnum

from arcuate.kernel.errors import BadInput


class Precision(IntEnum):
    """The smallest part that was sent."""

    YEAR = 1
    MONTH = 2
    DAY = 3
    HOUR = 4
    MINUTE = 5
    SECOND = 6


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time as precise as it was sent.

    Attributes:
        local: The parts as written, smaller parts zero, without zone.
        fraction: Digits behind the decimal point of the seconds.
        zone: The stated offset, else the profile's zone; None for a date and where no zone is known.
        stated: True when the sender stated the offset.
        doubt: A sentence where the clock time is not one point (it occurs twice, never, or is 24:00).
    """

    local: datetime
    precision: Precision
    fraction: str = ""
    zone: tzinfo | None = None
    stated: bool = False
    doubt: str = ""

    @property
    def instant(self) -> datetime | None:
        """The instant in UTC; None for a date or a time without any zone."""
        if self.precision < Precision.HOUR or self.zone is None:
            return None
        return self._aware().astimezone(UTC)

    @property
    def date(self) -> str:
        """FHIR `date`: at most a day, the day that was written."""
        return self.local.strftime(_FHIR_DATE[min(self.precision, Precision.DAY)])

    @property
    def fhir(self) -> str:
        """FHIR `dateTime`. Seconds that were not sent are zero, as FHIR demands."""
        if self.precision < Precision.HOUR:
            return self.date
        if self.zone is None:
            raise BadInput(
                "A time of day needs a zone.", todo="State the sender's time zone in its profile.", code="value"
            )
        fraction = f".{self.fraction}" if self.fraction else ""
        return f"{self.local:%Y-%m-%dT%H:%M:%S}{fraction}{_offset(self._aware())}"

    def _aware(self) -> datetime:
        return self.local.replace(tzinfo=self.zone, microsecond=int((self.fraction + "000000")[:6]))


_FHIR_DATE = {Precision.YEAR: "%Y", Precision.MONTH: "%Y-%m", Precision.DAY: "%Y-%m-%d"}
_OFFSET = r"(?P<sign>[+-])(?P<oh>\d\d):?(?P<om>\d\d)"
_HL7 = re.compile(
    r"(?P<y>\d{4})(?:(?P<mo>\d\d)(?:(?P<d>\d\d)(?:[ T]?(?P<h>\d\d)(?:(?P<mi>\d\d)(?:(?P<s>\d\d)(?:\.?(?P<f>\d{1,9}))?)?)?)?)?)?"
    rf"(?:{_OFFSET}|(?P<z>Z))?\Z"
)
_ISO = re.compile(
    r"(?P<y>\d{4})-(?P<mo>\d\d)(?:-(?P<d>\d\d)(?:[T ](?P<h>\d\d):(?P<mi>\d\d)(?::(?P<s>\d\d)(?:\.(?P<f>\d{1,9}))?)?)?)?"
    rf"(?:{_OFFSET}|(?P<z>Z))?\Z"
)
_WORDS = re.compile(
    r"(?P<mo>[A-Z][a-z]{2})[a-z]* (?P<d>\d{1,2}), (?P<y>\d{4})(?: (?P<h>\d\d):(?P<mi>\d\d)(?::(?P<s>\d\d))?)?\Z"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def parse(text: str, zone: tzinfo | None = None, where: str = "") -> Moment:
    """Read a time; `zone` is the sender's where no offset is stated, `where` the field for the error.

    Raises:
        BadInput: code "value", when the text is no time (HL7 error 102, data type error).
    """
    written = text.strip()
    compact = re.sub(r"(?<=[+-]) ", "", written)
    found = _HL7.match(compact) or _ISO.match(written) or _WORDS.match(written)
    moment = _read(found.groupdict(), zone) if found else None
    if moment is None:
        raise BadInput(
            "This is not a time that can be read without guessing.",
            where=where,
            todo="Send it as YYYYMMDDHHMMSS+ZZZZ.",
            code="value",
        )
    return moment


def _read(parts: dict[str, str | None], zone: tzinfo | None) -> Moment | None:
    keys = ("y", "mo", "d", "h", "mi", "s")
    month = parts["mo"]
    if month in _MONTHS:
        parts = {**parts, "mo": str(_MONTHS.index(month) + 1)}
    numbers = [int(value) for key in keys if (value := parts[key]) is not None and value.isdigit()]
    precision = Precision(len(numbers))
    if len(numbers) != sum(parts[key] is not None for key in keys):
        return None
    local, doubt = _calendar(numbers)
    if local is None:
        return None
    moment = Moment(local, precision, parts.get("f") or "", doubt=doubt)
    if precision < Precision.HOUR:
        return moment
    return _placed(moment, parts, zone)


def _calendar(numbers: list[int]) -> tuple[datetime | None, str]:
    year, month, day, hour, minute, second = (*numbers, *(0, 1, 1, 0, 0, 0)[len(numbers) :])
    midnight = hour == 24 and minute == 0 and second == 0
    try:
        # A leap second is the last second of its minute here.
        local = datetime(year, month, day, 0 if midnight else hour, minute, min(second, 59) if second <= 60 else second)
        if midnight:
            return local + timedelta(days=1), "24:00 was read as 00:00 of the next day"
    except (ValueError, OverflowError):
        return None, ""
    return local, ""


def _placed(moment: Moment, parts: dict[str, str | None], zone: tzinfo | None) -> Moment | None:
    if parts.get("z"):
        return replace(moment, zone=UTC, stated=True)
    hours, minutes = parts.get("oh"), parts.get("om")
    if hours is not None and minutes is not None:
        # FHIR and Python know offsets of up to 14 hours.
        if int(hours) > 14 or int(minutes) > 59:
            return None
        offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if parts["sign"] == "-" else 1)
        return replace(moment, zone=timezone(offset), stated=True)
    if zone is None:
        return moment
    return replace(moment, zone=zone, doubt=moment.doubt or _twice_or_never(moment.local, zone))


def _twice_or_never(local: datetime, zone: tzinfo) -> str:
    """A sentence where a change of the clocks makes the time double or missing; the offset before the change is used."""
    first, second = local.replace(tzinfo=zone), local.replace(tzinfo=zone, fold=1)
    if first.utcoffset() == second.utcoffset():
        return ""
    there = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local
    if there:
        return "the clock shows this time twice; the first was taken"
    return "the clocks skip this time; the offset before the change was taken"


def _offset(moment: datetime) -> str:
    offset = moment.utcoffset() or timedelta()
    minutes = round(offset.total_seconds() / 60)
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def write(moment: datetime, zone: tzinfo = UTC) -> str:
    """An instant as DTM with seconds and offset, in `zone`."""
    local = moment.astimezone(zone)
    return f"{local:%Y%m%d%H%M%S}{_offset(local).replace(':', '')}"


def write_date(fhir: str) -> str:
    """A FHIR `date` or the date part of a `dateTime` as DT."""
    return fhir[:10].replace("-", "")
