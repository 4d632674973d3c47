"""Unfinished work: a folder in the cache for one process at a time, and means that lie there batch by batch."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from emolab.embedded import cache_folder
from emolab.errors import EmolabError


@contextmanager
def workshop(kind: str, key: str, work: str) -> Iterator[Path]:
    """A folder that outlives a killed process, and is removed when the block ends well.

    The empty lock beside it stays: were it removed, one process could hold the old one and another make it anew, and
    both would work. Raises EmolabError if another process is at this work, or there is no room.
    """
    folder = cache_folder() / kind / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            yield folder
            shutil.rmtree(folder)
    except Timeout:
        raise EmolabError(
            f"another process is working on {work}: wait for it, or stop it and run again to go on where it stopped"
        ) from None
    except OSError as error:
        raise EmolabError(
            f"can't work in {folder.parent} ({error.strerror or error}): free some room, or point EMOLAB_CACHE to a "
            "folder of yours"
        ) from error


class Store:
    """Means and norms of all texts, in memory, or in files that outlive a killed process.

    A batch is marked done only after its rows are on disk; a plan that differs starts afresh.
    """

    def __init__(self, folder: Path | None, plan: str, n_texts: int, n_layers: int, d_model: int, n_batches: int):
        shapes = {"means": (n_texts, n_layers, d_model), "norms": (n_texts, n_layers)}
        if folder is None:
            self.means, self.norms = (np.zeros(shape, np.float32) for shape in shapes.values())
            self.done = np.zeros(n_batches, np.uint8)
            return
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {name: 4 * int(np.prod(shape)) for name, shape in shapes.items()} | {"done": n_batches}
        if not _whole(folder, plan, sizes):
            (folder / "plan").unlink(missing_ok=True)
            for name, size in sizes.items():
                _allocate(folder / name, size)
            (folder / "plan").write_text(plan)
        self.means, self.norms = (
            np.memmap(folder / name, np.float32, "r+", shape=shape) for name, shape in shapes.items()
        )
        self.done = np.memmap(folder / "done", np.uint8, "r+", shape=(n_batches,))

    def finish(self, batch: int) -> None:
        """Mark a batch as done, its rows being on disk by then."""
        for array in (self.means, self.norms):
            if isinstance(array, np.memmap):
                array.flush()
        self.done[batch] = 1


def _whole(folder: Path, plan: str, sizes: dict[str, int]) -> bool:
    """Whether all files of this plan are there: a process may have been killed while it made or removed them."""
    try:
        there = {name: (folder / name).stat().st_size for name in sizes}
        marks = set((folder / "done").read_bytes())
        return there == sizes and marks <= {0, 1} and (folder / "plan").read_bytes() == plan.encode()
    except FileNotFoundError:
        return False


def _allocate(path: Path, size: int) -> None:
    """A file of zeros whose room is really there: a full disk shows now, not as a crash while writing."""
    with path.open("wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.write(bytes(size))
        except OSError as error:
            raise EmolabError(
                f"{path.parent} has no room for {size / 2**20:.0f} MB of unfinished work ({error.strerror}): free "
                "some, or point EMOLAB_CACHE to another folder"
            ) from error
