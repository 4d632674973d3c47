"""`extract()`: stories in, emotion vectors out, on any causal model."""

import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from emolab import data
from emolab.activations import Means, check_layers, sample_tokens
from emolab.cluster import ClusterReader, connected
from emolab.corpus import Reader, check_stories
from emolab.data import Story
from emolab.directions import (
    METRICS,
    Fit,
    Labelled,
    choose,
    identify,
    left_out_ranks,
    lexical_ranks,
    summary,
    unit,
)
from emolab.errors import EmolabError, unknown
from emolab.files import load_vectors, shipped
from emolab.model import Subject
from emolab.sums import Sums, labelled
from emolab.vectors import EmotionVectors, Evidence
from emolab.workshop import workshop

OFFSET = 10  # the open stories are in the feeling from the first sentence
IMPLICIT_OFFSET = 30  # the implicit ones have to set the scene first
NEUTRAL_TOKENS = 1600  # sampled for the neutral statistics
NEUTRAL_SHARE = 0.5  # of their variance goes into neutral_components (paper section 1.2)


@dataclass(frozen=True)
class HeldOut:
    """Stories that judge: `choose` picks layer and metric, `test` picks nothing."""

    choose: Sequence[Story] = ()
    test: Sequence[Story] = ()

    @classmethod
    def shipped(cls, settings: int | None = None) -> "HeldOut":
        """emolab's implicit stories and those of the second authors, in `settings` of the 12 settings."""
        return cls(*(_some_settings(data.stories(name), settings) for name in ("implicit", "implicit_second")))


def extract(
    subject: Subject,
    stories: Iterable[Story] | str | Path | None = None,
    *,
    layers: Sequence[int] | None = None,
    offset: int = OFFSET,
    pooling: str = "story",
    denoise: bool = False,
    held_out: HeldOut | None = None,
    neutral: Sequence[str] | None = None,
    anew: bool = False,
    cluster: str | None = None,
    progress: bool = True,
) -> EmotionVectors:
    """Emotion vectors and probes of a model, from stories (paper section 1.2).

    With nothing but a subject that emolab ships vectors for, those are returned; `anew=True` makes them afresh.
    An interrupted call goes on where it stopped.

    Parameters
    ----------
    stories : stories, or a file of them (JSON lines or parquet), which may be larger than memory; by default
        emolab's 171 emotions x 12.
    layers : which to read, default 1..n_layers.
    offset : first token of a story that counts (of held-out stories: 20 later).
    pooling : 'story' gives each story the same weight, 'token' each token.
    denoise : project the neutral texts' top components out of the vectors; probes need no denoising.
    held_out : stories that choose the layer and test the result, by default emolab's own. With fewer than two
        emotions in common, parts of `stories` are left out in turn instead.
    neutral : texts for the neutral baseline, by default emolab's 320.
    cluster : read on a Ray cluster: its address, or 'auto' for the one that Ray finds, else this machine. Each worker
        needs room for a copy of the model, and a file of stories must be there on every machine under the same path.

    Raises
    ------
    EmolabError : unusable texts, unknown pooling, layers that aren't there, activations that are not finite, another
        run working on this very extraction, no room for unfinished work, no such cluster.
    """
    custom = any(given is not None for given in (stories, layers, held_out, neutral)) or (
        offset,
        pooling,
    ) != (OFFSET, "story")
    if not custom and not anew and shipped(subject.name):
        vectors = load_vectors(subject.name)
        vectors.check(subject)
        return vectors.denoised() if denoise else vectors
    if pooling not in ("story", "token"):
        raise unknown("pooling", pooling, ["story", "token"])

    stories = _corpus(stories)
    corpus = data.survey(stories)
    if len(corpus.emotions) < 2:
        raise EmolabError("vectors are differences between emotions: give stories of at least two")
    layers = check_layers(subject, layers)
    held_out = _in_common(held_out or HeldOut.shipped(), corpus)
    neutral = data.neutral() if neutral is None else neutral
    later = offset + IMPLICIT_OFFSET - OFFSET
    for texts, start in ((stories, offset), (held_out.choose, later), (held_out.test, later)):
        check_stories(subject, texts, start)

    with _workshop(subject, corpus, held_out, layers, offset, pooling) as folder, _on(cluster):
        reader = ClusterReader(subject, layers, progress) if cluster else Reader(subject, layers, folder, progress)
        sums = reader.sums(stories, corpus, offset, pooling)
        choosing, testing = _read_held_out(reader, held_out, later)
        plain = sample_tokens(
            subject,
            neutral,
            layers=layers,
            offset=offset,  # not from token 1: a model's attention may sink into it as it does into token 0
            per_text=min(max(NEUTRAL_TOKENS // max(len(neutral), 1), 1), 64),
            progress="neutral texts" if progress else None,
        )  # [layer, token, d_model]
        vectors = _assemble(subject, layers, plain, stories, sums, choosing, testing)
    beside = [side.means.lengths.sum() for side in (choosing, testing) if side]
    options = {
        "offset": offset,
        "pooling": pooling,
        "n_neutral": len(neutral),
        "n_tokens": int(sums.tokens + sum(beside) + sum(len(subject.encode(text)) for text in neutral)),
    }
    vectors = replace(vectors, info=vectors.info | options)
    return vectors.denoised() if denoise else vectors


@dataclass(frozen=True)
class _Read:
    """Held-out stories and what was read of them."""

    stories: Sequence[Story]
    means: Means

    def at(self, row: int) -> Labelled:
        return labelled(self.stories, np.array(self.means.means[:, row]))


def _read_held_out(reader: Reader | ClusterReader, held_out: HeldOut, offset: int) -> tuple[_Read | None, ...]:
    """Both sides in one go."""
    sides = held_out.choose, held_out.test
    if not any(sides):
        return None, None
    means = reader.means("held-out stories", [*held_out.choose, *held_out.test], offset)
    cut = len(held_out.choose)
    return tuple(
        _Read(stories, means[rows]) if stories else None
        for stories, rows in zip(sides, (slice(cut), slice(cut, None)), strict=True)
    )


def _assemble(
    subject: Subject,
    layers: tuple[int, ...],
    plain: np.ndarray,
    stories: Iterable[Story],
    sums: Sums,
    choosing: _Read | None,
    testing: _Read | None,
) -> EmotionVectors:
    """All layers' fits, the layer rule, and everything that the file records."""
    shape = len(sums.corpus.emotions), len(layers), subject.d_model
    vectors, probes, mean = (np.empty(shape[axis:], np.float32) for axis in (0, 0, 1))
    profile = []
    for row, layer in enumerate(layers):
        fitted = sums.fit(row)
        vectors[:, row], probes[:, row], mean[row] = fitted.vectors, fitted.probes(), fitted.mean
        profile.append({"layer": layer, **_identified(fitted, sums, choosing, row)})
    profile = pd.DataFrame(profile).set_index("layer")
    chosen_layer, metric = choose(profile)
    row = layers.index(chosen_layer)
    return EmotionVectors(
        emotions=sums.corpus.emotions,
        layers=layers,
        vectors=vectors,
        probes=probes,
        counts=np.array(sums.corpus.counts),
        mean=mean,
        residual_norm=(sums.norms / sums.n).astype(np.float32),
        neutral_mean=plain.mean(1),
        neutral_sd=neutral_sd(plain, vectors, probes),
        neutral_components=_top_components(plain),
        chosen_layer=chosen_layer,
        metric=metric,
        info=_provenance(subject, sums.corpus)
        | {
            "layer_rule": "top-1 on held-out stories, mean of three neighbouring layers"
            if choosing
            else "top-1 with each part of the stories left out in turn, mean of three neighbouring layers",
            "profile": profile.reset_index().to_dict("list"),
            "n_choose": len(choosing.stories) if choosing else 0,
            "n_test": len(testing.stories) if testing else 0,
        },
        evidence=Evidence(
            chosen_layer,
            sums.labelled(row),
            plain[row],
            choose=choosing and choosing.at(row),
            test=testing and testing.at(row),
            lexical=_lexical(stories, sums, choosing, testing),
        ),
    )


def _lexical(
    stories: Iterable[Story], sums: Sums, choosing: _Read | None, testing: _Read | None
) -> dict[str, np.ndarray]:
    """Ranks by words alone for each set of texts; of the sample, each part by the others."""
    found = {}
    if choosing:
        found["choose"] = lexical_ranks(stories, choosing.stories)
    if testing:
        found["test"] = lexical_ranks(stories, testing.stories, genre=choosing and choosing.stories)
    sample, parts = [kept.story for kept in sums.kept()], sums.corpus.parts
    if len(parts) > 1:
        found["train"] = np.concatenate([_lexical_left_out(sample, part) for part in parts])
    return {role: rank for role, rank in found.items() if len(rank)}


def _lexical_left_out(stories: Sequence[Story], part: str) -> np.ndarray:
    rest = [story for story in stories if story.part != part]
    known = {story.emotion for story in rest}
    left_out = [story for story in stories if story.part == part and story.emotion in known]
    return lexical_ranks(rest, left_out) if left_out else np.array([], int)


def _identified(fitted: Fit, sums: Sums, choosing: _Read | None, row: int) -> dict[str, float]:
    """Top-1 by metric on held-out stories, or with each part of the sample left out in turn if there are none."""
    if choosing:
        held_out = choosing.at(row)
        return {
            metric: summary(identify(fitted.directions(metric), fitted.emotions, held_out))["top1"]
            for metric in METRICS
        }
    ranks = left_out_ranks(sums.labelled(row), np.array([kept.weight for kept in sums.kept()]))
    return {metric: summary(rank)["top1"] if len(rank) else 0.0 for metric, rank in ranks.items()}


def neutral_sd(plain: np.ndarray, vectors: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """[metric, emotion, layer] standard deviation of token scores on neutral texts, token 0 left out."""
    directions = np.stack([unit(vectors), probes])  # [metric, emotion, layer, d_model]
    sd = [np.std(directions[:, :, row] @ tokens.T, axis=-1) for row, tokens in enumerate(plain)]
    return np.stack(sd, -1).astype(np.float32)


def _top_components(plain: np.ndarray) -> np.ndarray:
    """[layer, component, d_model] principal components up to NEUTRAL_SHARE of the token variance, zero-filled."""
    kept = []
    for tokens in plain:
        _, size, axes = np.linalg.svd(tokens - tokens.mean(0), full_matrices=False)
        share = np.cumsum(size**2) / np.sum(size**2)
        kept.append(axes[: int(np.searchsorted(share, NEUTRAL_SHARE)) + 1])
    components = np.zeros((len(plain), max(map(len, kept)), plain.shape[-1]), np.float32)
    for row, axes in enumerate(kept):
        components[row, : len(axes)] = axes
    return components


def _provenance(subject: Subject, corpus: data.Survey) -> dict:
    return {
        "model": subject.name,
        "revision": subject.revision,
        "architecture": subject.config.model_type,
        "n_layers": subject.n_layers,
        "weights": subject.weight_sample,
        "fingerprint": subject.fingerprint,
        "tokenizer": subject.tokenizer_hash,
        "dtype": str(subject.dtype).removeprefix("torch."),
        "corpus": corpus.hash,
        "n_stories": corpus.n,
        "denoised": False,
        "layer_convention": "layer k is the residual stream after block k (1..n_layers); 0 is the embeddings",
        "versions": {name: version(name) for name in ("emolab", "torch", "transformers", "numpy")}
        | {"python": platform.python_version()},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _corpus(stories: Iterable[Story] | str | Path | None) -> Iterable[Story]:
    """Something that can be gone through several times."""
    if stories is None or isinstance(stories, str | Path):
        return data.story_file(stories or "stories")
    return list(stories) if isinstance(stories, Iterator) else stories


def _on(cluster: str | None) -> AbstractContextManager:
    return connected(cluster) if cluster else nullcontext()


def _in_common(held_out: HeldOut, corpus: data.Survey) -> HeldOut:
    """The held-out stories whose emotion the vectors will have; none if that leaves no choice to make."""
    kept = [
        [story for story in texts if story.emotion in corpus.emotions] for texts in (held_out.choose, held_out.test)
    ]
    return HeldOut(*(texts if len({story.emotion for story in texts}) > 1 else [] for texts in kept))


def _some_settings(stories: list[Story], settings: int | None) -> list[Story]:
    parts = sorted({story.part for story in stories})
    kept = {parts[i * len(parts) // settings] for i in range(settings)} if settings else set(parts)
    return [story for story in stories if story.part in kept]


def _workshop(subject: Subject, corpus: data.Survey, held_out: HeldOut, *options) -> AbstractContextManager[Path]:
    """A folder for unfinished work that belongs to this very extraction."""
    texts = [corpus.hash, *(data.corpus_hash(side) for side in (held_out.choose, held_out.test))]
    work = json.dumps([subject.weight_sample, str(subject.dtype), texts, options])
    key = sha256(work.encode()).hexdigest()[:16]
    return workshop("extractions", key, f"this very extraction of {subject.name}")
