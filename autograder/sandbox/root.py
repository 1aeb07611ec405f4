"""The root of a box: a small tmpfs with the programs of the host in it, read-only, and nothing else of the host.

::

    /                 one tmpfs of limited size, read-only …
    ├─ tmp student dev/shm          … but for these, which are folders of the same tmpfs: one limit for all
    ├─ usr bin lib lib64 sbin       of the host, read-only
    ├─ etc                          made here: a user, a host; fonts and alternatives of the host
    ├─ dev                          null zero full random urandom tty; pts of its own
    ├─ proc                         of its own: its processes only
    ├─ the Python, the environment, course/ (without lessons)   at their own paths, read-only
    ├─ the guests' cache            at its own path, writable, but for the host's entries: nobody puts another guest in
    │                               the place of one that checks will boot
    └─ the run directory            shared with the judge, writable

Paths of the Python, the course and the cache are those of the host: compiled files and templates name them. A template
of a guest that is not in the cache is made in the box and vanishes with it.

`Plan.here` looks around once, in the zygote; `Plan.build` runs in the first process of each box.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import site
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from course.guest.cache import cache_dir

from . import linux

HOME = "/student"
WORK = f"{HOME}/work"
CACHE = "/run/cache"

SYSFS = ("/sys/bus", "/sys/devices")
"""What lessons read of the host's devices, for reading only."""
SYSTEM = ("/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32")
_ETC = ("alternatives", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "services")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
SECRET = ("lessons", "locale")
_SKIPPED = ("*.ipynb", "timestamp.txt", ".ipynb_checkpoints")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the boxes of a zygote see of the host.

    Attributes:
        readable: folders that are there read-only, at their own paths; outer ones first.
        course: the folder of the package `course`.
        cache: the guests' cache.
    """

    readable: tuple[str, ...]
    course: str
    cache: str

    @classmethod
    def here(cls) -> Plan:
        """Look around: which Python, which environment, which course."""
        import course  # noqa: PLC0415 - where it was found is what matters

        package = str(Path(course.__file__).resolve().parent)
        wanted = ["/usr", sys.base_prefix, sys.prefix, package]
        user = site.getusersitepackages() if site.ENABLE_USER_SITE else None
        wanted += [path for path in (*sys.path, user) if path and path.endswith(("site-packages", "dist-packages"))]
        found: list[str] = []
        for path in wanted:
            clean = os.path.abspath(path)  # noqa: PTH100 - links stay links: sys.path names them so
            inside = any(Path(clean).is_relative_to(other) for other in found)
            if clean != "/" and os.path.isdir(clean) and (not inside or clean == package):  # noqa: PTH112 - some are closed
                found.append(clean)
        return cls(tuple(found), package, str(cache_dir()))

    def environment(self) -> dict[str, str]:
        """Return the environment of a kernel in a box."""
        programs = [f"{sys.prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
        return {
            "HOME": HOME,
            "USER": "student",
            "LOGNAME": "student",
            "PATH": os.pathsep.join(programs),
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",
            "COURSE_CACHE": self.cache,
            "IPYTHONDIR": f"{HOME}/.ipython",
            "JUPYTER_CONFIG_DIR": f"{HOME}/.jupyter",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }

    def build(self, root: str, work: str, shared: str, *, uid: int, disk_mib: int, kvm: bool = False) -> None:
        """Make the root and step into it. The mount namespace is fresh, and all rights over it are there.

        Args:
            root: an empty folder to mount it on.
            work: the submission's folder, of which a copy without notebooks goes in.
            shared: the run directory.
            uid: who will live there.
            disk_mib: size of all its files together, in MiB.
            kvm: bring in /dev/kvm.
        """
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
        linux.mount(
            "box", root, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, f"size={disk_mib}m,nr_inodes=100000,mode=755"
        )
        self._system(root)
        self._devices(root, kvm)
        for path in (*filter(os.path.isdir, SYSFS), *self.readable):
            _bind(root, path)
        self._hide_lessons(root)
        self._guests(root, uid)
        writable = ["/tmp", HOME, "/dev/shm"]
        for path in writable:
            _folder(root + path, 0o1777 if path in ("/tmp", "/dev/shm") else 0o755)
        copy_submission(work, root + WORK)
        _own(root + HOME, uid)
        for path in writable:
            linux.mount(root + path, root + path, None, linux.MS_BIND | linux.MS_REC)
        _bind(root, shared, writable=True)
        _etc(root, uid)
        _proc(root, hide=os.getuid() == 0)
        linux.mount(
            None, root, None, linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
        )
        linux.pivot_root(root)

    def _system(self, root: str) -> None:
        for path in SYSTEM:
            here = Path(path)
            if here.is_symlink():
                Path(root + path).symlink_to(here.readlink())
            elif here.is_dir():
                _bind(root, path)
        for name in _ETC:
            if Path("/etc", name).exists():
                _bind(root, f"/etc/{name}")

    def _devices(self, root: str, kvm: bool) -> None:
        for name in (*_DEVICES, *(["kvm"] if kvm else [])):
            path = f"{root}/dev/{name}"
            if Path("/dev", name).exists():
                _file(path)
                linux.mount(f"/dev/{name}", path, None, linux.MS_BIND)
        for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            Path(f"{root}/dev/{name}").symlink_to(target)
        _folder(f"{root}/dev/pts")
        with contextlib.suppress(OSError):  # a kernel without pseudo-terminals of one's own: then there are none
            options = "newinstance,ptmxmode=0666,mode=620"
            linux.mount("devpts", f"{root}/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, options)
            Path(f"{root}/dev/ptmx").symlink_to("pts/ptmx")

    def _hide_lessons(self, root: str) -> None:
        """Cover what of the package holds solutions; students do not have it."""
        empty = _folder(f"{root}/run/empty", 0o555)
        for name in SECRET:
            if Path(self.course, name).is_dir():
                linux.bind(empty, f"{root}{self.course}/{name}")

    def _guests(self, root: str, uid: int) -> None:
        """Bring in the cache: folders to write in, with the host's entries mounted, which can neither be moved away."""
        _bind_writable(root + self.cache, uid)
        if not Path(self.cache).is_dir():
            return
        linux.bind(self.cache, _folder(root + CACHE), noexec=True)
        kinds = set()
        for place, entry in self.links():
            if (kind := os.path.dirname(place)) not in kinds:  # noqa: PTH120 - there are many
                kinds.add(kind)
                _bind_writable(root + kind, uid)
            _mount_point(root + place, like=root + entry)
            linux.mount(root + entry, root + place, None, linux.MS_BIND)  # read-only, as what it is a part of

    def links(self) -> Iterator[tuple[str, str]]:
        """Yield the entries of the cache: path, and where the host's is inside."""
        for kind in Path(self.cache).iterdir():
            if kind.is_dir() and not kind.is_symlink() and kind.name != "locks":
                for entry in kind.iterdir():
                    if not entry.name.startswith(".") and not entry.is_symlink():
                        yield str(entry), f"{CACHE}/{kind.name}/{entry.name}"

    def share_cache(self) -> None:
        """Let everybody read the entries of the cache: a box is somebody else than root."""
        with contextlib.suppress(OSError):
            for kind in Path(self.cache).iterdir():
                if kind.is_dir() and not kind.is_symlink():
                    _share(kind)
                    for entry in kind.iterdir():
                        _share(entry)


def _share(path: Path) -> None:
    """Add reading (and entering) for all to a folder of the cache and its files, where it is missing."""
    with contextlib.suppress(OSError):
        for one in (path, *(child for child in path.iterdir() if child.is_file() and not child.is_symlink())):
            mode = stat.S_IMODE(one.stat().st_mode)
            wanted = mode | (0o055 if one.is_dir() else 0o044)
            if wanted != mode and not one.is_symlink():
                one.chmod(wanted)


def copy_submission(source: str, target: str) -> None:
    """Copy a submission's folder without notebooks: they hold the tests. Links stay links, devices stay out."""

    def skip(folder: str, names: list[str]) -> set[str]:
        odd = {name for name in names if not _plain(Path(folder, name))}
        return odd | set(shutil.ignore_patterns(*_SKIPPED)(folder, names))

    shutil.copytree(source, target, symlinks=True, ignore=skip, dirs_exist_ok=True)


def _plain(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def _own(path: str, uid: int) -> None:
    """Give a folder of the box to its inhabitant, with all in it; links are not followed."""
    if os.getuid() != 0 or uid == 0:
        return
    os.chown(path, uid, uid, follow_symlinks=False)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(Path(folder, name), uid, uid, follow_symlinks=False)


def _folder(path: str, mode: int = 0o755) -> str:
    Path(path).mkdir(parents=True, exist_ok=True)
    Path(path).chmod(mode)
    return path


def _bind_writable(path: str, uid: int) -> None:
    """Make a folder of somebody's, which stays where it is: a mount point cannot be moved."""
    _folder(path)
    if os.getuid() == 0:
        os.chown(path, uid, uid)
    linux.mount(path, path, None, linux.MS_BIND)


def _mount_point(path: str, *, like: str) -> None:
    if os.path.isdir(like):  # noqa: PTH112 - there are many
        os.mkdir(path)  # noqa: PTH102
    else:
        _file(path)


def _file(path: str, text: str = "") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def _bind(root: str, path: str, *, writable: bool = False) -> None:
    target = root + path
    if Path(path).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    elif not Path(target).exists():
        _file(target)
    linux.bind(path, target, writable=writable)


def _etc(root: str, uid: int) -> None:
    _file(f"{root}/etc/passwd", f"root:x:0:0::/:/bin/sh\nstudent:x:{uid}:{uid}::{HOME}:/bin/sh\n")
    _file(f"{root}/etc/group", f"root:x:0:\nstudent:x:{uid}:\n")
    _file(f"{root}/etc/hosts", "127.0.0.1 localhost box\n::1 localhost\n")
    _file(f"{root}/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
    _file(f"{root}/etc/hostname", "box\n")


def _proc(root: str, *, hide: bool) -> None:
    """Mount a /proc of its own; where another user judges inside, his processes are not shown."""
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    target = _folder(f"{root}/proc")
    if hide:
        with contextlib.suppress(OSError):
            linux.mount("proc", target, "proc", flags, "hidepid=2")
            return
    linux.mount("proc", target, "proc", flags)
