"""Which network labels a head: by the series' tags where there are any, else by what the measurement itself shows."""

import tomllib
from pathlib import Path

from arcuate.imaging import series
from arcuate.imaging.domain import NotMeasurable, RefusalCode, refuse
from arcuate.imaging.pipelines import Infer, Scan, named
from arcuate.imaging.segmentation import PIPELINE, RULES, Segmentation, segment

T1, OTHER = "segmenter", "other"


async def labelled(scan: Scan, infer: Infer, models_dir: Path) -> tuple[Segmentation, str]:
    """Label a scan with the network for its contrast, and say why it was that one.

    A DICOM series was chosen by its tags: T1-weighted ones go to the T1 network, others to the one for any contrast. A
    NIfTI file states no weighting: the T1 network comes first, and the other one where its answer is not plausible
    or is expected to be poor (`[choice]` in segmentation.toml).

    Raises:
        NotMeasurable: With the reason.
    """
    if scan.choice is not None:
        t1 = scan.choice.rules == series.T1
        found = await segment(scan.volume, infer, models_dir, T1 if t1 else OTHER)
        why = (
            "the series is T1-weighted by its tags"
            if t1
            else "the study has no T1-weighted series, and this one has another weighting by its tags"
        )
        return _trusted(found), f"{found.models[-1].name}, because {why}."
    return await _by_the_picture(scan, infer, models_dir)


async def _by_the_picture(scan: Scan, infer: Infer, models_dir: Path) -> tuple[Segmentation, str]:
    limits = tomllib.loads(RULES.read_text(encoding="utf-8"))["choice"]
    name, other_name = (named(PIPELINE).models[role] for role in (T1, OTHER))
    first: Segmentation | None = None
    failure: NotMeasurable | None = None
    try:
        first = await segment(scan.volume, infer, models_dir, T1)
    except NotMeasurable as error:
        if error.refusal.code != RefusalCode.NOT_PLAUSIBLE:
            raise
        failure = error
    score = first.quality.score if first else None
    if first is not None and (score is None or score >= limits["try_other_below"]):
        said = "plausible" if score is None else f"plausible (quality {score:.2f})"
        return _trusted(first), f"{name}, because the file states no weighting and its answer is {said}."
    second: Segmentation | None = None
    if (models_dir / other_name / "model.toml").is_file():
        try:
            second = await segment(scan.volume, infer, models_dir, OTHER)
        except NotMeasurable as error:
            if error.refusal.code != RefusalCode.NOT_PLAUSIBLE:
                raise
    # Measured by nothing: the reason of the network that was asked first.
    if first is None and second is None:
        assert failure is not None
        raise failure
    if first is None or (second is not None and _better(second, first, limits["margin"])):
        assert second is not None
        why = f"quality {score:.2f}" if score is not None else "not plausible"
        return _trusted(second), f"{other_name}, because the file states no weighting and {name} failed on it ({why})."
    return _trusted(first), f"{name}, because the file states no weighting and {other_name} was not better."


def _better(second: Segmentation, first: Segmentation, margin: float) -> bool:
    return (second.quality.score or 0.0) >= (first.quality.score or 0.0) + margin


def _trusted(found: Segmentation) -> Segmentation:
    """Return it, unless its quality is too poor for any use."""
    limit = tomllib.loads(RULES.read_text(encoding="utf-8"))["quality"]["refused_below"]
    score = found.quality.score
    if score is not None and score < limit:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, f"Unanswerable: the quality of the measurement is {score:.2f} (at least {limit:g})",
            "Check that the series is an MR of a whole adult head without strong movement; do not use volumes of it.",
        )  # fmt: skip
    return found
