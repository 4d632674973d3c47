"""The command line, from the words typed to what is printed and written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import NEUTRAL, save_tiny, tiny_stories

import emolab as el
from emolab import cli
from emolab.embedded import embedded_folder


@pytest.fixture
def emolab(monkeypatch, capsys):
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["emolab", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model with room for the corpora's texts."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=512)


@pytest.fixture(autouse=True)
def few_neutral_texts(monkeypatch):
    """Short ones, for the sake of time."""
    monkeypatch.setattr("emolab.data.neutral", lambda: NEUTRAL)


@pytest.fixture
def stories(tmp_path) -> Path:
    """A stories file of three emotions in three parts."""
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps(vars(story)) + "\n" for story in tiny_stories()), encoding="utf-8")
    return path


def test_help_lists_the_commands(emolab):
    code, out, _ = emolab("--help")
    assert code == 0
    for command in ("run", "extract", "lab", "model"):
        assert command in out
        assert emolab(command, "--help")[0] == 0


def test_model_path_prints_the_folder_and_nothing_else(emolab):
    assert emolab("model", "get") == (0, f"{embedded_folder(el.DEFAULT)}\n", "")


def test_extract_writes_the_vectors(emolab, folder, stories, cache, tmp_path):
    path = tmp_path / "new" / "mine.safetensors"
    options = f"--model {folder} --stories {stories} --layers 2-3 --settings 1 --dtype float32"
    code, out, _ = emolab("extract", path, *options.split())
    assert code == 0
    assert str(path) in out and "3 emotions" in out
    vectors = el.load_vectors(path)
    assert (vectors.emotions, vectors.layers) == (("afraid", "calm", "glad"), (2, 3))
    assert (vectors.info["model"], vectors.info["dtype"], vectors.info["n_choose"]) == (str(folder), "float32", 2)
    vectors.check(el.load(folder))
    assert not any((cache / "extractions").rglob("means"))  # finished work is cleared away


@pytest.mark.parametrize(
    "words, message",
    [
        (["model", "get", "smollm-135m"], "unknown embedded model 'smollm-135m': did you mean"),
        (["run", "--model", "no-such-model"], "unknown model 'no-such-model'"),
        (["extract", "x.safetensors", "--stories", "missing.jsonl"], "there is no file missing.jsonl"),
        (["extract", "x.safetensors", "--layers", "3-9"], "layers .* are not all in"),
        (["extract", "x.safetensors", "--layers", "few"], "layers 'few' can't be read: write them like 10-24"),
        (["extract", "x.safetensors", "--dtype", "float23"], "float23"),
        (["extract", "x.safetensors", "--layers", "3-1"], "layers .3-1. can.t be read"),
        (["extract", "x.npy"], r"ends in \.safetensors"),
        (["extract", "x.safetensors", "--layers", "1-99999999999"], "layers .* can.t be read"),
        (["extract", "x.safetensors", "--layers", "²"], "layers .* can.t be read"),
        (["lab", "nowhere.ipynb"], r"there is no nowhere\.ipynb here: go to emolab's folder"),
        (["lab", "--", "--ServerApp.ip=0.0.0.0"], "there is no --ServerApp.ip=0.0.0.0 here"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_exit_code_1(emolab, folder, stories, cache, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    given = ["--model", folder, "--stories", stories] if "extract" in words else []
    code, out, err = emolab(words[0], *given, *words[1:])
    assert (code, out) == (1, "")
    assert re.fullmatch(f"emolab: .*{message}.*\n", err)
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize(
    "line, message",
    [
        ("{'emotion': 'calm'}", "not valid JSON"),
        ('{"emotion": "calm"}', "'text' is missing or empty"),
        ('["calm", "a text"]', "expected an object"),
    ],
)
def test_a_broken_line_is_named(emolab, folder, stories, cache, tmp_path, line, message):
    with stories.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")  # nine stories, an empty line, this one
    code, _, err = emolab("extract", tmp_path / "x.safetensors", "--model", folder, "--stories", stories)
    assert code == 1
    assert f"{stories}, line 11: {message}" in err


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["extract"], ["extract", "--settings", "2"], ["run", "--settings", "13"], ["lab", "--port", "0"]],
    ids=str,
)
def test_words_that_are_no_command_line(emolab, words):
    code, _, err = emolab(*words)
    assert code == 2
    assert "Usage" in err


def test_stopped_by_hand(emolab, monkeypatch):
    def stop(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("emolab.embedded.embedded_folder", stop)
    code, _, err = emolab("model", "get")
    assert code == 130
    assert "emolab: stopped; finished work is kept, run again to go on" in err


def test_the_lab_is_for_this_machine_only(emolab, monkeypatch):
    asked = []
    monkeypatch.setattr("jupyterlab.labapp.LabApp.launch_instance", asked.extend)
    assert emolab("lab", "--port", "8899")[0] == 0
    assert asked[:3] == ["notebooks/00_start_here.ipynb", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=8899"]
    assert "--LabApp.news_url=None" in asked  # asks nothing of the network


def test_python_m_emolab_is_emolab():
    run = subprocess.run([sys.executable, "-m", "emolab", "model", "get", "nope"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "emolab: unknown embedded model 'nope': there are: smollm2-135m-instruct, gemma-3-270m\n"


def test_card(emolab, folder, tiny_vectors, tmp_path, monkeypatch, cache):
    """The verdicts are printed and the card is written, with vectors from a file."""
    from emolab import card
    from emolab.claims import Claim

    good = Claim("danger raises fear", "reading", "", "share", value=0.9, low=0.8, high=1.0, chance=0.5, null=0.7)
    monkeypatch.setattr(card, "CHAPTERS", {"one": lambda subject, vectors, seed: [good]})
    vectors, out = tiny_vectors.save(tmp_path / "tiny.safetensors"), tmp_path / "out"
    code, printed, _ = emolab("card", "--model", folder, "--vectors", vectors, "--out", out)
    assert code == 0 and "replicates  danger raises fear" in printed
    assert json.loads((out / "card.json").read_text())["claims"][0]["verdict"] == "replicates"
    assert {path.name for path in out.iterdir()} == {"card.html", "card.md", "card.json"}

    beside = ["--beside", out / "card.json", "--out", tmp_path / "two"]
    code, printed, _ = emolab("card", "--model", folder, "--vectors", vectors, *beside)
    assert code == 0 and "1 replicate on all of them" in printed
    assert {"cards.html", "cards.md"} < {path.name for path in (tmp_path / "two").iterdir()}
    code, _, err = emolab("card", "--model", folder, "--beside", "no-such-card")
    assert code == 1 and "no-such-card is not a replication card" in err


def test_a_plan_writes_nothing(emolab, folder, stories, cache, tmp_path):
    code, out, _ = emolab("extract", "--model", folder, "--stories", stories, "--settings", 1, "--plan")
    assert code == 0 and "tokens" in out and "GB of memory" in out and "layer 4" in out
    assert not cache.exists() and [path.name for path in tmp_path.iterdir()] == ["stories.jsonl"]
