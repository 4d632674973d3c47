"""The logit lens: which words a vector would make the model say, were it all that is left at the end.

A vector goes through the model's own last steps, final norm and unembedding, and the tokens are ranked. Vectors, not
probes: a probe is made for reading and points where the activations vary little. Nothing runs but those last steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from emolab.claims import Claim
from emolab.directions import unit
from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.nulls import KINDS, random_directions
from emolab.unembed import Unembed, beginnings, shown, unembedding
from emolab.vectors import EmotionVectors

AMONG = 20  # an emotion counts as named if a word of it is among so many top tokens
NEIGHBOURS = 5  # whose words count as of the family
SEEDS = 10  # of each null of random directions
DRAWS = 1000  # of the bootstrap over emotions, and of shuffled labels
RATES = ("own word", "family")
SHUFFLED = "shuffled labels"


@dataclass(frozen=True)
class Lens:
    """What the vectors would say, and how often that is the emotion's own name.

    words : [(layer, emotion)] at the layer in use and at the deepest: its `top` and `bottom` tokens, tuples of k texts,
        a leading blank shown as ·; `own rank`, the place of its own word among all tokens; `own word` and `family`,
        whether a token of its own word, or of that or one of its five nearest emotions, is among the top 20
    rates : [(layer, rate)] at the layer in use and at the deepest, `share` of the emotions with its 95 % interval
        (bootstrap over emotions) and what 95 % of each null stay below; `chance` is the mean of shuffled labels
    profile : [layer] both rates, and what 95 % of shuffled labels stay below
    layer, deepest : the layer in use, and the last that the vectors hold
    n_emotions : over which rates are taken, and logits centred
    """

    words: pd.DataFrame
    rates: pd.DataFrame
    profile: pd.DataFrame
    layer: int
    deepest: int
    n_emotions: int
    model: str

    def table(self, layer: int | None = None) -> pd.DataFrame:
        """The top and bottom tokens of each emotion as text, at the layer in use or at the deepest.

        Raises EmolabError for any other layer.
        """
        layer = self.layer if layer is None else layer
        if layer not in (self.layer, self.deepest):
            raise EmolabError(
                f"words are kept for layers {self.layer} and {self.deepest}: give layer={layer} to the lens"
            )
        words = self.words.loc[layer]
        joined = {side: words[side].map("  ".join) for side in ("top", "bottom")}
        return pd.DataFrame(joined).join(words[["own rank", *RATES]])

    def figure(self):
        """Both rates by layer, and beside their nulls."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words."""
        said = [
            f"{self.n_emotions} vectors of {self.model} through its final norm and unembedding, top {AMONG} tokens."
        ]
        for layer in dict.fromkeys((self.layer, self.deepest)):
            own, family = (self.rates.loc[(layer, rate)] for rate in RATES)
            random = max(own[kind] for kind in KINDS[:2])
            said.append(
                f"Layer {layer}{'' if layer == self.layer else ', the deepest'}: the emotion's own word for "
                f"{own.share:.0%} of the emotions (95 % {own.low:.0%}-{own.high:.0%}; random directions up to "
                f"{random:.0%}, shuffled labels up to {own[SHUFFLED]:.0%}), its own or a near emotion's for "
                f"{family.share:.0%} (shuffled labels up to {family[SHUFFLED]:.0%})."
            )
        return " ".join(said)

    def claims(self) -> tuple[Claim, ...]:
        """That the vectors name their emotion, at the layer in use and at the deepest (paper Table 1)."""
        return tuple(self._claim(layer) for layer in dict.fromkeys((self.layer, self.deepest)))

    def _claim(self, layer: int) -> Claim:
        row = self.rates.loc[(layer, RATES[0])]
        nulls = row[[*KINDS[:2], SHUFFLED]].astype(float)
        return Claim(
            claim="Through the unembedding, an emotion vector names words of its own emotion"
            + ("" if layer == self.layer else " (at the deepest layer)"),
            part="reading",
            source="Sofroniew et al. 2026, section 1.4, Table 1",
            statistic=f"share of emotions whose own word is among the top {AMONG} tokens, layer {layer}",
            value=row.share,
            low=row.low,
            high=row.high,
            chance=row.chance,
            null=nulls.max(),
            null_name=str(nulls.idxmax()),
            n=self.n_emotions,
            of="emotions",
            paper="the own word, whole or in part, among the top five for 8 of 12 emotions",
        )


def logit_lens(
    subject: Subject,
    vectors: EmotionVectors,
    emotions: Sequence[str] | str | None = None,
    layer: int | None = None,
    k: int = 10,
    seed: int = 0,
) -> Lens:
    """The words of emotion vectors, by the model's final norm and unembedding (paper section 1.4, Table 1).

    Each vector is given the mean length of the residual stream. Of each token's logits the mean over all emotions of
    `vectors` is taken off: what any emotion would say tells nothing about one. Special tokens are left out.

    Parameters
    ----------
    emotions : whose tokens to show, default all; the rates are always over all emotions of `vectors`.
    layer : default the one that the vectors are read at; the deepest stands beside it, where the lens is exact.
    k : how many tokens to show at either end.

    Raises EmolabError for vectors of another model, fewer than three emotions, an unknown emotion or layer.
    """
    vectors.check(subject)
    if len(vectors) < 3:
        raise EmolabError(
            f"logits are centred over emotions, and these vectors hold {len(vectors)}: give whole vectors, and name "
            "the emotions to show, as in logit_lens(subject, vectors, ['calm'])"
        )
    chosen = [emotions] if isinstance(emotions, str) else list(vectors.emotions if emotions is None else emotions)
    kept = [vectors.index(name) for name in chosen]
    layer = vectors.layers[vectors.row(layer)]
    unembed, rng = unembedding(subject), np.random.default_rng(seed)
    own = [beginnings(subject, name) for name in vectors.emotions]
    words, profile, rates = {}, [], {}
    for here in vectors.layers:
        logits = _centred(subject, unembed, vectors.vectors[:, vectors.row(here)])
        accepted = {RATES[0]: own, RATES[1]: _families(vectors, own, here)}
        top = _ends(logits, AMONG)
        hits = {rate: _hit_matrix(top, sets) for rate, sets in accepted.items()}
        shuffled = {rate: _shuffled(matrix, np.random.default_rng(seed)) for rate, matrix in hits.items()}
        profile.append(_profile_row(here, hits, shuffled))
        if here in (layer, vectors.layers[-1]):
            words[here] = _words(subject, logits, own, hits, k).iloc[kept].set_axis(chosen)
            random = _random_rates(subject, unembed, vectors, here, accepted, seed)
            for rate, matrix in hits.items():
                rates[here, rate] = _rate(matrix.diagonal(), shuffled[rate], random[rate], rng)
    return Lens(
        words=pd.concat(words, names=["layer", "emotion"]),
        rates=pd.DataFrame(rates).T.rename_axis(["layer", "rate"]),
        profile=pd.DataFrame(profile).set_index("layer"),
        layer=layer,
        deepest=vectors.layers[-1],
        n_emotions=len(vectors),
        model=subject.name,
    )


# --- words -------------------------------------------------------------------------------------------------------


def _families(vectors: EmotionVectors, own: list[set[int]], layer: int) -> list[set[int]]:
    """[emotion] the tokens of each emotion and of those whose vectors are nearest to its own."""
    cosines = vectors.cosines(layer, "vector").to_numpy()
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : NEIGHBOURS + 1]
    return [own[row].union(*(own[i] for i in near)) for row, near in enumerate(order)]


def _centred(subject: Subject, unembed: Unembed, directions: np.ndarray) -> torch.Tensor:
    """[emotion, token] logits of directions [emotion, d_model], less their mean over emotions."""
    length = np.sqrt(subject.d_model)  # any length: a norm follows, whose epsilon should not count
    states = torch.from_numpy(unit(directions) * length).to(subject.device, subject.dtype)
    logits = unembed(states).float()
    logits = logits - logits.mean(0)
    return logits[:, : len(subject.tokenizer)]


def _ends(logits: torch.Tensor, k: int, largest: bool = True) -> np.ndarray:
    """[emotion, k] the tokens at one end."""
    return logits.topk(min(k, logits.shape[1]), largest=largest).indices.cpu().numpy()


def _words(subject, logits: torch.Tensor, own: list[set[int]], hits: dict[str, np.ndarray], k: int) -> pd.DataFrame:
    special = set(subject.tokenizer.all_special_ids)
    sides = {}
    for side, largest in (("top", True), ("bottom", False)):
        ends = _ends(logits, k + len(special), largest)
        sides[side] = [tuple(shown(subject, i) for i in row if i not in special)[:k] for row in ends.tolist()]
    best = [max((float(row[i]) for i in ids), default=np.nan) for row, ids in zip(logits, own, strict=True)]
    rank = [int((row > b).sum()) + 1 if b == b else np.nan for row, b in zip(logits, best, strict=True)]
    return pd.DataFrame(sides | {"own rank": rank} | {rate: matrix.diagonal() for rate, matrix in hits.items()})


# --- rates -------------------------------------------------------------------------------------------------------


def _hit_matrix(top: np.ndarray, accepted: list[set[int]]) -> np.ndarray:
    """[direction, emotion] whether a token of the emotion is among the direction's top tokens [direction, token]."""
    columns: dict[int, list[int]] = {}
    for column, tokens in enumerate(accepted):
        for token in tokens:
            columns.setdefault(token, []).append(column)
    found = np.zeros((len(top), len(accepted)), bool)
    for row, tokens in enumerate(top):
        found[row, [column for token in tokens for column in columns.get(int(token), ())]] = True
    return found


def _shuffled(hits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[draw] the rate when each direction carries the name of another emotion."""
    names = rng.permuted(np.tile(np.arange(len(hits)), (DRAWS, 1)), axis=1)  # [draw, direction]
    return hits[np.arange(len(hits)), names].mean(1)


def _profile_row(layer: int, hits: dict[str, np.ndarray], shuffled: dict[str, np.ndarray]) -> dict:
    rates = {rate: matrix.diagonal().mean() for rate, matrix in hits.items()}
    return {"layer": layer} | rates | {f"{rate}, {SHUFFLED}": np.quantile(shuffled[rate], 0.95) for rate in hits}


def _random_rates(subject, unembed, vectors, layer, accepted, seed) -> dict[str, dict[str, float]]:
    """{rate: {kind of random direction: what 95 % of SEEDS sets stay below}}, a set as large as the emotions."""
    found: dict[str, dict[str, float]] = {rate: {} for rate in accepted}
    for kind in KINDS[:2]:
        drawn = random_directions(subject, vectors, layer, SEEDS * len(vectors), kind, seed)
        tops = [_ends(_centred(subject, unembed, part), AMONG) for part in np.split(drawn, SEEDS)]
        for rate, sets in accepted.items():
            found[rate][kind] = float(np.quantile([_hit_matrix(top, sets).diagonal().mean() for top in tops], 0.95))
    return found


def _rate(hits: np.ndarray, shuffled: np.ndarray, random: dict[str, float], rng: np.random.Generator) -> dict:
    drawn = hits[rng.integers(len(hits), size=(DRAWS, len(hits)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    row = {"share": hits.mean(), "low": low, "high": high, "chance": shuffled.mean()}
    return row | random | {SHUFFLED: np.quantile(shuffled, 0.95)}


def _figure(lens: Lens):
    import matplotlib.pyplot as plt

    colours, profile = {"own word": "#0072b2", "family": "#d55e00"}, lens.profile
    labels = {"own word": "its own word", "family": f"its own or one of {NEIGHBOURS} near emotions' words"}
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.4), layout="constrained")
    for rate, mark in zip(RATES, "os", strict=True):
        left.plot(profile.index, profile[rate], f"{mark}-", ms=4, color=colours[rate], label=labels[rate])
        left.plot(profile.index, profile[f"{rate}, {SHUFFLED}"], ":", color=colours[rate])
    left.plot([], [], "k:", label="95 % of shuffled labels stay below")
    left.axvline(lens.layer, color="#cccccc", lw=6, zorder=0, label="layer in use")
    left.set(xlabel="layer", ylabel="share of emotions", ylim=(-0.02, 1), title=f"Named among the top {AMONG} tokens")
    left.legend(frameon=False)
    ticks = []
    for x, ((layer, rate), row) in enumerate(lens.rates.iterrows()):
        right.bar(x, row.share, 0.6, color=colours[rate])
        right.errorbar(x, row.share, [[row.share - row.low], [row.high - row.share]], color="black", capsize=4)
        for kind, style in zip((*KINDS[:2], SHUFFLED), ("-", "--", ":"), strict=True):
            label = "" if x else f"95 % of {kind if kind == SHUFFLED else f'random directions ({kind})'}"
            right.plot([x - 0.38, x + 0.38], [row[kind]] * 2, style, color="black", label=label)
        ticks.append(f"{rate},\nlayer {layer}")
    right.set_xticks(range(len(ticks)), ticks)
    right.set(ylabel="share of emotions", ylim=(-0.02, 1), title="Beside directions that mean nothing, 95 % intervals")
    right.legend(frameon=False, loc="upper left")
    plt.close(figure)
    return figure
