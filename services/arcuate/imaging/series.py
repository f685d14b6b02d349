"""Which series of a study is measured, and why: the rules of `series.toml`, applied."""

import operator
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from arcuate.imaging.domain import Instance, NotMeasurable, Refusal, RefusalCode, Unreadable, persons_conflict, refuse
from arcuate.imaging.geometry import Grid, arrange

Rule = Mapping[str, Any]

T1 = "series.toml"
_NAMES = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "ConvolutionKernel")


@dataclass(frozen=True)
class Facts:
    """What the rules of `series.toml` can ask about one series.

    Attributes:
        words: Kinds of `[words]` that its names hold.
        coverage_mm: Shortest extent of the volume; longest_mm: longest edge of a voxel.
        hounsfield: CT values are stated to be HU after rescaling (PS3.3 C.8.2.1); thickness_mm: of one slice.
    """

    uid: str
    number: int | None
    description: str
    modality: str
    body_part: str
    image_type: tuple[str, ...]
    acquisition: str
    words: frozenset[str]
    contrast_agent: bool
    lossy: bool
    t1_by_name: bool
    t1_by_timing: bool
    echo_time_ms: float | None
    repetition_time_ms: float | None
    slices: int
    slice_distance_mm: float | None = None
    voxel_mm: float | None = None
    longest_mm: float | None = None
    coverage_mm: float | None = None
    inversion_time_ms: float | None = None
    flair_by_timing: bool = False
    hounsfield: bool = False
    kilovolts: float | None = None
    thickness_mm: float | None = None

    @property
    def title(self) -> str:
        """How people name the series."""
        number = f"Series {self.number}" if self.number is not None else "The series without a number"
        return f"{number} ({self.description})" if self.description else number


@dataclass(frozen=True)
class Passed:
    """A series that was not chosen, with the reason."""

    facts: Facts
    refusal: Refusal


@dataclass(frozen=True)
class Choice:
    """The series to measure.

    Attributes:
        reason: Why this one, as a sentence.
        warnings: What goes with the measurement.
        passed: The others, each with its reason.
        rules: The file of rules that chose it.
    """

    facts: Facts
    grid: Grid
    reason: str
    warnings: tuple[str, ...]
    passed: tuple[Passed, ...]
    rules: str = T1

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The chosen series' instances in the order of slices."""
        return tuple({s.instance.sop_uid: s.instance for s in self.grid.slices}.values())


def choose(found: Sequence[Instance | Unreadable], rules: str = T1) -> Choice:
    """Choose the series to measure out of all files of a study.

    Args:
        rules: The file of rules that says what is wanted (`series.toml` and those beside it).

    Raises:
        NotMeasurable: None can be measured; the reason names each series with its own reason.
    """
    unreadable = [f for f in found if isinstance(f, Unreadable)]
    instances = [f for f in found if isinstance(f, Instance)]
    if not instances:
        raise NotMeasurable(
            unreadable[0].refusal if unreadable else Refusal(RefusalCode.NO_SERIES, "There are no images")
        )
    _check_one_patient(instances)
    grouped: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        grouped[instance.series_uid].append(instance)
    candidates: list[tuple[int, Choice]] = []
    passed: list[Passed] = []
    for group in grouped.values():
        facts = facts_of(group, rules)
        try:
            candidates.append(_candidate(facts, group, _rules(rules)))
        except NotMeasurable as error:
            passed.append(Passed(facts, error.refusal))
    if not candidates:
        raise NotMeasurable(_none_fits(passed, _rules(rules)["wanted"]))
    candidates.sort(key=lambda c: (-c[0], -c[1].facts.slices, c[1].facts.number or 0, c[1].facts.uid))
    best = candidates[0][1]
    others = [
        Passed(c.facts, Refusal(RefusalCode.NOT_SUITED, f"{best.facts.title} suits better")) for _, c in candidates[1:]
    ]
    lost = (f"{len(unreadable)} files could not be read and were left out",) if unreadable else ()
    return replace(best, passed=tuple(passed + others), warnings=best.warnings + lost, rules=rules)


def held(found: Sequence[Instance | Unreadable], conditions: Sequence[Rule], rules: str) -> bool:
    """Return whether a series of the study meets one of these conditions, by its headers alone.

    Args:
        rules: The file whose words name what series are called.
    """
    grouped: dict[str, list[Instance]] = defaultdict(list)
    for instance in found:
        if isinstance(instance, Instance):
            grouped[instance.series_uid].append(instance)
    stated = [facts_of(group, rules) for group in grouped.values()]
    return any(_holds(when, facts) for when in conditions for facts in stated)


def facts_of(instances: Sequence[Instance], rules: str = T1) -> Facts:
    """Return the header facts of one series (geometry comes later)."""
    first = instances[0]
    names = " | ".join(first.text(k) for k in _NAMES)
    words = _words(names, _rules(rules))
    echo, repetition = first.number("EchoTime"), first.number("RepetitionTime")
    if first.text("AngioFlag") == "Y":
        words |= {"function_or_flow"}
    number = first.number("SeriesNumber")
    return Facts(
        uid=first.series_uid,
        number=int(number) if number is not None else None,
        description=first.text("SeriesDescription"),
        modality=first.text("Modality"),
        body_part=first.text("BodyPartExamined").strip().upper(),
        image_type=tuple(dict.fromkeys(part for i in instances for part in i.text("ImageType").split("\\") if part)),
        acquisition=first.text("MRAcquisitionType"),
        words=frozenset(words),
        contrast_agent="contrast_agent" in words or _agent(first.text("ContrastBolusAgent")),
        lossy=first.text("LossyImageCompression") == "01",
        t1_by_name="t1" in words,
        t1_by_timing=_t1_by_timing(first, echo, repetition),
        echo_time_ms=echo,
        repetition_time_ms=repetition,
        slices=sum(max(1, len(i.frames)) for i in instances),
        inversion_time_ms=first.number("InversionTime"),
        flair_by_timing=_flair_by_timing(echo, repetition, first.number("InversionTime")),
        hounsfield=_hounsfield(instances),
        kilovolts=first.number("KVP"),
        thickness_mm=first.number("SliceThickness"),
    )


def _check_one_patient(instances: Sequence[Instance]) -> None:
    """Refuse a study whose images state different patients: no reader may guess whose brain it is."""
    first = instances[0]
    for instance in instances:
        if instance.study_uid != first.study_uid:
            raise refuse(RefusalCode.MIXED, "The images belong to several studies", "Give one study at a time.")
        if persons_conflict(first.person, instance.person):
            raise refuse(
                RefusalCode.IDENTITY, "The images of one study state different patients",
                "Find out whose images they are before anybody uses them.",
            )  # fmt: skip


def _candidate(facts: Facts, group: Sequence[Instance], rules: Rule) -> tuple[int, Choice]:
    for instance in group:
        if instance.damage:
            raise NotMeasurable(instance.damage)
    _refuse_by_rule(facts, rules)
    grid = arrange(group)
    facts = _with_geometry(facts, grid)
    _refuse_by_rule(facts, rules)
    liked = [r for r in rules["prefer"] if _holds(r["when"], facts)]
    warnings = [r["say"] for r in rules["warn"] if _holds(r["when"], facts)]
    remarks = sorted({remark for i in group for remark in i.remarks})
    reason = f"{facts.title}: " + ", ".join(r["because"] for r in liked)
    choice = Choice(facts, grid, reason, (*grid.warnings, *warnings, *remarks), ())
    return sum(int(r["points"]) for r in liked), choice


def _refuse_by_rule(facts: Facts, rules: Rule) -> None:
    for rule in rules["refuse"]:
        if _holds(rule["when"], facts):
            raise NotMeasurable(Refusal(RefusalCode.NOT_SUITED, rule["what"], rule["todo"]))


def _with_geometry(facts: Facts, grid: Grid) -> Facts:
    columns, rows, slices = grid.spacing
    extents = [(n - 1) * s for n, s in zip(grid.shape, grid.spacing, strict=True)]
    return replace(
        facts, slices=grid.shape[2], slice_distance_mm=slices, voxel_mm=max(columns, rows), longest_mm=max(grid.spacing),
        coverage_mm=min(extents),
    )  # fmt: skip


def _none_fits(passed: Sequence[Passed], wanted: str) -> Refusal:
    if len(passed) == 1:
        return passed[0].refusal
    listed = "; ".join(f"{p.facts.title}: {p.refusal.what}" for p in passed)
    return Refusal(RefusalCode.NO_SERIES, f"No series can be measured. {listed}", wanted)


# ---- the interpreter of series.toml ----------------------------------------------------------------------------------

_TESTS: Mapping[str, Callable[[Any, Facts], bool]] = {
    "modality": lambda any_of, f: f.modality in any_of,
    "modality_not": lambda allowed, f: f.modality not in allowed,
    "body_part": lambda any_of, f: f.body_part in any_of,
    "hounsfield": lambda wanted, f: f.hounsfield is wanted,
    "body_part_not": lambda allowed, f: f.body_part not in allowed,
    "word": lambda kind, f: kind in f.words,
    "no_word": lambda kind, f: kind not in f.words,
    "image_type": lambda any_of, f: bool(set(any_of) & set(f.image_type)),
    "acquisition": lambda any_of, f: f.acquisition in any_of,
    "contrast_agent": lambda wanted, f: f.contrast_agent is wanted,
    "lossy": lambda wanted, f: f.lossy is wanted,
    "t1_by_name": lambda wanted, f: f.t1_by_name is wanted,
    "t1_by_timing": lambda wanted, f: f.t1_by_timing is wanted,
    "flair_by_timing": lambda wanted, f: f.flair_by_timing is wanted,
    "above": lambda bounds, f: _compare(operator.gt, f, bounds),
    "not_above": lambda bounds, f: _compare(operator.le, f, bounds),
    "below": lambda bounds, f: _compare(operator.lt, f, bounds),
    "missing": lambda names, f: all(getattr(f, name) is None for name in names),
}


def _holds(when: Rule, facts: Facts) -> bool:
    """Return whether every condition of a rule holds; a comparison with an unknown value does not."""
    return all(_TESTS[name](value, facts) for name, value in when.items())


def _compare(test: Callable[[float, float], bool], facts: Facts, bounds: Mapping[str, float]) -> bool:
    values = [(getattr(facts, name), bound) for name, bound in bounds.items()]
    return all(value is not None and test(float(value), bound) for value, bound in values)


@cache
def _rules(name: str) -> Rule:
    return tomllib.loads(files("arcuate.imaging").joinpath(name).read_text("utf-8"))


def _words(names: str, rules: Rule) -> set[str]:
    plain = re.sub(r"[_\-*.]+", " ", names.lower())
    return {kind for kind, patterns in rules["words"].items() if any(re.search(p, plain) for p in patterns)}


def _agent(stated: str) -> bool:
    return stated.strip().lower() not in ("", "none", "no", "n", "without")


def _t1_by_timing(first: Instance, echo: float | None, repetition: float | None) -> bool:
    """Short echo with a spoiled gradient echo (FLASH, MPRAGE), or a spin echo of short repetition."""
    if echo is None or repetition is None:
        return False
    sequence = first.text("ScanningSequence").split("\\")
    if "EP" in sequence:
        return False
    if "GR" in sequence:
        return echo <= 12
    return echo <= 25 and repetition <= 1000


def _flair_by_timing(echo: float | None, repetition: float | None, inversion: float | None) -> bool:
    """Long echo, repetition and inversion times: T2 weighting in which fluid is dark (1.5 T and 3 T)."""
    if echo is None or repetition is None or inversion is None:
        return False
    return 60 <= echo <= 500 and repetition >= 4000 and 1400 <= inversion <= 3200


def _hounsfield(instances: Sequence[Instance]) -> bool:
    """Every image states how its numbers become HU: rescale slope and intercept, and no other kind of value."""
    kinds = {i.text("RescaleType").strip().upper() for i in instances}
    # Enhanced images state it for each frame: an intercept there stands for a stated one.
    stated = all(
        (i.number("RescaleIntercept") is not None and i.number("RescaleSlope")) or any(f.intercept for f in i.frames)
        for i in instances
    )
    return stated and kinds <= {"", "HU", "HU_MOD"}
