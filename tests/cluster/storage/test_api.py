"""The storage part of the API, asked by proxmoxer, on a running lab."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import threading

import pytest
from proxmoxer import ResourceException
from proxmoxer.tools import Files, Tasks

GIB = 1 << 30


@pytest.fixture
def node(api):
    """A node, as proxmoxer sees it."""
    return api.nodes("trevor")


@pytest.fixture
def done(api):
    """Wait for a task; its exit status and its log."""

    def wait(upid):
        status = Tasks.blocking_status(api, upid, timeout=120, polling_interval=0.05)
        log = api.nodes(status["node"]).tasks(upid).log.get(limit=500)
        return status["exitstatus"], [line["t"] for line in log]

    return wait


@pytest.fixture
def storage(api):
    """A directory storage that is forgotten afterwards."""
    api.storage.post(storage="extra", type="dir", path="/mnt/extra", content="iso,images,backup", nodes="trevor")
    yield "extra"
    api.storage("extra").delete()


def refusal(call, *arguments, **keywords):
    """What a refused call says: status, words, errors by field."""
    with pytest.raises(ResourceException) as caught:
        call(*arguments, **keywords)
    error = caught.value
    return error.status_code, error.content, error.errors


def file(content, name):
    """A file to upload."""
    opened = io.BytesIO(content)
    opened.name = name
    return opened


def test_each_node_has_the_storages_of_an_installation(api):
    """local, local-lvm and shared are there, active and with true sizes."""
    for name in ("franklin", "trevor", "michael"):
        found = {entry["storage"]: entry for entry in api.nodes(name).storage.get()}
        assert found["local"]["type"] == "dir"
        assert found["local-lvm"]["type"] == "lvmthin"
        assert [found[key]["shared"] for key in ("local", "local-lvm", "shared")] == [0, 0, 1]
        for entry in found.values():
            assert entry["active"] == entry["enabled"] == 1
            assert entry["used"] + entry["avail"] <= entry["total"]


def test_a_storage_is_defined_changed_and_forgotten(api, node, storage):
    """It appears on its node alone; a wrong digest and unknown properties are refused."""
    assert api.storage(storage).get()["content"] == "backup,images,iso"
    assert storage in {entry["storage"] for entry in node.storage.get()}
    assert storage not in {entry["storage"] for entry in api.nodes("michael").storage.get()}
    assert refusal(api.nodes("michael").storage(storage).content.get)[1] == (
        "storage 'extra' is not available on node 'michael'"
    )
    api.storage(storage).put(content="iso", disable=1)
    entry = next(entry for entry in node.storage.get() if entry["storage"] == storage)
    assert (entry["enabled"], entry["active"], entry["content"]) == (0, 0, "iso")
    assert "modified configuration" in refusal(api.storage(storage).put, content="iso", digest="0" * 40)[1]
    assert refusal(api.storage(storage).put, vgname="x")[0] == 400
    assert refusal(api.storage.post, storage=storage, type="dir", path="/mnt/y")[1] == (
        "create storage failed: error during cfs-locked 'file-storage_cfg' operation: "
        "storage ID 'extra' already defined"
    )


@pytest.mark.parametrize("path", ["/mnt/../../etc", "relative", "/.."])
def test_no_storage_is_outside_the_lab(api, path):
    """Paths that lead up are refused."""
    assert refusal(api.storage.post, storage="outside", type="dir", path=path)[0] in (400, 500)
    assert "outside" not in {entry["storage"] for entry in api.storage.get()}


def test_a_disk_is_made_listed_and_removed(api, node, done):
    """A volume by name and size, its entry, its removal by a task, and what is refused."""
    vmid = int(api.cluster.nextid.get())
    place = node.storage("local-lvm")
    volid = place.content.post(vmid=vmid, filename=f"vm-{vmid}-disk-0", size="64M")
    assert volid == f"local-lvm:vm-{vmid}-disk-0"
    entry = next(entry for entry in place.content.get(vmid=vmid) if entry["volid"] == volid)
    assert (entry["size"], entry["format"], entry["content"]) == (64 << 20, "raw", "images")
    assert place.content(volid).get()["size"] == place.content(f"vm-{vmid}-disk-0").get()["size"] == 64 << 20
    assert "already exists" in refusal(place.content.post, vmid=vmid, filename=f"vm-{vmid}-disk-0", size="1G")[1]
    assert refusal(place.content.post, vmid=vmid, filename="vm-1-x", size="1G")[1] == (
        f"illegal name 'vm-1-x' - should be 'vm-{vmid}-*'"
    )
    status, log = done(place.content(volid).delete())
    assert (status, log[0]) == ("OK", f'  Logical volume "vm-{vmid}-disk-0" successfully removed.')
    assert place.content.get(vmid=vmid) == []
    assert done(place.content(volid).delete())[0] == f"volume '{volid}' does not exist"


def test_an_upload_is_kept_under_its_name(node, done):
    """The file is there, byte for byte; the log has Proxmox VE's lines."""
    content = bytes(range(256)) * 1000
    status, log = done(node.storage("local").upload.post(content="iso", filename=file(content, "my disk.iso")))
    assert status == "OK"
    assert [line.partition(":")[0] for line in log[:5]] == [
        "starting file import from", "target node", "target file", "file size is", "command",
    ]  # fmt: skip
    assert log[-2:] == ["finished file import successfully", "TASK OK"]
    told = node.storage("local").content("iso/my_disk.iso").get()
    assert told["size"] == len(content)
    with open(told["path"], "rb") as kept:  # noqa: PTH123 - the API tells a path
        assert kept.read() == content
    assert done(node.storage("local").content("local:iso/my_disk.iso").delete())[0] == "OK"


def test_the_tool_of_proxmoxer_uploads_with_a_checksum(api, node, tmp_path):
    """`Files.upload_local_file_to_storage` sends a SHA-512, which is compared."""
    path = tmp_path / "tool.iso"
    path.write_bytes(b"tool" * 1000)
    assert Files(api, "trevor", "local").upload_local_file_to_storage(str(path))["exitstatus"] == "OK"
    assert node.storage("local").content("iso/tool.iso").get()["size"] == 4000


def test_a_wrong_upload_leaves_nothing(node, done):
    """A wrong checksum fails the task; a wrong name or storage the call."""
    checksum = {"checksum": "0" * 64, "checksum-algorithm": "sha256"}
    status, _ = done(node.storage("local").upload.post(content="iso", filename=file(b"x", "bad.iso"), **checksum))
    assert status == f"checksum mismatch: got '{hashlib.sha256(b'x').hexdigest()}' != expect '{'0' * 64}'"
    upload = node.storage("local").upload.post
    assert refusal(upload, content="iso", filename=file(b"x", "bad.exe"))[2] == {"filename": "wrong file extension"}
    assert refusal(upload, content="iso", filename=file(b"x", ".iso"))[2] == {"filename": "wrong file extension"}
    upload = node.storage("local-lvm").upload.post
    assert refusal(upload, content="iso", filename=file(b"x", "bad.iso"))[1] == (
        "storage 'local-lvm' does not support 'iso' content"
    )
    assert not [entry for entry in node.storage("local").content.get() if "bad" in entry["volid"]]


@pytest.mark.parametrize(
    "name", ["local:iso/../../../pve/user.cfg", "local:../user.cfg", "iso/..%2f..%2fx.iso", "local:iso/.hidden.iso"]
)
def test_names_that_lead_out_are_refused(node, name):
    """Neither read nor removed, whatever the name looks like."""
    assert refusal(node.storage("local").content(name).get)[0] in (400, 500, 501)  # clients may resolve ".." themselves
    assert refusal(node.storage("local").content(name).delete)[0] in (400, 500, 501)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server that writes no log."""

    def log_message(self, *words):
        """Say nothing."""


@pytest.fixture
def web(tmp_path):
    """A web server on loopback; yields its address."""
    (tmp_path / "small.iso").write_bytes(b"from the web" * 1000)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download_with_its_checksum(node, web, done):
    """What a web server has comes to the storage, once."""
    told = node("query-url-metadata").get(url=f"{web}/small.iso")
    assert (told["filename"], told["size"]) == ("small.iso", 12_000)
    checksum = hashlib.sha256(b"from the web" * 1000).hexdigest()
    ask = functools.partial(node.storage("local")("download-url").post, url=f"{web}/small.iso", content="iso")
    wrong = {"checksum": "0" * 64, "checksum-algorithm": "sha256"}
    assert done(ask(filename="web.iso", **wrong))[0].startswith("checksum mismatch")
    assert done(ask(filename="web.iso", **{**wrong, "checksum": checksum}))[0] == "OK"
    assert done(ask(filename="web.iso"))[0].startswith("refusing to override existing file")
    assert done(ask(filename="other.iso", url=f"{web}/missing.iso"))[0] == "download failed: 404 File not found"
    assert done(node.storage("local").content("iso/web.iso").delete())[0] == "OK"


def test_without_a_network_downloads_are_refused(node, done):
    """Nobody answers: said at once, and nothing is left."""
    url = "http://127.0.0.1:9/x.iso"
    words = "500 Can't connect to 127.0.0.1:9 (Connection refused)"
    assert refusal(node("query-url-metadata").get, url=url)[1] == f"invalid server response: '{words}'"
    upid = node.storage("local")("download-url").post(url=url, content="iso", filename="x.iso")
    assert done(upid)[0] == f"download failed: {words}"
    assert refusal(node("query-url-metadata").get, url="file:///etc/passwd")[0] == 400


def test_an_unknown_storage(api, node):
    """Each call has Proxmox VE's words for it."""
    assert refusal(node.storage("nope").status.get)[2] == {"storage": "No such storage."}
    assert refusal(node.storage("nope").content.get)[1] == "storage 'nope' does not exist"
    assert refusal(api.storage("nope").get)[1] == "storage 'nope' does not exist"
