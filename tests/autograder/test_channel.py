"""The channel between judge and student's process: honest calls, and other sides that lie, flood, or say nothing."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import struct
import threading

import pytest

from autograder import channel
from autograder.channel import Channel, Remote
from course.check import Outcome, call, service
from course.check.answer import call_each
from course.check.reply import MAX_ITEMS, NotPlainError, decode, encode, vet


def _double(number):
    return 2 * number


async def _later(number):
    return number


def _ends(number):
    os._exit(3)


def _loops(number):
    while True:
        pass


def _not_yet(number):
    raise NotImplementedError


def _leaks(number):
    os.open("/dev/null", os.O_RDONLY)
    return number


NAMESPACE = {
    "double": _double, "later": _later, "ends": _ends, "loops": _loops, "not_yet": _not_yet, "leaks": _leaks,
    "one_over": lambda n: 1 / n, "keys": lambda **named: named, "count": lambda n: (i for i in range(n)),
    "thing": object, "number": 42, "other": object(),
}  # fmt: skip


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A service for this test's own functions, as a kernel runs it."""
    path = str(tmp_path_factory.mktemp("channel") / "answers")
    service.serve(path, NAMESPACE)
    return Channel(path, deadline_s=20.0)


@pytest.fixture
def liar(tmp_path, monkeypatch):
    """Make a channel whose other side answers every question with the given bytes."""
    monkeypatch.setattr(channel, "GRACE_S", 0.3)
    listeners, clients = [], []

    def lie(listener, data, silent):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                with contextlib.suppress(OSError):
                    client.sendall(data)
                if not silent:
                    client.close()

    def make(data, *, silent=False):
        path = str(tmp_path / str(len(listeners)))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=lie, args=(listener, data, silent))
        thread.start()
        listeners.append((listener, thread))
        return Channel(path)

    yield make
    for listener, thread in listeners:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        thread.join()
        listener.close()
    for client in clients:
        client.close()


def frame(value):
    """A frame as an honest service sends it, around anything that can be pickled."""
    data = pickle.dumps(value, protocol=4)
    return struct.pack(">Q", len(data)) + data


def ended(reply, exitcode=0):
    """A frame that says that a child ended with these bytes."""
    return frame(("ended", reply, exitcode))


@pytest.mark.parametrize(
    ("name", "args", "outcome", "value"),
    [
        ("double", (4,), Outcome.RETURNED, 8),
        ("later", (4,), Outcome.RETURNED, 4),
        ("count", (3,), Outcome.RETURNED, [0, 1, 2]),
        ("one_over", (0,), Outcome.RAISED, None),
        ("not_yet", (1,), Outcome.UNANSWERED, None),
        ("ends", (1,), Outcome.DIED, None),
        ("thing", (), Outcome.NOT_PLAIN, None),
    ],
)
def test_calls_are_those_of_a_function_here(honest, name, args, outcome, value):
    """What a check sees of an answer elsewhere is what it sees of the same answer in its own process."""
    there, here = call(Remote(name, honest), *args), call(NAMESPACE[name], *args)
    assert (there.outcome, there.value) == (outcome, value)
    assert (there.outcome, there.value, there.error, there.detail) == (
        here.outcome,
        here.value,
        here.error,
        here.detail,
    )


def test_an_endless_answer_is_ended_in_time(honest):
    """The other side keeps the deadline."""
    done = call(Remote("loops", honest), 1, deadline_s=0.5)
    assert (done.outcome, done.error) == (Outcome.TIMED_OUT, "0.5 s")


def test_arguments_cross_as_plain_data(honest):
    """Bytes, nested containers and names cross unharmed; what is not plain is the check's mistake."""
    data = {"a": [1, (2, b"\x00"), {3}], "b": None}
    assert call(Remote("keys", honest), **data).value == data
    with pytest.raises(NotPlainError):
        call(Remote("double", honest), object())


def test_a_series_costs_one_child_and_sees_what_stays_open(honest):
    """Many calls in one child; descriptors that each call leaves are counted from the second on."""
    answer = Remote("double", honest)
    assert [one.value for one in call_each(answer, [(n,) for n in range(50)]).calls] == list(range(0, 100, 2))
    for leaky in (Remote("leaks", honest), _leaks):
        assert call_each(leaky, [(1,)] * 4, descriptors=True).left_open == {"dev/null": 3}
    assert call_each(answer, [(1,)] * 4, descriptors=True).left_open == {}
    assert call_each(Remote("one_over", honest), [(1,), (0,), (2,)]).calls[1].error == "ZeroDivisionError"
    assert call_each(Remote("not_yet", honest), [(1,), (2,)]).end is Outcome.UNANSWERED
    assert call_each(Remote("ends", honest), [(1,), (2,)]).calls == ()


def test_a_plain_test_sees_values_and_exceptions(honest):
    """Called like a function, an answer returns or raises as it would here."""
    assert Remote("double", honest)(4) == 8
    for name, expected in [
        ("one_over", ZeroDivisionError), ("not_yet", NotImplementedError), ("ends", RuntimeError),
        ("thing", TypeError), ("nowhere", NameError),
    ]:  # fmt: skip
        with pytest.raises(expected):
            Remote(name, honest)(*([] if name == "thing" else [0]))


def test_values_are_looked_up(honest):
    """Plain data comes as it is, a function as something to call, a missing name not at all."""
    found = honest.values(["number", "double", "nowhere", "other"])
    assert found.pop("number") == 42
    assert sorted(found) == ["double", "other"]
    assert found["double"](2) == 4


GARBAGE = {
    "nothing": b"",
    "half a length": b"\x00\x00",
    "noise": b"\xff" * 4096,
    "a huge length": struct.pack(">Q", 1 << 60) + b"x" * 100,
    "less than promised": struct.pack(">Q", 1000) + b"x",
    "no pickle": struct.pack(">Q", 4) + b"abcd",
    "a class": frame(Outcome.RETURNED),
    "a call on loading": struct.pack(">Q", 30) + b"cos\nsystem\n(S'exit 1'\ntR.".ljust(30),
    "another shape": frame({"ended": 1}),
    "a lonely word": frame(("ended",)),
    "numbers for bytes": ended(7),
    "an impossible end": ended(b"", 10**40),
    "a reply of garbage": ended(b"garbage"),
    "a reply of another shape": ended(encode([1, 2, 3])),
    "too few calls": ended(encode(([], "", {}))),
    "too many calls": ended(encode(([("RETURNED", 1, "", "")] * 2, "", {}))),
    "an unknown outcome": ended(encode(([("PASSED", 1, "", "")], "", {}))),
    "an object": ended(pickle.dumps(([("RETURNED", Outcome.RETURNED, "", "")], "", {}), protocol=4)),
    "a type": ended(pickle.dumps(([("RETURNED", set, "", "")], "", {}), protocol=4)),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_lie_costs_its_call(liar, what):
    """Whatever the other side says, a call ends as one that died or is not plain; nothing is loaded or raised."""
    done = call(Remote("double", liar(GARBAGE[what])), 4, deadline_s=0.2)
    assert done.outcome in (Outcome.DIED, Outcome.NOT_PLAIN)
    assert liar(GARBAGE[what]).values(["double"]) == {}


@pytest.mark.parametrize("data", [b"", struct.pack(">Q", 1000) + b"x"])
def test_silence_ends_with_the_deadline(liar, data):
    """A side that never ends its answer is not waited for."""
    assert call(Remote("double", liar(data, silent=True)), 4, deadline_s=0.2).outcome is Outcome.DIED


def test_a_missing_side_is_a_dead_one(tmp_path):
    """A kernel that has ended answers nothing."""
    assert call(Remote("double", Channel(str(tmp_path / "nowhere"))), 4).outcome is Outcome.DIED


def test_words_of_a_liar_are_short(liar):
    """Messages made from a reply stay readable."""
    reply = encode(([("RAISED", None, "E" * 10**6, "d" * 10**6)], "p" * 10**6, {}))
    done = call(Remote("double", liar(ended(reply))), 4)
    assert done.outcome is Outcome.RAISED
    assert max(len(done.error), len(done.detail), len(done.printed)) <= 20_000


def _bomb():
    """Sixty lists, each twice in the next: a few hundred bytes that would print as many gigabytes."""
    value = [1]
    for _ in range(45):
        value = [value, value]
    return value


def _wide():
    row = [0] * 3000
    return [row] * 3000


def _round():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize("make", [_bomb, _wide, _round, lambda: [0] * (MAX_ITEMS + 1), lambda: [["x" * 10**6] * 1000]])
def test_small_replies_that_grow_are_refused(make):
    """Each value counts wherever it stands; what would take for ever to compare or print is not plain data."""
    with pytest.raises(NotPlainError):
        decode(pickle.dumps(make(), protocol=4))


def test_ordinary_data_passes():
    """Every type that is plain, and large data."""
    value = {"a": [1, 2.5, 1j, True, None, "x", b"y"], (1, 2): {3, frozenset({4})}, "long": b"x" * (20 << 20)}
    vet(value)
    assert decode(encode(value)) == value
