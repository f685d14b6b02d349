"""Two label protocols side by side: what the one would say of heads that were labelled by the other."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # bench/ lies beside tests/ and is not installed
protocols = import_module("bench.protocols")


def head(white: float, ventricles: float, hippocampus: float) -> dict[str, float]:
    return {protocols.SIZE: white, protocols.AGE: ventricles, "hippocampus": hippocampus}


def test_a_protocol_that_draws_a_fifth_more_is_seen_whatever_the_size_and_age_of_the_heads() -> None:
    random = np.random.default_rng(3)

    def drawn(n: int, factor: float) -> list[dict[str, float]]:
        sizes, ages = random.uniform(300, 550, n), random.uniform(8, 80, n)
        return [head(s, a, factor * 0.9 * s**0.4 * a**-0.1) for s, a in zip(sizes, ages, strict=True)]

    each, spread = protocols.beside(drawn(20, 1.2), drawn(3, 1.0), "hippocampus")
    assert each == [pytest.approx(0.2, abs=1e-6)] * 3
    assert spread == pytest.approx(0, abs=1e-6)
