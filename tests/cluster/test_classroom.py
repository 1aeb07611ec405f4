"""Which cluster a lesson speaks with: what the environment must say, and what stays unsaid."""

from __future__ import annotations

import pytest

from course.cluster.classroom import Access, Classroom, numbers, open_classroom
from course.error import UsageError
from tests.widgets.pve import standing

REAL = {
    "LAB_PVE_HOST": "pve.example.org",
    "LAB_PVE_USER": "student@pve",
    "LAB_PVE_TOKEN_NAME": "lesson",
    "LAB_PVE_TOKEN_VALUE": "0123-secret",
    "LAB_PVE_VMIDS": "5000-5009",
    "LAB_PVE_POOL": "students",
}


def test_the_secret_is_not_shown():
    """Neither by print nor as the value of a cell; ProxmoxAPI gets it all the same."""
    access = Access(host="127.0.0.1", token_name="lesson", token_value="0123-secret")
    assert "0123-secret" not in repr(access) + str(access) + f"{access}"
    assert "redacted" in repr(access)
    assert dict(**access)["token_value"] == "0123-secret"


@pytest.mark.parametrize("missing", [name for name in REAL if name != "LAB_PVE_HOST"])
def test_a_real_cluster_needs_everything(missing):
    """Without numbers and a pool of one's own nothing is touched; the message names what is missing, not the secret."""
    environ = {name: value for name, value in REAL.items() if name != missing}
    with pytest.raises(UsageError, match=missing) as caught:
        open_classroom(environ)
    assert "0123-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"), [("5000-5003", [5000, 5001, 5002, 5003]), ("170", [170]), ("200,205-206", [200, 205, 206])]
)
def test_numbers_are_ranges_and_lists(text, expected):
    """As an administrator writes them."""
    assert numbers(text) == expected


@pytest.mark.parametrize("text", ["", "all", "5-9", "99", "200-", "300-200"])
def test_numbers_that_cannot_be_meant_are_refused(text):
    """The message repeats them."""
    with pytest.raises(UsageError, match="LAB_PVE_VMIDS is "):
        numbers(text)


def room(api, vmids, monkeypatch, pool="students"):
    """Make a classroom of a connection that is there."""
    monkeypatch.setattr("proxmoxer.ProxmoxAPI", lambda **_: api)
    return Classroom({"host": "x"}, vmids, pool=pool, storage="shared", lab=None)


def test_numbers_that_are_taken_are_left_out(monkeypatch):
    """They belong to somebody, even within the student's range."""
    with standing() as (_, api):
        found = room(api, [168, 169, 170, 900, 901], monkeypatch)
        assert found.vmids == [168, 170, 901]
        with pytest.raises(UsageError, match="the lesson needs 3"):
            room(api, [169, 170, 171], monkeypatch)


def test_only_guests_of_the_lesson_s_own_are_removed(monkeypatch):
    """A guest with one of its numbers in another pool stays; so does one of the pool with another number."""
    with standing() as (stand, api):
        stand.running = False
        found = room(api, [300, 301, 302], monkeypatch)
        stand.guests[300] = {"node": "trevor", "status": "stopped", "pool": "students"}
        stand.guests[301] = {"node": "trevor", "status": "stopped", "pool": "teachers"}
        found.clear()
        assert [(method, path) for method, path, _ in stand.asked] == [("DELETE", "nodes/trevor/qemu/300")]
