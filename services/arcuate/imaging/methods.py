"""The modules that measure, by the names that `pipelines.toml` uses."""

from collections.abc import Mapping

from arcuate.imaging import brain, lesions
from arcuate.imaging.ct import headct
from arcuate.imaging.pipelines import Method

METHODS: Mapping[str, Method] = {"brain": brain.measure, "lesions": lesions.measure, "head_ct": headct.measure}
