"""What runs look at in utterances: gradient times input of an output, and the weights of attention.

Gradient times input is the output's first-order change from an input of zeros to the utterance's. Inputs are
normalised by a run's training speakers, so that zero is their mean: a value adds to the output by how far it is from
the mean, times the slope of the output there. For a linear model the parts add up to the difference between the output
and that at the mean; a deep one bends in between, so that its parts do not (Ancona et al., 2018).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sejax.data.types import AnyArray, Batch
from sejax.engine.step import Frozen, Run, frozen_forward, predict_visible, visible_inputs
from sejax.models.joint import JointModel, attention_of
from sejax.nn.attention import INTERMEDIATES


class Part(NamedTuple):
    """Gradient times input of a part of the input."""

    signed: Float[AnyArray, "run batch place"]  # of each statistic, or of each frame, summed over its values
    magnitude: Float[AnyArray, "run batch"]  # the sum of the absolute values of all its numbers


class Looked(NamedTuple):
    """What runs look at in utterances."""

    output: Float[AnyArray, "run batch"]  # that is explained
    at_mean: Float[AnyArray, "run batch"]  # the same where every input is the mean of the training speakers
    frames: dict[str, Part]  # by stream
    statistics: dict[str, Part]
    attention: dict[str, dict[str, Float[AnyArray, "run batch _time"]]]  # as `attention_of` returns it
    lengths: dict[str, Int[AnyArray, " batch"]]  # the valid frames


@partial(jax.jit, static_argnames="model")
def look(
    params: Any, runs: Run, frozen: Frozen, batch: Batch, direction: Float[Array, "batch output"], *, model: JointModel
) -> Looked:
    """Returns what runs look at in the utterances of a batch; frames of padding get 0.

    Of a fine-tuned model the frames are those that enter the part which runs train.

    Args:
      params: `[run, ...]`.
      runs: `[run, ...]`.
      frozen: of the pretrained models.
      batch: the same for all runs.
      direction: the share of each output in what is explained: of the logits, then of the dimensions in half scales.
      model: of every run.
    """
    batch = frozen_forward(model, frozen, batch, None)

    def of_run(own: tuple[Any, Run]) -> tuple[Any, Any, Any, Any, Any]:
        params, run = own
        frames, masks, statistics = visible_inputs(batch, run, jnp.ones_like(batch.utterance, bool))

        def explained(frames, statistics):
            inputs = frames, masks, statistics
            outputs, state = predict_visible(model, frozen, params, run, inputs, mutable=[INTERMEDIATES])
            output = (jnp.concatenate(outputs, axis=-1) * direction).sum(axis=-1)
            # An utterance's output depends on its own inputs alone, so that the gradient of the sum is that of each.
            return output.sum(), (output, attention_of(model.streams, state))

        read = frames, statistics
        slopes, (output, attention) = jax.grad(explained, (0, 1), has_aux=True)(*read)
        _, (at_mean, _) = explained(*jax.tree.map(jnp.zeros_like, read))
        products = jax.tree.map(jnp.multiply, slopes, read)
        of_frames = {name: Part(x.sum(axis=2), jnp.abs(x).sum(axis=(1, 2))) for name, x in products[0].items()}
        of_statistics = {name: Part(x, jnp.abs(x).sum(axis=1)) for name, x in products[1].items()}
        return output, at_mean, of_frames, of_statistics, attention

    output, at_mean, of_frames, of_statistics, attention = jax.lax.map(of_run, (params, runs))
    return Looked(output, at_mean, of_frames, of_statistics, attention, batch.lengths)
