"""Services that a check needs and an answer must not lay hands on, such as a cluster with its machines.

When a submission is graded, check and answer are shut in together: a network of their own, the student's user. What ran
there, the answer could kill, read and change. So a check asks for it *outside*. A service is a context manager that is
declared as one, in a module that the test imports::

    @service
    @contextlib.contextmanager
    def lab(seed: int = 0) -> Iterator[Offer]:                       # on the grader's side
        with Cluster(...) as cluster:
            yield Offer([cluster.address], told={"token": cluster.token()}, questions={"kill": cluster.kill})

    @where.step("a machine is found wherever it is")
    def _(trial: Trial) -> None:                                     # in the box
        with outside(lab, seed=trial.seed) as cluster:               # or kept(lab, …): up as long as this process
            host, port = cluster.addresses[0]
            trial.call(host, port, cluster.told["token"])            # the answer's connection
            api = ProxmoxAPI(*cluster.own[0], …)                     # the check's own, to look at what became of it
            cluster.ask("kill", "trevor")                            # done outside

In a notebook, in tests, and wherever there is no box, the service runs in this very process and its addresses are what
they are. In a box, `addresses` and `own` are TCP ports on the box's 127.0.0.1, and whatever arrives there is carried to
the service (`autograder.services`); nothing else outside is reached. Requests, what is told, questions and what they
return are plain data. Pids and paths of a service mean nothing in a box: ask for what has to be looked at.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..error import CourseError, UsageError
from .reply import decode, encode, plain

Address = tuple[str, int]


class ServiceError(CourseError):
    """A service did not start, ended, or could not do what was asked; says which and why."""


@dataclasses.dataclass(frozen=True)
class Offer:
    """What a service has to offer once it is up.

    Attributes:
        addresses: host and TCP port of each of its listeners.
        told: plain data for the check, such as a token made for this run.
        questions: what the check may have done, by name; plain data in and out.
    """

    addresses: Sequence[Address]
    told: Any = None
    questions: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)


Service = Callable[..., contextlib.AbstractContextManager[Offer]]


class Outside:
    """A service that is up, as the check sees it.

    Attributes:
        addresses: where the answer reaches its listeners.
        own: where the check does: listeners that nobody told the answer of.
        told: what the service has to say, plain data.
    """

    def __init__(
        self, addresses: Sequence[Address], own: Sequence[Address], told: Any, ask: Callable[[str, Any, Any], Any]
    ) -> None:
        """Describe it; for `outside` and gates. `ask` gets a question's name, its arguments, its named arguments."""
        self.addresses = [(str(host), int(port)) for host, port in addresses]
        self.own = [(str(host), int(port)) for host, port in own]
        self.told = told
        self._ask = ask

    def __repr__(self) -> str:
        return f"<Outside {', '.join(f'{host}:{port}' for host, port in self.addresses)}>"

    def ask(self, question: str, *args: Any, **kwargs: Any) -> Any:
        """Have something done where the service runs, and return what it says.

        Args:
            question: one of the service's questions.
            *args: plain data.
            **kwargs: plain data.

        Raises:
            ServiceError: there is no such question, it failed, or the service has ended.
            NotPlainError: an argument or what was said is not plain data.
        """
        return self._ask(question, plain(list(args)), plain(kwargs))


class Gate(abc.ABC):
    """A way out of a box."""

    @abc.abstractmethod
    def open(self, name: str, request: Mapping[str, Any]) -> contextlib.AbstractContextManager[Outside]:
        """Have the service of this name started outside, with plain data; ended with the ``with`` block."""


_services: dict[str, Service] = {}
_gates: list[Gate] = []
_kept: dict[tuple[int, str, bytes], Outside] = {}
_stacks: dict[int, contextlib.ExitStack] = {}


def service(function: Service) -> Service:
    """Declare a context manager that yields an `Offer` as a service; no other function can be started outside."""
    _services[name_of(function)] = function
    return function


def name_of(function: Service) -> str:
    """Return the name under which a service is known: module and function."""
    return f"{function.__module__}:{function.__qualname__}"


def declared(name: str = "") -> Mapping[str, Service]:
    """Return the declared services by name, of all modules imported so far."""
    return {known: function for known, function in _services.items() if name in ("", known)}


def leave_by(gate: Gate) -> None:
    """From now on this process is in a box, and services are reached by this gate."""
    _gates[:] = [gate]


@contextlib.contextmanager
def outside(function: Service, **request: Any) -> Iterator[Outside]:
    """Have a service up for the time of a ``with`` block, outside the box if this process is in one.

    Args:
        function: declared by `service`.
        **request: its arguments, plain data.

    Raises:
        UsageError: the function was not declared.
        ServiceError: it did not start.
        NotJudged: no way leads out of this box.
    """
    name, asked = name_of(function), plain(request)
    if name not in _services:
        raise UsageError(f"{name} is no service; expected a function with the decorator @service")
    with _gates[0].open(name, asked) if _gates else _opened_here(name, asked) as found:
        yield found


def kept(function: Service, **request: Any) -> Outside:
    """Return a service that stays up until this process ends; the same request gets the same one.

    Args:
        function: declared by `service`.
        **request: its arguments, plain data.
    """
    key = (os.getpid(), name_of(function), encode(sorted(plain(request).items())))
    if key not in _kept:
        _kept[key] = _stack().enter_context(outside(function, **request))
    return _kept[key]


def let_go() -> None:
    """End the services that this process has kept; the next `kept` starts another one."""
    for key in [key for key in _kept if key[0] == os.getpid()]:
        del _kept[key]
    if (stack := _stacks.pop(os.getpid(), None)) is not None:
        stack.close()


def _stack() -> contextlib.ExitStack:
    import atexit  # noqa: PLC0415 - once

    if os.getpid() not in _stacks:
        _stacks[os.getpid()] = contextlib.ExitStack()
        atexit.unregister(let_go)
        atexit.register(let_go)
    return _stacks[os.getpid()]


@contextlib.contextmanager
def _opened_here(name: str, request: Mapping[str, Any]) -> Iterator[Outside]:
    """Run a service in this process. What crosses is copied all the same: a box must not make a difference."""
    with _services[name](**request) as offer:

        def ask(question: str, args: Any, kwargs: Any) -> Any:
            return decode(encode(answered(name, offer, question, args, kwargs)))

        yield Outside(offer.addresses, offer.addresses, decode(encode(plain(offer.told))), ask)


def answered(name: str, offer: Offer, question: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Put a question to a service's offer; returns plain data.

    Raises:
        ServiceError: the service has no such question, or it failed.
    """
    if question not in offer.questions:
        known = ", ".join(offer.questions) or "none"
        raise ServiceError(f"{name} has no question {question!r}; it has: {known}")
    try:
        return plain(offer.questions[question](*args, **kwargs))
    except Exception as error:
        raise ServiceError(f"{name}, asked {question!r}: {type(error).__name__}: {error}") from error
