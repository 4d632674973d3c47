"""Statistics of matched pairs: does an emotion change the same way in most pairs, and more than meaningless directions?

Shared by the experiments whose texts come in twins. Every statistic is turned so that what was predicted is positive.
"""

from collections.abc import Sequence

import numpy as np

from emolab.claims import Claim
from emolab.directions import fit
from emolab.vectors import EmotionVectors

DRAWS = 10_000  # of the bootstrap and of sign flips
DIRECTIONS = 2_000  # of each null


def check_families(vectors: EmotionVectors, families: dict[str, tuple[Sequence[str], int]]) -> None:
    """Raises EmolabError for vectors without evidence or without an emotion of a family."""
    vectors.need_evidence()
    for names, _ in families.values():
        for name in names:
            vectors.index(name)


def random_probes(vectors: EmotionVectors, rng: np.random.Generator) -> np.ndarray:
    """[draw, d_model] random vectors that vary as stories of one emotion do, made into probes if those are in use.

    Directions that vary as activations do, without that, would all lie along a few massive coordinates.
    """
    spread = fit(vectors.evidence.train).metric  # [d_model, d_model]
    drawn = rng.standard_normal((DIRECTIONS, len(spread))) @ np.linalg.cholesky(spread).T
    return drawn if vectors.metric == "vector" else np.linalg.solve(spread, drawn.T).T


def null_shares(
    gaps: np.ndarray, scores: np.ndarray, directions: np.ndarray, size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """[draw] share of pairs that go up, for random directions and for families of `size` random emotions.

    gaps : [pair, d_model] differences of activations; scores : [pair, emotion] the same, scored.
    """
    draws = [rng.choice(scores.shape[1], size, replace=False) for _ in range(DIRECTIONS)]
    families = np.stack([scores[:, draw].mean(1) for draw in draws])  # [draw, pair]
    return {"random": (directions @ gaps.T > 0).mean(1), "families": (families > 0).mean(1)}


def statistics(found: np.ndarray, sign: int, nulls: dict[str, np.ndarray], rng: np.random.Generator) -> dict:
    """Of [pair] changes, turned so that the prediction is positive.

    `share` of pairs that change as predicted and mean `change` (not turned), with 95 % intervals by bootstrap over
    pairs; `sign_flip_p` of the mean, two-sided; for each null the share that 95 % of it stay below, and `_p`, the part
    of it that reaches the share found.
    """
    drawn = found[rng.integers(len(found), size=(DRAWS, len(found)))]  # [draw, pair]
    low, high = np.quantile((drawn > 0).mean(1), [0.025, 0.975])
    ends = np.sort(sign * np.quantile(drawn.mean(1), [0.025, 0.975]))
    flipped = (rng.choice([-1, 1], size=(DRAWS, len(found))) * found).mean(1)
    share = (found > 0).mean()
    row = {"share": share, "low": low, "high": high, "change": sign * found.mean()}
    row |= {"change_low": ends[0], "change_high": ends[1]}
    row["sign_flip_p"] = (np.abs(flipped) >= abs(found.mean())).mean()
    for name, up in nulls.items():
        null = up if sign > 0 else 1 - up
        row |= {f"{name}_95": np.quantile(null, 0.95), f"{name}_p": (null >= share).mean()}
    return row


def share_claim(row, pairs: int, **about: str) -> Claim:
    """A row of `statistics` as a Claim about the share of pairs; `about` are the words that only the caller knows."""
    return Claim(
        value=float(row["share"]),
        low=float(row["low"]),
        high=float(row["high"]),
        chance=0.5,
        null=float(max(row["random_95"], row["families_95"])),
        null_name="the higher of random directions and families of random emotions",
        n=pairs,
        of="pairs",
        **about,
    )
