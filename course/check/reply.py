"""What may come back from a call: plain data in exact builtin types, of a size that can be handled.

`plain` makes such data on the answer's side. The other side believes nothing: `decode` builds builtin containers and
numbers only, and refuses what an honest reply never holds, such as another type or one list in a million places.
"""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
import io
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

MAX_REPLY_BYTES = 32 << 20
MAX_ITEMS = 2_000_000
"""Values in one reply, each counted wherever it stands; 64 bytes of text count as one more."""
MAX_DEPTH = 50

MAX_ALIKE = 64
"""Different values with one hash in one container: each costs a look at all others wherever it is counted or sought."""
_LARGE_BYTES = 1 << 17
_READING_S = 5.0
_MODULUS = sys.hash_info.modulus

MAX_MEMORY_BYTES = 1 << 30
"""What reading one reply may take: twenty forged bytes can ask a pickle reader for a table of gigabytes."""

_SCALARS = (bool, int, float, complex)
_CONTAINERS = (list, tuple, set, frozenset)


class NotPlainError(TypeError):
    """A value that cannot cross: carries the offending type's name."""


def plain(value: Any, depth: int = 0) -> Any:  # noqa: PLR0911 - one return per kind of value
    """Copy `value` into exact builtin types.

    Subclasses are reduced to what they stand for (an IntEnum member to its int, a named tuple to a tuple, a memoryview
    to bytes), generators and iterators are listed.

    Raises:
        NotPlainError: for anything else, or nesting deeper than 50.
    """
    if depth > MAX_DEPTH:
        raise NotPlainError(f"nested deeper than {MAX_DEPTH} levels")
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    for base in (int, float, str):
        if isinstance(value, base):
            return base(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, collections.abc.Mapping):
        return {plain(k, depth + 1): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(v, depth + 1) for v in value)
    if isinstance(value, set | frozenset):
        return {plain(v, depth + 1) for v in value}
    if isinstance(value, list) or inspect.isgenerator(value) or isinstance(value, collections.abc.Iterator):
        return [plain(v, depth + 1) for v in value]
    raise NotPlainError(type(value).__name__)


def encode(value: Any) -> bytes:
    """Bytes of plain data."""
    return pickle.dumps(value, protocol=4)


def decode(data: bytes, *, bounded: bool = True) -> Any:
    """Plain data of bytes that anybody may have made.

    Args:
        data: as `encode` makes them.
        bounded: limit this process's memory meanwhile; not where threads start programs and the sender is trusted.

    Raises:
        NotPlainError: something else than plain data, or too much of it.
        Exception: bytes that are no reply at all; what is raised depends on them.
    """
    if bounded and len(data) > _LARGE_BYTES:
        _rehearse(data)
    with _bounded_memory() if bounded else contextlib.nullcontext():
        value = _PlainUnpickler(io.BytesIO(data)).load()
    vet(value)
    return value


def _rehearse(data: bytes) -> None:
    """Read a large reply in a child first: keys that were chosen to have one hash keep a reader busy for hours.

    Raises:
        NotPlainError: it takes too long. What else is wrong with it shows when it is read here.
    """
    if not hasattr(os, "fork"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on; the child only reads
        pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, _READING_S)
            with _bounded_memory():
                _PlainUnpickler(io.BytesIO(data)).load()
        finally:
            os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGPROF:
        raise NotPlainError(f"what takes longer than {_READING_S:g} s to read: keys that all have the same hash?")


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Let the block reserve no more than `MAX_MEMORY_BYTES`; where that cannot be said, let it do as it likes."""
    try:
        import resource  # noqa: PLC0415 - not everywhere

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = used + MAX_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (wanted if soft < 0 else min(soft, wanted), hard))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def vet(value: Any) -> None:
    """Refuse what is not plain: a reply that was made by hand may hold anything.

    Raises:
        NotPlainError: another type, too deep, or too many values (each counted wherever it stands).
    """
    left = MAX_ITEMS
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        kind = type(item)
        if item is None or kind in _SCALARS:
            continue
        if kind is str or kind is bytes:
            left -= len(item) >> 6
        elif kind is dict or kind in _CONTAINERS:
            left -= len(item) * (2 if kind is dict else 1)
            if left >= 0 and depth <= MAX_DEPTH:
                _vet_hashes(item)
                parts = (part for pair in item.items() for part in pair) if kind is dict else item
                waiting.extend((part, depth + 1) for part in parts)
        else:
            raise NotPlainError(kind.__name__)
        if left < 0:
            raise NotPlainError(f"more than {MAX_ITEMS:,} values")
        if depth > MAX_DEPTH:
            raise NotPlainError(f"nested deeper than {MAX_DEPTH} levels")


def _vet_hashes(container: Collection[Any]) -> None:
    """Refuse many different values with one hash, such as multiples of 2⁶¹ - 1: no honest answer has them.

    Hashes of texts cannot be foreseen, and of floats few have the same.
    """
    if len(container) <= MAX_ALIKE:
        return
    seen: dict[int, list[Any]] = {}
    for item in container:
        kind = type(item)
        if kind in (complex, tuple, frozenset) or (kind is int and not -_MODULUS < item < _MODULUS):
            try:
                alike = seen.setdefault(hash(item), [])
            except TypeError:  # a list inside
                continue
            if item not in alike:
                alike.append(item)
            if len(alike) > MAX_ALIKE:
                raise NotPlainError(f"more than {MAX_ALIKE} different values with the same hash")


class _PlainUnpickler(pickle.Unpickler):
    """Builtin containers and numbers only: nothing that a reply names is ever imported."""

    def find_class(self, module: str, name: str) -> Any:
        """Allow what protocol 4 needs for sets and complex numbers; refuse the rest."""
        if (module, name) in {("builtins", "set"), ("builtins", "frozenset"), ("builtins", "complex")}:
            return {"set": set, "frozenset": frozenset, "complex": complex}[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")
