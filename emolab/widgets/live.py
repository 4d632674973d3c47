"""What every live widget with a front end of its own does: show its static twin beside it, and freeze it on request."""

from __future__ import annotations

from typing import Any

import anywidget
from IPython.display import display

from emolab.widgets.twin import Frozen


class LiveWidget(anywidget.AnyWidget):
    """An anywidget that saves its static twin with the notebook; a subclass says in `freeze` what that is."""

    def freeze(self) -> Frozen:
        """What is on display, as HTML that needs neither kernel nor script."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **_options: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_() or ({}, {})
        return data | {"text/html": self.freeze().html}, metadata

    def _ipython_display_(self) -> None:
        """The widget, and under it a place for what gets frozen."""
        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)
        display({"text/html": ""}, raw=True, display_id=f"frozen-{self.model_id}")

    def _show_frozen(self) -> None:
        display({"text/html": self.freeze().html}, raw=True, display_id=f"frozen-{self.model_id}", update=True)
