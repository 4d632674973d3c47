"""The replication card: every published claim, tested on the model in hand, with interval, null and verdict.

The claims come from the experiments, the rule for the verdicts from `claims.py`; here they are gathered, kept while
the card is unfinished, and written as HTML, Markdown and JSON.
"""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from importlib import import_module
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from emolab import __version__
from emolab.checks import parsed, path_of
from emolab.claims import PARTS, VERDICTS, Claim
from emolab.data import DATA
from emolab.errors import EmolabError, brief
from emolab.files import atomic
from emolab.model import DEFAULT, Subject, load
from emolab.vectors import EmotionVectors
from emolab.workshop import workshop

if TYPE_CHECKING:
    from emolab.cards import Cards

PAGE = Path(__file__).parent / "static" / "card.html"
TITLES = {
    "reading": "What it represents", "geometry": "How the directions lie", "function": "What they do",
    "use": "What they are good for",
}  # fmt: skip
MARKS = dict(zip(VERDICTS, ("●", "◐", "○", "–"), strict=True))

Chapter = Callable[[Subject, EmotionVectors, int], Iterable[Claim]]


@dataclass(frozen=True)
class Card:
    """Claims and verdicts for one model.

    claims : in the order of the chapters
    info : model, layer, metric, seed, seconds, versions
    """

    claims: tuple[Claim, ...]
    info: dict

    def table(self) -> pd.DataFrame:
        """A row for each claim."""
        columns = [*(field.name for field in fields(Claim)), "verdict"]
        return pd.DataFrame([claim.row() for claim in self.claims], columns=columns)

    def counts(self) -> dict[str, int]:
        """How many claims got each verdict."""
        return {verdict: sum(claim.verdict == verdict for claim in self.claims) for verdict in VERDICTS}

    def beside(self, *others: "Card") -> "Cards":
        """This card and those of other models, claim by claim. See `cards.Cards`."""
        from emolab.cards import Cards

        return Cards((self, *others))

    def verdict(self) -> str:
        """The card in a sentence."""
        said = ", ".join(f"{count} {verdict}" for verdict, count in self.counts().items() if count)
        return f"{len(self.claims)} claims tested on {self.info['model']}: {said}."

    def markdown(self) -> str:
        """The card as Markdown tables, one for each kind of claim."""
        lines = [f"# Replication card: {self.info['model']}", "", self.verdict(), ""]
        for part, claims in self._by_part():
            lines += [
                f"## {TITLES[part]}",
                "",
                "| claim | measured | value (95 %) | no effect | nulls | paper | verdict |",
            ]
            lines += ["|---|---|---|---|---|---|---|"]
            lines += [
                "| " + " | ".join(cell(text) for text in _texts(claim)) + f" | {MARKS[claim.verdict]} {claim.verdict} |"
                for claim in claims
            ]
            lines.append("")
        return "\n".join([*lines, *(f"- {key}: {value}" for key, value in self.info.items()), ""])

    def html(self) -> str:
        """The card as one page that needs nothing from elsewhere."""
        tables = [
            f"<h2>{TITLES[part]}</h2><table>{_HEAD}<tbody>{''.join(map(_html_row, claims))}</tbody></table>"
            for part, claims in self._by_part()
        ]
        about = "".join(f"<li>{escape(str(key))}: {escape(str(value))}</li>" for key, value in self.info.items())
        return Template(PAGE.read_text(encoding="utf-8")).substitute(
            model=escape(self.info["model"]), verdict=escape(self.verdict()), body="".join(tables), about=about
        )

    def json(self) -> str:
        """The card as JSON: `info`, and `claims` with their verdicts."""
        claims = [{key: _plain(value) for key, value in claim.row().items()} for claim in self.claims]
        return json.dumps({"info": self.info, "claims": claims}, indent=2, ensure_ascii=False) + "\n"

    def save(self, folder: str | Path) -> Path:
        """Write card.html, card.md and card.json into a folder; returns the page."""
        for name, text in {"card.html": self.html(), "card.md": self.markdown(), "card.json": self.json()}.items():
            with atomic(Path(folder) / name) as scratch:
                scratch.write_text(text, encoding="utf-8")
        return Path(folder) / "card.html"

    def _repr_html_(self) -> str:
        return f'<iframe style="width:100%;height:40rem;border:0" sandbox srcdoc="{escape(self.html())}"></iframe>'

    def _by_part(self) -> Iterable[tuple[str, list[Claim]]]:
        for part in PARTS:
            if claims := [claim for claim in self.claims if claim.part == part]:
                yield part, claims


def replication_card(
    subject: Subject | str | None = None,
    vectors: EmotionVectors | None = None,
    *,
    only: Iterable[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Card:
    """Test every claim on a model; an interrupted call goes on where it stopped.

    Parameters
    ----------
    subject : a model or what `load()` takes; default the embedded one.
    vectors : default those that `extract(subject)` makes (the shipped ones for the embedded model).
    only : names of chapters, default all of `CHAPTERS`.
    seed : of every bootstrap, null and sample.

    A chapter that this model or these vectors can't take becomes a claim 'not testable on this model', with the
    reason. Raises EmolabError for vectors of another model, an unknown chapter, or another process at the same card.
    """
    from emolab.extraction import extract

    subject = subject if isinstance(subject, Subject) else load(*([subject] if subject else []))
    vectors = extract(subject, progress=progress) if vectors is None else vectors
    vectors.check(subject)
    names = list(CHAPTERS if only is None else only)
    for name in names:
        if name not in CHAPTERS:
            raise EmolabError(f"there is no chapter {name!r}: choose from {', '.join(CHAPTERS)}")
    start, claims = time.perf_counter(), []
    with (
        workshop("cards", _key(subject, vectors, seed), f"this card of {subject.name}") as folder,
        tqdm(names, desc="card", disable=not progress) as bar,
    ):
        for name in bar:
            bar.set_postfix_str(name)
            claims += _chapter(folder / f"{name}.json", name, subject, vectors, seed)
    info = {
        "model": subject.name,
        "layer": vectors.chosen_layer,
        "metric": vectors.metric,
        "messages": "plain text: it has no chat template" if subject.plain else "in its chat template",
        "dtype": str(subject.dtype).removeprefix("torch."),
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
        "emolab": __version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    return Card(tuple(claims), info)


def load_card(source: str | Path = DEFAULT) -> Card:
    """A card from its card.json, or the shipped one of an embedded model.

    Raises EmolabError if there is no such file or it is not a card.
    """
    given = path_of(source)
    shipped = DATA / "cards" / f"{given}.json"
    path = shipped if shipped.exists() else given
    try:
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        found = parsed(path.read_text(encoding="utf-8"))
        if not isinstance(found["info"].get("model"), str):
            raise ValueError("it names no model")
        return Card(tuple(map(_claim, found["claims"])), found["info"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise EmolabError(f"{path} is not a replication card ({error}): make one with `emolab card`") from None


def _claim(row: dict) -> Claim:
    """A claim from JSON, where numbers that could not be computed are null. Raises TypeError or ValueError for others.

    >>> _claim({"claim": "1", "part": "reading", "source": "", "statistic": "", "value": None}).value
    nan
    """
    given = {key: value for key, value in row.items() if key != "verdict"}
    for field in fields(Claim):
        value = given.get(field.name, field.default)
        if field.type is float:
            given[field.name] = float("nan") if value is None else float(value)
        elif type(value) is not field.type:
            raise TypeError(f"{field.name} is {brief(value)}")
    return Claim(**given)


def _chapter(kept: Path, name: str, subject: Subject, vectors: EmotionVectors, seed: int) -> list[Claim]:
    """The claims of a chapter, from an earlier unfinished call if it got that far."""
    with suppress(OSError, ValueError, TypeError, AttributeError):  # what can't be read is made again
        if found := [_claim(row) for row in parsed(kept.read_text(encoding="utf-8"))]:
            return found
    try:
        found = list(CHAPTERS[name](subject, vectors, seed))
    except EmolabError as error:
        found = [Claim(name, "reading", "", "", reason=str(error))]
    with atomic(kept) as scratch:
        scratch.write_text(json.dumps([asdict(claim) for claim in found], default=_plain), encoding="utf-8")
    return found


def _key(subject: Subject, vectors: EmotionVectors, seed: int) -> str:
    made = sha256(np.ascontiguousarray(vectors.vectors)).hexdigest()
    parts = [subject.weight_sample, str(subject.dtype), made, vectors.chosen_layer, vectors.metric, seed, __version__]
    return sha256(json.dumps(parts).encode()).hexdigest()[:16]


# --- how a claim is written ----------------------------------------------------------------------------------------

_HEAD = (
    "<thead><tr><th>claim</th><th>measured</th><th>value (95 %)</th><th>no effect</th><th>nulls</th>"
    "<th>in the paper</th><th>verdict</th></tr></thead>"
)


def _texts(claim: Claim) -> tuple[str, ...]:
    measured = claim.statistic + (f" (n = {claim.n} {claim.of})" if claim.n else "")
    if claim.reason:
        return claim.claim, measured, claim.reason, "", "", claim.paper
    nulls = f"95 % below {number(claim.null)} ({claim.null_name})"
    value = f"{number(claim.value)} ({number(claim.low)} to {number(claim.high)})"
    return claim.claim, measured, value, number(claim.chance), nulls, claim.paper


def _html_row(claim: Claim) -> str:
    cells = "".join(f"<td>{escape(text)}</td>" for text in _texts(claim))
    style = VERDICTS.index(claim.verdict)
    return (
        f'<tr title="{escape(claim.source)}">{cells}'
        f'<td class="v{style}">{MARKS[claim.verdict]} {claim.verdict}{picture(claim)}</td></tr>'
    )


def picture(claim: Claim, width: int = 120) -> str:
    """Interval (line), value (dot), no effect (grey tick) and nulls (dotted tick) on one scale."""
    numbers = [claim.low, claim.high, claim.value, claim.chance, claim.null]
    if claim.reason or not np.isfinite(numbers).all():
        return ""
    low, high = min(numbers), max(numbers)
    a, b, value, chance, null = (5 + (width - 10) * (x - low) / max(high - low, 1e-12) for x in numbers)
    return (
        f'<svg width="{width}" height="18" role="img" aria-label="interval, no effect and nulls on one scale">'
        f'<line x1="{chance:.1f}" x2="{chance:.1f}" y1="1" y2="17" stroke="#999" stroke-width="2"/>'
        f'<line x1="{null:.1f}" x2="{null:.1f}" y1="1" y2="17" stroke="#d55e00" stroke-dasharray="2 2"/>'
        f'<line x1="{a:.1f}" x2="{b:.1f}" y1="9" y2="9" stroke="#0072b2" stroke-width="2"/>'
        f'<circle cx="{value:.1f}" cy="9" r="4" fill="#0072b2"/></svg>'
    )


def number(value: float) -> str:
    return "not computed" if value is None or np.isnan(value) else f"{value:.3g}"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(value):
    """What JSON can hold: NaN and infinities as None, numpy's numbers as Python's."""
    if isinstance(value, str | None):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if np.isfinite(value) else None


# --- the chapters: an experiment each, in the order of the notebooks -------------------------------------------------


def _quality(subject, vectors, seed):
    return vectors.quality(seed=seed).claims()


def _geometry(subject, vectors, seed):
    return vectors.geometry(seed=seed).claims()


def _persistence(subject, vectors, seed):
    return import_module("emolab.persistence").persistence(subject, vectors).claims(seed)


def _experiment(module: str, function: str) -> Chapter:
    def run(subject, vectors, seed):
        return getattr(import_module(f"emolab.{module}"), function)(subject, vectors, seed=seed).claims()

    return run


CHAPTERS: dict[str, Chapter] = {
    "quality": _quality,
    "logit_lens": _experiment("lens", "logit_lens"),
    "implicit_scenarios": _experiment("experiments.implicit", "implicit_scenarios"),
    "geometry": _geometry,
    "danger_safe": _experiment("experiments.scenarios", "danger_safe"),
    "intensity": _experiment("experiments.intensity", "intensity"),
    "persistence": _persistence,
    "next_word": _experiment("experiments.next_word", "next_word"),
    "reply_emotion": _experiment("experiments.reply", "reply_emotion"),
    "speakers": _experiment("experiments.speakers", "speakers"),
    "emotion_words": _experiment("experiments.feels", "emotion_words"),
    "strength_finder": _experiment("experiments.effect", "strength_finder"),
    "preferences": _experiment("experiments.preferences", "preferences"),
    "desperation": _experiment("experiments.desperation", "desperation"),
    "setbacks": _experiment("experiments.setbacks", "setbacks"),
    "watch": _experiment("experiments.monitoring", "monitoring"),
}
