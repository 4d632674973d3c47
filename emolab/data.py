"""Finding and reading what `data/` holds: emotion words, human norms, stories and prompt sets.

Nothing here knows about models. Where every text comes from is said in `data/README.md`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import pandas as pd

from emolab.errors import EmolabError, unknown

_PACKAGED = Path(__file__).parent / "_data"  # in a wheel; a checkout has data/ beside the package
DATA = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent / "data"

CORPORA = {
    "stories": "stories.jsonl",  # the vectors are made from these
    "implicit": "implicit.jsonl",  # layer and metric are chosen on these
    "implicit_second": "implicit_second.jsonl",  # test only
}


@dataclass(frozen=True)
class Story:
    """A text in which somebody is in the state `emotion`; `part` is the setting it shares with others."""

    emotion: str
    text: str
    part: str = ""


@cache
def emotions() -> tuple[str, ...]:
    """The 171 emotion words of the paper, in alphabetical order.

    >>> len(emotions()), emotions()[0]
    (171, 'afraid')
    """
    return tuple(senses().index)


@cache
def senses() -> pd.Series:
    """One line for each emotion word: the sense that the authors of the stories worked from.

    >>> senses()["calm"]
    'even, unhurried, steady though things happen around'
    """
    table = pd.read_csv(DATA / "emotions.tsv", sep="\t", keep_default_na=False)
    return table.set_index("emotion")["sense"]


@cache
def norms() -> pd.DataFrame:
    """Human ratings (Russell & Mehrabian 1977) of the 45 words that are in our list.

    Columns `pleasure`, `arousal`, `dominance` (means, scale -1 to 1) and their `_sd`; index `emotion`.

    >>> norms().shape
    (45, 6)
    """
    return pd.read_csv(DATA / "russell_mehrabian_1977.csv", index_col="emotion", comment="#")


def stories(source: str | Path = "stories", emotions: Sequence[str] | None = None) -> list[Story]:
    """The stories of one of emolab's corpora, or of a JSON-lines file of your own.

    Parameters
    ----------
    source : 'stories', 'implicit', 'implicit_second', or the path of a file with one object a line that has
        `emotion`, `text` and optionally `part`.
    emotions : keep only these.

    Raises
    ------
    EmolabError : no such file, a broken line (names file and line), an emotion that has no story.

    >>> len(stories("implicit_second"))
    384
    """
    path = DATA / CORPORA[str(source)] if str(source) in CORPORA else Path(source)
    found = [_story(path, number, row) for number, row in _rows(path)]
    if not found:
        raise EmolabError(f"{path} holds no stories: it needs one JSON object a line, with 'emotion' and 'text'")
    if emotions is None:
        return found
    known = sorted({story.emotion for story in found})
    for emotion in emotions:
        if emotion not in known:
            raise unknown("emotion", emotion, known)
    return [story for story in found if story.emotion in set(emotions)]


def neutral() -> list[str]:
    """The 320 plain texts without emotional colour that readings are compared with.

    >>> len(neutral())
    320
    """
    return [row["text"] for _, row in _rows(DATA / "neutral.jsonl")]


def prompts(name: str) -> list[dict]:
    """A prompt set from `data/sets`, as a list of dictionaries.

    >>> sorted(prompts("danger_safe")[0])
    ['danger', 'id', 'safe']
    """
    known = {path.stem: path for path in sorted((DATA / "sets").glob("*.jsonl"))}
    if name not in known:
        raise unknown("prompt set", name, known)
    return [row for _, row in _rows(known[name])]


def corpus_hash(texts: Sequence[Story]) -> str:
    """sha256 over the stories, in the order given; two corpora with one hash are the same corpus."""
    digest = sha256()
    for story in texts:
        digest.update(json.dumps(asdict(story), sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise EmolabError(
            f"there is no file {path}: give a path to a .jsonl file or one of {', '.join(CORPORA)}"
        ) from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise EmolabError(f"{path} can't be read as UTF-8 text ({error}): save it as JSON lines in UTF-8") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise EmolabError(
                    f"{path}, line {number}: not valid JSON ({error.msg}, column {error.colno})"
                ) from None
            if not isinstance(row, dict):
                raise EmolabError(f"{path}, line {number}: expected an object in {{...}}, found {type(row).__name__}")
            yield number, row


def _story(path: Path, number: int, row: dict) -> Story:
    for key in ("emotion", "text"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise EmolabError(f"{path}, line {number}: '{key}' is missing or empty")
    return Story(row["emotion"], row["text"], str(row.get("part", "")))
