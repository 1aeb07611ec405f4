"""The small Linux: cloned, booted, with disks and NICs, saved, moved, reset, switched off."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from course import guest
from course.error import UsageError
from course.guest import kernel, template

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("linux_files")]


def told(vm: guest.LinuxGuest, command: str, timeout_s: float = 20) -> str:
    """What a command in the guest prints; it must succeed."""
    status, text = vm.console.run(command, timeout_s)
    assert status == 0, text
    return text.strip()


def counts_on(vm: guest.LinuxGuest, beyond: int) -> int:
    """Wait until the guest's counter is beyond a number."""
    end = time.monotonic() + 60
    while (count := guest.counter(vm)) <= beyond:
        assert time.monotonic() < end, f"the counter stands at {count}"
        time.sleep(0.01)
    return count


@pytest.mark.parametrize("cold", [False, True], ids=["clone", "cold"])
def test_linux_answers_at_its_shell(cold: bool) -> None:
    """Its kernel is the package's, its name is the machine's, its clock the host's, and its counter counts."""
    with guest.linux("web-1", cold=cold) as vm:
        assert told(vm, "uname -r") == kernel.ensure().release
        assert told(vm, "hostname") == "web-1"
        assert abs(int(told(vm, "date +%s")) - time.time()) < 30
        assert told(vm, "id -u; echo $$ >/dev/null; cat /proc/1/comm") == "0\ninit"
        counts_on(vm, guest.counter(vm))
        assert 0 < int(told(vm, "counter")) <= guest.counter(vm)


def test_clone_console_begins_clean() -> None:
    """A transcript shows what was typed and what came back, and no control sequences."""
    with guest.linux("vm") as vm:
        vm.console.sendline("echo $((6 * 7))")
        vm.console.expect("\n42\n")
        vm.console.expect("# ")
        lines = vm.console.text.split("\n")
    assert lines == ["READY ", "vm:/root# echo $((6 * 7))", "42", "vm:/root# "]


def test_clones_are_told_apart() -> None:
    """Two clones have names, boot ids, random numbers and MAC addresses of their own."""
    nics = [{"type": "hubport", "hubid": 0}]
    with guest.linux("a", nics=nics) as a, guest.linux("b", nics=nics) as b:
        command = "cat /proc/sys/kernel/random/boot_id; hostname; cat /sys/class/net/eth0/address; "
        command += "head -c 16 /dev/urandom | hexdump -v -e '1/1 \"%02x\"'"
        one, two = (told(vm, command).split("\n") for vm in (a, b))
    assert len(one) == 4
    assert [mine == theirs for mine, theirs in zip(one, two, strict=True)] == [False] * 4


def test_clone_does_not_write_to_its_template() -> None:
    """What a clone does in RAM stays there."""
    with guest.linux() as vm:
        entry = template.ensure(vm.spec, template.files()).entry
        before = {path.name: path.stat().st_mtime_ns for path in entry.path.iterdir()}
        told(vm, "dd if=/dev/zero of=/tmp/fill bs=1M count=20 2>/dev/null; echo changed >/tmp/mark; sync")
    assert {path.name: path.stat().st_mtime_ns for path in entry.path.iterdir()} == before
    with guest.linux() as vm:
        assert vm.console.run("test -e /tmp/mark")[0] == 1


@pytest.mark.parametrize("cold", [False, True], ids=["clone", "cold"])
def test_disks_and_nics_are_there(cold: bool, tmp_path: Path) -> None:
    """Sizes make qcow2 disks, paths are attached as they are, NICs have their MAC; all work."""
    raw = guest.bootsector.disk("a disk", tmp_path / "one.img")
    mac = "52:54:00:00:01:69"
    with guest.linux(disks=[16, raw], nics=[{"type": "user", "mac": mac}, {"type": "user"}], cold=cold) as vm:
        assert told(vm, "cat /sys/block/vda/size /sys/block/vdb/size").split() == ["32768", "2048"]
        assert told(vm, "cat /sys/class/net/eth0/address") == mac
        assert told(vm, "head -c 512 /dev/vdb | tail -c 2 | hexdump -e '1/1 \"%02x\"'") == "55aa"
        told(vm, "mke2fs /dev/vda >/dev/null 2>&1; mount -t ext2 /dev/vda /mnt; echo data >/mnt/f; umount /mnt")
        told(vm, "net-up && ping -c 1 -W 5 10.0.2.2", 40)
        named = {node["node-name"]: node for node in vm.execute("query-named-block-nodes")}
        assert named["disk0"]["drv"] == "qcow2"
        assert named["disk1"]["drv"] == "raw"
        own = Path(named["disk0"]["file"])
        assert own.exists()
    assert not own.exists()


def test_address_is_set_by_hand() -> None:
    """net-up takes an address and a gateway."""
    with guest.linux(nics=[{"type": "user"}]) as vm:
        told(vm, "net-up 10.0.2.77/24 10.0.2.2")
        assert "10.0.2.77/24" in told(vm, "ip addr show dev eth0")
        assert "default via 10.0.2.2" in told(vm, "ip route")


def test_snapshot_returns_ram_and_disk() -> None:
    """After a rollback, counter, files in RAM and files on disk are as when the snapshot was taken."""
    with guest.linux(disks=[64]) as vm:
        told(vm, "mke2fs /dev/vda >/dev/null 2>&1; mount -t ext2 /dev/vda /mnt; echo old | tee /tmp/f >/mnt/f; sync")
        vm.pause()
        saved = guest.counter(vm)
        vm.snapshot("before")
        vm.resume()
        told(vm, "echo new | tee /tmp/f >/mnt/f; sync")
        counts_on(vm, saved + 5)
        vm.pause()
        vm.rollback("before")
        assert guest.counter(vm) == saved
        vm.resume()
        assert told(vm, "cat /tmp/f /mnt/f") == "old\nold"
        vm.delete_snapshot("before")


def test_guest_migrates_with_its_devices() -> None:
    """On the other side the counter goes on, and disk, NIC and shell work."""
    with guest.linux("mover", disks=[16], nics=[{"type": "user"}]) as source:
        told(source, "echo precious >/tmp/f; echo on disk >/dev/vda; net-up 10.0.2.15/24")
        before = guest.counter(source)
        with source.migration_target() as target:
            source.migrate(target)
            assert target.runstate == "running"
            after = counts_on(target, before)
            assert after < before + 20 * 60
            assert told(target, "cat /tmp/f; head -n 1 /dev/vda; hostname") == "precious\non disk\nmover"
            told(target, "ping -c 1 -W 5 10.0.2.2")
            with target.migration_target() as third:
                target.migrate(third)
                assert told(third, "cat /tmp/f") == "precious"


def test_migrated_clone_can_be_reset() -> None:
    """A guest that was cloned and moved boots from its kernel like any other."""
    with guest.linux("mover", disks=[16]) as source, source.migration_target() as target:
        source.migrate(target)
        target.reset()
        assert told(target, "hostname; ls /dev/vda; ls /tmp") == "mover\n/dev/vda"


def test_reset_loses_what_was_in_ram() -> None:
    """A clone that is reset boots under its own name, finds its devices, and counts from the beginning."""
    with guest.linux("web-1", disks=[16], nics=[{"type": "user"}]) as vm:
        told(vm, "echo data >/tmp/f; echo on disk >/dev/vda")
        boot_id = told(vm, "cat /proc/sys/kernel/random/boot_id")
        high = counts_on(vm, guest.counter(vm) + 100)
        vm.reset()
        assert guest.counter(vm) < high
        assert told(vm, "hostname; head -n 1 /dev/vda; ls -1 /sys/class/net; ls /tmp") == "web-1\non disk\neth0\nlo"
        assert told(vm, "cat /proc/sys/kernel/random/boot_id") != boot_id


def test_power_button_switches_off() -> None:
    """ACPI's button ends the guest in order: its disk is unmounted clean."""
    with guest.linux(disks=[16]) as vm:
        told(vm, "mke2fs /dev/vda >/dev/null 2>&1; mount -t ext2 /dev/vda /mnt; echo data >/mnt/f")
        assert vm.shutdown(30) == 0


def test_ram_and_disk_grow_by_hot_plug() -> None:
    """Slots for RAM and free ports are there for lessons."""
    with guest.linux() as vm:
        before = int(told(vm, "sed -n 's/MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo"))
        vm.execute("object-add", qom_type="memory-backend-ram", id="more", size=128 << 20)
        vm.execute("device_add", driver="pc-dimm", id="dimm0", memdev="more")
        online = (
            "for m in /sys/devices/system/memory/memory*; do grep -q offline $m/state && echo online >$m/state; done"
        )
        told(vm, f"until [ -e /sys/devices/system/memory/memory32 ]; do usleep 50000; done; {online}; true")
        after = int(told(vm, "sed -n 's/MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo"))
        assert after - before == 128 << 10
        vm.execute("blockdev-add", driver="null-co", node_name="n", size=1 << 20, read_zeroes=True)
        vm.execute("device_add", driver="virtio-blk-pci", id="late", drive="n", bus="rp8")
        told(vm, "until [ -b /dev/vda ]; do usleep 50000; done")


def test_containers_can_be_taught_inside() -> None:
    """Modules come when they are asked for: overlay, veth, bridge; cgroup v2 has its controllers."""
    with guest.linux() as vm:
        assert {"cpu", "memory", "pids", "io"} <= set(told(vm, "mount-cgroups").split())
        told(vm, "mount-cgroups && mkdir /sys/fs/cgroup/lab && echo 8 >/sys/fs/cgroup/lab/pids.max")
        told(vm, "mkdir /tmp/l /tmp/u /tmp/w /tmp/m; echo low >/tmp/l/f; mount -t tmpfs t /tmp/u")
        told(
            vm,
            "mkdir /tmp/u/u /tmp/u/w; mount -t overlay -o lowerdir=/tmp/l,upperdir=/tmp/u/u,workdir=/tmp/u/w o /tmp/m",
        )
        assert told(vm, "cat /tmp/m/f") == "low"
        told(vm, "ip link add v0 type veth peer name v1; ip link add br0 type bridge; ip link set v0 master br0")
        inside = "hostname box; mount -t proc proc /proc; echo $$ $(hostname) $(ls /sys/class/net | wc -l)"
        assert told(vm, f"unshare -p -f -m -u -n -i sh -c '{inside}'").split()[:2] == ["1", "box"]
        assert told(vm, "hostname") == "vm"


def test_screen_shows_a_shell() -> None:
    """With a VGA card there is a picture."""
    with guest.linux(vga=True) as vm:
        assert vm.screenshot().png.startswith(b"\x89PNG")


def test_further_arguments_are_part_of_the_machine() -> None:
    """More devices make another template; they are in the clone from the beginning."""
    with guest.linux(arguments=["-device", "virtio-balloon-pci,id=balloon"]) as vm:
        told(vm, "modprobe virtio_balloon && ls /sys/bus/virtio/drivers/virtio_balloon/ | grep virtio")
        assert vm.execute("query-balloon")["actual"] == 128 << 20


def test_guest_of_two_processors() -> None:
    """All processors are up."""
    with guest.linux(cpus=2) as vm:
        assert told(vm, "nproc") == "2"


def test_second_monitor_is_there() -> None:
    """Options of Machine pass through."""
    with guest.linux(qmp_sockets=1) as vm:
        assert Path(vm.qmp_path).is_socket()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ram_mib": 64}, "ram_mib is 64; expected 96"),
        ({"cpus": 0}, "cpus is 0"),
    ],
)
def test_absurd_machines_are_refused(options: dict[str, int], said: str) -> None:
    """Before anything starts, the value and what was expected are named."""
    with pytest.raises(UsageError, match=said):
        guest.linux(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"disks": ["/nowhere/disk.qcow2"]}, "no disk image /nowhere/disk.qcow2"),
        ({"disks": [0]}, "a disk of 0 MiB"),
        ({"disks": [1] * 9}, "8 ports"),
        ({"nics": [{"id": "x"}]}, "has no type"),
    ],
)
def test_absurd_devices_are_refused(options: dict[str, list[object]], said: str) -> None:
    """The launch fails with a sentence, and no process stays."""
    vm = guest.linux(**options)
    with pytest.raises(UsageError, match=said):
        vm.launch()
    assert not vm.running


def test_names_become_hostnames() -> None:
    """What a hostname cannot hold becomes a hyphen; a shell never sees it."""
    with guest.linux("my vm; reboot") as vm:
        assert told(vm, "hostname") == "my-vm--reboot"


def test_first_use_says_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a template one is booted, and whoever watches is told; the second guest finds it."""
    linux = kernel.ensure()
    package = sorted(Path(linux.image).parents[2].glob("packages/kernel/*.deb"))
    if not package:
        pytest.skip("the kernel was named by hand")
    monkeypatch.setenv("COURSE_KERNEL_DEB", ":".join(map(str, package)))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    heard: list[str] = []
    with guest.linux(progress=heard.append) as vm:
        assert told(vm, "echo hi") == "hi"
    assert any("unpacking" in said for said in heard)
    assert any("booting a Linux guest once" in said for said in heard)
    heard.clear()
    with guest.linux(progress=heard.append):
        assert heard == []
    state = next(tmp_path.glob("templates/*/state"))
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    with guest.linux(progress=heard.append):
        assert any("booting a Linux guest once" in said for said in heard)


def test_nothing_is_left_behind() -> None:
    """After the block, neither process nor directory remains."""
    with guest.linux(disks=[16], qmp_sockets=1) as vm:
        pid, folder = vm.pid, Path(vm.qmp_path).parent
    assert not Path(f"/proc/{pid}").exists()
    assert not folder.exists()


def test_interrupted_launch_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C between restore and shell ends the machine."""

    def interrupt(_: guest.LinuxGuest, timeout_s: float = 0) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(guest.LinuxGuest, "await_shell", interrupt)
    vm = guest.linux(disks=[16])
    with pytest.raises(KeyboardInterrupt):
        vm.launch()
    assert vm.pid is not None
    assert not vm.running
    assert not Path(f"/proc/{vm.pid}").exists()


def test_template_runs_for_an_unprivileged_user(as_nobody: object, tmp_path: Path, linux_files: template.Files) -> None:
    """Kernel, template and clone are made by a user without any right, from a package given by hand."""
    packages = sorted(Path(linux_files.kernel).parents[2].glob("packages/kernel/*.deb"))
    if not packages:
        pytest.skip("the kernel was named by hand")
    public = tmp_path / "packages"
    public.mkdir()
    given = [public / package.name for package in packages]
    for package, copy in zip(packages, given, strict=True):
        copy.write_bytes(package.read_bytes())
    done = as_nobody(
        "from course import guest\n"
        "with guest.linux('plain') as vm: print(vm.console.run('hostname; id -u'), guest.counter(vm) > 0)",
        COURSE_KERNEL_DEB=":".join(map(str, given)),
    )
    assert done.stdout == "(0, 'plain\\n0\\n') True\n", done.stderr


def test_build_makes_everything_once() -> None:
    """The second time there is nothing to say."""
    guest.build()
    heard: list[str] = []
    guest.build(heard.append)
    assert heard == []


def test_import_starts_nothing() -> None:
    """Importing the guests loads no image library and starts no process."""
    import sys

    program = "import sys; from course import guest; print('pycdlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
