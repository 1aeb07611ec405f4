"""Names of volumes: upstream's vectors, and names that would lead out of a storage."""

from __future__ import annotations

import json

import pytest

from course.cluster import volume
from course.error import ClusterError, ParameterError


def shape(name):
    """Parse as upstream's vectors say it: a list without trailing nothings, or the error's text."""
    try:
        parsed = volume.parse_directory_name(name)
    except ClusterError as error:
        return error.message + "\n"
    words = [None if number is None else str(number) for number in (parsed.vmid, parsed.basevmid)]
    base = "base-" if parsed.is_base else None
    if parsed.content == "rootdir":
        return [parsed.content, parsed.name, words[0]]
    return [parsed.content, parsed.name, words[0], parsed.basename, words[1], base, parsed.format]


def test_upstream_volume_names(pve, compare):
    """Each name of upstream's own tests is read, or refused, as there."""
    tests = json.loads((pve / "vectors/storage/parse_volname.json").read_text())["tests"]
    compare("volume names", [(case["volname"], case["expected"], shape(case["volname"])) for case in tests])


@pytest.mark.parametrize(
    "name",
    [
        "iso/../../etc/passwd.iso",
        "iso/..",
        "iso/.hidden.iso",
        "snippets/../x",
        "../iso/a.iso",
        "/etc/a.iso",
        "100/../../a.raw",
        "100/..raw",
        "import/x.ova/../y.raw",
        "iso//a.iso",
        "backup/..tar",
        "iso/a\0.iso",
        "",
    ],
)
def test_a_name_never_leads_out_of_its_storage(name, tmp_path):
    """Ways up, absolute paths, hidden and empty parts are refused before a path is made."""
    with pytest.raises(ClusterError, match="unable to parse"):
        volume.parse_directory_name(name).path(tmp_path)
    with pytest.raises(ClusterError, match="unable to parse"):
        volume.parse_thin_name(name)


def test_a_link_does_not_lead_out_either(tmp_path):
    """A symbolic link in the storage that points elsewhere is not followed."""
    root = tmp_path / "storage"
    (root / "template").mkdir(parents=True)
    (root / "template" / "iso").symlink_to(tmp_path)
    with pytest.raises(ClusterError):
        volume.parse_directory_name("iso/guest.iso").path(root)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("100/vm-100-disk-0.qcow2", "images/100/vm-100-disk-0.qcow2"),
        ("900/base-900-disk-0.raw/100/vm-100-disk-0.raw", "images/100/vm-100-disk-0.raw"),
        ("iso/guest.iso", "template/iso/guest.iso"),
        ("vztmpl/alpine.tar.zst", "template/cache/alpine.tar.zst"),
        ("backup/vzdump-qemu-1-2026_11_23-10_00_00.vma.zst", "dump/vzdump-qemu-1-2026_11_23-10_00_00.vma.zst"),
    ],
)
def test_where_a_directory_keeps_a_volume(name, place, tmp_path):
    """Each content has its folder, as on a real node."""
    assert tmp_path / place == volume.parse_directory_name(name).path(tmp_path)


def test_names_on_a_thin_pool():
    """A logical volume, a template's, and a linked clone."""
    assert volume.Volume("images", "vm-169-disk-0", 169) == volume.parse_thin_name("vm-169-disk-0")
    assert volume.parse_thin_name("base-900-disk-0").is_base
    clone = volume.parse_thin_name("base-900-disk-0/vm-169-disk-1")
    assert (
        clone.name,
        clone.vmid,
        clone.basename,
        clone.basevmid,
    ) == ("vm-169-disk-1", 169, "base-900-disk-0", 900)


def test_recorded_volume_ids_are_understood(recordings, compare):
    """Volume ids in a real cluster's list of storage contents are all read, with the owner and format listed there."""
    listed = {}
    for exchange in recordings:
        if exchange["method"] == "GET" and exchange["uri"].partition("?")[0].endswith("/content"):
            for item in json.loads(exchange["body"])["data"] or ():
                listed[item["volid"]] = item
    cases = []
    for volid, item in sorted(listed.items()):
        storage, name = volume.parse_volume_id(volid)
        parsed = volume.parse_directory_name(name) if "/" in name else volume.parse_thin_name(name)
        assert storage in ("local", "local-lvm")
        # On a thin pool a container's disk has a VM's name; the list calls it rootdir because it knows the owner.
        content = "images" if item["content"] == "rootdir" and "/" not in name else item["content"]
        cases.append((volid, content, parsed.content))
        if "vmid" in item:
            cases.append((volid, int(item["vmid"]), parsed.vmid))
    compare("recorded volume ids", cases)


def test_an_upload_keeps_only_the_last_part_of_its_name():
    """Folders that a client sends are dropped, odd characters become underscores, the end must fit the content."""
    assert volume.check_file_name("../../etc/my disk.iso", "iso") == "my_disk.iso"
    assert volume.check_file_name("C:\\x\\alpine.tar.gz", "vztmpl") == "alpine.tar.gz"
    for name, content in (("guest.exe", "iso"), (".iso", "iso"), ("..", "iso"), ("a.iso", "vztmpl")):
        with pytest.raises(ParameterError) as caught:
            volume.check_file_name(name, content)
        assert caught.value.errors == {"filename": "wrong file extension"}


@pytest.mark.parametrize("text", ["local", ":x", "local:", "9x:y", "a/b:c", "-a:b"])
def test_what_is_no_volume_id_is_refused(text):
    """A storage's name and a volume's name belong to it."""
    with pytest.raises(ClusterError, match="unable to parse volume ID"):
        volume.parse_volume_id(text)
