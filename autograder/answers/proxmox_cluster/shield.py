"""Answers to `shield`."""

from __future__ import annotations

from .. import alternative, mutant
from .connection import connect, guest


def _datacenter(api):
    api.cluster.firewall.options.put(enable=1)


def _switch(firewall):
    firewall.options.put(enable=1)


def _card(machine):
    card = machine.config.get()["net0"]
    if "firewall=1" not in card.split(","):
        machine.config.put(
            net0=",".join([part for part in card.split(",") if "firewall=" not in part] + ["firewall=1"])
        )


def _ping(firewall, **more):
    firewall.rules.post(type="in", action="ACCEPT", macro="Ping", enable=1, **more)


def _ssh(firewall, **more):
    firewall.rules.post(type="in", action="DROP", proto="tcp", dport="22", enable=1, **more)


def _rules(firewall):
    _ping(firewall)
    _ssh(firewall)


@mutant("shield", "datacenter-off")
def forgets_the_datacenter(access, vmid):
    machine = guest(connect(access), vmid)
    _switch(machine.firewall)
    _card(machine)
    _rules(machine.firewall)
    return machine.firewall.rules.get()


@mutant("shield", "guest-off")
def forgets_the_guest_s_own_switch(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    _card(machine)
    _rules(machine.firewall)
    return machine.firewall.rules.get()


@mutant("shield", "card-off")
def forgets_the_card(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    _switch(machine.firewall)
    _rules(machine.firewall)
    return machine.firewall.rules.get()


@mutant("shield", "other-card")
def writes_the_card_anew(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    _switch(machine.firewall)
    machine.config.put(net0="virtio,bridge=vmbr0,firewall=1")
    _rules(machine.firewall)
    return machine.firewall.rules.get()


@mutant("shield", "port-open")
def puts_it_behind_the_colleague_s(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    _switch(machine.firewall)
    _card(machine)
    _rules(machine.firewall)
    rules = machine.firewall.rules.get()
    machine.firewall.rules(0).put(moveto=len(rules))
    return machine.firewall.rules.get()


@mutant("shield", "port-open")
def rules_that_are_not_enabled(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    _switch(machine.firewall)
    _card(machine)
    machine.firewall.rules.post(type="in", action="ACCEPT", macro="Ping")
    machine.firewall.rules.post(type="in", action="DROP", proto="tcp", dport="22")
    return machine.firewall.rules.get()


@mutant("shield", "ping-dropped")
def closes_everything_but_the_web(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    machine.firewall.options.put(enable=1, policy_in="DROP")
    _card(machine)
    _ssh(machine.firewall)
    return machine.firewall.rules.get()


@mutant("shield", "ping-dropped")
def relies_on_the_policy(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    _switch(machine.firewall)
    _card(machine)
    machine.firewall.rules.post(type="in", action="DROP", proto="tcp", dport="22", enable=1, comment="ssh")
    return machine.firewall.rules.get()


@mutant("shield", "too-much")
def drops_all_of_tcp(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    _switch(machine.firewall)
    _card(machine)
    _ping(machine.firewall)
    machine.firewall.rules.post(type="in", action="DROP", proto="tcp", enable=1)
    return machine.firewall.rules.get()


@mutant("shield", "foreign-rule")
def clears_the_table_first(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    _switch(machine.firewall)
    _card(machine)
    for rule in machine.firewall.rules.get():
        machine.firewall.rules(0).delete()
    _rules(machine.firewall)
    return machine.firewall.rules.get()


@alternative("shield")
def rejects_and_accepts_icmp(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    machine.firewall.rules.post(type="in", action="REJECT", macro="SSH", enable=1)
    machine.firewall.rules.post(type="in", action="ACCEPT", proto="icmp", enable=1)
    _card(machine)
    _switch(machine.firewall)
    _datacenter(api)
    return machine.firewall.rules.get()


@alternative("shield")
def moves_its_rules_up(access, vmid):
    api = connect(access)
    machine = guest(api, vmid)
    _datacenter(api)
    _switch(machine.firewall)
    _card(machine)
    _ssh(machine.firewall, pos=0, comment="no ssh", log="info")
    _ping(machine.firewall, pos=1)
    return len(machine.firewall.rules.get())
