"""Configurations on their way into an archive and out of it; the upstream project's own examples."""

from __future__ import annotations

import re

import pytest

from course.cluster.backup import archive, settings
from course.cluster.config.guest import GuestConfig
from course.error import ClusterError


def targets(text):
    """Name the volumes as upstream's test does: by number on storage ``target``, in the format that they had."""
    found = {}
    for number, mapping in enumerate(archive.maps_of(text).values()):
        owner = re.search(r"vm-(\d+)-disk", text)[1]
        found[mapping.key] = f"target:{owner}/vm-{owner}-disk-{number}.{mapping.format or 'raw'}"
    return found


def test_upstream_restored_configurations(pve, compare):
    """Each configuration of upstream's tests becomes, byte for byte, what it becomes there."""
    folder = pve / "vectors/qemu-8.4"
    cases = []
    for path in sorted((folder / "restore-config-input").glob("*.conf")):
        text = path.read_text()
        expected = (folder / "restore-config-expected" / path.name).read_text()
        cases.append((path.name, expected, archive.restored(text, targets(text))))
    compare("restored configurations", cases)


def test_what_goes_into_an_archive_is_the_guest_alone():
    """Locks, waiting changes and snapshots stay outside; each disk has its line."""
    config = GuestConfig.parse(
        "#notes\nlock: backup\nmemory: 64\nparent: one\nscsi0: local-lvm:vm-100-disk-0,size=1G\n\n"
        "[PENDING]\nmemory: 128\n\n[one]\nmemory: 32\n"
    )
    text = archive.configuration(config, [])
    assert text == "#notes\nmemory: 64\nscsi0: local-lvm:vm-100-disk-0,size=1G\n"


@pytest.mark.parametrize(
    ("template", "notes"),
    [
        ("{{guestname}} ({{vmid}}) on {{node}} of {{cluster}}", "web (169) on michael of lab"),
        (r"one\ntwo\\n", "one\ntwo\\n"),
    ],
)
def test_notes_of_a_backup(template, notes):
    """Variables are replaced, escapes become what they stand for."""
    assert notes == settings.notes_of(template, cluster="lab", guest="web", node="michael", vmid=169)


def test_unknown_variables_of_notes_are_refused():
    """A variable that nobody knows is an error, not text."""
    with pytest.raises(ClusterError, match="unexpected variable name 'owner'"):
        settings.notes_of("{{owner}}", cluster="lab", guest="web", node="michael", vmid=169)


def test_names_of_archives_tell_local_time():
    """The name is what retention sorts by."""
    assert re.fullmatch(
        r"vzdump-qemu-169-\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d\.vma\.zst", archive.name_of("qemu", 169, 0, "vma.zst")
    )
