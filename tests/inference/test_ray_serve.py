"""The same networks on Ray Serve: the referee finds no fault, and volumes are the same to the byte (extra `ray`)."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from arcuate.imaging.oip_client import OipClient
from arcuate.kernel.errors import NotFound, Unavailable

from .conftest import FINDER, SHIPPED, Opened

pytest.importorskip("ray", reason="Ray Serve is an extra: pip install .[ray]")
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

CODE = """
import sys, time
import ray
from ray import serve
from arcuate.inference.ray_serve import built
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(built({"models_dir": sys.argv[1], "threads": 1}), route_prefix="/")
print("serving", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A Ray Serve of its own over the shipped models."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(SHIPPED), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any(b"serving" in line for line in process.stdout), "Ray Serve did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.communicate(timeout=120)


async def test_what_is_not_there_is_said_in_words(url: str) -> None:
    async with httpx.AsyncClient() as http:
        client = OipClient(http, url)
        with pytest.raises(NotFound, match="no-such-model"):
            await client("no-such-model", {"image": np.zeros((1, 2), np.float32)})
        with pytest.raises(Unavailable, match="shape"):
            await client(FINDER, {"image": np.zeros((1, 2), np.float32)})
        assert (await http.get(f"{url}/v2/models/{FINDER}/versions/none")).status_code == 404


def test_the_referee_finds_no_fault(url: str) -> None:
    shared = Path(os.environ.get("ARCUATE_SHARED", Path(__file__).parents[3] / "shared"))
    referee = shared / "tools" / "fhir-referee" / "validate_openinference.py"
    if not referee.exists():
        pytest.skip("the referee is not here")
    said = subprocess.run(
        [sys.executable, str(referee), url, FINDER, "--timeout", "300"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0 and "0 errors, 0 warnings" in said.stdout, said.stdout


async def test_ray_answers_the_bytes_of_the_room(url: str, opened: Opened) -> None:
    image = np.random.default_rng(1).random((1, 1, 56, 64, 72), np.float32)
    async with httpx.AsyncClient() as http:
        by_ray = (await OipClient(http, url)(FINDER, {"image": image}))["probabilities"]
    async with opened(SHIPPED) as house:
        by_room = (await OipClient(house.contexts["inference"].http)(FINDER, {"image": image}))["probabilities"]
    assert by_ray.tobytes() == by_room.tobytes()


def test_quantify_gives_the_same_volumes_through_it(url: str, tmp_path: Path) -> None:
    shared = Path(os.environ.get("ARCUATE_SHARED", Path(__file__).parents[3] / "shared"))
    scans = sorted((shared / "data" / "imaging").glob("**/*_T1w*.nii.gz"))
    if not scans:
        pytest.skip("no scan here")
    code = "import sys; from arcuate.cli import main; sys.exit(main())"
    told = []
    for name, place in (("room", ""), ("ray", url)):
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-c", code, "quantify", str(scans[0]), "--out", str(tmp_path / name)],
            check=True, stdout=subprocess.DEVNULL, env=os.environ | {"ARCUATE_IMAGING_INFERENCE_URL": place},
        )  # fmt: skip
        print(f"{name}: {time.monotonic() - began:.1f} s")
        told.append(json.loads((tmp_path / name / "volumes.json").read_text()))
        told.append((tmp_path / name / "labels.nii.gz").read_bytes())
    assert told[0] == told[2] and told[1] == told[3] and told[0]["volumes"]
