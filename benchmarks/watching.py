"""What watching costs: `python -m benchmarks.watching [REPETITIONS]`, on generation and on reading.

With and without a watch in turn, so that whatever else the machine does falls on both alike; medians, and the median of
the ratios of neighbours with its 95 % bootstrap interval. Reading is beside a pass of the same text down to the same
layer, and beside a whole pass of the model with its logits.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import emolab as el

TOKENS = 64
EMOTIONS = ["desperate", "angry", "afraid"]
PROMPT = "Dear diary, this evening I am sitting at the kitchen table, and"
GOAL = 5.0  # per cent


def watching(repetitions: int = 30) -> pd.DataFrame:
    """[what]: median milliseconds without and with the watch, overhead in per cent with interval, and the goal."""
    subject = el.load()
    watch = el.Watch(subject, el.load_vectors(el.DEFAULT), EMOTIONS)
    text = next(text for text in el.neutral() if len(subject.encode(text)) >= 150)
    ids = torch.tensor([subject.encode(text)], device=subject.device)
    plain = lambda: subject.generate(PROMPT, TOKENS, min_new_tokens=TOKENS)  # noqa: E731

    def watched(log: Path | None = None) -> None:
        with watch.live(log=log) as live:
            subject.generate(PROMPT, TOKENS, min_new_tokens=TOKENS, stopping_criteria=[live])

    def whole() -> None:
        with torch.inference_mode():
            subject.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)

    with tempfile.TemporaryDirectory() as folder:
        jobs = {
            f"generating {TOKENS} tokens": (plain, watched),
            f"generating {TOKENS} tokens, with a log": (plain, lambda: watched(Path(folder) / "watch.jsonl")),
            f"reading {ids.shape[1]} tokens, beside el.read of the layer": (
                lambda: el.read(subject, text, [watch.layer]),
                lambda: watch.read(text),
            ),
            f"reading {ids.shape[1]} tokens, beside a whole pass": (whole, lambda: watch.read(text)),
        }
        rows = {name: _compared(*pair, repetitions) for name, pair in jobs.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("what")


def _compared(without: Callable, having: Callable, repetitions: int) -> dict[str, float]:
    taken = np.array([[_milliseconds(job) for job in (without, having)] for _ in range(repetitions + 1)])[1:]
    ratios = 100 * (taken[:, 1] / taken[:, 0] - 1)
    drawn = np.median(np.random.default_rng(0).choice(ratios, (1000, len(ratios))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    without_ms, with_ms = np.median(taken, axis=0)
    return {"without": without_ms, "with": with_ms, "overhead %": np.median(ratios), "low": low, "high": high,
            "goal": GOAL}  # fmt: skip


def _milliseconds(job: Callable) -> float:
    start = time.perf_counter()
    job()
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    print(watching(*map(int, sys.argv[1:2])).round(1).to_string())
