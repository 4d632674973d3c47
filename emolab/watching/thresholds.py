"""Thresholds of a monitor: from neutral texts, with a known rate of false alarms, tested on texts that set nothing.

An *alarm* is about a text: it is raised where the running mean of an emotion's score passes the emotion's alarm
threshold. That is the split-conformal quantile of the highest running mean in each calibrating text: of new texts like
these, at most a share of `false_alarm` raises any alarm of that emotion, however the scores are distributed (Vovk et
al. 2005, Algorithmic Learning in a Random World). A *token* stands out where its own score passes the token threshold:
the plain quantile of all tokens' scores; a share of `false_alarm` of neutral tokens does.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.stats import binomtest

from emolab import data
from emolab.embedded import cache_folder
from emolab.errors import EmolabError, unknown
from emolab.files import atomic
from emolab.model import Subject
from emolab.vectors import EmotionVectors
from emolab.watching.scores import CLIP, WINDOW, Gauge, Laid, gauge, lay_out, read_scores, smoothed

KINDS = ("plain", "chat")
TEST = 3  # one neutral text in so many, drawn by its hash, sets no threshold and tests them
GRID = np.unique(np.r_[0, 1 - np.geomspace(1e-4, 1, 161), 1])  # quantiles of token scores that are kept
SHIPPED = data.DATA / "watch"  # what neutral texts reach in the default model


@dataclass(frozen=True)
class Neutral:
    """What neutral texts reach.

    names : of the directions
    peaks : [text, direction] the highest running mean of each text
    tokens : [(calibrating, test), GRID, direction] quantiles of single tokens' scores
    lengths : [text] tokens that were scored
    tests : [text] whether it tests; the others calibrate
    """

    names: tuple[str, ...]
    peaks: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    tests: np.ndarray

    def rate(self, direction: int, threshold: float) -> float:
        """The share of tokens of the test texts above a threshold."""
        return float(1 - np.interp(threshold, self.tokens[1, :, direction], GRID))


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of one kind of text, and what they were made of.

    kind : 'plain' texts or 'chat', in the model's chat template
    false_alarm : the rate that was asked for
    alarm : for each emotion what the running mean must pass to raise an alarm; controls alarms per *text*
    token : for each emotion what a single token's score must pass to stand out; controls the rate per *token*
    window : tokens of the running mean
    texts, tokens : how many calibrated; typical : scored tokens of the median text
    test_texts, test_alarms, test_tokens : texts that tested; how many of them raised an alarm of each emotion; share
        of their tokens that stand out
    model, weights, directions, layer, metric : what they belong to; `directions` has a hash for each emotion
    """

    kind: str
    false_alarm: float
    alarm: dict[str, float]
    token: dict[str, float]
    window: int
    texts: int
    tokens: int
    typical: int
    test_texts: int
    test_alarms: dict[str, int]
    test_tokens: dict[str, float]
    model: str
    weights: str
    directions: dict[str, str]
    layer: int
    metric: str

    @property
    def emotions(self) -> tuple[str, ...]:
        """What they are for."""
        return tuple(self.alarm)

    def table(self) -> pd.DataFrame:
        """[emotion] thresholds [sd], and the test: share of unseen neutral texts with an alarm (95 %, Clopper-Pearson)
        and share of their tokens that stand out."""
        rows = {}
        for name in self.emotions:
            low, high = exact_interval(self.test_alarms[name], self.test_texts)
            rows[name] = {
                "alarm threshold": self.alarm[name], "token threshold": self.token[name], "asked": self.false_alarm,
                "false alarms": self.test_alarms[name], "of texts": self.test_texts,
                "per text": self.test_alarms[name] / self.test_texts if self.test_texts else np.nan,
                "low": low, "high": high, "per token": self.test_tokens[name],
            }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("emotion")

    def expected(self, tokens: int) -> float:
        """The chance of a false alarm in a neutral text of so many tokens: longer texts have more chances."""
        return 1 - (1 - self.false_alarm) ** max(tokens / max(self.typical, 1), 1)

    def check(self, vectors: EmotionVectors) -> None:
        """Raises EmolabError if they were made for another model, other vectors or another layer."""
        if self.weights != weights_of(vectors):
            raise EmolabError(
                f"these thresholds were made for {self.model}, not for {vectors.info.get('model', 'this model')} as "
                "loaded here: leave them out, and new ones are made"
            )
        same = self.directions == hashes(vectors, self.emotions, self.layer)
        if self.metric != vectors.metric or not same:
            raise EmolabError(
                f"these thresholds were made for other vectors of {self.model} than these: leave them out, and new "
                "ones are made"
            )


def exact_interval(count: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Clopper and Pearson."""
    if not n:
        return float("nan"), float("nan")
    found = binomtest(int(count), int(n)).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


def weights_of(vectors: EmotionVectors) -> str:
    """A short hash of the weights that vectors belong to."""
    return sha256(str(vectors.info.get("weights")).encode()).hexdigest()[:16]


def hashes(vectors: EmotionVectors, emotions: Sequence[str], layer: int) -> dict[str, str]:
    """A hash of each emotion's direction, scale and zero. Raises EmolabError for an unknown emotion."""
    return {name: gauge(vectors, [name], layer).hash for name in emotions}


def is_test(text: str) -> bool:
    """Whether a neutral text tests thresholds rather than making them: fixed by its hash."""
    return sha256(text.encode()).digest()[0] % TEST == 0


def conformal(peaks: np.ndarray, false_alarm: float) -> float:
    """The peak that a new one passes with a chance of at most `false_alarm`. Raises EmolabError for too few peaks.

    >>> conformal(np.arange(1.0, 100.0), 0.05)
    95.0
    """
    if not 0 < false_alarm < 1:
        raise EmolabError(f"a rate of false alarms lies between 0 and 1, such as 0.01; got {false_alarm}")
    place = int(np.ceil((len(peaks) + 1) * (1 - false_alarm) - 1e-9))
    if place > len(peaks):
        raise EmolabError(
            f"{len(peaks)} neutral texts can't calibrate a rate of {false_alarm:g} false alarms: ask for at least "
            f"{1 / (len(peaks) + 1):.2g}, or give more texts with neutral="
        )
    return float(np.sort(peaks)[place - 1])


def as_chat(text: str) -> list[dict]:
    """A text cut in two near its middle, at the end of a sentence if it has one: the user's half, the assistant's."""
    ends = [i + 1 for i in range(len(text) - 1) if text[i] in ".!?" and text[i + 1].isspace()]
    ends = ends or [i for i, letter in enumerate(text) if letter.isspace()]
    cut = min(ends, key=lambda place: abs(place - len(text) / 2), default=len(text))
    halves = [part.strip() for part in (text[:cut], text[cut:])]
    return [{"role": role, "content": half} for role, half in zip(("user", "assistant"), halves, strict=True) if half]


def lay_out_as(subject: Subject, text: str, kind: str) -> Laid:
    """A neutral text laid out as plain text or as a chat."""
    return lay_out(subject, as_chat(text) if kind == "chat" else text)


def neutral_scores(
    subject: Subject, used: Gauge, kind: str = "plain", window: int = WINDOW, texts: Sequence[str] | None = None
) -> Neutral:
    """What neutral texts (default emolab's own) reach along the gauge's directions.

    Kept in the cache folder; for the default model with its own vectors it is shipped.
    """
    texts = list(data.neutral() if texts is None else texts)
    if kind not in KINDS:
        raise unknown("kind of text", kind, KINDS)
    key = [subject.weight_sample, used.hash, kind, window, CLIP, texts]
    key = sha256(json.dumps(key).encode()).hexdigest()[:24]
    kept = cache_folder() / "watch" / f"{key}.{str(subject.dtype).removeprefix('torch.')}.safetensors"
    split = np.array([is_test(text) for text in texts])
    for path in (SHIPPED / f"{subject.name.replace('/', '-')}.{kind}.safetensors", kept):
        if arrays := _kept(path, key):
            return Neutral(used.names, tests=split, **arrays)
    laid = [lay_out_as(subject, text, kind) for text in texts]
    scores = [found[0] for found in read_scores(subject, [one.ids for one in laid], used)]
    turns = [[turn.tokens for turn in one.turns] for one in laid]
    if not all(turns) or split.all() or not split.any():
        raise EmolabError(f"{len(texts)} neutral texts are too few or too short to make thresholds of: give more")
    peaks = np.stack([np.nanmax(smoothed(s, t, window), axis=0) for s, t in zip(scores, turns, strict=True)])
    single = [np.concatenate([s[turn] for turn in t]) for s, t in zip(scores, turns, strict=True)]
    tokens = [
        np.quantile(np.concatenate([s for s, test in zip(single, split, strict=True) if test == half]), GRID, axis=0)
        for half in (False, True)
    ]
    arrays = {"peaks": peaks.astype(np.float32), "tokens": np.stack(tokens).astype(np.float32)}
    arrays |= {"lengths": np.array([len(s) for s in single], dtype=np.int32)}
    with atomic(kept) as scratch:
        save_file(arrays, scratch, {"key": key})
    return Neutral(used.names, tests=split, **arrays)


def _kept(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays of a file, if it is there, whole and made of the same things."""
    try:
        with safe_open(path, "np") as file:
            same = (file.metadata() or {}).get("key") == key
            return {name: file.get_tensor(name) for name in ("peaks", "tokens", "lengths")} if same else None
    except (OSError, SafetensorError):
        return None


def calibrate(
    subject: Subject,
    vectors: EmotionVectors,
    emotions: Sequence[str],
    false_alarm: float,
    *,
    layer: int | None = None,
    kind: str = "plain",
    window: int = WINDOW,
    neutral: Sequence[str] | None = None,
) -> Thresholds:
    """Thresholds of some emotions for one kind of text. Two neutral texts in three set them, the others test them.

    Raises EmolabError for an unknown emotion, a rate that so few texts can't calibrate, a layer that isn't there.
    """
    names = tuple(emotions)
    gauge(vectors, names, layer)  # an unknown emotion shows before the work
    every = gauge(vectors, None, layer)  # all emotions cost no more than one, and stay in the cache for the next watch
    found = neutral_scores(subject, every, kind, window, neutral)
    columns, made = [every.names.index(name) for name in names], ~found.tests
    alarm = {name: conformal(found.peaks[made, c], false_alarm) for name, c in zip(names, columns, strict=True)}
    token = {
        name: float(np.interp(1 - false_alarm, GRID, found.tokens[0, :, c]))
        for name, c in zip(names, columns, strict=True)
    }
    pairs = list(zip(names, columns, strict=True))
    return Thresholds(
        kind=kind,
        false_alarm=false_alarm,
        alarm=alarm,
        token=token,
        window=window,
        texts=int(made.sum()),
        tokens=int(found.lengths[made].sum()),
        typical=int(np.median(found.lengths[made])),
        test_texts=int(found.tests.sum()),
        test_alarms={name: int((found.peaks[found.tests, c] > alarm[name]).sum()) for name, c in pairs},
        test_tokens={name: found.rate(c, token[name]) for name, c in pairs},
        model=subject.name,
        weights=weights_of(vectors),
        directions=hashes(vectors, names, layer),
        layer=every.layer,
        metric=vectors.metric,
    )


def chosen(thresholds: Thresholds, emotions: Sequence[str]) -> Thresholds:
    """Those of some emotions. Raises EmolabError for one that they don't hold."""
    for name in emotions:
        if name not in thresholds.alarm:
            raise unknown("emotion", name, thresholds.emotions)
    kept = ("alarm", "token", "test_alarms", "test_tokens", "directions")
    return replace(thresholds, **{key: {name: getattr(thresholds, key)[name] for name in emotions} for key in kept})


def save_thresholds(path: str | Path, *thresholds: Thresholds) -> Path:
    """Write thresholds of one or both kinds as JSON; whole or not at all."""
    path = Path(path)
    with atomic(path) as scratch:
        scratch.write_text(json.dumps([asdict(one) for one in thresholds], indent=1) + "\n", encoding="utf-8")
    return path


def load_thresholds(path: str | Path) -> dict[str, Thresholds]:
    """{kind: thresholds} of a file. Raises EmolabError if there is none or it holds something else."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(rows, list) or not rows:
            raise ValueError("no list of thresholds")
        return {one.kind: one for one in (Thresholds(**row) for row in rows)}
    except (OSError, ValueError, TypeError) as error:
        raise EmolabError(f"{path} holds no thresholds ({error}): make them with Watch(...).save(path)") from None
