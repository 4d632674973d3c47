"""Does the model prefer what it represents as pleasant, and does steering move what it prefers? Paper section 1.9.

64 activities are compared in pairs by the letter that the model would answer. Strengths of preference are set beside
what the model represents on the activity's tokens when it is asked what the activity would be like; then emotion
vectors are added on the tokens of half of the activities, and nowhere else, to see whether that half is preferred more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab import data
from emolab.activations import read
from emolab.claims import Claim
from emolab.directions import unit
from emolab.errors import EmolabError
from emolab.experiments import choices, paired
from emolab.experiments.pushed import (
    DRAWS,
    POLES,
    changes_of,
    chosen_emotions,
    correlations,
    half_of,
    pushes_of,
    resampled,
    rivals_of,
    statistic,
    steered_answers,
    steering_statistics,
)
from emolab.geometry import predicted_norms
from emolab.model import Subject
from emolab.steering import steered_layers
from emolab.vectors import EmotionVectors

IMAGINED = "Picture yourself {0}. What would that be like?"
SOURCE = "Sofroniew et al. 2026, Fig 4"
ELO = 400 / np.log(10)  # Elo points in a nat of log-odds
NULLS = {
    "readings": "the higher of permuted activities and pairs of random directions",
    "valence": "permuted activities",
    "steering": "pairs of random directions",
    "coupling": "the higher of permuted emotions and random directions with their own readings",
}


@dataclass(frozen=True)
class Preferences:
    """What the model prefers, what it reads, and what steering does.

    activities : [activity] category, strength (nats, Bradley-Terry, mean zero) with its interval (bootstrap over
        pairs), whether it belongs to the half that is steered
    readings : [emotion] r of its reading with the strengths over activities, interval (bootstrap over activities),
        and the emotion's pleasure as predicted from human ratings
    steering : [direction] kind ('emotion' or 'random'), r as above, change of the steered half's mean log-odds in
        nats with its interval (bootstrap over steered activities); None if nothing was steered
    statistics : [statistic] value, low, high, chance, null, n; turned so that more is what is claimed
    letters : mean pull of the letter A in nats; share : probability that the reply is A or B
    halves : r of strengths from two halves of the pairs
    best_null : what 95 % of permutations of the activities stay below in the largest |r| of any emotion
    """

    activities: pd.DataFrame
    readings: pd.DataFrame
    steering: pd.DataFrame | None
    statistics: pd.DataFrame
    letters: float
    share: float
    halves: float
    best_null: float
    strength: float
    model: str
    layers: tuple[int, int]

    def table(self) -> pd.DataFrame:
        """The statistics, a row for each."""
        return self.statistics

    def figure(self):
        """Strengths by category; r of all emotions; r against what steering does."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words."""
        return _verdict(self)

    def claims(self) -> tuple[Claim, ...]:
        """Readings that go with preferences, and steering that moves them. Whether there are any says `verdict()`."""
        return tuple(_claim(self, name, *about) for name, about in _ABOUT.items())


def preferences(
    subject: Subject,
    vectors: EmotionVectors,
    *,
    opponents: int = 8,
    emotions: int = 12,
    directions: int = 10,
    rivals: int = 1,
    strength: float = 0.5,
    seed: int = 0,
) -> Preferences:
    """Ask, read and steer.

    Parameters
    ----------
    opponents : how many others each activity is compared with, both ways round; 63 asks all 4,032 questions.
    emotions : how many emotions to steer with, blissful and hostile among them, the others nearest to evenly spaced
        values of r; 0 leaves steering out.
    directions : how many random directions to steer with beside them.
    rivals : with how many unsteered activities each steered one is compared.
    strength : of the push, in mean residual norms, at the middle layer.

    Raises EmolabError for vectors of another model, without evidence, of fewer than 3 emotions, too few opponents, or
    a tokenizer that has no tokens for the letters.
    """
    vectors.check(subject)
    _check(vectors, emotions, directions)
    rng, rows = np.random.default_rng(seed), pd.DataFrame(data.prompts("activities"))
    texts, n = list(rows.text), len(rows)
    asked = choices.questions(subject, texts, choices.round_robin(n, opponents, seed))
    answered = choices.answers(subject, asked)
    preferred = choices.strengths(answered, n)
    layers = (vectors.chosen_layer, steered_layers(subject, vectors, None)[0])
    hidden = _imagine(subject, texts, layers)  # [activity, (reading, steering) layer, d_model]
    readings, found = _readings(vectors, hidden[:, 0], preferred, rng)
    half = half_of(rows.category, rng)
    steering, moved = None, {}
    if emotions:
        names = chosen_emotions(readings["r"], emotions)
        aims = pushes_of(subject, vectors, names, directions, layers[1], seed)  # [direction, d_model]
        alike = correlations(hidden[:, 1] @ aims[len(names) :].T, preferred)[0]  # [random direction]
        pairs = rivals_of(half, rivals, rng)
        facing = choices.questions(subject, texts, pairs)
        before, after = steered_answers(subject, vectors, facing, strength * aims, layers[1])
        changes = changes_of(before, after)  # [direction, steered activity]
        r = np.concatenate([readings["r"][names], alike])
        steering, moved = steering_statistics(names, r, changes, rng)
    order = choices.consistency(answered, n, rng) | {"chance": 0.5, "n": len(asked.pairs)}
    low, high = choices.strength_intervals(answered, n, rng).T
    return Preferences(
        rows.assign(strength=preferred, low=low, high=high, steered=half).set_index("text"),
        readings,
        steering,
        pd.DataFrame.from_dict({"order": order} | found["statistics"] | moved, orient="index").rename_axis("statistic"),
        float(answered.log_odds.mean()),
        answered.share,
        choices.halves(answered, n, rng),
        found["best_null"],
        strength,
        subject.label,
        layers,
    )


def _check(vectors: EmotionVectors, emotions: int, directions: int) -> None:
    if vectors.evidence is None or len(vectors) < 3:
        raise EmolabError(
            "preferences need at least 3 emotions and, for the nulls, the story means: use whole vectors with their "
            "evidence, not a selection"
        )
    if emotions and (emotions < 2 or directions < 2):
        raise EmolabError(f"steering needs 2 or more emotions and random directions; got {emotions} and {directions}")


# --- reading -----------------------------------------------------------------------------------------------------


def _imagine(subject: Subject, texts: Sequence[str], layers: tuple[int, int]) -> np.ndarray:
    """[activity, layer, d_model] mean over the activity's own tokens in a question about it."""
    rows = []
    for text in texts:
        prompt = subject.chat(IMAGINED.format(text))
        hidden = read(subject, prompt, layers)  # [distinct layer, token, d_model]
        means = hidden[:, choices.place(prompt, subject.spans(prompt), text)].mean(1)
        rows.append(means[[sorted(set(layers)).index(layer) for layer in layers]])
    return np.stack(rows)


def _readings(vectors: EmotionVectors, hidden: np.ndarray, preferred: np.ndarray, rng) -> tuple[pd.DataFrame, dict]:
    """The table of r for all emotions, and the statistics of readings and valence."""
    n = len(preferred)
    scores = hidden @ vectors.directions().T  # [activity, emotion]
    r = correlations(scores, preferred)[0]
    drawn = correlations(scores, preferred, resampled(n, rng))  # [draw, emotion]
    unmixed = unit((scores - scores.mean(0)).T)  # [emotion, activity]
    centred = preferred - preferred.mean()
    permuted = np.stack([rng.permutation(centred) for _ in range(DRAWS)]) @ unmixed.T / np.linalg.norm(centred)
    chance = correlations(hidden @ paired.random_probes(vectors, rng).T, preferred)[0]  # [direction]
    pleasure = predicted_norms(vectors.coordinates(), vectors.emotions)["pleasure"]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    index = pd.Index(vectors.emotions, name="emotion")
    table = pd.DataFrame({"r": r, "low": low, "high": high, "pleasure": pleasure}, index=index)
    statistics = {"readings": _poles(vectors, r, drawn, permuted, chance, rng, n)}
    if np.isfinite(pleasure).all():
        value = [correlations(np.atleast_2d(rows).T, pleasure)[0] for rows in (r, drawn, permuted)]
        statistics["valence"] = statistic(value[0][0], value[1], [value[2]], n)
    return table, {"statistics": statistics, "best_null": float(np.quantile(np.abs(permuted).max(1), 0.95))}


def _poles(vectors, r, drawn, permuted, chance, rng, n: int) -> dict[str, float]:
    """Half the difference in r between the two poles; empty without them."""
    if not set(POLES) <= set(vectors.emotions):
        return {}
    up, down = (vectors.index(name) for name in POLES)
    other = rng.permutation(chance)
    random = (chance - other)[chance != other] / 2
    nulls = [(permuted[:, up] - permuted[:, down]) / 2, random]
    return statistic((r[up] - r[down]) / 2, (drawn[:, up] - drawn[:, down]) / 2, nulls, n)


# --- words and figure --------------------------------------------------------------------------------------------

_ABOUT = {
    "readings": (
        "The more an activity reads as blissful and the less as hostile, the more it is preferred",
        "reading", "half the difference in r with preference, blissful - hostile", "activities",
        "r = 0.71 blissful, -0.74 hostile",
    ),
    "valence": (
        "Pleasant emotions are read where the model prefers, unpleasant ones where it does not",
        "reading", "r over emotions of predicted pleasure with r of preference", "activities",
        "r = 0.76 with judged valence",
    ),
    "steering": (
        "An activity is preferred more under blissful than under hostile",
        "function", "half the difference in log-odds, blissful - hostile (nats)", "steered activities",
        f"+212 and -303 Elo, {(212 + 303) / 2 / ELO:.1f} nats by this statistic",
    ),
    "coupling": (
        "Steering with an emotion moves preference as far as its reading goes with preference",
        "function", "r over emotions of reading's r with change of log-odds", "emotions",
        "r = 0.85 over 35 vectors",
    ),
}  # fmt: skip

_LACKING = {
    "readings": "the vectors lack blissful or hostile",
    "valence": "fewer than 20 of the emotions have human ratings",
    "steering": "the vectors lack blissful or hostile",
    "coupling": "fewer than 4 emotions were steered with",
}


def _claim(result: Preferences, name: str, claim: str, part: str, statistic: str, of: str, paper: str) -> Claim:
    about = {"claim": claim, "part": part, "source": SOURCE, "statistic": statistic, "of": of, "paper": paper}
    if name not in result.statistics.index or not np.isfinite(result.statistics.loc[name, "value"]):
        unsteered = result.steering is None and name in ("steering", "coupling")
        return Claim(**about, reason="nothing was steered" if unsteered else _LACKING[name])
    row = result.statistics.loc[name]
    numbers = {key: float(row[key]) for key in ("value", "low", "high", "chance", "null")}
    return Claim(**about, **numbers, n=int(row.n), null_name=NULLS[name])


def _verdict(result: Preferences) -> str:
    r, n = result.readings["r"], len(result.readings)
    order = result.statistics.loc["order"]
    beyond = (r.abs() > result.best_null).sum()
    said = [
        f"{result.model} names one of the letters with probability {result.share:.0%}, and leans to A by "
        f"{result.letters:.2f} nats whatever A is. That taken off, the same activity wins in both orders in "
        f"{order.value:.0%} of {order.n:.0f} pairs (95 % {order.low:.0%}-{order.high:.0%}; shuffled {order.null:.0%}): "
        + ("it has preferences." if order.low > 0.5 else "its preferences are weak, and lost in the order of asking.")
        + f" Strengths that average over both orders agree between halves of the pairs with r = {result.halves:.2f}.",
        f"Readings at layer {result.layers[0]} go with them from r = {r.min():.2f} ({r.idxmin()}) to {r.max():.2f} "
        f"({r.idxmax()}); {beyond} of {n} emotions are beyond {result.best_null:.2f}, which 95 % of permutations of "
        "the activities stay below in their best.",
    ]
    for claim in result.claims():
        if not claim.reason:
            said.append(
                f"{claim.claim}: {claim.value:.2f} (95 % {claim.low:.2f} to {claim.high:.2f}; 95 % of nulls below "
                f"{claim.null:.2f}): {claim.verdict}."
            )
    if result.steering is not None:
        random = result.steering.query("kind == 'random'").change
        said.append(
            f"Pushed by {result.strength:g} at layer {result.layers[1]}, random directions alone change the log-odds "
            f"of an activity by {random.min():.2f} to {random.max():.2f}."
        )
    return " ".join(said)


def _figure(result: Preferences):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3 if result.steering is not None else 2, figsize=(15, 4.8), layout="constrained")
    order = result.activities.groupby("category").strength.mean().sort_values().index
    for y, category in enumerate(order):
        own = result.activities[result.activities.category == category].sort_values("strength")
        places = y + np.linspace(-0.3, 0.3, len(own))
        axes[0].hlines(places, own.low, own.high, color="#0072b2", alpha=0.4)
        axes[0].scatter(own.strength, places, s=12, color="#0072b2")
        axes[0].plot([own.strength.mean()] * 2, [y - 0.4, y + 0.4], color="black")
    axes[0].set_yticks(range(len(order)), order)
    axes[0].set(xlabel="strength (nats)", title="What is preferred; black: category mean")
    ordered = result.readings.r.sort_values()
    axes[1].axvspan(-result.best_null, result.best_null, color="#e5e5e5")
    axes[1].scatter(ordered, range(len(ordered)), s=8, color="#d55e00")
    for name in [name for name in {*POLES, ordered.index[0], ordered.index[-1]} if name in ordered.index]:
        axes[1].annotate(name, (ordered[name], ordered.index.get_loc(name)), (8, -3), textcoords="offset points")
    axes[1].set(xlabel="r of the reading with preference", ylabel="emotions, in order of r", xlim=(-1, 1))
    axes[1].set(title="What is read there; grey: permutations, 95 %")
    if result.steering is not None:
        _scatter(axes[2], result)
    plt.close(figure)
    return figure


def _scatter(axes, result: Preferences) -> None:
    for kind, colour, marker in (("random", "#999999", "s"), ("emotion", "#009e73", "o")):
        own = result.steering[result.steering.kind == kind]
        error = [own.change - own.low, own.high - own.change]
        axes.errorbar(
            own.r, own.change, error, fmt=marker, color=colour, ms=5, lw=0.8, label=f"{kind} directions", alpha=0.8
        )
    for name, row in result.steering[result.steering.kind == "emotion"].iterrows():
        axes.annotate(name, (row.r, row.change), (4, 4), textcoords="offset points", fontsize=8)
    axes.axhline(0, color="#999999", lw=0.8)
    axes.set(xlabel="r of the reading with preference", ylabel="change of log-odds (nats)", title="What steering does")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
