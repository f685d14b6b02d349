"""The modules that measure, by the names that `pipelines.toml` uses."""

from collections.abc import Mapping
from importlib import import_module

from arcuate.imaging.pipelines import Method

METHODS: Mapping[str, str] = {
    "brain": "arcuate.imaging.brain",
    "lesions": "arcuate.imaging.lesions",
    "head_ct": "arcuate.imaging.ct.headct",
}


def loaded(name: str) -> Method:
    """Return a method, its module loaded now: what head CT needs costs half a second that a T1 does without."""
    measure: Method = import_module(METHODS[name]).measure
    return measure
