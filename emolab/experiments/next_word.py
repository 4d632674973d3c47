"""What are the vectors for? Next-token losses with the emotion subspace taken out (paper sections 3.2 and 9).

The paper says that emotion representations track the emotion that bears on the text to come, and measures no loss.
Here the main directions of the vectors are projected out at one layer, and the loss of each token is compared with that
of the whole model. Any subspace costs something, so two kinds of subspaces stand beside, outside the emotions, of the
same rank, and taking away the same share of what emotional and of what neutral texts hold. The contrast that matters
is emotional text against neutral text, best of all within one passage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from emolab import data
from emolab.claims import Claim
from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.nulls import subspace
from emolab.steering import steered_layers
from emolab.subspaces import losses_without, null_subspaces
from emolab.tracks import first_token
from emolab.vectors import EmotionVectors

OPEN, IMPLICIT, SECOND = "open stories", "implicit stories", "second authors"
FELT, PLAIN, NEUTRAL = "switching: emotional", "switching: neutral", "neutral texts"
KINDS = (OPEN, IMPLICIT, SECOND, FELT, PLAIN, NEUTRAL)
HELD_OUT = (IMPLICIT, SECOND)
CONTRASTS = {
    "within switching passages": ((FELT,), (PLAIN,)),
    "held-out stories against neutral texts": (HELD_OUT, (NEUTRAL,)),
    "open stories against neutral texts": ((OPEN,), (NEUTRAL,)),
}  # the vectors are made of open stories: the other two count
EMOTIONS, ACTIVATIONS, CONTENTS = "emotions", "random activations", "other contents"
NULLS = (ACTIVATIONS, CONTENTS)
POOL = 48  # texts of each group that the nulls are made from
DRAWS = 10_000  # of the bootstrap
Text = Sequence[tuple[str, str]]  # (kind, words) of each segment


@dataclass(frozen=True)
class NextWord:
    """Losses of each token in the whole model and without each subspace, and what follows from them.

    texts : segments (kind, words) of each text
    tokens : [token] strings of each text; kinds : [token] the kind of the segment that each belongs to
    losses : [1 + subspace, token] for each text, in nats, the whole model's first; token 0 is NaN
    squares : alike, squared distance from the neutral mean: all of it, then what each subspace takes away
    subspaces : 'emotions', then each null as often as it was drawn
    rank : how many directions each of them has
    """

    texts: tuple[Text, ...]
    tokens: tuple[tuple[str, ...], ...]
    kinds: tuple[np.ndarray, ...]
    losses: tuple[np.ndarray, ...]
    squares: tuple[np.ndarray, ...]
    subspaces: tuple[str, ...]
    rank: int
    layer: int
    model: str

    @cached_property
    def rises(self) -> pd.DataFrame:
        """[(kind, text), subspace] mean rise of the loss in nats a token; columns are numbered as `subspaces`."""
        return self._means([loss[1:] - loss[0] for loss in self.losses])

    @cached_property
    def shares(self) -> pd.DataFrame:
        """[(kind, text), subspace] mean share of the squared distance from the neutral mean that is taken away."""
        return self._means([square[1:] / square[0] for square in self.squares])

    def _means(self, values: Sequence[np.ndarray]) -> pd.DataFrame:
        rows = {
            (kind, number): np.nanmean(value[:, self.kinds[number] == kind], axis=1)
            for number, value in enumerate(values)  # [subspace, token]
            for kind in dict.fromkeys(self.kinds[number])
        }
        return pd.DataFrame.from_dict(rows, orient="index").set_axis(
            pd.MultiIndex.from_tuples(rows, names=["kind", "text"])
        )

    def table(self) -> pd.DataFrame:
        """A row for each kind of text: its loss, how much it rises without the emotions (95 % interval over texts) and
        without the nulls (mean, and what 95 % of them stay below), and the share of the activations taken away."""
        rows = {kind: self._row((kind,)) for kind in (*KINDS, *self._other()) if kind in self.rises.index}
        if set(HELD_OUT) <= set(rows):
            rows["held-out stories"] = self._row(HELD_OUT)
        return pd.DataFrame(rows).T.rename_axis("kind")

    def contrasts(self) -> pd.DataFrame:
        """Emotional minus neutral text, a row for each contrast: the same columns, without loss and shares."""
        found = {name: self._contrast(*sides) for name, sides in CONTRASTS.items() if self._has(*sides)}
        return pd.DataFrame(found).T.rename_axis("contrast")

    def words(self, k: int = 15, kinds: Sequence[str] = (IMPLICIT, SECOND, FELT)) -> pd.DataFrame:
        """The k tokens whose loss rises most without the emotions beyond the worst null, with what comes before them.

        By default from texts that the vectors were not made of. Columns: rise, nulls (mean), worst (of the nulls) and
        beyond (rise - worst), all in nats.
        """
        rows = []
        for number, loss in enumerate(self.losses):
            rise, nulls = loss[1] - loss[0], loss[2:] - loss[0]  # [token], [null, token]
            for place in np.flatnonzero(np.isin(self.kinds[number], list(kinds)) & np.isfinite(rise)):
                before = "".join(self.tokens[number][max(place - 8, 0) : place])
                row = {"token": self.tokens[number][place], "before": before.replace("\n", " ")}
                row |= {"text": number, "position": place, "kind": self.kinds[number][place], "rise": rise[place]}
                rows.append(row | {"nulls": nulls[:, place].mean(), "worst": nulls[:, place].max()})
        found = pd.DataFrame(rows)
        found["beyond"] = found.rise - found.worst
        return found.nlargest(k, "beyond").reset_index(drop=True)

    def strip(self, text: int):
        """One text as HTML. Red: the loss of this token rises more without the emotions than without any null, and by
        how much; blue: it rises less than without any of them. White: within the range of the nulls."""
        from emolab.widgets.twin import STRIP, Frozen, element, token_cell

        rises = self.losses[text][1:] - self.losses[text][0]  # [subspace, token]
        own, least, worst = rises[0], rises[1:].min(0), rises[1:].max(0)
        beyond = np.where(np.isfinite(own), np.maximum(own - worst, 0) + np.minimum(own - least, 0), np.nan)
        cells = [
            token_cell(token, value, 2.0, f"{a:+.2f}, nulls {b:+.2f} to {c:+.2f}" if np.isfinite(a) else "no loss")
            for token, value, a, b, c in zip(self.tokens[text], beyond, own, least, worst, strict=True)
        ]
        kinds = ", then ".join(kind for kind, _ in self.texts[text])
        key = f"{kinds}. Rise of loss without the emotions: red above all nulls, blue below all (full colour: 2 nats)."
        return Frozen(f'<div>{element("p", key)}<div style="{STRIP}">{"".join(cells)}</div></div>')

    def figure(self):
        """Rises by kind of text and emotional minus neutral, each beside its nulls."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words."""
        table = self.table()
        said = [f"{self.model}, layer {self.layer}, {self.rank} directions taken out, {len(self.texts)} texts."]
        for kind, row in table.iterrows():
            if kind not in HELD_OUT:
                said.append(f"{kind.capitalize()}: the loss rises by {_words(row)}; {_beyond(row)}.")
        for name, row in self.contrasts().iterrows():
            said.append(f"Emotional minus neutral, {name}: {_words(row)}; {_beyond(row)}.")
        return " ".join(said)

    def claims(self) -> tuple[Claim, ...]:
        """That the directions serve prediction, and that they serve it more where there is emotion."""
        same = {
            "part": "function",
            "source": "Sofroniew et al. 2026, sections 3.2 and 9",
            "null_name": " / ".join(NULLS),
        }
        same |= {"paper": "said, not measured: no loss and no ablation in the paper"}
        needs = {"reason": "the texts measured lack what this claim compares"}
        claims = []
        said = "Emotion directions help to predict the next token of emotional text"
        row = self._row(HELD_OUT) if self._has(HELD_OUT) else None
        what = "rise of the loss in held-out stories without them (nats a token)"
        claims.append(Claim(said, statistic=what, **same, **(needs if row is None else _numbers(row, "texts"))))
        for name in list(CONTRASTS)[:2]:
            row = self._contrast(*CONTRASTS[name]) if self._has(*CONTRASTS[name]) else None
            what = f"rise of the loss, emotional minus neutral text, {name} (nats a token)"
            said = f"Emotion directions help more where the text is emotional: {name}"
            claims.append(Claim(said, statistic=what, **same, **(needs if row is None else _numbers(row, "texts"))))
        return tuple(claims)

    def _other(self) -> list[str]:
        return [kind for kind in self.rises.index.unique("kind") if kind not in KINDS]

    def _has(self, *sides: Sequence[str]) -> bool:
        return all(any(kind in self.rises.index for kind in side) for side in sides)

    def _of(self, kinds: Sequence[str], values: pd.DataFrame) -> np.ndarray:
        """[text, subspace]"""
        return values[values.index.get_level_values("kind").isin(kinds)].to_numpy()

    def _row(self, kinds: Sequence[str]) -> dict[str, float]:
        rises, shares = self._of(kinds, self.rises), self._of(kinds, self.shares).mean(0)
        losses = np.concatenate([x[0, np.isin(k, kinds)] for x, k in zip(self.losses, self.kinds, strict=True)])
        row = {"texts": len(rises), "loss": np.nanmean(losses)} | self._beside(rises.mean(0), _draws(rises[:, 0]))
        names = np.array(self.subspaces)
        return row | {f"share: {name}": shares[names == name].mean() for name in dict.fromkeys(names)}

    def _contrast(self, first: Sequence[str], second: Sequence[str]) -> dict[str, float]:
        if (first, second) == CONTRASTS["within switching passages"]:  # paired: the same passage
            gaps = (self.rises.loc[first[0]] - self.rises.loc[second[0]]).dropna().to_numpy()  # [text, subspace]
            return {"texts": len(gaps)} | self._beside(gaps.mean(0), _draws(gaps[:, 0]))
        sides = [self._of(side, self.rises) for side in (first, second)]
        draws = _draws(sides[0][:, 0], 0) - _draws(sides[1][:, 0], 1)
        return {"texts": sum(map(len, sides))} | self._beside(sides[0].mean(0) - sides[1].mean(0), draws)

    def _beside(self, values: np.ndarray, draws: np.ndarray) -> dict[str, float]:
        """Of [subspace] values and [draw] resampled values of the emotions."""
        low, high = np.quantile(draws, [0.025, 0.975])
        row = {"rise": values[0], "low": low, "high": high}
        for name in NULLS:
            null = values[np.array(self.subspaces) == name]
            row |= {name: null.mean(), f"{name}, 95 %": np.quantile(null, 0.95)}
        return row


def next_word(
    subject: Subject,
    vectors: EmotionVectors,
    *,
    layer: int | None = None,
    rank: int = 10,
    texts: int | Sequence[Text] = 10,
    nulls: int = 10,
    pool: tuple[Sequence[str], Sequence[str]] | None = None,
    seed: int = 0,
) -> NextWord:
    """Take the main directions of the vectors out of the residual stream and see which tokens are missed.

    Parameters
    ----------
    layer : where; default the middle one, the rule of steering.
    rank : how many directions, fewer if there are fewer emotions.
    texts : how many of each kind, over different emotions of these vectors; or your own, each a list of segments
        (kind, words) with the kinds of KINDS (or others, which get a row but no contrast).
    nulls : subspaces of each kind of null.
    pool : emotional and neutral texts that the nulls are made of; default some of ours that are not measured.

    Raises EmolabError for vectors of another model, of fewer than three emotions, or emotions without texts of ours.
    Method: mean ablation about the neutral mean, at all tokens but the first.
    """
    vectors.check(subject)
    (layer,) = steered_layers(subject, vectors, layer)
    if len(vectors) < 3:
        raise EmolabError(f"{len(vectors)} emotions span no subspace worth the name: give vectors of three or more")
    rng = np.random.default_rng(seed)
    chosen = _choose(vectors, texts, rng) if isinstance(texts, int) else [list(text) for text in texts]
    written = [" ".join(words for _, words in text) for text in chosen]
    centre, row = vectors.neutral_mean[vectors.row(layer)], vectors.row(layer)
    basis = subspace(vectors.vectors[:, row].astype(float), k=min(rank, len(vectors) - 1))
    bases = [
        basis,
        *null_subspaces(subject, vectors, basis, layer, pool or _pool(vectors, set(written), rng), nulls, rng),
    ]
    losses, squares = losses_without(subject, written, bases, centre, layer)
    kinds, tokens = [], []
    for text, whole in zip(chosen, written, strict=True):
        kinds.append(_kinds(subject, text, whole))
        tokens.append(tuple(whole[a:b] for a, b in subject.spans(whole)))
    names = (EMOTIONS, *(name for name in NULLS for _ in range(nulls)))
    read = (tuple(chosen), tuple(tokens), tuple(kinds), tuple(losses), tuple(squares))
    return NextWord(*read, names, len(basis), layer, subject.name)


def by_layer(subject: Subject, vectors: EmotionVectors, layers: Sequence[int] | None = None, **options) -> pd.DataFrame:
    """Emotional minus neutral text at several layers, by default a quarter, a half and three quarters of the way up.

    Returns the rows of `NextWord.contrasts()` for each layer, all on the same texts; `options` are those of
    `next_word`, and so are the errors. A view of how far one layer stands for others, not a way to choose one.
    """
    depth = subject.n_layers
    layers = sorted({max(depth * part // 4, 1) for part in (1, 2, 3)}) if layers is None else layers
    found = {layer: next_word(subject, vectors, layer=layer, **options).contrasts() for layer in layers}
    return pd.concat(found, names=["layer"])


def _choose(vectors: EmotionVectors, n: int, rng: np.random.Generator) -> list[Text]:
    """n texts of each kind, of as many different emotions as there are."""
    known = set(vectors.emotions)
    found: list[Text] = []
    for kind, source in ((OPEN, "stories"), (IMPLICIT, "implicit"), (SECOND, "implicit_second")):
        of = [story for story in data.stories(source) if story.emotion in known]
        found += [[(kind, story.text)] for story in _spread([s.emotion for s in of], of, n, rng)]
    passages = [row["segments"] for row in data.prompts("switching") if row["kind"] == "neutral-emotion-neutral"]
    passages = [segments for segments in passages if segments[1]["state"] in known]
    for segments in _spread([segments[1]["state"] for segments in passages], passages, n, rng):
        found.append([(PLAIN if part["state"] == "neutral" else FELT, part["text"]) for part in segments])
    if not found:
        raise EmolabError("there are no texts of ours for these emotions: give your own, texts=[[(kind, words)], ...]")
    plain = data.neutral()
    return found + [[(NEUTRAL, plain[i])] for i in rng.choice(len(plain), min(n, len(plain)), replace=False)]


def _spread(labels: Sequence[str], items: Sequence, n: int, rng: np.random.Generator) -> list:
    """n items at random, no label twice before all have had their turn."""
    order = rng.permutation(len(items))
    turn, seen = [], {}
    for i in order:
        seen[labels[i]] = seen.get(labels[i], 0) + 1
        turn.append(seen[labels[i]])
    return [items[i] for i in order[np.argsort(turn, kind="stable")][:n]]


def _kinds(subject: Subject, text: Text, whole: str) -> np.ndarray:
    """[token] the kind of the segment that each token of a text belongs to."""
    kinds = np.full(len(subject.encode(whole)), text[0][0], dtype=object)
    place = len(text[0][1])
    for kind, words in text[1:]:
        kinds[first_token(subject, whole, place + 1) :] = kind
        place += 1 + len(words)
    return kinds


def _pool(vectors: EmotionVectors, used: set[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Open stories of these emotions (of all, if there are none) and neutral texts, without those that are measured."""
    stories = [story for story in data.stories() if story.text not in used]
    felt = [story.text for story in stories if story.emotion in vectors.emotions] or [s.text for s in stories]
    plain = [text for text in data.neutral() if text not in used]
    return tuple([pool[i] for i in rng.choice(len(pool), min(POOL, len(pool)), False)] for pool in (felt, plain))


def _draws(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """[draw] means of resampled values."""
    return values[np.random.default_rng(seed).integers(len(values), size=(DRAWS, len(values)))].mean(1)


def _quantiles() -> tuple[str, ...]:
    return tuple(f"{name}, 95 %" for name in NULLS)


def _numbers(row: dict[str, float], of: str) -> dict:
    null = max(row[name] for name in _quantiles())
    return {
        "value": row["rise"],
        "low": row["low"],
        "high": row["high"],
        "null": null,
        "n": int(row["texts"]),
        "of": of,
    }


def _beyond(row: pd.Series) -> str:
    if not row.low > 0:
        return "the interval is not above zero"
    above = row.rise > max(row[name] for name in _quantiles())
    return "beyond 95 % of the nulls" if above else "not beyond the nulls"


def _words(row: pd.Series) -> str:
    nulls = ", ".join(f"{name} {row[name]:.3f}" for name in NULLS)
    return f"{row.rise:.3f} nats (95 % {row.low:.3f} to {row.high:.3f}; {nulls})"


def _figure(found: NextWord):
    import matplotlib.pyplot as plt

    tables = (found.table(), found.contrasts())
    sizes = [len(table) for table in tables]
    figure, panels = plt.subplots(
        2, 1, figsize=(10, 1.8 + 0.55 * sum(sizes)), sharex=True, layout="constrained", height_ratios=np.add(sizes, 0.6)
    )
    titles = ("Rise of the loss without them, by kind of text", "Emotional minus neutral text")
    for axes, table, title in zip(panels, tables, titles, strict=True):
        places = np.arange(len(table))
        for n, (name, colour) in enumerate(zip(NULLS, ("#56b4e9", "#e69f00"), strict=True)):
            y = places + 0.18 * (n + 1)
            axes.plot(table[name], y, "D", ms=5, color=colour, label=f"{name}: mean, line to 95 %")
            axes.hlines(y, table[name], table[f"{name}, 95 %"], color=colour, lw=2)
        ends = np.stack([table.rise - table.low, table.high - table.rise])
        axes.errorbar(table.rise, places - 0.1, xerr=ends, fmt="o", color="#d55e00", capsize=4, label="emotions, 95 %")
        axes.axvline(0, color="#999999", lw=0.8)
        axes.set_yticks(places, table.index)
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.set_title(title)
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    panels[1].set_xlabel(f"nats a token ({found.model}, layer {found.layer}, {found.rank} directions)")
    plt.close(figure)
    return figure
