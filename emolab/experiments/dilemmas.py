"""Dilemmas put to a model: which of two replies it expects, how that answers to small pushes, and to real ones.

The log-odds here are those of the harmful against the honest reply, summed over tokens, in nats. A push always acts on
the story's tokens only, after one block; the replies are read without it.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from emolab.activations import read
from emolab.directions import METRICS, unit
from emolab.errors import EmolabError
from emolab.experiments import paired
from emolab.likelihood import continuation_gradients, continuation_logprobs
from emolab.model import Subject
from emolab.nulls import random_directions, subspace
from emolab.steering import steer
from emolab.subspaces import lower_blocks_once
from emolab.vectors import EmotionVectors

EMOTIONS = VERSIONS = ("desperate", "calm")
OPTIONS = ("honest", "harmful")
FIELDS = ("id", "kind", *VERSIONS, "question", *OPTIONS)
FAMILIES = {"desperate": (("desperate",), 1), "calm": (("calm",), -1)}  # read in the desperate version: up, down
POINTS = 20  # along a story
STRENGTH = 0.1  # the most that the paper pushes here
NULLS = ("random directions", "random, outside the emotions", "random pairs of emotions")
DIRECTIONS = 1000  # of each null
CUE = "\n\nIn short: "  # before the options, after a reply


def check_dilemmas(dilemmas: Sequence[dict]) -> list[dict]:
    """The dilemmas as a list; raises EmolabError for fewer than two or one that lacks a field."""
    dilemmas = list(dilemmas)
    if len(dilemmas) < 2 or not all(isinstance(one.get(field), str) for one in dilemmas for field in FIELDS):
        raise EmolabError(f"give at least two dilemmas, each with {', '.join(FIELDS)}, as in prompts('dilemmas')")
    return dilemmas


def ask(subject: Subject, dilemma: dict, version: str) -> tuple[str, slice]:
    """A dilemma as a message to the model, and the story's tokens in it; a base model gets plain text."""
    story = dilemma[version].strip()
    text = subject.chat(f"{story} {dilemma['question'].strip()}")
    text += "" if text[-1].isspace() else " "
    start = text.rfind(story)
    inside = [i for i, (a, b) in enumerate(subject.spans(text)) if a < start + len(story) and b > start and i]
    return text, slice(inside[0], inside[-1] + 1)


def story_reading(
    subject: Subject, vectors: EmotionVectors, dilemmas: Sequence[dict], seed: int
) -> tuple[np.ndarray, pd.DataFrame]:
    """[version, dilemma, point, emotion] scores along the stories, and the statistics of their means."""
    layer, row = vectors.chosen_layer, vectors.row()
    scaled = vectors.directions() / vectors.neutral_sd[METRICS.index(vectors.metric), :, row][:, None]
    both = scaled[[vectors.index(name) for name in EMOTIONS]]
    tracks, means = [], []
    for version in VERSIONS:
        hidden = [
            read(subject, text, [layer])[0][story]
            for text, story in (ask(subject, dilemma, version) for dilemma in dilemmas)
        ]
        means.append(np.stack([one.mean(0) for one in hidden]))  # [dilemma, d_model]
        scores = [(one - vectors.neutral_mean[row]) @ both.T for one in hidden]  # [token, emotion] each
        tracks.append([_along(one) for one in scores])
    gaps = means[0] - means[1]
    changes = pd.DataFrame(gaps @ scaled.T, columns=vectors.emotions)
    rng = np.random.default_rng(seed)
    nulls = paired.null_shares(gaps, changes.to_numpy(), paired.random_probes(vectors, rng), 1, rng)
    rows = {
        name: paired.statistics(sign * changes[name].to_numpy(), sign, nulls, rng)
        for name, (_, sign) in FAMILIES.items()
    }
    return np.array(tracks), pd.DataFrame(rows).T.rename_axis("emotion")


def _along(scores: np.ndarray) -> np.ndarray:
    """[point, emotion] means over equal shares of a story, from [token, emotion]."""
    edges = np.linspace(0, len(scores), POINTS + 1).astype(int)
    return np.stack([scores[a : max(b, a + 1)].mean(0) for a, b in pairwise(edges)])


def log_odds(subject: Subject, dilemmas: Sequence[dict], version: str) -> np.ndarray:
    """[dilemma] log-odds of the harmful reply to a version, as the model is."""
    return _odds(continuation_logprobs(subject, *_pairs(subject, dilemmas, version)[:2]))


def odds_gradients(
    subject: Subject, dilemmas: Sequence[dict], version: str, layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """[dilemma] log-odds, and [dilemma, d_model] their gradients for a push of the story after a layer."""
    prompts, replies, stories = _pairs(subject, dilemmas, version)
    found, gradients = continuation_gradients(subject, prompts, replies, layer, stories)
    return _odds(found), gradients[1::2] - gradients[::2]


def null_slopes(
    subject: Subject, vectors: EmotionVectors, gradients: np.ndarray, slopes: pd.DataFrame, layer: int, seed: int
) -> dict[str, np.ndarray]:
    """For each null [draw, dilemma] slopes: of random directions of length 1, and differences of two random emotions,
    other than desperate and calm together (none, if the vectors hold no others).

    gradients : [dilemma, d_model] for a strength of 1; slopes : [dilemma, emotion]
    """
    drawn = random_directions(subject, vectors, layer, DIRECTIONS, seed=seed)  # [draw, d_model]
    axes = subspace(vectors.vectors[:, vectors.row(layer)])
    outside = unit(drawn - (drawn @ axes.T) @ axes)  # as the kind of that name, without reading neutral texts again
    found = {NULLS[0]: drawn @ gradients.T, NULLS[1]: outside @ gradients.T}
    pairs = [pair for pair in combinations(slopes, 2) if set(pair) != set(EMOTIONS)]
    some = np.random.default_rng(seed).permutation(len(pairs))[:DIRECTIONS]
    other = [slopes[pairs[i][0]] - slopes[pairs[i][1]] for i in some]
    return found | {NULLS[2]: np.reshape(other, (len(other), len(slopes)))}


def real_pushes(
    subject: Subject, vectors: EmotionVectors, dilemmas: Sequence[dict], slopes: pd.DataFrame, layer: int
) -> pd.DataFrame:
    """Steer each dilemma's desperate story both ways along both emotions: `change` of the log-odds, and `expected`."""
    rows = []
    for dilemma in dilemmas:
        prompts, replies, (story, _) = _pairs(subject, [dilemma], "desperate")
        with lower_blocks_once(subject, layer):
            plain = _odds(continuation_logprobs(subject, prompts, replies))[0]
            for push in _pushes(STRENGTH):
                with steer(subject, vectors, push, layers=layer, positions=story):
                    change = _odds(continuation_logprobs(subject, prompts, replies))[0] - plain
                ((name, size),) = push.items()
                rows.append((dilemma["id"], name, size, change, slopes.loc[dilemma["id"], name] * size))
    return pd.DataFrame(rows, columns=["id", "push", "strength", "change", "expected"])


def sample_replies(
    subject: Subject,
    vectors: EmotionVectors,
    dilemmas: Sequence[dict],
    n: int,
    *,
    strength: float = STRENGTH,
    tokens: int = 60,
    layer: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """n sampled replies to each desperate dilemma, unsteered and pushed either way along desperate and calm.

    The push covers the story and all that follows. `text` is what was written, unjudged; `log_odds` is what the model
    without a push makes of it: the harmful against the honest sentence as a summary of the reply (nats). For models
    that answer such questions at all: read the texts before you count anything.

    Raises EmolabError as `desperation` does, and where the reply finds no room in the context window.
    """
    rows = []
    for dilemma in dilemmas if n else ():
        prompt, story = ask(subject, dilemma, "desperate")
        where = slice(story.start, None)
        for push in ({}, *_pushes(strength)):
            with steer(subject, vectors, push, layers=layer, positions=where) if push else nullcontext():
                texts = subject.generate([prompt] * n, tokens, seed=seed)
            prompts = [prompt + text + CUE for text in texts for _ in OPTIONS]
            odds = _odds(continuation_logprobs(subject, prompts, [dilemma[option] for option in OPTIONS] * n))
            name, size = next(iter(push.items()), ("none", 0.0))
            rows += [(dilemma["id"], dilemma["kind"], name, size, *pair) for pair in zip(texts, odds, strict=True)]
    return pd.DataFrame(rows, columns=["id", "kind", "push", "strength", "text", "log_odds"])


def _pairs(subject: Subject, dilemmas: Sequence[dict], version: str) -> tuple[list[str], list[str], list[slice]]:
    """[dilemma x option] prompts, replies and the tokens of the stories, the honest option first."""
    asked = [ask(subject, dilemma, version) for dilemma in dilemmas for _ in OPTIONS]
    replies = [dilemma[option].strip() for dilemma in dilemmas for option in OPTIONS]
    return [text for text, _ in asked], replies, [story for _, story in asked]


def _odds(found: np.ndarray) -> np.ndarray:
    """[dilemma] from the log-probabilities [dilemma x option]."""
    return found[1::2] - found[::2]


def _pushes(strength: float) -> list[dict[str, float]]:
    return [{name: sign * strength} for name in EMOTIONS for sign in (1, -1)]
