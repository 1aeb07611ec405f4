"""Who may see, make and remove what on a storage, in Proxmox VE's words."""

from __future__ import annotations

import contextlib
import io

import pytest
from proxmoxer import ResourceException

PASSWORD = "a-lesson-in-storage"


@pytest.fixture
def carol(lab, api):
    """A user without any right, and a connection of hers."""
    api.access.users.post(userid="carol@pve", password=PASSWORD)
    yield lab.api("carol@pve", PASSWORD, node="trevor").nodes("trevor")
    with contextlib.suppress(ResourceException):
        api.access.users("carol@pve").delete()


@pytest.fixture
def grant(api):
    """Give carol a role at a path; taken back afterwards."""
    given = []

    def give(path, role):
        api.access.acl.put(path=path, roles=role, users="carol@pve")
        given.append((path, role))

    yield give
    for path, role in given:
        api.access.acl.put(path=path, roles=role, users="carol@pve", delete=1)


def refusal(action, *arguments, **values):
    """The status and the words with which something is refused."""
    with pytest.raises(ResourceException) as refused:
        action(*arguments, **values)
    return refused.value.status_code, refused.value.content


def file(name):
    """A file to upload."""
    opened = io.BytesIO(b"content")
    opened.name = name
    return opened


def test_without_rights_there_is_nothing(carol):
    """The list is empty, each question is refused."""
    assert carol.storage.get() == []
    words = "Permission check failed (/storage/local, Datastore.Audit|Datastore.AllocateSpace)"
    assert refusal(carol.storage("local").status.get) == (403, words)
    assert refusal(carol.storage("local").content.get) == (403, words)
    assert refusal(carol.storage("local").content("iso/x.iso").get)[0] == 403
    upload = carol.storage("local").upload.post
    words = "Permission check failed (/storage/local, Datastore.AllocateTemplate)"
    assert refusal(upload, content="iso", filename=file("a.iso")) == (403, words)


def test_a_user_of_a_storage_sees_it_alone(carol, grant):
    """PVEDatastoreUser at one storage: seen and allocated there, nothing removed that belongs to nobody."""
    grant("/storage/local", "PVEDatastoreUser")
    assert [entry["storage"] for entry in carol.storage.get()] == ["local"]
    volids = [entry["volid"] for entry in carol.storage("local").content.get(content="iso")]
    assert volids
    assert refusal(carol.storage("local").content(volids[0]).delete) == (
        403, "Permission check failed (/storage/local, Datastore.Allocate)",
    )  # fmt: skip
    assert refusal(carol.storage("local-lvm").content.post, vmid=9100, filename="vm-9100-disk-0", size="1M") == (
        403, "Permission check failed (/storage/local-lvm, Datastore.AllocateSpace)",
    )  # fmt: skip


def test_backups_need_rights_at_the_guest(carol, grant):
    """Neither making nor pruning a guest's backups is allowed by rights at the storage alone."""
    grant("/storage/local", "PVEDatastoreUser")
    assert refusal(carol.vzdump.post, vmid=9100, storage="local") == (
        403, "Permission check failed (/vms/9100, VM.Backup)",
    )  # fmt: skip
    assert refusal(carol.storage("local").prunebackups.delete, **{"prune-backups": "keep-last=1"}) == (
        403, "Permission check failed (/storage/local, Datastore.Allocate)",
    )  # fmt: skip
    refused = refusal(carol.vzdump.post, vmid=9100, storage="local", **{"prune-backups": "keep-last=1"})
    assert refused == (403, "Permission check failed (/storage/local, Datastore.Allocate)")


def test_definitions_are_for_administrators(carol, api, lab, grant):
    """Only who may allocate storages changes their definitions."""
    grant("/storage/local", "PVEDatastoreUser")
    connection = lab.api("carol@pve", PASSWORD)
    assert [entry["storage"] for entry in connection.storage.get()] == ["local"]
    assert refusal(connection.storage.post, storage="mine", type="dir", path="/mnt/mine") == (
        403, "Permission check failed (/storage, Datastore.Allocate)",
    )  # fmt: skip
    assert refusal(connection.storage("local").delete)[0] == 403
    assert refusal(connection.cluster.backup.post, schedule="daily", all=1)[1] == (
        "Permission check failed (/, Sys.Modify)"
    )
