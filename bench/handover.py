"""What handing a head over costs between imaging and inference: CPU of this process for the grid there and the probabilities back, the
network's own time left out.

    .venv/bin/python bench/handover.py

Measured with brain-t1 (20 MB of probabilities) and with a network of the same grid that does nothing but answer it 55 times over (34 MB), made
here. Beside each the cost of copying the same bytes once, into pages that are there already. The last answer is held while the next one is
asked for, as in a measurement.
"""

import asyncio
import hashlib
import importlib.util
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from arcuate.house import HouseSettings, open_house
from arcuate.imaging.network import load_model
from arcuate.imaging.oip_client import OipClient
from arcuate.kernel.log import configure_logging
from arcuate.kernel.settings import SiteSettings

ROUNDS = 5
UNCOUNTED = 3  # the first answers load code and take the pages that later ones use again
WIDE = "wide"
CLASSES = 55


async def measured(models: Path, name: str, shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return median CPU milliseconds of one hand-over, those of one copy, and MB of an answer."""
    with tempfile.TemporaryDirectory(prefix="arcuate-") as folder:
        settings = HouseSettings(data_dir=Path(folder), models_dir=models)
        async with open_house(settings, SiteSettings(time_zone="UTC"), rooms=["access", "inference"]) as house:
            infer = OipClient(house.contexts["inference"].http)
            image = np.random.default_rng(1).random((1, 1, *shape), np.float32)
            spent = []
            for _ in range(UNCOUNTED + ROUNDS):
                began = time.process_time()
                found = (await infer(name, {"image": image}))["probabilities"]
                spent.append(1000 * (time.process_time() - began))
    copied, other = [], found.copy()
    for _ in range(ROUNDS):
        began = time.process_time()
        np.copyto(other, found)
        copied.append(1000 * (time.process_time() - began))
    return median(spent[UNCOUNTED:]), median(copied), found.nbytes / 1e6


def make_wide(models: Path, shape: tuple[int, int, int]) -> None:
    """Write models/wide: a graph that answers its grid as bytes, once for each of its classes."""
    from onnx import TensorProto, helper

    taken, given = [1, 1, *shape], [1, CLASSES, *shape]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["bytes"], to=TensorProto.UINT8),
            helper.make_node("Constant", [], ["shape"], value=helper.make_tensor("", TensorProto.INT64, [5], given)),
            helper.make_node("Expand", ["bytes", "shape"], ["probabilities"]),
        ],
        WIDE,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("probabilities", TensorProto.UINT8, given)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (models / WIDE).mkdir()
    (models / WIDE / "net.onnx").write_bytes(made)
    (models / WIDE / "model.toml").write_text(
        f'name = "{WIDE}"\nversion = "1"\n[graph]\nfile = "net.onnx"\nsha256 = "{hashlib.sha256(made).hexdigest()}"\n'
        f'[[inputs]]\nname = "image"\ndatatype = "FP32"\nshape = {taken}\n'
        f'[[outputs]]\nname = "probabilities"\ndatatype = "UINT8"\nshape = {given}\n'
    )


def report() -> None:
    """Print what one hand-over costs, beside one copy."""
    shape = load_model(Path("models"), "brain-t1").shape
    _print("brain-t1", *asyncio.run(measured(Path("models"), "brain-t1", shape)))
    if importlib.util.find_spec("onnx") is None:
        print("hand-over of 34 MB: not measured, onnx (extra torch) is not installed")
        return
    with tempfile.TemporaryDirectory(prefix="arcuate-") as folder:
        make_wide(Path(folder), shape)
        _print("does nothing else", *asyncio.run(measured(Path(folder), WIDE, shape)))


def _print(what: str, handed: float, copied: float, size: float) -> None:
    print(
        f"hand-over of {size:.0f} MB ({what}): {handed:.1f} ms CPU, {handed / size:.2f} ms a MB (aim: 10 ms for 34 MB, 0.29); "
        f"one copy of them: {copied:.1f} ms, the hand-over {handed / copied:.1f} times that"
    )


if __name__ == "__main__":
    configure_logging("ERROR", "console")
    assert Path("models").is_dir(), "run it from the root of the checkout"
    report()
