"""`Reader`: a process of `peers/` that keeps its model loaded and answers jobs."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.venvs import python_of


@dataclass(frozen=True)
class Entrant:
    """One who reads: a script in `peers/`, and the dtypes that it tries, of which the faster one enters."""

    name: str
    peer: str
    dtypes: tuple[str, ...]
    venv: str | None = None  # whose environment; None for the one that runs the benchmark
    last_layer: bool = True  # False if the final norm has been applied there: then that layer isn't compared
    last_token: bool = False  # reads that token only: another job, compared with our last tokens


class PeerError(Exception):
    """A peer could not be installed, loaded or run."""


class Reader:
    """An entrant's process, for `with`. `folder` holds the work.json that it gets, and takes its means and its log.

    Raises PeerError if the environment can't be made or the process ends before it should.
    """

    def __init__(self, entrant: Entrant, dtype: str, folder: Path):
        self.entrant, self.dtype = entrant, dtype
        self.means, self.log = (folder / f"{entrant.peer}-{dtype}.{suffix}" for suffix in ("npy", "log"))
        try:
            python = sys.executable if entrant.venv is None else python_of(entrant.venv)
        except subprocess.CalledProcessError as error:
            raise PeerError(f"does not install: {error}") from error
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, "-m", f"benchmarks.peers.{entrant.peer}", folder / "work.json", dtype],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parent.parent,
                env=os.environ | {"HF_HUB_OFFLINE": "1"},
            )

    def __enter__(self) -> "Reader":
        self.versions: dict[str, str] = self._answer()["versions"]
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()

    def do(self, stories: int, layers: Sequence[int]) -> tuple[float, np.ndarray]:
        """Seconds, and the means [story, layer, d_model] of the first `stories`."""
        todo = {"stories": stories, "layers": list(layers), "means": str(self.means)}
        with suppress(BrokenPipeError):  # then there is no answer either
            print(json.dumps(todo), file=self.process.stdin, flush=True)
        return self._answer()["seconds"], np.load(self.means)

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            said = self.log.read_text().strip().splitlines()
            raise PeerError(said[-1] if said else "ended without a word")
        return json.loads(line)
