"""Answers to `tco`."""

from __future__ import annotations

import math

from .. import alternative, mutant


def _cost(p, *, hosts=None, hours=24 * 365, watts=None, kilo=1000, years=None, licensed=None, licence_years=None):
    hosts = hosts if hosts is not None else math.ceil(p["services"] / p["services_per_host"]) + p["spare_hosts"]
    work = p["services"] * p["busy"] * (p["peak_watts"] - p["idle_watts"])
    watts = watts(p, hosts) if watts else hosts * p["idle_watts"] + work
    years = p["years"] if years is None else years
    hardware = hosts * p["price_eur"]
    energy = watts / kilo * hours * years * p["eur_per_kwh"]
    licences = p["licence_eur_per_host_year"] * (licensed or hosts) * (licence_years or p["years"])
    return {
        "hosts": hosts,
        "hardware_eur": hardware,
        "energy_eur": energy,
        "licences_eur": licences,
        "total_eur": hardware + energy + licences,
    }


@mutant("tco", "watts-not-kwh")
def watts(p):
    return _cost(p, kilo=1)


@mutant("tco", "hours-of-a-day")
def one_day(p):
    return _cost(p, hours=24)


@mutant("tco", "days-not-hours")
def days(p):
    return _cost(p, hours=365)


@mutant("tco", "one-year")
def one_year(p):
    return _cost(p, years=1)


@mutant("tco", "nameplate")
def nameplate(p):
    return _cost(p, watts=lambda p, hosts: hosts * p["peak_watts"])


@mutant("tco", "idle-only")
def idle_only(p):
    return _cost(p, watts=lambda p, hosts: hosts * p["idle_watts"])


@mutant("tco", "busy-per-host")
def hosts_as_busy_as_one_service(p):
    return _cost(p, watts=lambda p, hosts: hosts * (p["idle_watts"] + p["busy"] * (p["peak_watts"] - p["idle_watts"])))


@mutant("tco", "licence-per-vm")
def licence_per_vm(p):
    return _cost(p, licensed=p["services"])


@mutant("tco", "licence-once")
def licence_once(p):
    return _cost(p, licence_years=1)


@mutant("tco", "no-spare")
def no_spare(p):
    return _cost(p, hosts=math.ceil(p["services"] / p["services_per_host"]))


@mutant("tco", "rounds-down")
def rounds_down(p):
    return _cost(p, hosts=p["services"] // p["services_per_host"] + p["spare_hosts"])


@mutant("tco", "part-of-a-host")
def part_of_a_host(p):
    return _cost(p, hosts=p["services"] / p["services_per_host"] + p["spare_hosts"])


@mutant("tco", "total-differs")
def total_without_licences(p):
    cost = _cost(p)
    return {**cost, "total_eur": cost["hardware_eur"] + cost["energy_eur"]}


@mutant("tco", "not-a-dict")
def only_the_total(p):
    return _cost(p)["total_eur"]


@alternative("tco")
def with_leap_days(p):
    return _cost(p, hours=24 * 365.25)


@alternative("tco")
def rounded_to_cents(p):
    return {part: round(value, 2) for part, value in _cost(p).items()}


@alternative("tco")
def integer_division(p):
    return _cost(p, hosts=-(-p["services"] // p["services_per_host"]) + p["spare_hosts"])


@alternative("tco")
def host_by_host(p):
    hosts = _cost(p)["hosts"]
    busy = p["services"] * p["busy"] / hosts
    mean = p["idle_watts"] + busy * (p["peak_watts"] - p["idle_watts"])
    energy = sum(mean / 1000 * 24 * p["eur_per_kwh"] for _ in range(hosts)) * 365 * p["years"]
    rest = {**_cost(p), "energy_eur": energy}
    return {**rest, "total_eur": rest["hardware_eur"] + energy + rest["licences_eur"]}
