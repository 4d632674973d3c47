"""How strong a push must be to colour what a model writes, and how strong it may be before the text breaks.

Steered texts are read again by the model without any push (paper sections 1.8 and 10.3: what a push does to text is
known by samples and by judges; here no judge is needed). Emotions' vectors stand beside random directions of the same
length, which change a text too.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab.claims import Claim
from emolab.errors import EmolabError, unknown
from emolab.model import Subject
from emolab.nulls import random_directions
from emolab.steering import steer, steered_layers
from emolab.vectors import EmotionVectors
from emolab.writing import TEMPERATURE, TOP_K, direction, first_tokens, repeated, reread

EMOTIONS = ("happy", "calm", "proud", "loving", "sad", "angry", "afraid", "guilty")
STRENGTHS = (0.1, 0.2, 0.35, 0.5, 0.8)
OPENINGS = (
    "On Tuesday the post came late, and when I opened the letter I",
    "She parked the car beside the station, looked at the people there and",
    "Notes for today. After lunch I went down to the river, and",
)
CUE = " ...\n\nThe writer of these lines felt very"
TOKENS = 24
PLAIN = 6  # unsteered texts for each opening
MOST_LOSS, MOST_REPEATS = 1.0, 0.1  # nats a token, share of 3-grams: beyond the unsteered texts
DRAWS = 2000
CLAIMED = {
    "shift": "Text written under a push reads as the pushed emotion",
    "word": "After text written under a push the emotion's own word is expected",
}
MEASURES = {"shift": "probe score (sd of neutral tokens)", "word": "log-odds of the emotion's word (nats)"}


@dataclass(frozen=True)
class Effect:
    """What was written at each strength, and what the model makes of it when it reads it without a push.

    texts : a row for each text: `kind` ('unsteered', 'emotion', 'random'), `push` (which emotion or direction),
        `strength`, `prompt`, `text`, `loss` (mean -log p of its tokens, nats), `repeats` (share of repeated 3-grams)
    scores : [text, emotion] mean probe score over the text's own tokens, in sd of neutral tokens
    words : [text, emotion] log-probability of the emotion's own word after a cue, above the mean of the others' words
    """

    texts: pd.DataFrame
    scores: np.ndarray
    words: np.ndarray
    emotions: tuple[str, ...]
    model: str
    layers: tuple[int, ...]
    seed: int

    def table(self) -> pd.DataFrame:
        """A row for each strength, all against unsteered texts.

        shift, word : mean over emotions of the change in the pushed emotion's own score and own word, `_low` and
            `_high` (95 %, bootstrap over emotions), `_null` what 95 % of random directions stay below when they are
            taken for the emotions
        loss, repeats : change in mean loss [nats] and in the share of repeated 3-grams; `random_` the same for random
            directions; `perplexity` of the steered texts
        named : share of texts that hold the emotion's own word
        beyond, intact, proposed : what the rule in `strength_finder` says
        """
        return pd.DataFrame({s: self._row(s) for s in self.strengths}).T.rename_axis("strength").infer_objects()

    @property
    def strengths(self) -> tuple[float, ...]:
        """Those that were tried, rising."""
        return tuple(sorted(self.texts.strength[self.texts.kind == "emotion"].unique()))

    @property
    def proposed(self) -> tuple[float, ...]:
        """The strengths that the rule proposes, from the weakest to the strongest; there may be none."""
        return tuple(self.table().query("proposed").index)

    @property
    def strength(self) -> float | None:
        """The strongest of those proposed, to begin with."""
        return max(self.proposed, default=None)

    def by_emotion(self) -> pd.DataFrame:
        """[(emotion, strength)] the same measures for each emotion, without intervals: a few texts each."""
        rows = {(e, s): self._measures("emotion", s, e) for e in self.emotions for s in self.strengths}
        return pd.DataFrame(rows).T.rename_axis(["emotion", "strength"])

    def samples(self, strength: float | None = None, emotion: str | None = None) -> pd.DataFrame:
        """The raw texts at a strength (default the one proposed, else the weakest; 0 for unsteered ones).

        Raises EmolabError for a strength or an emotion that was not tried.
        """
        strength = (self.strength or self.strengths[0]) if strength is None else strength
        if strength not in (0, *self.strengths):
            raise EmolabError(f"strength {strength} was not tried: choose 0 or one of {list(self.strengths)}")
        if emotion is not None and emotion not in self.emotions:
            raise unknown("emotion", emotion, self.emotions)
        chosen = self.texts[(self.texts.strength == strength) & (self.texts.kind != "random")]
        chosen = chosen if emotion is None or not strength else chosen[chosen.push == emotion]
        return chosen[["push", "prompt", "text"]].reset_index(drop=True)

    def figure(self):
        """Effect and damage against strength, beside random directions."""
        return _figure(self)

    def verdict(self) -> str:
        """The proposal in words, with its numbers."""
        table, where = self.table(), f"{self.model}, pushed after block {', '.join(map(str, self.layers))}"
        rule = (
            f"effect beyond random directions, at most {MOST_LOSS:g} nat of extra loss a token and {MOST_REPEATS:.0%} "
            "more repetition"
        )
        if not self.proposed:
            beyond, intact = (list(table.index[table[name]]) for name in ("beyond", "intact"))
            return (
                f"In {where}, no strength passes ({rule}). Beyond random directions: {beyond or 'none'}; text intact: "
                f"{intact or 'none'}."
            )
        row, span = table.loc[self.strength], f"{self.proposed[0]:g} to {self.proposed[-1]:g}"
        span = f"{self.strength:g}" if len(self.proposed) == 1 else span
        return (
            f"In {where}, the rule ({rule}) proposes {'strengths of ' if ' ' in span else 'a strength of '}{span}. At "
            f"{self.strength:g} the text scores {row['shift']:+.2f} sd on the pushed emotion's probe against unsteered "
            f"text (95 % {row.shift_low:+.2f} to {row.shift_high:+.2f}; 95 % of random directions stay below "
            f"{row.shift_null:+.2f}). The log-odds of its word change by {row.word:+.2f} nats (95 % "
            f"{row.word_low:+.2f} to {row.word_high:+.2f}; random below {row.word_null:+.2f}). Damage: "
            f"{row.loss:+.2f} nats of loss a token (random directions {row.random_loss:+.2f}), "
            f"{round(100 * row.repeats):+d} percentage points of repetition. {row.named:.0%} of the texts name "
            "the emotion."
        )

    def claims(self) -> tuple[Claim, ...]:
        """Both measures at the strongest push that leaves the text intact: damage chooses it, effect does not."""
        table = self.table()
        intact = table.index[table.intact]
        shared = {
            "part": "function", "source": "Sofroniew et al. 2026, Fig 52, Tables 6-8", "chance": 0.0,
            "null_name": "random directions of the same length", "n": len(self.emotions), "of": "emotions",
            "paper": "text turns towards the emotion at 0.5; Qwen2.5-0.5B: 6 of 12 texts name it at 0.3-0.8",
        }  # fmt: skip
        if not len(intact):
            return tuple(
                Claim(claim, statistic="no strength left the text intact", **shared) for claim in CLAIMED.values()
            )
        row = table.loc[intact.max()]
        at = f"at strength {intact.max():g}, the strongest that leaves text intact"
        return tuple(
            Claim(claim, statistic=f"{MEASURES[name]}, steered - unsteered, {at}", value=row[name],
                  low=row[f"{name}_low"], high=row[f"{name}_high"], null=row[f"{name}_null"], **shared)
            for name, claim in CLAIMED.items()
        )  # fmt: skip

    def _row(self, strength: float) -> dict:
        rng = np.random.default_rng([self.seed, round(1000 * strength)])
        each = pd.DataFrame([self._measures("emotion", strength, e) for e in self.emotions])
        nulls = self._nulls(strength)
        row = {}
        for name in MEASURES:
            values = each[name].to_numpy()
            drawn = values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(1)
            taken = rng.integers(nulls[name].shape[0], size=(DRAWS, nulls[name].shape[1]))
            null = np.take_along_axis(nulls[name], taken, 0).mean(1)  # a random direction for each emotion
            low, high = np.quantile(drawn, [0.025, 0.975])
            row |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
            row[f"{name}_null"] = np.quantile(null, 0.95)
        random = self._measures("random", strength)
        row |= {"loss": each.loss.mean(), "random_loss": random["loss"]}
        row |= {"repeats": each.repeats.mean(), "random_repeats": random["repeats"]}
        row["perplexity"] = np.exp(self._rows("emotion", strength).loss.mean())
        row["named"] = each.named.mean()
        row["beyond"] = all(row[f"{n}_low"] > 0 and row[n] > row[f"{n}_null"] for n in MEASURES)
        row["intact"] = bool(row["loss"] <= MOST_LOSS and row["repeats"] <= MOST_REPEATS)
        row["proposed"] = row["beyond"] and row["intact"]
        return row

    def _rows(self, kind: str, strength: float, push: str | None = None) -> pd.DataFrame:
        found = self.texts[(self.texts.kind == kind) & (self.texts.strength == strength)]
        return found if push is None else found[found.push == push]

    def _measures(self, kind: str, strength: float, push: str | None = None) -> dict[str, float]:
        """Means over some texts, less those of the unsteered texts."""
        rows, plain = self._rows(kind, strength, push), self._rows("unsteered", 0)
        found = {name: rows[name].mean() - plain[name].mean() for name in ("loss", "repeats")}
        if kind == "emotion":
            column = self.emotions.index(push)
            for name, values in (("shift", self.scores), ("word", self.words)):
                found[name] = np.nanmean(values[rows.index, column]) - np.nanmean(values[plain.index, column])
            found["named"] = rows.text.str.contains(rf"\b{push}\b", case=False).mean()
        return found

    def _nulls(self, strength: float) -> dict[str, np.ndarray]:
        """[direction, emotion] both measures for texts pushed along random directions."""
        plain = self._rows("unsteered", 0).index
        groups = [rows.index for _, rows in self._rows("random", strength).groupby("push")]
        return {
            name: np.stack([np.nanmean(values[rows], 0) - np.nanmean(values[plain], 0) for rows in groups])
            for name, values in (("shift", self.scores), ("word", self.words))
        }


def strength_finder(
    subject: Subject,
    vectors: EmotionVectors,
    *,
    emotions: Sequence[str] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    prompts: Sequence[str] = OPENINGS,
    layers: int | Sequence[int] | None = None,
    directions: int = 5,
    seed: int = 0,
) -> Effect:
    """Write short texts at several strengths, read them again without a push, and propose strengths. No judge.

    The rule, fixed before any model was looked at: a strength is proposed if both effects, the probe's shift and the
    log-odds of the emotion's word, have a 95 % interval above 0 and a mean above 95 % of random directions, while the
    text loses at most MOST_LOSS nat a token under the unsteered model and repeats at most MOST_REPEATS more of its
    3-grams than unsteered texts do. (Text that turns emotional is less expected, so some loss is effect, not damage.)

    Parameters
    ----------
    emotions : at least three; default eight common ones, those of them that the vectors hold.
    strengths, layers : as in `steer`; every token is pushed, those of the prompt too.
    prompts : openings without emotion, each continued by TOKENS tokens.
    directions : random directions of the same length that vary as neutral tokens do (see `random_directions`).

    Raises EmolabError for vectors of another model, fewer than three emotions, words that this model can't tell apart
    by their first token, no prompts or strengths, or a strength that is not above 0.
    """
    vectors.check(subject)
    layers = steered_layers(subject, vectors, layers)
    emotions = _emotions(vectors, emotions)
    if not len(prompts) or not len(strengths) or min(strengths) <= 0 or directions < 1:
        raise EmolabError("give at least one prompt, one strength above 0 and one random direction")
    tokens = first_tokens(subject, CUE, emotions)
    plan = _plan(emotions, strengths, prompts, directions)
    pushes = {layer: _pushes(subject, vectors, plan, emotions, directions, layer, seed) for layer in layers}
    plan["text"] = _written(subject, vectors, list(plan.prompt), pushes, seed)
    return _measured(subject, vectors, plan, emotions, tokens, layers, seed)


def _emotions(vectors: EmotionVectors, emotions: Sequence[str] | None) -> tuple[str, ...]:
    if emotions is None:
        usual = tuple(name for name in EMOTIONS if name in vectors.emotions)
        emotions = usual if len(usual) >= 3 else vectors.emotions[: len(EMOTIONS)]
    for name in emotions:
        vectors.index(name)
    emotions = tuple(dict.fromkeys(emotions))
    if len(emotions) < 3:
        raise EmolabError(f"an emotion's word is held against the others': give at least 3, not {len(emotions)}")
    return emotions


def _plan(emotions: Sequence[str], strengths: Sequence[float], prompts: Sequence[str], directions: int) -> pd.DataFrame:
    """A row for each text that is to be written."""
    rows = [("unsteered", "", 0.0, prompt) for _ in range(PLAIN) for prompt in prompts]
    for strength in sorted(set(strengths)):
        pushes = [("emotion", name) for name in emotions] + [("random", str(i)) for i in range(directions)]
        rows += [(kind, push, float(strength), prompt) for kind, push in pushes for prompt in prompts]
    return pd.DataFrame(rows, columns=["kind", "push", "strength", "prompt"])


def _pushes(
    subject: Subject,
    vectors: EmotionVectors,
    plan: pd.DataFrame,
    emotions: Sequence[str],
    n: int,
    layer: int,
    seed: int,
) -> np.ndarray:
    """[text, d_model] what to add at a layer, in units of its residual norm."""
    units = {("emotion", name): direction(subject, vectors, {name: 1.0}, layer) for name in emotions}
    drawn = random_directions(subject, vectors, layer, n, seed=seed)
    units |= {("random", str(i)): drawn[i] for i in range(n)} | {("unsteered", ""): np.zeros(subject.d_model)}
    return np.stack([row.strength * units[row.kind, row.push] for row in plan.itertuples()])


def _written(
    subject: Subject, vectors: EmotionVectors, prompts: list[str], pushes: dict[int, np.ndarray], seed: int
) -> list[str]:
    """The texts, each batch pushed row by row; steering of several layers nests."""
    texts: list[str] = []
    size = 64 if subject.device.type == "cpu" else 512
    for start in range(0, len(prompts), size):
        part = slice(start, start + size)
        with ExitStack() as stack:
            for layer, push in pushes.items():
                if push[part].any():
                    stack.enter_context(steer(subject, vectors, push[part], layers=layer))
            texts += subject.generate(
                prompts[part], TOKENS, seed=seed + start, min_new_tokens=TOKENS, temperature=TEMPERATURE, top_k=TOP_K
            )
    return texts


def _measured(
    subject: Subject,
    vectors: EmotionVectors,
    plan: pd.DataFrame,
    emotions: tuple[str, ...],
    tokens: Sequence[int],
    layers: tuple[int, ...],
    seed: int,
) -> Effect:
    """Read every text again, without a push, with the cue after it."""
    starts = [len(prompt) for prompt in plan.prompt]
    ends = [start + len(text) for start, text in zip(starts, plan.text, strict=True)]
    whole = [prompt + text + CUE for prompt, text in zip(plan.prompt, plan.text, strict=True)]
    own = [_own(subject, *place) for place in zip(whole, starts, ends, strict=True)]
    ids = [subject.encode(text) for text in whole]
    found = reread(subject, vectors, ids, tokens)
    columns = [vectors.index(name) for name in emotions]
    texts = plan.assign(
        loss=[_mean(read.losses[part]) for read, part in zip(found, own, strict=True)],
        repeats=[repeated([i[n] for n in part]) for i, part in zip(ids, own, strict=True)],
    )
    scores = [_mean(read.scores[part][:, columns]) for read, part in zip(found, own, strict=True)]
    said = np.stack([read.following for read in found])  # [text, emotion]
    others = (said.sum(1, keepdims=True) - said) / (len(emotions) - 1)
    return Effect(texts, np.stack(scores).astype(float), said - others, emotions, subject.name, layers, seed)


def _mean(values: np.ndarray):
    """The mean over tokens; NaN where a text has none of its own."""
    return values.mean(0) if len(values) else np.full(values.shape[1:], np.nan)


def _own(subject: Subject, text: str, start: int, end: int) -> list[int]:
    """The tokens that lie within some characters of a text, token 0 left out."""
    return [i for i, (a, b) in enumerate(subject.spans(text)) if i and b > start and a < end and b > a]


def _figure(result: Effect):
    import matplotlib.pyplot as plt

    table = result.table()
    figure, panels = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    for axes, (name, unit), colour in zip(panels, MEASURES.items(), ("#0072b2", "#009e73"), strict=False):
        axes.fill_between(table.index, table[f"{name}_low"], table[f"{name}_high"], color=colour, alpha=0.25, lw=0)
        axes.plot(table.index, table[name], "o-", color=colour, label="emotion vectors (95 %)")
        axes.plot(table.index, table[f"{name}_null"], "k:", label="95 % of random directions below")
        axes.set(ylabel=f"change: {unit}")
    panels[0].set_title("Effect: the text read again")
    panels[1].set_title("Effect: the word that follows")
    last = panels[2]
    last.plot(table.index, table.loss, "o-", color="#d55e00", label="emotion vectors: loss")
    last.plot(table.index, table.random_loss, "o:", color="black", label="random directions: loss")
    last.axhline(MOST_LOSS, color="#d55e00", lw=0.8, ls="--")
    last.plot(table.index, table.repeats * 10, "s-", color="#cc79a7", label="emotion vectors: repetition x 10")
    last.set(ylabel="change: nats a token; share of 3-grams x 10", title="Damage (dashed: the bound on both)")
    for axes in panels:
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set(xlabel="strength (mean residual norms)")
        _shade(axes, table)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    plt.close(figure)
    return figure


def _shade(axes, table: pd.DataFrame) -> None:
    """A grey band over the strengths that are proposed."""
    chosen = table.index[table.proposed.astype(bool)]
    if len(chosen):
        edge = np.diff(table.index).min() / 3 if len(table) > 1 else 0.02
        axes.axvspan(chosen.min() - edge, chosen.max() + edge, color="#dddddd", zorder=0, label="proposed")
