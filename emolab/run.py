"""The main job: load a model, make all its emotion vectors anew, judge them, draw the map, write a report."""

import json
import time
from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from emolab import data
from emolab.directions import METRICS
from emolab.extraction import HeldOut, extract
from emolab.files import atomic
from emolab.geometry import DIMENSIONS, Geometry, human_norms
from emolab.interactive import top_tokens, write_map
from emolab.model import DEFAULT, load
from emolab.plots import cosine_heatmap, norm_scatter
from emolab.quality import Quality
from emolab.vectors import EmotionVectors

_PAGE = Path(__file__).parent / "static" / "report.html"

PAPER = {"pc1_pleasure_r": 0.81, "pc2_arousal_r": 0.66}  # Claude Sonnet 4.5, section 2 of the paper
ROWS = {  # what the closing table says, by key of run.json
    "implicit_top1": "implicit stories: true emotion first of all",
    "implicit_top5": "implicit stories: among the first five",
    "median_rank": "implicit stories: median rank",
    "second_top1": "second authors: true emotion first of all",
    "second_top5": "second authors: among the first five",
    "pleasure_cv_r": "human pleasure, words left out: r",
    "arousal_cv_r": "human arousal, words left out: r",
    "dominance_cv_r": "human dominance, words left out: r",
    "pc1_pleasure_r": "PC1 with pleasure: |r|",
    "pc2_arousal_r": "PC2 with arousal: |r|",
    "pc1_arousal_r": "PC1 with arousal: |r|",
    "pc2_pleasure_r": "PC2 with pleasure: |r|",
}


def run(
    model: str = DEFAULT,
    out: Path = Path("out"),
    settings: int | None = 2,
    layers: list[int] | None = None,
) -> dict:
    """Do the main job and write `out/`: vectors.safetensors, map.png, map.html, report.html, run.json.

    settings : in how many of the 12 settings the held-out stories are read; None for all, which takes longer and
        narrows the intervals.
    layers : by default the first three quarters; the last quarter turns into the next token and identifies no better.
    Returns what run.json holds.
    """
    start = time.perf_counter()
    subject = load(model)
    loaded = time.perf_counter()
    vectors = extract(
        subject,
        held_out=HeldOut.shipped(settings),
        layers=layers or range(1, subject.n_layers * 3 // 4 + 1),
        neutral=data.neutral()[::4],
        anew=True,
    )
    read = time.perf_counter()
    vectors.save(out / "vectors.safetensors")
    quality, geometry = vectors.quality(), vectors.geometry()
    norms = pd.concat({metric: human_norms(vectors, metric=metric) for metric in METRICS}, names=["metric"])
    figures = {"The map": geometry.figure()}
    with atomic(out / "map.png") as scratch:
        figures["The map"].savefig(scratch, dpi=110)
    write_map(geometry, out / "map.html", words=top_tokens(subject, vectors))
    numbers = _numbers(vectors, quality, geometry) | {
        "tokens_per_s": round(vectors.info["n_tokens"] / (read - loaded)),
        "seconds": round(time.perf_counter() - start, 1),
    }
    figures["Do they identify stories?"] = quality.figure()
    figures["Do they go with human ratings?"] = norm_scatter(geometry)
    figures["Cosines"] = cosine_heatmap(geometry)
    _write_report(out / "report.html", vectors, quality, geometry, norms, figures, numbers)
    with atomic(out / "run.json") as scratch:
        scratch.write_text(json.dumps(numbers, indent=2) + "\n")
    return numbers


def closing_table(numbers: dict) -> pd.DataFrame:
    """The main figures of a run beside words alone and beside the paper's, where there are any."""
    rows = {
        label: {
            "this model": numbers[key],
            "words alone": numbers.get(f"lexical_{'implicit_' if key == 'median_rank' else ''}{key}"),
            "paper": PAPER.get(key),
        }
        for key, label in ROWS.items()
        if numbers.get(key) is not None
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def _numbers(vectors: EmotionVectors, quality: Quality, geometry: Geometry) -> dict:
    info = vectors.info
    numbers = {name: info[name] for name in ("model", "fingerprint", "dtype", "n_stories", "n_tokens", "date")}
    numbers |= {"n_emotions": len(vectors), "chosen_layer": vectors.chosen_layer, "metric": vectors.metric}
    for role, name in (("choose", "implicit"), ("test", "second")):
        for scorer, prefix in ((vectors.metric, ""), ("words", "lexical_")):
            row = quality.row(role, scorer)
            for key in ("top1", "top5", "median_rank", "low", "high", "texts"):
                value = None if row is None else round(float(row[key]), 4)
                label = {"low": "top1_low", "high": "top1_high", "texts": "n"}.get(key, key)
                numbers[f"{prefix}{name}_{label}"] = value
    numbers |= {key: numbers[f"implicit_{key}"] for key in ("top1", "top5", "median_rank")}
    numbers["null_top1_max"] = round(float(quality.nulls["max"].max()), 4)
    for name in DIMENSIONS if not geometry.norms.empty else ():
        row = geometry.norms.loc[name]
        numbers |= {f"{name}_{key}": round(float(row[key]), 3) for key in ("cv_r", "cv_low", "cv_high", "cv_null")}
        for pc in ("pc1", "pc2"):
            numbers |= {f"{pc}_{name}_{key}": round(float(row[f"{pc}_{key}"]), 3) for key in ("r", "low", "high")}
    return numbers | {"silhouette": round(geometry.silhouette, 3)}


def _write_report(
    path: Path,
    vectors: EmotionVectors,
    quality: Quality,
    geometry: Geometry,
    norms: pd.DataFrame,
    figures: dict[str, Figure],
    numbers: dict,
) -> None:
    tables = {
        "In short": closing_table(numbers),
        "Identification, baselines and nulls": quality.table(),
        "What the model adds to the words (difference in top-1)": quality.gain,
        "Human ratings (Russell & Mehrabian 1977)": norms,
        "Layer profile (top-1)": quality.profile.T,
    }
    shown = [f"<h2>{escape(title)}</h2>{_html(table)}" for title, table in tables.items()]
    shown += [f"<h2>{escape(title)}</h2>{_image(figure, title)}" for title, figure in figures.items()]
    about = {key: value for key, value in vectors.info.items() if key not in ("weights", "profile")}
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
        model=escape(vectors.info["model"]),
        verdict=f"<p>{escape(quality.verdict())}</p><p>{escape(geometry.verdict())}</p>",
        body="\n".join(shown),
        about=escape(json.dumps(about, indent=2)),
    )
    with atomic(path) as scratch:
        scratch.write_text(page, encoding="utf-8")


def _html(table: pd.DataFrame) -> str:
    return table.to_html(float_format="{:.4g}".format, na_rep="", border=0)


def _image(figure: Figure, title: str) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    plt.close(figure)
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{b64encode(buffer.getvalue()).decode()}">'
