"""Scores of whole texts along emotions, and along directions that mean nothing, for measures over time.

Everything that `persistence.py` says about an emotion it also says about these nulls, computed the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emolab.activations import brisk_attention, capture, encode_all, forward, pad, plan_batches, token_budget
from emolab.directions import METRICS, fit
from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.quality import shuffled
from emolab.vectors import EmotionVectors

EMOTION = "emotion"
NULLS = ("random, matched norm", "random, matched variance", "shuffled labels")


@dataclass(frozen=True)
class Tracks:
    """Scores of texts along the direction of each emotion and along its nulls, in sd of neutral tokens.

    emotions : names along the last axis
    kinds : [variant] 'emotion', then each of NULLS as often as there are seeds
    scores : a [token, variant, emotion] array for each text; 0 is the neutral mean
    """

    emotions: tuple[str, ...]
    kinds: tuple[str, ...]
    scores: tuple[np.ndarray, ...]
    layer: int
    model: str


def record(
    subject: Subject, vectors: EmotionVectors, texts: Sequence[str], emotions: Sequence[str], seeds: int = 10
) -> Tracks:
    """Read each text once and score all its tokens along the emotions and `seeds` directions of each null.

    Raises EmolabError for vectors of another model, without their evidence, or without one of the emotions.
    """
    vectors.check(subject)
    if vectors.evidence is None:
        raise EmolabError(
            "the nulls are made from the story means that come with the vectors: give the whole vectors (not a "
            "selection of emotions), with their .evidence.safetensors beside the file"
        )
    layer = vectors.evidence.layer
    row, rows = vectors.row(layer), [vectors.index(name) for name in emotions]
    real = vectors.directions(layer)[rows]
    sd = vectors.neutral_sd[METRICS.index(vectors.metric), rows, row]  # [emotion]
    null = null_directions(vectors, rows, seeds)  # [variant, emotion, d_model]
    null_sd = np.stack([(vectors.evidence.neutral @ directions.T).std(0) for directions in null])
    scaled = np.concatenate([(real / sd[:, None])[None], null / null_sd[..., None]]).astype(np.float32)

    ids = encode_all(subject, texts, 1)
    scores: list[np.ndarray] = [np.empty(0)] * len(texts)
    with brisk_attention(subject, ids):
        for batch in plan_batches([len(i) for i in ids], token_budget(subject)):
            input_ids, mask = pad([ids[i] for i in batch], subject.pad_id)

            def collect(_: int, hidden: torch.Tensor, batch=batch) -> None:
                for place, i in enumerate(batch):
                    centred = hidden[place, : len(ids[i])].float().cpu().numpy() - vectors.neutral_mean[row]
                    scores[i] = np.einsum("td,ved->tve", centred, scaled, optimize=True)

            with capture(subject, [layer], collect):
                forward(subject, input_ids, mask)
    kinds = (EMOTION, *(kind for kind in NULLS for _ in range(seeds)))
    return Tracks(tuple(emotions), kinds, tuple(scores), layer, subject.name)


def null_directions(vectors: EmotionVectors, rows: Sequence[int], seeds: int) -> np.ndarray:
    """[null x seed, emotion, d_model] uniform directions, directions that vary as activations do, shuffled labels.

    Scores are in units of each direction's own sd on neutral tokens, which sets all lengths alike.
    """
    rng = np.random.default_rng(0)
    train = vectors.evidence.train
    spread = np.linalg.cholesky(fit(train).metric)
    shape = (seeds, len(rows), vectors.vectors.shape[-1])
    label = [fit(shuffled(train, rng)).directions(vectors.metric)[rows] for _ in range(seeds)]
    return np.concatenate([rng.standard_normal(shape), rng.standard_normal(shape) @ spread.T, np.stack(label)])


def first_token(subject: Subject, text: str, character: int) -> int:
    """The first token that reaches beyond a character: where a part of a text begins that starts there."""
    return next(i for i, (_, end) in enumerate(subject.spans(text)) if end > character)


def upright(kinds: Sequence[str], level: np.ndarray) -> np.ndarray:
    """[variant] the sign that makes the level of a null direction, which has no right way round, positive."""
    return np.where((np.array(kinds) != EMOTION) & (level < 0), -1.0, 1.0)
