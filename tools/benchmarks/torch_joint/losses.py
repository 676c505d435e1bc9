"""The two losses of the joint model."""

import torch
import torch.nn.functional as F
from torch import Tensor


def losses(logits: Tensor, vad: Tensor, target: Tensor, rated: Tensor, label_smoothing: float) -> Tensor:
    """Returns [class, vad]: smoothed cross-entropy, and 1 - CCC (population moments) averaged over the dimensions."""
    loss_class = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    mean, rated_mean = vad.mean(dim=0), rated.mean(dim=0)
    vad, rated = vad - mean, rated - rated_mean
    covariance = (vad * rated).mean(dim=0)
    spread = (vad.square() + rated.square()).mean(dim=0)
    ccc = 2 * covariance / (spread + (mean - rated_mean).square()).clamp_min(1e-8)
    return torch.stack([loss_class, (1 - ccc).mean()])
