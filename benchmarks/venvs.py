"""A virtual environment for each peer: `python_of(peer)`, made from `peers/PEER.txt` on the first call."""

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent


def python_of(peer: str) -> Path:
    """The Python of a peer's own environment, installed with the pinned versions if that isn't done yet.

    Raises CalledProcessError if pip fails.
    """
    wanted = HERE / "peers" / f"{peer}.txt"
    constraints = HERE.parent / "constraints.txt"
    folder = HERE / ".venvs" / peer
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / ".installed"
    recipe = wanted.read_text() + constraints.read_text()
    if not done.exists() or done.read_text() != recipe:
        print(f"making the environment of {peer}, once ...", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", constraints, "torch", "--requirement", wanted], check=True)
        done.write_text(recipe)
    return python
