"""Interactive views: each a Python file, a JavaScript file and a style sheet, with a text where none can be shown."""

from __future__ import annotations
