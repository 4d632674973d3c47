"""Every notebook runs top to bottom, headless, on the embedded model, and is saved as it should be read."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

HERE = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted([*HERE.glob("*.ipynb"), *HERE.glob("solutions/*.ipynb")])
NAMES = [str(path.relative_to(HERE)) for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_runs(path):
    notebook = nbformat.read(path, as_version=4)
    # the time limit is per cell; speeds are held by the benchmark, this only stops a hang
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_is_saved_with_outputs_and_without_noise(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in code), "run `make notebooks`"
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert path.stat().st_size < 3_500_000
    # interactive output has a static twin in the same notebook
    if any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs):
        assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.parent == HERE], ids=lambda path: path.stem)
def test_it_has_claim_source_and_solved_exercises(path):
    text = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    assert "Sofroniew" in text and "exercise" in text.lower()
    assert (HERE / "solutions" / path.name).exists()
    for sentence in re.split(r"[.!?]\s", text):  # we speak of representations; only denials may say "feels"
        if re.search(r"\bmodel (really |truly |actually )?feels\b", sentence):
            assert re.search(r"\b(not|nothing|never|whether|no)\b|n't", sentence, re.IGNORECASE), sentence
