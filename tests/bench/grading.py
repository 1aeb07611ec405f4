"""From the wish for a kernel to its first answer: stock, by bubblewrap, forked from the zygote; as ratios."""

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from jupyter_client import BlockingKernelClient, KernelManager

from autograder.sandbox import Isolation, Level, Zygote, probe, probing
from autograder.sandbox.zygote import sockets

ROUNDS = 7


def answer_of(connection_file):
    """Wait for the reply to one line; the kernel's sockets are there."""
    client = BlockingKernelClient()
    client.load_connection_file(str(connection_file))
    client.start_channels()
    try:
        client.execute_interactive("1 + 1", output_hook=lambda message: None, timeout=120)
    finally:
        client.stop_channels()


def stock():
    """Start as nbclient does: a new Python, TCP, and the client's own way of waiting."""
    manager = KernelManager(kernel_name="python3")
    begin = time.perf_counter()
    manager.start_kernel(stderr=subprocess.DEVNULL)  # it warns of TCP
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    client.execute_interactive("1 + 1", output_hook=lambda message: None, timeout=120)
    seconds = time.perf_counter() - begin
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    return seconds


def boxed(zygote):
    """Start in a box."""
    base = Path(tempfile.mkdtemp(prefix="bench-"))
    base.chmod(0o755)
    try:
        for name in ("work", "run"):
            (base / name).mkdir()
        begin = time.perf_counter()
        with zygote.box(base / "work", base / "run") as box:
            while not all(path.exists() for path in sockets(box.run_dir)):
                time.sleep(0.001)
            ready = time.perf_counter() - begin
            answer_of(box.connection_file)
            return time.perf_counter() - begin, ready
    finally:
        shutil.rmtree(base)


def main():
    """Print the medians of interleaved rounds, beside the stock kernel's."""
    level = probe()
    print(f"level here: {level}")
    zygotes = {}
    for name, tried in (("zygote", level), ("bubblewrap", Level(Isolation.BUBBLEWRAP))):
        why = probing.attempt(tried) if tried.level is not Isolation.NONE else "boxes are refused"
        if why:
            print(f"{name}: not here, {why}")
        else:
            zygotes[name] = Zygote(tried)
            boxed(zygotes[name])
    times = {"stock": [], **{name: [] for name in zygotes}}
    sockets_there = {name: [] for name in zygotes}
    for _ in range(ROUNDS):
        times["stock"].append(stock())
        for name, zygote in zygotes.items():
            seconds, ready = boxed(zygote)
            times[name].append(seconds)
            sockets_there[name].append(ready)
    for zygote in zygotes.values():
        zygote.close()
    reference = statistics.median(times["stock"])
    print(f"kernel start to first answer, medians of {ROUNDS}, load {os.getloadavg()[0]:.1f}:")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        ready = f"; its sockets after {statistics.median(sockets_there[name]) * 1000:.0f} ms" if name in zygotes else ""
        print(f"  {name:11} {median * 1000:6.0f} ms   {median / reference:5.2f} x stock{ready}")
