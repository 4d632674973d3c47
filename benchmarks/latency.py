"""How fast the prompt lab answers, on the kernel's side: `python -m benchmarks.latency [REPETITIONS]`.

An edit is a new text of 64 tokens, with its forward pass; the other changes look at a text that has been read. Each
goes the way of a message from the browser, and what would be sent back is made.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

import emolab as el
from emolab.widgets.prompt_lab import PRESETS, PromptLab, prompt_lab

TOKENS = 64
GOALS = {"edit": 400, "emotion": 60, "layer": 60, "unit": 60, "metric": 60}  # milliseconds, median, on 2 idle cores


def latency(repetitions: int = 40) -> pd.DataFrame:
    """[change]: median and 95th percentile in milliseconds, and the goal."""
    subject = el.load()
    vectors = el.load_vectors(el.DEFAULT)
    lab = prompt_lab(subject, vectors)
    rows = {}
    for name, todo in _changes(subject, vectors, repetitions + 1).items():
        taken = _milliseconds(lab, todo)
        rows[name] = {"median": np.median(taken), "p95": np.quantile(taken, 0.95), "goal": GOALS[name]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("change")


def _edits(subject: el.Subject, count: int) -> list[str]:
    """Texts of 64 tokens that differ in their last word."""
    words = " ".join(PRESETS.values()).split()
    texts = []
    for number in range(count):
        text = f" {number % 10}" * 8
        for word in words:
            if len(subject.encode(text)) >= TOKENS - 4:
                break
            text = f"{word} {text}"
        while len(subject.encode(text)) < TOKENS:
            text += f" {number}"[:2]
        texts.append(f"{text}"[:-1] + chr(97 + number % 26) + "!" * (number // 26))
    return texts


def _milliseconds(lab: PromptLab, changes: list[dict]) -> np.ndarray:
    """How long the lab takes to answer each of these messages."""
    found = []
    for number, change in enumerate(changes):
        start = time.perf_counter()
        lab.set_state({**change, "serial": number + 1})
        found.append((time.perf_counter() - start) * 1000)
        assert lab.done == number + 1 and not lab.error, lab.error
    return np.array(found[1:])  # the first one warms up


def _changes(subject: el.Subject, vectors: el.EmotionVectors, count: int) -> dict[str, list[dict]]:
    def turn_by_turn(make: Callable[[int], dict]) -> list[dict]:
        return [make(number) for number in range(count)]

    names, layers = vectors.emotions, vectors.layers
    return {
        "edit": [{"text": text} for text in _edits(subject, count)],
        "emotion": turn_by_turn(lambda i: {"emotions": [names[(i + k * 31) % len(names)] for k in range(4)]}),
        "layer": turn_by_turn(lambda i: {"layer": layers[i % len(layers)]}),
        "unit": turn_by_turn(lambda i: {"unit": ("raw", "cosine", "sd")[i % 3]}),
        "metric": turn_by_turn(lambda i: {"metric": ("vector", "probe")[i % 2]}),
    }


if __name__ == "__main__":
    print(latency(*map(int, sys.argv[1:2])).round(1).to_string())
