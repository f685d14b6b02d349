"""Weighted cross-entropy plus soft Dice, with the gradient by hand (half the time of autograd on a CPU)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMOOTH_VOXELS = 200.0
"""Added to a class's voxel count before the root, so that a class of ten voxels does not rule the step."""

BACKGROUND_SHARE = 0.2
"""The largest part of the background voxels that enters the loss."""

ENOUGH_VOXELS = 20_000.0
"""More voxels of one class than this are thinned out at random."""


class _Combined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, importance: Tensor) -> Tensor:
        """logits (n, classes), target (n,), importance (n,): how many voxels each row stands for."""
        classes = logits.shape[1]
        p = torch.softmax(logits, dim=1)
        rows = torch.arange(len(target), device=target.device)
        voxels = torch.bincount(target, weights=importance, minlength=classes).to(p.dtype)
        weight = (voxels + SMOOTH_VOXELS) ** -0.5
        w = weight[target] * importance
        w = w / w.sum()
        correct = p[rows, target]
        entropy = -(w * torch.log(correct.clamp_min(1e-7))).sum()
        grad = p * w[:, None]
        grad[rows, target] -= w

        weighed = p * importance[:, None]
        overlap = torch.zeros(classes, dtype=p.dtype, device=p.device)
        overlap.index_add_(0, target, correct * importance)
        total = weighed.sum(0) + voxels
        present = voxels > 0
        present[0] = False
        count = present.sum().clamp_min(1)
        dice = torch.where(present, (2 * overlap + 1e-3) / (total + 1e-3), 0.0)
        # d(1 - mean dice)/dp: through the overlap at the target's column, through the total everywhere.
        through_total = torch.where(present, dice / (total + 1e-3), 0.0) / count
        through_overlap = torch.where(present, 2.0 / (total + 1e-3), 0.0) / count
        weighed *= through_total
        weighed[rows, target] -= through_overlap[target] * correct * importance
        # softmax: dlogit = p * g - p * sum(p * g); `weighed` already is p * g.
        weighed -= p * weighed.sum(1, keepdim=True)
        grad += weighed
        ctx.save_for_backward(grad)
        return entropy + 1.0 - dice.sum() / count

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        (grad,) = ctx.saved_tensors
        return grad * outputs[0], None, None


def combined(logits: Tensor, target: Tensor, importance: Tensor) -> Tensor:
    """The loss of chosen voxels: logits (n, classes) of any precision, target (n,) int64, importance (n,) float32."""
    loss: Tensor = _Combined.apply(logits.to(torch.promote_types(logits.dtype, torch.float32)), target, importance)
    return loss


def chosen_voxels(target: Tensor) -> tuple[Tensor, Tensor]:
    """Flat indices of the voxels that enter the loss, and how many voxels each stands for.

    All of a rare class; of a common one a random part, since neighbours say nearly the same.
    """
    flat = target.reshape(-1)
    counts = torch.bincount(flat).float()
    share = (ENOUGH_VOXELS / counts.clamp_min(1)).clamp(max=1.0)
    share[0] = share[0].clamp(max=BACKGROUND_SHARE)
    chance = share[flat]
    index = (torch.rand(flat.shape, device=flat.device) < chance).nonzero().squeeze(1)
    return index, 1 / chance[index]
