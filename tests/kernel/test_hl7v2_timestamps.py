"""Times (row 021): the zone is the sender's, a date stays a date, and nothing is guessed."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.kernel.errors import BadInput
from arcuate.kernel.hl7v2 import timestamps

ZURICH, NEW_YORK = ZoneInfo("Europe/Zurich"), ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("sent", "fhir"),
    [
        ("2026", "2026"),
        ("202603", "2026-03"),
        ("20260317", "2026-03-17"),
        ("202603171405", "2026-03-17T14:05:00+01:00"),
        ("20260317140509", "2026-03-17T14:05:09+01:00"),
        ("20260317140509.1234", "2026-03-17T14:05:09.1234+01:00"),
        ("20260317140509123", "2026-03-17T14:05:09.123+01:00"),
        ("20260317140509-0500", "2026-03-17T14:05:09-05:00"),
        ("202110201126+0215", "2021-10-20T11:26:00+02:15"),
        ("20150924162038- 0500", "2015-09-24T16:20:38-05:00"),
        ("2025-01-15T14:00:00", "2025-01-15T14:00:00+01:00"),
        ("2025-01-15T14:00:00Z", "2025-01-15T14:00:00+00:00"),
        ("2025-01-15", "2025-01-15"),
        ("20250115 1430", "2025-01-15T14:30:00+01:00"),
        (" 19980729160500", "1998-07-29T16:05:00+02:00"),
        ("Aug 15, 1942", "1942-08-15"),
        ("20260317235960", "2026-03-17T23:59:59+01:00"),
    ],
)
def test_f021_every_shape_seen_keeps_what_was_written(sent: str, fhir: str) -> None:
    assert timestamps.parse(sent, ZURICH).fhir == fhir


@pytest.mark.parametrize(
    "sent",
    ["", "0", "TS", "F", "SC", "DATE!", "20261301", "20260230", "202603172515", "20260317140509+2500", "01/15/2025", "2009113025-0500",
     "196203520", "not-a-date", "99999999", "20260317140509 and more"],
)  # fmt: skip
def test_f021_what_is_no_time_is_refused_and_never_now(sent: str) -> None:
    with pytest.raises(BadInput) as refused:
        timestamps.parse(sent, ZURICH, where="OBR-7")
    assert refused.value.where == "OBR-7"
    assert not sent or sent not in str(refused.value)


@pytest.mark.parametrize(
    ("zone", "sent", "fhir", "doubt"),
    [
        (NEW_YORK, "20260308013000", "2026-03-08T01:30:00-05:00", ""),
        (NEW_YORK, "20260308023000", "2026-03-08T02:30:00-05:00", "skip"),
        (NEW_YORK, "20260308033000", "2026-03-08T03:30:00-04:00", ""),
        (NEW_YORK, "20261101013000", "2026-11-01T01:30:00-04:00", "twice"),
        (NEW_YORK, "20261101013000-0500", "2026-11-01T01:30:00-05:00", ""),
        (NEW_YORK, "20261101023000", "2026-11-01T02:30:00-05:00", ""),
        (ZURICH, "20260329023000", "2026-03-29T02:30:00+01:00", "skip"),
        (ZURICH, "20261025023000", "2026-10-25T02:30:00+02:00", "twice"),
        (ZURICH, "20261025023000+0100", "2026-10-25T02:30:00+01:00", ""),
        (ZURICH, "202603172400", "2026-03-18T00:00:00+01:00", "24:00"),
    ],
)
def test_f021_changes_of_the_clocks_are_told(zone: ZoneInfo, sent: str, fhir: str, doubt: str) -> None:
    moment = timestamps.parse(sent, zone)

    assert moment.fhir == fhir
    assert doubt in moment.doubt and bool(moment.doubt) == bool(doubt)


def test_f021_a_date_has_no_instant_and_a_time_without_any_zone_is_not_one() -> None:
    assert timestamps.parse("20260317", ZURICH).instant is None
    assert timestamps.parse("20260317140509").instant is None
    with pytest.raises(BadInput, match="zone"):
        _ = timestamps.parse("20260317140509").fhir
    assert timestamps.parse("198808181126+0215").date == "1988-08-18"


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    st.sampled_from([ZURICH, NEW_YORK, UTC]),
)
def test_an_instant_that_we_write_is_read_back_equal(instant: datetime, zone: ZoneInfo) -> None:
    written = timestamps.write(instant, zone)
    offset = instant.astimezone(zone).utcoffset()
    if offset is not None and offset.total_seconds() % 60 == 0:
        assert timestamps.parse(written, NEW_YORK).instant == instant.replace(microsecond=0)
