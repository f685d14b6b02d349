"""Which network labels a head, and how the picture is given to it: by the series' tags where there are any, else by what comes of it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcuate.imaging import series
from arcuate.imaging.domain import NotMeasurable, RefusalCode, refuse
from arcuate.imaging.pipelines import Infer, Scan, Volume, named
from arcuate.imaging.segmentation import PIPELINE, RULES, segment
from arcuate.imaging.series import Choice
from arcuate.imaging.volumetry import Segmentation

T1 = "t1"


@dataclass(frozen=True)
class Candidate:
    """One way to label a head: a network, and whether it is given the brain with dark and bright exchanged."""

    role: str
    turned_over: bool
    weightings: tuple[str, ...]

    @property
    def name(self) -> str:
        """How the result names it."""
        model = named(PIPELINE).models[self.role]
        return f"{model} on the image turned over" if self.turned_over else model


def candidates(rules: Mapping[str, Any]) -> tuple[Candidate, ...]:
    """Return the candidates of segmentation.toml in their order."""
    return tuple(Candidate(c["model"], c["turned_over"], tuple(c["weightings"])) for c in rules["candidate"])


async def labelled(scan: Scan, infer: Infer, models_dir: Path) -> tuple[Segmentation, str]:
    """Label a scan in the way that suits its contrast, and say why it was that one.

    A DICOM series was chosen by its tags, which also name its weighting. A file states none: the candidates are tried in
    their order up to the first whose answer is of enough quality; where none is, the best of them is taken.

    Raises:
        NotMeasurable: With the reason.
    """
    rules = tomllib.loads(RULES.read_text(encoding="utf-8"))
    if scan.choice is not None:
        weighting = weighting_of(scan.choice)
        one = next(c for c in candidates(rules) if weighting in c.weightings)
        found = await segment(scan.volume, infer, models_dir, one.role, one.turned_over)
        why = f"the series is {weighting.upper()}-weighted by its tags"
        return _trusted(found, rules), f"{one.name}, because {why}{'' if weighting == T1 else ' and no T1 suits'}."
    return await _by_the_picture(scan.volume, infer, models_dir, rules)


def weighting_of(choice: Choice) -> str:
    """Return t1, flair, t2 or pd of a chosen series; FLAIR comes before T2, whose name it often holds too."""
    if choice.rules == series.T1:
        return T1
    if choice.facts.flair_by_timing:
        return "flair"
    return next((word for word in ("flair", "t2", "pd") if word in choice.facts.words), "flair")


async def _by_the_picture(
    volume: Volume, infer: Infer, models_dir: Path, rules: Mapping[str, Any]
) -> tuple[Segmentation, str]:
    tried: list[tuple[float, Candidate, Segmentation]] = []
    failed: list[str] = []
    failure: NotMeasurable | None = None
    enough = rules["choice"]["passes_from"]
    for one in candidates(rules):
        if (failure or tried) and not (models_dir / named(PIPELINE).models[one.role] / "model.toml").is_file():
            continue
        try:
            found = await segment(volume, infer, models_dir, one.role, one.turned_over)
        except NotMeasurable as error:
            if error.refusal.code != RefusalCode.NOT_PLAUSIBLE:
                raise
            failure = failure or error
            failed.append(f"{one.name} gave no plausible answer")
            continue
        score = found.quality.score
        tried.append((score or 0.0, one, found))
        if score is None or score >= enough:
            said = "is plausible" if score is None else f"has quality {score:.2f}"
            others = f" ({'; '.join(failed)})" if failed else ""
            return found, f"{one.name}, because the file states no weighting and its answer {said}{others}."
        failed.append(f"{one.name} has quality {score:.2f}")
    if not tried:
        assert failure is not None
        raise failure
    _, one, found = max(tried, key=lambda t: t[0])
    why = f"{one.name}, the best for a file that states no weighting ({'; '.join(failed)})."
    return _trusted(found, rules), why


def _trusted(found: Segmentation, rules: Mapping[str, Any]) -> Segmentation:
    """Return it, unless its quality is too poor for any use."""
    limit, score = rules["quality"]["refused_below"], found.quality.score
    if score is not None and score < limit:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, f"Unanswerable: the quality of the measurement is {score:.2f} (at least {limit:g})",
            "Check that the series is an MR of a whole adult head without strong movement; do not use volumes of it.",
        )  # fmt: skip
    return found
