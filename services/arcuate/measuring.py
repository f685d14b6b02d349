"""Measuring without a house: the networks of this installation, opened for one command."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from rich.console import Console

from arcuate.house import HouseSettings, open_house, wait_until_ready
from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.quantify import quantify
from arcuate.imaging.settings import ImagingSettings
from arcuate.kernel.log import configure_logging
from arcuate.kernel.settings import SiteSettings


@contextlib.asynccontextmanager
async def networks() -> AsyncIterator[OipClient]:
    """Run the inference room for one command, as the house runs it, and yield a client to its networks, or to those elsewhere."""
    if url := ImagingSettings().inference_url:
        async with httpx.AsyncClient() as http:
            yield OipClient(http, url)
        return
    with tempfile.TemporaryDirectory(prefix="arcuate-") as folder:
        settings = HouseSettings(data_dir=Path(folder))
        async with open_house(settings, SiteSettings(time_zone="UTC"), rooms=["access", "inference"]) as house:
            await wait_until_ready(house)
            yield OipClient(house.contexts["inference"].http)


async def quantify_path(path: Path, out: Path | None, console: Console) -> None:
    """Measure a folder or file with the engine of this installation, print the volumes and write the results."""
    configure_logging("ERROR", "console")
    folder = out or Path(f"{path.resolve().name.removesuffix('.gz').removesuffix('.nii')}-arcuate")
    async with networks() as infer:
        with console.status("Measuring (about half a minute on two cores)"):
            result = await quantify(path, folder, HouseSettings().models_dir, infer)
    for measurement in result.measurements:
        console.print(measurement.table())
        for line in (
            *measurement.warnings,
            *(f"not measured: {code}: {why}" for code, why in measurement.finding.absent.items()),
        ):
            console.print(line)
    for name, refusal in result.refused.items():
        console.print(f"not measured: {name}: {refusal}")
    if result.dropped:
        console.print(f"Left out of SEG and SR because the source's value is illegal: {', '.join(result.dropped)}")
    for kind, file in result.files.items():
        console.print(f"{kind:14} {file}")
