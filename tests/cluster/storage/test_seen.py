"""Where the disks behind storage.cfg are, and which storages a node sees."""

from __future__ import annotations

import pytest

from course.cluster import storage
from course.cluster.config import sections
from course.cluster.node import Node
from course.cluster.settings import Settings
from course.cluster.state import State
from course.cluster.storage import seen
from course.error import ClusterError

STORAGES = """dir: local
	path /var/lib/vz
	content iso,vztmpl,images

dir: elsewhere
	path /mnt/x
	content images
	nodes trevor

dir: off
	path /mnt/off
	content images
	disable

lvmthin: local-lvm
	thinpool data
	vgname pve
	content images
"""


@pytest.fixture
def node(tmp_path):
    """A node without a server."""
    state = State(tmp_path / "state", tmp_path / "run", node="michael")
    state.write("storage.cfg", STORAGES)
    return Node("michael", state, Settings(thin_pool_bytes=1 << 30))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("dir: local\n\tpath /var/lib/vz\n", "nodes/michael/vz"),
        ("dir: x\n\tpath /mnt/x/y\n", "nodes/michael/disks/mnt/x/y"),
        ("dir: shared\n\tpath /mnt/pve/shared\n\tshared 1\n", "shared"),
        ("dir: y\n\tpath /mnt/y\n\tshared 1\n", "mounts/mnt/y"),
        ("nfs: n\n\tserver s\n\texport /e\n", "mounts/mnt/pve/n"),
        ("lvmthin: l\n\tvgname pve\n\tthinpool data\n", "nodes/michael/lvm"),
    ],
)
def test_a_path_of_a_node_is_below_the_state_directory(tmp_path, text, place):
    """Each storage has a directory of the lab behind it, shared ones the same for all nodes."""
    section = next(iter(sections.parse(text).values()))
    assert seen.place(section, tmp_path, "michael") == tmp_path / place


@pytest.mark.parametrize(
    "text",
    [
        "dir: x\n\tpath /mnt/../../etc\n",
        "dir: x\n\tpath etc\n",
        "lvmthin: x\n\tvgname other\n\tthinpool data\n",
        "zfspool: x\n\tpool rpool\n",
    ],
)
def test_what_cannot_be_put_below_it_is_refused(tmp_path, text):
    """Ways up, relative paths, pools and kinds that the lab does not have."""
    section = next(iter(sections.parse(text).values()))
    with pytest.raises(ClusterError):
        seen.place(section, tmp_path, "michael")


def test_a_node_sees_its_own_storages(node):
    """Those of other nodes and disabled ones are not among them, and asked for by name they say why."""
    assert sorted(storage.storages(node)) == ["local", "local-lvm"]
    assert sorted(storage.storages(node, "iso")) == ["local"]
    for name, words in (
        ("nope", "storage 'nope' does not exist"),
        ("elsewhere", "storage 'elsewhere' is not available on node 'michael'"),
        ("off", "storage 'off' is disabled"),
    ):
        with pytest.raises(ClusterError) as caught:
            storage.storage_of(node, name)
        assert caught.value.message == words


def test_a_node_that_comes_back_sweeps_and_has_its_pool(node):
    """What was left unfinished goes, the pool has the size of the settings, and the room is published."""
    left = node.disk / "vz" / "images" / "100" / ".unfinished-michael-abc"
    left.mkdir(parents=True)
    storage.attach(node)
    node.stopping.set()
    assert not left.exists()
    assert storage.storage_of(node, "local-lvm").status().total == 1 << 30
    published = {entry["storage"]: entry["maxdisk"] for source in node.statistics.sources for entry in source()}
    assert published["local-lvm"] == 1 << 30
