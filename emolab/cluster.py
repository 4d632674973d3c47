"""Reading on a Ray cluster: the sums and means of one machine, from workers that hold a copy of the model each.

Ray Data streams blocks of stories to the workers, brings a worker that died back to life and gives its block out
again. A block counts when it has arrived whole, so nothing is lost or counted twice.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from emolab.activations import Means, mean_activations
from emolab.data import Story, Survey, chunks
from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.sums import Sums

if TYPE_CHECKING:
    import ray

BLOCK = 64  # stories that a worker reads at a time, and another reads again if it dies
LABELS = ("emotion", "text", "part")
FIGURES = ("means", "norms", "tokens", "lengths")


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to the cluster at `address` ('ray://host:10001', 'host:6379'); 'auto' takes the one that Ray finds,
    or starts Ray on this machine. A connection that is open already is used, and left open.

    Raises EmolabError if Ray is not installed or no cluster answers.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise EmolabError("reading on a cluster needs Ray: pip install 'emolab[cluster]'") from None
    with _quiet(ray):
        if ray.is_initialized():
            yield
            return
        try:
            ray.init(None if address == "auto" else address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EmolabError(
                f"no Ray cluster answers at {address!r} ({error}): start one with `ray start --head` and give the "
                "address that it prints, or use 'auto'"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _quiet(ray: ModuleType) -> Iterator[None]:
    """Without Ray Data's own bars and reports, which drown ours."""
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        log.setLevel(level)


@dataclass(frozen=True)
class ClusterReader:
    """Reads stories on the connected cluster; gives what `corpus.Reader` gives, up to rounding."""

    subject: Subject
    layers: Sequence[int]
    progress: bool

    def means(self, label: str, stories: Sequence[Story], offset: int) -> Means:
        """The mean residual stream of each story, for a few stories."""
        with self._bar(label, len(stories)) as bar:
            rows = []
            for row in _rows(self._read(stories, offset)):
                rows.append(row)
                bar.update()
        rows.sort(key=lambda row: row["number"])
        return _means({name: np.stack([row[name] for row in rows]) for name in FIGURES}, self.layers)

    def sums(self, stories: Iterable[Story], survey: Survey, offset: int, pooling: str) -> Sums:
        """Sums over a corpus of any size."""
        layers, shape = self.layers, (len(self.layers), self.subject.d_model)

        def add_up(rows: dict[str, np.ndarray]) -> dict[str, list[Sums]]:
            part = Sums.empty(survey, *shape)
            part.add(_stories(rows), _means(rows, layers), pooling)
            return {"sums": [part]}

        # sums of fewer stories than twice the width would take more room than their means
        parts = self._read(stories, offset).map_batches(add_up, batch_size=max(8 * BLOCK, 2 * shape[1]))
        sums = Sums.empty(survey, *shape)
        with self._bar("stories", survey.n) as bar:
            for row in _rows(parts):
                sums.merge(row["sums"])
                bar.update(row["sums"].n)
        return sums

    def _bar(self, label: str, total: int) -> tqdm:
        return tqdm(total=total, desc=label, unit=" stories", disable=not self.progress)

    def _read(self, stories: Iterable[Story], offset: int) -> ray.data.Dataset:
        """A row for each story: its number, itself, and the figures of its Means."""
        import ray

        def deal(_start: dict) -> Iterator[dict[str, np.ndarray]]:
            for number, block in enumerate(chunks(stories, BLOCK)):
                columns = {name: np.array([getattr(story, name) for story in block], object) for name in LABELS}
                yield {"number": np.arange(len(block)) + number * BLOCK} | columns

        gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        workers = {"min_size": gpus or max(cpus - 1, 1), "max_size": gpus or cpus}  # who deals needs a CPU, too
        return (
            ray.data.range(1)
            .map_batches(deal)
            .repartition(target_num_rows_per_block=BLOCK)
            .map_batches(
                _Worker,
                fn_constructor_args=(self._shared, tuple(self.layers), offset),
                batch_size=BLOCK,
                num_gpus=1 if gpus else 0,
                compute=ray.data.ActorPoolStrategy(**workers),
            )
        )

    @cached_property
    def _shared(self) -> ray.ObjectRef:
        """The model in Ray's object store; held here, so that a worker can start again."""
        import ray

        return ray.put(_portable(self.subject))


def _rows(dataset: ray.data.Dataset) -> Iterator[dict]:
    """The rows as they are ready. Raises EmolabError with the reason if a worker can't do its part."""
    import ray

    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        told = re.search(r"EmolabError: (.+)", str(error))  # what a worker raised comes as the text of its traceback
        reason = told[1] if told else str(error).strip().splitlines()[-1]
        raise EmolabError(f"reading on the cluster failed: {reason}") from error


class _Worker:
    """Holds the model, on its GPU if it has one, and reads block after block."""

    def __init__(self, subject: ray.ObjectRef, layers: tuple[int, ...], offset: int):
        import ray

        self.subject = ray.get(subject)
        if ray.get_gpu_ids():
            self.subject.model.to("cuda")
        self.options = {"layers": layers, "offset": offset, "progress": None}

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        means = mean_activations(self.subject, rows["text"].tolist(), **self.options)
        return rows | {name: getattr(means, name) for name in FIGURES}


def _portable(subject: Subject) -> Subject:
    """The subject on the CPU, from where it travels."""
    if len(set(getattr(subject.model, "hf_device_map", {}).values())) > 1:
        raise EmolabError(
            f"{subject.name} is spread over several devices, and each worker needs a copy of its own: load it without "
            "device_map, or read without a cluster"
        )
    if subject.device.type == "cpu":
        return subject
    return Subject(deepcopy(subject.model).cpu(), subject.tokenizer, subject.name, subject.revision)


def _stories(rows: dict[str, np.ndarray]) -> list[Story]:
    return [Story(*labels) for labels in zip(*(rows[name].tolist() for name in LABELS), strict=True)]


def _means(rows: dict[str, np.ndarray], layers: Sequence[int]) -> Means:
    return Means(**{name: rows[name] for name in FIGURES}, layers=tuple(layers))
