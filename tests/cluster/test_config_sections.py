"""Files of typed sections and firewall files: upstream's HA files, a storage.cfg, rules there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.cluster.config import sections
from course.cluster.config.firewall import Firewall, Named, Rule
from course.cluster.config.sections import TypedSection
from course.error import ClusterError
from tests.cluster.steady import steady

STORAGE = """dir: local
\tpath /var/lib/vz
\tcontent iso,vztmpl,backup

lvmthin: local-lvm
\tthinpool data
\tvgname pve
\tcontent rootdir,images

nfs: shared
\tpath /mnt/pve/shared
\tserver 10.0.0.9
\texport /srv
\tshared
\tdisable
"""


def test_a_storage_file_is_written_as_it_was():
    """Order of sections and keys, and flags that stand alone, survive."""
    parsed = sections.parse(STORAGE)
    assert sections.render(parsed.values()) == STORAGE
    assert [(one.kind, one.name) for one in parsed.values()] == [
        ("dir", "local"),
        ("lvmthin", "local-lvm"),
        ("nfs", "shared"),
    ]
    assert parsed["local"].words("content") == ["iso", "vztmpl", "backup"]
    assert (parsed["shared"].flag("shared"), parsed["local"].flag("shared")) == (True, False)


def test_upstream_groups_and_rules_are_read(pve, compare):
    """Each section header of upstream's HA files is a section, and what we write is read as the same."""
    cases = []
    for path in sorted((pve / "vectors").glob("ha-*/*/*")):
        if path.name not in ("groups", "rules_config"):
            continue
        text = path.read_text()
        parsed = sections.parse(text)
        headers = {line.split(":")[1].strip() for line in text.splitlines() if line and line[0].isalpha()}
        cases.append((f"{path} headers", headers, set(parsed)))
        entries = sum(line[:1].isspace() and bool(line.strip()) for line in text.splitlines())
        if len(headers) == sum(bool(line) and line[0].isalpha() for line in text.splitlines()):
            cases.append((f"{path} entries", entries, sum(len(one.values) for one in parsed.values())))
        cases.append((f"{path} again", parsed, sections.parse(sections.render(parsed.values()))))
    compare("HA groups and rules", cases)


def test_a_value_cannot_bring_an_entry_of_its_own():
    """A line break in a value is refused, so that nobody adds a storage by a comment."""
    with pytest.raises(ClusterError, match="line break"):
        sections.render([TypedSection("dir", "local", {"comment": "x\ndir: evil"})])


@pytest.mark.parametrize("text", ["\tpath /x\n", "dir local\n", "dir:\n"])
def test_a_line_that_belongs_nowhere_is_refused(text):
    """Its number and content are named."""
    with pytest.raises(ClusterError, match="line 1: unable to parse"):
        sections.parse(text)


FIREWALL = """[OPTIONS]

enable: 1
policy_in: DROP

[ALIASES]

admin 10.0.0.5 # the desk

[IPSET blocked] # noisy ones

10.9.0.0/16 # all
!10.9.0.7

[RULES]

IN SSH(ACCEPT) -source +admins -log nolog # in by SSH
|OUT DROP -p tcp -dport 25
GROUP web -i net0

[group web]

IN ACCEPT -p tcp -dport 80,443
"""


def test_a_firewall_file_is_written_as_it_was():
    """Options, aliases, sets, rules and groups with their remarks survive."""
    parsed = Firewall.parse(FIREWALL)
    assert parsed.text() == FIREWALL
    assert parsed.options == {"enable": "1", "policy_in": "DROP"}
    assert parsed.ipsets["blocked"][1] == Named("10.9.0.7", None, nomatch=True)
    assert parsed.rules[0] == Rule(
        "in", "ACCEPT", macro="SSH", match={"source": "+admins", "log": "nolog"}, comment="in by SSH"
    )
    assert not parsed.rules[1].enable


@pytest.mark.parametrize(
    "text",
    ["IN ACCEPT\n", "[RULES]\nSIDEWAYS ACCEPT\n", "[RULES]\nIN\n", "[RULES]\nIN ACCEPT -zz 1\n", "[ALIASES]\nx\n"],
)
def test_a_firewall_line_that_means_nothing_is_refused(text):
    """Its number is named, and nothing is guessed: a rule that is dropped silently is a hole."""
    with pytest.raises(ClusterError, match=r"^line \d+: "):
        Firewall.parse(text)


words = st.text(st.sampled_from("abcXYZ019.+/-:"), min_size=1).filter(lambda word: not word.startswith("-"))


@steady
@given(
    st.builds(
        Rule,
        type=st.sampled_from(["in", "out", "group", "forward"]),
        action=st.sampled_from(["ACCEPT", "DROP", "web"]),
        enable=st.booleans(),
        macro=st.none() | st.sampled_from(["SSH", "HTTP"]),
        match=st.dictionaries(st.sampled_from(["iface", "proto", "source", "dest", "dport", "log"]), words),
        comment=st.none() | st.sampled_from(["x", "two words", "a # b"]),
    )
)
def test_any_rule_survives(rule):
    """What is written is read as the same rule."""
    assert Rule.parse(str(rule)) == rule


@pytest.mark.parametrize("value", ["10.0.0.1\nIN ACCEPT", "a b", "a#b", "'", ""])
def test_a_rules_value_cannot_bring_a_rule_of_its_own(value):
    """Blanks, ends of lines, quotes and hash signs are refused when a rule is written."""
    with pytest.raises(ClusterError, match="does not fit in a rule"):
        str(Rule("in", "ACCEPT", match={"source": value}))
