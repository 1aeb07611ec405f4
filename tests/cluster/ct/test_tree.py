"""Archives and containers that lie about names: nothing outside of the container's directory is touched."""

from __future__ import annotations

import io
import tarfile

import pytest

from course.cluster.ct import template, tree
from course.error import ClusterError, GuestError


def archive_of(path, *members):
    """Write an archive: (name, content) for files, (name, target, kind) for links."""
    with tarfile.open(path, "w") as archive:
        for name, content, *kind in members:
            member = tarfile.TarInfo(name)
            if kind:
                member.type, member.linkname = kind[0], content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def root(tmp_path):
    """An empty container beside a file that is none of its business."""
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize(
    "members",
    [
        [("../secret", b"stolen")],
        [("a/../../secret", b"stolen")],
        [("way", "..", tarfile.SYMTYPE), ("way/secret", b"stolen")],
        [("way", "/", tarfile.SYMTYPE), ("way/tmp/stolen", b"stolen")],
        [("copy", "../secret", tarfile.LNKTYPE)],
    ],
    ids=["parent", "detour", "relative link", "absolute link", "hard link"],
)
def test_an_archive_cannot_write_or_link_outside(root, tmp_path, members):
    """Names that lead out are refused, also through links that the archive makes itself."""
    with pytest.raises(ClusterError, match=r"leads|extract"):
        tree.unpack(archive_of(tmp_path / "bad.tar", *members), root)
    assert (tmp_path / "secret").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "root", "secret"]


def test_an_absolute_name_and_link_stay_inside(root, tmp_path):
    """``/etc/x`` is the container's; a link to ``/bin/busybox`` is kept as it is, for whoever looks from inside."""
    members = [("/etc/x", b"hello"), ("bin/sh", "/bin/busybox", tarfile.SYMTYPE), ("dev/sda", "", tarfile.BLKTYPE)]
    assert tree.unpack(archive_of(tmp_path / "good.tar", *members), root) == 5
    assert (root / "etc/x").read_text() == "hello"
    assert str((root / "bin/sh").readlink()) == "/bin/busybox"
    assert not (root / "dev/sda").exists()


def test_a_file_is_replaced_and_never_followed(root, tmp_path):
    """A link of the container's own is not written through, by an archive or by the node."""
    (root / "etc").mkdir()
    (root / "etc/hostname").symlink_to(tmp_path / "secret")
    tree.write(root, "etc/hostname", "ct\n")
    (root / "var").symlink_to(tmp_path)
    tree.write(root, "var/secret", "stolen")
    assert (tmp_path / "secret").read_text() == "mine"
    tree.unpack(archive_of(tmp_path / "x.tar", ("etc/hostname", b"ct")), root)
    assert (root / "etc/hostname").read_text() == "ct"
    assert not (root / "etc/hostname").is_symlink()


def test_what_is_no_archive_is_said(root, tmp_path):
    """Text is no archive."""
    (tmp_path / "text.tar").write_text("x" * 2000)
    with pytest.raises(ClusterError, match="unable to extract archive"):
        tree.unpack(tmp_path / "text.tar", root)


def test_the_template_is_the_same_each_time(root):
    """Two builds are equal byte for byte, and what comes out has an init and a shell."""
    try:
        archive = template.ensure()
    except GuestError as error:
        pytest.skip(str(error))
    busybox = b"\x7fELF not really"
    assert template.build(busybox, ["bin/ls"]) == template.build(busybox, ["bin/ls"])
    tree.unpack(archive, root)
    assert {str((root / name).readlink()) for name in ("sbin/init", "bin/sh")} == {"/bin/busybox"}
    assert tree.used_bytes(root) > 1 << 20
