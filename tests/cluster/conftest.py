"""Where the vectors of other projects are: beside the checkout, never in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from course.cluster.lab import Cluster
from tests.cluster.answers import Watcher

ROOT = Path(__file__).resolve().parents[2]
BESIDE = ROOT.parent / "shared" / "pve"

Compare = Callable[[str, "list[tuple[str, object, object]]"], None]


@pytest.fixture(scope="session")
def pve() -> Path:
    """The folder with the schema, the recordings and the regression vectors of the Proxmox projects."""
    folder = Path(os.environ.get("COURSE_PVE_DATA") or BESIDE)
    if not (folder / "vectors").is_dir():
        pytest.skip(f"no Proxmox data in {folder}: they are not ours to ship; set COURSE_PVE_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def recordings(pve: Path) -> list[dict[str, Any]]:
    """Recorded exchanges with a real Proxmox VE."""
    exchanges: list[dict[str, Any]] = json.loads((pve / "vectors" / "recordings-real-pve.json").read_text())
    return exchanges


@pytest.fixture(scope="session")
def schema(pve: Path) -> dict[str, Any]:
    """The official schema of the API of Proxmox VE 8.1, by path and method."""
    paths: dict[str, Any] = json.loads((pve / "apidoc-8.1.json").read_text())["paths"]
    return paths


@pytest.fixture
def compare(record_property: Callable[[str, object], None]) -> Compare:
    """Compare a set of vectors, say in the summary how many hold, and fail with those that do not."""

    def run(what: str, cases: list[tuple[str, object, object]]) -> None:
        wrong = [f"{name}: expected {expected!r}, got {got!r}" for name, expected, got in cases if expected != got]
        record_property("vectors", [what, len(cases) - len(wrong), len(cases)])
        assert cases, f"no vectors found for {what}"
        assert not wrong, f"{len(wrong)} of {len(cases)} {what}:\n" + "\n".join(wrong[:20])

    return run


FAST = {
    "auth_delay_s": 0,
    "status_every_s": 0.5,
    "ha_tick_s": 0.2,
    "fence_delay_s": 2.0,
    "reboot_s": 1.0,
    "unplug_s": 90,
}
"""Settings of a lab that does not let tests wait."""


@pytest.fixture(scope="session")
def lab() -> Iterator[Cluster]:
    """One running lab cluster for all tests of a worker; who changes it puts it right again."""
    with Cluster(**FAST) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def api(lab: Cluster) -> Any:
    """The lab's API as root@pam, by proxmoxer."""
    return lab.api()


@pytest.fixture(autouse=True)
def answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compare each answer that a test gets from the lab with the official schema, where it is there."""
    folder = Path(os.environ.get("COURSE_PVE_DATA") or BESIDE)
    if not (folder / "apidoc-8.1.json").is_file() or "lab" not in request.fixturenames:
        yield
        return
    watcher = Watcher(request.getfixturevalue("schema"))
    send = requests.Session.send

    def watched(self: requests.Session, prepared: requests.PreparedRequest, **options: Any) -> requests.Response:
        answer = send(self, prepared, **options)
        watcher.see(answer)
        return answer

    monkeypatch.setattr(requests.Session, "send", watched)
    yield
    request.node.user_properties.append(("answered", sorted(watcher.answered)))
    assert not watcher.wrong, "answers that the official schema does not allow:\n" + "\n".join(watcher.wrong[:20])


@pytest.fixture
def cluster_of() -> Callable[[Path], Cluster]:
    """Makes clusters of a test's own, on a state directory of its own."""
    return lambda state: Cluster(state, **FAST)
