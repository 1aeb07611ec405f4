"""Hidden checks of lesson 09, QEMU through QMP."""

from __future__ import annotations

from course.check import Exercise, Trial
from course.check.qemu_qmp import schema as schemas
from course.check.qemu_qmp import stream

demux = Exercise("demux", hidden=True, seed=901)
has_command = Exercise("has_command", hidden=True, seed=907)


# ─── demux ───────────────────────────────────────────────────────────────────


@demux.step("a character may be cut in two")
def _characters(trial: Trial) -> None:
    messages = [stream.GREETING, stream.event(trial.rng), {"return": {"name": "Ω-pool"}, "id": "é"}]
    data = stream.wire(messages)
    places = stream.inside_characters(data)
    stream.judge(trial, messages, stream.cut(data, [trial.rng.choice(places)]), torn="cut within a character")
    stream.judge(trial, messages, stream.cut(data, range(len(data))), torn="byte by byte")


@demux.step("an id may be any number or string, and a reply may speak of events")
def _ids(trial: Trial) -> None:
    listed = {"return": [{"event": "STOP"}, {"name": "event"}], "id": 7}
    messages = [stream.GREETING, listed, {"return": {}, "id": 0}, {"return": {}, "id": ""}, stream.event(trial.rng)]
    data = stream.wire(messages)
    stream.judge(trial, messages, stream.cut(data, [len(data) // 3]), torn="cut once")


@demux.step("what has not arrived whole is left out")
def _tail(trial: Trial) -> None:
    messages = [stream.GREETING, {"return": {}, "id": "a"}, stream.event(trial.rng, "STOP")]
    rest = stream.wire([stream.event(trial.rng, "RESUME")])
    places = set(range(3, len(rest) - 8)) - set(stream.inside_characters(rest))
    rest = rest[: trial.rng.choice(sorted(places))]
    chunks = [stream.wire(messages) + rest]
    stream.judge(trial, messages, chunks, torn="the last one incomplete", tail=rest[:40].decode(errors="ignore"))


@demux.step("long streams are sorted, however they are cut")
def _long(trial: Trial) -> None:
    for _ in range(5):
        keys = trial.rng.sample(range(1000), 20)
        messages = [stream.reply(trial.rng, k if k % 2 else f"cmd-{k}") for k in keys]
        messages += [stream.event(trial.rng) for _ in range(15)]
        trial.rng.shuffle(messages)
        messages.insert(0, stream.GREETING)
        data = stream.wire(messages)
        places = trial.rng.sample(range(1, len(data)), trial.rng.choice([3, 40, 400]))
        stream.judge(trial, messages, stream.cut(data, places), torn="cut at random")


# ─── has_command ─────────────────────────────────────────────────────────────


@has_command.step("names of events, types and differently written commands are not taken for commands")
def _namesakes(trial: Trial) -> None:
    shuffled = list(schemas.TINY)
    trial.rng.shuffle(shuffled)
    cases = {"Stop": False, "STOP": False, "str": False, "40": False, "screen": False, "format": False, "stop": True}
    for name, expected in cases.items():
        schemas.judge(trial, shuffled, name, "", expected)


@has_command.step("it judges a QEMU that it has never seen by its schema alone")
def _other(trial: Trial) -> None:
    number = str(trial.rng.randrange(100, 999))
    name = trial.rng.choice(["x-teleport", "guest-sing", "block-dream"])
    made: schemas.Schema = [
        {"name": name, "meta-type": "command", "arg-type": number, "ret-type": "17", "features": ["deprecated"]},
        {"name": number, "meta-type": "object", "members": [{"name": "speed", "type": "int", "default": None}]},
    ]
    schema = [*made, *schemas.TINY]
    trial.rng.shuffle(schema)
    cases = [("", True), ("speed", True), ("format", False), ("colour", False)]
    for argument, expected in cases:
        schemas.judge(trial, schema, name, argument, expected)
    schemas.judge(trial, schemas.TINY, name, "", expected=False)
