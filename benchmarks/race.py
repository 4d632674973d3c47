"""The race: every reader does the same work, in turns, and all must come to the same means.

A repetition asks all readers one after the other, so that a machine that slows down does so for everybody.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.peers.protocol import Work
from benchmarks.reader import Entrant, PeerError, Reader

WARM_UP = 16  # stories; they also choose the faster dtype
SAME = 0.999  # the cosine above which two means are the same


@dataclass(frozen=True)
class Race:
    """What happened.

    runs : one row a run: job, reader, dtype, seconds, cosine (the worst of all stories and layers)
    beside : what was measured between the runs, once a repetition
    versions : of each reader's packages
    missing : who isn't here, and why
    """

    runs: pd.DataFrame
    beside: list[float]
    versions: dict[str, dict[str, str]]
    missing: dict[str, str]

    def table(self, tokens: int) -> pd.DataFrame:
        """[job, reader, dtype]: median tokens/s with lowest and highest, time by the first reader's time, cosine."""
        runs = self.runs.groupby(["job", "reader", "dtype"], sort=False)
        seconds = runs["seconds"].median()
        return pd.DataFrame(
            {
                "tokens_per_s": tokens / seconds,
                "low": tokens / runs["seconds"].max(),
                "high": tokens / runs["seconds"].min(),
                "ratio": seconds / seconds.groupby("job", sort=False).transform("first"),
                "cosine": runs["cosine"].min(),
            }
        )

    @property
    def agree(self) -> bool:
        """Whether all means are the same."""
        return bool((self.runs["cosine"] > SAME).all())


def race(
    entrants: Sequence[Entrant],
    work: Work,
    jobs: dict[str, tuple[int, ...]],
    repetitions: int,
    last_tokens: Callable[[tuple[int, ...]], np.ndarray],
    beside: Callable[[], float],
) -> Race:
    """Let everybody do every job (the layers to read) `repetitions` times, in turns.

    The first entrant is the one whom the others are compared with; `last_tokens(layers)` gives the states of the
    first few stories [story, layer, d_model] that readers of the last token are held to; `beside()` is called once a
    repetition. A peer that doesn't start is reported as missing. Raises PeerError for one that breaks off later, or
    if the first doesn't start.
    """
    runs, measured, missing = [], [], {}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        (Path(folder) / "work.json").write_text(json.dumps(asdict(work)))
        readers: list[Reader] = []
        for entrant in tqdm(entrants, desc="loading and warming up"):
            try:
                readers.append(_faster(entrant, work, Path(folder), stack))
            except PeerError as error:
                if not readers:
                    raise
                missing[entrant.name] = str(error)
        with tqdm(total=repetitions * len(jobs) * len(readers), desc="racing") as bar:
            for _ in range(repetitions):
                measured.append(beside())
                for job, layers in jobs.items():
                    ours = None
                    for reader in readers:
                        seconds, means = reader.do(len(work.texts), layers)
                        ours = means if ours is None else ours
                        reference = last_tokens(layers) if reader.entrant.last_token else ours
                        cosine = _worst_cosine(means, reference, _comparable(reader.entrant, layers, work))
                        runs.append((job, reader.entrant.name, reader.dtype, seconds, cosine))
                        bar.update()
    versions = {reader.entrant.name: reader.versions for reader in readers}
    return Race(
        pd.DataFrame(runs, columns=["job", "reader", "dtype", "seconds", "cosine"]), measured, versions, missing
    )


def _faster(entrant: Entrant, work: Work, folder: Path, stack: ExitStack) -> Reader:
    """The entrant in its faster dtype, warm; `stack` will close it."""
    readers = [stack.enter_context(Reader(entrant, dtype, folder)) for dtype in entrant.dtypes]
    warm_up = min(WARM_UP, len(work.texts))
    seconds = [reader.do(warm_up, range(1, work.n_layers + 1))[0] for reader in readers]
    best = readers[int(np.argmin(seconds))]
    for reader in readers:
        if reader is not best:
            reader.process.kill()
    return best


def _comparable(entrant: Entrant, layers: Sequence[int], work: Work) -> list[int]:
    """The rows of the layers on which an entrant's means can be compared."""
    return [row for row, layer in enumerate(layers) if entrant.last_layer or layer < work.n_layers]


def _worst_cosine(means: np.ndarray, reference: np.ndarray, rows: list[int]) -> float:
    """The lowest cosine of two sets of means [story, layer, d_model] over the stories of the second and some layers."""
    first, second = (
        m[: len(reference), rows] / np.linalg.norm(m[: len(reference), rows], axis=-1, keepdims=True)
        for m in (means, reference)
    )
    return float((first * second).sum(-1).min())
