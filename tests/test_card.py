"""The replication card: gathers, resumes, writes, and hides nothing."""

import json
import re
from pathlib import Path

import pytest
from conftest import tiny_subject

import emolab as el
from emolab import card
from emolab.card import Card, load_card, replication_card
from emolab.claims import VERDICTS, Claim

HOSTILE = '<script>alert(1)</script> | "&'


def claim(name: str = "danger raises fear", part: str = "reading", **numbers) -> Claim:
    return Claim(name, part, "section 1", "share of pairs", **numbers)


CLAIMS = (
    claim(value=0.9, low=0.8, high=1.0, chance=0.5, null=0.7, null_name="random directions", n=40, of="pairs"),
    claim(HOSTILE, "function", value=0.6, low=0.4, high=0.8, chance=0.5, null=0.7),
    claim("calm falls", "geometry", reason="too small"),
    claim("not computed", "function"),
)


@pytest.fixture
def chapters(monkeypatch, cache):
    """Three chapters of one claim each, and a list of those that ran."""
    ran = []

    def chapter(name, result):
        def run(subject, vectors, seed):
            ran.append(name)
            return [result]

        return run

    fakes = {f"c{n}": chapter(f"c{n}", result) for n, result in enumerate(CLAIMS)}
    monkeypatch.setattr(card, "CHAPTERS", fakes)
    return fakes, ran


def test_it_goes_on_where_it_stopped(chapters, tiny, tiny_vectors):
    fakes, ran = chapters
    whole = replication_card(tiny, tiny_vectors, progress=False)
    assert ran == ["c0", "c1", "c2", "c3"]

    ran.clear()
    good = fakes["c2"]

    def stop(*_):
        raise KeyboardInterrupt

    fakes["c2"] = stop
    with pytest.raises(KeyboardInterrupt):
        replication_card(tiny, tiny_vectors, progress=False)
    fakes["c2"] = good
    again = replication_card(tiny, tiny_vectors, progress=False)
    assert ran == ["c0", "c1", "c2", "c3"]  # what was done before the stop was not done again
    assert repr(again.claims) == repr(whole.claims)

    ran.clear()
    replication_card(tiny, tiny_vectors, progress=False)
    assert ran == ["c0", "c1", "c2", "c3"]  # nothing is left over from a finished card


def test_a_chapter_that_can_not_be_had_says_why(chapters, tiny, tiny_vectors):
    fakes, _ = chapters

    def refuse(*_):
        raise el.EmolabError("these vectors hold 3 emotions")

    fakes["c0"] = refuse
    found = replication_card(tiny, tiny_vectors, progress=False)
    assert found.claims[0].verdict == VERDICTS[3] and "3 emotions" in found.claims[0].reason
    with pytest.raises(el.EmolabError, match="no chapter 'c9'"):
        replication_card(tiny, tiny_vectors, only=["c9"])
    with pytest.raises(el.EmolabError, match="made for"):
        replication_card(tiny_subject(seed=5), tiny_vectors, progress=False)


def test_the_files_say_the_same_and_run_nothing(tmp_path):
    found = Card(CLAIMS, {"model": HOSTILE, "seed": 0})
    page = found.save(tmp_path).read_text(encoding="utf-8")
    rows = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))["claims"]
    verdicts = ["replicates", "does not replicate", "not testable on this model", "does not replicate"]
    assert [row["verdict"] for row in rows] == verdicts == list(found.table().verdict)
    assert rows[3]["value"] is None and rows[0]["value"] == 0.9
    assert found.counts() == {"replicates": 1, "weak": 0, "does not replicate": 2, "not testable on this model": 1}
    assert "<script" not in page and not re.search(r"(src|href)\s*=", page) and "default-src 'none'" in page
    markdown = (tmp_path / "card.md").read_text(encoding="utf-8")
    table = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in table} == {8}
    for row in rows:
        assert row["verdict"] in page and row["verdict"] in markdown
    assert repr(load_card(tmp_path / "card.json")) == repr(found)
    (tmp_path / "card.json").write_text("{}")
    for broken in (tmp_path / "card.json", tmp_path / "nothing.json", tmp_path / "card.html"):
        with pytest.raises(el.EmolabError, match="is not a replication card"):
            load_card(broken)
    assert "sandbox" in found._repr_html_() and "<script" not in found._repr_html_()


def test_quality_and_geometry_of_the_shipped_vectors(subject, shipped, cache):
    found = replication_card(subject, shipped, only=["quality", "geometry"], progress=False)
    verdicts = {claim.claim: claim.verdict for claim in found.claims}
    assert verdicts["The directions hold human pleasure"] == "replicates"
    assert verdicts["Component 1 of the directions is pleasure"] == "does not replicate"
    assert len(found.claims) == 6


def test_the_readme_shows_the_shipped_card():
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in readme if line.startswith("| ") and line.endswith(tuple(f"{v} |" for v in VERDICTS))]
    shipped = el.load_card().claims
    assert len(rows) == len(shipped)
    for row, claim in zip(rows, shipped, strict=True):
        assert row.startswith(f"| {claim.claim} | ") and row.endswith(f" {claim.verdict} |")
        assert claim.reason or f" {claim.value:.3g} ({claim.low:.3g} to {claim.high:.3g}) " in row


def test_cards_of_two_models_side_by_side(tmp_path):
    first = Card(CLAIMS[:3], {"model": "one"})
    second = Card((CLAIMS[0], CLAIMS[3]), {"model": HOSTILE})
    both = first.beside(second)
    table = both.table()
    assert list(table.index) == [each.claim for each in CLAIMS] and list(both.verdicts()) == ["one", HOSTILE]
    assert table.loc["danger raises fear", (HOSTILE, "verdict")] == "replicates"
    assert table.loc["calm falls"].isna().sum() == 9  # no figures in the first, nothing in the second
    assert "4 claims on one and" in both.verdict() and "1 replicate on all of them, 3 on none" in both.verdict()
    page = both.save(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in page and not re.search(r"(src|href)\s*=", page) and "default-src 'none'" in page
    rows = [line for line in (tmp_path / "cards.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {4}
    good = "● replicates: 0.9 (0.8 to 1); no effect 0.5, nulls 0.7"
    assert any(row.count(good) == 2 for row in rows) and page.count(good) == 2
    assert "sandbox" in both._repr_html_() and "<script" not in both._repr_html_()
