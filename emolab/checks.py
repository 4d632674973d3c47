"""What bad input has in common, checked once: paths and chats that are none, JSON that lies, halves of characters."""

import json
import os
from pathlib import Path
from typing import Any

from emolab.errors import EmolabError, brief


def path_of(given: str | os.PathLike) -> Path:
    """A path that a file could have. Raises EmolabError for what can't be one: another type, too long, a NUL in it."""
    try:
        path = Path(given)
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # whether it is there is another question
    except (TypeError, ValueError, OSError) as error:
        why = getattr(error, "strerror", None) or error
        raise EmolabError(f"{brief(given)} can't be a path ({why}): give the name of a file or folder") from None
    return path


def parsed(text: str) -> Any:
    """What JSON of unknown origin says. Raises ValueError for all that can be wrong with it."""
    try:
        found = json.loads(text)
        if "\\u" in text:
            whole(json.dumps(found, ensure_ascii=False))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def whole(text: str) -> str:
    """The text, if it is one and has whole characters only.

    Raises ValueError for a lone surrogate, half of a character, which can neither be encoded nor written to a file.
    """
    if not isinstance(text, str):
        raise ValueError(f"no text but {brief(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character (a lone surrogate) at place {error.start}") from None
    return text


def check_chat(messages: list[dict]) -> list[dict]:
    """The messages, if they are a chat; raises EmolabError if not."""
    good = isinstance(messages, list) and messages
    for message in messages if good else ():
        good = good and isinstance(message, dict) and all(isinstance(message.get(k), str) for k in ("role", "content"))
    if not good:
        raise EmolabError(
            'a chat is a list of {"role": "user" or "assistant" or "system", "content": "..."}, with at least one'
        )
    return messages


def distinct(values: Any, kind: type) -> bool:
    """Whether it is a list, not empty, of different values of exactly this type.

    >>> distinct([1, 2], int), distinct([1, True], int), distinct([], str), distinct(None, str)
    (True, False, False, False)
    """
    return isinstance(values, list) and {*map(type, values)} == {kind} and len({*values}) == len(values)
