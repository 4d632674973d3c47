"""Vector files: safetensors with JSON metadata, written atomically and checked when read.

`x.safetensors` holds the vectors; `x.evidence.safetensors` beside it, if it is there, the story means that they
are judged by. No pickle anywhere.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emolab.checks import distinct, parsed, path_of
from emolab.data import DATA
from emolab.directions import METRICS, Labelled, unit
from emolab.errors import EmolabError, brief, unknown
from emolab.vectors import EmotionVectors, Evidence

FORMAT = 1
TENSORS = (
    "vectors", "probes", "counts", "mean", "residual_norm", "neutral_mean", "neutral_sd", "neutral_components",
)  # fmt: skip
INFO = {"model": str, "architecture": str, "n_layers": int, "offset": int, "profile": dict}  # what others rely on


def save(vectors: EmotionVectors, path: str | Path, *, compact: bool = False) -> Path:
    """Write vectors, and their evidence beside them; whole or not at all.

    `compact` stores probes and neutral components in float16: half the room, and 0.05 % off at most. Raises
    EmolabError if the folder can't be written.
    """
    path = vector_path(path)
    tensors = {name: getattr(vectors, name) for name in TENSORS}
    if compact:
        tensors |= {name: _half(tensors[name]) for name in ("probes", "neutral_components")}
    head = {
        "emotions": vectors.emotions,
        "layers": vectors.layers,
        "chosen_layer": vectors.chosen_layer,
        "metric": vectors.metric,
        **vectors.info,
    }
    beside = path.with_suffix(".evidence.safetensors")
    with atomic(beside) as evidence_scratch, atomic(path) as scratch:
        _write(scratch, tensors, head)
        if vectors.evidence is not None:
            _write(evidence_scratch, *_packed(vectors.evidence, vectors.info.get("weights")))
    return path


def _packed(evidence: Evidence, weights: str | None) -> tuple[dict[str, np.ndarray], dict]:
    """Tensors and head of an evidence file."""
    texts = {role: part for role in ("train", "choose", "test") if (part := getattr(evidence, role)) is not None}
    tensors = {role: _half(part.means) for role, part in texts.items()}
    tensors |= {f"lexical_{role}": rank.astype(np.int32) for role, rank in evidence.lexical.items()}
    tensors["neutral"] = _half(evidence.neutral)
    labels = {role: {"emotions": part.emotions.tolist(), "parts": part.parts.tolist()} for role, part in texts.items()}
    return tensors, {"layer": evidence.layer, "weights": weights, "labels": labels}


def load_vectors(path: str | Path) -> EmotionVectors:
    """Vectors from a file, or the ones that emolab ships for an embedded model, by its name.

    Raises EmolabError if the file is missing, truncated, of a newer format, or not an emolab vector file.
    """
    file = path_of(path)
    file = shipped(str(file)) or file
    tensors, head = _read(file)
    missing = [name for name in TENSORS if name not in tensors]
    if missing or not {"emotions", "layers", "chosen_layer", "metric"} <= head.keys():
        raise EmolabError(f"{file} is not a complete vector file (missing: {', '.join(missing) or 'names'})")
    _check_head(file, head)
    _check_shapes(file, tensors, len(head["emotions"]), len(head["layers"]))
    vectors = EmotionVectors(
        emotions=tuple(head.pop("emotions")),
        layers=tuple(head.pop("layers")),
        chosen_layer=head.pop("chosen_layer"),
        metric=head.pop("metric"),
        info=head,
        **{name: tensors[name] for name in TENSORS},
    )
    return replace(vectors, evidence=_load_evidence(file.with_suffix(".evidence.safetensors"), vectors))


def shipped(name: str) -> Path | None:
    """The vector file that comes with emolab for an embedded model, None if there is none."""
    path = DATA / "vectors" / f"{name}.safetensors"
    return path if "/" not in name and path.exists() else None


def export(vectors: EmotionVectors, path: str | Path, emotion: str | None = None) -> Path:
    """For other tools, by the suffix of `path`: `.npz` (all emotions) or `.gguf` (one, a llama.cpp control vector).

    llama.cpp counts blocks from 0 and takes no direction for block 0, so layer 1 is left out and layer k becomes
    `direction.{k-1}`. Each direction is as long as the mean residual stream there, so that
    `--control-vector-scaled FILE 0.3` is a steering strength of 0.3. Raises EmolabError for another suffix, a control
    vector without its emotion, or a place that can't be written.
    """
    path = path_of(path)
    if path.suffix == ".npz":
        with atomic(path) as scratch, scratch.open("wb") as file:
            np.savez_compressed(
                file,
                vectors=vectors.vectors,
                emotions=np.array(vectors.emotions),
                layers=np.array(vectors.layers),
            )
    elif path.suffix == ".gguf":
        if emotion is None:
            raise EmolabError("a control vector holds one emotion: name it, e.g. emotion='calm'")
        _write_control_vector(vectors, path, emotion)
    else:
        raise unknown("export format", path.suffix, [".npz", ".gguf"])
    return path


def layer_activations(vectors: EmotionVectors, emotion: str) -> dict:
    """{block index: tensor [d_model]}, what the steering-vectors package takes as `layer_activations`.

    It counts blocks from 0: layer k of ours is block k-1 there.
    """
    import torch

    row = vectors.index(emotion)
    return {layer - 1: torch.tensor(vectors.vectors[row, i]) for i, layer in enumerate(vectors.layers) if layer}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A scratch path beside `path` that replaces it when the block ends well, and vanishes when it doesn't.

    If the block writes nothing there, `path` is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            scratch = Path(folder) / path.name
            yield scratch
            if scratch.exists():
                scratch.replace(path)
            else:
                path.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise EmolabError(
            f"can't write {path}: {getattr(error, 'strerror', None) or error}. Choose another place or free some room"
        ) from error


def _write(scratch: Path, tensors: dict[str, np.ndarray], head: dict) -> None:
    # safetensors stores a non-contiguous array in the wrong order without a word
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(tensors, scratch, metadata={"emolab": json.dumps({"format": FORMAT, **head}, ensure_ascii=False)})
    scratch.chmod(0o644)  # safetensors lets nobody else read what it writes


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    if not path.is_file():
        raise EmolabError(f"there is no vector file {path}: make one with `emolab extract` or give another path")
    try:
        with safe_open(path, framework="numpy") as file:
            head = parsed((file.metadata() or {}).get("emolab", "null"))
            if not isinstance(head, dict):
                raise EmolabError(f"{path} is a safetensors file, but emolab didn't write it")
            if head.pop("format", 0) > FORMAT:
                raise EmolabError(f"{path} was written by a newer emolab: upgrade with `pip install -U emolab`")
            tensors = {name: _plain(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except EmolabError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise EmolabError(f"{path} is truncated or damaged ({error}): copy it again or make it anew") from error
    if not all(np.isfinite(value).all() for value in tensors.values()):
        raise EmolabError(f"{path} holds values that are not finite: make it anew")
    return tensors, head


def _plain(values: np.ndarray) -> np.ndarray:
    """int64 or float32, whatever the file holds."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        return values.astype(np.int64 if values.dtype.kind in "iu" else np.float32)


def _check_head(path: Path, head: dict) -> None:
    """Raises EmolabError for names and numbers that can't be those of vectors."""
    layers, said = head["layers"], f"it names layer {brief(head['chosen_layer'])} and metric {brief(head['metric'])}"
    if not distinct(layers, int) or layers != sorted(layers) or layers[0] < 0:
        said = f"its layers are {brief(layers)}"
    elif not distinct(head["emotions"], str):
        said = f"its emotions are {brief(head['emotions'])}"
    elif not re.fullmatch("([0-9a-f]{4})+", str(head.get("weights"))) or "n_layers" not in head:
        said = "it doesn't say which model it belongs to"
    elif wrong := [key for key, kind in INFO.items() if key in head and type(head[key]) is not kind]:
        said = f"{wrong[0]} is {brief(head[wrong[0]])}"
    elif not _is_table(head.get("profile", {"layer": []})):
        said = f"its layer profile is {brief(head['profile'])}"
    elif type(head["chosen_layer"]) is int and head["chosen_layer"] in layers and head["metric"] in METRICS:
        return
    raise EmolabError(f"{path} is damaged: {said}; make it anew")


def _is_table(columns: dict) -> bool:
    """Whether it has a column for the layers, and all are lists of numbers, one as long as the other."""
    lengths = {len(c) if isinstance(c, list) and {*map(type, c)} <= {int, float} else None for c in columns.values()}
    return "layer" in columns and None not in lengths and len(lengths) == 1


def _check_shapes(path: Path, tensors: dict, emotions: int, layers: int) -> None:
    d_model = tensors["vectors"].shape[-1] if tensors["vectors"].ndim else 0
    expected = {
        "vectors": (emotions, layers, d_model),
        "probes": (emotions, layers, d_model),
        "counts": (emotions,),
        "mean": (layers, d_model),
        "residual_norm": (layers,),
        "neutral_mean": (layers, d_model),
        "neutral_sd": (len(METRICS), emotions, layers),
        "neutral_components": (layers, *tensors["neutral_components"].shape[1:2], d_model),
    }
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise EmolabError(
                f"{path} is damaged: {name} has shape {tensors[name].shape}, expected {shape}; make it anew"
            )
    for name in ("counts", "residual_norm", "neutral_sd"):
        if (tensors[name] < 0).any():
            raise EmolabError(f"{path} is damaged: {name} is negative; make it anew")


def _load_evidence(path: Path, vectors: EmotionVectors) -> Evidence | None:
    if not path.exists():
        return None
    tensors, about = _read(path)
    if not {"layer", "labels"} <= about.keys() or "neutral" not in tensors:
        raise EmolabError(f"{path} is not an evidence file: remove it or copy the right one")
    if about.get("weights") != vectors.info["weights"]:
        raise EmolabError(f"{path} belongs to another model than the vector file beside it: remove one of them")
    d_model = vectors.vectors.shape[-1]
    try:
        vectors.row(about["layer"])
        labelled = {role: _labelled(tensors[role], names, d_model) for role, names in about["labels"].items()}
        lexical = {role: tensors[f"lexical_{role}"] for role in labelled if f"lexical_{role}" in tensors}
        if tensors["neutral"].shape[1:] != (d_model,) or any(len(labelled[r]) < len(x) for r, x in lexical.items()):
            raise ValueError("its parts do not fit each other")
        return Evidence(about["layer"], neutral=tensors["neutral"], lexical=lexical, **labelled)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise EmolabError(f"{path} is damaged ({error}): remove it or copy the right one") from error


def _labelled(means: np.ndarray, names: dict, d_model: int) -> Labelled:
    """Story means [text, d_model] with their labels. Raises ValueError if these do not fit."""
    labels = [np.array(names[axis]) for axis in ("emotions", "parts")]
    if any(axis.dtype.kind != "U" or axis.shape != means.shape[:1] for axis in labels) or means.shape[1:] != (d_model,):
        raise ValueError("its labels do not fit its texts")
    return Labelled(means, *labels)


def _half(values: np.ndarray) -> np.ndarray:
    """float16, unless it would overflow or lose small values."""
    half = values.astype(np.float16)
    return half if np.allclose(half, values, rtol=2e-3, atol=1e-3 * np.abs(values).max()) else values


def vector_path(path: str | Path) -> Path:
    """`path`, if vectors can be saved under that name; raises EmolabError if not."""
    path = path_of(path)
    if path.suffix != ".safetensors":
        raise EmolabError(
            f"a vector file ends in .safetensors, {brief(path.name)} doesn't; other formats: files.export()"
        )
    return path


def _write_control_vector(vectors: EmotionVectors, path: Path, emotion: str) -> None:
    from gguf import GGUFWriter

    directions = unit(vectors[emotion].vectors[0]) * vectors.residual_norm[:, None]  # [layer, d_model]
    with atomic(path) as scratch:
        writer = GGUFWriter(scratch, "controlvector")
        writer.add_string("controlvector.model_hint", vectors.info["architecture"])
        writer.add_uint32("controlvector.layer_count", vectors.info["n_layers"])
        for layer, direction in zip(vectors.layers, directions, strict=True):
            if layer > 1:
                writer.add_tensor(f"direction.{layer - 1}", direction.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
