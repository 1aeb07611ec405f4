"""`where(access, vmid) -> str | None`: on which node a guest is.

Guests stand on all three nodes, in an order of the trial's own; some run, some do not; the number of one is the
beginning of another's.
"""

from __future__ import annotations

import dataclasses

from ..answer import Outcome
from ..exercise import Exercise, Trial
from .lab import Lab, asked, lab, shuffled_nodes

where = Exercise("where", deadline_s=20)


@dataclasses.dataclass(frozen=True)
class Population:
    """Guests for one seed: VMID to node.

    Attributes:
        places: the guests' nodes.
        running: the one that runs.
        longer: one whose number begins with another's.
        absent: a number that no guest has.
    """

    places: dict[int, str]
    running: int
    longer: int
    absent: int


_known: dict[tuple[str, int], Population] = {}


def population(trial: Trial) -> Population:
    """The guests of this trial's seed: made once, and left where they are."""
    cluster = lab()
    key = (repr(cluster.outside), trial.seed)
    if key not in _known:
        _known[key] = _populate(trial, cluster)
    return _known[key]


def _populate(trial: Trial, cluster: Lab) -> Population:
    nodes = shuffled_nodes(trial)
    first = 200 + 40 * (trial.seed % 20)
    places = dict(zip(range(first, first + 3), nodes, strict=True))
    longer = first * 10 + 3
    places[longer] = nodes[1]
    for vmid, node in places.items():
        cluster.create(node, vmid, counting=False)
    cluster.start(nodes[2], first + 2, counting=False)
    return Population(places, first + 2, longer, first + 7)


def judge(trial: Trial, vmid: int, population: Population) -> None:
    """Ask for one guest."""
    cluster = lab()
    expected = cluster.place(vmid)
    done, _ = cluster.ask(trial, vmid)
    call = asked("where", vmid)
    got = trial.value_of(done, call, none_is_an_answer=True)
    if got == expected:
        return
    told = f"{call} returned {got!r}; guest {vmid} is on {expected!r}"
    guests = ", ".join(f"{number} on {node}" for number, node in sorted(population.places.items()))
    if got is None and vmid != population.running:
        trial.wrong(
            "not-found",
            f"{told}, {'where it is stopped' if vmid != population.running else 'running'}. There are: {guests}.",
            "Does your search look at every node, and at guests that do not run?",
        )
    other = next((number for number in population.places if number != vmid and str(number).startswith(str(vmid))), 0)
    if other and got == population.places[other]:
        trial.wrong(
            "number-as-text",
            f"{told}; {got!r} has guest {other}, whose number begins in the same way.",
            "A VMID is a number. How do you compare?",
        )
    if isinstance(got, str) and got in population.places.values():
        trial.wrong(
            "hard-coded",
            f"{told}. There are: {guests}.",
            "Guests move. Who knows where this one is now?",
        )
    trial.wrong("other-answer", f"{told}. There are: {guests}.", "Return the node's name, as the cluster calls it.")


@where.step("it finds each of three guests on three nodes, running or not")
def _each(trial: Trial) -> None:
    people = population(trial)
    first, second, third, _ = people.places
    for vmid in (second, third, first):
        judge(trial, vmid, people)


@where.step("for a number that no guest has, it returns None")
def _absent(trial: Trial) -> None:
    people = population(trial)
    done, _ = lab().ask(trial, people.absent)
    call = asked("where", people.absent)
    if done.outcome is Outcome.RAISED:
        trial.wrong(
            "absent-raises",
            f"{call} raised {done.error}: {done.detail}; there is no guest {people.absent}.",
            "Whoever asks where a guest is may not know whether it exists. What shall the caller get then?",
        )
    got = trial.value_of(done, call, none_is_an_answer=True)
    trial.expect(got is None, "absent-found", f"{call} returned {got!r}; there is no guest {people.absent}.")


def judge_moved(trial: Trial) -> None:
    """A guest with a long number, moved since it was last asked for."""
    people, cluster = population(trial), lab()
    judge(trial, people.longer, people)
    here = people.places[people.longer]
    there = next(node for node in people.places.values() if node != here)
    cluster.do("POST", f"nodes/{here}/qemu/{people.longer}/migrate", target=there)
    people.places[people.longer] = there
    judge(trial, people.longer, people)
