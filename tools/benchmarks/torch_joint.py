"""The joint model and its training in PyTorch, fold by fold: what an epoch of stacked runs is compared with.

The network is that of `sejax.models.joint` and the step that of `sejax.engine.step` with constant weights (tests hold outputs,
gradients and updates equal), written as PyTorch likes it. It knows nothing of sejax: data comes as numpy arrays in the
layout of `sejax.data.load.Data`.

Measured choices, on a CPU: a packed sequence costs ten times what oneDNN's LSTM takes, so padding is kept out of the
recurrence by an input column (`Recurrence`); PyTorch's dropout draws one number after the other, so eight are drawn at
once (`keep_mask`).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER_HEADS = 4  # of a Transformer encoder, whatever the rest of the model has

Part = tuple["Projection", int]
"""Equal parts of a projection's outputs are queries, values or keys: one of them."""


class Stream(NamedTuple):
    """How one stream is encoded: "lstm", "transformer", "conv" or "linear", as `sejax.models.joint.StreamSpec`."""

    name: str
    encoder: str
    layers: int
    stride: int


@dataclass(frozen=True)
class Recipe:
    """The defaults of `sejax.config`."""

    epochs: int = 30
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.1  # share of all steps
    clip_norm: float = 1.0
    dropout: float = 0.3
    statistics_dropout: float = 0.3
    label_smoothing: float = 0.1
    averaging: float = 0.99
    time_masks: int = 2
    time_mask_frames: int = 20
    feature_masks: int = 2
    feature_mask_share: float = 0.15


# ----------------------------------------------------------------------------------------------------- layers


def keep_mask(x: Tensor, dropped: int) -> Tensor:
    """Factors for `x`: 0 with a probability of `dropped` / 256, for which a byte is drawn, else what keeps the mean."""
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
    return keep.to(x.dtype).mul_(256 / (256 - dropped))


# torch.compile does not know random_, and its own random numbers are slow on a CPU.
keep_mask_compiled = torch.library.custom_op(
    "torch_joint::keep_mask", keep_mask, mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
keep_mask_compiled.register_fake(lambda x, dropped: torch.empty(x.shape, dtype=x.dtype, device=x.device))


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout; on a CPU the rate is rounded to a 256th."""
    if not training or not rate:
        return x
    if x.is_cuda:
        return F.dropout(x, rate)
    mask = keep_mask_compiled if torch.compiler.is_compiling() else keep_mask
    return x * mask(x.detach(), max(1, round(rate * 256)))


class Projection(nn.Linear):
    """Several linear maps of one input as one matrix product; the last `plain` outputs have no bias."""

    def __init__(self, inputs: int, outputs: int, plain: int) -> None:
        super().__init__(inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs - plain))
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, F.pad(self.bias, (0, self.plain)))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Attention of `q` over `k` and `v`, all [batch, time, width]; `mask` is 0 or -inf, [batch, 1, 1, time]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Block(nn.Module):
    """A pre-norm Transformer block. Keys have no bias."""

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.inner = Projection(width, 3 * width, plain=width)  # queries, values, keys
        self.outer = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, v, k = self.inner(self.attention_norm(x)).chunk(3, dim=-1)
        y = self.outer(attend(q, k, v, mask, self.heads))
        x = x + dropout(y, self.rate, self.training)
        y = F.gelu(self.up(self.norm(x)), approximate="tanh")
        y = self.down(dropout(y, self.rate, self.training))
        return x + dropout(y, self.rate, self.training)


class Recurrence(nn.LSTM):
    """A bidirectional LSTM with one bias, whose backward direction enters an utterance with a state of 0.

    In the frames beyond the end an extra input is 1, whose weight shuts the input gates: from the end of the batch to
    the end of the utterance the backward state stays 0, as if the sequence were packed. The column's gradient is
    exactly 0, so that nothing ever moves it but weight decay, of which it has plenty.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width + 1, width // 2, batch_first=True, bidirectional=True)
        with torch.no_grad():
            for suffix in ("", "_reverse"):
                weight = getattr(self, f"weight_ih_l0{suffix}").normal_(0.0, width**-0.5)
                weight[:, -1] = 0.0
                weight[: width // 2, -1] = -1e4
                nn.init.orthogonal_(getattr(self, f"weight_hh_l0{suffix}"))
                getattr(self, f"bias_ih_l0{suffix}").zero_()[width // 2 : width] = 1.0  # the forget gate is open
                getattr(self, f"bias_hh_l0{suffix}").zero_().requires_grad_(False)

    def forward(self, x: Tensor, beyond: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat([x, beyond[..., None].to(x.dtype)], dim=-1))[0]


class Encoder(nn.Module):
    """`stride` frames side by side, a linear map, and the layers of one kind of encoder."""

    def __init__(self, kind: str, layers: int, stride: int, features: int, width: int, rate: float) -> None:
        super().__init__()
        self.kind, self.stride, self.rate = kind, stride, rate
        self.front = nn.Linear(stride * features, width)
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, eps=1e-6) for _ in range(layers if kind in ("lstm", "conv") else 0)
        )
        make: dict[str, Callable[[], nn.Module]] = {
            "lstm": lambda: Recurrence(width),
            "transformer": lambda: Block(width, ENCODER_HEADS, rate),
            "conv": lambda: nn.Conv1d(width, width, 5, padding=2),
        }
        self.layers = nn.ModuleList(make[kind]() for _ in range(layers if kind in make else 0))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, valid: Tensor, mask: Tensor) -> Tensor:
        """`x` [batch, time, feature], 0 beyond the end; `valid` and `mask` are of what comes out."""
        x = F.pad(x, (0, 0, 0, -x.shape[1] % self.stride)).flatten(1).unflatten(1, (valid.shape[1], -1))
        if self.kind == "linear":
            return self.norm(self.front(dropout(x, self.rate, self.training)))
        x = self.front(x)
        if self.kind == "transformer":
            x = x + sinusoids(x.shape[1], x.shape[2], x.device)
            for layer in self.layers:
                x = layer(x, mask)
        elif self.kind == "lstm":
            for norm, layer in zip(self.norms, self.layers, strict=True):
                x = x + dropout(layer(norm(x), ~valid), self.rate, self.training)
        else:
            x = F.gelu(x, approximate="tanh")
            for norm, layer in zip(self.norms, self.layers, strict=True):
                y = layer((norm(x) * valid[..., None]).transpose(1, 2)).transpose(1, 2)
                x = x + dropout(F.gelu(y, approximate="tanh"), self.rate, self.training)
        return self.norm(x)


def sinusoids(time: int, features: int, device: torch.device) -> Tensor:
    """Fixed position codes [time, feature]."""
    rate = torch.exp(torch.arange(0, features, 2, device=device) * (-math.log(10_000.0) / features))
    angle = torch.arange(time, device=device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :features]


class AttentivePooling(nn.Module):
    """Attentive statistics pooling, normalised: [batch, time, width] to [batch, 2 * width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)
        self.norm = nn.LayerNorm(2 * width, eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        score = self.score(torch.tanh(self.hidden(x))).transpose(1, 2) + mask[:, 0]
        weight = score.softmax(dim=-1)  # [batch, 1, time]
        mean = weight @ x
        variance = weight @ (x - mean).square()
        return self.norm(torch.cat([mean, torch.sqrt(variance + 1e-5)], dim=-1)[:, 0])


class JointModel(nn.Module):
    """Streams, self-attention, co-attention over every ordered pair, pooling, fusion with statistics, two heads."""

    def __init__(
        self,
        streams: Sequence[Stream],
        features: Mapping[str, int],
        statistics: Mapping[str, int],
        *,
        classes: int,
        dimensions: int,
        width: int = 64,
        fused: int = 256,
        heads: int = 4,
        rate: float = 0.3,
        statistics_rate: float = 0.3,
    ) -> None:
        super().__init__()
        self.streams, self.heads = tuple(streams), heads
        self.rate, self.statistics_rate = rate, statistics_rate
        self.names = names = [stream.name for stream in streams]
        others = len(names) - 1
        self.encoders = nn.ModuleDict(
            {s.name: Encoder(s.encoder, s.layers, s.stride, features[s.name], width, rate) for s in streams}
        )
        self.blocks = nn.ModuleDict({name: Block(width, heads, rate) for name in names})
        self.inner = nn.ModuleDict(
            {name: Projection(width, 3 * others * width, others * width) for name in names if others}
        )
        self.outer = nn.ModuleDict({_pair(*pair): nn.Linear(width, width) for pair in permutations(names, 2)})
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
        """Logits [batch, class] and dimensions [batch, dim]; frames are 0 beyond the end."""
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
                found = self.outer[_pair(name, other)](attend(q, k, v, masks[other], self.heads))
                informed[name] = informed[name] + dropout(found, self.rate, self.training)
        parts = [dropout(self.pooling[name](x, masks[name]), self.rate, self.training) for name, x in informed.items()]
        parts += [dropout(statistics[name], self.statistics_rate, self.training) for name in informed]
        fused = F.gelu(self.fusion(torch.cat(parts, dim=-1)), approximate="tanh")
        fused = dropout(fused, self.rate, self.training)
        return self.label(fused), self.vad(fused)

    def slots(self, name: str) -> list[tuple[str, str]]:
        """What a stream's projection holds, in order: its queries over each other stream, values and keys for each."""
        return [(part, other) for part in "qvk" for other in self.names if other != name]


def _pair(name: str, other: str) -> str:
    return f"{name}_over_{other}"


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# ----------------------------------------------------------------------------------------------------- losses


def losses(logits: Tensor, vad: Tensor, target: Tensor, rated: Tensor, label_smoothing: float) -> Tensor:
    """[class, vad]: smoothed cross-entropy, and 1 - CCC with population moments, the mean over the dimensions."""
    loss_class = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    mean, rated_mean = vad.mean(dim=0), rated.mean(dim=0)
    vad, rated = vad - mean, rated - rated_mean
    covariance = (vad * rated).mean(dim=0)
    spread = (vad.square() + rated.square()).mean(dim=0)
    ccc = 2 * covariance / (spread + (mean - rated_mean).square()).clamp_min(1e-8)
    return torch.stack([loss_class, (1 - ccc).mean()])


# --------------------------------------------------------------------------------------------------- training


class Scale(NamedTuple):
    """A fold's normalisation of one stream, from its training utterances: (x - mean) * inverse."""

    mean: Tensor
    inverse: Tensor


class Bucket(NamedTuple):
    """Utterances of similar length, on the device."""

    utterance: Tensor  # [row]
    frames: dict[str, Tensor]  # [row, time, feature], as they are stored, 0 beyond the end
    lengths: dict[str, Tensor]  # [row]


class Corpus(NamedTuple):
    """What all folds share, on the device."""

    buckets: tuple[Bucket, ...]
    statistics: dict[str, Tensor]  # [utterance, statistic]
    target: Tensor  # [utterance, class]
    vad: Tensor  # [utterance, dim]


def load_corpus(
    buckets: Sequence[Mapping[str, Any]],
    statistics: Mapping[str, np.ndarray],
    target: np.ndarray,
    vad: np.ndarray,
    names: Sequence[str],
    device: torch.device,
) -> Corpus:
    """The arrays of `sejax.data.load.Data` on the device: of the streams by these names, the first view."""
    if not (target.sum(axis=1) > 0).all() or not np.isfinite(vad).all():
        raise ValueError("every utterance needs a class and all dimensions here")
    return Corpus(
        tuple(
            Bucket(
                torch.from_numpy(bucket["utterance"]).to(device, torch.int64),
                {name: torch.from_numpy(bucket["frames"][name][:, 0]).to(device) for name in names},
                {name: torch.from_numpy(bucket["lengths"][name][:, 0]).to(device) for name in names},
            )
            for bucket in buckets
        ),
        {name: torch.from_numpy(statistics[name][:, 0]).to(device) for name in names},
        torch.from_numpy(target).to(device),
        torch.from_numpy(vad).to(device),
    )


def fold_scales(corpus: Corpus, trained: Tensor) -> tuple[dict[str, Scale], dict[str, Scale]]:
    """Of frames and of statistics, by stream, [fold, feature]; `trained` is [fold, utterance]."""
    share = trained.double()
    frame_scale, statistic_scale = {}, {}
    for name, statistics in corpus.statistics.items():
        feature = corpus.buckets[0].frames[name].shape[-1]
        sums = torch.zeros(len(statistics), 1 + 2 * feature, dtype=torch.float64, device=statistics.device)
        for bucket in corpus.buckets:
            for rows in torch.arange(len(bucket.utterance), device=statistics.device).split(64):
                x, length = bucket.frames[name][rows].double(), bucket.lengths[name][rows, None]
                sums[bucket.utterance[rows]] = torch.cat([length, x.sum(dim=1), x.square().sum(dim=1)], dim=1)
        count, total, square = (share @ sums).split([1, feature, feature], dim=1)
        frame_scale[name] = _scale(total / count, square / count)
        x = statistics.double()
        count = share.sum(dim=1, keepdim=True)
        statistic_scale[name] = _scale(share @ x / count, share @ x.square() / count)
    return frame_scale, statistic_scale


def _scale(mean: Tensor, square: Tensor) -> Scale:
    """A feature that does not vary is left at 0."""
    deviation = (square - mean.square()).clamp_min(0.0).sqrt()
    varies = deviation > 1e-5 * mean.abs().clamp_min(1.0)
    return Scale(mean.float(), torch.where(varies, 1 / deviation, 0.0).float())


def normalise(x: Tensor, scale: Scale, seen: Tensor | None = None) -> Tensor:
    """By the fold's scale and cut at 8 deviations; 0 for what is not a number or not `seen` (broadcast against `x`)."""
    inverse = scale.inverse if seen is None else scale.inverse * seen
    return torch.addcmul(-scale.mean * inverse, x.float(), inverse).clamp_(-8.0, 8.0).nan_to_num_(0.0)


def bands(rows: int, n: int, size: int, widest: float, device: torch.device) -> Tensor:
    """[row, position], False inside `n` random bands per row, each up to `widest` wide."""
    start = torch.rand(rows, n, 1, device=device) * size
    width = torch.rand(rows, n, 1, device=device) * widest
    position = torch.arange(size, device=device) + 0.5
    return ~((position >= start) & (position < start + width)).any(dim=1)


class Fold:
    """One fold's model, its moving average, its optimizer, and how it normalises."""

    def __init__(
        self,
        model: JointModel,
        frame_scale: Mapping[str, Scale],
        statistic_scale: Mapping[str, Scale],
        recipe: Recipe,
        total_steps: int,
    ) -> None:
        self.model, self.recipe, self.total_steps = model.train(), recipe, total_steps
        self.frame_scale, self.statistic_scale = frame_scale, statistic_scale
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.averaged = [p.detach().clone() for p in self.params]
        kernels, rest = [p for p in self.params if p.dim() > 1], [p for p in self.params if p.dim() == 1]
        groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        self.step = 0

    def losses(self, corpus: Corpus, bucket: Bucket, rows: Tensor) -> Tensor:
        """[class, vad] of the rows of a bucket, masked at random in time and features (SpecAugment)."""
        recipe, frames = self.recipe, {}
        lengths = {name: x[rows] for name, x in bucket.lengths.items()}
        for name, stored in bucket.frames.items():
            batch, (time, feature) = len(rows), stored.shape[1:]
            in_time = torch.arange(time, device=rows.device) < lengths[name][:, None]
            if recipe.time_masks:
                in_time &= bands(batch, recipe.time_masks, time, recipe.time_mask_frames, rows.device)
            in_feature = None
            if recipe.feature_masks:
                widest = recipe.feature_mask_share * feature
                in_feature = bands(batch, recipe.feature_masks, feature, widest, rows.device)[:, None]
            x = normalise(stored[rows], self.frame_scale[name], in_feature)
            frames[name] = x.mul_(in_time[..., None])
        utterance = bucket.utterance[rows]
        statistics = {
            name: normalise(x[utterance], self.statistic_scale[name]) for name, x in corpus.statistics.items()
        }
        with torch.autocast("cuda", torch.bfloat16, enabled=rows.is_cuda):
            logits, vad = self.model(frames, lengths, statistics)
        target, rated = corpus.target[utterance], corpus.vad[utterance]
        return losses(logits.float(), vad.float(), target, rated, recipe.label_smoothing)

    def train_step(self, corpus: Corpus, bucket: Bucket, rows: Tensor) -> None:
        """One update; nothing waits for the device."""
        self.losses(corpus, bucket, rows).sum().backward()
        nn.utils.clip_grad_norm_(self.params, self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * self._schedule()
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.recipe.averaging, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.averaged, [p.detach() for p in self.params], 1 - decay)
        self.step += 1

    def _schedule(self) -> float:
        """A linear warm-up and a cosine to 0."""
        warmup = round(self.recipe.warmup * self.total_steps)
        if self.step < warmup:
            return self.step / warmup
        done = min(1.0, (self.step - warmup) / max(self.total_steps - warmup, 1))
        return 0.5 + 0.5 * math.cos(math.pi * done)


def make_epoch(
    buckets: Sequence[Mapping[str, Any]],
    statistics: Mapping[str, np.ndarray],
    target: np.ndarray,
    vad: np.ndarray,
    trained: np.ndarray,
    streams: Sequence[Stream],
    batch_size: int,
    seed: int,
    *,
    recipe: Recipe | None = None,
    compile_model: bool = False,
) -> tuple[Callable[[], None], dict[str, Any]]:
    """Makes ready to train each fold, with its own model, on its own utterances.

    On a GPU the data lies there, matrices are multiplied in bfloat16 under autocast and TensorFloat-32 elsewhere.

    Args:
      buckets: each with `utterance` [row] and, by stream, `frames` [row, view, time, feature], `lengths` [row, view].
      statistics: by stream, [utterance, view, statistic].
      target: [utterance, class].
      vad: [utterance, dim].
      trained: [fold, utterance].
      compile_model: whether `torch.compile` makes a program for each bucket's shape. On a CPU it gains next to
        nothing.

    Returns:
      What trains an epoch of all folds at each call, one fold after the other, every batch full and from one bucket
      (as many utterances as are missing come twice); and facts, `steps` being those of a call.
    """
    recipe = recipe or Recipe()
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high" if torch.cuda.is_available() else "highest")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus = load_corpus(buckets, statistics, target, vad, [stream.name for stream in streams], device)
    frame_scale, statistic_scale = fold_scales(corpus, torch.from_numpy(trained).to(device))
    own_rows = [[np.flatnonzero(fold[bucket["utterance"]]) for bucket in buckets] for fold in trained]
    n_batches = [[-(-len(rows) // batch_size) for rows in own] for own in own_rows]
    folds = []
    for number, batches in enumerate(n_batches):
        model = JointModel(
            streams,
            {name: x.shape[-1] for name, x in corpus.buckets[0].frames.items()},
            {name: x.shape[-1] for name, x in corpus.statistics.items()},
            classes=target.shape[1],
            dimensions=vad.shape[1],
            rate=recipe.dropout,
            statistics_rate=recipe.statistics_dropout,
        ).to(device)
        if compile_model:
            torch._dynamo.config.recompile_limit = 64  # buckets, times the pieces around the LSTM
            model.compile(dynamic=False)
        own_scales = [
            {name: Scale(x.mean[number], x.inverse[number]) for name, x in of_all.items()}
            for of_all in (frame_scale, statistic_scale)
        ]
        folds.append(Fold(model, own_scales[0], own_scales[1], recipe, recipe.epochs * sum(batches)))
    random = np.random.default_rng(seed)

    def epoch() -> None:
        for fold, own, batches in zip(folds, own_rows, n_batches, strict=True):
            steps = []
            for bucket, rows, n in zip(corpus.buckets, own, batches, strict=True):
                order = np.resize(random.permutation(rows), (n, batch_size))
                steps += [(bucket, batch) for batch in torch.from_numpy(order).to(device)]
            for i in random.permutation(len(steps)):
                fold.train_step(corpus, *steps[i])
        if device.type == "cuda":
            torch.cuda.synchronize()

    facts = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "dtype": "bfloat16" if device.type == "cuda" else "float32",
        "compiled": compile_model,
        "threads": torch.get_num_threads(),
        "folds": len(folds),
        "steps": sum(map(sum, n_batches)),
        "parameters": sum(x.numel() for _, parts in flax_views(folds[0].model).values() for x in parts),
    }
    return epoch, facts


# ------------------------------------------------------------------------------------ parameters, as in Flax


def flax_views(
    model: JointModel, of: Callable[[Tensor], Tensor] = lambda p: p.detach()
) -> dict[str, tuple[int, list[Tensor]]]:
    """By path in the parameters of `sejax.models.joint.JointModel`: views which, joined on an axis, are that array.

    Args:
      of: gives what is viewed, of a parameter: itself, its gradient, its average.
    """
    found: dict[str, tuple[int, list[Tensor]]] = {}

    def put(path: str, view: Tensor) -> None:
        found[path] = 0, [view]

    def norm(path: str, layer: nn.LayerNorm) -> None:
        put(f"{path}/scale", of(layer.weight))
        put(f"{path}/bias", of(layer.bias))

    def dense(path: str, layer: nn.Linear) -> None:
        put(f"{path}/kernel", of(layer.weight).T)
        if layer.bias is not None:
            put(f"{path}/bias", of(layer.bias))

    def attention(path: str, query: Part, value: Part, key: Part, outer: nn.Linear, heads: int) -> None:
        for name, (layer, part) in {"query": query, "value": value, "key": key}.items():
            rows = slice(part * outer.in_features, (part + 1) * outer.in_features)
            put(f"{path}/{name}/kernel", of(layer.weight)[rows].T.unflatten(1, (heads, -1)))
            if name != "key":
                put(f"{path}/{name}/bias", of(layer.bias)[rows].unflatten(0, (heads, -1)))
        put(f"{path}/out/kernel", of(outer.weight).T.unflatten(0, (heads, -1)))
        put(f"{path}/out/bias", of(outer.bias))

    def lstm(path: str, layer: Recurrence) -> None:
        input_kernels, recurrent_kernels, biases = (
            [of(getattr(layer, f"{name}_l0{suffix}")) for suffix in ("", "_reverse")]
            for name in ("weight_ih", "weight_hh", "bias_ih")
        )
        found[f"{path}/input_kernel"] = 1, [x[:, :-1].T for x in input_kernels]
        found[f"{path}/recurrent_kernel"] = 0, [x.T[None] for x in recurrent_kernels]
        found[f"{path}/bias"] = 0, [x[None] for x in biases]

    def block(path: str, layer: Block) -> None:
        norm(f"{path}/LayerNorm_0", layer.attention_norm)
        attention(f"{path}/attention", (layer.inner, 0), (layer.inner, 1), (layer.inner, 2), layer.outer, layer.heads)
        norm(f"{path}/LayerNorm_1", layer.norm)
        dense(f"{path}/Dense_0", layer.up)
        dense(f"{path}/Dense_1", layer.down)

    for name in model.names:
        encoder, path = model.encoders[name], f"trunk/{name}_encoder"
        dense(f"{path}/Dense_0", encoder.front)
        for i, layer in enumerate((*encoder.norms, encoder.norm)):
            norm(f"{path}/LayerNorm_{i}", layer)
        for i, layer in enumerate(encoder.layers):
            if isinstance(layer, Block):
                block(f"{path}/Block_{i}", layer)
            elif isinstance(layer, Recurrence):
                lstm(f"{path}/LSTM_{i}", layer)
            else:
                put(f"{path}/Conv_{i}/kernel", of(layer.weight).permute(2, 1, 0))
                put(f"{path}/Conv_{i}/bias", of(layer.bias))
        block(f"trunk/{name}_self", model.blocks[name])
        dense(f"trunk/{name}_pooling/Dense_0", model.pooling[name].score)
        dense(f"trunk/{name}_pooling/Dense_1", model.pooling[name].hidden)
        norm(f"trunk/{name}_pooled_norm", model.pooling[name].norm)
    for name, other in permutations(model.names, 2):
        query, value, key = (
            (model.inner[owner], model.slots(owner).index((part, seen)))
            for owner, part, seen in ((name, "q", other), (other, "v", name), (other, "k", name))
        )
        outer = model.outer[_pair(name, other)]
        attention(f"trunk/{_pair(name, other)}/attention", query, value, key, outer, model.heads)
    dense("trunk/fusion", model.fusion)
    dense("head/label", model.label)
    dense("head/vad", model.vad)
    return found


def load_flax_params(model: JointModel, params: Mapping[str, Any]) -> None:
    """Takes over the parameters of a `sejax.models.joint.JointModel`, nested mappings of arrays.

    Raises:
      ValueError: when the two do not have the same arrays.
    """
    arrays, views = dict(_leaves(params)), flax_views(model)
    if arrays.keys() != views.keys():
        raise ValueError(f"only one of the two models has {sorted(arrays.keys() ^ views.keys())}")
    for path, (axis, parts) in views.items():
        whole = torch.from_numpy(np.array(arrays[path]))
        for view, part in zip(parts, whole.split([view.shape[axis] for view in parts], dim=axis), strict=True):
            if view.shape != part.shape:
                raise ValueError(f"{path} is {tuple(whole.shape)} there, but here a part of it is {tuple(view.shape)}")
            view.copy_(part)


def to_flax(model: JointModel, of: Callable[[Tensor], Tensor] = lambda p: p.detach()) -> dict[str, np.ndarray]:
    """By path, the arrays that `flax_views` shows parts of."""
    return {path: torch.cat(views, dim=axis).cpu().numpy() for path, (axis, views) in flax_views(model, of).items()}


def _leaves(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
