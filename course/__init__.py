"""A hands-on virtualization course: the package that its notebooks run on.

Importing it starts nothing and loads nothing heavy; the names below are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["Machine", "__version__"]
__version__ = "0.1.0"

_LAZY = {"Machine": ".machine"}


def __getattr__(name: str) -> Any:
    """Load `Machine` when it is first asked for (PEP 562)."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
