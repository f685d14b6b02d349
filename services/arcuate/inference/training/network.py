"""The networks: a small U-Net core, and the same core grown by one finer level.

Shapes are torch's: (batch, channels, x, y, z). Every side of the input is a multiple of 8 voxels for a core of four
levels, of 16 for a grown one. Sizes suit two CPU cores; nothing here depends on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW_VOXELS = 100


class Convolution(nn.Conv3d):
    """A 3D convolution that always takes torch's fast path on a CPU.

    For one small image torch falls back to a path many times slower (below 20480 values in a slab); a second, empty
    image beside it costs less. Not so for a single channel. On grids of a few voxels it multiplies in float32: there
    gradients of bfloat16 came out infinite (torch 2.13 with oneDNN; 18 of 75 on 2 x 2 x 2 voxels).
    """

    def forward(self, image: Tensor) -> Tensor:
        """(n, inputs, x, y, z) -> (n, outputs, x, y, z)."""
        if self.training and image[0, 0].numel() <= FEW_VOXELS and image.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return super().forward(image.float())
        small = image.shape[0] * image.shape[1] * image.shape[2] * image.shape[3] <= 20480
        if self.training and small and image.shape[0] == 1 < image.shape[1] and image.device.type == "cpu":
            beside = torch.zeros_like(image)
            doubled = torch.cat([image, beside]).contiguous(memory_format=torch.channels_last_3d)
            return super().forward(doubled)[:1]
        return super().forward(image)


def block(inputs: int, outputs: int) -> nn.Sequential:
    """A 3x3x3 convolution, GroupNorm with eight channels a group, ReLU."""
    return nn.Sequential(
        Convolution(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(max(1, outputs // 8), outputs),
        nn.ReLU(inplace=True),
    )


class Core(nn.Module):
    """U-Net with added skips; features() gives what the head and a finer level need."""

    def __init__(self, channels: Sequence[int], classes: int, convolutions: int = 2) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.enter = block(1, channels[0])
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.lift = nn.ModuleList()
        for level, width in enumerate(channels):
            before = channels[level - 1] if level else width
            first = [] if level == 0 else [block(before, width)]
            rest = [block(width, width) for _ in range(convolutions - 1)]
            self.down.append(nn.Sequential(*first, *rest))
            if level < len(channels) - 1:
                self.lift.append(nn.Conv3d(channels[level + 1], width, 1))
                self.up.append(nn.Sequential(*[block(width, width) for _ in range(convolutions)]))
        self.head = nn.Conv3d(channels[0], classes, 1)

    def features(self, image: Tensor, beside: Tensor | None = None) -> Tensor:
        """Features at the full grid of the core. `beside` is added to the first layer's input features."""
        x = self.enter(image)
        if beside is not None:
            x = x + beside
        kept: list[Tensor] = []
        for level, down in enumerate(self.down):
            x = down(functional.max_pool3d(x, 2) if level else x)
            kept.append(x)
        for level in range(len(self.channels) - 2, -1, -1):
            x = kept[level] + functional.interpolate(self.lift[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, classes, x, y, z)."""
        logits: Tensor = self.head(self.features(image))
        return logits


class Grown(nn.Module):
    """A core with a level of twice its resolution round it; when new it answers exactly as the core did."""

    def __init__(self, core: Core, width: int = 8) -> None:
        super().__init__()
        self.core = core
        inner = core.channels[0]
        self.outer = block(1, width)
        self.into = nn.Conv3d(width, inner, 2, stride=2, bias=False)
        self.back = nn.Conv3d(inner, width * 8, 1)
        self.width = width
        self.last = block(width, width)
        self.head = nn.Conv3d(width, core.head.out_channels, 1)
        for layer in (self.into.weight, self.head.weight, self.head.bias):
            if layer is not None:
                nn.init.zeros_(layer)

    def parts(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Fine features (batch, width, x, y, z) and the core's logits at half the resolution."""
        fine = self.outer(image)
        inner = self.core.features(functional.avg_pool3d(image, 2), self.into(fine))
        coarse_of_fine = self._opened(inner)
        coarse: Tensor = self.core.head(inner)
        return self.last(fine + coarse_of_fine), coarse

    def _opened(self, inner: Tensor) -> Tensor:
        """The core's features, each voxel opened into 2x2x2; written so that channels stay last in memory (one copy)."""
        n, _, x, y, z = inner.shape
        folded = functional.linear(inner.permute(0, 2, 3, 4, 1), self.back.weight.flatten(1), self.back.bias)
        parted = folded.reshape(n, x, y, z, 2, 2, 2, self.width).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return parted.reshape(n, 2 * x, 2 * y, 2 * z, self.width).permute(0, 4, 1, 2, 3)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, classes, x, y, z)."""
        fine, coarse = self.parts(image)
        logits: Tensor = self.head(fine) + doubled(coarse)
        return logits


class Wide(Grown):
    """A grown network with twice the features at its finest level and a further layer there, added to them (K. He et al., CVPR 2016).

    The further layer's scale starts at zero (P. Goyal et al., Accurate, large minibatch SGD, 2017), so that a widened network
    answers as the grown one did.
    """

    def __init__(self, core: Core, width: int = 16) -> None:
        super().__init__(core, width)
        self.further = nn.Sequential(
            Convolution(width, width, 3, padding=1, bias=False), nn.GroupNorm(max(1, width // 8), width)
        )
        nn.init.zeros_(self.further[1].weight)

    def parts(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As those of a grown network."""
        fine, coarse = super().parts(image)
        return functional.relu(fine + self.further(fine)), coarse

    def widened(self, narrow: Grown, random: torch.Generator) -> Wide:
        """Take over a network of half the width: each feature twice, its weights shared out unevenly between both, so that they part.

        After T. Chen et al., Net2Net: accelerating learning via knowledge transfer, ICLR 2016.
        """
        given = {name: _twice(name, value, narrow.width, random) for name, value in narrow.state_dict().items()}
        self.load_state_dict(given, strict=False)  # what it lacks is the further layer, which adds nothing yet
        return self


def _twice(name: str, value: Tensor, width: int, random: torch.Generator) -> Tensor:
    if name in ("back.weight", "back.bias"):  # `width` features for each of eight voxels
        voxels = value.unflatten(0, (8, width))
        return torch.cat([voxels, voxels], 1).flatten(0, 1)
    if name.startswith(("outer.", "last.")):
        value = torch.cat([value, value])
    if name in ("into.weight", "last.0.weight", "head.weight"):
        one = value * (0.5 + 0.25 * torch.randn(value.shape, generator=random))
        value = torch.cat([one, value - one], 1)
    return value


class Shipped(nn.Module):
    """What is exported: image -> class probabilities times 255, as bytes, with the prior of training taken out.

    `prior` (classes,) is added to the logits: training weighs rare classes up, which makes small structures too large
    while the network is unsure, so the weights are given back here.
    """

    prior: Tensor

    def __init__(self, network: nn.Module, prior: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("prior", prior.reshape(1, -1, 1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(1, 1, x, y, z) float32 -> (1, classes, x, y, z) uint8."""
        logits = self.network(image) + self.prior
        # A softmax over the second axis, spelt out: ONNX Runtime's own is five times slower, since it turns the axes first.
        powers = torch.exp(logits - logits.amax(1, keepdim=True))
        return torch.round(powers * (255.0 / powers.sum(1, keepdim=True))).to(torch.uint8)


def doubled(image: Tensor) -> Tensor:
    """Each voxel as 2x2x2 equal ones; by copying, which ONNX Runtime does faster than its own resampling."""
    n, channels, x, y, z = image.shape
    wide = image[:, :, :, None, :, None, :, None].expand(n, channels, x, 2, y, 2, z, 2)
    return wide.reshape(n, channels, 2 * x, 2 * y, 2 * z)


def new_finder() -> Core:
    """Brain against everything else on a whole head at 4 mm."""
    return Core((8, 16, 32, 64), classes=2)


def new_core(classes: int) -> Core:
    """The structures of the brain at 4 mm."""
    return Core((32, 48, 64, 96), classes=classes)
