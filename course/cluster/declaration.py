"""How a parameter of a call, or a property inside a value such as ``virtio,bridge=vmbr0``, is declared.

Declarations are data: `parameters.check` compares values with them and words what is wrong. The names follow the API
schema of Proxmox VE, so that a declaration can be compared with it field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Type = Literal["string", "integer", "number", "boolean", "array"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """What one value may be.

    Attributes:
        type: of the value; on the wire all are text.
        optional: whether it may be missing.
        default: what a missing one means.
        minimum, maximum: of a number.
        min_length, max_length: of text, in characters.
        enum: the only values allowed.
        pattern: that the whole text has to match.
        format: a named format of `formats`, or the declarations of a property string.
        requires: another parameter that must be given too.
        items: what the entries of an array may be.
        default_key: in a property string, whether a value without a key is this one's.
        alias: in a property string, the property that this key is another name for.
        key_alias: in a property string, the property whose value is this key itself: ``virtio=MAC`` says
            ``model=virtio,macaddr=MAC``.
        description: for people.
    """

    type: Type = "string"
    optional: bool = False
    default: str | int | float | None = None
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    enum: tuple[str, ...] = ()
    pattern: str | None = None
    format: str | Mapping[str, Parameter] | None = None
    requires: str | None = None
    items: Parameter | None = None
    default_key: bool = False
    alias: str | None = None
    key_alias: str | None = None
    description: str = ""


Declarations = Mapping[str, Parameter]


def numbered(prefix: str, count: int, parameter: Parameter) -> dict[str, Parameter]:
    """Declare ``net0`` to ``net31`` at once: what the schema calls ``net[n]``."""
    return {f"{prefix}{number}": parameter for number in range(count)}
