"""The engine of the extra `torch`: a GPU where there is one, else the CPU. Not bit-identical with the default engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from arcuate.inference.domain import ModelDescription, Tensor
from arcuate.inference.training.network import Shipped
from arcuate.inference.training.train import build

PLATFORM = "pytorch_safetensors"


class TorchEngine:
    """One network built from its description, with the weights of weights.safetensors."""

    platform = PLATFORM

    def __init__(self, folder: Path, description: ModelDescription, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        classes = description.outputs[0].shape[1]
        network = Shipped(build(str(description.told["torch"]["network"])), torch.zeros(classes))
        file, _ = description.files["weights"]
        network.load_state_dict(load_file(str(folder / file)))
        self._network = network.to(self._device).eval()
        self._input = description.inputs[0].name
        self._output = description.outputs[0].name

    def infer(self, inputs: Mapping[str, Tensor], outputs: list[str]) -> dict[str, Tensor]:
        """Named outputs of named inputs."""
        with torch.inference_mode():
            image = torch.from_numpy(inputs[self._input].copy()).to(self._device)
            found: Tensor = self._network(image.contiguous(memory_format=torch.channels_last_3d)).cpu().numpy()
        return {self._output: found} if self._output in outputs else {}
