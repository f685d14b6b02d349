"""The modules that measure, by the names that `pipelines.toml` uses."""

from collections.abc import Mapping

from arcuate.imaging import brain
from arcuate.imaging.pipelines import Method

METHODS: Mapping[str, Method] = {"brain": brain.measure}
