"""Hidden checks of lesson 11, the Proxmox cluster: other numbers and nodes, and what happens when it goes wrong."""

from __future__ import annotations

from course.check import Exercise, Trial
from course.check.proxmox_cluster import creating, failing, finding, keeping, moving, saving, shielding

where = Exercise("where", deadline_s=20, hidden=True)
create = Exercise("create", deadline_s=60, hidden=True)
snapshot = Exercise("snapshot", deadline_s=60, hidden=True)
rollback = Exercise("rollback", deadline_s=60, hidden=True)
migrate = Exercise("migrate", deadline_s=90, hidden=True)
shield = Exercise("shield", deadline_s=60, hidden=True)
save_and_restore = Exercise("save_and_restore", deadline_s=90, hidden=True)
quorum = Exercise("quorum", hidden=True)
recover = Exercise("recover", deadline_s=120, hidden=True)


@where.step("it finds a guest whose number begins with another's, and one that has moved")
def _moved(trial: Trial) -> None:
    finding.judge_moved(trial)


@create.step("a machine that cannot start is an error")
def _cannot_start(trial: Trial) -> None:
    creating.judge_refusal(trial)


@snapshot.step("a name that is taken is an error, and its snapshot stays")
def _name_taken(trial: Trial) -> None:
    with keeping.subject(trial) as kept:
        name = f"s{trial.rng.randrange(10**6)}"
        kept.cluster.do("POST", f"{kept.path}/snapshot", snapname=name)
        keeping.judge_taken_name(trial, kept, name)


@rollback.step("a snapshot that is not there is an error, and the guest goes on")
def _name_unknown(trial: Trial) -> None:
    with keeping.subject(trial) as kept:
        keeping.judge_unknown_name(trial, kept, f"s{trial.rng.randrange(10**6)}")


@migrate.step("a guest that cannot leave is an error, and it goes on where it is")
def _cannot_leave(trial: Trial) -> None:
    moving.judge_refusal(trial)


@shield.step("pings arrive and port 22 is closed where all else is dropped by default")
def _dropping(trial: Trial) -> None:
    with shielding.street(trial, policy="DROP") as found:
        shielding.judge(trial, found)


@save_and_restore.step("the newest of several archives is restored")
def _newest(trial: Trial) -> None:
    saving.judge(trial, 1000 + trial.seed, older=True)


@quorum.step("clusters of any size have one ruler")
def _sizes(trial: Trial) -> None:
    for votes in [1, 2, 6, 7, *trial.rng.sample(range(8, 40), 4)]:
        failing.judge_quorum(trial, votes)


@recover.step("where no node has quorum it raises, in time")
def _no_quorum(trial: Trial) -> None:
    failing.judge_without_quorum(trial)
