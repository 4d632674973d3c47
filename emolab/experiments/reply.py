"""Does the start of the reply say what the reply will be like? (paper section 3.2, Fig 11)

The model answers messages by itself, greedily. We correlate, over emotions and messages, what it represents at the last
token of the prompt with the mean over the reply's tokens, and do the same for the user's last token. The start of
the reply is nearer to the reply than the user's last token is, and neighbours are alike whatever they say. So two
controls stand beside: the same distances for both, and the same map of emotions turned at random in activation space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emolab import data
from emolab.activations import read
from emolab.claims import Claim
from emolab.directions import METRICS, fit, unit
from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.tracks import first_token
from emolab.vectors import EmotionVectors

MESSAGE, LAST, START = "the message (mean)", "user's last token", "start of the reply"
REPLY, LATE, SAME, FOLLOWS = "reply", "reply from token 10 on", "the same distances", "what follows in the message"
INSIDE = "inside the message"
LATE_FROM, LEAST = 10, 16  # where the later part begins; a shorter reply doesn't count
WINDOWS = {LAST: "window of last", START: "window of start", INSIDE: "window of inside"}  # same distances from each
PAIRS = {
    **{(place, target): (place, target) for target in (REPLY, LATE) for place in (MESSAGE, LAST, START)},
    **{(place, SAME): (place, WINDOWS[place]) for place in (LAST, START)},
    (INSIDE, FOLLOWS): (INSIDE, WINDOWS[INSIDE]),
    (LAST, START): (LAST, START),
}  # (row of the table): the two places whose scores are correlated
BEYOND = f"{START}, given the user's last token"
DRAWS, SHUFFLES, TURNS = 2_000, 1_000, 100
BATCH = 60  # messages answered at once


@dataclass(frozen=True)
class Reply:
    """What was written, the scores at each place, and their correlations.

    messages, replies : [message] texts, of those messages whose reply is long enough
    scores : for each place (one token or a mean over tokens) a [message, emotion] table in sd of neutral tokens
    statistics : (from, to): r over emotions and messages, each emotion centred over messages; 95 % interval
        (bootstrap over messages); what 95 % of shuffled messages and of randomly turned maps stay below; the mean of
        the latter
    advantages : alike, r at the start of the reply minus r at the user's last token, and the partial correlation of
        the start with the later reply, given the user's last token
    path : alike, r with the later reply for each token from the user's last one to the start of the reply (empty if
        these differ between messages)
    """

    messages: tuple[str, ...]
    replies: tuple[str, ...]
    scores: dict[str, pd.DataFrame]
    statistics: pd.DataFrame
    advantages: pd.DataFrame
    path: pd.DataFrame
    model: str
    layer: int
    metric: str

    def table(self) -> pd.DataFrame:
        """All correlations, a row for each pair of places."""
        return self.statistics

    def figure(self):
        """The correlations beside their nulls, and how they change on the way from the user to the reply."""
        return _figure(self)

    def verdict(self) -> str:
        """The result in words."""
        r = self.statistics
        said = [
            f"{len(self.messages)} messages answered by {self.model}, read at layer {self.layer} ({self.metric}s), "
            f"{self.scores[REPLY].shape[1]} emotions.",
            f"With the mean of the reply: {LAST} r = {_words(r.loc[(LAST, REPLY)])}, {START} "
            f"{_words(r.loc[(START, REPLY)])}; with the reply from token {LATE_FROM} on {r.r[LAST, LATE]:.2f} and "
            f"{r.r[START, LATE]:.2f}; from one place to the other {r.r[LAST, START]:.2f}.",
        ]
        for target, row in self.advantages.iterrows():
            beyond = "beyond" if row.low > 0 and row.r > row.turned_95 else "not beyond"
            what = target if target == BEYOND else f"Advantage of the start, {target}"
            said.append(f"{what}: {_words(row)}, {beyond} what random maps show.")
        return " ".join(said)

    def claims(self) -> tuple[Claim, ...]:
        """That the start of the reply predicts its emotion, and better than the user's last token does."""
        same = {"part": "reading", "source": "Sofroniew et al. 2026, section 3.2, Fig 11", "of": "messages"}
        same |= {"null_name": "the same map of emotions, turned at random", "n": len(self.messages)}
        same |= {"paper": "r = 0.87 at the start of the reply, 0.59 at the end of the user's statement (Sonnet 4.5)"}
        rows = (self.statistics.loc[(START, REPLY)], self.advantages.loc[SAME])
        better = "r minus r of the user's last token, same distances"
        texts = (
            ("What is represented at the start of the reply predicts the emotion of the reply", "r over emotions"),
            ("The start of the reply predicts its emotion better than the user's last token does", better),
        )
        return tuple(
            Claim(said, statistic=what, value=row.r, low=row.low, high=row.high, null=row.turned_95, **same)
            for (said, what), row in zip(texts, rows, strict=True)
        )


def reply_emotion(
    subject: Subject,
    vectors: EmotionVectors,
    messages: Sequence[str] | None = None,
    *,
    tokens: int = 28,
    seed: int = 0,
) -> Reply:
    """Let the model answer and correlate what it represents before its reply with what it represents in it.

    Parameters
    ----------
    messages : from a user; default 120 of ours (first turns of `dialogues`, and `scenarios`).
    tokens : length of the replies, of which those under 16 tokens don't count.

    A model without a chat template goes on after the message and an empty line; if its tokenizer has no token for that,
    both places are one, and neither predicts better.
    Raises EmolabError for vectors of another model or without evidence, too few tokens, or fewer than 8 replies.
    """
    vectors.check(subject)
    vectors.need_evidence()
    if tokens < LEAST:
        raise EmolabError(f"replies of {tokens} tokens are too short to judge: ask for {LEAST} at least")
    if messages is None:
        messages = [row["turns"][0]["text"] for row in data.prompts("dialogues")]
        messages += [row["text"] for row in data.prompts("scenarios")]
    messages = [message.strip() for message in messages]
    prompts = [subject.ask(text) for text in messages]
    replies = _answers(subject, prompts, tokens)
    layer = vectors.evidence.layer
    found = [_places(subject, *texts, layer) for texts in zip(messages, prompts, replies, strict=True)]
    good = [i for i, places in enumerate(found) if places is not None]
    if len(good) < 8:
        raise EmolabError(f"{subject.name} wrote {len(good)} replies of {LEAST} tokens or more, and 8 are needed")
    hidden = _together([found[i] for i in good])
    statistics, advantages, path, scores = _statistics(vectors, hidden, layer, np.random.default_rng(seed))
    kept = (tuple(messages[i] for i in good), tuple(replies[i] for i in good))
    return Reply(*kept, scores, statistics, advantages, path, subject.label, layer, vectors.metric)


def _answers(subject: Subject, prompts: Sequence[str], tokens: int) -> list[str]:
    """Greedy replies, in batches of like length."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    replies = [""] * len(prompts)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        for i, reply in zip(batch, subject.generate([prompts[i] for i in batch], tokens), strict=True):
            replies[i] = reply.lstrip("\n")
    return replies


def _places(subject: Subject, message: str, prompt: str, reply: str, layer: int) -> dict[str, np.ndarray] | None:
    """[d_model] the residual stream at each place of one conversation; None if the reply is too short.

    Windows: the user's last token and the start of the reply each with tokens equally far behind them, and a token
    inside the message with the message's own.
    """
    text = prompt + reply
    if not reply.strip() or message not in prompt:
        return None
    first = first_token(subject, text, len(prompt))
    begin = text.find(message)
    opens, last = first_token(subject, text, begin), first_token(subject, text, begin + len(message) - 1)
    hidden = read(subject, text, [layer])[0]  # [token, d_model]
    length, gap = len(hidden) - first, first - 1 - last
    if length < max(LEAST, gap + 4):
        return None
    inside = last - length
    nothing = np.full(hidden.shape[1], np.nan)
    spans = subject.spans(text)
    path = {f"+{n} {text[slice(*spans[last + n])]!r}": hidden[last + n] for n in range(gap + 1)}
    return path | {
        MESSAGE: hidden[max(opens, 1) : last + 1].mean(0),
        LAST: hidden[last],
        START: hidden[first - 1],
        REPLY: hidden[first:].mean(0),
        LATE: hidden[first + LATE_FROM :].mean(0),
        WINDOWS[LAST]: hidden[first : len(hidden) - gap].mean(0),
        WINDOWS[START]: hidden[first + gap :].mean(0),
        INSIDE: hidden[inside] if inside >= max(opens, 1) else nothing,
        WINDOWS[INSIDE]: hidden[inside + 1 + gap : last + 1].mean(0) if inside >= max(opens, 1) else nothing,
    }


def _together(found: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """[message, d_model] for each place; tokens on the way from user to reply only where all messages share them."""
    names = [name for name in found[0] if not name.startswith("+")]
    ends = [name for name in found[0] if name.startswith("+") and not name.startswith("+0")]
    if all([name for name in one if name.startswith("+")][1:] == ends for one in found):
        names += ends
    return {name: np.stack([one[name] for one in found]) for name in names}


# --- statistics --------------------------------------------------------------------------------------------------


def _statistics(
    vectors: EmotionVectors, hidden: dict[str, np.ndarray], layer: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Statistics, advantages, path and scores, as in `Reply`."""
    sd = vectors.neutral_sd[METRICS.index(vectors.metric), :, vectors.row(layer)]
    away = {name: rows - vectors.neutral_mean[vectors.row(layer)] for name, rows in hidden.items()}
    scores = {name: rows @ (vectors.directions(layer) / sd[:, None]).T for name, rows in away.items()}
    path = [LAST, *(name for name in hidden if name.startswith("+"))]
    pairs = PAIRS | {(name, "path"): (name, LATE) for name in path}
    n = len(scores[REPLY])
    even = np.full((1, n), 1 / n)
    resampled = rng.multinomial(n, even[0], size=DRAWS) / n  # [draw, message]
    found = _correlations(scores, pairs, even).iloc[0]
    drawn = _correlations(scores, pairs, resampled)
    turned = [_correlations({k: away[k] @ map_.T for k in away}, pairs, even) for map_ in _turned_maps(vectors, rng)]
    null = pd.concat(turned)
    table = pd.DataFrame({"r": found, "low": drawn.quantile(0.025), "high": drawn.quantile(0.975)})
    table["shuffled_95"] = [
        np.nan if name not in pairs else _shuffled(*(scores[place] for place in pairs[name]), rng)
        for name in table.index
    ]
    table["turned_95"], table["turned_mean"] = null.quantile(0.95), null.mean()
    table.index = pd.MultiIndex.from_tuples(table.index, names=["from", "to"])
    way = table.loc[[(name, "path") for name in path]].droplevel("to")
    gains = table.loc["gain"].drop(columns="shuffled_95")
    frames = {name: pd.DataFrame(values, columns=vectors.emotions) for name, values in scores.items()}
    return table.loc[list(PAIRS)], gains, way if len(way) > 1 else way.iloc[:0], frames


def _correlations(scores: dict[str, np.ndarray], pairs: dict, weights: np.ndarray) -> pd.DataFrame:
    """[draw, pair] correlations under message weights [draw, message], and the gains made of them."""
    r = {name: _correlation(scores[a], scores[b], weights) for name, (a, b) in pairs.items()}
    for target in (REPLY, LATE, SAME):
        r["gain", target] = r[START, target] - r[LAST, target]
    known, passed = r[LAST, LATE], r[LAST, START]
    with np.errstate(invalid="ignore", divide="ignore"):  # both places may be one token
        r["gain", BEYOND] = (r[START, LATE] - known * passed) / np.sqrt((1 - known**2) * (1 - passed**2))
    return pd.DataFrame(r.values(), index=list(r)).T


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[draw] Pearson's r over messages and emotions of a, b [message, emotion], each emotion centred over messages."""
    whole = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    a, b, weights = a[whole], b[whole], weights[:, whole]
    weights = weights / weights.sum(1, keepdims=True)

    def product(x, y):
        return weights @ (x * y).sum(1) - ((weights @ x) * (weights @ y)).sum(1)

    return product(a, b) / np.sqrt(product(a, a) * product(b, b))


def _shuffled(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> float:
    """What 95 % of correlations stay below when each message gets the reply of another."""
    whole = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    a, b = (x[whole] - x[whole].mean(0) for x in (a, b))
    products = a @ b.T / np.sqrt((a**2).sum() * (b**2).sum())  # [message, message]
    places = np.arange(len(a))
    return float(np.quantile([products[places, rng.permutation(len(a))].sum() for _ in range(SHUFFLES)], 0.95))


def _turned_maps(vectors: EmotionVectors, rng: np.random.Generator):
    """[emotion, d_model] directions that are as alike among each other as the emotions are, and mean nothing.

    The vectors, whitened by the covariance within emotions, are turned at random and made into directions again.
    Scaled to their own sd on neutral tokens, as the emotions are.
    """
    layer = vectors.evidence.layer
    root = np.linalg.cholesky(fit(vectors.evidence.train).metric)
    white = np.linalg.solve(root, vectors.vectors[:, vectors.row(layer)].astype(float).T).T  # [emotion, d_model]
    left, sizes, _ = np.linalg.svd(white, full_matrices=False)
    points = (left * sizes)[:, sizes > sizes[0] * 1e-6]
    neutral = vectors.evidence.neutral[::4]  # enough for a standard deviation
    for _ in range(TURNS):
        turned = points @ np.linalg.qr(rng.standard_normal((white.shape[1], points.shape[1])))[0].T
        map_ = np.linalg.solve(root.T, turned.T).T if vectors.metric == "probe" else unit(turned @ root.T)
        yield map_ / (neutral @ map_.T).std(0)[:, None]


def _words(row: pd.Series) -> str:
    null = f"random maps {row.turned_mean:.2f}, 95 % of them below {row.turned_95:.2f}"
    return f"{row.r:.2f} (95 % {row.low:.2f} to {row.high:.2f}; {null})"


def _figure(found: Reply):
    import matplotlib.pyplot as plt

    pairs, way = found.statistics, found.path
    figure, panels = plt.subplots(1, 1 + (len(way) > 0), figsize=(13, 4.6), layout="constrained", squeeze=False)
    left, places = panels[0, 0], np.arange(len(pairs))
    for column, colour, label in (
        ("turned_mean", "#56b4e9", "random maps, mean"),
        ("turned_95", "#0072b2", "random maps, 95 %"),
        ("shuffled_95", "#999999", "shuffled messages, 95 %"),
    ):
        left.scatter(pairs[column], places, marker="|", s=180, lw=2.5, color=colour, label=label)
    ends = np.stack([pairs.r - pairs.low, pairs.high - pairs.r])
    left.errorbar(pairs.r, places, xerr=ends, fmt="o", color="#d55e00", capsize=4, label="emotions, 95 % interval")
    left.set_yticks(places, [f"{a} → {b}" for a, b in pairs.index])
    left.invert_yaxis()
    left.axvline(0, color="#999999", lw=0.8)
    left.set(xlabel="r over emotions and messages", title=f"{len(found.messages)} messages: what predicts what")
    left.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=2)
    if len(way):
        right, x = panels[0, 1], np.arange(len(way))
        right.fill_between(x, way.low, way.high, color="#d55e00", alpha=0.2, lw=0)
        right.plot(x, way.r, "o-", color="#d55e00", label="emotions, band 95 %")
        right.plot(x, way.turned_mean, "--", color="#56b4e9", label="random maps, mean")
        right.plot(x, way.turned_95, ":", color="#0072b2", label="random maps, 95 %")
        names = [name.split(" ", 1)[1].strip("'") if name.startswith("+") else "user's last" for name in way.index]
        right.set_xticks(x, names, rotation=30, ha="right")
        right.set(ylabel=f"r with the {LATE}", title="Token by token, from the user to the reply")
        right.legend(frameon=False, fontsize=9)
    plt.close(figure)
    return figure
