"""Steering the activities of preference questions: pushes on the tokens of one half of them, and what they change.

The half's mean log-odds against activities that are not pushed, both orders alike, so that a push that only draws the
answer to one letter changes nothing.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from emolab.activations import plan_batches, token_budget
from emolab.directions import unit
from emolab.experiments.choices import Answers, Questions
from emolab.likelihood import next_token_logprobs
from emolab.model import Subject
from emolab.nulls import random_directions
from emolab.steering import steer
from emolab.subspaces import lower_blocks_once
from emolab.vectors import EmotionVectors

POLES = ("blissful", "hostile")  # the paper's own two ends, named before any model is looked at
DRAWS = 2000  # of bootstraps and permutations


def steered_answers(
    subject: Subject, vectors: EmotionVectors, asked: Questions, pushes: np.ndarray, layer: int
) -> tuple[Answers, np.ndarray]:
    """The answers as the model is, and with each push [push, d_model] on the tokens of activity pairs[:, 0] alone.

    Returns the first and [push, pair, order] log-odds of A over B. Prompts whose activity lies on the same tokens are
    pushed in one batch, and the blocks below the push run once for all pushes.
    """
    aims = [places[number % 2] for number, places in enumerate(asked.places)]  # in the second order it is B
    odds = np.empty((1 + len(pushes), len(aims)))
    share = np.empty(len(aims))
    for aim in {(a.start, a.stop): a for a in aims}.values():
        group = [i for i, a in enumerate(aims) if a == aim]
        lengths = [asked.places[i][1].stop for i in group]
        for batch in plan_batches(lengths, token_budget(subject) // 2):
            chosen = [group[i] for i in batch]
            texts = [asked.texts[i] for i in chosen]
            with lower_blocks_once(subject, layer):
                found = [next_token_logprobs(subject, texts, asked.letters)]
                for push in pushes:
                    with steer(subject, vectors, push, layers=layer, positions=aim):
                        found.append(next_token_logprobs(subject, texts, asked.letters))
            odds[:, chosen] = np.stack([one[:, 0] - one[:, 1] for one in found])
            share[chosen] = np.exp(found[0]).sum(1)
    odds = odds.reshape(len(odds), -1, 2)  # [1 + push, pair, order]
    return Answers(asked.pairs, odds[0], float(share.mean())), odds[1:]


def half_of(categories: pd.Series, rng: np.random.Generator) -> np.ndarray:
    """[activity] True for half of each category."""
    order = pd.Series(rng.permutation(len(categories)))
    return (order.groupby(categories.to_numpy()).rank() <= categories.groupby(categories).transform("size") / 2).values


def chosen_emotions(r: pd.Series, n: int) -> list[str]:
    """The two poles, if there, and the emotions nearest to evenly spaced values of r, until there are n.

    >>> chosen_emotions(pd.Series({"a": -0.5, "b": 0.1, "c": 0.0, "d": 0.45}), 3)
    ['a', 'c', 'd']
    """
    n, chosen = min(n, len(r)), [name for name in POLES if name in r.index][:n]
    for value in np.linspace(r.min(), r.max(), n - len(chosen)):
        chosen.append((r.drop(chosen) - value).abs().idxmin())
    return sorted(chosen, key=lambda name: r[name])


def pushes_of(subject, vectors, names: list[str], directions: int, layer: int, seed: int) -> np.ndarray:
    """[direction, d_model] unit vectors of emotions, then random directions that vary as the residual stream does."""
    own = unit(vectors.vectors[[vectors.index(name) for name in names], vectors.row(layer)].astype(float))
    return np.concatenate([own, random_directions(subject, vectors, layer, directions, seed=seed)])


def rivals_of(half: np.ndarray, rivals: int, rng: np.random.Generator) -> np.ndarray:
    """[pair, 2] each steered activity against some that are not, every one of those as often."""
    steered, others = np.flatnonzero(half), rng.permutation(np.flatnonzero(~half))
    return np.concatenate([np.stack([steered, np.resize(np.roll(others, k), len(steered))], 1) for k in range(rivals)])


def changes_of(before: Answers, after: np.ndarray) -> np.ndarray:
    """[direction, steered activity] change of its mean log-odds over its rivals, both orders alike."""
    moved = (after - before.log_odds) * np.array([1, -1])  # [direction, pair, order]
    activities, owner = np.unique(before.pairs[:, 0], return_inverse=True)
    return np.stack([moved[:, owner == k].mean((1, 2)) for k in range(len(activities))], axis=1)


def steering_statistics(
    names: list[str], r: np.ndarray, changes: np.ndarray, rng: np.random.Generator
) -> tuple[pd.DataFrame, dict]:
    """The table of what steering did, and the statistics of steering and coupling.

    r : [direction] of the emotions, then of the random directions; changes : [direction, steered activity]
    """
    emotions, activities = len(names), changes.shape[1]
    counts = resampled(activities, rng) / activities  # [draw, activity]
    drawn = counts @ changes.T  # [draw, direction]
    mean, (low, high) = changes.mean(1), np.quantile(drawn, [0.025, 0.975], axis=0)
    randoms = [f"random {k + 1}" for k in range(len(r) - emotions)]
    kind = ["emotion"] * emotions + ["random"] * len(randoms)
    index = pd.Index(names + randoms, name="direction")
    table = pd.DataFrame({"kind": kind, "r": r, "change": mean, "low": low, "high": high}, index=index)
    statistics = {}
    if set(POLES) <= set(names):
        up, down = (names.index(name) for name in POLES)
        differences = np.subtract.outer(mean[emotions:], mean[emotions:]) / 2
        null = differences[~np.eye(len(randoms), dtype=bool)]
        statistics["steering"] = statistic(
            (mean[up] - mean[down]) / 2, (drawn[:, up] - drawn[:, down]) / 2, [null], activities
        )
    if emotions > 3:
        statistics["coupling"] = _coupling(r, mean, drawn, emotions, rng)
    return table, statistics


def _coupling(r, mean, drawn, emotions: int, rng: np.random.Generator) -> dict[str, float]:
    """r over emotions between reading and change; interval by bootstrap over emotions and activities at once."""

    def agree(rows: np.ndarray, change: np.ndarray) -> float:
        return np.corrcoef(r[rows], change)[0, 1] if len(set(rows)) > 2 else np.nan

    own = np.arange(emotions)
    picks = rng.integers(emotions, size=(DRAWS, emotions))
    spread = [agree(rows, change[rows]) for rows, change in zip(picks, drawn, strict=True)]
    shuffled = [agree(own, mean[rng.permutation(own)]) for _ in range(DRAWS)]
    others = rng.integers(emotions, len(r), size=(DRAWS, emotions))
    random = [agree(rows, mean[rows]) for rows in others]
    return statistic(agree(own, mean[own]), np.array(spread), [np.array(shuffled), np.array(random)], emotions)


# --- statistics -------------------------------------------------------------------------------------------------------


def correlations(scores: np.ndarray, strengths: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """[draw, column] Pearson r of scores [activity, column] with strengths, for each row of weights [draw, activity].

    >>> correlations(np.array([[1.0], [2.0], [4.0]]), np.array([2.0, 4.0, 8.0])).round(6).tolist()
    [[1.0]]
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    share = weights / weights.sum(1, keepdims=True)
    x, y = scores - scores.mean(0), strengths - strengths.mean()
    mean_x, mean_y = share @ x, share @ y  # [draw, column], [draw]
    joint = share @ (x * y[:, None]) - mean_x * mean_y[:, None]
    spread_x, spread_y = share @ x**2 - mean_x**2, share @ y**2 - mean_y**2
    return joint / np.sqrt(np.maximum(spread_x * spread_y[:, None], 1e-30))


def resampled(n: int, rng: np.random.Generator) -> np.ndarray:
    """[draw, n] how often each is drawn."""
    return rng.multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(float)


def statistic(value: float, drawn: np.ndarray, nulls: Sequence[np.ndarray], n: int) -> dict[str, float]:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    null = max(float(np.nanquantile(null, 0.95)) for null in nulls)
    return {"value": float(value), "low": low, "high": high, "chance": 0.0, "null": null, "n": n}
