"""Errors of the virtual CPU; all of them are `CourseError`."""

from __future__ import annotations

from ..error import CourseError


class VcpuError(CourseError):
    """A virtual CPU was asked for something that its state does not allow."""


class BudgetSpentError(VcpuError):
    """`Vcpu.run` was called again after the exit that said that the budget is used up, or after a shutdown.

    Without it, a VMM whose loop overlooks that exit would never end.
    """
