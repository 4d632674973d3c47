"""Time and memory of a whole `extract()` against the number of stories, each number in a process of its own."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

import emolab as el
from emolab.embedded import cache_folder

SIZES = (500, 2000, 6000, 20_000)
OFFSET = 2
WORDS = 17  # of each short story: about 24 tokens


def short_stories() -> Iterator[dict]:
    """Pieces of the corpus, no two alike, the emotions in turn so that even a few hundred hold them all."""
    seen, stories = set(), el.stories()
    by_turns = sorted(range(len(stories)), key=lambda i: sum(s.emotion == stories[i].emotion for s in stories[:i]))
    for start in range(0, 400, WORDS // 2):
        for story in (stories[i] for i in by_turns):
            words = story.text.split()[start : start + WORDS]
            text = " ".join(words)
            if len(words) == WORDS and text not in seen:
                seen.add(text)
                yield {"emotion": story.emotion, "part": story.part, "text": text}


def scaling(sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """[stories]: seconds of extract(), tokens, tokens/s, and the process' peak memory in MB before and after."""
    rows = []
    for size in sizes:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "stories.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in islice(short_stories(), size)))
            (Path(folder) / "models").symlink_to(cache_folder() / "models")  # nothing unfinished is taken up there
            found = subprocess.run(
                [sys.executable, "-m", "benchmarks.scaling", path],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=os.environ | {"EMOLAB_CACHE": folder},
            )
        rows.append({"stories": size, **json.loads(found.stdout)})
    return pd.DataFrame(rows).set_index("stories").assign(tokens_per_s=lambda t: t["tokens"] / t["seconds"])


def slope(table: pd.DataFrame) -> float:
    """Of log time against log stories: 1 where time is linear, less as far as a fixed part weighs in it."""
    return float(np.polyfit(np.log(table.index), np.log(table["seconds"]), 1)[0])


def off_the_line(table: pd.DataFrame) -> float:
    """How far time is from a fixed part plus a part for each story: the worst deviation, as a share of the time."""
    seconds = table["seconds"].to_numpy()
    line = np.polyfit(table.index, seconds, 1, w=1 / seconds)
    return float(np.abs(np.polyval(line, table.index) / seconds - 1).max())


def measure(path: str) -> dict:
    """One extraction, in this process."""
    subject = el.load()
    few = el.stories("implicit")[::256]
    before = _peak_megabytes()
    start = time.perf_counter()
    vectors = el.extract(
        subject,
        path,
        held_out=el.HeldOut(choose=few),
        neutral=el.neutral()[::80],
        offset=OFFSET,
        progress=False,
        anew=True,
    )
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tokens": vectors.info["n_tokens"], "before_mb": before, "peak_mb": _peak_megabytes()}


def _peak_megabytes() -> float:
    """Of this process alone: what getrusage says on Linux begins with the peak of whoever started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
