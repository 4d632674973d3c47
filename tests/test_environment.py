"""The ways to set emolab up agree with each other, and the code keeps the rules that a reader relies on."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import emolab

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}
ON_REQUEST = {Requirement(name).name for name in PROJECT["optional-dependencies"]["cluster"]}
SOURCES = sorted((ROOT / "emolab").rglob("*.py"))
# What the user of this project fixed
FIXED = ("jupyterlab", "ipywidgets", "torch", "transformers", "matplotlib", "umap-learn", "scikit-learn")
# Needed, though nothing in emolab imports it
USED_BY_OTHERS = {
    "accelerate",  # by transformers, for device_map and GGUF
    "gguf",  # by transformers, for the embedded model
    "ipywidgets",  # by the notebooks and by tqdm's bars in them
}

source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    nodes = list(ast.walk(tree))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    dotted = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.split(".")[0] for name in plain | dotted}


# --- the environment ---------------------------------------------------------------------------------------------


def test_conda_installs_this_package_by_pip_and_nothing_else():
    *conda, last = environment()["dependencies"]
    assert last == {"pip": ["-e ."]}
    assert [re.split("[=<>]", name)[0] for name in conda] == ["python", "pip"]


def test_conda_python_is_one_that_the_package_takes():
    (python,) = [each for each in environment()["dependencies"] if str(each).startswith("python=")]
    version = python.removeprefix("python=")
    assert version in SpecifierSet(PROJECT["requires-python"])
    assert f"PYTHON ?= python{version}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FIXED)
def test_packages_that_are_fixed_are_required(name):
    assert name in REQUIRED


def test_constraints_pin_torch_within_what_is_required():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {pin.name: pin for pin in map(Requirement, (line for line in lines if line and line[0] != "#"))}
    assert str(pins["torch"]) == "torch==2.13.0"
    for name, pin in pins.items():
        (exact,) = pin.specifier
        assert exact.operator == "==" and exact.version in REQUIRED[name].specifier


def test_what_is_imported_is_required_and_the_other_way_round():
    names = set().union(*(imported(ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES))
    outside = names - set(sys.stdlib_module_names) - {"emolab"}
    distributions = packages_distributions()
    needed = {distributions[name][0].lower().replace("_", "-") for name in outside}
    assert needed - set(REQUIRED) - ON_REQUEST == set(), "imported, and not in pyproject.toml"
    assert (set(REQUIRED) | ON_REQUEST) - needed - USED_BY_OTHERS == set(), "in pyproject.toml, and not imported"


def test_import_is_light_and_every_name_is_there():
    heavy = "{'torch', 'transformers', 'ray', 'pandas', 'matplotlib', 'sklearn', 'umap'}"
    code = f"import sys, emolab; assert not {heavy} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert set(emolab.__all__) <= set(dir(emolab))
    assert [name for name in emolab.__all__ if getattr(emolab, name, None) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        emolab.nonsense  # noqa: B018


# --- the commands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target, does",
    {
        "run": "emolab run",
        "test": "pytest",
        "lab": "emolab lab",
        "lint": "ruff check",
        "setup": "",
        "clean": "rm -rf .venv",
    }.items(),
)
def test_make(target, does):
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    plan = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, env=quiet, capture_output=True, text=True, check=True
    )
    assert does in plan.stdout


def test_make_sets_up_what_is_missing(tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def plan(target):
        return subprocess.check_output(["make", "-n", target], cwd=tmp_path, env=quiet, text=True)

    for target in ("run", "test", "lab", "setup"):
        assert "-m venv .venv" in plan(target) and "emolab model get" in plan(target)
    (tmp_path / ".venv").mkdir()
    for name in (".installed", ".prepared"):
        (tmp_path / ".venv" / name).touch()
    for target in ("run", "test", "lab", "setup"):
        assert "pip install" not in plan(target) and "model get" not in plan(target)


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^make test$", script.read_text(encoding="utf-8"), re.MULTILINE)


# --- what the code never does ------------------------------------------------------------------------------------

PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
NEVER_CALLED = {"eval", "exec", "os.system", "os.popen", "torch.load", "torch.save", "yaml.load", "pd.read_pickle"}
NEVER_TRUE = {"shell", "trust_remote_code", "allow_pickle"}


def offences(code: str) -> list[str]:
    """Unsafe things in a module: code from strings, pickles, shells, remote code by default.

    >>> offences("a = eval(b)")
    ['eval']
    """
    tree = ast.parse(code)
    found = sorted(imported(tree) & PICKLERS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if called in NEVER_CALLED else []
            named = {keyword.arg: keyword.value for keyword in node.keywords}
        elif isinstance(node, ast.arguments):
            arguments = [*node.posonlyargs, *node.args][::-1]
            named = {a.arg: d for a, d in zip(arguments, node.defaults[::-1], strict=False)}
            named |= {a.arg: d for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True) if d}
        else:
            continue
        found += [name for name in NEVER_TRUE & set(named) if ast.unparse(named[name]) not in ("False", name)]
    return found


@source
def test_source_does_nothing_unsafe(path):
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import dump",
        "def f():\n    import os.path, dill",
        "exec('1')",
        "torch.load(path)",
        "frame = pd.read_pickle(path)",
        "subprocess.run(x, shell=True)",
        "subprocess.run(x, shell=1)",
        "load(name, trust_remote_code=True)",
        "def load(name, trust_remote_code=True): ...",
        "def load(name, *, dtype, trust_remote_code=True): ...",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_checker_finds_what_is_unsafe(code):
    assert offences(code)


@pytest.mark.parametrize(
    "code",
    ["model.eval()", "re.compile('a')", "load(name, trust_remote_code=trust_remote_code)", "run(x, shell=False)"],
)
def test_the_checker_leaves_the_rest_alone(code):
    assert offences(code) == []
