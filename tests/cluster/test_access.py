"""Rights: upstream's vectors, built-in roles, the rules of each call, the file."""

from __future__ import annotations

import json

import pytest

from course.cluster.access import Access
from course.cluster.config.users import UserConfig
from course.cluster.roles import PRIVILEGES, PRIVILEGES_8_4, builtin_roles
from course.error import ClusterError, PermissionRefused


def test_upstream_rights(pve, compare):
    """Roles and privileges of each user at each path are those of upstream's own tests, also after a rewrite."""
    folder = pve / "vectors/access"
    cases, rewritten = [], []
    for name, test in json.loads((folder / "perm-tests.json").read_text()).items():
        text = (folder / test["cfg"]).read_text()
        config = UserConfig.parse(text)
        for into, one in ((cases, config), (rewritten, UserConfig.parse(config.text()))):
            access = Access(one, privileges=PRIVILEGES_8_4)
            for what, who, path, expected in test["checks"]:
                if what == "roles":
                    got = access.roles(who, path)
                else:
                    got = access.privileges(who, path, pools=what == "permissions")
                into.append((f"{name} {what} {who} {path}", expected, ",".join(sorted(got))))
    compare("rights", cases)
    assert rewritten == cases


@pytest.mark.parametrize(("release", "privileges"), [("8.1", PRIVILEGES), ("8.4", PRIVILEGES_8_4)])
def test_builtin_roles(pve, compare, release, privileges):
    """Each built-in role has the privileges that it has in that release."""
    expected = json.loads((pve / "roles.json").read_text())[release]
    ours = builtin_roles(privileges)
    assert set(expected) == set(ours)
    compare(f"built-in roles of {release}", [(name, sorted(expected[name]), sorted(ours[name])) for name in expected])


RULES = """user:alice@pve:1:0::::::
token:alice@pve!own:0:0::
token:alice@pve!apart:0:1::
user:bob@pve:1:100::::::
user:carol@pve:0:0::::::
user:eve@pam:1:0::::::
group:staff:alice@pve:the%3A staff:
pool:students::169:local:
role:starter:VM.PowerMgmt,VM.Audit:
acl:1:/pool/students:alice@pve:starter:
acl:1:/access/groups/staff:eve@pam:PVEUserAdmin:
acl:1:/access/realm/pve:eve@pam:PVEUserAdmin:
acl:1:/:bob@pve,carol@pve:Administrator:
"""


@pytest.fixture
def access():
    """The rights of a few people at second 50."""
    return Access(UserConfig.parse(RULES), now=50)


def test_a_new_token_can_do_nothing_and_another_is_its_user(access):
    """Privilege separation starts with nothing; with a right of its own the token has what both have."""
    assert access.may("alice@pve!own", "/vms/169", ["VM.PowerMgmt"])
    assert access.privileges("alice@pve!apart", "/vms/169") == {}
    access.config.grant("/vms/169", ["alice@pve!apart"], ["Administrator"])
    assert set(access.privileges("alice@pve!apart", "/vms/169")) == {"VM.Audit", "VM.PowerMgmt"}
    access.config.grant("/", ["root@pam"], ["NoAccess"])
    assert set(access.privileges("root@pam", "/vms/1")) == PRIVILEGES


def test_who_is_disabled_or_expired_has_nothing(access):
    """Administrators too; and so have those who do not exist."""
    assert access.may("bob@pve", "/vms/1", ["VM.Audit"])
    assert not Access(access.config, now=100).may("bob@pve", "/vms/1", ["VM.Audit"])
    for who in ("carol@pve", "nobody@pve", "alice@pve!gone"):
        assert access.privileges(who, "/vms/169") == {}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (["perm", "/vms/{vmid}", ["VM.PowerMgmt"]], "Permission check failed (/vms/100, VM.PowerMgmt)"),
        (
            ["perm", "/vms/{vmid}", ["VM.Audit", "VM.Clone"], "any", 1],
            "Permission check failed (/vms/100, VM.Audit|VM.Clone)",
        ),
        (["or", ["perm", "/", ["Sys.Audit"]], ["userid-param", "self"]], "Permission check failed"),
        (["and", ["perm", "/", ["Sys.Audit"]], ["userid-param", "self"]], "Permission check failed (/, Sys.Audit)"),
        (["userid-param", "self"], "Permission check failed"),
    ],
)
def test_refusals_are_worded_as_proxmox_words_them(access, rule, words):
    """Path and privilege are named where one rule decides."""
    with pytest.raises(PermissionRefused) as caught:
        access.check_call("alice@pve", {"check": rule}, {"vmid": 100, "userid": "bob@pve"})
    assert (caught.value.message, caught.value.status) == (words, 403)
    access.check_call("root@pam", {"check": rule}, {"vmid": 100})


def test_a_call_without_a_rule_is_roots(access):
    """No rule: root alone; for all: anybody."""
    with pytest.raises(PermissionRefused, match=r"\(user != root@pam\)"):
        access.check_call("alice@pve", None, {})
    access.check_call("alice@pve", {"user": "all"}, {})
    access.check_call("root@pam", None, {})


def test_a_right_at_a_pool_counts_for_calls_that_name_the_pool(access):
    """Who may create guests in a pool may do so there, and not outside of it."""
    create = [
        "or",
        ["perm", "/vms/{vmid}", ["VM.Audit"]],
        ["perm", "/pool/{pool}", ["VM.Audit"], "require_param", "pool"],
    ]
    access.check_call("alice@pve", {"check": create}, {"vmid": 5, "pool": "students"})
    for parameters in ({"vmid": 5}, {"vmid": 5, "pool": "teachers"}, {"vmid": 5, "pool": "../vms"}):
        with pytest.raises(PermissionRefused):
            access.check_call("alice@pve", {"check": create}, parameters)


def test_rules_about_users_and_their_groups(access):
    """Who has User.Modify over a group may change its members and create members of it, and nobody else."""
    change = {"check": ["userid-group", ["User.Modify"]]}
    access.check_call("eve@pam", change, {"userid": "alice@pve"})
    with pytest.raises(PermissionRefused):
        access.check_call("eve@pam", change, {"userid": "bob@pve"})
    create = {
        "check": [
            "and",
            ["userid-param", "Realm.AllocateUser"],
            ["userid-group", ["User.Modify"], "groups_param", "create"],
        ]
    }
    access.check_call("eve@pam", create, {"userid": "new@pve", "groups": "staff"})
    for parameters in (
        {"userid": "new@pve"},
        {"userid": "new@pve", "groups": "other"},
        {"userid": "new@pam", "groups": "staff"},
    ):
        with pytest.raises(PermissionRefused):
            access.check_call("eve@pam", create, parameters)


def test_every_rule_of_the_schema_is_understood(schema, compare):
    """Root passes each call's rule; somebody without rights passes those for all, and no others but about oneself."""
    access = Access(UserConfig.parse(RULES))
    cases = []
    for path, methods in schema.items():
        for method, call in methods.items():
            rule = call.get("permissions")
            parameters = dict.fromkeys((call.get("parameters") or {}).get("properties", {}), "x")
            access.check_call("root@pam", rule, parameters)
            try:
                access.check_call("eve@pam", rule, parameters | {"userid": "alice@pve", "vmid": 5})
                passed = True
            except PermissionRefused:
                passed = False
            if rule is None or "check" not in rule:
                cases.append((f"{method} {path}", bool(rule and rule.get("user")), passed))
    compare("calls for all and for root only", cases)


def test_the_tree_names_what_somebody_has_by_path(access):
    """Members of a pool are listed with the pool's privileges."""
    rights = {"VM.Audit": 1, "VM.PowerMgmt": 1}
    assert access.tree("alice@pve") == {"/pool/students": rights, "/storage/local": rights, "/vms/169": rights}


def test_who_goes_takes_rights_along():
    """A removed user is in no group and no right, and neither are the tokens."""
    config = UserConfig.parse(RULES)
    config.grant("/vms/5", ["alice@pve!own", "@staff"], ["PVEVMUser"], propagate=False)
    config.remove("alice@pve")
    assert "alice" not in config.text()
    assert "acl:0:/vms/5:@staff:PVEVMUser:\n" in config.text()
    config.revoke("/vms/5", ["@staff"], ["PVEVMUser"])
    assert "/vms/5" not in config.acl
    with pytest.raises(ClusterError, match=r"no such user \('alice@pve'\)"):
        config.grant("/", ["alice@pve"], ["PVEAdmin"])


def test_lines_that_cannot_be_meant_are_named():
    """Wrong names, unknown people and paths outside the tree give nobody a right."""
    config = UserConfig.parse(
        "user:a b@pve:1:\nacl:1:/:ghost@pve:Administrator:\nacl:1:vms:root@pam:PVEAdmin:\nwhat:x:\n"
    )
    assert config.acl == {}
    assert len(config.warnings) == 4
    assert list(config.users) == ["root@pam"]


def test_a_colon_in_a_comment_stays_a_colon():
    """Comments are escaped, so that they end no field."""
    config = UserConfig.parse(RULES)
    config.users["alice@pve"].comment = "a:b%3A é\nacl:1:/:eve@pam:Administrator:"
    again = UserConfig.parse(config.text())
    assert again == config
    assert again.groups["staff"].comment == "the: staff"


def test_keys_cannot_end_their_field():
    """The one field that is not escaped holds no colon and no blank."""
    config = UserConfig.parse(RULES)
    config.users["alice@pve"].keys = "x:\nacl:1:/:alice@pve:Administrator:"
    with pytest.raises(ClusterError, match="contain a colon"):
        config.text()
