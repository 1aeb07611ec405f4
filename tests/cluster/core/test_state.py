"""The cluster's files: read quickly, written safely, locked."""

from __future__ import annotations

import contextlib
import threading

import pytest

from course.cluster.config.guest import GuestConfig
from course.cluster.state import State
from course.error import ClusterError, ParameterError


@pytest.fixture
def state(tmp_path):
    """Files of a cluster that does not run."""
    found = State(tmp_path / "state", tmp_path / "run", node="michael")
    for node in found.nodes:
        (found.pve / "nodes" / node / "qemu-server").mkdir(parents=True)
    return found


def test_a_change_is_seen_at_once(state):
    """However quickly one change follows another, the last counts."""
    for number in range(200):
        state.write("datacenter.cfg", f"max_workers: {number}\n")
        assert state.datacenter() == {"max_workers": str(number)}


def test_guests_are_found_by_their_files(state):
    """A guest belongs to the node in whose folder its file is, and moves with it."""
    config = GuestConfig.parse("name: web\n")
    state.create_guest("michael", "qemu", 169, config)
    assert state.guests()[169].node == "michael"
    assert config.digest == state.load_guest(169).digest
    with pytest.raises(ClusterError, match=r"^unable to create VM 169 - VM 169 already exists on node 'michael'$"):
        state.create_guest("trevor", "qemu", 169, config)
    state.move_guest(169, "trevor")
    assert state.guests()[169].node == "trevor"
    with pytest.raises(ClusterError, match=r"^Configuration file 'nodes/michael/qemu-server/169.conf' does not exist$"):
        state.load_guest(169, node="michael")
    state.delete_guest(169)
    assert state.guests() == {}


def test_a_locked_guest_is_changed_by_one_at_a_time(state):
    """Many threads that each add one lose nothing."""
    state.create_guest("michael", "qemu", 169, GuestConfig.parse("cores: 0\n"))

    def add():
        for _ in range(10):
            with state.guest_lock(169) as config:
                config.current.values["cores"] = str(int(config.current.values["cores"]) + 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.load_guest(169).current.values["cores"] == "40"


def test_a_failure_under_the_lock_writes_nothing(state):
    """The file keeps what it had."""
    state.create_guest("michael", "qemu", 169, GuestConfig.parse("cores: 1\n"))
    with contextlib.suppress(ClusterError), state.guest_lock(169) as config:
        config.current.values["cores"] = "2"
        raise ClusterError("no")
    assert state.load_guest(169).current.values["cores"] == "1"


def test_a_lock_that_is_taken_is_waited_for_and_then_given_up(state, tmp_path):
    """The words are PVE's; nodes do not stand in each other's way over a guest's lock."""
    other = State(state.root, tmp_path / "run", node="trevor")
    held, done = threading.Event(), threading.Event()

    def hold():
        with state.lock("lock-169.conf"), state.lock("file-user_cfg"):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        with pytest.raises(ClusterError) as refused, state.lock("lock-169.conf", timeout_s=0.05):
            pass
        assert refused.value.message == "can't lock file '/var/lock/qemu-server/lock-169.conf' - got timeout"
        with pytest.raises(ClusterError) as refused, other.lock("file-user_cfg", timeout_s=0.05):
            pass
        assert refused.value.message == "error during cfs-locked 'file-user_cfg' operation: got lock request timeout"
        with other.lock("lock-169.conf", timeout_s=0.05):
            pass
    finally:
        done.set()
        thread.join()


def test_errors_under_a_lock_of_the_cluster_name_it(state):
    """Words are put before an error's own, but not before a parameter's; who holds a lock may take it again."""
    with (
        pytest.raises(ClusterError, match=r"^error during cfs-locked 'file-user_cfg' operation: no$"),
        state.lock("file-user_cfg"),
        state.lock("file-user_cfg"),
    ):
        raise ClusterError("no")
    with pytest.raises(ParameterError, match=r"^Parameter verification failed"), state.lock("file-user_cfg"):
        raise ParameterError({"x": "wrong"})


def test_without_quorum_nothing_is_written(state):
    """Reading goes on."""
    state.write("datacenter.cfg", "keyboard: fr\n")
    state.quorate = lambda: False
    for change in (
        lambda: state.write("datacenter.cfg", ""),
        lambda: state.delete("datacenter.cfg"),
        lambda: state.move("datacenter.cfg", "x.cfg"),
    ):
        with pytest.raises(ClusterError, match=r"^cluster not ready - no quorum\?$"):
            change()
    assert state.datacenter() == {"keyboard": "fr"}


@pytest.mark.parametrize("path", ["../user.cfg", "/etc/passwd", "nodes/../../x"])
def test_no_path_leads_out(state, path):
    """Names from outside cannot leave the directory."""
    with pytest.raises(ClusterError):
        state.read(path)


def test_secrets_are_their_owners_alone(state):
    """What is in priv/ nobody else reads."""
    state.write("priv/token.cfg", "x")
    assert state.path("priv/token.cfg").stat().st_mode & 0o777 == 0o600
