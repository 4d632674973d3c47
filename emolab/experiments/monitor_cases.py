"""emolab's sets as cases for monitors: passages by token, dialogues by turn, messages and denials by text."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from emolab import data
from emolab.errors import EmolabError
from emolab.experiments.monitors import MONITORS, Cases, Panel
from emolab.model import Subject
from emolab.vectors import EmotionVectors
from emolab.watching.scores import Laid, gauge, lay_out
from emolab.watching.thresholds import conformal, exact_interval, is_test, neutral_scores

PASSAGES, OTHERS, TURNS, MESSAGES, DANGER, DENIED = (
    "passages: tokens within the emotion, outside", "passages: the emotion, other emotions",
    "dialogues: the speaker's state, other states", "scenarios: the emotion called for, others",
    "danger pairs: dangerous, safe (afraid)", "sincere, denied or merely named",
)  # fmt: skip
VERSIONS = {"denied": "text", "sincere": "sincere", "plain": "plain"}  # of a text in `denials`


def kept_sets(known: Sequence[str], every: int) -> dict[str, list[dict]]:
    """The rows of each set whose emotions the vectors hold."""
    own = {
        "switching": lambda row: [s["state"] for s in row["segments"] if s["state"] != "neutral"],
        "dialogues": lambda row: [row["user_state"], row["assistant_state"]],
        "scenarios": lambda row: [row["emotion"]],
        "danger_safe": lambda row: ["afraid"],
        "denials": lambda row: [row["emotion"]],
    }
    found = {
        name: [row for row in data.prompts(name) if set(of(row)) <= set(known)][:: 1 if name == "denials" else every]
        for name, of in own.items()
    }  # denials are short, and few of each kind
    found["switching"] = [row for row in found["switching"] if row["kind"] == "neutral-emotion-neutral"]
    if len({row["segments"][1]["state"] for row in found["switching"]}) < 2:
        raise EmolabError("a monitor is judged on at least two emotions of data/sets/switching: extract more of them")
    return found


def watched_names(sets: dict[str, list[dict]]) -> tuple[str, ...]:
    """All emotions that are watched."""
    named = {row["segments"][1]["state"] for row in sets["switching"]}
    named |= {row[side] for row in sets["dialogues"] for side in ("user_state", "assistant_state")}
    named |= {row["emotion"] for name in ("scenarios", "denials") for row in sets[name]}
    return tuple(sorted(named | ({"afraid"} if sets["danger_safe"] else set())))


def lay_out_passages(subject: Subject, rows: list[dict]) -> list[tuple[Laid, str, slice]]:
    """(passage, emotion, its tokens) each."""
    found = []
    for row in rows:
        before, within, after = (segment["text"] for segment in row["segments"])
        laid = lay_out(subject, " ".join([before, within, after]))
        ends = np.cumsum([len(token) for token in laid.tokens])
        first, last = np.searchsorted(ends, [len(before) + 1, len(before) + 1 + len(within)], side="right")
        found.append((laid, row["segments"][1]["state"], slice(int(first), int(last))))
    return found


def by_token(passages, seen: list[np.ndarray], names: Sequence[str]) -> Cases:
    """Each token, by the score of its passage's own emotion."""
    scores, labels, units = [], [], []
    for number, ((_, emotion, span), found) in enumerate(zip(passages, seen, strict=True)):
        own = found[:, 1:, names.index(emotion)]  # [monitor, token], without token 0
        inside = np.zeros(own.shape[1], bool)
        inside[span.start - 1 : span.stop - 1] = True
        scores.append(own)
        labels.append(inside)
        units.append(np.full(len(inside), number))
    return Cases(np.concatenate(scores, 1), np.concatenate(labels), np.concatenate(units))


def by_span(passages, seen: list[np.ndarray], names: Sequence[str]) -> Cases:
    """Each emotional span, by the mean score of its own emotion and of each other one of the passages."""
    states = sorted({emotion for _, emotion, _ in passages})
    columns = [names.index(name) for name in states]
    means = [found[:, span][..., columns].mean(1) for (*_, span), found in zip(passages, seen, strict=True)]
    return _own_among(means, [emotion for _, emotion, _ in passages], states, range(len(passages)))


def _own_among(values: list[np.ndarray], own: list[str], names: Sequence[str], units) -> Cases | None:
    """Cases (text, emotion) of values [monitor, emotion]; positive where the emotion is the text's own."""
    if len(names) < 2 or not values:
        return None
    labels = np.array([[name == one for name in names] for one in own])
    return Cases(np.concatenate(values, 1), labels.ravel(), np.repeat(np.array(units), len(names)))


def of_messages(monitors: Panel, sets: dict[str, list[dict]], names: Sequence[str]) -> dict[str, Cases | None]:
    """Dialogues, scenarios and danger pairs, in the chat template: the highest running mean of each turn."""
    subject, rows = monitors.subject, sets["dialogues"]
    chats = [[{"role": turn["role"], "content": turn["text"]} for turn in row["turns"]] for row in rows]
    chats += [[{"role": "user", "content": row["text"]}] for row in sets["scenarios"]]
    pairs = [(row["danger"], row["safe"]) for row in sets["danger_safe"]]
    chats += [[{"role": "user", "content": text}] for pair in pairs for text in pair]
    laid = [lay_out(subject, chat) for chat in chats]
    peaks = [
        [found[:, turn.tokens].max(1) for turn in one.turns]
        for one, found in zip(laid, monitors.look(laid), strict=True)
    ]  # [chat][turn] of [monitor, emotion]
    n, m = len(rows), len(rows) + len(sets["scenarios"])
    states = sorted({row[side] for row in rows for side in ("user_state", "assistant_state")})
    turns = [(k, row[f"{turn.role}_state"], peak) for k, row in enumerate(rows)
             for turn, peak in zip(laid[k].turns, peaks[k], strict=True)]  # fmt: skip
    columns = [names.index(name) for name in states]
    called = sorted({row["emotion"] for row in sets["scenarios"]})
    danger = None
    if pairs:
        afraid = np.stack([peak[0][:, names.index("afraid")] for peak in peaks[m:]], 1)  # [monitor, message]
        danger = Cases(afraid, np.arange(2 * len(pairs)) % 2 == 0, np.repeat(np.arange(len(pairs)), 2))
    messages = [peak[0][:, [names.index(name) for name in called]] for peak in peaks[n:m]]
    return {
        TURNS: _own_among([p[:, columns] for *_, p in turns], [own for _, own, _ in turns], states,
                          [k for k, *_ in turns]),
        MESSAGES: _own_among(messages, [row["emotion"] for row in sets["scenarios"]], called, range(m - n)),
        DANGER: danger,
    }  # fmt: skip


# --- thresholds and denials ----------------------------------------------------------------------------------------


def neutral_peaks(subject: Subject, vectors: EmotionVectors, monitors: Panel, laid: Sequence[Laid]) -> np.ndarray:
    """[monitor, text, emotion] the highest running mean, or window of words, of each neutral text."""
    every = gauge(vectors)
    columns = [every.names.index(name) for name in monitors.own.names]
    own = neutral_scores(subject, every, texts=[one.text for one in laid]).peaks[:, columns]
    words = np.stack([monitors.words.scores(one)[:, 1:].max(1) for one in laid], 1)  # [window, text, emotion]
    return np.concatenate([own[None], words])


def limits_at(rates: Sequence[float], peaks: np.ndarray, laid: Sequence[Laid]) -> dict[float, np.ndarray]:
    """{rate: [monitor, emotion] thresholds} from the neutral texts that calibrate."""
    made = np.array([not is_test(one.text) for one in laid])
    return {
        rate: np.array([[conformal(column, rate) for column in monitor[made].T] for monitor in peaks]) for rate in rates
    }


def denied(monitors: Panel, rows: list[dict], limit: np.ndarray) -> tuple[pd.DataFrame, Cases | None]:
    """Shares of texts with an alarm by kind and monitor, and the cases sincere (positive) against denied."""
    names = monitors.own.names
    if not rows:
        columns = ["denied", "low", "high", "sincere", "plain", "texts"]
        return pd.DataFrame(columns=columns, index=pd.MultiIndex.from_arrays([[], []], names=["kind", "monitor"])), None
    laid = [lay_out(monitors.subject, row[key]) for key in VERSIONS.values() for row in rows]
    seen = monitors.look(laid)
    own = [names.index(row["emotion"]) for _ in VERSIONS for row in rows]
    peaks = np.stack([found[:, 1:, column].max(1) for found, column in zip(seen, own, strict=True)], 1)
    alarms = peaks[: len(MONITORS)] > limit[:, own]
    alarms = alarms.reshape(len(MONITORS), len(VERSIONS), len(rows))  # [monitor, version, row]
    kinds, table = np.array([row["kind"] for row in rows]), {}
    for kind in dict.fromkeys(kinds):
        for number, name in enumerate(MONITORS):
            here = alarms[number][:, kinds == kind]
            low, high = exact_interval(here[0].sum(), here.shape[1])
            shares = dict(zip(VERSIONS, here.mean(1), strict=True))
            table[kind, name] = {"denied": shares["denied"], "low": low, "high": high} | shares
            table[kind, name] |= {"texts": here.shape[1]}
    n = len(rows)
    cases = Cases(peaks[:, : 2 * n], np.arange(2 * n) >= n, np.tile(np.arange(n), 2))
    return pd.DataFrame.from_dict(table, orient="index").rename_axis(["kind", "monitor"]), cases
