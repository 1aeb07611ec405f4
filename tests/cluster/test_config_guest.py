"""Configurations of guests: upstream's files read and written again, descriptions, sections, pending changes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.cluster.config import lines
from course.cluster.config.guest import GuestConfig, Section, keys_of
from course.error import ClusterError
from tests.cluster.steady import steady


def boolean_numa(key, value):
    """Say what is wrong with a value of `numa`; the other keys are not looked at."""
    if key == "numa" and value not in ("0", "1"):
        return f"type check ('boolean') failed - got '{value}'"
    return None


def texts(folder):
    """Yield each configuration file below a folder with its text."""
    for path in sorted(folder.rglob("*.conf")):
        yield str(path.relative_to(folder)), path.read_text()


@pytest.mark.parametrize("folder", ["qemu-8.4/cfg2cmd", "qemu-9/cfg2cmd", "qemu-8.4", "qemu-9"])
def test_lines_survive_byte_for_byte(pve, compare, folder):
    """Each upstream file, in whatever order it is, is read into lines and written as it was."""
    found = list(texts(pve / "vectors" / folder))
    assert not [name for name, text in found for line in lines.parse(text) if isinstance(line, lines.Unknown)]
    compare(f"lines of {folder}", [(name, text, lines.render(lines.parse(text))) for name, text in found])


@pytest.mark.parametrize("folder", ["snapshot-input", "snapshot-expected"])
def test_what_proxmox_wrote_we_write_alike(pve, compare, folder):
    """Files that Proxmox VE's own writer made are parsed into sections and written byte for byte."""
    found = texts(pve / "vectors/qemu-8.4" / folder)
    compare(f"written files of {folder}", [(name, text, GuestConfig.parse(text).text()) for name, text in found])


def test_writing_loses_no_value(pve, compare):
    """Files in any order keep all sections, keys and values, and a second writing changes nothing."""
    cases = []
    for name, text in texts(pve / "vectors"):
        once = GuestConfig.parse(text).text()
        before, after = GuestConfig.parse(text), GuestConfig.parse(once)
        before.digest, before.warnings = after.digest, []
        assert before == after
        cases.append((name, once, after.text()))
    compare("files written twice", cases)


def test_what_cannot_be_read_is_left_out_and_named(pve, compare):
    """Wrong values, unknown and repeated sections: upstream's results, and its first complaint when strict."""
    folder = pve / "vectors/qemu-9"
    cases = []
    for name, text in texts(folder / "parse-config-input"):
        expected = folder / "parse-config-expected" / name
        config = GuestConfig.parse(text, check=boolean_numa, whose="vm 8006 - ")
        cases.append((name, expected.read_text() if expected.exists() else text, config.text()))
        complaint = folder / "parse-config-expected" / f"{name}.strict.error"
        said = complaint.read_text().strip() if complaint.exists() else ""
        cases.append((f"{name} strict", said, (config.warnings or [""])[0]))
        if said:
            with pytest.raises(ClusterError):
                GuestConfig.parse(text, check=boolean_numa, strict=True)
    compare("forgiving and strict reading", cases)


@steady
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_description_survives(words):
    """Colons, percent signs, accents, any control character and empty lines come back; the file stays ASCII."""
    wanted = "".join(f"{line.rstrip(' ')}\n" for text in words for line in text.split("\n"))
    config = GuestConfig(current=Section({"cores": "1"}, description=wanted or None))
    text = config.text()
    assert text.isascii()
    assert GuestConfig.parse(text).current == config.current


def test_a_containers_raw_lines_keep_their_order():
    """`lxc.` lines may repeat, with a colon or an equals sign."""
    config = GuestConfig.parse("hostname: a\nlxc.idmap: u 0 1 2\nlxc.idmap = g 0 1 2\narch: amd64\n")
    assert config.current.raw == [("lxc.idmap", "u 0 1 2"), ("lxc.idmap", "g 0 1 2")]
    assert config.text() == "arch: amd64\nhostname: a\nlxc.idmap: u 0 1 2\nlxc.idmap: g 0 1 2\n"


def test_pending_changes_come_into_force_at_the_next_start():
    """Changed and deleted keys wait in their section; then it is gone."""
    config = GuestConfig.parse("cores: 1\nmemory: 512\nvga: std\n\n[PENDING]\ncores: 2\ndelete: vga,!unused0\n")
    assert config.pending_deletes() == {"vga": False, "unused0": True}
    assert config.current.values["cores"] == "1"
    assert config.merged() == {"cores": "2", "memory": "512"}
    config.apply_pending()
    assert config.text() == "cores: 2\nmemory: 512\n"


def test_a_locked_guest_says_what_works_on_it():
    """The kind of lock is named; one kind may be let through."""
    config = GuestConfig.parse("lock: backup\n")
    with pytest.raises(ClusterError, match=r"^VM is locked \(backup\)$"):
        config.assert_unlocked()
    config.assert_unlocked(unless="backup")


def test_the_digest_is_the_files_sha1():
    """Any SHA-1 of the file's bytes is the digest that clients see."""
    raw = "#\xe9\ncores: 2\n".encode("latin-1")
    config = GuestConfig.parse(raw.decode("utf-8", "surrogateescape"))
    assert hashlib.sha1(raw).hexdigest() == config.digest
    config.assert_unchanged(config.digest)
    config.assert_unchanged(None)
    with pytest.raises(ClusterError, match="checksum mismatch"):
        config.assert_unchanged("0" * 40)


def test_numbered_keys_come_in_the_order_of_their_numbers():
    """net2 comes before net10, and other keys that begin alike are left out."""
    config = GuestConfig.parse("net10: a\nnet2: b\nnetwork: c\n")
    assert list(keys_of(config, "net")) == [("net2", "b"), ("net10", "a")]


@pytest.mark.parametrize("section", [Section({"name": "a\nargs: -x"}), Section(raw=[("lxc.x", "a\rb")])])
def test_a_value_cannot_bring_a_setting_of_its_own(section):
    """A line break in a value is refused when the file is written."""
    with pytest.raises(ClusterError, match="contains a line break"):
        GuestConfig(current=section).text()
