"""Replication cards of several models, claim by claim: the same questions, side by side."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import pandas as pd

from emolab.card import MARKS, PAGE, TITLES, Card, cell, number, picture
from emolab.claims import PARTS, VERDICTS, Claim
from emolab.files import atomic

FIGURES = ["verdict", "value", "low", "high", "null"]
KEY = "In each cell: verdict, value (95 %), what no effect would give, and what 95 % of the nulls stay below."


@dataclass(frozen=True)
class Cards:
    """Cards of several models, in the order given; a claim that one of them lacks stays empty there."""

    cards: tuple[Card, ...]

    @property
    def models(self) -> list[str]:
        """Their names."""
        return [card.info["model"] for card in self.cards]

    def table(self) -> pd.DataFrame:
        """[claim; model, figure]."""
        tables = [card.table().set_index("claim")[FIGURES] for card in self.cards]
        return pd.concat(tables, axis=1, keys=self.models, sort=False)

    def verdicts(self) -> pd.DataFrame:
        """[claim, model] verdicts alone."""
        return self.table().xs("verdict", axis=1, level=1).fillna("")

    def verdict(self) -> str:
        """What the models have in common, in words."""
        same = self.verdicts().eq(VERDICTS[0])
        everywhere, nowhere = int(same.all(axis=1).sum()), int((~same.any(axis=1)).sum())
        counts = "; ".join(
            f"{name} {int(column.sum())}" for name, column in zip(self.models, same.T.values, strict=True)
        )
        return (
            f"{len(same)} claims on {' and '.join(self.models)}: {everywhere} replicate on all of them, {nowhere} on "
            f"none (replicates: {counts})."
        )

    def markdown(self) -> str:
        """A Markdown table for each kind of claim, a column for each model."""
        lines = [f"# Replication cards: {', '.join(self.models)}", "", self.verdict(), ""]
        for part, rows in self._by_part():
            lines += [f"## {TITLES[part]}", "", f"| claim | {' | '.join(map(cell, self.models))} |"]
            lines += ["|---" * (1 + len(self.cards)) + "|"]
            for name, claims in rows:
                lines.append(f"| {cell(name)} | {' | '.join(cell(_said(claim)) for claim in claims)} |")
            lines.append("")
        return "\n".join([*lines, KEY, ""])

    def html(self) -> str:
        """One page that needs nothing from elsewhere."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.models)
        tables = []
        for part, rows in self._by_part():
            body = "".join(
                f"<tr><td>{escape(name)}</td>{''.join(map(_html_cell, claims))}</tr>" for name, claims in rows
            )
            tables.append(f"<h2>{TITLES[part]}</h2><table><thead><tr><th>claim</th>{head}</tr></thead>{body}</table>")
        about = "".join(
            f"<li>{escape(', '.join(f'{key}: {value}' for key, value in card.info.items()))}</li>"
            for card in self.cards
        )
        return Template(PAGE.read_text(encoding="utf-8")).substitute(
            model=escape(", ".join(self.models)), verdict=escape(self.verdict()), body="".join(tables), about=about
        )

    def save(self, folder: str | Path) -> Path:
        """Write cards.html and cards.md into a folder; returns the page."""
        for name, text in {"cards.html": self.html(), "cards.md": self.markdown()}.items():
            with atomic(Path(folder) / name) as scratch:
                scratch.write_text(text, encoding="utf-8")
        return Path(folder) / "cards.html"

    def _repr_html_(self) -> str:
        return f'<iframe style="width:100%;height:40rem;border:0" sandbox srcdoc="{escape(self.html())}"></iframe>'

    def _by_part(self) -> Iterable[tuple[str, list[tuple[str, list[Claim | None]]]]]:
        """Each kind of claim, with a row of each model's claim (or None) by its words."""
        for part in PARTS:
            found = [{claim.claim: claim for claim in card.claims if claim.part == part} for card in self.cards]
            if names := dict.fromkeys(name for claims in found for name in claims):
                yield part, [(name, [claims.get(name) for claims in found]) for name in names]


def _said(claim: Claim | None) -> str:
    if claim is None:
        return ""
    said = f"{MARKS[claim.verdict]} {claim.verdict}"
    if claim.reason:
        return f"{said}: {claim.reason}"
    value = f"{number(claim.value)} ({number(claim.low)} to {number(claim.high)})"
    return f"{said}: {value}; no effect {number(claim.chance)}, nulls {number(claim.null)}"


def _html_cell(claim: Claim | None) -> str:
    if claim is None:
        return "<td></td>"
    style, about = VERDICTS.index(claim.verdict), f"{claim.statistic}. Nulls: {claim.null_name}"
    return f'<td class="v{style}" title="{escape(about)}">{escape(_said(claim))}{picture(claim)}</td>'
