"""Widgets: thin views over the result objects. What they show is computed elsewhere; each has a static twin.

For the prompt lab, `lab_view.py` turns readouts into arrays to draw, `prompt_lab.py` and `prompt_lab.js` draw them live
in Jupyter, `twin.py` draws them as HTML that needs neither kernel nor script. `brevity_scope.py` shows figures and
words of the results on how brief an emotion is.
`steering_desk.py` and `steering_desk.js` write text side by side; `watch_chat.py` and `watch_chat.js` watch a chat,
`watch_view.py` shows what was seen; `live.py` and `common.js` are what
these two share.
"""

from pathlib import Path


def front(*names: str) -> str:
    """Files of this folder put one after the other: what a browser gets, in one piece."""
    return "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)
