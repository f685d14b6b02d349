"""The models that come with the house: whole, small, and plainly synthetic."""

from pathlib import Path

import pytest

from arcuate.scheduling import attendance, waiting

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize(("name", "loader"), [("attendance", attendance.load), ("waiting", waiting.load)])
def test_a_shipped_model_loads_is_small_and_says_that_it_is_synthetic(name: str, loader: object) -> None:
    model = loader(MODELS / name)  # type: ignore[operator]

    assert model.name.synthetic is True
    assert sum(f.stat().st_size for f in (MODELS / name).iterdir()) < 1_000_000
    assert "**Synthetic.**" in (MODELS / name / "card.md").read_text(encoding="utf-8")
