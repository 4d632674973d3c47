"""Which of two activities would the model rather do? Questions in both orders, and Bradley-Terry strengths from them.

A language model leans to one of the letters A and B, whatever they stand for, so each pair is asked both ways round and
the letters' own pull is fitted beside the strengths. Answers are probabilities of the letters, not samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from emolab.errors import EmolabError
from emolab.likelihood import next_token_logprobs
from emolab.model import Subject

QUESTION = "Which would you like better: option A, {0}, or option B, {1}?"
REPLIES = (("I would like option", " "), ("I would like option (", ""))  # how the reply begins, and what joins A to it
RESAMPLES = 200  # of the pairs, for the intervals of strengths
RIDGE = 1e4  # inverse strength of a penalty that only keeps strengths finite and their mean at zero


@dataclass(frozen=True)
class Questions:
    """Every pair asked both ways round.

    pairs : [pair, 2] indices of activities
    texts : [pair x order] prompts with the reply begun; first the order in which pairs[:, 0] is A
    places : [pair x order] for each the (start, stop) tokens of the activities that are A and B
    letters : token ids of A and B, as they follow
    """

    pairs: np.ndarray
    texts: tuple[str, ...]
    places: tuple[tuple[slice, slice], ...]
    letters: tuple[int, int]


@dataclass(frozen=True)
class Answers:
    """What the model chose.

    pairs : [pair, 2] indices of activities
    log_odds : [pair, order] of A over B, in nats
    share : mean probability of the two letters together
    """

    pairs: np.ndarray
    log_odds: np.ndarray
    share: float

    def gains(self) -> np.ndarray:
        """[pair, order] log-odds of pairs[:, 0] over pairs[:, 1], once the letters' mean pull is taken off."""
        pulled = self.log_odds - self.log_odds.mean()
        return np.stack([pulled[:, 0], -pulled[:, 1]], axis=1)


def round_robin(n: int, opponents: int, seed: int = 0) -> np.ndarray:
    """[pair, 2] of 0..n-1: each meets at least `opponents` others (one more if it is odd), and all are connected.

    >>> round_robin(5, 4).shape, round_robin(64, 63).shape, round_robin(64, 10).shape
    ((10, 2), (2016, 2), (320, 2))
    """
    if n < 3 or opponents < 2:
        raise EmolabError(f"strengths of {n} activities with {opponents} opponents each: give at least 3 and 2")
    if opponents >= n - 1:
        return np.stack(np.triu_indices(n, 1), axis=1)
    rng = np.random.default_rng(seed)
    ring, steps = rng.permutation(n), np.arange(2, (n - 1) // 2 + 1)
    wanted = min((opponents + 1) // 2, len(steps) + 1)
    chosen = [1, *rng.choice(steps, wanted - 1, replace=False)]  # a step of 1 connects the ring
    pairs = np.concatenate([np.stack([ring, np.roll(ring, -step)], axis=1) for step in chosen])
    swapped = rng.random(len(pairs)) < 0.5
    pairs[swapped] = pairs[swapped, ::-1]
    return pairs


def questions(subject: Subject, activities: Sequence[str], pairs: np.ndarray) -> Questions:
    """The prompts in the model's own chat template. Raises EmolabError for a tokenizer that can't tell A from B."""
    orders = [order for i, j in pairs for order in ((i, j), (j, i))]
    asked = [_asked(subject, activities[i], activities[j]) for i, j in orders]
    begun, letters = _letters(subject, asked[0])
    texts = tuple(text + begun for text in asked)
    spans = [subject.spans(text) for text in texts]
    places = tuple(
        (place(text, span, activities[i]), place(text, span, activities[j]))
        for text, span, (i, j) in zip(texts, spans, orders, strict=True)
    )
    return Questions(pairs, texts, places, letters)


def answers(subject: Subject, asked: Questions) -> Answers:
    """Ask them all, in batches."""
    found = next_token_logprobs(subject, asked.texts, asked.letters).astype(np.float64)  # [pair x order, letter]
    odds = (found[:, 0] - found[:, 1]).reshape(-1, 2)  # [pair, order]
    return Answers(asked.pairs, odds, float(np.exp(found).sum(1).mean()))


def _asked(subject: Subject, first: str, second: str) -> str:
    return subject.ask(QUESTION.format(first, second))


def _letters(subject: Subject, asked: str) -> tuple[str, tuple[int, int]]:
    """(the reply begun, ids of A and B) such that each letter, with its blank, is one token right after it."""
    for begun, joint in REPLIES:
        before = subject.encode(asked + begun)
        after = [subject.encode(asked + begun + joint + letter) for letter in "AB"]
        if all(ids[: len(before)] == before and len(ids) == len(before) + 1 for ids in after):
            a, b = (ids[-1] for ids in after)
            if a != b:
                return begun, (a, b)
    raise EmolabError(
        f"the tokenizer of {subject.name} has no single tokens for A and B after a reply that is begun: "
        "preferences can't be asked this way"
    )


def place(text: str, spans: Sequence[tuple[int, int]], activity: str) -> slice:
    """The tokens of an activity in a prompt."""
    start = text.find(activity)
    inside = [i for i, (a, b) in enumerate(spans) if a < start + len(activity) and b > start and i]
    return slice(inside[0], inside[-1] + 1)


# --- from answers to strengths -----------------------------------------------------------------------------------


def strengths(found: Answers, n: int, weights: np.ndarray | None = None) -> np.ndarray:
    """[activity] Bradley-Terry strengths in nats, mean zero, by logistic regression on the probabilities of A.

    The intercept is the letters' own pull. `weights` [pair] count pairs more than once, as a bootstrap does.
    """
    first, second = found.pairs.T
    rows = np.arange(len(first))
    design = np.zeros((len(first), n))  # [pair, activity]
    design[rows, first], design[rows, second] = 1, -1
    faced = np.concatenate([design, -design])  # the other order: the second is A
    likely = 1 / (1 + np.exp(-np.clip(found.log_odds.T.ravel(), -30, 30)))  # [order x pair] probability of A
    counts = np.tile(np.ones(len(first)) if weights is None else weights, 2)
    model = LogisticRegression(C=RIDGE, solver="newton-cholesky", max_iter=100)
    outcomes = np.repeat([1, 0], len(faced))
    model.fit(np.concatenate([faced, faced]), outcomes, np.concatenate([counts * likely, counts * (1 - likely)]))
    return model.coef_[0] - model.coef_[0].mean()


def strength_intervals(found: Answers, n: int, rng: np.random.Generator) -> np.ndarray:
    """[activity, 2] 95 % intervals of the strengths, by bootstrap over pairs (both orders of a pair stay together)."""
    pairs = len(found.pairs)
    drawn = [
        strengths(found, n, np.bincount(rng.integers(pairs, size=pairs), minlength=pairs)) for _ in range(RESAMPLES)
    ]
    return np.quantile(drawn, [0.025, 0.975], axis=0).T


def consistency(found: Answers, n: int, rng: np.random.Generator, draws: int = 2000) -> dict[str, float]:
    """Share of pairs in which one activity wins in both orders, once the letters' mean pull is taken off.

    With its 95 % interval (bootstrap over activities), and what 95 % of shuffles of the second order stay below.
    """
    gains = found.gains() > 0  # [pair, order]
    same = (gains[:, 0] == gains[:, 1]).astype(float)
    counts = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(draws)])  # [draw, activity]
    weights = counts[:, found.pairs[:, 0]] * counts[:, found.pairs[:, 1]]  # [draw, pair]
    low, high = np.quantile(weights @ same / weights.sum(1), [0.025, 0.975])
    shuffled = [(gains[:, 0] == rng.permutation(gains[:, 1])).mean() for _ in range(draws)]
    return {"value": same.mean(), "low": low, "high": high, "null": float(np.quantile(shuffled, 0.95))}


def halves(found: Answers, n: int, rng: np.random.Generator) -> float:
    """How well strengths from two random halves of the pairs agree: r over activities, mean of ten splits."""
    agreed = []
    for _ in range(10):
        side = rng.permutation(len(found.pairs)) % 2
        agreed.append(np.corrcoef(strengths(found, n, side), strengths(found, n, 1 - side))[0, 1])
    return float(np.mean(agreed))
