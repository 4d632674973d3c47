"""`concept()`: a direction for any concept of one's own, from a few texts.

Its texts are read as the stories were that the vectors come from. What the texts share beside the concept (who wrote
them, what kind of text they are) can't be told from the concept itself unless something is known of it: see the
`centring` of `concept`.
"""

from collections.abc import Sequence

import numpy as np

from emolab import data, likeness
from emolab.activations import Means, mean_activations, sample_tokens
from emolab.concepts import OWN, Concept
from emolab.data import Story
from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.vectors import EmotionVectors

FEWEST = 6  # texts
TOKENS = 20  # of each text beyond the offset, at least


def concept(
    subject: Subject,
    name: str,
    texts: Sequence[str | Story] | None = None,
    vectors: EmotionVectors | None = None,
    *,
    description: str | None = None,
    contrast: Sequence[str | Story] | None = None,
    layers: Sequence[int] | None = None,
    neutral: Sequence[str] | None = None,
    seed: int = 0,
) -> Concept:
    """A direction for a concept of one's own, from 6 to 20 texts in which somebody is in that state, or acts by it.

    >>> mine = concept(subject, "disciplined", texts); print(mine.verdict())        # doctest: +SKIP

    Parameters
    ----------
    texts : of about a hundred words each, in different places and words; plain texts, or `Story`s.
    vectors : the emotions to compare with, with their evidence; by default those shipped for the model.
    description : instead of texts: the model writes them itself, if a trial shows that it can.
    contrast : texts of the same kind and author without the concept.
    layers : which to read besides the chosen layer; by default from the middle one, where one steers, to the chosen.
    neutral : texts for the neutral baseline at those, by default some of emolab's.

    What else the texts share is taken out at the chosen layer in one of three ways (`centring`):
    'contrast', less the mean of contrast texts, if there are any; 'parts', less what the corpus' settings add, if all
    texts are stories with settings of the corpus; else 'genre', without all directions in which the corpus' own
    settings and genres differ. The last takes out what is known of genres, not the author.

    Raises
    ------
    EmolabError : vectors of another model or without evidence; fewer than six different texts; texts that are empty,
        too short or beyond the context window; a model that can't write its own.
    """
    vectors = _vectors_for(subject, vectors)
    if not isinstance(name, str) or not name.strip():
        raise EmolabError(f"a concept needs a name, such as 'disciplined'; got {name!r}")
    if texts is None:
        if description is None:
            raise EmolabError(
                f"give at least {FEWEST} texts for {name!r}, or a description for the model to write from"
            )
        from emolab.authoring import write

        texts = write(subject, vectors, name, description, seed)
    found = likeness.space(vectors)
    layers, offset = _layers(subject, vectors, layers), vectors.info.get("offset", 10)
    stories = _checked(subject, texts, offset, FEWEST, "text")
    others = None if contrast is None else _checked(subject, contrast, offset, 2, "contrast text")
    parts = tuple(story.part for story in stories)
    known = [part in found.parts for part in parts]
    centring = "contrast" if others else "parts" if all(known) and len(found.parts) > 1 else "genre"
    means, beside = (
        rows and mean_activations(subject, [s.text for s in rows], layers=layers, offset=offset, progress=None)
        for rows in (stories, others)
    )
    row = layers.index(vectors.chosen_layer)
    points = found.centred(means.means[:, row], centring, parts, beside and beside.means[:, row])
    return Concept(
        name=f"{name}{OWN}" if name in vectors.emotions else name,
        texts=tuple(story.text for story in stories),
        parts=parts if centring == "parts" else (),
        centring=centring,
        notes=_notes(name, vectors, centring, parts, found.parts, len(layers) > 1),
        layers=layers,
        vector=_vector(means, beside, vectors, layers, found.back(points.mean(0))),
        points=points,
        neutral=_neutral(subject, vectors, layers, offset, neutral),
        space=found,
        vectors=vectors,
    )


def _vectors_for(subject: Subject, vectors: EmotionVectors | None) -> EmotionVectors:
    if vectors is None:
        from emolab.files import load_vectors, shipped

        if shipped(subject.name) is None:
            raise EmolabError(f"no vectors are shipped for {subject.name}: give those of extract(subject) as `vectors`")
        vectors = load_vectors(subject.name)
    if not isinstance(vectors, EmotionVectors):
        raise EmolabError(f"vectors are EmotionVectors, as from extract(subject); got {type(vectors).__name__}")
    vectors.check(subject)
    return vectors


def _layers(subject: Subject, vectors: EmotionVectors, layers: Sequence[int] | None) -> tuple[int, ...]:
    """In one piece, for a slider runs over them; the chosen layer among them."""
    wanted = {*(layers or [max(subject.n_layers // 2, 1)]), vectors.chosen_layer}
    if layers is not None:
        for layer in layers:
            vectors.row(layer)
    return tuple(layer for layer in sorted(vectors.layers) if min(wanted) <= layer <= max(wanted))


def _checked(subject: Subject, texts: Sequence[str | Story], offset: int, fewest: int, kind: str) -> list[Story]:
    """The texts as stories. Raises EmolabError if there are too few, or one can't be used."""
    if isinstance(texts, str | Story) or not all(isinstance(text, str | Story) for text in texts):
        raise EmolabError(f"give {kind}s as a list of strings or stories, one for each {kind}")
    stories = [text if isinstance(text, Story) else Story("", text) for text in texts]
    different = len({" ".join(story.text.split()).lower() for story in stories})
    if different < fewest or different < len(stories) / 2:
        raise EmolabError(
            f"a concept needs at least {fewest} different {kind}s, mostly without repeats; these are {len(stories)}, "
            f"of which {different} differ: write more, in other places and words"
        )
    for number, story in enumerate(stories):
        try:
            length = len(subject.encode(story.text))
        except EmolabError as error:
            raise EmolabError(f"{kind} {number}: {error}") from None
        if length < offset + TOKENS:
            raise EmolabError(
                f"{kind} {number} has {length} tokens and needs {offset + TOKENS} (the first {offset} don't count): "
                f"make it longer (it begins {story.text[:40]!r})"
            )
    return stories


def _notes(name, vectors, centring, parts, known, several) -> tuple[str, ...]:
    found = []
    if name in vectors.emotions:
        found.append(f"These vectors hold {name!r} already; what is said here is about your texts.")
    if centring == "genre":
        found.append(
            "Nothing is known of what else these texts share: author and genre may be part of this direction. Stories "
            "in the corpus' settings or `contrast` texts would tell."
        )
    if centring == "genre" and any(part in known for part in parts):
        found.append("Some texts have settings of the corpus and some have not, so no setting was taken out.")
    uneven = len({parts.count(part) for part in known}) > 1
    if several and (centring == "genre" or (centring == "parts" and uneven)):
        found.append("Settings and genre are taken out at the chosen layer only.")
    return tuple(found)


def _vector(means: Means, beside, vectors, layers, chosen: np.ndarray) -> np.ndarray:
    """[layer, d_model]: at the chosen layer what is given, at others less the mean of the stories or the contrast."""
    rows = [vectors.row(layer) for layer in layers]
    base = vectors.mean[rows] if beside is None else beside.means.mean(0)
    found = means.means.mean(0) - base
    found[layers.index(vectors.chosen_layer)] = chosen
    if vectors.info.get("denoised"):
        components = vectors.neutral_components[rows]  # [layer, component, d_model]
        found = found - np.einsum("lc,lcd->ld", np.einsum("ld,lcd->lc", found, components), components)
    return found.astype(np.float32)


def _neutral(subject, vectors, layers, offset, neutral) -> tuple[np.ndarray, ...]:
    """[layer][token, d_model]; at the chosen layer those of the evidence."""
    others = [layer for layer in layers if layer != vectors.chosen_layer]
    found = {vectors.chosen_layer: vectors.evidence.neutral}
    if others:
        texts = data.neutral()[::16] if neutral is None else neutral
        found |= zip(
            others, sample_tokens(subject, texts, layers=others, offset=offset, per_text=20, progress=None), strict=True
        )
    return tuple(found[layer] for layer in layers)
