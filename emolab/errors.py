"""The one error that emolab raises on bad input: what was given, what was expected, what to do now."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

BRIEF = 100  # characters


class EmolabError(ValueError):
    """Bad input or a missing resource; the message names the remedy."""


def unknown(kind: str, name: str, known: Iterable[str]) -> EmolabError:
    """An error for a name that is not in a list, with the nearest names in it.

    >>> print(unknown("emotion", "afrayd", ["afraid", "calm"]))
    unknown emotion 'afrayd': did you mean 'afraid'?
    """
    known = list(known)
    near = get_close_matches(name, known, n=3, cutoff=0.6) if isinstance(name, str) and len(name) <= BRIEF else []
    hint = (
        f"did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"there are: {', '.join(known[:20])}" + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    )
    return EmolabError(f"unknown {kind} {brief(name)}: {hint}")


def brief(given: Any) -> str:
    """How something that was given is shown in an error: in a line, whatever it is.

    >>> brief("calm"), brief(["x" * 1000])[-6:]
    ("'calm'", 'xxx...')
    """
    said = repr(given[:BRIEF] if isinstance(given, str) else given)
    return said if len(said) <= BRIEF else f"{said[: BRIEF - 3]}..."
