"""`python -m benchmarks`: the race against the peers and all other figures; `--quick` for a short one."""

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

import emolab as el
from benchmarks import report, startup
from benchmarks.latency import latency
from benchmarks.machine import matrix_peak, operations
from benchmarks.peers.protocol import Work
from benchmarks.race import Race, race
from benchmarks.reader import Entrant
from benchmarks.scaling import off_the_line, scaling, slope
from emolab.activations import read
from emolab.embedded import embedded_folder
from emolab.extraction import OFFSET
from emolab.files import atomic
from emolab.model import fast_dtype

RESULTS = Path(__file__).parent / "RESULTS.md"
EVERY, DEEP, DEEPEST = "every layer", "layer 20 only", 20
OURS, PLAIN, PLAIN_BASE, LAST_TOKEN = "emolab", "transformers", "transformers, AutoModel", "repeng, last token only"
CHECKED = 16  # stories whose last tokens we read, for the peer that reads nothing else


def main(
    stories: Annotated[int | None, typer.Option(help="How many of the corpus: by default 512, quick 128.")] = None,
    repetitions: Annotated[int | None, typer.Option(help="By default 5, quick 3.")] = None,
    threads: Annotated[int | None, typer.Option(help="By default what torch takes.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the race, plain transformers the only peer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one last line of JSON.")] = False,
    results: Annotated[Path, typer.Option(help="Where the full run writes its page.")] = RESULTS,
) -> None:
    """Measure emolab beside its peers on this machine. Exit code 1 if their means differ."""
    stories, repetitions = stories or (128 if quick else 512), repetitions or (3 if quick else 5)
    torch.set_num_threads(threads or torch.get_num_threads())
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # for all processes that are started here
    subject = el.load()
    work = _work(subject, stories)
    jobs = {EVERY: tuple(range(1, subject.n_layers + 1))} | ({} if quick else {DEEP: (DEEPEST,)})

    @cache
    def last_tokens(layers: tuple[int, ...]) -> np.ndarray:
        return np.stack(
            [read(subject, text, layers)[:, -1] for text in work.texts[:CHECKED]]
        )  # [story, layer, d_model]

    outcome = race(entrants(quick), work, jobs, repetitions, last_tokens, lambda: matrix_peak(subject.dtype))
    numbers = headline(subject, work, outcome)
    print(report.race_table(outcome, work))
    if not quick:
        numbers |= startup.first_readout() | startup.first_figure() | startup.umap()
        numbers |= {f"lab_{change}_ms": row["median"] for change, row in latency().iterrows()}
        sizes = scaling()
        numbers |= {"time_slope": slope(sizes), "time_off_the_line": off_the_line(sizes)}
        numbers |= {"memory_ratio": sizes["peak_mb"].max() / sizes["peak_mb"].min()}
        page = report.page("python -m benchmarks " + " ".join(sys.argv[1:]), work, repetitions, outcome, numbers, sizes)
        with atomic(results) as scratch:
            scratch.write_text(page)
    print(report.figures(numbers))
    if as_json:
        print(json.dumps(numbers | {"stories": stories, "repetitions": repetitions}))
    raise typer.Exit(0 if outcome.agree else 1)


def entrants(quick: bool) -> list[Entrant]:
    """Who takes part; the first is the one whom the others are compared with."""
    fast = str(fast_dtype()).removeprefix("torch.")
    dtypes = tuple(dict.fromkeys((fast, "float32")))
    base = Entrant(PLAIN_BASE, "transformers_base", dtypes, None if quick else "transformers", last_layer=False)
    if quick:
        return [Entrant(OURS, "emolab", (fast,)), Entrant(PLAIN, "transformers", dtypes, last_layer=False), base]
    return [
        *(Entrant(OURS, "emolab", (dtype,)) for dtype in dtypes),
        *(Entrant(PLAIN, "transformers", (dtype,), "transformers", last_layer=False) for dtype in dtypes),
        base,
        Entrant("transformer-lens", "transformer_lens", dtypes, "transformer_lens"),
        Entrant("nnsight", "nnsight", dtypes, "nnsight"),
        Entrant("steering-vectors", "steering_vectors", dtypes, "steering_vectors"),
        Entrant(LAST_TOKEN, "repeng", dtypes, "repeng", last_layer=False, last_token=True),
    ]


def headline(subject: el.Subject, work: Work, outcome: Race) -> dict:
    """The figures that the race is run for."""
    lengths = [len(ids) for ids in work.ids]
    table = outcome.table(sum(lengths))
    ours = table.xs((OURS, str(subject.dtype).removeprefix("torch.")), level=("reader", "dtype"))
    every = table.loc[EVERY]
    peak = max(outcome.beside)
    needed = {EVERY: operations(subject, lengths, subject.n_layers), DEEP: operations(subject, lengths, DEEPEST)}
    share = {job: needed[job] / sum(lengths) * speed / peak for job, speed in ours["tokens_per_s"].items()}
    rivals = every.drop([OURS, LAST_TOKEN], level="reader", errors="ignore")["ratio"]
    return {
        "ratio_to_plain_transformers": rivals.loc[PLAIN].min(),
        "ratio_to_plain_base_model": rivals.loc[PLAIN_BASE].min(),
        "ratio_to_fastest_peer": rivals.min(),
        "share_of_peak": share[EVERY],
        **({"share_of_peak_layer_20": share[DEEP]} if DEEP in share else {}),
        "tokens_per_s": ours.loc[EVERY, "tokens_per_s"],
        "peak_gflops": peak / 1e9,
        "mflop_per_token": needed[EVERY] / sum(lengths) / 1e6,
        "tokens_per_s_at_peak": peak * sum(lengths) / needed[EVERY],
        "cosine_min": table["cosine"].min(),
        "dtype": str(subject.dtype).removeprefix("torch."),
        "threads": work.threads,
        "tokens": sum(lengths),
    }


def _work(subject: el.Subject, stories: int) -> Work:
    texts = [story.text for story in el.stories()[:stories]]
    return Work(
        folder=str(embedded_folder(el.DEFAULT)),
        texts=texts,
        ids=[subject.encode(text) for text in texts],
        offset=OFFSET,
        pad_id=subject.pad_id,
        n_layers=subject.n_layers,
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    typer.run(main)
