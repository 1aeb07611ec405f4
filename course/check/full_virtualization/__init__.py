"""Visible checks of lesson 07, full virtualization.

One module per experiment. What the visible and the hidden checks share (how an answer is judged, and by which witness)
is public there; which inputs grading uses is not.
"""

from __future__ import annotations

from .patching import break_sweep, patch
from .shadowing import shadow
from .translation import rewrite, translate
from .walking import gva2gpa, walk_refs

__all__ = ["break_sweep", "gva2gpa", "patch", "rewrite", "shadow", "translate", "walk_refs"]
