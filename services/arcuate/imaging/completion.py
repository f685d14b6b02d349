"""Is a study whole? What others said of it, against what is here. Pure: statements and headers in, a verdict out.

Two statements can prove an end: a performed procedure step that ended and names its images (MPPS, PS3.4 annex F), and a PACS that
was asked and gave all that it counts. The rest only proves that something is missing: an image that is named and not here
(instance availability, storage commitment: the standard says of neither that it names all, PS3.4 R.3.2 and J.3.2), and counts in
the images themselves. Where nobody said anything, quiet time decides.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from arcuate.imaging.domain import Instance

MOST = 1_000_000  # a count above that is a mistake of the sender


class Source(StrEnum):
    """Who spoke of the images of a study."""

    STEP = "performed procedure step"
    AVAILABILITY = "instance availability notification"
    COMMITMENT = "storage commitment request"
    PULL = "PACS"


@dataclass(frozen=True)
class Statement:
    """What somebody said of the images of a study.

    Attributes:
        ended: True: nothing else follows; False: more is to come; None: it says nothing of an end.
        named: SOP Instance UIDs that it names.
        count: How many images it counts; 0 where it does not.
    """

    source: Source
    ended: bool | None
    named: frozenset[str] = frozenset()
    count: int = 0


@dataclass(frozen=True)
class Verdict:
    """Whether a study is known to be whole, and by whom; or what is known to be missing, in words. Both empty: nobody said."""

    whole_by: str = ""
    missing: str = ""


def judge(told: Sequence[Statement], held: Sequence[Instance]) -> Verdict:
    """Compare what was said of a study with what is here.

    Args:
        held: All received objects of the study.
    """
    here = {instance.sop_uid for instance in held}
    missing = [*_named(told, here), *_counted(told, len(here)), *_open(told), *_by_headers(held)]
    if missing:
        return Verdict(missing="; ".join(missing))
    ended = [one for one in told if one.ended and (one.named or one.count)]
    # An image that no ended statement names came from somewhere else: what else that place sends nobody knows.
    if ended and (here <= frozenset().union(*(one.named for one in ended))):
        return Verdict(whole_by=", ".join(sorted({str(one.source) for one in ended})))
    return Verdict()


def seconds_left(verdict: Verdict, silent_s: float, quiet_s: float, incomplete_s: float) -> float:
    """Return how long a study is still waited for, in seconds; 0 or less: not any more.

    Args:
        silent_s: Since its last image.
        quiet_s: After that a study of which nobody said anything counts as whole.
        incomplete_s: After that a study that is known to lack images is used all the same.
    """
    if verdict.whole_by:
        return 0
    return (max(quiet_s, incomplete_s) if verdict.missing else quiet_s) - silent_s


def _named(told: Iterable[Statement], here: set[str]) -> list[str]:
    made = []
    for source in Source:
        named = frozenset().union(*(one.named for one in told if one.source is source))
        if lacking := len(named - here):
            made.append(f"{lacking} of {len(named)} images that the {source} names have not come")
    return made


def _counted(told: Iterable[Statement], here: int) -> list[str]:
    return [f"the {o.source} counts {o.count} images, {here} came" for o in told if here < o.count <= MOST]


def _open(told: Iterable[Statement]) -> list[str]:
    return [f"the {o.source} has not ended" for o in told if o.ended is False and o.source is Source.STEP]


def _by_headers(held: Sequence[Instance]) -> list[str]:
    """Counts in the images (PS3.3 C.7.6.1: Images in Acquisition; the related counts of PS3.4 C.3.4, which some archives write in)."""
    made = []
    study = _most(held, "NumberOfStudyRelatedInstances")
    if len(held) < study:
        made.append(f"the images state {study} in the study, {len(held)} came")
    groups: dict[str, list[Instance]] = {}
    for instance in held:
        groups.setdefault(instance.series_uid, []).append(instance)
    for group in groups.values():
        number = group[0].text("SeriesNumber") or "without number"
        series = _most(group, "NumberOfSeriesRelatedInstances")
        if len(group) < series:
            made.append(f"series {number}: its images state {series}, {len(group)} came")
        stated, came = _acquisitions(group)
        made += [
            f"series {number}: {came[one]} of the {count} images of an acquisition came"
            for one, count in sorted(stated.items())
            if came[one] < count
        ]
    return made


def _acquisitions(group: Sequence[Instance]) -> tuple[Mapping[str, int], Counter[str]]:
    """Return by acquisition of a series how many images it has by its images' own count, and how many planes came."""
    stated: dict[str, int] = {}
    came: Counter[str] = Counter()
    for instance in group:
        if not instance.text("ImageType").startswith("ORIGINAL"):
            continue  # a reformat keeps the count of what it was made from
        acquisition = instance.text("AcquisitionNumber")
        came[acquisition] += max(1, len(instance.frames))
        if count := _most([instance], "ImagesInAcquisition"):
            stated[acquisition] = max(count, stated.get(acquisition, 0))
    return stated, came


def _most(held: Iterable[Instance], keyword: str) -> int:
    counts = (int(instance.number(keyword) or 0) for instance in held)
    return max((count for count in counts if count <= MOST), default=0)
