"""Bringing files to a storage: uploads and downloads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...error import ClusterError, ParameterError
from ..storage import DirectoryStorage, storage_of, transfer
from ..tasks import Task
from ..volume import check_file_name
from .common import NODE, STORAGE_REQUIRED, Call, Parameter, choice, endpoint, flag, perm, text

_CHECKSUM: dict[str, Parameter] = {
    "checksum": Parameter(optional=True, requires="checksum-algorithm"),
    "checksum-algorithm": Parameter(optional=True, requires="checksum", enum=tuple(transfer.ALGORITHMS.split())),
}
_FILE: dict[str, Parameter] = {
    "node": NODE,
    "storage": STORAGE_REQUIRED,
    "content": replace(choice("iso vztmpl", optional=False), format="pve-storage-content"),
    "filename": text(longest=255, optional=False),
    **_CHECKSUM,
}
_URL: dict[str, Parameter] = {
    "url": text(pattern=r"https?://.*", optional=False),
    "verify-certificates": flag(1),
}
_MODIFY = ["perm", "/", ["Sys.Audit", "Sys.Modify"]]
_TEMPLATE = ["perm", "/storage/{storage}", ["Datastore.AllocateTemplate"]]


def _target(call: Call) -> tuple[DirectoryStorage, str, str]:
    """Return the storage, the content and the name that a file is to have.

    Raises:
        ParameterError: the name does not fit the content.
        ClusterError: the storage does not take such files.
    """
    values = call.values
    storage = storage_of(call.node, values["storage"])
    content = values["content"]
    if content not in storage.content or not isinstance(storage, DirectoryStorage):
        raise ClusterError(f"storage '{storage.name}' does not support '{content}' content")
    return storage, content, check_file_name(values["filename"], content)


@endpoint(
    "POST",
    "/nodes/{node}/storage/{storage}/upload",
    parameters={**_FILE, "tmpfilename": text(pattern="/var/tmp/pveupload-[0-9a-f]+")},
    permissions=perm("/storage/{storage}", "Datastore.AllocateTemplate"),
    upload=True,
)
def upload(call: Call) -> Any:
    """Take an uploaded file."""
    storage, content, filename = _target(call)
    uploaded = call.upload
    if uploaded is None:
        raise ParameterError({"filename": "property is missing and it is not optional"})
    algorithm, checksum = call.values.get("checksum-algorithm", ""), call.values.get("checksum", "")

    def work(task: Task) -> None:
        transfer.import_upload(storage, content, filename, uploaded, task, algorithm=algorithm, checksum=checksum)
        call.node.statistics.changed()

    return call.task("imgcopy", "", work)


@endpoint(
    "POST",
    "/nodes/{node}/storage/{storage}/download-url",
    parameters={**_FILE, **_URL, "compression": text()},
    permissions={"check": ["and", _TEMPLATE, _MODIFY]},
)
def download(call: Call) -> Any:
    """Fetch a file from the web."""
    storage, content, filename = _target(call)
    values = call.values
    if values.get("compression"):
        raise ParameterError({"compression": "decompression of downloads is not supported by this lab"})

    def work(task: Task) -> None:
        transfer.download(
            storage,
            content,
            filename,
            values["url"],
            task,
            algorithm=values.get("checksum-algorithm", ""),
            checksum=values.get("checksum", ""),
            verify_certificates=bool(values.get("verify-certificates", 1)),
        )

    return call.task("download", filename, work)


@endpoint(
    "GET",
    "/nodes/{node}/query-url-metadata",
    parameters={"node": NODE, **_URL},
    permissions={"check": _MODIFY},
)
def url_metadata(call: Call) -> Any:
    """Return what the web says about a file."""
    return transfer.metadata(call.values["url"], verify_certificates=bool(call.values.get("verify-certificates", 1)))
