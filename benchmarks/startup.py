"""How long one waits for the first things: import, first readout, map, first figure of notebook 00."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "00_start_here.ipynb"
FIGURES = {"image/png", "image/svg+xml", "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"}

READOUT = """
import json, sys, time
start = time.perf_counter()
import emolab as el
imported, torch = time.perf_counter() - start, "torch" in sys.modules
vectors = el.load_vectors(el.DEFAULT)
vectors.readout(el.load(), "There is somebody in the house.").scores("afraid")
print(json.dumps({"import_s": imported, "import_loads_torch": torch, "readout_s": time.perf_counter() - start}))
"""
UMAP = """
import json, time
import emolab as el
from emolab.geometry import umap_points
vectors = el.load_vectors(el.DEFAULT)
coordinates = vectors.coordinates(vectors.chosen_layer, vectors.metric)
marks = [time.perf_counter()]
for _ in range(2):
    umap_points(coordinates)
    marks.append(time.perf_counter())
print(json.dumps({"umap_cold_s": marks[1] - marks[0], "umap_warm_s": marks[2] - marks[1]}))
"""


def first_readout() -> dict:
    """Seconds from `import emolab` to its end and to the scores of a text, in a fresh process; and whether the import
    alone brought torch in."""
    return _fresh(READOUT)


def umap() -> dict:
    """Seconds for the map of all directions, in a process that has nothing compiled and once more."""
    with TemporaryDirectory() as folder:
        return _fresh(UMAP, NUMBA_CACHE_DIR=folder)


def first_figure(path: Path = NOTEBOOK) -> dict:
    """Seconds from the start of a kernel to the first figure of a notebook."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    start = time.perf_counter()
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
            if any(FIGURES & set(output.get("data", ())) for output in cell.get("outputs", ())):
                return {"first_figure_s": time.perf_counter() - start, "first_figure_cell": number}
    raise ValueError(f"{path} shows no figure")


def _fresh(code: str, **environment: str) -> dict:
    """What a fresh process prints as JSON."""
    found = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, env=os.environ | environment
    )
    return json.loads(found.stdout)
