"""Values that hold properties: ``virtio=BC:24:11:00:00:01,bridge=vmbr0`` and ``local-lvm:vm-169-disk-0,size=8G``.

A comma ends a property, so no value holds one. One property may be given without its key, and a key may stand for two
things at once (see `Parameter.key_alias`). Written, the property without a key comes first and the others in order.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..error import ClusterError
from .declaration import Declarations


def parse(text: str, declarations: Declarations) -> dict[str, str]:
    """Take a value apart; what each property may be is not looked at, but unknown keys stay to be refused.

    Raises:
        ClusterError: a key is missing or comes twice; the words are Proxmox VE's.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        key, equals, value = part.strip().partition("=")
        if not equals:
            key, value = _default_key(declarations), key
        for name, what in _meaning(key, value, declarations).items():
            if name in found:
                raise ClusterError(f"duplicate key in comma-separated list property: {name}")
            found[name] = what
    return found


def render(values: Mapping[str, object], declarations: Declarations) -> str:
    """Write a value.

    Raises:
        ClusterError: a property's text holds a comma.
    """
    left = {name: str(value) for name, value in values.items() if value is not None}
    for name, value in left.items():
        if "," in value or "\n" in value:
            raise ClusterError(f"property '{name}' cannot hold '{value}'")
    first = _first(left, declarations)
    return ",".join([*first, *(f"{name}={left[name]}" for name in sorted(left))])


def _default_key(declarations: Declarations) -> str:
    """Return the property that a value without a key belongs to."""
    for name, declared in declarations.items():
        if declared.default_key:
            return name
    raise ClusterError("value without key, but schema does not define a default key")


def _meaning(key: str, value: str, declarations: Declarations) -> dict[str, str]:
    """Return the properties that a key and its value stand for."""
    declared = declarations.get(key)
    if declared is None or declared.alias is None:
        return {key: value}
    if declared.key_alias is not None:
        return {declared.key_alias: key, declared.alias: value}
    return {declared.alias: value}


def _first(left: dict[str, str], declarations: Declarations) -> list[str]:
    """Take out of `left` what stands first, without a key or as the key itself."""
    name = next((name for name, declared in declarations.items() if declared.default_key and name in left), None)
    if name is None:
        return []
    value = left.pop(name)
    short = declarations.get(value)
    if short is not None and short.key_alias == name and short.alias in left:
        return [f"{value}={left.pop(short.alias)}"]
    return [f"{name}={value}" if "=" in value else value]
