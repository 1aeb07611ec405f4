"""Fetch packages of the distribution without installing them and without root: ``apt-get download`` in folders of ours.

apt is used with the system's own sources, keys and proxies, but with its state and cache in a temporary folder, so an
unprivileged user can run it and the system's lists stay as they are. The lists that the system has are tried first;
where they are missing or out of date, fresh ones are fetched.

The empty `Dir::State::status` matters: with the real one, apt insists on the version that is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..error import GuestError
from . import cache
from .deb import Deb

_SYSTEM_LISTS = Path("/var/lib/apt/lists")
_TIMEOUT_S = 600
_OUTPUT_LINES = 12
_ARCHITECTURE = "amd64"


class Apt:
    """apt with a state of its own in `directory`, over the system's lists or over fresh ones."""

    def __init__(self, directory: Path, *, fresh: bool) -> None:
        self._directory = directory
        self._configuration: Path | None = None
        self.fresh = fresh
        self.said = ""  # the last command and the end of its output
        lists = directory / "lists" if fresh else _SYSTEM_LISTS
        for made in ("lists/partial", "cache/archives/partial"):
            (directory / made).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        settings = {
            "Dir::State": directory,
            "Dir::State::lists": lists,
            "Dir::State::status": directory / "status",
            "Dir::Cache": directory / "cache",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::main": "/dev/null",
            "APT::Architecture": _ARCHITECTURE,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::http::Timeout": 30,
            "Acquire::https::Timeout": 30,
            "Acquire::Retries": 2,
            "Debug::NoLocking": 1,
        }
        # The system's configuration with its proxies, less the commands it would run; then ours, which wins.
        system = (self._run("apt-config", "dump") or "").splitlines()
        kept = [line for line in system if "-Invoke" not in line]
        kept += [f'{key} "{value}";' for key, value in settings.items()]
        self._configuration = directory / "apt.conf"
        self._configuration.write_text("\n".join(kept) + "\n")

    def update(self) -> bool:
        """Fetch the lists of all sources; True if apt was content."""
        return self._run("apt-get", "-q", "update") is not None

    def dependencies(self, package: str) -> list[str]:
        """Return the names of the packages that `package` depends on; empty if it is not known."""
        text = self._run("apt-cache", "depends", package) or ""
        return re.findall(r"^\s*(?:Pre)?Depends: (\S+)", text, re.MULTILINE)

    def knows(self, package: str) -> bool:
        """Tell whether a version of `package` can be had."""
        return "Filename: " in (self._run("apt-cache", "show", "--no-all-versions", package) or "")

    def download(self, packages: Sequence[str], directory: Path) -> bool:
        """Fetch `packages` into `directory`; False if apt could not."""
        return self._run("apt-get", "-q", "download", *packages, cwd=directory) is not None

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> str | None:
        environment = {**os.environ, "LC_ALL": "C"}
        if self._configuration:
            environment["APT_CONFIG"] = str(self._configuration)
        try:
            done = subprocess.run(
                [program, *arguments],
                cwd=cwd or self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            self.said = f"{program}: not found on this system"
            return None
        except subprocess.TimeoutExpired:
            self.said = f"{program} {' '.join(arguments)}: no end after {_TIMEOUT_S} s"
            return None
        tail = "\n".join(done.stdout.strip().splitlines()[-_OUTPUT_LINES:])
        self.said = f"$ {program} {' '.join(arguments)}\n{tail}"
        return done.stdout if done.returncode == 0 else None


def fetch(name: str, candidates: Sequence[str], choose: str, companions: str = "") -> cache.Entry:
    """Return an entry that holds a package's files ``*.deb``, fetching them if no readable ones are there.

    Args:
        name: what the entry is called.
        candidates: package names to try in order; the first that is known is taken.
        choose: regular expression; a candidate whose dependencies match stands for the first that does (a
            metapackage for the concrete kernel). Empty: the candidate itself.
        companions: regular expression of dependencies of the chosen package to fetch with it. Empty: none.

    Raises:
        GuestError: apt is missing, knows none of them, or could not fetch; no space.
    """

    def build(directory: Path) -> None:
        cache.tell(f"fetching {name}: {candidates[0]}")
        said: list[str] = []
        with tempfile.TemporaryDirectory(prefix=".apt-", dir=directory) as temporary:
            for fresh in (False, True):
                apt = Apt(Path(temporary) / str(fresh), fresh=fresh)
                packages = _choose(apt, candidates, choose, companions, said)
                if packages and apt.download(packages, directory) and _all_readable(directory):
                    return
                said.append(apt.said)
        raise GuestError(_cannot(name, candidates, said[-2:]))

    # Named, not keyed by version: what was fetched once serves until it is deleted.
    return cache.entry("packages", name, build, needs_mib=200)


def _choose(apt: Apt, candidates: Sequence[str], choose: str, companions: str, said: list[str]) -> list[str]:
    if apt.fresh:
        apt.update()  # a source that fails need not be the one we want
        said.append(apt.said)
    for candidate in candidates:
        if not apt.knows(candidate):
            continue
        chosen = candidate
        if choose:
            matching = [name for name in apt.dependencies(candidate) if re.fullmatch(choose, name)]
            chosen = matching[0] if matching else candidate
        more = [name for name in apt.dependencies(chosen) if companions and re.fullmatch(companions, name)]
        return [chosen, *more]
    return []


def _all_readable(directory: Path) -> bool:
    packages = list(directory.glob("*.deb"))
    return bool(packages) and all(Deb(path).fields().get("Package") for path in packages)


def _cannot(name: str, candidates: Sequence[str], said: Sequence[str]) -> str:
    remedy = "Check the network and the package sources (apt-get update), then run: course guest build"
    if name == "kernel":
        remedy += (
            "; or bring a package linux-image-*-cloud-amd64.deb by hand and name it: COURSE_KERNEL_DEB=/path/to/it"
        )
    evidence = "\n".join(said).strip()
    return f"cannot fetch the package {' or '.join(candidates)}.\n{evidence}\n{remedy}. Nothing was left behind."
