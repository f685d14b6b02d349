"""Every forecast passes the independent FHIR referee."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir import strict
from arcuate.scheduling import answers
from arcuate.scheduling.attendance import site_rate
from arcuate.scheduling.domain import Chance, Confidence, Forecast, ModelName, Moment, Quantiles, Reason, Visit
from arcuate.scheduling.waiting import booked_rate

NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
MODEL = ModelName("attendance", "2026.03.01", "0" * 64, "2026-03-01", True, "synthetic department")


def test_every_form_of_a_forecast_passes_the_referee(shared: Path, tmp_path: Path) -> None:
    visit = Visit("a1", "p1", "o1", NOW + timedelta(days=2), minutes=30, arrived=NOW - timedelta(minutes=12))
    moment = Moment(visit, NOW)
    full = Chance(
        0.412,
        0.33,
        0.5,
        0.08,
        (Reason("missed 2 of the last 3 visits", 16.2), Reason("everything else", -0.8)),
        (300, 121),
    )
    usual = Forecast(Confidence.LOW, {"no-show": full, "late-cancel": full}, {}, ("birth date",), "", MODEL)
    waits = Forecast(
        Confidence.USUAL, {}, {"wait": Quantiles(2, 11.4, 40), "duration": Quantiles(12, 18, 27)}, (), "", MODEL
    )
    rate = site_rate({"no-show": 0.08, "late-cancel": 0.0}, "no model")
    made = [
        answers.risk_assessment(moment, usual), answers.risk_assessment(moment, rate),
        *answers.observations(moment, waits), *answers.observations(moment, booked_rate(moment, "no model")),
    ]  # fmt: skip
    file = tmp_path / "forecasts.json"
    file.write_bytes(strict.dumps(bundles.collection(made)))
    judged = subprocess.run(
        [shared / "tools" / "fhir-referee" / "fhir-referee", "--local-system", "urn:arcuate:", file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if judged.returncode == 3:
        pytest.skip("the referee is not set up (setup.sh beside it)")

    assert judged.returncode == 0, judged.stdout
