"""The log of a monitor: JSON lines, each on disk as soon as it is written, so that a cut-off stream leaves all so far.

The first line says what is watched and by which thresholds, then a line for each token (token, score, running mean,
threshold, span of the alarm it is in), and last one that says that the stream came to its end.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import pandas as pd

from emolab.errors import EmolabError
from emolab.watching.thresholds import Thresholds

FORMAT = 1


class LogWriter:
    """Writes a log line by line. Raises EmolabError where the file can't be written."""

    def __init__(self, path: str | Path, thresholds: Thresholds):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = self.path.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise self._cannot(error) from error
        self.write({"watch": FORMAT, "thresholds": asdict(thresholds)})

    def write(self, row: dict) -> None:
        try:
            # a lone surrogate, half of a character, would not be UTF-8: JSON's own escapes are
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            raise self._cannot(error) from error

    def close(self, end: dict | None = None) -> None:
        """Close the file, after a last line if the stream came to its end."""
        try:
            if end is not None:
                self.write({"end": end})
        finally:
            self._file.close()

    def _cannot(self, error: Exception) -> EmolabError:
        why = getattr(error, "strerror", None) or error
        return EmolabError(f"can't write the log {self.path}: {why}. Choose another place or free some room")


@dataclass(frozen=True)
class Log:
    """A log as it was read.

    thresholds : by which was watched
    rows : a dictionary for each token, as `Track.row` makes it
    complete : whether the stream came to its end
    notice : what is missing, in words; '' if nothing is
    """

    path: Path
    thresholds: Thresholds
    rows: tuple[dict, ...]
    complete: bool
    notice: str

    def __repr__(self) -> str:
        return f"Log({self.path.name!r}, {len(self.rows)} tokens{'; ' * bool(self.notice)}{self.notice})"

    @property
    def text(self) -> str:
        """What was written, as far as the log goes."""
        return "".join(row["token"] for row in self.rows)

    def table(self) -> pd.DataFrame:
        """[(position, token, speaker)] (emotion, score | mean): what was logged."""
        index = pd.MultiIndex.from_tuples(
            [(row["position"], row["token"], row["speaker"]) for row in self.rows],
            names=["position", "token", "speaker"],
        )
        values = {
            (name, key): [row[key][name] for row in self.rows]
            for name in self.thresholds.emotions
            for key in ("score", "mean")
        }
        return pd.DataFrame(values, index=index, dtype=float)

    def alarms(self) -> pd.DataFrame:
        """A row for each alarm: emotion, first token and one after the last, as far as the log goes."""
        spans: dict[tuple[str, int], int] = {}
        for row in self.rows:
            spans |= {(name, span[0]): span[1] for name, span in row["span"].items() if span}
        return pd.DataFrame([(*key, end) for key, end in spans.items()], columns=["emotion", "start", "end"])


def read_log(path: str | Path) -> Log:
    """A log, whole or cut off; a cut-off one is read as far as it goes, and its `notice` says so.

    Raises EmolabError if there is no such file, it is no log, or a line before the last is broken or missing.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise EmolabError(f"there is no log {path} that can be read ({error.strerror})") from None
    cut = lines.pop()  # what follows the last line end: nothing, in a log that is whole
    if not lines:
        raise EmolabError(f"{path} is no log of a watch: it is empty, or was cut off in its first line")
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1)]
    try:
        if rows[0]["watch"] != FORMAT:
            raise ValueError(f"format {rows[0]['watch']}")
        thresholds = Thresholds(**rows[0]["thresholds"])
    except (KeyError, TypeError, ValueError) as error:
        raise EmolabError(f"{path} is no log of a watch that this emolab reads ({error})") from None
    complete = "end" in rows[-1] and not cut
    tokens = rows[1:-1] if "end" in rows[-1] else rows[1:]
    for number, row in enumerate(tokens):
        if not {"token", "speaker", "score", "mean", "span"} <= set(row) or row.get("position") != number:
            raise EmolabError(f"{path}, line {number + 2}: this should be token {number}; the log was changed by hand?")
    if "end" in rows[-1] and (cut or rows[-1]["end"].get("tokens") != len(tokens)):
        raise EmolabError(f"{path}: the last line does not fit what stands before it; the log was changed by hand?")
    notice = "" if complete else f"the stream was cut off after {len(tokens)} tokens"
    notice += f"; its last line is incomplete and left out: {cut[:40]!r}" if cut else ""
    return Log(path, thresholds, tuple(tokens), complete, notice)


def _row(path: Path, number: int, line: str) -> dict:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("no JSON object")
        return row
    except ValueError as error:
        raise EmolabError(f"{path}, line {number} is broken ({error}): the log was changed or damaged") from None
