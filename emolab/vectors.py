"""`EmotionVectors`: one direction for each emotion and layer, with all that is needed to read and judge them.

How they are made is in `extraction.py`, how they are stored in `files.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from emolab.directions import METRICS, Labelled, unit
from emolab.errors import EmolabError, brief, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from emolab.geometry import Geometry
    from emolab.model import Subject
    from emolab.quality import Quality
    from emolab.readout import Readout


@dataclass(frozen=True)
class Evidence:
    """Mean activations of the stories at the chosen layer, for judging the vectors without the model.

    train : the stories that the vectors are made from
    choose : held-out stories that chose layer and metric (None if there were none)
    test : stories by other authors that chose nothing (None if there were none)
    neutral : [token, d_model] tokens of the neutral texts
    lexical : for each of these, [text] the rank of the true emotion by words alone (TF-IDF)
    """

    layer: int
    train: Labelled
    neutral: np.ndarray
    choose: Labelled | None = None
    test: Labelled | None = None
    lexical: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class EmotionVectors:
    """Directions of the residual stream for a list of emotions.

    emotions : names along axis 0
    layers : layer numbers along axis 1; layer k is the residual stream after block k
    vectors : [emotion, layer, d_model] float32, emotion mean minus mean over emotions (paper section 1.2)
    probes : [emotion, layer, d_model] float32, the vectors in the within-emotion metric, unit length in it
    counts : [emotion] stories
    mean : [layer, d_model] mean over emotions
    residual_norm : [layer] mean length of the residual stream over the stories' tokens
    neutral_mean : [layer, d_model] mean over tokens of the neutral texts
    neutral_sd : [metric, emotion, layer] standard deviation of the token scores on neutral texts, for projection
        on unit vectors and on probes
    neutral_components : [layer, component, d_model] top principal components of the neutral tokens, up to half of
        their variance; zero rows fill up
    chosen_layer, metric : where and how to read, by the rule that `info['layer_rule']` names
    info : provenance (model, corpus, options, versions, layer profile, lexical baselines)
    """

    emotions: tuple[str, ...]
    layers: tuple[int, ...]
    vectors: np.ndarray
    probes: np.ndarray
    counts: np.ndarray
    mean: np.ndarray
    residual_norm: np.ndarray
    neutral_mean: np.ndarray
    neutral_sd: np.ndarray
    neutral_components: np.ndarray
    chosen_layer: int
    metric: str
    info: dict
    evidence: Evidence | None = None

    def __len__(self) -> int:
        return len(self.emotions)

    def __repr__(self) -> str:
        return (
            f"EmotionVectors({len(self)} emotions, layers {self.layers[0]}..{self.layers[-1]}, "
            f"d_model {self.vectors.shape[-1]}, {self.info.get('model', '?')}, "
            f"read at layer {self.chosen_layer} by {self.metric})"
        )

    def __getitem__(self, emotions: str | Sequence[str]) -> EmotionVectors:
        """The same object with only these emotions, e.g. `vectors["calm"]`. Raises EmolabError ('did you mean')."""
        names = [emotions] if isinstance(emotions, str) else list(emotions)
        rows = [self.index(name) for name in names]
        return replace(
            self,
            emotions=tuple(names),
            vectors=self.vectors[rows],
            probes=self.probes[rows],
            counts=self.counts[rows],
            neutral_sd=self.neutral_sd[:, rows],
            evidence=None,
        )

    def index(self, emotion: str) -> int:
        """The row of an emotion. Raises EmolabError, with the nearest names, if it isn't there."""
        if emotion not in self.emotions:
            raise unknown("emotion", emotion, self.emotions)
        return self.emotions.index(emotion)

    def row(self, layer: int | None = None) -> int:
        """The position of a layer on the layer axis, the chosen one for None. Raises EmolabError if it isn't there."""
        layer = self.chosen_layer if layer is None else layer
        if layer not in self.layers:
            raise EmolabError(
                f"layer {brief(layer)} is not in these vectors: they hold {self.layers[0]}..{self.layers[-1]}"
            )
        return self.layers.index(layer)

    def directions(self, layer: int | None = None, metric: str | None = None) -> np.ndarray:
        """[emotion, d_model] to project activations on: unit vectors for 'vector', probes for 'probe'.

        Raises EmolabError for a layer that isn't there or another metric.
        """
        if (metric := metric or self.metric) not in METRICS:
            raise unknown("metric", metric, METRICS)
        row = self.row(layer)
        return unit(self.vectors[:, row]) if metric == "vector" else self.probes[:, row]

    def coordinates(self, layer: int | None = None, metric: str | None = None) -> np.ndarray:
        """Points whose inner products are those of the vectors in a metric, for cosines, PCA, UMAP, clusters.

        'vector': the vectors, [emotion, d_model]. 'probe': [emotion, at most n_emotions], the vectors after
        whitening by the within-emotion covariance, up to a rotation: since a probe is inv(S) v / |v|_S, the
        products probe x vector hold all that is needed. Raises EmolabError as `directions` does.
        """
        row, metric = self.row(layer), metric or self.metric
        vectors = self.vectors[:, row].astype(np.float64)
        if metric == "vector":
            return vectors
        if metric != "probe":
            raise unknown("metric", metric, METRICS)
        products = self.probes[:, row].astype(np.float64) @ vectors.T  # [emotion, emotion], row i over |v_i|_S
        gram = products * np.diag(products)[:, None]
        values, axes = np.linalg.eigh((gram + gram.T) / 2)
        keep = values > values[-1] * 1e-9
        return (axes[:, keep] * np.sqrt(values[keep]))[:, ::-1]

    def cosines(self, layer: int | None = None, metric: str | None = None) -> pd.DataFrame:
        """Cosine similarity of all pairs of emotions, [emotion, emotion]."""
        points = unit(self.coordinates(layer, metric))
        return pd.DataFrame(points @ points.T, index=self.emotions, columns=self.emotions)

    def nearest(self, emotion: str, k: int = 10, layer: int | None = None, metric: str | None = None) -> pd.Series:
        """The k emotions most like this one, with their cosines."""
        self.index(emotion)
        return self.cosines(layer, metric)[emotion].drop(emotion).nlargest(k).rename(f"cosine with {emotion}")

    def denoised(self) -> EmotionVectors:
        """The vectors with the neutral texts' top components projected out (paper section 1.2, step 4)."""
        if self.info.get("denoised"):
            return self
        components = self.neutral_components  # [layer, component, d_model]
        along = np.einsum("eld,lcd->elc", self.vectors, components)
        clean = self.vectors - np.einsum("elc,lcd->eld", along, components)
        return replace(self, vectors=clean.astype(np.float32), info=self.info | {"denoised": True})

    def need_evidence(self) -> Evidence:
        """The story means that nulls are made from. Raises EmolabError if the vectors come without them."""
        if self.evidence is None:
            raise EmolabError("the nulls need the story means: use whole vectors with their evidence, not a selection")
        return self.evidence

    def check(self, subject: Subject) -> None:
        """Raises EmolabError if these vectors were made for another model, or what is given is none."""
        if not hasattr(subject, "weight_sample"):
            raise EmolabError(f"a model comes first, as from load(); got {type(subject).__name__}")
        sample, other = (np.frombuffer(bytes.fromhex(s), ">i2") for s in (self.info["weights"], subject.weight_sample))
        same_shape = (self.info["n_layers"], self.vectors.shape[-1]) == (subject.n_layers, subject.d_model)
        # a few weights may round differently on the way through another dtype
        if not same_shape or len(sample) != len(other) or (sample == other).mean() < 0.95:
            raise EmolabError(
                f"these vectors were made for {self.info['model']} ({self.info['n_layers']} layers, d_model "
                f"{self.vectors.shape[-1]}), not for {subject.name} ({subject.n_layers} layers, d_model "
                f"{subject.d_model}) as loaded here: make new ones with extract(subject)"
            )

    # --- the words a teacher types; the modules named do the work ---

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file (and its evidence beside it). See `files.save`."""
        from emolab.files import save

        return save(self, path)

    def merge(self, other: EmotionVectors) -> EmotionVectors:
        """These vectors and those of another extraction on the same model. See `merging.merge`."""
        from emolab.merging import merge

        return merge(self, other)

    def quality(self, seed: int = 0) -> Quality:
        """How well the vectors identify stories, beside nulls and words alone. See `quality.quality`."""
        from emolab.quality import quality

        return quality(self, seed=seed)

    def geometry(self, layer: int | None = None, metric: str | None = None, seed: int = 0) -> Geometry:
        """Map, components, clusters and human norms. See `geometry.geometry`."""
        from emolab.geometry import geometry

        return geometry(self, layer=layer, metric=metric, seed=seed)

    def map(self, seed: int = 0) -> Figure:
        """UMAP of all directions as a matplotlib figure, coloured by the pleasure they predict."""
        return self.geometry(seed=seed).figure()

    def readout(self, subject: Subject, text: str | list[dict]) -> Readout:
        """Scores of these emotions at every token of a text or a chat. See `readout.readout`."""
        from emolab.readout import readout

        return readout(subject, self, text)
