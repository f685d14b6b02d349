"""The trained network finds a brain in an invented head, and says about its true volumes."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from arcuate.hospital.heads.render import render_t1
from arcuate.hospital.heads.shape import LOW, sample_head

MODELS = Path(__file__).parents[2] / "models"


def _dice(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], *labels: int) -> float:
    a, b = np.isin(one, labels), np.isin(other, labels)
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


async def test_the_network_finds_the_brain_and_its_sides() -> None:
    runtime = pytest.importorskip("onnxruntime")
    if not all((MODELS / name / "graph.onnx").is_file() for name in ("brain-finder", "brain-t1")):
        pytest.skip("the networks are not trained yet (models/brain-finder, models/brain-t1)")
    from arcuate.imaging.pipelines import Volume
    from arcuate.imaging.segmentation import segment

    async def infer(model: str, inputs: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[Any]]:
        session = runtime.InferenceSession(str(MODELS / model / "graph.onnx"))
        answers = await asyncio.to_thread(session.run, None, dict(inputs))
        return {output.name: value for output, value in zip(session.get_outputs(), answers, strict=True)}

    head = sample_head(3)
    affine = np.eye(4)
    affine[:3, 3] = LOW + 0.5
    picture = render_t1(head.labels, 3).astype(np.float32)
    found = await segment(Volume(picture, affine), infer, MODELS)
    assert not found.quality.touches_edge
    assert not found.quality.stripped
    # By side: a mirrored answer would score near zero here.
    assert _dice(head.labels, found.labels, 2) > 0.7
    assert _dice(head.labels, found.labels, 41) > 0.7
    assert _dice(head.labels, found.labels, 4, 5) > 0.65
    assert _dice(head.labels, found.labels, 16) > 0.7
    true_brain = sum(
        head.volumes[f"{part}-{side}"]
        for part in ("cortex", "white-matter", "cerebellum")
        for side in ("left", "right")
    )
    assert abs(found.quality.brain_ml / true_brain - 1) < 0.25
