"""`merge()`: the vectors of two extractions on one model, as if their stories had been read together."""

from dataclasses import replace

import numpy as np

from emolab.directions import Labelled, fit
from emolab.errors import EmolabError
from emolab.extraction import neutral_sd
from emolab.vectors import EmotionVectors, Evidence


def merge(first: EmotionVectors, second: EmotionVectors) -> EmotionVectors:
    """The vectors of two extractions on one model, as if their stories had been read together.

    The result holds the first one's chosen layer only, for the probes need the stories' covariance, which is kept
    there. Raises EmolabError if the models or layers differ, a side has no evidence, or its corpus is so large that
    the evidence is a sample of it.
    """
    if first.info["weights"] != second.info["weights"]:
        raise EmolabError(f"vectors of two models can't be merged: {first.info['model']} and {second.info['model']}")
    if first.evidence is None or second.evidence is None or first.chosen_layer != second.evidence.layer:
        raise EmolabError(
            f"merging needs the story means of both at layer {first.chosen_layer}: extract the second with "
            f"layers=[{first.chosen_layer}], and load whole files, not selections"
        )
    for side in (first, second):
        if len(side.evidence.train) < side.counts.sum():
            raise EmolabError(
                f"merging needs all story means, and of {side.counts.sum()} stories {len(side.evidence.train)} are "
                "kept: put both corpora into one file and extract from that"
            )
    row = first.row()
    train = _joined(first.evidence.train, second.evidence.train)
    fitted = fit(train)
    vectors, probes = (values[:, None].astype(np.float32) for values in (fitted.vectors, fitted.probes()))
    plain = first.evidence.neutral
    shares = np.array([len(first.evidence.train), len(second.evidence.train)]) / len(train)
    norms = [side.residual_norm[side.row(first.chosen_layer)] for side in (first, second)]
    return replace(
        first,
        emotions=fitted.emotions,
        layers=(first.chosen_layer,),
        vectors=vectors,
        probes=probes,
        counts=np.unique(train.emotions, return_counts=True)[1],
        mean=fitted.mean[None].astype(np.float32),
        residual_norm=np.array([shares @ norms], np.float32),
        neutral_mean=first.neutral_mean[[row]],
        neutral_sd=neutral_sd(plain[None], vectors, probes),
        neutral_components=first.neutral_components[[row]],
        info=first.info
        | {
            "n_stories": len(train),
            "corpus": [first.info["corpus"], second.info["corpus"]],
            "denoised": False,
            "profile": {name: [values[row]] for name, values in first.info["profile"].items()},
        },
        evidence=Evidence(
            first.chosen_layer,
            train,
            plain,
            choose=_joined(first.evidence.choose, second.evidence.choose, fresh=True),
            test=_joined(first.evidence.test, second.evidence.test, fresh=True),
        ),
    )


def _joined(first: Labelled | None, second: Labelled | None, fresh: bool = False) -> Labelled | None:
    """Both together; with `fresh`, only what the second has on emotions that the first lacks."""
    if first is None or second is None:
        return first or second
    if fresh:
        second = second[~np.isin(second.emotions, first.emotions)]
    names = ("means", "emotions", "parts")
    return Labelled(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))
