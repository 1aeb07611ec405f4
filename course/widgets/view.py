"""What all views have in common: shared script and style, and a form for places where no widget can be shown.

A committed notebook, GitHub and a screen reader's console have no kernel behind the output, so every view says the
same twice more: as plain text, and where it helps as a static picture or table.
"""

from __future__ import annotations

import pathlib
from typing import Any

import anywidget

_HERE = pathlib.Path(__file__).parent


def script(name: str) -> str:
    """The JavaScript of a view, behind the elements that all views use (modules shown by anywidget import nothing)."""
    return "\n".join((_HERE / f"{part}.js").read_text(encoding="utf-8") for part in ("elements", name))


def style(*names: str) -> str:
    """The style of a view, behind that of all views."""
    return "\n".join((_HERE / f"{part}.css").read_text(encoding="utf-8") for part in ("view", *names))


class View(anywidget.AnyWidget):
    """A widget with a form for every place: live, static, and text (`str`)."""

    def static(self) -> dict[str, str]:
        """What committed notebooks show beside the text: MIME type to content."""
        return {}

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Add the forms that need no front end."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, **self.static(), "text/plain": str(self)}, metadata
