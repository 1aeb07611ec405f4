"""Answers to `lifecycle`."""

from __future__ import annotations

import asyncio

from qemu.qmp import EventListener, QMPClient, Runstate

from .. import alternative, mutant
from .session import Raw, session

STEPS = [
    ("cont", "RESUME", "running"),
    ("stop", "STOP", "paused"),
    ("cont", "RESUME", "running"),
    ("quit", "SHUTDOWN", "shutdown"),
]
NAMES = ("RESUME", "STOP", "SHUTDOWN")
LIFE = ["prelaunch", "running", "paused", "running", "shutdown"]


@mutant("lifecycle", "claimed")
async def only_the_list(qmp_path):
    return LIFE


@mutant("lifecycle", "slept")
async def sleeps_half_a_second(qmp_path):
    states = ["prelaunch"]
    async with session(qmp_path) as qmp:
        for command, _, state in STEPS:
            await qmp.execute(command)
            await asyncio.sleep(0.4)
            states.append(state)
    return states


@mutant("lifecycle", "polled")
async def polls_the_state(qmp_path):
    async with session(qmp_path) as qmp:
        states = [(await qmp.execute("query-status"))["status"]]
        for command, _, state in STEPS[:-1]:
            await qmp.execute(command)
            while (await qmp.execute("query-status"))["status"] != state:
                await asyncio.sleep(0.05)
            states.append(state)
        await qmp.execute("quit")
    return [*states, "shutdown"]


@mutant("lifecycle", "did-not-wait")
async def believes_the_reply(qmp_path):
    async with session(qmp_path) as qmp:
        for command, _, _ in STEPS:
            await qmp.execute(command)
    return LIFE


@mutant("lifecycle", "did-not-wait")
async def does_not_wait_for_the_end(qmp_path):
    states = ["prelaunch"]
    async with session(qmp_path) as qmp:
        with qmp.listener(NAMES) as events:
            for command, expected, state in STEPS:
                await qmp.execute(command)
                if command != "quit":
                    assert (await events.get())["event"] == expected
                states.append(state)
    return states


@mutant("lifecycle", "any-event")
async def takes_the_next_event(qmp_path):
    states = ["prelaunch"]
    async with session(qmp_path) as qmp:
        with qmp.listener() as events:
            for command, _, state in STEPS:
                await qmp.execute(command)
                await events.get()
                states.append(state)
    return states


@mutant("lifecycle", "late-listener")
async def listens_after_the_command(qmp_path):
    states = ["prelaunch"]
    async with session(qmp_path) as qmp:
        for command, expected, state in STEPS:
            await qmp.execute(command)
            with qmp.listener(expected) as events:
                await events.get()
            states.append(state)
    return states


@mutant("lifecycle", "no-capabilities")
def raw_without_capabilities(qmp_path):
    qmp = Raw(qmp_path, negotiate=False)
    states = [qmp("query-status")["status"]]
    for command, event, state in STEPS:
        qmp(command)
        qmp.wait(event)
        states.append(state)
    return states


@mutant("lifecycle", "eof-after-quit")
async def disconnects_from_the_dead(qmp_path):
    qmp = QMPClient("answer")
    await qmp.connect(qmp_path)
    states = ["prelaunch"]
    with qmp.listener(NAMES) as events:
        for command, _, state in STEPS:
            await qmp.execute(command)
            await events.get()
            states.append(state)
    while qmp.runstate == Runstate.RUNNING:  # QEMU takes a moment to end
        await asyncio.sleep(0.01)
    await qmp.disconnect()
    return states


@mutant("lifecycle", "other-route")
async def never_resumes(qmp_path):
    async with session(qmp_path) as qmp:
        with qmp.listener(NAMES) as events:
            for command in ("cont", "stop", "quit"):
                await qmp.execute(command)
                await events.get()
    return LIFE


@mutant("lifecycle", "other-route")
async def leaves_it_running(qmp_path):
    async with session(qmp_path) as qmp:
        with qmp.listener(NAMES) as events:
            for command in ("cont", "stop", "cont"):
                await qmp.execute(command)
                await events.get()
    return LIFE


@mutant("lifecycle", "power-button")
async def presses_the_power_button(qmp_path):
    async with session(qmp_path) as qmp:
        with qmp.listener(NAMES) as events:
            for command in ("cont", "stop", "cont", "system_powerdown"):
                await qmp.execute(command)
                await events.get()
    return LIFE


@mutant("lifecycle", "other-states")
async def returns_event_names(qmp_path):
    states = []
    async with session(qmp_path) as qmp:
        with qmp.listener(NAMES) as events:
            for command, _, _ in STEPS:
                await qmp.execute(command)
                states.append((await events.get())["event"])
    return states


@mutant("lifecycle", "other-states")
async def forgets_the_beginning(qmp_path):
    states = []
    async with session(qmp_path) as qmp:
        with qmp.listener(NAMES) as events:
            for command, _, state in STEPS:
                await qmp.execute(command)
                await events.get()
                states.append(state)
    return states


@mutant("lifecycle", "forgot-return")
async def returns_nothing(qmp_path):
    async with session(qmp_path) as qmp:
        with qmp.listener(NAMES) as events:
            for command, _, _ in STEPS:
                await qmp.execute(command)
                await events.get()


@alternative("lifecycle")
async def with_one_listener(qmp_path):
    async with session(qmp_path) as qmp:
        states = [(await qmp.execute("query-status"))["status"]]
        with qmp.listener(NAMES) as events:
            for command, expected, state in STEPS:
                await qmp.execute(command)
                event = await events.get()
                assert event["event"] == expected
                states.append(state)
    return states


@alternative("lifecycle")
async def with_the_stream_of_all_events(qmp_path):
    async with session(qmp_path) as qmp:
        states = [(await qmp.execute("query-status"))["status"]]
        for command, expected, state in STEPS:
            await qmp.execute(command)
            async for event in qmp.events:
                if event["event"] == expected:
                    break
            states.append(state)
    return states


@alternative("lifecycle")
async def a_listener_for_each_step(qmp_path):
    states = ["prelaunch"]
    async with session(qmp_path) as qmp:
        for command, expected, state in STEPS:
            with qmp.listener(expected) as events:
                waiting = asyncio.create_task(events.get())
                await qmp.execute(command)
                await waiting
            states.append(state)
    return states


@alternative("lifecycle")
async def waits_and_asks_again(qmp_path):
    async with session(qmp_path) as qmp:
        listener = EventListener(NAMES)
        qmp.register_listener(listener)
        states = [(await qmp.execute("query-status"))["status"]]
        for command, _, _ in STEPS[:-1]:
            await qmp.execute(command)
            await listener.get()
            states.append((await qmp.execute("query-status"))["status"])
        await qmp.execute("quit")
        await listener.get()
    return [*states, "shutdown"]


@alternative("lifecycle")
def by_hand(qmp_path):
    qmp = Raw(qmp_path)
    states = [qmp("query-status")["status"]]
    for command, event, state in STEPS:
        qmp(command)
        qmp.wait(event)
        states.append(state)
    qmp.close()
    return states
