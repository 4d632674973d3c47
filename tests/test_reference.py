"""The reference is up to date and complete: every public name says what it is, what it raises, what shapes it takes."""

import ast
import importlib.util
import inspect
import re
import textwrap
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("reference", ROOT / ".ci" / "reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

PUBLIC = {name: each for name, each in reference.public().items() if callable(each)}
CLASSES = {name: each for name, each in PUBLIC.items() if inspect.isclass(each)}
METHODS = {f"{name}.{method}": member for name, kind in CLASSES.items() for method, member in reference.members(kind)}
FUNCTIONS = {name: each for name, each in (PUBLIC | METHODS).items() if name not in CLASSES}


def said(each) -> str:
    return inspect.getdoc(each) or inspect.getdoc(reference.function(each)) or ""


def test_the_page_is_up_to_date():
    assert (ROOT / "API.md").read_text(encoding="utf-8") == reference.page(), "run `make docs`"


def test_the_version_is_the_same_everywhere():
    import emolab as el

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == el.__version__ and citation["cff-version"] == "1.2.0"
    assert {"title", "authors", "message"} <= citation.keys()
    assert f"## {el.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_everything_a_user_meets_is_in_it():
    import emolab as el

    assert {f"el.{name}" for name in el.__all__} <= set(reference.public())
    for name in ("emolab.experiments.speakers.speakers", "emolab.geometry.Geometry", "emolab.card.Card"):
        assert name in PUBLIC


@pytest.mark.parametrize("name", [*PUBLIC, *METHODS])
def test_it_says_what_it_is(name):
    text = said((PUBLIC | METHODS)[name])
    assert text and text.split("\n\n")[0].rstrip().endswith((".", "?", ":"))


@pytest.mark.parametrize("name", [name for name, kind in CLASSES.items() if is_dataclass(kind)])
def test_it_says_what_its_arrays_and_tables_are(name):
    """Numbers and names explain themselves."""
    kind = CLASSES[name]
    telling = [f.name for f in fields(kind) if re.search("array|Frame|Series|dict", str(f.type)) and f.init]
    assert [name for name in telling if name not in said(kind)] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_says_what_it_raises_and_which_shapes(name):
    plain = reference.function(FUNCTIONS[name])
    tree = ast.parse(textwrap.dedent(inspect.getsource(plain)))
    text, raised = said(FUNCTIONS[name]), [node for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    if any(ast.unparse(node.exc).startswith(("EmolabError", "unknown")) for node in raised):
        assert "EmolabError" in text
    if "ndarray" in str(plain.__annotations__.get("return")):
        assert "[" in text
