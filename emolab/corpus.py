"""Reading a corpus of any size: chunk by chunk into running sums, with checkpoints."""

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from tqdm.auto import tqdm

from emolab.activations import Means, encode_all, mean_activations
from emolab.data import Story, Survey, chunks
from emolab.files import atomic
from emolab.model import Subject
from emolab.sums import Sums

CHUNK = 512  # stories in memory at a time
SAVE_EVERY = 30  # seconds between checkpoints; finished batches are kept in between


@dataclass(frozen=True)
class Reader:
    """Reads stories on this machine. Finished work is kept in `folder`: an interrupted call goes on there."""

    subject: Subject
    layers: Sequence[int]
    folder: Path
    progress: bool

    def means(self, label: str, stories: Sequence[Story], offset: int) -> Means:
        """The mean residual stream of each story, for a few stories."""
        return mean_activations(
            self.subject,
            [story.text for story in stories],
            layers=self.layers,
            offset=offset,
            folder=self.folder / label,
            progress=label if self.progress else None,
        )

    def sums(self, stories: Iterable[Story], survey: Survey, offset: int, pooling: str) -> Sums:
        """Sums over a corpus of any size."""
        checkpoint = self.folder / "sums.safetensors"
        shape = len(self.layers), self.subject.d_model
        sums = _load(checkpoint, survey) or Sums.empty(survey, *shape)
        before, saved, summed = sums.n, time.monotonic(), []
        with tqdm(total=survey.n, initial=before, desc="stories", unit=" stories", disable=not self.progress) as bar:
            for number, chunk in enumerate(chunks(stories, CHUNK)):
                if number * CHUNK < before:
                    continue
                texts, batches = [story.text for story in chunk], self.folder / f"chunk {number}"
                options = {"layers": self.layers, "offset": offset, "folder": batches, "progress": bar}
                sums.add(chunk, mean_activations(self.subject, texts, **options), pooling)
                summed.append(batches)
                if time.monotonic() - saved > SAVE_EVERY:
                    _save(sums, checkpoint, summed)
                    saved = time.monotonic()
        return sums


def _load(checkpoint: Path, survey: Survey) -> Sums | None:
    """What was summed before; None if there is nothing, or nothing that can be read."""
    try:
        return Sums.load(checkpoint, survey)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _save(sums: Sums, checkpoint: Path, summed: list[Path]) -> None:
    """Sums first, then their batches go: a kill in between costs nothing."""
    with atomic(checkpoint) as scratch:
        sums.save(scratch)
    while summed:
        shutil.rmtree(summed.pop())


def check_stories(subject: Subject, stories: Iterable[Story], offset: int) -> None:
    """Raises EmolabError, naming the text, if one can't be read: before the work, not in its middle."""
    for number, chunk in enumerate(chunks(stories, CHUNK)):
        encode_all(subject, [story.text for story in chunk], offset, first=number * CHUNK)
