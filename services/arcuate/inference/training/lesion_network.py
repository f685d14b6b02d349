"""The network of wm-lesions: a small U-Net on windows, FLAIR and (where there is one) T1 as its two channels.

Shapes are torch's: (batch, channels, x, y, z); every side of a window is a multiple of 8 voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from arcuate.inference.training.network import block, doubled

CHANNELS = (8, 24, 48, 64)
CLASSES = ("background", "lesion", "ventricle", "fluid", "cortex", "white", "deep_grey", "infratentorial")
"""What the network tells apart. Only `lesion` is an answer; the others give it context and say where a lesion lies."""


class LesionNetwork(nn.Module):
    """U-Net with added skips, one convolution a level at the full grid and two below."""

    def __init__(self, channels: Sequence[int] = CHANNELS, classes: int = len(CLASSES)) -> None:
        super().__init__()
        pairs = list(pairwise(channels))
        self.enter = block(2, channels[0])
        self.down = nn.ModuleList([nn.Sequential(block(a, b), block(b, b)) for a, b in pairs])
        self.lift = nn.ModuleList([nn.Conv3d(b, a, 1) for a, b in pairs])
        self.up = nn.ModuleList([block(a, a) for a in channels[:-1]])
        self.head = nn.Conv3d(channels[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, classes, x, y, z) of an image (batch, 2, x, y, z)."""
        x = self.enter(image)
        kept = [x]
        for down in self.down:
            x = down(functional.max_pool3d(x, 2))
            kept.append(x)
        for level in range(len(self.down) - 1, -1, -1):
            # Doubled by copying where it is exported: ONNX Runtime is slow at nearest-neighbour resampling.
            lifted = self.lift[level](x)
            raised = (
                functional.interpolate(lifted, scale_factor=2.0, mode="nearest") if self.training else doubled(lifted)
            )
            x = self.up[level](kept[level] + raised)
        logits: Tensor = self.head(x)
        return logits


def new_lesions() -> nn.Module:
    """The network of wm-lesions, in the memory format that it is fastest in."""
    made: nn.Module = LesionNetwork().to(memory_format=torch.channels_last_3d)
    return made
