"""Judge what an answer says of three years' cost, part by part, and recognise how a wrong part came about."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .exercise import Trial

COST_PARTS = ("hosts", "hardware_eur", "energy_eur", "licences_eur", "total_eur")


def expected_cost(params: Mapping[str, float]) -> dict[str, float]:
    """The parts of the cost, as the lesson defines them."""
    hosts = math.ceil(params["services"] / params["services_per_host"]) + params["spare_hosts"]
    dynamic = params["services"] * params["busy"] * (params["peak_watts"] - params["idle_watts"])
    kwh = (hosts * params["idle_watts"] + dynamic) / 1000 * 24 * 365 * params["years"]
    costs = [hosts * params["price_eur"], kwh * params["eur_per_kwh"]]
    costs.append(hosts * params["licence_eur_per_host_year"] * params["years"])
    return dict(zip(COST_PARTS, [hosts, *costs, sum(costs)], strict=True))


def judge_cost(trial: Trial, params: Mapping[str, float]) -> dict[str, float]:
    """Compare the five parts in order; a known slip gets its own message. Returns the answer's value."""
    got = trial.call(dict(params))
    right = (
        isinstance(got, dict) and set(COST_PARTS) <= set(got) and all(isinstance(v, int | float) for v in got.values())
    )
    trial.expect(right, "not-a-dict", f"You returned {got!r}.", f"Return a dict with the keys {', '.join(COST_PARTS)}.")
    expected = expected_cost(params)
    for part in COST_PARTS:
        if not math.isclose(got[part], expected[part], rel_tol=2e-3, abs_tol=0.02):
            said = f"{part}: expected {expected[part]:,.2f}, obtained {got[part]:,.2f} for {dict(params)}."
            for misconception, wrong, why in _cost_slips(part, params, expected):
                if math.isclose(got[part], wrong, rel_tol=2e-3, abs_tol=0.02):
                    trial.wrong(misconception, said, why)
            trial.wrong(f"{part.removesuffix('_eur')}-differs", said, "Compute this part by hand for these numbers.")
    return dict(got)


def _cost_slips(part: str, params: Mapping[str, float], expected: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """Values that a known misconception gives for a part."""
    services, per_host, spare = params["services"], params["services_per_host"], params["spare_hosts"]
    kwh_eur = 24 * 365 * params["years"] / 1000 * params["eur_per_kwh"]
    idle, peak, hosts = params["idle_watts"], params["peak_watts"], expected["hosts"]
    if part == "hosts":
        return [
            ("no-spare", math.ceil(services / per_host), "Which host takes over when one is lost?"),
            ("rounds-down", services // per_host + spare, "Where do the services run that fill no whole host?"),
            ("part-of-a-host", services / per_host + spare, "Two and a half hosts cannot be bought."),
        ]
    if part == "energy_eur":
        energy = expected["energy_eur"]
        return [
            ("watts-not-kwh", energy * 1000, "A meter counts kWh: 1000 watts for one hour."),
            ("days-not-hours", energy / 24, "A watt is drawn every hour of the day."),
            ("hours-of-a-day", energy / 365, "A watt is drawn every day of the year."),
            ("one-year", energy / params["years"], "Over how many years?"),
            ("nameplate", hosts * peak * kwh_eur, "A host draws its peak power only when all its CPUs work."),
            ("idle-only", hosts * idle * kwh_eur, "And the work that the services do?"),
            (
                "busy-per-host",
                hosts * (idle + params["busy"] * (peak - idle)) * kwh_eur,
                "A host with sixteen services is busier than a host with one: the work moves along with its service.",
            ),
        ]
    if part == "licences_eur":
        yearly = params["licence_eur_per_host_year"]
        return [
            ("licence-per-vm", services * yearly * params["years"], "The licence is paid per host, not per service."),
            ("licence-once", hosts * yearly, "The licence is paid every year."),
        ]
    return []
