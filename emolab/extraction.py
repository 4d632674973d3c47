"""`extract()`: stories in, emotion vectors out, on any causal model."""

import json
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from emolab import data
from emolab.activations import Means, check_layers, mean_activations, sample_tokens
from emolab.data import Story
from emolab.directions import (
    METRICS,
    Fit,
    Labelled,
    choose,
    fit,
    identify,
    left_out_ranks,
    lexical_ranks,
    summary,
    unit,
)
from emolab.embedded import cache_folder
from emolab.errors import EmolabError, unknown
from emolab.files import load_vectors, shipped
from emolab.model import Subject
from emolab.vectors import EmotionVectors, Evidence

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
    stories: Sequence[Story] | str | Path | None = None,
    *,
    layers: Sequence[int] | None = None,
    offset: int = OFFSET,
    pooling: str = "story",
    denoise: bool = False,
    held_out: HeldOut | None = None,
    neutral: Sequence[str] | None = None,
    anew: bool = False,
    progress: bool = True,
) -> EmotionVectors:
    """Emotion vectors and probes of a model, from stories (paper section 1.2).

    With nothing but a subject that emolab ships vectors for, those are returned; `anew=True` makes them afresh.
    An interrupted call goes on where it stopped.

    Parameters
    ----------
    stories : stories, or a JSON-lines file of them; by default emolab's 171 emotions x 12.
    layers : which to read, default 1..n_layers.
    offset : first token of a story that counts (of held-out stories: 20 later).
    pooling : 'story' gives each story the same weight, 'token' each token.
    denoise : project the neutral texts' top components out of the vectors; probes need no denoising.
    held_out : stories that choose the layer and test the result, by default emolab's own. With fewer than two
        emotions in common, parts of `stories` are left out in turn instead.
    neutral : texts for the neutral baseline, by default emolab's 320.

    Raises
    ------
    EmolabError : unusable texts, unknown pooling, layers that aren't there, activations that are not finite, another
        run working on this very extraction, no room for unfinished work.
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

    if stories is None or isinstance(stories, str | Path):
        stories = data.stories(stories or "stories")
    if len({story.emotion for story in stories}) < 2:
        raise EmolabError("vectors are differences between emotions: give stories of at least two")
    layers = check_layers(subject, layers)
    held_out = _in_common(held_out or HeldOut.shipped(), stories)
    neutral = data.neutral() if neutral is None else neutral

    with _workshop(subject, stories, held_out, layers, offset) as folder:

        def read(label: str, texts: Sequence[Story], offset: int) -> Means | None:
            if not texts:
                return None
            return mean_activations(
                subject,
                [story.text for story in texts],
                layers=layers,
                offset=offset,
                folder=folder / label,
                progress=label if progress else None,
            )

        train = read("stories", stories, offset)
        to_choose = read("held-out stories", held_out.choose, offset + IMPLICIT_OFFSET - OFFSET)
        to_test = read("second authors", held_out.test, offset + IMPLICIT_OFFSET - OFFSET)
        plain = sample_tokens(
            subject,
            neutral,
            layers=layers,
            offset=offset,  # not from token 1: a model's attention may sink into it as it does into token 0
            per_text=min(max(NEUTRAL_TOKENS // max(len(neutral), 1), 1), 64),
            progress="neutral texts" if progress else None,
        )  # [layer, token, d_model]
        vectors = _assemble(
            subject,
            layers,
            pooling,
            plain,
            (stories, train),
            (held_out.choose, to_choose),
            (held_out.test, to_test),
        )
    read_texts = [*(story.text for story in (*stories, *held_out.choose, *held_out.test)), *neutral]
    options = {
        "offset": offset,
        "pooling": pooling,
        "n_neutral": len(neutral),
        "n_tokens": sum(len(subject.encode(text)) for text in read_texts),
    }
    vectors = replace(vectors, info=vectors.info | options)
    return vectors.denoised() if denoise else vectors


def labelled(stories: Sequence[Story], means: Means | None, row: int) -> Labelled | None:
    """The means of one layer with the stories' labels."""
    if means is None:
        return None
    emotions, parts = (np.array([getattr(story, name) for story in stories]) for name in ("emotion", "part"))
    return Labelled(np.array(means.means[:, row]), emotions, parts)


def _assemble(subject, layers, pooling, plain, train, choosing, testing) -> EmotionVectors:
    """All layers' fits, the layer rule, and everything that the file records."""
    stories, means = train
    weights = means.tokens if pooling == "token" else None
    fits, profile = [], []
    for row, layer in enumerate(layers):
        texts = labelled(stories, means, row)
        fits.append(fit(texts, weights))
        profile.append({"layer": layer, **_identified(fits[-1], texts, labelled(*choosing, row), weights)})
    profile = pd.DataFrame(profile).set_index("layer")
    chosen_layer, metric = choose(profile)
    row = layers.index(chosen_layer)

    emotions = fits[0].emotions
    vectors = np.stack([f.vectors for f in fits], 1).astype(np.float32)  # [emotion, layer, d_model]
    probes = np.stack([f.probes() for f in fits], 1).astype(np.float32)
    counts = np.unique([story.emotion for story in stories], return_counts=True)[1]
    return EmotionVectors(
        emotions=emotions,
        layers=layers,
        vectors=vectors,
        probes=probes,
        counts=counts,
        mean=np.stack([f.mean for f in fits]).astype(np.float32),
        residual_norm=means.norms.mean(0).astype(np.float32),
        neutral_mean=plain.mean(1),
        neutral_sd=_neutral_sd(plain, vectors, probes),
        neutral_components=_top_components(plain),
        chosen_layer=chosen_layer,
        metric=metric,
        info=_provenance(subject, stories)
        | {
            "layer_rule": "top-1 on held-out stories, mean of three neighbouring layers"
            if choosing[1] is not None
            else "top-1 with each part of the stories left out in turn, mean of three neighbouring layers",
            "profile": profile.reset_index().to_dict("list"),
            "n_choose": len(choosing[0]),
            "n_test": len(testing[0]),
        },
        evidence=Evidence(
            chosen_layer,
            labelled(*train, row),
            plain[row],
            choose=labelled(*choosing, row),
            test=labelled(*testing, row),
            lexical=_lexical(stories, choosing[0], testing[0]),
        ),
    )


def _lexical(stories: Sequence[Story], choosing: Sequence[Story], testing: Sequence[Story]) -> dict[str, np.ndarray]:
    """Ranks by words alone for each set of texts; of the stories, each part by the others."""
    found = {"choose": choosing and lexical_ranks(stories, choosing)}
    found["test"] = testing and lexical_ranks(stories, testing, genre=choosing or None)
    parts = sorted({story.part for story in stories})
    if len(parts) > 1:
        found["train"] = np.concatenate([_lexical_left_out(stories, part) for part in parts])
    return {role: rank for role, rank in found.items() if len(rank)}


def _lexical_left_out(stories: Sequence[Story], part: str) -> np.ndarray:
    rest = [story for story in stories if story.part != part]
    known = {story.emotion for story in rest}
    left_out = [story for story in stories if story.part == part and story.emotion in known]
    return lexical_ranks(rest, left_out) if left_out else np.array([], int)


def _identified(fitted: Fit, train: Labelled, held_out: Labelled | None, weights) -> dict[str, float]:
    """Top-1 by metric on held-out stories, or with each part left out in turn if there are none."""
    if held_out is not None:
        return {
            metric: summary(identify(fitted.directions(metric), fitted.emotions, held_out))["top1"]
            for metric in METRICS
        }
    ranks = left_out_ranks(train, weights)
    return {metric: summary(rank)["top1"] if len(rank) else 0.0 for metric, rank in ranks.items()}


def _neutral_sd(plain: np.ndarray, vectors: np.ndarray, probes: np.ndarray) -> np.ndarray:
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


def _provenance(subject: Subject, stories: Sequence[Story]) -> dict:
    return {
        "model": subject.name,
        "revision": subject.revision,
        "architecture": subject.config.model_type,
        "n_layers": subject.n_layers,
        "weights": subject.weight_sample,
        "fingerprint": subject.fingerprint,
        "tokenizer": subject.tokenizer_hash,
        "dtype": str(subject.dtype).removeprefix("torch."),
        "corpus": data.corpus_hash(stories),
        "n_stories": len(stories),
        "denoised": False,
        "layer_convention": "layer k is the residual stream after block k (1..n_layers); 0 is the embeddings",
        "versions": {name: version(name) for name in ("emolab", "torch", "transformers", "numpy")}
        | {"python": platform.python_version()},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _in_common(held_out: HeldOut, stories: Sequence[Story]) -> HeldOut:
    """The held-out stories whose emotion the vectors will have; none if that leaves no choice to make."""
    known = {story.emotion for story in stories}
    kept = [[story for story in texts if story.emotion in known] for texts in (held_out.choose, held_out.test)]
    return HeldOut(*(texts if len({story.emotion for story in texts}) > 1 else [] for texts in kept))


def _some_settings(stories: list[Story], settings: int | None) -> list[Story]:
    parts = sorted({story.part for story in stories})
    kept = {parts[i * len(parts) // settings] for i in range(settings)} if settings else set(parts)
    return [story for story in stories if story.part in kept]


@contextmanager
def _workshop(subject: Subject, *work) -> Iterator[Path]:
    """A folder for unfinished work that belongs to this very extraction; removed when the work is done."""
    stories, held_out, layers, offset = work
    corpora = [data.corpus_hash(texts) for texts in (stories, held_out.choose, held_out.test)]
    key = sha256(json.dumps([subject.weight_sample, str(subject.dtype), corpora, layers, offset]).encode()).hexdigest()[
        :16
    ]
    folder = cache_folder() / "extractions" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"), timeout=0)
        with lock:
            yield folder
            shutil.rmtree(folder)
    except Timeout:
        raise EmolabError(
            f"another process is working on this very extraction of {subject.name}: wait for it, or stop it and run "
            "again to go on where it stopped"
        ) from None
    except OSError as error:
        raise EmolabError(
            f"can't work in {folder.parent} ({error.strerror or error}): free some room, or point EMOLAB_CACHE to a "
            "folder of yours"
        ) from error


def merge(first: EmotionVectors, second: EmotionVectors) -> EmotionVectors:
    """The vectors of two extractions on one model, as if their stories had been read together.

    The result holds the first one's chosen layer only, for the probes need the stories' covariance, which is kept
    there. Raises EmolabError if the models or layers differ, or a side has no evidence.
    """
    if first.info["weights"] != second.info["weights"]:
        raise EmolabError(f"vectors of two models can't be merged: {first.info['model']} and {second.info['model']}")
    if first.evidence is None or second.evidence is None or first.chosen_layer != second.evidence.layer:
        raise EmolabError(
            f"merging needs the story means of both at layer {first.chosen_layer}: extract the second with "
            f"layers=[{first.chosen_layer}], and load whole files, not selections"
        )
    row = first.row()
    train = _joined(first.evidence.train, second.evidence.train)
    fitted = fit(train)
    vectors, probes = (values[:, None].astype(np.float32) for values in (fitted.vectors, fitted.probes()))
    plain = first.evidence.neutral
    shares = np.array([len(first.evidence.train), len(second.evidence.train)]) / len(train)
    norms = [side.residual_norm[side.row(first.chosen_layer)] for side in (first, second)]
    return replace(
        first,
        emotions=fitted.emotions,
        layers=(first.chosen_layer,),
        vectors=vectors,
        probes=probes,
        counts=np.unique(train.emotions, return_counts=True)[1],
        mean=fitted.mean[None].astype(np.float32),
        residual_norm=np.array([shares @ norms], np.float32),
        neutral_mean=first.neutral_mean[[row]],
        neutral_sd=_neutral_sd(plain[None], vectors, probes),
        neutral_components=first.neutral_components[[row]],
        info=first.info
        | {
            "n_stories": len(train),
            "corpus": [first.info["corpus"], second.info["corpus"]],
            "denoised": False,
            "profile": {name: [values[row]] for name, values in first.info["profile"].items()},
        },
        evidence=Evidence(
            first.chosen_layer,
            train,
            plain,
            choose=_joined(first.evidence.choose, second.evidence.choose, fresh=True),
            test=_joined(first.evidence.test, second.evidence.test, fresh=True),
        ),
    )


def _joined(first: Labelled | None, second: Labelled | None, fresh: bool = False) -> Labelled | None:
    """Both together; with `fresh`, only what the second has on emotions that the first lacks."""
    if first is None or second is None:
        return first or second
    if fresh:
        second = second[~np.isin(second.emotions, first.emotions)]
    names = ("means", "emotions", "parts")
    return Labelled(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))
