"""The line in front of the engine: refused first, then who is served when, and what a caller who leaves costs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from arcuate.imaging.oip_client import OipClient
from arcuate.inference.host import EngineHost, EngineSettings
from arcuate.inference.queue import Metrics, RequestQueue
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.log import get_logger

from .conftest import Opened
from .site_models import bundle_folder, onnx_folder


def row(*values: float) -> dict[str, np.ndarray]:
    return {"image": np.array([values], np.float32)}


class Desk:
    """A queue over a real engine process."""

    def __init__(self, models: Path) -> None:
        self.host = EngineHost(models, EngineSettings("onnx", 1, 5, 60.0), get_logger("inference"))
        self.registry = CollectorRegistry()
        self.queue = RequestQueue(self.host, Metrics(self.registry))
        self.served: list[str] = []

    async def ask(self, who: str, value: float, **how: Any) -> np.ndarray:
        name = how.pop("model", "small")
        found = await self.queue.infer(self.host.state(name).description, row(value, 0), ["twice"], **how)
        self.served.append(who)
        return found["twice"]

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"arcuate_inference_{name}", {"model": "small"} | labels) or 0.0


@pytest.fixture
async def desk(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    onnx_folder(tmp_path, "small", getattr(request, "param", ""))
    made = Desk(tmp_path)
    yield made
    await made.queue.stop()
    await made.host.stop()


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("desk", ["waiting = 2"], indirect=True)
async def test_a_full_line_refuses_and_says_when_to_come_back(desk: Desk) -> None:
    asked = await asyncio.gather(*(desk.ask(str(k), k) for k in range(4)), return_exceptions=True)
    refused = [a for a in asked if isinstance(a, Unavailable)]
    assert len(refused) == 2 and "wait for small already" in str(refused[0])
    assert desk.counted("requests_total", outcome="refused") == 2


async def test_a_caller_that_leaves_the_line_costs_no_call_of_the_engine(desk: Desk) -> None:
    first, second = (asyncio.create_task(desk.ask(who, 1)) for who in ("first", "second"))
    await asyncio.sleep(0)
    second.cancel()
    assert (await first).tolist() == [[2, 0]]
    assert desk.served == ["first"]
    assert desk.counted("batches_total") == 1 and desk.counted("requests_total", outcome="cancelled") == 1
    assert desk.counted("waiting") == 0


async def test_a_caller_that_gave_too_little_time_is_told_so(desk: Desk) -> None:
    with pytest.raises(Unavailable, match="within the 1e-06 s"):
        await desk.ask("late", 1, timeout_s=1e-6)
    assert (await desk.ask("next", 3)).tolist() == [[6, 0]]


async def test_f057_a_network_that_asks_for_more_memory_than_it_may_take_is_refused_and_the_next_call_answered(
    tmp_path: Path,
) -> None:
    onnx_folder(tmp_path, "greedy", "memory_mib = 64", weighty=512)
    onnx_folder(tmp_path, "small")
    desk = Desk(tmp_path)
    with pytest.raises(Unavailable, match="greedy could not answer"):
        await desk.ask("greedy", 1, model="greedy")
    assert (await desk.ask("small", 2)).tolist() == [[4, 0]]
    await desk.queue.stop()
    await desk.host.stop()


# ---- served ----------------------------------------------------------------------------------------------------------


async def test_priority_goes_before_arrival(desk: Desk) -> None:
    await asyncio.gather(desk.ask("a", 1), desk.ask("b", 2), desk.ask("urgent", 3, priority=1), desk.ask("c", 4))
    assert desk.served == ["urgent", "a", "b", "c"]


@pytest.mark.parametrize("desk", ["batch = 3"], indirect=True)
async def test_requests_of_one_shape_are_computed_together_and_each_gets_its_own_rows(desk: Desk) -> None:
    found = await asyncio.gather(*(desk.ask(str(k), k) for k in range(5)))
    assert [f.tolist() for f in found] == [[[2.0 * k, 0]] for k in range(5)]
    assert desk.counted("batches_total") == 2


# ---- models of a site ------------------------------------------------------------------------------------------------


async def test_a_bundle_without_a_description_is_disabled_and_says_what_to_write(
    opened: Opened, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    digest = bundle_folder(models, "doubling")
    async with opened(models) as house:
        told = (await house.contexts["inference"].http.get("/v2/models/doubling")).json()["error"]
    assert digest in told and "models/model.onnx" in told
    (models / "doubling" / "model.toml").write_text(
        f'name = "doubling"\nversion = "0.1.0"\n[graph]\nfile = "models/model.onnx"\nsha256 = "{digest}"\n'
    )
    async with opened(models) as house:
        http = house.contexts["inference"].http
        assert (await http.get("/v2/models/doubling")).json()["inputs"][0]["shape"] == [-1, 2]
        assert (await OipClient(http)("doubling", row(3, 4)))["twice"].tolist() == [[6, 8]]


@pytest.mark.parametrize("file", ["model.ts", "model.pt"])
async def test_a_bundle_of_torchscript_or_pickled_weights_is_never_opened(
    opened: Opened, tmp_path: Path, file: str
) -> None:
    models = tmp_path / "models"
    bundle_folder(models, "scripted")
    (models / "scripted" / "models" / "model.onnx").rename(models / "scripted" / "models" / file)
    async with opened(models) as house:
        told = (await house.contexts["inference"].http.get("/v2/models/scripted")).json()["error"]
        assert "onnx_export" in told
    (models / "scripted" / "model.toml").write_text(
        f'name = "scripted"\nversion = "1"\n[graph]\nfile = "models/{file}"\nsha256 = "00"\n'
    )
    async with opened(models) as house:
        told = (await house.contexts["inference"].http.get("/v2/models/scripted")).json()["error"]
        assert "nothing that could carry code" in told


async def test_an_onnx_file_of_a_site_answers_with_priority_and_shows_in_the_metrics(
    opened: Opened, tmp_path: Path
) -> None:
    onnx_folder(tmp_path / "models", "small")
    body = {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}],
        "parameters": {"priority": 1, "timeout": 30_000_000},
    }
    async with opened(tmp_path / "models") as house:
        http: httpx.AsyncClient = house.contexts["inference"].http
        assert (await http.post("/v2/models/small/infer", json=body)).json()["outputs"][0]["data"] == [2, 4]
        body["parameters"] = {"priority": "soon"}
        assert (await http.post("/v2/models/small/infer", json=body)).status_code == 400
        counted = house.rooms["inference"].app.state.metrics.get_sample_value(
            "arcuate_inference_requests_total", {"model": "small", "outcome": "answered"}
        )
    assert counted == 1
