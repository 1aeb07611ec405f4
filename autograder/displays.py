"""Displays that can be put on a page: templates write an image's data and size into HTML as they are."""

from __future__ import annotations

import re
from typing import Any

_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*\Z")
_SIZES = ("width", "height")


def harmless(data: dict[str, Any], metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keep of a display's data and metadata what cannot leave its attribute: images in base64, sizes as numbers."""
    kept = {mime: value for mime, value in data.items() if _is_plain(mime, value)}
    sizes = {
        mime: {name: value for name, value in about.items() if name in _SIZES and type(value) in (int, float)}
        for mime, about in metadata.items()
        if mime in kept and isinstance(about, dict)
    }
    return kept, {mime: about for mime, about in sizes.items() if about}


def _is_plain(mime: str, value: Any) -> bool:
    if mime == "application/vnd.jupyter.widget-view+json":
        return isinstance(value, dict) and isinstance(value.get("model_id"), str)
    if (mime.startswith("image/") and "svg" not in mime) or mime == "application/pdf":
        return isinstance(value, str) and _BASE64.match(value) is not None
    return True
