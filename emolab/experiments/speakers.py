"""Whose emotion is it? The state of the one who speaks, and that of the other, on the tokens of each. Paper 3.1, 3.5.

In 48 dialogues of four turns, user and assistant are each in a state of their own. Two questions: whose state do the
emotion vectors read on a speaker's tokens, and are there directions for the speaker who is present and for the other
one, alike for user and assistant? Activations of the turns are set free of what all turns of that side share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import cholesky, solve_triangular

from emolab import data
from emolab.activations import read
from emolab.claims import Claim
from emolab.directions import fit, unit
from emolab.experiments import paired
from emolab.model import Subject
from emolab.vectors import EmotionVectors

SIDES = ("user", "assistant")
KINDS = tuple((tokens, state) for state in ("own", "other") for tokens in SIDES)  # whose tokens, whose state
DRAWS = 2000  # of the bootstrap
NULL_DRAWS = 400  # of permuted states, and of sets of random directions
SPLITS = 10  # of the dialogues into halves
SOURCE = "Sofroniew et al. 2026, sections 3.1 and 3.5, Figs 10, 17-19"


@dataclass(frozen=True)
class Speakers:
    """Whose state is read where, and how present-speaker and other-speaker vectors lie.

    places : [(side, state)] mean place of that side's own or the other side's state among the states of the set, by
        the reading on that side's tokens: 1 if it is read most, 0 if least, one half by chance. The state of the one
        who isn't asked about is left out of the ranking, and so are dialogues of one state
    cosines : [kind, kind] mean cosine over states of vectors from two halves of the dialogues, the last row and column
        those of the stories' vectors; kinds are (whose tokens, own or other state)
    statistics : [statistic] value, low, high, chance, null, n
    carried : r of the readings at the user's last token with those where the reply starts, over dialogues and states,
        with interval and null
    """

    places: pd.DataFrame
    cosines: pd.DataFrame
    statistics: pd.DataFrame
    carried: dict[str, float]
    states: tuple[str, ...]
    model: str
    layer: int
    metric: str

    def table(self) -> pd.DataFrame:
        """The statistics, a row for each."""
        return self.statistics

    def figure(self):
        """Places of own and other state by side, and the cosines."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words."""
        said = [f"{self.model}, layer {self.layer}, {len(self.states)} states."]
        for side in SIDES:
            own, other = (self.places.loc[(side, which)] for which in ("own", "other"))
            said.append(
                f"On the {side}'s tokens the {side}'s own state takes place {own.value:.2f} (1 most, 0 least; 95 % "
                f"{own.low:.2f}-{own.high:.2f}), the other speaker's {other.value:.2f} "
                f"({other.low:.2f}-{other.high:.2f}); 95 % of nulls stay below {own.null:.2f} and {other.null:.2f}."
            )
        for claim in self.claims():
            said.append(
                f"{claim.claim}: {claim.value:.2f} (95 % {claim.low:.2f} to {claim.high:.2f}; 95 % of nulls below "
                f"{claim.null:.2f}): {claim.verdict}."
            )
        kinds = self.cosines.to_numpy()
        present, other, apart = kinds[[0, 1], [0, 1]].mean(), kinds[[2, 3], [2, 3]].mean(), kinds[:2, 2:4].mean()
        said.append(
            f"Two halves of the dialogues agree on a present-speaker vector with a cosine of {present:.2f} and on an "
            f"other-speaker vector with {other:.2f}, which bounds what can be found; the two kinds lie at {apart:.2f}."
        )
        r = self.carried
        said.append(
            f"Readings at the user's last token and where the reply starts go together with r = {r['value']:.2f} "
            f"(95 % {r['low']:.2f} to {r['high']:.2f}; shuffled dialogues below {r['null']:.2f}; 0.11 in the paper)."
        )
        return " ".join(said)

    def claims(self) -> tuple[Claim, ...]:
        """Own state read, own more than the other's, and the two kinds of vectors."""
        return tuple(
            Claim(
                claim=claim, part=part, source=SOURCE, statistic=statistic, paper=paper, of=of,
                n=int(self.statistics.loc[name, "n"]), null_name=null_name,
                **{key: float(self.statistics.loc[name, key]) for key in ("value", "low", "high", "chance", "null")},
            )
            for name, (claim, part, statistic, of, null_name, paper) in _ABOUT.items()
        )  # fmt: skip


def speakers(subject: Subject, vectors: EmotionVectors, seed: int = 0) -> Speakers:
    """Read the dialogues in the chat template, at the layer and by the metric that the vectors were chosen for.

    Raises EmolabError for vectors of another model, without evidence or without a state of the dialogues, and for a
    context window too short for a dialogue.
    """
    vectors.check(subject)
    vectors.need_evidence()
    dialogues, rng = data.prompts("dialogues"), np.random.default_rng(seed)
    states = tuple(sorted({d[f"{side}_state"] for d in dialogues for side in SIDES}))
    rows = [vectors.index(state) for state in states]
    turns, ends = _turns(subject, dialogues, vectors.chosen_layer)
    labels = np.array([[states.index(d[f"{side}_state"]) for side in SIDES] for d in dialogues])  # [dialogue, side]
    probes = vectors.directions()[rows]  # [state, d_model]
    null_probes = _null_probes(vectors, len(states), rng)
    places, read_statistics = _reading(turns, labels, probes, null_probes, rng)
    whitened, stories = _whitened(vectors, turns, vectors.vectors[rows, vectors.row()])
    cosines, lie_statistics = _geometry(whitened, labels, stories, rng)
    statistics = pd.DataFrame.from_dict(read_statistics | lie_statistics, orient="index").rename_axis("statistic")
    return Speakers(
        places, cosines, statistics, _carried(ends @ probes.T, rng),
        states, subject.label, vectors.chosen_layer, vectors.metric,
    )  # fmt: skip


def _turns(subject: Subject, dialogues: Sequence[dict], layer: int) -> tuple[np.ndarray, np.ndarray]:
    """[dialogue, side, d_model] mean over each side's tokens; [reply, (user's last token, start of reply), d_model]."""
    means, ends = [], []
    for dialogue in dialogues:
        messages = [{"role": turn["role"], "content": turn["text"]} for turn in dialogue["turns"]]
        text = subject.chat(messages, add_generation_prompt=False)
        hidden, spans, place, own = read(subject, text, [layer])[0], subject.spans(text), 0, []
        for message in messages:
            start = text.find(message["content"], place)
            place = start + len(message["content"])
            own.append([i for i, (a, b) in enumerate(spans) if a < place and b > start and i])
        tokens = [
            [i for turn, m in zip(own, messages, strict=True) if m["role"] == side for i in turn] for side in SIDES
        ]
        means.append([hidden[inside].mean(0) for inside in tokens])
        ends += [
            (hidden[before[-1]], hidden[after[0] - 1])
            for before, after, m in zip(own, own[1:], messages, strict=False)
            if m["role"] == SIDES[0]
        ]
    return np.array(means, dtype=np.float64), np.array(ends, dtype=np.float64)


# --- whose state is read -----------------------------------------------------------------------------------------


def places_of(scores: np.ndarray, sought: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """[text] place of the sought state in scores [text, state], the one left out not counted: 1 most, 0 least.

    >>> places_of(np.array([[3.0, 2.0, 1.0, 0.0]]), np.array([1]), np.array([0])).tolist()
    [1.0]
    """
    rows = np.arange(len(scores))
    below = scores < scores[rows, sought][:, None]
    below[rows, left_out] = False
    return below.sum(1) / (scores.shape[1] - 2)


def _reading(turns, labels, probes, null_probes, rng) -> tuple[pd.DataFrame, dict]:
    differ = labels[:, 0] != labels[:, 1]
    turns, labels = turns[differ] - turns[differ].mean(0), labels[differ]
    found = _own_and_other(turns @ probes.T, labels)  # [side, which, dialogue]
    nulls = [_own_and_other(turns @ probes.T, rng.permutation(labels)).mean(-1) for _ in range(NULL_DRAWS)]
    nulls = np.array([nulls, [_own_and_other(turns @ p.T, labels).mean(-1) for p in null_probes]])
    n = labels.shape[0]
    draws = rng.integers(n, size=(DRAWS, n))
    places = {
        (side, which): _statistic(found[s, w], draws, nulls[:, :, s, w], 0.5)
        for s, side in enumerate(SIDES)
        for w, which in enumerate(("own", "other"))
    }
    own, both = found[:, 0].mean(0), found.mean(0)  # [dialogue], [which, dialogue]
    statistics = {
        "own": _statistic(own, draws, nulls[:, :, :, 0].mean(-1), 0.5),
        "own - other": _statistic(both[0] - both[1], draws, (nulls[..., 0] - nulls[..., 1]).mean(-1), 0.0),
    }
    return pd.DataFrame.from_dict(places, orient="index").rename_axis(["side", "state"]), statistics


def _own_and_other(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[side, (own, other), dialogue] places by scores [dialogue, side, state]."""
    return np.array(
        [[places_of(scores[:, s], labels[:, who], labels[:, 1 - who]) for who in (s, 1 - s)] for s in range(len(SIDES))]
    )


def _statistic(values: np.ndarray, draws: np.ndarray, nulls: np.ndarray, chance: float) -> dict[str, float]:
    """Mean of [unit] values; nulls [kind, draw], of which the higher 95th percentile counts."""
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    null = np.quantile(np.atleast_2d(nulls), 0.95, axis=-1).max()
    return {"value": values.mean(), "low": low, "high": high, "chance": chance, "null": float(null), "n": len(values)}


def _null_probes(vectors: EmotionVectors, n: int, rng: np.random.Generator) -> np.ndarray:
    """[draw, n, d_model] sets of random directions that vary as stories do."""
    drawn = paired.random_probes(vectors, rng)
    return np.stack([drawn[rng.choice(len(drawn), n, replace=False)] for _ in range(NULL_DRAWS)])


# --- present and other speaker -----------------------------------------------------------------------------------


def _whitened(vectors: EmotionVectors, turns: np.ndarray, stories: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns and story vectors in coordinates whose cosines are those of the metric in use."""
    if vectors.metric == "vector":
        return turns, stories
    root = cholesky(fit(vectors.evidence.train).metric, lower=True)
    flat = turns.reshape(-1, turns.shape[-1])
    return solve_triangular(root, flat.T, lower=True).T.reshape(turns.shape), solve_triangular(
        root, stories.T, lower=True
    ).T


def kinds_of_vectors(turns: np.ndarray, labels: np.ndarray, states: int) -> np.ndarray:
    """[kind, state, d_model] vectors of the four KINDS, by least squares.

    turns : [dialogue, side, d_model]; labels : [dialogue, side] states of the two sides. Both sides' states are fitted
        at once, so that the one does not stand for the other where they tend to go together.
    """
    rows = np.arange(len(labels))
    design = np.zeros((len(labels), 2 * states))  # [dialogue, (side, state)]
    design[rows, labels[:, 0]] = 1
    design[rows, states + labels[:, 1]] = 1
    effects = np.einsum("ed,dsm->esm", np.linalg.pinv(design), turns).reshape(2, states, 2, -1)
    effects = effects - effects.mean(1, keepdims=True)  # [state's side, state, tokens' side, d_model]
    return np.stack([effects[s if which == "own" else 1 - s, :, s] for which in ("own", "other") for s in (0, 1)])


def _geometry(turns, labels, stories, rng) -> tuple[pd.DataFrame, dict]:
    states = len(stories)
    found = _cosines(turns, labels, stories, [_halves(labels, states, rng) for _ in range(SPLITS)])
    nulls = []
    for _ in range(NULL_DRAWS):
        shuffled = rng.permutation(labels)
        nulls.append(_summary(_cosines(turns, shuffled, stories, [_halves(shuffled, states, rng)])).mean(-1))
    names = [f"{tokens} tokens, {'own' if which == 'own' else 'other'} state" for tokens, which in KINDS]
    index = pd.Index([*names, "stories"], name="vectors")
    nulls, draws = np.array(nulls), rng.integers(states, size=(DRAWS, states))
    statistics = {
        name: _statistic(values, draws, nulls[:, k], 0.0)
        for k, (name, values) in enumerate(zip(("present", "other", "stories"), _summary(found), strict=True))
    }
    return pd.DataFrame(found.mean(-1), index=index, columns=index), statistics


def _halves(labels: np.ndarray, states: int, rng: np.random.Generator) -> np.ndarray:
    """[dialogue] True in one random half; both halves hold every state on both sides, if that can be had."""
    for _ in range(1000):
        half = rng.permutation(len(labels)) % 2 == 0
        if all(len(set(labels[side, k])) == states for side in (half, ~half) for k in (0, 1)):
            break
    return half


def _cosines(turns, labels, stories, halves: Sequence[np.ndarray]) -> np.ndarray:
    """[kind or stories, kind or stories, state] cosines of vectors from different halves, mean over both ways."""
    total = 0
    for half in halves:
        sides = [
            unit(
                np.concatenate([kinds_of_vectors(turns[h], labels[h], len(stories)), (stories - stories.mean(0))[None]])
            )
            for h in (half, ~half)
        ]  # [kind or stories, state, d_model] each
        one_way = np.einsum("ksd,lsd->kls", *sides)
        total = total + (one_way + one_way.transpose(1, 0, 2)) / 2
    return total / len(halves)


def _summary(cosines: np.ndarray) -> np.ndarray:
    """[(present, other, stories), state]: user's with assistant's own-state vectors; the same of other-state vectors,
    beyond what they share with own-state vectors; stories with own-state minus stories with other-state vectors."""
    own, other = (0, 1), (2, 3)
    across = np.mean([cosines[i, j] for i in own for j in other], axis=0)
    to_stories = [np.mean([cosines[i, 4] for i in kind], axis=0) for kind in (own, other)]
    return np.array([cosines[0, 1], cosines[2, 3] - across, to_stories[0] - to_stories[1]])


# --- from the user's last token to the reply ---------------------------------------------------------------------


def _carried(scores: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """r of scores [reply, (before, after), state], each state centred; two replies of a dialogue stay together."""

    def r(x: np.ndarray, y: np.ndarray) -> float:
        return np.corrcoef((x - x.mean((0, 1))).ravel(), (y - y.mean((0, 1))).ravel())[0, 1]

    by_dialogue = scores.reshape(-1, 2, *scores.shape[1:])  # [dialogue, reply, (before, after), state]
    before, after = by_dialogue[:, :, 0], by_dialogue[:, :, 1]
    n = len(by_dialogue)
    drawn = [r(before[i], after[i]) for i in rng.integers(n, size=(NULL_DRAWS, n))]
    low, high = np.quantile(drawn, [0.025, 0.975])
    null = np.quantile([r(before, rng.permutation(after)) for _ in range(NULL_DRAWS)], 0.95)
    return {"value": r(before, after), "low": low, "high": high, "null": float(null)}


# --- words and figure --------------------------------------------------------------------------------------------

_BOTH = "the higher of permuted states and random directions"
_ABOUT = {
    "own": (
        "A speaker's own state is read on his tokens", "reading",
        "mean place of the own state among the states (1 most, 0 least)", "dialogues", _BOTH, "no such figure",
    ),
    "own - other": (
        "On a speaker's tokens his own state is read before the other speaker's", "reading",
        "place of the own minus that of the other's state", "dialogues", _BOTH, "readings follow the present text",
    ),
    "present": (
        "Present-speaker vectors are the same for user and assistant", "geometry",
        "mean cosine of the two, from different dialogues", "states", "permuted states", "cosines of about 0.9 to 1.0",
    ),
    "other": (
        "Other-speaker vectors are a kind of their own, the same for user and assistant", "geometry",
        "mean cosine of the two, from different dialogues, minus that with present-speaker vectors", "states",
        "permuted states", "about 0.9 within a kind, 0.2 between",
    ),
    "stories": (
        "Vectors from stories are present-speaker vectors rather than other-speaker ones", "geometry",
        "cosine with the one minus cosine with the other", "states", "permuted states", "0.52 and 0.20",
    ),
}  # fmt: skip


def _figure(result: Speakers):
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.6), layout="constrained")
    colours = {"own": "#0072b2", "other": "#d55e00"}
    for y, (side, which) in enumerate(result.places.index):
        row = result.places.loc[(side, which)]
        left.barh(y, row.value, 0.6, color=colours[which])
        left.errorbar(row.value, y, xerr=[[row.value - row.low], [row.high - row.value]], color="black", capsize=4)
        left.plot([row.null] * 2, [y - 0.4, y + 0.4], "k:", label="" if y else "95 % of nulls")
    left.axvline(0.5, color="#999999", lw=0.8)
    left.set_yticks(range(len(result.places)), [f"{side}'s tokens, {w} state" for side, w in result.places.index])
    left.invert_yaxis()
    left.set(xlim=(0, 1), xlabel="place among the states (1 most, 0 least)", title="Whose state is read")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    values = result.cosines.to_numpy()
    image = right.imshow(values, cmap="PuOr_r", vmin=-1, vmax=1)
    for i, j in np.ndindex(values.shape):
        right.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=9)
    short = [name.replace(" tokens, ", ":\n") for name in result.cosines.index]
    right.set_xticks(range(len(short)), short, fontsize=8)
    right.set_yticks(range(len(short)), short, fontsize=8)
    right.set(title="Vectors from different dialogues")
    figure.colorbar(image, ax=right, label="cosine, mean over states", shrink=0.8)
    plt.close(figure)
    return figure
