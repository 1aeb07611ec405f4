"""Hidden checks of lesson 09, QEMU through QMP."""

from __future__ import annotations

from course.check import Exercise, Trial
from course.check.qemu_qmp import backups, memory, migration, snapshots, states, stream
from course.check.qemu_qmp import schema as schemas

demux = Exercise("demux", hidden=True, varies=True, seed=901)
has_command = Exercise("has_command", hidden=True, varies=True, seed=907)
grow = Exercise("grow", hidden=True, seed=904)
checkpoint = Exercise("checkpoint", hidden=True, seed=905, deadline_s=15)
rollback = Exercise("rollback", hidden=True, seed=905, deadline_s=15)
migrate = Exercise("migrate", hidden=True, seed=906, deadline_s=12)
backup = Exercise("backup", hidden=True, seed=908, deadline_s=20)
lifecycle = Exercise("lifecycle", hidden=True, seed=903, deadline_s=8)


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


# ─── lifecycle ───────────────────────────────────────────────────────────────


@lifecycle.step("it waits for its own events, however late they come and whoever else's come first")
def _late(trial: Trial) -> None:
    names = trial.rng.sample(["RTC_CHANGE", "NIC_RX_FILTER_CHANGED", "BALLOON_CHANGE", "SPICE_CONNECTED"], 3)
    delays = {"STOP": 0.1, "RESUME": 0.1, "SHUTDOWN": 0.1, trial.rng.choice(["STOP", "SHUTDOWN"]): 1.2}
    states.judge(trial, delays, [stream.event(trial.rng, name) for name in names])


# ─── grow ────────────────────────────────────────────────────────────────────


@grow.step("it finds ids of its own where somebody else has used the names that it likes")
def _taken(trial: Trial) -> None:
    with memory.machine() as vm:
        for wanted_mib in (96, 128):
            memory.judge(trial, vm, wanted_mib)
        second = max(memory.dimms(vm), key=lambda dimm: int(dimm["slot"]))
    with memory.machine() as vm:
        memory.plug(vm, second.get("id", "other"), 64, second["memdev"].rpartition("/")[2])
        memory.judge(trial, vm, 192, same_id="id-taken")


@grow.step("it grows by any amount, and counts what others have plugged")
def _amounts(trial: Trial) -> None:
    with memory.machine() as vm:
        memory.plug(vm, "other", 32 * trial.rng.randrange(1, 4))
        memory.judge(trial, vm, 256)
        memory.judge(trial, vm, 256)
        memory.judge_refusal(trial, vm, 288)


# ─── checkpoint and rollback ─────────────────────────────────────────────────


@checkpoint.step("it keeps a machine whose disk has another name, also after a failure")
def _other_node(trial: Trial) -> None:
    node = f"disk{trial.rng.randrange(100, 999)}"
    with snapshots.machine(node, dirty_mib=snapshots.SLOW_MIB) as vm:
        snapshots.judge_checkpoint(trial, vm, "taken", node=node)
        snapshots.judge_taken_tag(trial, vm, "taken")
        snapshots.judge_checkpoint(trial, vm, f"t{trial.rng.randrange(10**6)}", node=node)


@rollback.step("it returns to each of several moments of a machine whose disk has another name, also after a failure")
def _several(trial: Trial) -> None:
    node = f"disk{trial.rng.randrange(100, 999)}"
    with snapshots.machine(node) as vm:
        snapshots.judge_rollback(trial, vm, "one", paused=trial.rng.random() < 0.5, node=node)
        snapshots.judge_unknown_tag(trial, vm, f"t{trial.rng.randrange(10**6)}")
        snapshots.judge_rollback(trial, vm, "two", paused=trial.rng.random() < 0.5, node=node)


# ─── migrate ─────────────────────────────────────────────────────────────────


@migrate.step("guests that dirty less or more than the wire carries arrive")
def _any_rate(trial: Trial) -> None:
    migration.judge(trial, dirty_mib=trial.rng.choice([1, 4, 28, 36]))


@migrate.step("a destination that cannot take the guest is an error, and the guest stays where it was")
def _refused(trial: Trial) -> None:
    migration.judge_failure(trial)


# ─── backup ──────────────────────────────────────────────────────────────────


@backup.step("a disk that stands on a backing file is copied whole, under whatever name its node has")
def _backed(trial: Trial) -> None:
    backups.judge(trial, node=f"disk{trial.rng.randrange(100, 999)}", backed=True)
