"""Writes API.md, the reference of emolab's public names, from their signatures and docstrings: `make docs`."""

import inspect
import sys
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

import emolab

PAGE = Path(__file__).parent.parent / "API.md"
HEAD = """# emolab: reference

Made by `make docs` from the docstrings; do not edit. `import emolab as el`; layer k is the residual stream after block
k, 1..n_layers, and 0 is the embeddings. Bad input raises `el.EmolabError` (a `ValueError`) that names the remedy.
"""


def public() -> dict[str, object]:
    """What users meet, by the name they type: top-level names, experiments, and the classes of what these return."""
    found = {f"el.{name}": getattr(emolab, name) for name in emolab.__all__}
    found |= {f"emolab.{module}.{name}": each for module, name, each in _experiments() if each not in found.values()}
    known = list(found.values())
    for each in known:  # grows while it is gone through
        for kind in _returned(each):
            if kind not in known:
                known.append(kind)
                found[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return found


def members(kind: type) -> Iterator[tuple[str, object]]:
    """(name, function or property) of each public method that a class defines itself."""
    for name, member in vars(kind).items():
        if not name.startswith("_") and isinstance(member, Callable | property | cached_property | classmethod):
            yield name, member


def function(member: object) -> Callable:
    """The plain function behind a method, a property, or something cached or made a context manager."""
    inner = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
    return inspect.unwrap(inner)


def page() -> str:
    """API.md as it should be."""
    names = public()
    index = ["| name | |", "|---|---|", *_index(names), ""]
    return "\n".join([HEAD, *index, *(_entry(name, each) for name, each in names.items())])


def _experiments() -> Iterator[tuple[str, str, object]]:
    """The functions behind the chapters of the replication card, and their neighbours in `persistence` and `pulse`."""
    folder = Path(emolab.__file__).parent / "experiments"
    modules = [f"experiments.{path.stem}" for path in sorted(folder.glob("[a-z]*.py"))]
    for module in ("persistence", "pulse", *modules):
        home = import_module(f"emolab.{module}")
        for name, each in vars(home).items():
            own = inspect.isfunction(each) and each.__module__ == home.__name__ and not name.startswith("_")
            if own and next(iter(inspect.signature(each).parameters), "") == "subject" and _returned(each):
                yield module, name, each


def _returned(each: object) -> list[type]:
    """Classes of emolab that a function returns, or the methods of a class do."""
    callables = [member for _, member in members(each)] if inspect.isclass(each) else [each]
    hints = [_hint(function(each)) for each in callables if callable(function(each))]
    kinds = [kind for hint in hints for kind in (hint, *typing.get_args(hint)) if inspect.isclass(kind)]
    return [kind for kind in kinds if kind.__module__.startswith("emolab.") and not kind.__name__.startswith("_")]


def _hint(each: Callable) -> object:
    """What a function returns. Names that a module imports for type checkers only are looked up where they live."""
    hint = getattr(each, "__annotations__", {}).get("return")
    if not isinstance(hint, str):
        return hint
    home = {"Geometry": "geometry", "Quality": "quality", "Readout": "readout"}
    if hint in home:
        return getattr(import_module(f"emolab.{home[hint]}"), hint)
    return getattr(sys.modules[each.__module__], hint, None)


def _entry(name: str, each: object) -> str:
    if not callable(each):
        return f"## `{name}`\n\n`{each!r}`\n"
    text = f"## `{name}`\n\n```text\n{_signature(name, each)}\n```\n\n```text\n{inspect.getdoc(each)}\n```\n"
    for method, member in members(each) if inspect.isclass(each) else ():
        said = inspect.getdoc(member) or inspect.getdoc(function(member)) or ""
        call = f".{method}" if isinstance(member, property | cached_property) else _signature(f".{method}", member)
        text += f"\n- `{call}`\n\n  ```text\n{_indented(said)}\n  ```\n"
    return text


def _signature(name: str, each: object) -> str:
    """As it is called: without `self`, with names in place of types' modules."""
    if inspect.isclass(each) and is_dataclass(each):
        return f"{name}({', '.join(field.name for field in fields(each) if field.init)})"
    if inspect.isclass(each):
        return name
    plain = inspect.signature(function(each))
    kept = [p.replace(annotation=p.empty) for key, p in plain.parameters.items() if key not in ("self", "cls")]
    return f"{name}{plain.replace(parameters=kept, return_annotation=plain.empty)}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _index(names: dict[str, object]) -> Iterator[str]:
    """A row for each name. Headings that differ in capitals only get numbered anchors, as GitHub numbers them."""
    seen = Counter()
    for name, each in names.items():
        anchor = name.lower().replace(".", "")
        number = f"-{seen[anchor]}" if seen[anchor] else ""
        seen[anchor] += 1
        said = inspect.getdoc(each).splitlines()[0] if callable(each) else repr(each)
        yield f"| [`{name}`](#{anchor}{number}) | {said.replace('|', '&#124;')} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name}: {len(public())} names")
