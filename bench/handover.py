"""What handing a head over between imaging and inference costs: CPU of this process for the grid there and the probabilities back, the
network's own time left out.

    .venv/bin/python bench/handover.py

Beside it the cost of copying the same bytes once, which the hand-over within one program does without.
"""

import asyncio
import time
from pathlib import Path
from statistics import median

import numpy as np

from arcuate.imaging.network import load_model
from arcuate.imaging.oip_client import OipClient
from arcuate.kernel.log import configure_logging
from arcuate.measuring import networks

ROUNDS = 5


async def measured() -> tuple[float, float, float]:
    """Return median CPU milliseconds of one hand-over, those of one copy, and MB of an answer."""
    async with networks() as infer:
        assert isinstance(infer, OipClient)
        shape = load_model(Path("models"), "brain-t1").shape
        image = np.random.default_rng(1).random((1, 1, *shape), np.float32)
        found = (await infer("brain-t1", {"image": image}))["probabilities"]
        spent = []
        for _ in range(ROUNDS):
            began = time.process_time()
            found = (await infer("brain-t1", {"image": image}))["probabilities"]
            spent.append(1000 * (time.process_time() - began))
        copied = []
        for _ in range(ROUNDS):
            began = time.process_time()
            found.tobytes()
            copied.append(1000 * (time.process_time() - began))
    return median(spent), median(copied), found.nbytes / 1e6


def report() -> None:
    """Print what one hand-over costs, beside one copy."""
    handed, copied, size = asyncio.run(measured())
    print(f"hand-over of {size:.0f} MB: {handed:.1f} ms CPU (aim: 10 for 34 MB); one copy of them: {copied:.1f} ms")


if __name__ == "__main__":
    configure_logging("ERROR", "console")
    assert Path("models").is_dir(), "run it from the root of the checkout"
    report()
