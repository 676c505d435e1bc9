"""The joint model: streams, self-attention, co-attention, pooling, fusion with statistics, two heads."""

from collections.abc import Mapping
from itertools import permutations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.benchmarks.torch_joint.layers import AttentivePooling, Block, Encoder, Projection, attend, dropout


class Stream(NamedTuple):
    """One stream: its encoder is "lstm", "transformer", "conv" or "linear", as in `sejax.models.joint.StreamSpec`."""

    name: str
    encoder: str
    layers: int
    stride: int


class Network(NamedTuple):
    """The shape of the model: its streams, the width of their frames and of the fused vector, its attention heads."""

    streams: tuple[Stream, ...]
    width: int
    fused: int
    heads: int


class JointModel(nn.Module):
    """The joint model, with co-attention over every ordered pair of streams.

    Args:
      features: size of a frame, by stream.
      statistics: size of the statistics, by stream.
      rate: dropout rate; `statistics_rate` is that of the statistics.
    """

    def __init__(
        self,
        network: Network,
        features: Mapping[str, int],
        statistics: Mapping[str, int],
        *,
        classes: int,
        dimensions: int,
        rate: float,
        statistics_rate: float,
    ) -> None:
        super().__init__()
        self.streams, width, fused, self.heads = network
        self.rate, self.statistics_rate = rate, statistics_rate
        self.names = names = [stream.name for stream in self.streams]
        others = len(names) - 1
        self.encoders = nn.ModuleDict(
            {s.name: Encoder(s.encoder, s.layers, s.stride, features[s.name], width, rate) for s in self.streams}
        )
        self.blocks = nn.ModuleDict({name: Block(width, self.heads, rate) for name in names})
        self.inner = nn.ModuleDict(
            {name: Projection(width, 3 * others * width, others * width) for name in names if others}
        )
        self.outer = nn.ModuleDict({pair_name(*pair): nn.Linear(width, width) for pair in permutations(names, 2)})
        self.pooling = nn.ModuleDict({name: AttentivePooling(width) for name in names})
        self.fusion = nn.Linear(2 * width * len(names) + sum(statistics[name] for name in names), fused)
        self.label = nn.Linear(fused, classes)
        self.vad = nn.Linear(fused, dimensions)
        self.apply(_initialise)
        for head in (self.label, self.vad):
            with torch.no_grad():
                head.weight.mul_(0.1)

    def forward(
        self, frames: Mapping[str, Tensor], lengths: Mapping[str, Tensor], statistics: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns logits [batch, class] and dimensions [batch, dim]; frames have to be 0 beyond the end."""
        encoded, masks = {}, {}
        for stream in self.streams:
            x, name = frames[stream.name], stream.name
            time = -(-x.shape[1] // stream.stride)
            valid = torch.arange(time, device=x.device) * stream.stride < lengths[name][:, None]
            masks[name] = torch.zeros(valid.shape, device=x.device).masked_fill_(~valid, -torch.inf)[:, None, None]
            x = self.encoders[name](x, valid, masks[name])
            encoded[name] = self.blocks[name](x, masks[name])
        informed = dict(encoded)
        if self.inner:
            part = {}
            for name, x in encoded.items():
                slots = self.slots(name)
                part[name] = dict(zip(slots, self.inner[name](x).chunk(len(slots), dim=-1), strict=True))
            for name, other in permutations(self.names, 2):
                q, k, v = part[name]["q", other], part[other]["k", name], part[other]["v", name]
                attended = self.outer[pair_name(name, other)](attend(q, k, v, masks[other], self.heads))
                informed[name] = informed[name] + dropout(attended, self.rate, self.training)
        parts = [dropout(self.pooling[name](x, masks[name]), self.rate, self.training) for name, x in informed.items()]
        parts += [dropout(statistics[name], self.statistics_rate, self.training) for name in informed]
        fused = F.gelu(self.fusion(torch.cat(parts, dim=-1)), approximate="tanh")
        fused = dropout(fused, self.rate, self.training)
        return self.label(fused), self.vad(fused)

    def slots(self, name: str) -> list[tuple[str, str]]:
        """Returns the order of the parts of a stream's projection: queries, values and keys for each other stream."""
        return [(part, other) for part in "qvk" for other in self.names if other != name]


def pair_name(name: str, other: str) -> str:
    """Returns the name of the co-attention of one stream over another."""
    return f"{name}_over_{other}"


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
