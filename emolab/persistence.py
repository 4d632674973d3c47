"""How brief is an emotion? A moment that ends with the event in the text, or a mood that stays.

`persistence()` follows each emotion's score through passages that switch it on and off, `carry_over()` through
one and the same neutral text after an emotional and after a neutral opening. Directions that mean nothing stand beside
both. The scores come from `tracks.py`, what is measured in one passage from `passage.py`, the statistics from
`decay.py`; a push from outside is in `pulse.py`.

The claim tested is that of Sofroniew et al. (2026, arXiv 2604.07729): representations are local, bound to what is
happening at a token, not lasting moods. Directions are the probes at the layer that identification chose; no result
here had a say in that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab import data
from emolab.claims import Claim
from emolab.decay import (
    AFTER,
    LEAST,
    STAY,
    autocorrelation,
    curve_row,
    event_locked,
    in_tokens,
    life,
    life_row,
    number,
    runs,
    share_row,
)
from emolab.errors import EmolabError, unknown
from emolab.model import Subject
from emolab.passage import GONE, HELD, Event, Passage, joined
from emolab.tracks import EMOTION, NULLS, Tracks, first_token, record, upright
from emolab.vectors import EmotionVectors

LOCAL = "An emotion is a matter of the moment: it goes with the event that brought it"
MARKS = (5, 10, 20, 40)  # tokens after which the share that remains is reported


# --- passages that switch an emotion on and off --------------------------------------------------------------------


def switching(subject: Subject, emotions: Sequence[str] | None = None) -> tuple[list[str], list[Event]]:
    """The passages of `data/sets/switching.jsonl` and the event in each: its first state that isn't neutral."""
    texts, events = [], []
    for row in data.prompts("switching"):
        states = [segment["state"] for segment in row["segments"]]
        parts = [segment["text"] for segment in row["segments"]]
        i = 1 if states[0] == "neutral" else 0
        if emotions is not None and states[i] not in emotions:
            continue
        text, borders = joined(subject, parts)
        events.append(Event(len(texts), states[i], borders[i], borders[i + 1], borders[i + 2], states[i + 1]))
        texts.append(text)
    return texts, events


@dataclass(frozen=True)
class Persistence:
    """How the scores of emotions behave around the events of passages.

    tracks, events : what was read; `tracks.scores[event.text]`
    lives : a row for each event and variant: emotion, into, kind, mean scores before, within (level) and after [sd],
        half-life [tokens], reached, rose. Kinds: 'emotion'; the nulls; and two yardsticks along the emotion itself,
        judged by the same half: 'as if gone at once' on the passage's neutral opening, 'as if it lasted' on the
        event's own tokens
    afters : [row of lives, token] what each half-life was taken from, NaN beyond the end
    windows : {'onset' | 'offset': [event, token, variant]} scores around the event's borders
    correlation : {'text' | 'segment': [lag, kind]} autocorrelation after centring each text, or each segment
    above : share of tokens above 1 sd and lengths of runs by kind, within events and after them
    """

    tracks: Tracks
    events: tuple[Event, ...]
    lives: pd.DataFrame
    afters: np.ndarray
    windows: dict[str, np.ndarray]
    correlation: dict[str, pd.DataFrame]
    above: pd.DataFrame

    def rows(self, kind: str = EMOTION, emotion: str | None = None, neutral: bool = True) -> pd.DataFrame:
        """The rows of `lives` of one kind, of one emotion or all, whose events end in a neutral text (or don't)."""
        lives = self.lives[(self.lives.kind == kind) & ((self.lives.into == "neutral") == neutral)]
        return lives if emotion is None else lives[lives.emotion == emotion]

    def passages(self, subject: Subject) -> list[Passage]:
        """Each event as a passage of its own, with its tokens; the model does not run.

        Raises EmolabError if the events are not those of `data/sets/switching.jsonl` as this model reads them.
        """
        texts, events = switching(subject, self.tracks.emotions)
        if tuple(events) != self.events:
            raise EmolabError("these events are not those of the switching passages: their texts are not at hand")
        pieces = [tuple(text[a:b] for a, b in subject.spans(text)) for text in texts]
        return [Passage(self.tracks, event, pieces[event.text]) for event in events]

    def table(self) -> pd.DataFrame:
        """A row for each emotion, all of them, both yardsticks and each null, over events that end in neutral text.

        Columns: mean score before, within and after [sd]; `half_life` [tokens] (Kaplan-Meier median over events, 95 %
        low and high), share of events `not_reached`, share that `rose`; `of_mean`: half-life of the mean curve, with
        its interval; `null`: half_life of matched-variance directions in the same passages.
        """
        rows = {name: self._row(self.rows(emotion=name), name) for name in self.tracks.emotions}
        rows["all"] = self._row(self.rows())
        rows |= {kind: self._row(self.rows(kind)) for kind in (GONE, HELD, *NULLS)}
        if len(other := self.rows(neutral=False)):
            rows["all, into another emotion"] = self._row(other)
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("direction")

    def claims(self, seed: int = 0) -> tuple[Claim, ...]:
        """That an emotion is gone soon after its event, against the yardstick 'as if it lasted'."""
        place = slice(10, 30)
        shares = {}
        for kind in (EMOTION, HELD):
            rows = self.rows(kind)
            curves = self.afters[rows.index]
            rows = rows[rows.rose & ~np.isnan(curves[:, place]).all(1)]
            if not len(rows):
                return (Claim(LOCAL, "reading", "", "", reason="no emotion rises within the passages"),)
            shares[kind] = share_row(self.afters[rows.index], rows.level.to_numpy(), place, seed)
        (left, low, high), (_, held_low, _) = shares[EMOTION], shares[HELD]
        return (
            Claim(
                claim=LOCAL,
                part="reading",
                source="paper sections 3.3 and 3.4, Table 5; there a negative result for lasting states",
                statistic="share of the event's score that is gone 11 to 30 tokens after it; no effect: half",
                value=1 - left,
                low=1 - high,
                high=1 - low,
                chance=0.5,
                null=1 - held_low,
                null_name="the same emotions as if they lasted",
                n=len(self.rows()),
                of="passages",
                paper="described, not measured",
            ),
        )

    def _row(self, rows: pd.DataFrame, emotion: str | None = None) -> dict[str, float]:
        found = {"before": rows.before.mean(), "within": rows.level.mean(), "after": rows.after.mean()}
        found |= life_row(rows) | _of_mean(rows, self.afters)
        return found if emotion is None else found | {"null": life_row(self.rows(NULLS[1], emotion))["half_life"]}

    def figure(self, emotion: str | None = None):
        """Event-locked means, share still above half, half-lives by emotion, autocorrelation; one emotion or all."""
        from emolab.brevity_plots import persistence_figure

        return persistence_figure(self, _known(emotion, self.tracks.emotions))

    def verdict(self, emotion: str | None = None) -> str:
        """The answer in plain words, for one emotion or for all. Raises EmolabError for one that was not asked for."""
        rows = {kind: self.rows(kind, _known(emotion, self.tracks.emotions)) for kind in (EMOTION, GONE, HELD, *NULLS)}
        found = {kind: life_row(lives) for kind, lives in rows.items()}
        own, mean = found[EMOTION], _of_mean(rows[EMOTION], self.afters)
        nulls = "; ".join(
            f"{kind}: {in_tokens(found[kind]['half_life'])}, in the {found[kind]['rose']:.0%} of events where they rise"
            for kind in NULLS
        )
        return (
            f"In {self.tracks.model} (layer {self.tracks.layer}) {emotion or 'an emotion'} rises in {own['rose']:.0%} "
            f"of {len(rows[EMOTION])} events and falls to half within {in_tokens(own['half_life'])} of their end (95 % "
            f"{number(own['low'])} to {number(own['high'])}); {own['not_reached']:.0%} of events stay above half to "
            f"the end. The mean over events falls to half within {in_tokens(mean['of_mean'])} (95 % "
            f"{number(mean['of_mean_low'])} to {number(mean['of_mean_high'])}). Yardsticks with the same noise, an "
            f"emotion gone at once: {in_tokens(found[GONE]['half_life'])}; one that lasts: "
            f"{in_tokens(found[HELD]['half_life'])}, {found[HELD]['not_reached']:.0%} of events never. Directions that "
            f"mean nothing, {nulls}."
        )


def persistence(
    subject: Subject,
    vectors: EmotionVectors,
    emotions: Sequence[str] | str | None = None,
    seeds: int = 10,
    stay: int = STAY,
) -> Persistence:
    """How long does the score of an emotion outlive the event in the text that brought it?

    Parameters
    ----------
    emotions : of the 12 of the switching passages; default all that the vectors have.
    seeds : directions of each null for each emotion.
    stay : tokens in a row below half that make an end.

    Each passage is read once. Raises EmolabError for an emotion without passages, vectors of another model, or
    vectors without the story means that the nulls are made from.

    Method: the locality claim of Sofroniew et al. (2026); half-lives with censoring by Kaplan & Meier (1958).
    """
    emotions = _asked(emotions, followed("switching"), vectors)
    texts, events = switching(subject, emotions)
    return measure(record(subject, vectors, texts, emotions, seeds), events, stay)


def measure(tracks: Tracks, events: Sequence[Event], stay: int = STAY) -> Persistence:
    """All statistics of `persistence()` from scores; no model runs."""
    lives, afters, windows, above = [], [], {"onset": [], "offset": []}, []
    pieces: dict[str, list[np.ndarray]] = {"text": [], "segment": []}

    for event in events:
        passage = Passage(tracks, event)
        rows, curves = passage.lives(stay)
        lives += rows
        afters += curves
        opening, within, after = passage.parts
        above += [(where, kind, runs(part[:, i]), part[:, i]) for i, kind in enumerate(tracks.kinds)
                  for where, part in (("within", within), ("after", after))]  # fmt: skip
        for border, place in (("onset", event.start), ("offset", event.end)):
            windows[border].append(event_locked(passage.scores[1:], place - 1))
        pieces["text"].append(passage.scores[1:])
        pieces["segment"] += [piece for piece in (opening, within, after) if len(piece)]
    return Persistence(
        tracks,
        tuple(events),
        pd.DataFrame(lives),
        np.stack(afters),
        {border: np.stack(found) for border, found in windows.items()},
        {name: _by_kind(autocorrelation(found), tracks.kinds) for name, found in pieces.items()},
        _above(above),
    )


def followed(design: str) -> list[str]:
    """The emotions of the texts of a design, 'switching' or 'continuations'."""
    rows = data.prompts(design)
    if design == "continuations":
        return list(dict.fromkeys(row["emotion"] for row in rows))
    states = (segment["state"] for row in rows for segment in row["segments"])
    return list(dict.fromkeys(state for state in states if state != "neutral"))


def _asked(emotions: Sequence[str] | str | None, known: Sequence[str], vectors: EmotionVectors) -> list[str]:
    """The emotions to follow. Raises EmolabError for one without texts, or if the vectors have none that has."""
    if emotions is None:
        if found := [name for name in known if name in vectors.emotions]:
            return found
        raise EmolabError(f"the vectors have none of the emotions with texts of this kind: {', '.join(known)}")
    emotions = [emotions] if isinstance(emotions, str) else list(emotions)
    for name in emotions:
        if name not in known:
            raise unknown("emotion with texts of this kind", name, known)
    return emotions


def _known(emotion: str | None, known: Sequence[str]) -> str | None:
    """The emotion, or None for all. Raises EmolabError for one that was not asked for."""
    if emotion is not None and emotion not in known:
        raise unknown("emotion", emotion, known)
    return emotion


def _of_mean(rows: pd.DataFrame, afters: np.ndarray) -> dict[str, float]:
    """Half-life of the mean over the events that rose."""
    rose = rows[rows.rose]
    return curve_row(afters[rose.index], rose.level.to_numpy())


def _by_kind(values: np.ndarray, kinds: Sequence[str]) -> pd.DataFrame:
    """[lag, variant] -> [lag, kind], averaged over seeds."""
    return pd.DataFrame(values.T, index=list(kinds)).groupby(level=0, sort=False).mean().T.rename_axis("lag")


def _above(parts: list[tuple]) -> pd.DataFrame:
    """A row for (where, kind): share of tokens above 1 sd, runs, their mean and longest length; `by_chance` is
    1 / (1 - share), the mean run if tokens were independent."""
    rows = {}
    for where, kind in dict.fromkeys((where, kind) for where, kind, _, _ in parts):
        lengths, scores = zip(*(part[2:] for part in parts if part[:2] == (where, kind)), strict=True)
        lengths, share = np.concatenate(lengths), float((np.concatenate(scores) > 1).mean())
        rows[where, kind] = {
            "share": share,
            "runs": len(lengths),
            "mean_run": lengths.mean() if len(lengths) else np.nan,
            "longest": lengths.max(initial=0),
            "by_chance": 1 / (1 - share) if share < 1 else np.inf,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["where", "kind"])


# --- the same neutral text after an emotional and after a neutral opening ------------------------------------------


@dataclass(frozen=True)
class CarryOver:
    """What an emotional opening leaves in the neutral text after it, against a matched neutral opening.

    lives : a row for each pair and variant: emotion, kind, level (mean difference of the two openings, sd), half-life
        of the difference along the continuation [tokens], reached, rose
    afters : [row of lives, token] the paired difference at each token of the continuation, sd
    """

    emotions: tuple[str, ...]
    lives: pd.DataFrame
    afters: np.ndarray
    layer: int
    model: str

    def rows(self, kind: str = EMOTION, emotion: str | None = None) -> pd.DataFrame:
        """The rows of `lives` of one kind, of one emotion or all."""
        lives = self.lives[self.lives.kind == kind]
        return lives if emotion is None else lives[lives.emotion == emotion]

    def table(self) -> pd.DataFrame:
        """A row for each emotion, all of them and each null.

        Columns: `level` of the difference in the openings [sd]; half-lives as in `Persistence.table`; `left_5` and so
        on: the share of the level that is left around that token of the continuation (five tokens), with its interval;
        `rest`: the share left on average from token 21 on.
        """
        rows = {name: self._row(self.rows(emotion=name)) for name in self.emotions}
        rows |= {"all" if kind == EMOTION else kind: self._row(self.rows(kind)) for kind in (EMOTION, *NULLS)}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("direction")

    def _row(self, rows: pd.DataFrame) -> dict[str, float]:
        found = {"level": rows.level.mean()} | life_row(rows) | _of_mean(rows, self.afters)
        places = {f"left_{mark}": slice(mark - 3, mark + 2) for mark in MARKS} | {"rest": slice(20, AFTER)}
        for name, place in places.items():
            values = share_row(self.afters[rows.index], rows.level.to_numpy(), place)
            found |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
        return found

    def kinds(self, emotion: str | None = None) -> pd.DataFrame:
        """The columns of `table()`, a row for the emotion (one or all) and each of its nulls."""
        rows = {kind: self.rows(kind, _known(emotion, self.emotions)) for kind in (EMOTION, *NULLS)}
        return pd.DataFrame.from_dict({kind: self._row(row) for kind, row in rows.items() if len(row)}, orient="index")

    def figure(self, emotion: str | None = None):
        """The paired difference along the continuation, and the share that is left; one emotion or all."""
        from emolab.brevity_plots import carry_over_figure

        return carry_over_figure(self, _known(emotion, self.emotions))

    def verdict(self, emotion: str | None = None) -> str:
        """The answer in plain words, for one emotion or for all. Raises EmolabError for one that was not asked for."""
        table = self.kinds(emotion)
        own, null = table.loc[EMOTION], table.rest.drop(EMOTION)
        said = (
            f"In {self.model} (layer {self.layer}) an emotional opening{f' ({emotion})' if emotion else ''} stands "
            f"{own['level']:.2f} sd above its neutral twin (mean of {len(self.rows(emotion=emotion))} pairs)"
        )
        if not own["rose"]:
            return f"{said}: less than {LEAST:g} sd in every pair, too little to follow what is left of it."
        stays = "a remainder that is not zero" if own["rest_low"] > 0 else "nothing that can be told from zero"
        return (
            f"{said}. In the same neutral text after both, the mean difference falls to half within "
            f"{in_tokens(own['of_mean'])} (95 % {number(own['of_mean_low'])} to {number(own['of_mean_high'])}); "
            f"{own['left_5']:.0%} of it is left around token 5, {own['left_20']:.0%} around token 20, and from 21 "
            f"to {AFTER} {own['rest']:.0%} (95 % {own['rest_low']:.0%} to {own['rest_high']:.0%}): {stays}. Directions "
            f"that mean nothing keep there: " + ", ".join(f"{kind} {share:.0%}" for kind, share in null.items()) + "."
        )


def carry_over(
    subject: Subject, vectors: EmotionVectors, emotions: Sequence[str] | str | None = None, seeds: int = 10
) -> CarryOver:
    """What is left of an emotion in neutral text that would be the same without it?

    Pairs of `data/sets/continuations.jsonl`: an emotional and a matched neutral opening, one continuation. The scores
    of its tokens are compared one by one, so that nothing the continuation itself brings can differ. Parameters and
    errors as in `persistence()`.
    """
    pairs = data.prompts("continuations")
    emotions = _asked(emotions, followed("continuations"), vectors)
    pairs = [pair for pair in pairs if pair["emotion"] in emotions]
    texts = [f"{pair[side]} {pair['continuation']}" for pair in pairs for side in ("emotional", "neutral")]
    starts = [first_token(subject, text, len(text) - len(pairs[i // 2]["continuation"]))
              for i, text in enumerate(texts)]  # fmt: skip
    tracks = record(subject, vectors, texts, emotions, seeds)
    lives, afters = [], []
    for i, pair in enumerate(pairs):
        column = emotions.index(pair["emotion"])
        openings, rests = zip(*((tracks.scores[n][1 : starts[n], :, column], tracks.scores[n][starts[n] :, :, column])
                                for n in (2 * i, 2 * i + 1)), strict=True)  # fmt: skip
        length = min(map(len, rests))
        level = openings[0].mean(0) - openings[1].mean(0)  # [variant]
        turn = upright(tracks.kinds, level)
        difference = (rests[0][-length:] - rests[1][-length:]).astype(float) * turn  # [token, variant]
        for variant, kind in enumerate(tracks.kinds):
            after = difference[:, variant]
            lives.append({"emotion": pair["emotion"], "kind": kind} | life(after, level[variant] * turn[variant]))
            afters.append(event_locked(after, 0, 0, AFTER))
    return CarryOver(tuple(emotions), pd.DataFrame(lives), np.stack(afters), tracks.layer, tracks.model)
