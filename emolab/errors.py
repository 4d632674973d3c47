"""The one error that emolab raises on bad input: what was given, what was expected, what to do now."""

from collections.abc import Iterable
from difflib import get_close_matches


class EmolabError(ValueError):
    """Bad input or a missing resource; the message names the remedy."""


def unknown(kind: str, name: str, known: Iterable[str]) -> EmolabError:
    """An error for a name that is not in a list, with the nearest names in it.

    >>> print(unknown("emotion", "afrayd", ["afraid", "calm"]))
    unknown emotion 'afrayd': did you mean 'afraid'?
    """
    known = list(known)
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    hint = (
        f"did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"there are: {', '.join(known[:20])}" + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    )
    return EmolabError(f"unknown {kind} {name!r}: {hint}")
