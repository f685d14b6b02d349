"""`arcuate train` and `arcuate evaluate`: which model is trained by which room, on what."""

import asyncio
import tempfile
import tomllib
from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path
from types import ModuleType

from arcuate.house import HouseSettings
from arcuate.kernel.errors import BadInput, Unavailable
from arcuate.kernel.settings import SiteSettings

Say = Callable[[str], None]

TABULAR = ("attendance", "waiting")
NETWORKS = ("brain-finder", "brain-t1", "brain-any")
BRAIN = {"brain-t1": "segmenter", "brain-any": "other"}  # the role in imaging/pipelines.toml
LESIONS = "wm-lesions"
HEAD_CT = "head-ct"  # trees, rules and an atlas: no network
_MONTHS = 18


def train_model(name: str, source: Path | None, minutes: float, seed: int, say: Say, settles: bool = False) -> None:
    """Train a model and write its folder under `models/`.

    Args:
        source: For networks a folder of label maps; for the others a history as FHIR NDJSON, or None for a synthetic one.
        settles: Of a brain network: let the learning rate fall to nothing in these minutes.

    Raises:
        BadInput: No such model, or no data; or a model that does not settle.
    """
    models = HouseSettings().models_dir
    if settles and name not in NETWORKS:
        raise BadInput(f"{name} is not trained by steps that can settle", todo=f"Of {', '.join(NETWORKS)} alone.")
    if name in TABULAR:
        with tempfile.TemporaryDirectory(prefix="arcuate-history-") as folder:
            history = source or _synthetic_history(Path(folder), seed, say)
            trainer = import_module(f"arcuate.scheduling.{name}_training")
            say(f"Training {name}")
            here = SiteSettings()
            site = {} if source is None else {"site": here.site_name, "synthetic": here.synthetic, "zone": here.zone}
            say(str(trainer.train(history, models / name, seed, **site)))
    elif name == HEAD_CT:
        _head_ct().train(models, _labelmaps(name, source), minutes, Path(".cache"), say)
    elif name == LESIONS:
        _need_torch()
        from arcuate.inference.training.lesion_training import train_lesions

        say(f"{name} stands in {train_lesions(models, _labelmaps(name, source), Path('.cache'), minutes, say)}")
    elif name in NETWORKS:
        _need_torch()
        if source is None:
            raise BadInput(f"{name} is trained on label maps", todo="Name their folder with --from.")
        from arcuate.inference.training.entry import train_model as train_network

        say(f"{name} stands in {train_network(name, models, source, Path('.cache'), minutes, say, settles)}")
    else:
        raise BadInput(
            f"There is no model {name!r}", todo=f"Models are: {', '.join((*TABULAR, *NETWORKS, LESIONS, HEAD_CT))}."
        )


def evaluate_model(name: str, source: Path | None, seed: int, say: Say, check: str = "") -> None:
    """Measure a model: networks on labelled scans (written into the card), the others on a history."""
    models = HouseSettings().models_dir
    if name in TABULAR:
        with tempfile.TemporaryDirectory(prefix="arcuate-history-") as folder:
            # Another seed than the training's: people and days that the model has not seen.
            history = source or _synthetic_history(Path(folder), seed + 1, say)
            say(str(import_module(f"arcuate.scheduling.{name}_training").evaluate(models / name, history, seed)))
    elif name == HEAD_CT:
        _head_ct().evaluate(models, _labelmaps(name, source), seed, Path(".cache"), say)
    elif name == LESIONS:
        if source is None:
            raise BadInput(f"{name} is measured on scans with drawn lesions", todo="Name their folder with --from.")
        asyncio.run(_evaluate_lesions(source, models, say))
    elif name in BRAIN:
        if source is None:
            raise BadInput(f"{name} is measured on labelled scans", todo="Name their folder with --from.")
        if check == "balance":
            from arcuate import brain_balance

            asyncio.run(brain_balance.fit(name, source, models, say))
        elif check == "intervals":
            from arcuate import brain_intervals

            asyncio.run(brain_intervals.fit(name, source, models, say))
        elif check:
            from arcuate import brain_checks

            brain_checks.run(name, source, models, say, check)
        else:
            asyncio.run(_evaluate_network(name, source, models, say))
    else:
        raise BadInput(
            f"There is no evaluation for {name!r}", todo=f"Known: {', '.join((*TABULAR, *BRAIN))}, wm-lesions, head-ct."
        )


async def _evaluate_network(name: str, source: Path, models: Path, say: Say) -> None:
    from arcuate.imaging import evaluation
    from arcuate.measuring import networks

    async with networks() as infer:
        scores = await evaluation.evaluate(source, infer, models, say, role=BRAIN[name])
    say(evaluation.table(scores))
    say(f"Mean Dice by side {evaluation.mean_dice(scores):.3f}")
    version = tomllib.loads((models / name / "model.toml").read_text(encoding="utf-8"))["version"]
    evaluation.write_card(
        models / name / "card.md", scores, str(version), f"arcuate evaluate {name} --from {source.name}"
    )


async def _evaluate_lesions(source: Path, models: Path, say: Say) -> None:
    from arcuate.imaging import evaluation, lesion_evaluation
    from arcuate.measuring import networks

    async with networks() as infer:
        scores = await lesion_evaluation.evaluate(source, infer, models, say)
    version = str(tomllib.loads((models / LESIONS / "model.toml").read_text(encoding="utf-8"))["version"])
    told = f"`arcuate evaluate {LESIONS} --from {source.name}` (ONNX Runtime engine, whole pipeline)"
    evaluation.put_table(models / LESIONS / "card.md", lesion_evaluation.table(scores), version, told)


def _head_ct() -> ModuleType:
    return import_module("arcuate.head_ct")


def _labelmaps(name: str, source: Path | None) -> Path:
    if source is None:
        raise BadInput(f"{name} is made and measured from label maps", todo="Name their folder with --from.")
    return source


def _synthetic_history(folder: Path, seed: int, say: Say) -> Path:
    from arcuate.hospital.history import write_history
    from arcuate.hospital.settings import HospitalSettings

    written = write_history(folder, HospitalSettings(), seed, _MONTHS)
    say(f"A synthetic history of {_MONTHS} months (seed {seed}): {dict(written.counts)}")
    return folder


def _need_torch() -> None:
    if util.find_spec("torch") is None:
        raise Unavailable(
            "Training a network needs torch, which the default install leaves out", todo="Run: scripts/install --torch"
        )
