"""From the runs of a study to what a workdir keeps of them for prediction."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from sejax.build import Study
from sejax.engine.program import Program
from sejax.evaluation.selection import trained_outputs
from sejax.models.description import describe_model
from sejax.workdir.trained import Pretrained, Trained, TrainedRun


class Part(NamedTuple):
    """Trained runs of one structure."""

    program: Program  # on the host
    epochs: Int[np.ndarray, " run"]  # whose parameters these are; 0: the run has none
    params: Any  # [run, ...]


def gather_trained(
    study: Study, number: int, parts: Sequence[Part], sources: Mapping[str, Mapping[str, str]]
) -> Trained:
    """Returns the runs of a program with all that predicting with them needs, but for the corpus.

    Args:
      study: of the program.
      number: of the program, from 1.
      parts: all its runs.
      sources: the options of each pretrained stream: `model`, `revision` and `context`.
    """
    program, inputs, corpus = parts[0].program, study.inputs[number - 1], study.corpus
    rated = np.isfinite([u.vad for u in corpus.utterances]).any(axis=0)
    runs = []
    for part in parts:
        for run, possible, epoch in zip(part.program.runs, part.program.learnable, part.epochs.tolist(), strict=True):
            fold = study.fold_of(run)
            label, dimensions = trained_outputs(run, possible)
            valence, arousal, dominance = (dimensions & rated).tolist()
            runs.append(
                TrainedRun(
                    number=run.number,
                    fold=fold.name,
                    final=not fold.test.any(),
                    seed=run.seed,
                    setting=run.setting.name,
                    epoch=epoch,
                    label=label and bool(corpus.classes),
                    dimensions=(valence, arousal, dominance),
                )
            )
    own = [(part.params, part.program.per_run.frame_scale, part.program.per_run.statistic_scale) for part in parts]
    params, frame_scale, statistic_scale = jax.tree.map(lambda *x: np.concatenate(x), *own)
    return Trained(
        classes=corpus.classes,
        vad_scale=corpus.vad_scale,
        inputs=inputs,
        pretrained={
            name: Pretrained(
                model=sources[name]["model"],
                revision=sources[name]["revision"],
                context=sources[name]["context"],
                digest=study.checkpoints[name].digest,
            )
            for name in inputs
            if name in study.checkpoints
        },
        model=describe_model(program.network.model),
        runs=runs,
        params=params,
        frame_scale=frame_scale,
        statistic_scale=statistic_scale,
    )
