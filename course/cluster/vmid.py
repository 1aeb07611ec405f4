"""Numbers of guests: virtual machines and containers of a cluster share them.

Source: recorded answers of ``/cluster/nextid``; the schema's bounds.
"""

from __future__ import annotations

from collections.abc import Collection

from ..error import ClusterError, ParameterError

LEAST, LAST = 100, 999_999_999


def next_free(used: Collection[int], wanted: int | None = None, *, lower: int = LEAST, upper: int = 1_000_000) -> int:
    """Return a number that no guest has.

    Args:
        used: numbers of all guests, on whatever node.
        wanted: the number that is asked for; None for the least that is free.
        lower: the first number that may be chosen.
        upper: one past the last.

    Raises:
        ParameterError: the wanted number is taken.
        ClusterError: all numbers are taken.
    """
    if wanted is not None:
        if wanted in used:
            raise ParameterError({"vmid": f"VM {wanted} already exists"})
        return wanted
    for number in range(max(lower, LEAST), min(upper, LAST + 1)):
        if number not in used:
            return number
    raise ClusterError(f"unable to get any free VMID in range [{lower}, {upper - 1}]")
