"""The results as Markdown: what is printed, and `RESULTS.md`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version

import pandas as pd

from benchmarks.machine import describe
from benchmarks.peers.protocol import BATCH, Work
from benchmarks.race import SAME, Race

PAGE = """# How fast emolab is

Written by `{command}`, which also repeats it. {date}.

{machine}; {threads} threads; {packages}.

## The race

The first {stories} stories of the corpus ({tokens:,} tokens), SmolLM2-135M-Instruct: the mean residual stream of each
story over its tokens from token {offset} on. {repetitions} repetitions in turns, each reader a warm process of its own.

{race}

- *Times ours*: median time by that of the first line. *Worst cosine*: the lowest of all stories and layers, against
  the first line's means; the run fails unless it is above {same}.
- Peers get token ids; emolab gets texts, and its time includes tokenising them. Peers read batches of {batch} stories
  of like length, right-padded; means are taken layer by layer in float32. Except for plain transformers, which enters
  in both dtypes, peers enter in the faster one.
- transformers applies the final norm to the last of its hidden states: there all layers but the last are compared.
- repeng does another job. Its API gives the last token of a text and no means; it is held to our last tokens.
- transformer-lens and nnsight can stop after the deepest layer, and do; the others always compute the whole model.

## Other figures

{figures}

- *Matrix products of the model*: 2 operations for each weight of the blocks and token, and in attention 4 x heads x
  head size for each token and each token that it may look at; nothing for padding, norms or the unembedding. *Share of
  peak*: those of the real tokens, by time and by the fastest square matrix product seen during the race.
- *First readout*, *first figure*: from `import emolab`, or the start of the kernel of notebook 00, in a new process.

## More stories

`extract()` of short stories cut from the corpus, each number of them in a process of its own. *MB before*: peak
memory once the model is loaded. The largest peak is {flat:.3f} times the smallest. Slope of log time against log
stories: {slope:.3f}; a fixed part (the fits of all layers) and a part for each story explain the time within {off:.1%}.

{sizes}
"""

FIGURES = {
    "ratio_to_plain_transformers": ("Times plain transformers in its faster dtype, every layer", "{:.2f}"),
    "ratio_to_plain_base_model": ("... without its unembedding (AutoModel)", "{:.2f}"),
    "ratio_to_fastest_peer": ("Times the fastest peer, every layer", "{:.2f}"),
    "mflop_per_token": ("Matrix products of the model, a token", "{:,.1f} MFLOP"),
    "peak_gflops": ("Fastest square matrix product in the same dtype", "{:,.0f} GFLOP/s"),
    "tokens_per_s_at_peak": ("Tokens/s if that product were all there is", "{:,.0f}"),
    "tokens_per_s": ("Tokens/s of emolab, every layer", "{:,.0f}"),
    "share_of_peak": ("Share of peak, every layer", "{:.1%}"),
    "share_of_peak_layer_20": ("Share of peak, layer 20 only", "{:.1%}"),
    "import_s": ("`import emolab`", "{:.2f} s"),
    "import_loads_torch": ("... brings in torch", "{}"),
    "readout_s": ("First readout", "{:.1f} s"),
    "first_figure_s": ("First figure of notebook 00", "{:.1f} s"),
    "umap_cold_s": ("UMAP of the 171 directions, with compilation", "{:.1f} s"),
    "umap_warm_s": ("... once more", "{:.1f} s"),
    "lab_edit_ms": ("Prompt lab, an edit of 64 tokens", "{:.0f} ms"),
    "lab_emotion_ms": ("... another emotion", "{:.0f} ms"),
    "lab_layer_ms": ("... another layer", "{:.0f} ms"),
    "lab_unit_ms": ("... another unit", "{:.0f} ms"),
    "lab_metric_ms": ("... another metric", "{:.0f} ms"),
}


def race_table(race: Race, work: Work) -> str:
    """The race, and who is missing."""
    table = race.table(sum(map(len, work.ids))).reset_index()
    package = {name: " ".join(next(iter(versions.items()))) for name, versions in race.versions.items()}
    shown = pd.DataFrame(
        {
            "job": table["job"],
            "reader": table["reader"],
            "package": table["reader"].map(package),
            "dtype": table["dtype"],
            "tokens/s": table["tokens_per_s"].map("{:,.0f}".format),
            "lowest to highest": table["low"].map("{:,.0f}".format) + " to " + table["high"].map("{:,.0f}".format),
            "times ours": table["ratio"].map("{:.2f}".format),
            "worst cosine": table["cosine"].map("{:.5f}".format),
        }
    )
    missing = [f"Missing: {name}. {reason}" for name, reason in race.missing.items()]
    return "\n\n".join([_markdown(shown), *missing])


def figures(numbers: Mapping) -> str:
    """Everything else that has been measured, one line each."""
    rows = [(what, form.format(numbers[key])) for key, (what, form) in FIGURES.items() if key in numbers]
    return _markdown(pd.DataFrame(rows, columns=["what", "measured"]))


def page(command: str, work: Work, repetitions: int, race: Race, numbers: Mapping, sizes: pd.DataFrame) -> str:
    """RESULTS.md."""
    forms = {
        "seconds": "{:.1f}",
        "tokens": "{:,.0f}",
        "tokens_per_s": "{:,.0f}",
        "before_mb": "{:,.0f}",
        "peak_mb": "{:,.0f}",
    }
    names = {"tokens_per_s": "tokens/s", "before_mb": "MB before", "peak_mb": "MB at most"}
    shown = pd.DataFrame({key: sizes[key].map(form.format) for key, form in forms.items()}).rename(columns=names)
    return PAGE.format(
        command=command.strip(),
        date=datetime.now(UTC).date().isoformat(),
        machine=describe(),
        threads=work.threads,
        packages=", ".join(f"{name} {version(name)}" for name in ("emolab", "torch", "transformers", "numpy")),
        stories=len(work.ids),
        tokens=sum(map(len, work.ids)),
        offset=work.offset,
        repetitions=repetitions,
        race=race_table(race, work),
        same=SAME,
        batch=BATCH,
        figures=figures(numbers),
        slope=numbers["time_slope"],
        off=numbers["time_off_the_line"],
        flat=numbers["memory_ratio"],
        sizes=_markdown(shown.reset_index()),
    )


def _markdown(table: pd.DataFrame) -> str:
    lines = [table.columns, ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
