"""How fast does a score fall after an event? Statistics of token scores; arrays in, arrays out.

Scores are in any unit; tokens are counted from 1, the first token after the event. Single tokens are noisy, so a
score counts as fallen only when it stays below half for several tokens, and a half-life means little without two
yardsticks: what the same noise gives when the event is gone at once, and when it lasts.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from emolab.errors import EmolabError

BEFORE, AFTER = 20, 60  # tokens of the windows around an event
STAY = 5  # tokens in a row below half. With 3 the noise of single tokens ends even an event that lasts, after 6 tokens
LEAST = 0.5  # sd by which an event's mean has to rise above neutral: where nothing rose, nothing can fall
LAGS = 40
DRAWS = 1000  # of each bootstrap


def half_life(after: np.ndarray, level: float, baseline: float = 0.0, stay: int = STAY) -> tuple[int, bool]:
    """(tokens, reached): when a score has fallen to half and stays there.

    `after` [token] is the score from the first token after the event on, `level` its mean within the event. Half is
    midway between baseline and level. The half-life is n if the n-th token after the event is the first of `stay`
    tokens in a row at or below half. If there are none, reached is False, and n is the last token it could have been.

    Raises EmolabError if the level is not above the baseline or fewer than `stay` tokens are given.

    >>> half_life(np.array([8.0, 6, 4, 3, 2, 1]), level=8, stay=3)
    (3, True)
    >>> half_life(np.ones(10), level=1, stay=3)
    (8, False)
    """
    if not level > baseline:
        raise EmolabError(f"a half-life needs a level above the baseline, got {level:.3g} and {baseline:.3g}")
    if len(after) < stay:
        raise EmolabError(f"a half-life needs at least {stay} tokens after the event, got {len(after)}")
    below = np.asarray(after) <= (level + baseline) / 2
    stays = np.lib.stride_tricks.sliding_window_view(below, stay).all(-1)
    return (int(stays.argmax()) + 1, True) if stays.any() else (len(stays), False)


def kaplan_meier(tokens: np.ndarray, reached: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Share of events still above half after 1, 2, 3, ... tokens, by Kaplan & Meier (1958).

    tokens, reached : [event], from `half_life`; an event that did not reach half counts as long as it was seen.
    weights : [..., event] how often each event counts (bootstrap); default once.
    Returns [..., tokens].

    >>> kaplan_meier(np.array([1, 2, 2, 4]), np.array([True, True, False, True]))
    array([0.75, 0.5 , 0.5 , 0.  ])
    """
    tokens, reached = np.asarray(tokens), np.asarray(reached, dtype=bool)
    weights = np.ones(len(tokens)) if weights is None else weights
    times = np.arange(1, tokens.max() + 1)
    falls = weights @ ((tokens[:, None] == times) & reached[:, None])  # [..., time]
    at_risk = weights @ (tokens[:, None] >= times).astype(float)
    return np.cumprod(1 - falls / np.maximum(at_risk, 1e-12), axis=-1)


def median_life(survival: np.ndarray) -> np.ndarray:
    """[...] the first token count at which no more than half survive; inf if that is not reached."""
    low = survival <= 0.5 + 1e-12
    return np.where(low.any(-1), low.argmax(-1) + 1.0, np.inf)


def autocorrelation(tracks: Sequence[np.ndarray], lags: int = LAGS) -> np.ndarray:
    """[lag, ...] correlation of scores 0, 1, ..., `lags` tokens apart, each track centred first, then pooled.

    tracks : each [token] or [token, ...]. Centring in short texts pulls all values down by about 1 / tokens, so
    compare with nulls on the same texts. Raises EmolabError if no track is long enough.
    """
    centred = [track - track.mean(0) for track in tracks]
    if not any(len(track) > lags for track in centred):
        raise EmolabError(f"no track is longer than {lags} tokens: ask for fewer lags or give longer texts")

    def pooled(lag: int) -> np.ndarray:
        long = [track for track in centred if len(track) > lag]
        return sum((x[: len(x) - lag] * x[lag:]).sum(0) for x in long) / sum(len(x) - lag for x in long)

    return np.stack([pooled(lag) for lag in range(lags + 1)]) / np.maximum(pooled(0), 1e-30)


def integrated_time(correlation: np.ndarray) -> float:
    """1 + 2 x the sum of an autocorrelation [lag] up to its first value that is not positive, in tokens.

    So many neighbouring tokens say as much as one independent one: 1 for white noise (Sokal 1997).
    """
    gone = np.flatnonzero(correlation[1:] <= 0)
    return float(1 + 2 * correlation[1 : gone[0] + 1 if len(gone) else None].sum())


def runs(track: np.ndarray, threshold: float = 1.0) -> np.ndarray:
    """[run] lengths of the stretches of tokens above a threshold.

    >>> runs(np.array([0, 2, 2, 0, 3.0]))
    array([2, 1])
    """
    steps = np.diff(np.concatenate([[0], (np.asarray(track) > threshold).astype(int), [0]]))
    return np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)


def event_locked(track: np.ndarray, place: int, before: int = BEFORE, after: int = AFTER) -> np.ndarray:
    """[before + after, ...] the tokens place - before .. place + after - 1 of a track, NaN where it has none."""
    window = np.full((before + after, *track.shape[1:]), np.nan)
    first, last = max(place - before, 0), min(place + after, len(track))
    window[first - place + before : last - place + before] = track[first:last]
    return window


def smooth(track: np.ndarray, width: int = 5) -> np.ndarray:
    """[token] centred moving average; towards both ends the window narrows, so that a slope is not shifted.

    >>> smooth(np.array([5.0, 0, 1, 0, 0]), width=3)
    array([5.        , 2.        , 0.33333333, 0.33333333, 0.        ])
    """
    place = np.arange(len(track))
    half = np.minimum(np.minimum(place, len(track) - 1 - place), width // 2)
    total = np.concatenate([[0], np.cumsum(track)])
    return (total[place + half + 1] - total[place - half]) / (2 * half + 1)


def resample(events: int, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """[draw, event] how often each event is drawn in a bootstrap."""
    return np.random.default_rng(seed).multinomial(events, np.full(events, 1 / events), size=draws)


def mean_with_band(windows: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean over [event, token] windows without NaN, its 95 % low and high, and the bootstrap [draw, token]."""
    known = ~np.isnan(windows)
    weights = resample(len(windows), seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (weights @ np.where(known, windows, 0)) / (weights @ known.astype(float))
        mean = np.where(known, windows, 0).sum(0) / known.sum(0)
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    return mean, low, high, drawn


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of bootstrap values, which may be infinite."""
    low, high = np.quantile(values[~np.isnan(values)], [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


# --- rows of tables --------------------------------------------------------------------------------------------------


def life(after: np.ndarray, level: float, stay: int = STAY) -> dict[str, float]:
    """The half-life of one score [sd] as a row: level, rose (by LEAST at least), tokens, reached."""
    tokens, reached = half_life(after[:AFTER], level, stay=stay) if level >= LEAST else (0, False)
    return {"level": level, "rose": level >= LEAST, "tokens": tokens, "reached": reached}


def life_row(rows: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """Many half-lives (rows of `life`) in one row.

    rose : share of events that rose; the rest is about these
    half_life, low, high : Kaplan-Meier median in tokens, 95 % interval by a bootstrap over events; inf: not reached
    not_reached : share of events that stayed above half as long as they were seen
    """
    rose = rows[rows.rose]
    if not len(rose):
        return dict.fromkeys(("half_life", "low", "high", "not_reached"), np.nan) | {"rose": 0.0}
    tokens, reached = rose.tokens.to_numpy(), rose.reached.to_numpy(bool)
    low, high = interval(median_life(kaplan_meier(tokens, reached, resample(len(rose), seed))))
    return {
        "half_life": float(median_life(kaplan_meier(tokens, reached))),
        "low": low,
        "high": high,
        "not_reached": float(1 - reached.mean()),
        "rose": float(rows.rose.mean()),
    }


def curve_row(windows: np.ndarray, levels: np.ndarray, seed: int = 0, stay: int = STAY) -> dict[str, float]:
    """Half-life of the mean over events of `windows` [event, token after the event], with a 95 % bootstrap interval.

    Averaging first, over events and then over five tokens (`smooth`), takes out the noise of single tokens: planted
    half-lives of 2 to 20 tokens come back within their intervals at twice this noise. inf where half is not reached,
    NaN without events.
    """
    if not len(levels):
        return dict.fromkeys(("of_mean", "of_mean_low", "of_mean_high"), np.nan)
    mean, _, _, drawn = mean_with_band(windows[:, ~np.isnan(windows).all(0)], seed)
    drawn_levels = resample(len(levels), seed) @ levels / len(levels)
    found = []
    for curve, level in zip([mean, *drawn], [levels.mean(), *drawn_levels], strict=True):
        tokens, reached = half_life(smooth(curve[~np.isnan(curve)]), level, stay=stay) if level > 0 else (np.nan, True)
        found.append(float(tokens) if reached else np.inf)
    low, high = interval(np.array(found[1:]))
    return {"of_mean": found[0], "of_mean_low": low, "of_mean_high": high}


def share_row(windows: np.ndarray, levels: np.ndarray, tokens: slice, seed: int = 0) -> tuple[float, float, float]:
    """Mean score over some tokens after the event as a share of the mean level: share, 95 % low and high.

    windows : [event, token], levels : [event]; the bootstrap draws events, score and level together.
    """
    weights = np.concatenate([np.ones((1, len(levels))), resample(len(levels), seed)])
    drawn = (weights @ np.nanmean(windows[:, tokens], axis=1)) / (weights @ levels)
    return (float(drawn[0]), *interval(drawn[1:]))


def number(tokens: float) -> str:
    """A half-life in words: inf is 'not reached', NaN 'not measurable'."""
    return "not measurable" if np.isnan(tokens) else "not reached" if np.isinf(tokens) else f"{tokens:.0f}"


def in_tokens(tokens: float) -> str:
    """The same with its unit.

    >>> in_tokens(3.0), in_tokens(np.inf)
    ('3 tokens', 'not reached')
    """
    return number(tokens) + (" token" if tokens == 1 else " tokens" if np.isfinite(tokens) else "")
