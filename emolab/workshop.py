"""Where unfinished work is kept until it is done: a folder in the cache, for one process at a time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
