"""The engine process: damaged models, time limits, crashes; and that both engines answer alike."""

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arcuate.imaging.oip_client import OipClient
from arcuate.inference.host import EngineHost, EngineSettings
from arcuate.inference.settings import InferenceSettings
from arcuate.kernel.errors import NotFound, Unavailable
from arcuate.kernel.log import get_logger

from .conftest import FINDER, SHIPPED, Opened

SHAPE = (1, 1, 56, 64, 72)


def host(models: Path, engine: str = "onnx", limit_s: float = 60.0) -> EngineHost:
    return EngineHost(models, EngineSettings(engine, 1, 5, limit_s), get_logger("inference"))


def noise() -> np.ndarray:
    return np.random.default_rng(1).random(SHAPE, np.float32)


@pytest.mark.parametrize("file", ["weights.safetensors", "graph.onnx"])
async def test_a_model_whose_files_were_changed_is_disabled_and_says_why(
    opened: Opened, models: Path, file: str
) -> None:
    path = models / FINDER / file
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    async with opened(models) as house:
        http = house.contexts["inference"].http
        for answer in (
            await http.get("/v2/health/ready"), await http.get(f"/v2/models/{FINDER}/ready"),
            await http.post(f"/v2/models/{FINDER}/infer", content=b"{}"),
        ):  # fmt: skip
            assert answer.status_code == 503 and "sha256" in answer.text and file in answer.text


@pytest.mark.parametrize("text", ["", "name = ", 'name = "other"\n[graph]\n', '[graph]\nfile = "../x"'])
async def test_a_model_with_a_broken_description_is_disabled_or_left_out(models: Path, text: str) -> None:
    (models / FINDER / "model.toml").write_text(text)
    engines = host(models)
    if FINDER in engines.states:
        with pytest.raises(Unavailable, match=r"model\.toml"):
            await engines.infer(FINDER, {"image": noise()}, ["probabilities"])
    else:
        with pytest.raises(NotFound):
            engines.state(FINDER)
    await engines.stop()


async def test_a_network_that_is_late_is_stopped_and_the_next_call_starts_anew(models: Path) -> None:
    engines = host(models, limit_s=0.001)
    with pytest.raises(Unavailable, match="did not answer within"):
        await engines.infer(FINDER, {"image": noise()}, ["probabilities"])
    engines._settings = EngineSettings("onnx", 1, 5, 60.0)
    found = await engines.infer(FINDER, {"image": noise()}, ["probabilities"])
    assert found["probabilities"].shape == (1, 2, *SHAPE[2:])
    await engines.stop()


async def test_a_crashed_engine_is_told_and_started_anew(models: Path) -> None:
    engines = host(models)
    before = await engines.infer(FINDER, {"image": noise()}, ["probabilities"])
    assert engines._process is not None
    asking = asyncio.create_task(engines.infer(FINDER, {"image": noise()}, ["probabilities"]))
    await asyncio.sleep(0)
    engines._process.kill()
    with pytest.raises(Unavailable):
        await asking
    after = await engines.infer(FINDER, {"image": noise()}, ["probabilities"])
    assert (before["probabilities"] == after["probabilities"]).all()
    await engines.stop()


async def test_a_cancelled_caller_does_not_give_its_answer_to_the_next(models: Path) -> None:
    engines = host(models)
    expected = await engines.infer(FINDER, {"image": noise()}, ["probabilities"])
    asking = asyncio.create_task(engines.infer(FINDER, {"image": np.zeros(SHAPE, np.float32)}, ["probabilities"]))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (await engines.infer(FINDER, {"image": noise()}, ["probabilities"]))["probabilities"].tobytes() == expected[
        "probabilities"
    ].tobytes()
    await engines.stop()


async def test_the_client_gets_probabilities_that_do_not_depend_on_the_number_of_threads(opened: Opened) -> None:
    found = []
    for threads in (1, 2):
        async with opened(SHIPPED, InferenceSettings(threads=threads)) as house:
            client = OipClient(house.contexts["inference"].http)
            found.append((await client(FINDER, {"image": noise()}))["probabilities"])
            with pytest.raises(NotFound):
                await client("no-such-model", {"image": noise()})
            with pytest.raises(Unavailable):
                await client(FINDER, {"image": noise()[:, :, 1:]})
    assert found[0].dtype == np.uint8 and abs(found[0].sum(1, dtype=int) - 255).max() <= 1
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is an extra: pip install .[torch]")
async def test_both_engines_answer_alike(models: Path) -> None:
    answers = []
    for engine in ("onnx", "torch"):
        engines = host(models, engine)
        answers.append(
            (await engines.infer(FINDER, {"image": noise()}, ["probabilities"]))["probabilities"].astype(int)
        )
        await engines.stop()
    assert abs(answers[0] - answers[1]).max() <= 2


def test_the_default_install_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import arcuate.inference.app, arcuate.inference.worker, arcuate.inference.engine_onnx"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
