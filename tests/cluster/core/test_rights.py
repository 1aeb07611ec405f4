"""Users, tokens, groups, roles, rights and pools, through an unmodified proxmoxer."""

from __future__ import annotations

import contextlib

import pytest
from proxmoxer import AuthenticationError, ResourceException

PASSWORD = "a-lesson-in-rights"


def refusal(action, *arguments, **values):
    """Return the status and the words with which something is refused."""
    with pytest.raises(ResourceException) as refused:
        action(*arguments, **values)
    return refused.value.status_code, refused.value.content


@pytest.fixture
def alice(lab, api):
    """A user without any right, and a connection of hers."""
    api.access.users.post(userid="alice@pve", password=PASSWORD, comment="a:b\nc", firstname="Alice")
    yield lab.api("alice@pve", PASSWORD)
    with contextlib.suppress(ResourceException):
        api.access.users("alice@pve").delete()


@pytest.fixture
def pool(api):
    """A pool without members."""
    api.pools.post(poolid="students", comment="of the course")
    yield "students"
    members = api.pools("students").get()["members"]
    if members:
        storages = ",".join(entry["storage"] for entry in members if entry["type"] == "storage")
        api.pools("students").put(delete=1, storage=storages)
    api.pools("students").delete()


def test_a_user_is_made_changed_and_removed(api, alice):
    """What was given is answered; a second of the same name is refused in PVE's words."""
    found = api.access.users("alice@pve").get()
    assert (found["comment"], found["firstname"], found["enable"], found["groups"]) == ("a:b\nc", "Alice", 1, [])
    api.access.users("alice@pve").put(comment="changed", email="alice@example.org")
    assert api.access.users("alice@pve").get()["comment"] == "changed"
    assert refusal(api.access.users.post, userid="alice@pve") == (
        500,
        "create user failed: error during cfs-locked 'file-user_cfg' operation: user 'alice@pve' already exists",
    )
    api.access.users("alice@pve").delete()
    assert refusal(api.access.users("alice@pve").get) == (500, "no such user ('alice@pve')")
    assert refusal(api.access.users("alice@pve").delete)[1].endswith("no such user ('alice@pve')")


def test_what_somebody_without_rights_sees(api, alice):
    """Lists are empty or hold oneself; the rest is refused with path and privilege."""
    assert [entry["userid"] for entry in alice.access.users.get()] == ["alice@pve"]
    assert [entry["type"] for entry in alice.cluster.resources.get() if entry["type"] != "node"] == []
    assert refusal(alice.nodes("franklin").status.get) == (403, "Permission check failed (/nodes/franklin, Sys.Audit)")
    assert refusal(alice.cluster.status.get) == (403, "Permission check failed (/, Sys.Audit)")
    assert refusal(alice.access.roles.post, roleid="x") == (403, "Permission check failed (/access, Sys.Modify)")
    assert refusal(alice.pools.post, poolid="x") == (403, "Permission check failed (/pool/x, Pool.Allocate)")
    assert refusal(alice.access.users.post, userid="bob@pve")[0] == 403
    assert refusal(alice.access.permissions.get, userid="root@pam") == (
        403,
        "Permission check failed (/access, Sys.Audit)",
    )
    assert set(alice.cluster.options.get()) <= {"console", "tag-style", "description", "allowed-tags"}


def test_a_right_given_at_a_path_counts_below_it(api, alice):
    """A role at /nodes opens the nodes; taking it away closes them."""
    api.access.acl.put(path="/nodes", users="alice@pve", roles="PVEAuditor")
    assert alice.nodes("franklin").status.get()["uptime"] >= 0
    assert {"path": "/nodes", "type": "user", "ugid": "alice@pve", "roleid": "PVEAuditor", "propagate": 1} in [
        dict(entry) for entry in api.access.acl.get()
    ]
    assert alice.access.permissions.get(path="/nodes/franklin")["/nodes/franklin"]["Sys.Audit"] == 1
    api.access.acl.put(path="/nodes", users="alice@pve", roles="PVEAuditor", delete=1)
    assert refusal(alice.nodes("franklin").status.get)[0] == 403
    api.access.acl.put(path="/nodes", users="alice@pve", roles="PVEAuditor", propagate=0)
    assert refusal(alice.nodes("franklin").status.get)[0] == 403


def test_a_group_shares_its_rights(api, alice):
    """Members have what the group has, until they leave."""
    api.access.groups.post(groupid="readers", comment="who read")
    try:
        api.access.acl.put(path="/", groups="readers", roles="PVEAuditor")
        assert refusal(alice.cluster.status.get)[0] == 403
        api.access.users("alice@pve").put(groups="readers")
        assert alice.cluster.status.get()
        assert api.access.groups("readers").get() == {"members": ["alice@pve"], "comment": "who read"}
        api.access.users("alice@pve").put(groups="")
        assert refusal(alice.cluster.status.get)[0] == 403
    finally:
        api.access.groups("readers").delete()
    assert [entry for entry in api.access.acl.get() if entry["ugid"] == "readers"] == []
    assert refusal(api.access.groups("readers").get) == (500, "group 'readers' does not exist")


def test_a_token_with_privilege_separation_begins_with_nothing(lab, api, alice):
    """Its secret is shown once; its rights are its own, never more than its user's."""
    api.access.acl.put(path="/", users="alice@pve", roles="PVEAuditor")
    made = alice.access.users("alice@pve").token("ci").post(comment="builds")
    assert made["full-tokenid"] == "alice@pve!ci"
    token = lab.api("alice@pve", token_name="ci", token_value=made["value"])
    assert refusal(token.cluster.status.get)[0] == 403
    api.access.acl.put(path="/", tokens="alice@pve!ci", roles="Administrator")
    assert token.cluster.status.get()
    assert refusal(token.pools.post, poolid="x")[0] == 403
    assert "value" not in alice.access.users("alice@pve").token("ci").get()
    assert refusal(alice.access.users("alice@pve").token("ci").post)[0] == 400
    alice.access.users("alice@pve").token("ci").put(privsep=0)
    assert alice.access.users("alice@pve").token.get()[0]["privsep"] == 0
    assert token.cluster.status.get()
    alice.access.users("alice@pve").token("ci").delete()
    assert refusal(token.cluster.status.get) == (401, "Authentication failed!")


def test_a_token_cannot_make_itself_a_stronger_one(lab, alice):
    """What a person may do to the own account, a deputy may not."""
    made = alice.access.users("alice@pve").token("weak").post()
    weak = lab.api("alice@pve", token_name="weak", token_value=made["value"])
    assert refusal(weak.access.users("alice@pve").token("strong").post, privsep=0)[0] == 403
    assert refusal(weak.access.password.put, userid="alice@pve", password="another-one") == (
        403,
        "Permission check failed (URI '/access/password' not available with API token, need proper ticket.)",
    )


def test_passwords_are_changed_by_oneself_or_root(lab, api, alice):
    """The old one is refused afterwards; nobody changes root's but root."""
    alice.access.password.put(userid="alice@pve", password="another-one")
    with pytest.raises(AuthenticationError):
        lab.api("alice@pve", PASSWORD)
    assert lab.api("alice@pve", "another-one").version.get()
    assert refusal(alice.access.password.put, userid="root@pam", password="mine-now")[0] == 403
    api.access.users("alice@pve").put(enable=0)
    assert refusal(alice.version.get) == (401, "Authentication failed!")
    with pytest.raises(AuthenticationError):
        lab.api("alice@pve", "another-one")


def test_roles_of_ones_own(api):
    """Built-in ones stay; one's own grow and go."""
    api.access.roles.post(roleid="Starter", privs="VM.PowerMgmt")
    try:
        api.access.roles("Starter").put(privs="VM.Audit", append=1)
        assert api.access.roles("Starter").get() == {"VM.Audit": 1, "VM.PowerMgmt": 1}
        assert refusal(api.access.roles.post, roleid="Starter")[1].endswith("role 'Starter' already exists")
        assert refusal(api.access.roles("Starter").put, privs="VM.Fly")[0] == 400
    finally:
        api.access.roles("Starter").delete()
    assert (
        refusal(api.access.roles("Administrator").delete)[1] == "auto-generated role 'Administrator' cannot be deleted"
    )
    assert len(api.access.roles("Administrator").get()) == 41


def test_a_pool_and_its_members(api, alice, pool):
    """A storage joins; who has rights at the pool has them at the storage."""
    assert refusal(alice.pools(pool).get) == (403, "Permission check failed (/pool/students, Pool.Audit)")
    api.pools(pool).put(storage="local")
    api.access.acl.put(path="/pool/students", users="alice@pve", roles="PVEAdmin")
    assert [entry["storage"] for entry in alice.pools(pool).get()["members"]] == ["local"]
    assert {entry["storage"] for entry in alice.cluster.resources.get(type="storage")} == {"local"}
    assert refusal(api.pools(pool).put, storage="local")[1].endswith("Storage 'local' is already a pool member")
    assert refusal(api.pools(pool).delete)[1].endswith("pool 'students' is not empty")
    assert refusal(api.pools("none").get) == (500, "pool 'none' does not exist")


def test_who_may_give_rights_gives_no_more_than_they_have(api, alice):
    """A pool's administrator cannot make anybody an administrator."""
    api.access.roles.post(roleid="Giver", privs="Pool.Allocate,Pool.Audit")
    try:
        api.access.acl.put(path="/pool/students", users="alice@pve", roles="Giver")
        status, _ = refusal(alice.access.acl.put, path="/pool/students", users="alice@pve", roles="PVEAdmin")
        assert status == 400
        alice.access.acl.put(path="/pool/students", users="alice@pve", roles="PVEPoolUser")
        assert refusal(alice.access.acl.put, path="/", users="alice@pve", roles="Giver")[0] == 403
        assert refusal(api.access.acl.put, path="/pool/students", roles="Giver")[0] == 400
        assert refusal(api.access.acl.put, path="/nothing/here", users="alice@pve", roles="Giver") == (
            400,
            "Parameter verification failed.",
        )
    finally:
        api.access.acl.put(path="/pool/students", users="alice@pve", roles="Giver,PVEPoolUser", delete=1)
        api.access.roles("Giver").delete()
