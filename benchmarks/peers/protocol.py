"""What every script here shares: it loads a model once and then answers jobs, one JSON line for each.

    python -m benchmarks.peers.NAME WORK.json DTYPE

says `{"versions": ...}` when it is ready. To `{"stories": 64, "layers": [20], "means": "FILE.npy"}` it answers
`{"seconds": ...}` and leaves the means [story, layer, d_model] of the first 64 stories in the file. Only torch,
numpy and the peer itself can be imported here.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

Job = Callable[[int, Sequence[int]], np.ndarray]
Read = Callable[[torch.Tensor, torch.Tensor, Sequence[int]], Iterable[torch.Tensor]]

BATCH = 8  # stories: the best of 4, 8, 16 and 32 for plain transformers on 2 cores


@dataclass(frozen=True)
class Work:
    """What everybody gets: a transformers folder, the stories, and their token ids."""

    folder: str
    texts: list[str]
    ids: list[list[int]]
    offset: int  # the first token that counts
    pad_id: int
    n_layers: int
    threads: int


def serve(load: Callable[[Work, torch.dtype], Job], *packages: str) -> None:
    """Load the model, say the versions of `packages`, then answer jobs until the other side hangs up."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers

    def say(answer: dict) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    work = Work(**json.loads(Path(sys.argv[1]).read_text()))
    torch.set_num_threads(work.threads)
    job = load(work, getattr(torch, sys.argv[2]))
    say({"versions": {name: version(name) for name in (*packages, "transformers", "torch")}})
    for line in sys.stdin:
        todo = json.loads(line)
        start = time.perf_counter()
        means = job(todo["stories"], todo["layers"])
        seconds = time.perf_counter() - start
        np.save(todo["means"], means)
        say({"seconds": seconds})


def in_batches(work: Work, read: Read) -> Job:
    """The job for whoever reads batches: stories of like length together, right-padded, means in float32.

    `read(ids, mask, layers)` gives the residual stream [story, token, d_model] of each layer asked for, in order.
    """

    def job(stories: int, layers: Sequence[int]) -> np.ndarray:
        order = sorted(range(stories), key=lambda i: len(work.ids[i]))
        means = [None] * stories
        with torch.inference_mode():
            for start in range(0, stories, BATCH):
                batch = order[start : start + BATCH]
                ids, mask = _pad([work.ids[i] for i in batch], work.pad_id)
                weights = mask.float()
                weights[:, : work.offset] = 0
                weights /= weights.sum(1, keepdim=True)  # [story, token]
                found = [torch.einsum("std,st->sd", hidden.float(), weights) for hidden in read(ids, mask, layers)]
                for i, mean in zip(batch, torch.stack(found, 1).numpy(), strict=True):
                    means[i] = mean  # [layer, d_model]
        return np.stack(means)

    return job


def _pad(ids: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and their attention mask, both [story, token]."""
    width = max(map(len, ids))
    rows = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    return rows, mask
