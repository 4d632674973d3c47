"""Run notebooks in place and save their outputs: `python notebooks/execute.py [FILE ...]`, by default all of them."""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(path: Path) -> float:
    """Run one notebook top to bottom in its own folder, save it with outputs, return the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)  # times of day say nothing and make every run a change
        cell.id = f"cell-{number}"
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    nbformat.write(notebook, path)
    return time.perf_counter() - start


if __name__ == "__main__":
    named = [Path(name) for name in sys.argv[1:]]
    for path in named or sorted([*HERE.glob("*.ipynb"), *HERE.glob("solutions/*.ipynb")]):
        print(f"{path}: {execute(path):.0f} s")
