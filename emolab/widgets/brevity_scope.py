"""`brevity_scope()`: the measures of how brief an emotion is, to look through by emotion, by passage and by design.

A view only: means and half-lives are those of `Persistence`, `CarryOver`, `Pulse` and `Passage`, with their own figures
and words. A result is computed once, when it is first asked for; a text of the reader's own is read once.
"""

from base64 import b64encode
from collections.abc import Callable
from html import escape
from io import BytesIO
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from emolab.errors import EmolabError, unknown
from emolab.model import Subject
from emolab.passage import Passage, read_passage
from emolab.persistence import CarryOver, Persistence, carry_over, followed, persistence
from emolab.pulse import Pulse, pulse
from emolab.vectors import EmotionVectors
from emolab.widgets.lab_view import SD_RANGE, sound
from emolab.widgets.twin import STRIP, Frozen, element, token_cell

ALL = "all"
VIEWS = {
    "around": "Around the event: means over passages",
    "passage": "One passage",
    "carried": "The same words after two openings",
    "pulse": "A push from outside",
    "own": "Your own text",
}
NEEDS = {"around": Persistence, "passage": Persistence, "carried": CarryOver, "pulse": Pulse}
MOST_TOKENS = 1024  # of a text of one's own: beyond, a strip can't be read
MOST_CHARACTERS = 200_000  # beyond, not even the tokens are counted
TEXT = (
    "Nora put the plates away and wiped the table. The radio gave the weather for the coast. She folded the cloth and "
    "hung it over the rail by the stove. | Then something heavy fell upstairs, where nobody should have been. Her "
    "heart pounded and she could not move. A step creaked. Someone was coming down, slowly, and the door to the "
    "street was locked. | In the morning she took the bus to the market. She bought bread, two onions and a bag of "
    "rice. The stall with the flowers stood where it always stands, and the driver read his newspaper until it was "
    "time to leave."
)


class BrevityScope(widgets.VBox):
    """The live brevity scope; made by `brevity_scope()`. Set the values of its controls to drive it from Python.

    view, emotion, passage, text : the controls; `answer.value` is the HTML on display
    found : the results by type, those given and those computed since
    """

    def __init__(self, subject: Subject, vectors: EmotionVectors, found: tuple, view: str, emotion: str, text: str):
        self.subject, self.vectors = subject, vectors
        self.found: dict[type, Any] = {type(result): result for result in found}
        self._drawn: dict[tuple[str, str], str] = {}
        self._passages: list[Passage] = []
        self._kept: tuple[str, Passage] | None = None  # the reader's text
        self._answering = False
        self.view = widgets.Dropdown(
            options=[(label, key) for key, label in VIEWS.items()],
            value=view,
            description="Show",
            layout={"width": "auto"},
        )
        self.emotion = widgets.Dropdown(options=[emotion], description="Emotion")
        self.passage = widgets.Dropdown(description="Passage", layout={"width": "auto"})
        self.text = widgets.Textarea(
            text, description="Your text", continuous_update=False, rows=6, layout={"width": "auto"}
        )
        self.read = widgets.Button(description="Read it", tooltip="Put | where the emotion begins and where it ends")
        self.status, self.answer = widgets.HTML(), widgets.HTML()
        controls = [widgets.HBox([self.view, self.emotion], layout={"flex_flow": "row wrap"}), self.passage, self.text]
        super().__init__([*controls, self.read, self.status, self.answer])
        self._update()
        for control in (self.view, self.emotion, self.passage, self.text):
            control.observe(self._update, "value")
        self.read.on_click(self._update)

    def __repr__(self) -> str:
        return f"BrevityScope({VIEWS[self.view.value]}, {self.emotion.value})"

    def freeze(self) -> Frozen:
        """What is on display, as HTML that needs neither kernel nor script."""
        title = element("p", f"Brevity scope. {VIEWS[self.view.value]}: {self.emotion.value}")
        return Frozen(f'<div class="emolab-twin">{title}{self.answer.value}</div>')

    def _repr_mimebundle_(self, **options: Any) -> dict:
        return super()._repr_mimebundle_(**options) | {"text/html": self.freeze().html}

    def _update(self, _change: Any = None) -> None:
        """Answer a change of any control; what can't be answered is said in its place."""
        if self._answering:  # a control that is given new choices changes too
            return
        self._answering = True
        self._arrange()
        self._say("One moment: the figure is being drawn.")
        try:
            self.answer.value = getattr(self, f"_{self.view.value}")()
        except EmolabError as problem:
            self.answer.value = _error(str(problem))
        except Exception as problem:  # of the model or its tokenizer; unseen if it were raised here
            self.answer.value = _error(f"{type(problem).__name__}: {problem}")
        finally:
            self.status.value, self._answering = "", False

    def _arrange(self) -> None:
        """Only the controls that this view has a use for."""
        shown = {self.passage: "passage", self.text: "own", self.read: "own"}
        for control, view in shown.items():
            control.layout.display = None if self.view.value == view else "none"

    def _around(self) -> str:
        return self._result(self._persistence, lambda found: found.tracks.emotions)

    def _carried(self) -> str:
        return self._result(self._carry_over, lambda found: found.emotions)

    def _pulse(self) -> str:
        return self._result(self._pushed, lambda found: found.effects.emotion.unique())

    def _result(self, result: Callable, emotions: Callable) -> str:
        """The words and the figure of a result, for one emotion or all."""
        found = result()
        _offer(self.emotion, [ALL, *emotions(found)])
        key = self.view.value, self.emotion.value
        if key not in self._drawn:  # the bootstraps of some take a few seconds
            emotion = None if self.emotion.value == ALL else self.emotion.value
            self._drawn[key] = element("p", found.verdict(emotion)) + self._picture(found.figure(emotion))
        return self._drawn[key]

    def _passage(self) -> str:
        found = self._persistence()
        _offer(self.emotion, [ALL, *found.tracks.emotions])
        self._passages = self._passages or found.passages(self.subject)
        chosen = [
            (f"{i + 1}. {passage.event.emotion}, then {passage.event.into}: {''.join(passage.tokens)[:60]}…", i)
            for i, passage in enumerate(self._passages)
            if self.emotion.value in (ALL, passage.event.emotion)
        ]
        _offer(self.passage, chosen)
        return self._one(self._passages[self.passage.value])

    def _own(self) -> str:
        _offer(self.emotion, list(self.vectors.emotions))
        return self._one(self._read().of(self.emotion.value))

    def _one(self, passage: Passage) -> str:
        """The words, the token strip and the track of one passage."""
        return element("p", passage.verdict()) + _strip(passage) + self._picture(passage.figure())

    def _read(self) -> Passage:
        """The reader's text: kept from before, or by one forward pass."""
        text = sound(self.text.value)
        if self._kept is None or self._kept[0] != text:
            self._check_length(text)
            self._say("Computing: the model reads your text.")
            self._kept = text, read_passage(self.subject, self.vectors, text, self.emotion.value)
        return self._kept[1]

    def _check_length(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise EmolabError(f"the text has {len(text):,} characters: the scope shows at most {MOST_TOKENS:,} tokens")
        limit = min(MOST_TOKENS, self.subject.max_tokens)
        tokens = len(self.subject.tokenizer(text, verbose=False)["input_ids"])
        if tokens > limit:
            raise EmolabError(f"the text has {tokens:,} tokens and the scope shows at most {limit:,}: cut it")

    def _persistence(self) -> Persistence:
        texts = "Computing, once: the model reads all passages that switch an emotion on and off."
        return self._once(Persistence, texts, lambda: persistence(self.subject, self.vectors))

    def _carry_over(self) -> CarryOver:
        texts = "Computing, once: the model reads pairs of openings with the same words after them."
        return self._once(CarryOver, texts, lambda: carry_over(self.subject, self.vectors))

    def _pushed(self) -> Pulse:
        names = [name for name in followed("switching") if name in self.vectors.emotions]
        texts = "Computing, once: the model reads neutral texts while emotions are pushed into five of their tokens."
        return self._once(Pulse, texts, lambda: pulse(self.subject, self.vectors, names, texts=4, seeds=4))

    def _once(self, kind: type, message: str, compute: Callable[[], Any]) -> Any:
        if kind not in self.found:
            self._say(message)
            self.found[kind] = compute()
        return self.found[kind]

    def _say(self, message: str) -> None:
        self.status.value = f'<div role="status">{element("p", message)}</div>'

    def _picture(self, figure: Figure) -> str:
        return _image(figure, f"{VIEWS[self.view.value]}: {self.emotion.value}. The words above say what it shows.")


def brevity_scope(
    subject: Subject,
    vectors: EmotionVectors,
    *found: Persistence | CarryOver | Pulse,
    view: str | None = None,
    emotion: str | None = None,
    text: str = TEXT,
) -> BrevityScope:
    """A widget to look through the measures of how brief an emotion is, and to measure a text of your own.

    Parameters
    ----------
    found : results of `persistence()`, `carry_over()` and `pulse()` to show; what is missing is computed when it is
        first asked for.
    view : what to begin with: 'around', 'passage', 'carried', 'pulse' or 'own'; default the first that needs no
        computing.
    emotion : one, or 'all'.
    text : of your own, with marks: 'neutral | emotion | neutral'.

    Raises EmolabError for vectors or results of another model, unknown names, or what is no such result.
    """
    vectors.check(subject)
    for result in found:
        _check(result, subject)
    ready = {type(result) for result in found}
    view = view or next((name for name, kind in NEEDS.items() if kind in ready), "own")
    if view not in VIEWS:
        raise unknown("view", view, VIEWS)
    if emotion not in (None, ALL, *vectors.emotions):
        raise unknown("emotion", emotion, vectors.emotions)
    usual = "afraid" if view == "own" and "afraid" in vectors.emotions else ALL
    scope = BrevityScope(subject, vectors, found, view, emotion or usual, text)
    if emotion is not None and scope.emotion.value != emotion:
        raise unknown(f"emotion in the view {view!r}", emotion, scope.emotion.options)
    return scope


def _check(result: Any, subject: Subject) -> None:
    if not isinstance(result, (Persistence, CarryOver, Pulse)):
        raise EmolabError(
            f"found {type(result).__name__}, expected results of persistence(), carry_over() or pulse(): "
            f"el.brevity_scope(subject, vectors, *results)"
        )
    model = result.tracks.model if isinstance(result, Persistence) else result.model
    if model != subject.name:
        raise EmolabError(f"a result is of {model} and the subject is {subject.name}: compute it with this subject")


def _offer(box: widgets.Dropdown, options: list) -> None:
    """New choices; what was chosen stays if it still is among them, else the most usual one."""
    if list(box.options) == options:
        return
    kept, values = box.value, [option[1] if isinstance(option, tuple) else option for option in options]
    with box.hold_sync():
        box.options = options
        box.value = next(value for value in (kept, "afraid", values[0]) if value in values)


def _strip(passage: Passage) -> str:
    """The tokens, coloured by score, with signs where the event begins and ends and where the score has fallen."""
    signs = {passage.event.start: "the event begins", passage.event.end: "the event ends"}
    cells = []
    for i, (token, score) in enumerate(zip(passage.tokens, passage.scores[:, 0], strict=True)):
        if i in signs:
            cells.append(_sign(signs[i]))
        if i == passage.fallen:
            cells.append(_sign("fallen to half"))
        value = score if i else float("nan")
        cells.append(token_cell(token, value, SD_RANGE, f"token {i}: {score:+.2f}" if i else "not scored"))
    key = f"Colour of the tokens: blue {-SD_RANGE:g}, red {SD_RANGE:+g} sd of neutral tokens."
    return f'<div style="{STRIP}">{"".join(cells)}</div>' + element("p", key)


def _sign(words: str) -> str:
    style = "border:1px solid currentColor;border-radius:3px;padding:0 4px;margin:0 4px;font-size:80%;font-weight:600"
    return f'<b style="{style}">{words}</b>'


def _image(figure: Figure, words: str) -> str:
    """A figure as an image within the HTML; white behind it, so that it reads on a dark page too."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=80, facecolor="white")
    data = b64encode(file.getvalue()).decode()
    return f'<img alt="{escape(words)}" style="max-width:100%" src="data:image/png;base64,{data}">'


def _error(message: str) -> str:
    style = "border-left:4px solid #d55e00;padding:4px 10px;overflow-wrap:anywhere"
    return f'<div role="alert" style="{style}">{element("p", message)}</div>'
