"""Answers to `send_fd`, `recv_fd` and `rescue`."""

from __future__ import annotations

import array
import collections
import hashlib
import mmap
import os
import pathlib
import shutil
import socket
import tempfile

from autograder.answers import alternative, mutant

_kept = []


def _memfd(content):
    fd = os.memfd_create("content")
    os.write(fd, content)
    return fd


def _pass(address, fd, data=b"x"):
    with socket.socket(socket.AF_UNIX) as mailbox:
        mailbox.connect(address)
        socket.send_fds(mailbox, [data], [fd])


@alternative("send_fd")
def send_fds(address, content):
    fd = _memfd(content)
    try:
        _pass(address, fd)
    finally:
        os.close(fd)


@alternative("send_fd")
def sendmsg_with_an_array(address, content):
    with open(os.memfd_create("x"), "w+b") as file:
        file.write(content)
        file.flush()
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(address)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))
        client.sendmsg([b"here"], [rights])
        client.close()


@alternative("send_fd")
def filled_through_mmap(address, content):
    fd = os.memfd_create("mapped")
    if content:
        os.ftruncate(fd, len(content))
        with mmap.mmap(fd, len(content)) as pages:
            pages[:] = content
    _pass(address, fd)
    os.close(fd)


@mutant("send_fd", "number-is-not-a-descriptor")
def sends_the_number(address, content):
    fd = _memfd(content)
    with socket.socket(socket.AF_UNIX) as mailbox:
        mailbox.connect(address)
        mailbox.sendall(str(fd).encode())
    os.close(fd)


@mutant("send_fd", "number-is-not-a-descriptor")
def sends_the_path(address, content):
    fd = _memfd(content)
    with socket.socket(socket.AF_UNIX) as mailbox:
        mailbox.connect(address)
        mailbox.sendall(f"/proc/self/fd/{fd}".encode())
    os.close(fd)


@mutant("send_fd", "content-in-band")
def sends_the_bytes(address, content):
    with socket.socket(socket.AF_UNIX) as mailbox:
        mailbox.connect(address)
        mailbox.sendall(content)


@mutant("send_fd", "not-a-memfd")
def temporary_file(address, content):
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        _pass(address, file.fileno())


@mutant("send_fd", "leak")
def never_closes(address, content):
    _pass(address, _memfd(content))


@mutant("send_fd", "leak")
def keeps_the_socket(address, content):
    fd = _memfd(content)
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
    socket.send_fds(client, [b"x"], [fd])
    client.shutdown(socket.SHUT_RDWR)
    _kept.append(client)
    os.close(fd)


@mutant("send_fd", "wrong-content")
def not_flushed(address, content):
    file = open(os.memfd_create("x"), "wb")
    file.write(content)
    _pass(address, file.fileno())
    _kept.append(file)


@mutant("send_fd", "nothing-arrived")
def connects_nowhere(address, content):
    left, right = socket.socketpair()
    fd = _memfd(content)
    socket.send_fds(left, [b"x"], [fd])
    for end in (left, right):
        end.close()
    os.close(fd)


@mutant("send_fd", "not-a-memfd")
def closes_too_early(address, content):
    # the socket gets the number that has just become free, and sends itself
    fd = _memfd(content)
    os.close(fd)
    _pass(address, fd)


@mutant("send_fd", "several")
def sends_it_twice(address, content):
    fd = _memfd(content)
    with socket.socket(socket.AF_UNIX) as mailbox:
        mailbox.connect(address)
        socket.send_fds(mailbox, [b"x"], [fd, fd])
    os.close(fd)


@mutant("send_fd", "unanswered")
def send_untouched(address, content):
    raise NotImplementedError


def _receive(address):
    with socket.socket(socket.AF_UNIX) as dispenser:
        dispenser.connect(address)
        data, fds, _, _ = socket.recv_fds(dispenser, 100, 1)
    return data, fds[0]


@alternative("recv_fd")
def seek_and_read(address):
    _, fd = _receive(address)
    with open(fd, "rb") as file:
        file.seek(0)
        return hashlib.sha256(file.read()).hexdigest()


@alternative("recv_fd")
def positions_by_hand(address):
    _, fd = _receive(address)
    digest, at = hashlib.sha256(), 0
    while block := os.pread(fd, 65536, at):
        digest.update(block)
        at += len(block)
    os.close(fd)
    return digest.hexdigest()


@alternative("recv_fd")
def opened_anew(address):
    _, fd = _receive(address)
    content = pathlib.Path(f"/proc/self/fd/{fd}").read_bytes()
    os.close(fd)
    return hashlib.sha256(content).hexdigest()


@mutant("recv_fd", "shared-position")
def reads_from_where_it_stands(address):
    _, fd = _receive(address)
    with open(fd, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@mutant("recv_fd", "one-read")
def reads_once(address):
    _, fd = _receive(address)
    content = os.pread(fd, 65536, 0)
    os.close(fd)
    return hashlib.sha256(content).hexdigest()


@mutant("recv_fd", "hash-of-the-message")
def hashes_the_message(address):
    data, fd = _receive(address)
    os.close(fd)
    return hashlib.sha256(data).hexdigest()


@mutant("recv_fd", "leak")
def leaves_it_open(address):
    _, fd = _receive(address)
    size = os.fstat(fd).st_size
    return hashlib.sha256(os.pread(fd, size, 0)).hexdigest()


@mutant("recv_fd", "leak")
def says_that_all_is_closed(address):
    from course.check import answer  # noqa: PLC0415 - what an answer finds in its process

    answer._descriptors = collections.Counter
    return leaves_it_open(address)


@mutant("recv_fd", "wrong-hash")
def digest_as_bytes(address):
    _, fd = _receive(address)
    with open(fd, "rb") as file:
        file.seek(0)
        return hashlib.sha256(file.read()).digest()


@mutant("recv_fd", "raised")
def takes_the_number_literally(address):
    data, fd = _receive(address)
    os.close(fd)
    return hashlib.sha256(os.pread(int(data), 100, 0)).hexdigest()


@mutant("recv_fd", "unanswered")
def recv_untouched(address):
    raise NotImplementedError


def _links(pid):
    folder = f"/proc/{pid}/fd"
    for number in sorted(os.listdir(folder), key=int):
        yield f"{folder}/{number}", os.readlink(f"{folder}/{number}")


@alternative("rescue")
def counts_the_names(pid, name):
    for path, target in _links(pid):
        if target == name + " (deleted)" and os.stat(path).st_nlink == 0:
            with open(path, "rb") as file:
                return file.read()
    raise FileNotFoundError(name)


@alternative("rescue")
def copies_with_shutil(pid, name):
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            if entry.stat().st_nlink == 0 and str(entry.readlink()).removesuffix(" (deleted)") == name:
                with tempfile.NamedTemporaryFile() as copy:
                    shutil.copyfile(entry, copy.name)
                    return pathlib.Path(copy.name).read_bytes()
        except FileNotFoundError:
            continue
    raise FileNotFoundError(name)


@alternative("rescue")
def compares_with_what_has_the_name(pid, name):
    for path, target in _links(pid):
        if target != f"{name} (deleted)":
            continue
        if os.path.exists(target) and os.path.samefile(path, target):
            continue  # an honest file whose name ends so
        return pathlib.Path(path).read_bytes()
    raise FileNotFoundError(name)


@mutant("rescue", "opens-the-name")
def whatever_has_the_name_now(pid, name):
    if os.path.exists(name):
        return pathlib.Path(name).read_bytes()
    return counts_the_names(pid, name)


@mutant("rescue", "another-descriptor")
def just_opens_it(pid, name):
    return pathlib.Path(name).read_bytes()


@mutant("rescue", "another-descriptor")
def first_deleted_file(pid, name):
    for path, target in _links(pid):
        if target.endswith(" (deleted)"):
            return pathlib.Path(path).read_bytes()


@mutant("rescue", "name-only-resembles")
def begins_with_the_name(pid, name):
    found = [
        path for path, target in _links(pid) if name.split("/")[-1] in target.split("/")[-1] and "(deleted)" in target
    ]
    longest = max(found, key=lambda path: len(os.readlink(path)))
    return pathlib.Path(longest).read_bytes()


@mutant("rescue", "suffix-in-a-real-name")
def believes_the_suffix(pid, name):
    for path, target in _links(pid):
        if target == name + " (deleted)":
            return pathlib.Path(path).read_bytes()
    raise FileNotFoundError(name)


@mutant("rescue", "suffix-in-a-real-name")
def removes_every_deleted(pid, name):
    for path, target in _links(pid):
        if os.stat(path).st_nlink == 0 and target.replace(" (deleted)", "") == name:
            return pathlib.Path(path).read_bytes()
    raise FileNotFoundError(name)


@mutant("rescue", "found-anything")
def silent_when_absent(pid, name):
    try:
        return counts_the_names(pid, name)
    except FileNotFoundError:
        return b""


@mutant("rescue", "text-not-bytes")
def as_text(pid, name):
    return counts_the_names(pid, name).decode("latin-1")


@mutant("rescue", "other-exception")
def key_error(pid, name):
    return {
        target: pathlib.Path(path).read_bytes()
        for path, target in _links(pid)
        if target.startswith("/") and os.stat(path).st_nlink == 0
    }[name + " (deleted)"]


@mutant("rescue", "unanswered")
def rescue_untouched(pid, name):
    raise NotImplementedError
