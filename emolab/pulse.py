"""A push from outside: add an emotion to five tokens of a neutral text and watch how long the model keeps it.

In the other designs of `persistence.py` the text brings the emotion, and takes it away. Here nothing in the text
changes: what is left after the push is what the model itself carries on, through the keys and values of the pushed
tokens that later tokens attend to.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from emolab import data
from emolab.activations import capture, check_layers, forward
from emolab.decay import AFTER, curve_row, event_locked, in_tokens, number, share_row
from emolab.directions import METRICS, unit
from emolab.errors import EmolabError, unknown
from emolab.model import Subject
from emolab.steering import steer
from emolab.tracks import EMOTION, NULLS, upright
from emolab.vectors import EmotionVectors

EARLIER, LONG = 40, 5  # tokens before the pulse, and of the pulse


@dataclass(frozen=True)
class Pulse:
    """Change of an emotion's score against the same text without the push, in sd of neutral tokens.

    effects : a row for each reading layer, emotion, kind of push and text: `level`, the mean change during the pulse
        (for random pushes turned so that it is positive)
    afters : [row of effects, token] the change at each token after the pulse
    """

    effects: pd.DataFrame
    afters: np.ndarray
    layer: int
    strength: float
    model: str

    def table(self, emotion: str | None = None) -> pd.DataFrame:
        """A row for each reading layer and kind of push, of one emotion or all: mean change during the pulse [sd], its
        half-life [tokens] with a 95 % interval (of the mean over texts and emotions), share left at tokens 1, 5, 20
        and from token 21 on.

        The bootstrap draws rows of `effects` as if they were independent; those of one text or one random push are
        not quite, so take the intervals as a lower bound."""
        rows = {}
        for (layer, kind), found in self.of(emotion).groupby(["layer", "kind"], sort=False):
            after, levels = self.afters[found.index], found.level.to_numpy()
            row = {"level": levels.mean()} | curve_row(after, levels)
            places = {"left_1": slice(0, 1), "left_5": slice(2, 7), "left_20": slice(17, 22), "rest": slice(20, AFTER)}
            for name, place in places.items():
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), share_row(after, levels, place), strict=True))
            rows[layer, kind] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["layer", "push"])

    def of(self, emotion: str | None = None) -> pd.DataFrame:
        """The rows of `effects` of one emotion, or all. Raises EmolabError for one that was not asked for."""
        known = list(self.effects.emotion.unique())
        if emotion is not None and emotion not in known:
            raise unknown("emotion", emotion, known)
        return self.effects if emotion is None else self.effects[self.effects.emotion == emotion]

    def figure(self, emotion: str | None = None):
        """The change over the tokens after the pulse, by reading layer, beside random pushes; one emotion or all."""
        from emolab.brevity_plots import pulse_figure

        return pulse_figure(self, emotion)

    def verdict(self, emotion: str | None = None) -> str:
        """The answer in plain words, for one emotion or for all, at the deepest layer read."""
        table = self.table(emotion)
        deepest = table.index.get_level_values("layer").max()
        own, null = table.loc[deepest, EMOTION], table.loc[deepest].loc[list(NULLS[:2])]
        return (
            f"In {self.model} a push of {LONG} tokens at layer {self.layer} ({self.strength:g} of the residual norm) "
            f"raises the score of {emotion or 'the emotion'} at layer {deepest} by {own.level:.1f} sd while it lasts "
            f"(random pushes: {' and '.join(f'{level:.1f}' for level in null.level)}). The change falls to half within "
            f"{in_tokens(own.of_mean)} (95 % {number(own.of_mean_low)} to {number(own.of_mean_high)}); "
            f"{own.left_5:.0%} of it is left around token 5 and {own.rest:.1%} (95 % {own.rest_low:.1%} to "
            f"{own.rest_high:.1%}) from token 21 to {AFTER}; after random pushes "
            f"{' and '.join(f'{rest:.1%}' for rest in null.rest)}."
        )


def pulse(
    subject: Subject,
    vectors: EmotionVectors,
    emotions: Sequence[str],
    *,
    strength: float = 0.5,
    layer: int | None = None,
    layers: Sequence[int] | None = None,
    texts: int = 6,
    seeds: int = 5,
) -> Pulse:
    """Push LONG tokens of neutral texts along an emotion's vector at one layer, and read its probe ever after.

    Parameters
    ----------
    strength : in units of the mean residual norm at that layer (see `steer`).
    layer : where to push; default the middle of the model.
    layers : where to read; default that layer and every third one from there on, deeper layers see more of it.
    texts : how many of the neutral texts.
    seeds : random pushes of the same length, of each kind: uniform, and varying as neutral tokens do at that layer.

    A text is read in one pass, which equals processing it token by token with the cache kept: no token sees a later
    one. At the layer of the push itself nothing can be left on later tokens, for they only meet it deeper.

    Raises EmolabError for vectors of another model, unknown emotions or layers, or if no neutral text is long enough.
    """
    vectors.check(subject)
    layer = max(subject.n_layers // 2, 1) if layer is None else layer
    layers = tuple(range(layer, subject.n_layers + 1, 3)) if layers is None else check_layers(subject, layers)
    length = EARLIER + LONG + AFTER
    ids = [tokens[:length] for tokens in map(subject.encode, data.neutral()[: 8 * texts]) if len(tokens) >= length]
    if not ids:
        raise EmolabError(f"no neutral text has {length} tokens with this tokenizer: a pulse can't be followed")
    ids = torch.tensor(ids[:texts])  # [text, token]

    rows = [vectors.row(n) for n in layers]
    chosen = [vectors.index(name) for name in emotions]
    sd = vectors.neutral_sd[METRICS.index(vectors.metric)][np.ix_(chosen, rows)].T  # [layer, emotion]
    probes = np.stack([vectors.directions(n)[chosen] for n in layers]) / sd[..., None]

    def scores(direction: str | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """([layer, text, token, emotion] scores, hidden [text, token, d_model] at `layer`) with this push or none."""
        taken: dict[int, np.ndarray] = {}
        place = slice(EARLIER, EARLIER + LONG)
        push = nullcontext()
        if direction is not None:
            along = {direction: strength} if isinstance(direction, str) else strength * unit(direction)
            push = steer(subject, vectors, along, layers=layer, positions=place)
        reading = capture(subject, {layer, *layers}, lambda n, hidden: taken.update({n: hidden.float().cpu().numpy()}))
        with push, reading:  # the push first: then what is captured includes it
            forward(subject, ids, torch.ones_like(ids))
        return np.stack([taken[n] @ probes[i].T for i, n in enumerate(layers)]), taken[layer]

    plain, hidden = scores(None)
    rng = np.random.default_rng(0)
    neutral = hidden[:, 1:].reshape(-1, subject.d_model)
    neutral = neutral - neutral.mean(0)
    pushes = [(EMOTION, name) for name in emotions]
    pushes += [(NULLS[0], rng.standard_normal(subject.d_model)) for _ in range(seeds)]
    pushes += [(NULLS[1], rng.standard_normal(len(neutral)) @ neutral) for _ in range(seeds)]
    effects, afters = [], []
    for kind, direction in pushes:
        change = (scores(direction)[0] - plain).transpose(0, 3, 1, 2)  # [layer, emotion, text, token]
        for deep, by_emotion in zip(layers, change, strict=True):
            for name, by_text in zip(emotions, by_emotion, strict=True):
                if kind == EMOTION and name != direction:
                    continue
                for track in by_text:  # [token]
                    level = track[EARLIER : EARLIER + LONG].mean()
                    turn = upright([kind], np.array([level]))[0]
                    effects.append({"layer": deep, "emotion": name, "kind": kind, "level": level * turn})
                    afters.append(event_locked(track * turn, EARLIER + LONG, 0, AFTER))
    return Pulse(pd.DataFrame(effects), np.stack(afters), layer, strength, subject.name)
