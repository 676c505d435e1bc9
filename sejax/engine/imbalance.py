"""What the labels of a fold's training utterances make of the class loss, against imbalance and disagreement.

All of it is arrays of a run, so that a grid over these options is one program: weights of the classes, their priors,
which adjust the logits in training, and weights of the utterances. The focal loss is in `losses`, class-balanced
batches are in `sejax.data.balance`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from sejax.corpora.schema import Corpus
from sejax.engine.runs import RunKey
from sejax.engine.step import ClassPrior
from sejax.protocols.folds import Fold

CLASS_WEIGHTS = ("none", "balanced", "effective")
"""The words of `config.loss.class_weight`."""

CLASS_PRIORS = ("none", "corpus", "train")
"""The words of `config.loss.class_prior`."""


class ClassTerms(NamedTuple):
    """The fields of `Run` that follow from labels, `[run, ...]`; None where no run has any."""

    class_weight: Float[np.ndarray, "run class"]
    prior: ClassPrior | None
    label_weight: Float[np.ndarray, "run utterance"] | None


def class_terms(
    runs: Sequence[RunKey], folds: Sequence[Fold], corpus: Corpus, target: Float[np.ndarray, "utterance class"]
) -> ClassTerms:
    """Returns what the options of each run and the labels of its fold's training utterances make of the class loss.

    Args:
      runs: of one program.
      folds: of all runs.
      corpus: with the raters' votes.
      target: one-hot labels or votes of every utterance.
    """
    corpora = [utterance.corpus for utterance in corpus.utterances]

    def of_runs(options: Sequence[str], make: Callable[..., Any]) -> Any:
        """Stacks what `make(fold, *values)` returns of each run, computed once for equal arguments."""
        keys = [(run.fold, *(run.setting.values[name] for name in options)) for run in runs]
        made = {key: make(folds[key[0]].train, *key[1:]) for key in dict.fromkeys(keys)}
        return jax.tree.map(lambda *x: np.stack(x), *(made[key] for key in keys))

    def any_of(option: str, off: Any) -> bool:
        return any(run.setting.values[option] != off for run in runs)

    return ClassTerms(
        of_runs(
            ("loss.class_weight", "loss.effective_beta"),
            lambda trained, kind, beta: class_weight(kind, target[trained], beta=beta),
        ),
        of_runs(
            ("loss.class_prior", "loss.prior_tau"),
            lambda trained, kind, tau: class_prior(target, corpora, trained, kind=kind, tau=tau),
        )
        if any_of("loss.class_prior", "none")
        else None,
        of_runs(("loss.vote_entropy",), lambda _, strength: label_weight(corpus, strength))
        if any_of("loss.vote_entropy", 0)
        else None,
    )


def class_weight(
    kind: str, target: Float[np.ndarray, "utterance class"], *, beta: float = 0.0
) -> Float[np.ndarray, " class"]:
    """Returns the weights of the classes in the loss, of mean 1 over utterances; 0 for a class that never occurs.

    Args:
      kind: of `CLASS_WEIGHTS`. "none": 1 each; "balanced": inverse to the mass n of a class; "effective": inverse to
        its effective number of utterances, `(1 - beta^n) / (1 - beta)` (Cui et al., *Class-Balanced Loss Based on
        Effective Number of Samples*, CVPR 2019), which is 1 for beta = 0 and goes to n as beta goes to 1.
      target: one-hot labels or votes of a fold's training utterances.
      beta: from 0 to below 1.
    """
    if kind == "none":
        return np.ones(target.shape[1], np.float32)
    mass = target.sum(axis=0)
    there = mass > 0
    number = mass
    if kind == "effective":  # in float64: 1 - beta is small
        number = (-np.expm1(mass.astype(np.float64) * np.log(beta)) / (1 - beta)) if beta else there.astype(np.float64)
    shares = np.divide(mass, number, out=np.zeros_like(number), where=there)
    weight = np.divide(mass.sum(), number * shares.sum(), out=np.zeros_like(number), where=there)
    return weight.astype(np.float32)


def class_prior(
    target: Float[np.ndarray, "utterance class"],
    corpora: Sequence[str],
    trained: Bool[np.ndarray, " utterance"],
    *,
    kind: str = "corpus",
    tau: float = 1.0,
) -> ClassPrior:
    """Returns the priors of the classes, from the training utterances of a fold.

    One utterance of each class is added, so that a class which is never there is rare, not impossible.

    Args:
      target: one-hot labels or votes.
      corpora: the corpus of each utterance.
      trained: the fold's training utterances.
      kind: of `CLASS_PRIORS`. "corpus": in each corpus; "train": in all of them together; "none": no prior.
      tau: factor of the logarithms, as in Menon et al. (*Long-Tail Learning via Logit Adjustment*, ICLR 2021). With 1
        and "train" the loss is the balanced softmax of Ren et al. (*Balanced Meta-Softmax*, NeurIPS 2020).
    """
    names, corpus = np.unique(np.array(corpora), return_inverse=True)
    mass = np.ones((len(names), target.shape[1]))
    if kind == "corpus":
        np.add.at(mass, corpus[trained], target[trained])
    elif kind == "train":
        mass += target[trained].sum(axis=0, dtype=np.float64)
    log = np.log(mass / mass.sum(axis=1, keepdims=True)) if kind != "none" else np.zeros_like(mass)
    return ClassPrior((tau * log).astype(np.float32), corpus.astype(np.int32))


def label_weight(corpus: Corpus, strength: float) -> Float[np.ndarray, " utterance"]:
    """Returns the weight of each utterance in the class loss, by how well its raters agree.

    It is `1 - strength H / log C` with the entropy H of the votes for C classes: 1 where all raters agree, and
    `1 - strength` where their votes are spread evenly. An utterance without votes has 1: nobody contradicts its label.
    """
    votes = np.zeros((len(corpus.utterances), len(corpus.classes)))
    for row, utterance in enumerate(corpus.utterances):
        votes[row] = [(utterance.distribution or {}).get(name, 0.0) for name in corpus.classes]
    entropy = -(votes * np.log(np.where(votes > 0, votes, 1.0))).sum(axis=1) / np.log(max(len(corpus.classes), 2))
    return np.clip(1 - strength * entropy, 0.0, 1.0).astype(np.float32)
