"""Visible checks of lesson 02: instruction sets."""

from __future__ import annotations

from .decoding import counterexamples, decode_fixed
from .files import density, isa_of, parse_record, run_anywhere
from .machine_code import affine, desync, two_in_one
from .suspects import SUSPECTS

__all__ = [
    "SUSPECTS", "affine", "counterexamples", "decode_fixed", "density", "desync", "isa_of", "parse_record",
    "run_anywhere", "two_in_one",
]  # fmt: skip
