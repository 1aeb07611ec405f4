"""Tickets: who they are for, how long, and that nobody else makes them."""

from __future__ import annotations

import pytest

from course.cluster.state import State
from course.cluster.tickets import KEY, Tickets, hashed, matches, new_key
from course.error import ClusterError

NOW = 1_700_000_000.0


@pytest.fixture
def tickets(tmp_path):
    """Tickets of a cluster that does not run."""
    state = State(tmp_path)
    state.write(KEY, new_key())
    return Tickets(state, life_s=7200)


def refused(check, *arguments, **options):
    """Return the words with which something is refused."""
    with pytest.raises(ClusterError) as error:
        check(*arguments, **options)
    assert error.value.status == 401
    return error.value.message


def test_a_ticket_is_good_for_two_hours(tickets):
    """It says who and when; afterwards, or from the future, it is none."""
    ticket = tickets.give("alice@pve", now=NOW)
    assert ticket.startswith("PVE:alice@pve:6553F100::")
    assert tickets.verify(ticket, now=NOW + 7199) == "alice@pve"
    assert refused(tickets.verify, ticket, now=NOW + 7201) == "Authentication failed!"
    assert refused(tickets.verify, ticket, now=NOW - 3600) == "Authentication failed!"


@pytest.mark.parametrize(
    ("what", "by"), [("alice", "root"), ("6553F100", "6553F101"), ("::", ":::"), ("PVE:", "PVEVNC:")]
)
def test_a_ticket_that_was_changed_is_none(tickets, what, by):
    """Neither for another user nor for another time nor for another purpose."""
    ticket = tickets.give("alice@pve", now=NOW)
    assert refused(tickets.verify, ticket.replace(what, by, 1), now=NOW) == "Authentication failed!"


def test_a_ticket_of_another_cluster_is_none(tickets, tmp_path):
    """Each cluster has a key of its own."""
    other = State(tmp_path / "other")
    other.write(KEY, new_key())
    ticket = Tickets(other).give("alice@pve", now=NOW)
    assert refused(tickets.verify, ticket, now=NOW) == "Authentication failed!"


def test_the_token_against_forgery_belongs_to_the_user(tickets):
    """Another's, an old one, or none: refused."""
    token = tickets.csrf("alice@pve", now=NOW)
    tickets.verify_csrf("alice@pve", token, now=NOW + 100)
    for user, given, now in (("bob@pve", token, NOW), ("alice@pve", None, NOW), ("alice@pve", token, NOW + 9999)):
        assert refused(tickets.verify_csrf, user, given, now=now) == "Permission denied - invalid csrf token"


def test_a_consoles_ticket_is_short_lived_and_for_one_guest(tickets):
    """It opens no other console, and no API."""
    ticket = tickets.console("alice@pve", "/vms/169", now=NOW)
    assert tickets.verify_console(ticket, "/vms/169", user="alice@pve", now=NOW + 10) == "alice@pve"
    for path, user, now in (("/vms/170", None, NOW), ("/vms/169", "bob@pve", NOW), ("/vms/169", None, NOW + 60)):
        assert "invalid PVEVNC ticket" in refused(tickets.verify_console, ticket, path, user=user, now=now)
    assert refused(tickets.verify, ticket, now=NOW) == "Authentication failed!"


def test_a_password_is_kept_so_that_nobody_reads_it():
    """The same password looks different each time."""
    first, second = hashed("proxmox-lab"), hashed("proxmox-lab")
    assert first != second
    assert "proxmox" not in first
    assert matches("proxmox-lab", first)
    assert not matches("proxmox-lob", first)
    assert not matches("proxmox-lab", "nonsense")
