"""Settings of the inference room."""

import os
from typing import Annotated, Literal

from arcuate.kernel.settings import RoomSettings, room_config


class InferenceSettings(RoomSettings):
    """How networks run."""

    model_config = room_config("inference")

    engine: Annotated[
        Literal["onnx", "torch"], "onnx (CPU, the default install) or torch (the extra; a GPU where there is one)."
    ] = "onnx"
    threads: Annotated[int, "Threads of a network; 0: as many as there are cores, at most 8."] = 0
    niceness: Annotated[int, "How far networks step back behind other work (0 to 19)."] = 10
    limit_s: Annotated[float, "Seconds after which a network that has not answered is stopped and started anew."] = (
        180.0
    )
    body_limit_mib: Annotated[int, "Largest request in MiB."] = 256

    def thread_count(self) -> int:
        """Threads to use on this machine."""
        return self.threads or min(8, os.cpu_count() or 1)
