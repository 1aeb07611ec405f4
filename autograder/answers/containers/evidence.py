"""Answers to `shares_kernel` and `same_container`."""

from __future__ import annotations

from collections import defaultdict

from autograder.answers import alternative, mutant


@alternative("shares_kernel")
def stripped(a, b):
    return a["boot_id"].strip() == b["boot_id"].strip()


@alternative("shares_kernel")
def as_a_set(a, b):
    return len({system["boot_id"].split()[0] for system in (a, b)}) == 1


@mutant("shares_kernel", "by-release")
def same_release(a, b):
    return a["release"].strip() == b["release"].strip()


@mutant("shares_kernel", "by-hostname")
def same_name(a, b):
    return a["hostname"] == b["hostname"]


@mutant("shares_kernel", "by-distribution")
def same_distribution(a, b):
    return a["os_release"] == b["os_release"] and a["release"] == b["release"]


@mutant("shares_kernel", "by-uptime")
def up_for_as_long(a, b):
    near = abs(float(a["uptime"].split()[0]) - float(b["uptime"].split()[0])) < 60
    return near and a["boot_id"].strip() == b["boot_id"].strip()


@mutant("shares_kernel", "wrong-answer")
def newline_and_all(a, b):
    return a["boot_id"] == b["boot_id"]


@mutant("shares_kernel", "not-a-bool")
def the_id_itself(a, b):
    return a["boot_id"] if a["boot_id"] == b["boot_id"] else ""


@mutant("shares_kernel", "unanswered")
def shares_kernel_untouched(a, b):
    raise NotImplementedError


_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def _group(processes, key):
    groups = defaultdict(list)
    for process in processes:
        groups[key(process)].append(process["pid"])
    return list(groups.values())


@alternative("same_container")
def by_a_tuple(processes):
    return _group(processes, lambda p: tuple(p["namespaces"][kind] for kind in _KINDS))


@alternative("same_container")
def without_those_for_children(processes):
    def key(process):
        return frozenset(item for item in process["namespaces"].items() if not item[0].endswith("_for_children"))

    return [tuple(group) for group in _group(processes, key)]


@alternative("same_container")
def by_pairs(processes):
    groups = []
    for process in processes:
        for group in groups:
            if all(process["namespaces"][k] == group[0]["namespaces"][k] for k in _KINDS):
                group.append(process)
                break
        else:
            groups.append([process])
    return [{p["pid"] for p in group} for group in groups]


@alternative("same_container")
def by_a_set_of_links(processes):
    return _group(processes, lambda p: frozenset(v for k, v in p["namespaces"].items() if "children" not in k))


@mutant("same_container", "by-hostname")
def by_hostname(processes):
    return _group(processes, lambda p: p["hostname"])


@mutant("same_container", "by-cgroup")
def by_cgroup(processes):
    return _group(processes, lambda p: p["cgroup"])


@mutant("same_container", "by-pid-namespace")
def by_pid_namespace(processes):
    return _group(processes, lambda p: p["namespaces"]["pid"])


@mutant("same_container", "by-mount-namespace")
def by_root_file_system(processes):
    return _group(processes, lambda p: p["namespaces"]["mnt"])


@mutant("same_container", "by-net-namespace")
def by_network(processes):
    return _group(processes, lambda p: p["namespaces"]["net"])


@mutant("same_container", "children-links")
def by_all_links(processes):
    return _group(processes, lambda p: tuple(sorted(p["namespaces"].items())))


@mutant("same_container", "without-uts")
def without_uts(processes):
    return _group(processes, lambda p: tuple(p["namespaces"][k] for k in _KINDS if k != "uts"))


@mutant("same_container", "by-program")
def by_program(processes):
    return _group(processes, lambda p: p["comm"])


@mutant("same_container", "not-a-partition")
def without_the_host(processes):
    groups = by_a_tuple(processes)
    return groups[1:]


@mutant("same_container", "not-a-partition")
def in_every_group_it_touches(processes):
    def key(process, kind):
        return process["namespaces"][kind]

    return [group for kind in _KINDS for group in _group(processes, lambda p, kind=kind: key(p, kind))]


@mutant("same_container", "other-groups")
def one_namespace_in_common(processes):
    groups = []
    for process in processes:
        links = set(process["namespaces"].values())
        for known, pids in groups:
            if known & links:
                known |= links
                pids.append(process["pid"])
                break
        else:
            groups.append((links, [process["pid"]]))
    return [pids for _, pids in groups]


@mutant("same_container", "not-groups")
def a_dict_of_groups(processes):
    return {i: group for i, group in enumerate(by_a_tuple(processes))}


@mutant("same_container", "raised")
def a_dict_as_a_key(processes):
    return _group(processes, lambda p: p["namespaces"])


@mutant("same_container", "unanswered")
def same_container_untouched(processes):
    raise NotImplementedError
