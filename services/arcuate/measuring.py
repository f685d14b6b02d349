"""Measuring without a house: the networks of this installation, opened for one command."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from rich.console import Console

from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.quantify import Measurement, quantify
from arcuate.imaging.settings import ImagingSettings
from arcuate.kernel.errors import BadInput
from arcuate.kernel.log import configure_logging

if TYPE_CHECKING:
    from arcuate.imaging.lesion_change import Change

LESIONS = "wm-lesions"


@contextlib.asynccontextmanager
async def networks() -> AsyncIterator[OipClient]:
    """Run the inference room for one command, as the house runs it, and yield a client to its networks, or to those elsewhere."""
    if url := ImagingSettings().inference_url:
        async with httpx.AsyncClient() as http:
            yield OipClient(http, url)
        return
    opened: asyncio.Future[httpx.AsyncClient] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()
    # Not waited for: the room opens and its networks load while images are read, and the first request waits for them.
    room = asyncio.create_task(_inference_room(opened, done))
    try:
        yield OipClient(opened)
    finally:
        done.set()
        await room


async def _inference_room(opened: "asyncio.Future[httpx.AsyncClient]", done: asyncio.Event) -> None:
    try:
        house = await asyncio.to_thread(import_module, "arcuate.house")
        site = (await asyncio.to_thread(import_module, "arcuate.kernel.settings")).SiteSettings(time_zone="UTC")
        with tempfile.TemporaryDirectory(prefix="arcuate-") as folder:
            settings = house.HouseSettings(data_dir=Path(folder))
            async with house.open_house(settings, site, rooms=["access", "inference"]) as running:
                opened.set_result(running.contexts["inference"].http)
                await done.wait()
    except Exception as error:
        if opened.done():
            raise
        opened.set_exception(error)


def _models() -> Path:
    from arcuate.house import HouseSettings

    return HouseSettings().models_dir


def _results(out: Path | None, path: Path) -> Path:
    """Return the folder for results.

    Raises:
        BadInput: There is a file of that name.
    """
    folder = out or Path(f"{path.resolve().name.removesuffix('.gz').removesuffix('.nii')}-arcuate")
    if folder.exists() and not folder.is_dir():
        raise BadInput("Results need a folder, and this is a file", where=str(folder), todo="Name another with --out.")
    return folder


async def quantify_path(path: Path, out: Path | None, console: Console) -> None:
    """Measure a folder or file with the engine of this installation, print the volumes and write the results."""
    configure_logging("ERROR", "console")
    folder = _results(out, path)
    async with networks() as infer:
        with console.status("Measuring (about ten seconds on two cores)"):
            result = await quantify(path, folder, await asyncio.to_thread(_models), infer)
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


async def lesions_path(flair: Path, before: Path | None, t1: Path | None, out: Path | None, console: Console) -> None:
    """Find white-matter lesions on a study or a FLAIR, compare them with an earlier one's, print and write the results."""
    from arcuate.imaging import nifti

    configure_logging("ERROR", "console")
    folder = _results(out, flair)
    models = _models()
    also = {"t1": t1} if t1 else {}
    async with networks() as infer:
        with console.status("Looking for lesions"):
            now = (await quantify(flair, folder, models, infer, pipeline=LESIONS, also=also)).measurement
            earlier = (await quantify(before, None, models, infer, pipeline=LESIONS)).measurement if before else None
            change = await compare_dates(earlier, now, infer, models) if earlier else None
    console.print(now.table())
    for line in now.warnings:
        console.print(line)
    if change is not None:
        console.print(change.words)
        (folder / LESIONS).mkdir(parents=True, exist_ok=True)
        text = json.dumps(change.summary(), indent=1, ensure_ascii=False) + "\n"
        (folder / LESIONS / "change.json").write_text(text, encoding="utf-8")
        nifti.write_labels(folder / LESIONS / "change.nii.gz", change.labels, now.volume.affine)
    console.print(f"Results in {folder / LESIONS}")


async def compare_dates(earlier: Measurement, now: Measurement, infer: OipClient, models: Path) -> "Change":
    """Compare two measurements of white-matter lesions.

    Raises:
        NotMeasurable: They cannot be compared, with the reason.
    """
    from arcuate.imaging.lesion_change import Reading, compare
    from arcuate.imaging.lesions import brain_mask

    readings = [Reading(m.volume, m.finding.labels > 0, m.finding.model) for m in (earlier, now)]
    brain = await brain_mask(now.volume, infer, models, now.pipeline.models)
    return await asyncio.to_thread(compare, readings[0], readings[1], brain)
