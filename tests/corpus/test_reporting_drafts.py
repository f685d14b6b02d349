"""Drafts with and without values, judged by the FHIR referee."""

import importlib.util
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from arcuate import reporting as package
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.db import Database
from arcuate.kernel.fhir import strict
from arcuate.kernel.fhir.bundle import collection
from arcuate.kernel.settings import SiteSettings
from arcuate.reporting.passport import load_cards
from arcuate.reporting.service import Reporting, draft
from arcuate.reporting.settings import ReportingSettings
from arcuate.reporting.templates import load_templates

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)


def _made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reporting_resources", ROOT / "tests" / "reporting" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_drafts_are_valid_fhir(shared: Path, tmp_path: Path) -> None:
    made: Any = _made()
    database = Database(f"sqlite:///{tmp_path}/reporting.db")
    database.migrate(package)
    templates = load_templates(ROOT / "templates").templates
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    room = Reporting(database, ManualClock(NOW), site, ReportingSettings(), templates, load_cards(ROOT / "models"))
    cases = {
        "bare": (made.order(),),
        "refused": (made.order(), made.study(), made.refusal()),
        "measured": (
            made.order(),
            made.study(),
            made.volume("hippocampus", "left", "3.2145"),
            made.volume("hippocampus", "right", "3.0", status="final"),
        ),
        "odd": (made.order("CT head <b>", "\x0b<script>"), made.study()),
    }
    for name, resources in cases.items():
        (tmp_path / f"{name}.json").write_bytes(strict.dumps(await draft(room, collection(resources))))
    database.close()
    tool = shared / "tools" / "fhir-referee" / "fhir-referee"
    if subprocess.run([str(tool.with_name("setup.sh"))], capture_output=True, check=False).returncode != 0:
        pytest.skip("the referee cannot be set up here (node and npm are needed)")
    files = [str(tmp_path / f"{name}.json") for name in cases]
    judged = subprocess.run([str(tool), *files], capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout[-4000:]
