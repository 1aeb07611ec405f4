"""Hidden checks of lesson 6, *Hypervisors*."""

from __future__ import annotations

from course.check import Exercise, Trial
from course.check.hypervisors import guests, instructions, live, machines, pills, stacks, turns
from course.check.hypervisors.engines import here, in_turn, quick

classify = Exercise("classify", deadline_s=60.0, hidden=True)
violates_pg = Exercise("violates_pg", hidden=True)
vmm = Exercise("vmm", deadline_s=40.0, hidden=True)
schedule = Exercise("schedule", deadline_s=40.0, hidden=True)
red_pill = Exercise("red_pill", deadline_s=20.0, hidden=True)
place = Exercise("place", hidden=True)
identify = Exercise("identify", deadline_s=30.0, hidden=True)


# ── classify ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _judge(trial: Trial, pieces: list[instructions.Piece]) -> None:
    instructions.judge_pieces(trial, pieces, in_turn(trial.rng, len(pieces)))


@classify.step("instructions of ring 0 are found by running them, on every engine")
def _privileged(trial: Trial) -> None:
    pieces = trial.rng.sample(instructions.PRIVILEGED, 6)
    instructions.judge_pieces(trial, pieces, [*in_turn(trial.rng, 5), here()[-1]])


@classify.step("bytes that only look like instructions of ring 0 run through")
def _disguised(trial: Trial) -> None:
    _judge(trial, list(instructions.DISGUISED))


@classify.step("bytes that are no instruction, and faults that are not about privilege, are told apart")
def _odd(trial: Trial) -> None:
    _judge(trial, list(instructions.ODD))


@classify.step("instructions that end a run are not mistaken for your own landing, wherever they stand")
def _landings(trial: Trial) -> None:
    _judge(trial, list(instructions.LANDINGS[3:]))


@classify.step("every endless piece is left, on every engine")
def _loops(trial: Trial) -> None:
    _judge(trial, list(instructions.LOOPS[1:]))


@classify.step("what takes some hundred instructions is waited for")
def _slow(trial: Trial) -> None:
    _judge(trial, list(instructions.SLOW))


# ── violates_pg ───────────────────────────────────────────────────────────────────────────────────────────────────────


@violates_pg.step("instructions of processors that nobody has built are judged by the definition")
def _invented(trial: Trial) -> None:
    for n in range(6):
        instructions.judge_violations(trial, instructions.invented(trial), f"processor {n + 1} of six invented ones")


# ── vmm ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _each(trial: Trial, *chosen: machines.Guest) -> None:
    for guest, engine in zip(chosen, in_turn(trial.rng, len(chosen)), strict=True):
        machines.judge_guest(trial, guest, engine)


@vmm.step("only the console's port prints, and it prints all that is sent")
def _ports(trial: Trial) -> None:
    _each(trial, machines.PORTS, machines.SIZES)


@vmm.step("keys are read one by one; where nothing listens there are ones")
def _keys(trial: Trial) -> None:
    _each(trial, machines.TYPED, machines.OPEN_BUS, machines.IN_AX)


@vmm.step("control registers and MSRs are kept apart, whatever register stands beside them")
def _banks(trial: Trial) -> None:
    _each(trial, machines.BANK, machines.MSR, machines.NEW_MSR)


@vmm.step("what the machine does not have ends it, and keeps what was there before")
def _ends(trial: Trial) -> None:
    _each(trial, machines.DEBUG, *machines.CRASHES)


@vmm.step("a guest that never stops asking is stopped by the fuel")
def _fuel(trial: Trial) -> None:
    _each(trial, machines.ENDLESS)


@vmm.step("random guests come out the same on every engine, and as the processor's manual says")
def _random(trial: Trial) -> None:
    for engines in (here(), quick()):
        guest = guests.random_guest(trial.rng)
        for engine in engines:
            machines.judge_guest(trial, guest, engine)


# ── schedule ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@schedule.step("control registers and interrupt flags stay apart")
def _apart(trial: Trial) -> None:
    pages = trial.rng.sample(range(1, 200), 2)
    kept = [turns.keeper(page << 12, flag) for page, flag in zip(pages, trial.rng.sample([0, 1], 2), strict=True)]
    turns.judge_schedule(trial, trial.rng.choice(quick()), kept)


@schedule.step("guests that only compute get equal shares of the processor")
def _shares(trial: Trial) -> None:
    for engine in quick():
        turns.judge_share(trial, engine, 2)
    turns.judge_share(trial, here()[0], 3)


@schedule.step("every kind of crash is the crashing guest's own, wherever it stands")
def _crashes(trial: Trial) -> None:
    for crash in turns.CRASHES:
        machines_ = [turns.crashing(*crash), turns.printer("x", trial.rng.randrange(3, 9))]
        trial.rng.shuffle(machines_)
        turns.judge_schedule(trial, trial.rng.choice(quick()), machines_)


@schedule.step("who is done gives the others room, and nobody is forgotten")
def _uneven(trial: Trial) -> None:
    several = [turns.printer("a", 2), turns.spinner(), turns.printer("c", trial.rng.randrange(4, 9))]
    trial.rng.shuffle(several)
    turns.judge_schedule(trial, trial.rng.choice(quick()), several)
    for engine in here():
        turns.judge_schedule(trial, engine, [turns.printer("z", 5)])


# ── red_pill ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@red_pill.step("it works on every engine, and from whatever state the machine begins in")
def _everywhere(trial: Trial) -> None:
    junk = {name: trial.rng.getrandbits(64) for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8")}
    starts: tuple[dict[str, int], ...] = ({"rflags": 0x202}, {"rflags": 0x2, **junk}, {"rflags": 0xA97, **junk})
    pills.judge_pill(trial, here(), starts=starts)


# ── place ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@place.step("stacks of every kind are understood, whatever their parts are called")
def _anonymous(trial: Trial) -> None:
    for _ in range(2):
        for stack in stacks.stacks(trial.rng):
            stacks.judge_place(trial, stack)


# ── identify ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@identify.step("neither names nor wishes on a command line deceive you")
def _disguises(trial: Trial) -> None:
    kinds = (live.PLAIN, live.IMPOSTOR, live.RENAMED_USER, live.RENAMED, live.FELL_BACK, live.NARROW)
    live.judge_identities(trial, kinds)


@identify.step("a file's name is a name as well, and a container need not have a user namespace of its own")
def _borrowed(trial: Trial) -> None:
    live.judge_identities(trial, (live.NAMED_FILE, live.SHARED))
