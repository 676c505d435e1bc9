"""The layers of the joint model: dropout, attention, and one encoder for each kind of stream."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER_HEADS = 4  # of a Transformer encoder, whatever the rest of the model has


def keep_mask(x: Tensor, dropped: int) -> Tensor:
    """Returns a random factor for each value of `x`: 0 with probability `dropped` / 256, else what keeps the mean.

    A byte is drawn for each value.
    """
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
    return keep.to(x.dtype).mul_(256 / (256 - dropped))


# torch.compile does not know random_, and its own random numbers are slow on a CPU.
keep_mask_compiled = torch.library.custom_op(
    "torch_joint::keep_mask", keep_mask, mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
keep_mask_compiled.register_fake(lambda x, dropped: torch.empty(x.shape, dtype=x.dtype, device=x.device))


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Applies dropout; on a CPU the rate is rounded to a 256th."""
    if not training or not rate:
        return x
    if x.is_cuda:
        return F.dropout(x, rate)
    mask = keep_mask_compiled if torch.compiler.is_compiling() else keep_mask
    return x * mask(x.detach(), max(1, round(rate * 256)))


class Projection(nn.Linear):
    """Several linear maps of one input, computed as one matrix product. The last `plain` outputs have no bias."""

    def __init__(self, inputs: int, outputs: int, plain: int) -> None:
        super().__init__(inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs - plain))
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, F.pad(self.bias, (0, self.plain)))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Returns the attention of `q` over `k` and `v`, all [batch, time, width].

    Args:
      mask: [batch, 1, 1, time], 0 in valid frames and -inf beyond the end.
    """
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

    An extra input is 1 in the frames beyond the end, and its weight shuts the input gates there. The backward state
    thus stays 0 from the end of the batch to the end of the utterance, as if the sequence were packed. The gradient of
    this weight is exactly 0. Only weight decay moves it, from a value that is large enough for any training.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width + 1, width // 2, batch_first=True, bidirectional=True)
        with torch.no_grad():
            for suffix in ("", "_reverse"):
                weight = getattr(self, f"weight_ih_l0{suffix}").normal_(0.0, width**-0.5)
                weight[:, -1] = 0.0
                weight[: width // 2, -1] = -1e4
                nn.init.orthogonal_(getattr(self, f"weight_hh_l0{suffix}"))
                getattr(self, f"bias_ih_l0{suffix}").zero_()[width // 2 : width] = 1.0  # the forget gate starts open
                getattr(self, f"bias_hh_l0{suffix}").zero_().requires_grad_(False)

    def forward(self, x: Tensor, beyond: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat([x, beyond[..., None].to(x.dtype)], dim=-1))[0]


class Encoder(nn.Module):
    """The encoder of one stream: `stride` frames side by side, a linear map, and the layers of its kind."""

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
        """Returns the encoded frames [batch, time / stride, width].

        Args:
          x: [batch, time, feature], 0 beyond the end.
          valid: [batch, time / stride], whether an encoded frame belongs to the utterance.
          mask: the same as 0 or -inf, [batch, 1, 1, time / stride].
        """
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
    """Returns fixed position codes [time, feature]."""
    rate = torch.exp(torch.arange(0, features, 2, device=device) * (-math.log(10_000.0) / features))
    angle = torch.arange(time, device=device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :features]


class AttentivePooling(nn.Module):
    """Attentive statistics pooling with layer normalisation: [batch, time, width] to [batch, 2 * width]."""

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
