"""Finding and reading what `data/` holds: emotion words, human norms, stories and prompt sets.

Nothing here knows about models. Where every text comes from is said in `data/README.md`.
"""

import json
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import blake2b, sha256
from itertools import count, islice
from pathlib import Path

import pandas as pd

from emolab.checks import parsed, path_of
from emolab.errors import EmolabError, unknown

_PACKAGED = Path(__file__).parent / "_data"  # in a wheel; a checkout has data/ beside the package
DATA = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent / "data"

CORPORA = {
    "stories": "stories.jsonl",  # the vectors are made from these
    "implicit": "implicit.jsonl",  # layer and metric are chosen on these
    "implicit_second": "implicit_second.jsonl",  # test only
}
SAMPLE = 2400  # stories of a corpus that are kept as evidence: emolab's own whole


@dataclass(frozen=True)
class Story:
    """A text in which somebody is in the state `emotion`; `part` is the setting it shares with others."""

    emotion: str
    text: str
    part: str = ""

    @property
    def as_json(self) -> bytes:
        """What is hashed."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass")

    @property
    def key(self) -> bytes:
        """A short hash. The stories with the smallest ones are a sample that does not depend on their order."""
        return blake2b(self.as_json, digest_size=8).digest()


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


@dataclass(frozen=True)
class StoryFile:
    """Stories in a file, read from disk anew each time one goes through them: it may be larger than memory.

    path : JSON lines, or a .parquet table (needs pyarrow); of each object or row `emotion`, `text` and, if it is
        there, `part` are read.

    Going through it raises EmolabError for a file that is missing or broken; the message names file and line.
    """

    path: Path

    def __iter__(self) -> Iterator[Story]:
        found = False
        for number, row in _table_rows(self.path) if self.path.suffix == ".parquet" else _rows(self.path):
            found = True
            yield _story(self.path, number, row)
        if not found:
            raise EmolabError(
                f"{self.path} holds no stories: it needs one JSON object a line, with 'emotion' and 'text'"
            )


@dataclass(frozen=True)
class Survey:
    """What a first look at a corpus tells.

    emotions, parts : names in alphabetical order
    counts : stories of each emotion
    sample : keys of SAMPLE stories at most, about as many of each emotion
    hash : of all stories in their order
    """

    emotions: tuple[str, ...]
    parts: tuple[str, ...]
    counts: tuple[int, ...]
    sample: frozenset[bytes]
    hash: str

    @property
    def n(self) -> int:
        return sum(self.counts)


def survey(corpus: Iterable[Story]) -> Survey:
    """Go through a corpus once. Raises EmolabError where a story in a file is broken."""
    digest, parts = sha256(), set()
    counts, keys = Counter(), defaultdict(list)
    for story in corpus:
        digest.update(story.as_json)
        counts[story.emotion] += 1
        parts.add(story.part)
        insort(keys[story.emotion], story.key)
        del keys[story.emotion][SAMPLE:]
    names = tuple(sorted(counts))
    sample = frozenset(key for some in keys.values() for key in some[: max(SAMPLE // len(names), 1)])
    return Survey(names, tuple(sorted(parts)), tuple(counts[name] for name in names), sample, digest.hexdigest())


def stories(source: str | Path = "stories", emotions: Iterable[str] | None = None) -> list[Story]:
    """The stories of one of emolab's corpora, or of a file of your own.

    Parameters
    ----------
    source : 'stories', 'implicit', 'implicit_second', or the path of a JSON-lines file with one object a line that
        has `emotion`, `text` and optionally `part`, or of a .parquet table with these columns.
    emotions : keep only these.

    Raises
    ------
    EmolabError : no such file, a broken line (names file and line), an emotion that has no story.

    >>> len(stories("implicit_second"))
    384
    """
    found = list(story_file(source))
    if emotions is None:
        return found
    known, wanted = {story.emotion for story in found}, set(emotions)
    for emotion in wanted - known:
        raise unknown("emotion", emotion, sorted(known))
    return [story for story in found if story.emotion in wanted]


def story_file(source: str | Path) -> StoryFile:
    """One of emolab's corpora by its name, or a file of your own."""
    return StoryFile(DATA / CORPORA[str(source)] if str(source) in CORPORA else path_of(source))


def chunks(stories: Iterable[Story], size: int) -> Iterator[list[Story]]:
    """The stories in lists of `size`, the last one shorter.

    >>> [len(chunk) for chunk in chunks([Story("sad", "...")] * 5, size=2)]
    [2, 2, 1]
    """
    rest = iter(stories)
    while chunk := list(islice(rest, size)):
        yield chunk


def neutral() -> list[str]:
    """The 320 plain texts without emotional colour that readings are compared with.

    >>> len(neutral())
    320
    """
    return [row["text"] for _, row in _rows(DATA / "neutral.jsonl")]


def prompts(name: str) -> list[dict]:
    """A prompt set from `data/sets`, as a list of dictionaries. Raises EmolabError if there is none of that name.

    >>> sorted(prompts("danger_safe")[0])
    ['danger', 'id', 'safe']
    """
    known = {path.stem: path for path in sorted((DATA / "sets").glob("*.jsonl"))}
    if not isinstance(name, str) or name not in known:
        raise unknown("prompt set", name, known)
    return [row for _, row in _rows(known[name])]


def corpus_hash(texts: Iterable[Story]) -> str:
    """sha256 over the stories, in the order given; two corpora with one hash are the same corpus."""
    return survey(texts).hash


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError("it is a device or a pipe, and stories are read several times")
        with path.open(encoding="utf-8-sig", newline="\n") as file:  # Windows' editors begin a file with a mark
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _row(path, number, line)
    except FileNotFoundError:
        raise EmolabError(
            f"there is no file {path}: give a path to a .jsonl file or one of {', '.join(CORPORA)}"
        ) from None
    except (UnicodeDecodeError, OSError) as error:
        raise EmolabError(f"{path} can't be read as UTF-8 text ({error}): save it as JSON lines in UTF-8") from None


def _row(path: Path, number: int, line: str) -> dict:
    try:
        row = parsed(line)
    except json.JSONDecodeError as error:
        raise EmolabError(f"{path}, line {number}: not valid JSON ({error.msg}, column {error.colno})") from None
    except ValueError as error:
        raise EmolabError(f"{path}, line {number}: not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise EmolabError(f"{path}, line {number}: expected an object in {{...}}, found {type(row).__name__}")
    return row


def _table_rows(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise EmolabError(
            f"reading {path.name} needs pyarrow: pip install 'emolab[cluster]', or save JSON lines"
        ) from None
    from pyarrow import ArrowException

    numbers = count(1)
    try:
        with parquet.ParquetFile(path) as table:
            columns = [name for name in ("emotion", "text", "part") if name in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    yield next(numbers), {key: value for key, value in row.items() if value is not None}
    except FileNotFoundError:
        raise EmolabError(f"there is no file {path}") from None
    except (ArrowException, OSError, ValueError) as error:
        raise EmolabError(f"{path} is not a parquet table that can be read ({error}): write it anew") from None


def _story(path: Path, number: int, row: dict) -> Story:
    for key in ("emotion", "text"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise EmolabError(f"{path}, line {number}: '{key}' is missing or empty")
    part = row.get("part")
    if not isinstance(part, str | int | float | None):
        raise EmolabError(f"{path}, line {number}: 'part' is a name or a number, not {type(part).__name__}")
    return Story(row["emotion"], row["text"], "" if part is None else str(part))
