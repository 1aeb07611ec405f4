"""The result of a probe: for people a table, a sentence and a badge; for programs a dictionary."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

TITLES = {
    "T0": "pure Python",
    "T1": "emulated machines (QEMU, Unicorn)",
    "T2": "ptrace and user namespaces",
    "T3": "a KVM that really runs guests",
    "T4": "root",
    "T5": "a real Proxmox VE",
}


class State(enum.Enum):
    """How much of a thing works."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"

    @property
    def mark(self) -> str:
        """A sign that differs by shape, not by colour: ✓ ~ ✗."""
        return {State.YES: "✓", State.PARTLY: "~", State.NO: "✗"}[self]

    @classmethod
    def of_all(cls, states: list[State]) -> State:
        """The state of a whole: yes when all of it works, no when nothing does (or nothing was tried)."""
        if states and all(state is cls.YES for state in states):
            return cls.YES
        return cls.NO if all(state is cls.NO for state in states) else cls.PARTLY


@dataclass(frozen=True)
class Observation:
    """What one experiment showed.

    Attributes:
        name: of the experiment, such as ``"kvm"``.
        tier: the tier it belongs to, such as ``"T3"``.
        state: how much of it works.
        observed: one sentence, what happened here.
        remedy: what a person can do about it; empty when everything works.
        facts: details for programs; plain JSON data.
    """

    name: str
    tier: str
    state: State
    observed: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "state": self.state.value, "facts": dict(self.facts)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Observation:
        """Read back what `as_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(**{**data, "state": State(data["state"])})


@dataclass(frozen=True)
class Tier:
    """One tier and the experiments that decide it."""

    name: str
    observations: tuple[Observation, ...]

    @property
    def title(self) -> str:
        """What the tier is about, in a few words."""
        return TITLES[self.name]

    @property
    def state(self) -> State:
        """Yes when all experiments of the tier went well, partly when some did."""
        return State.of_all([observation.state for observation in self.observations])

    @property
    def available(self) -> bool:
        """Whether all of the tier works."""
        return self.state is State.YES

    def __bool__(self) -> bool:
        return self.available

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "title": self.title,
            "state": self.state.value,
            "observations": [observation.as_dict() for observation in self.observations],
        }


@dataclass(frozen=True)
class Report:
    """What this machine can do. ``report["T3"]`` is a tier; it is true when all of it works.

    A tier does not include the ones below it: root needs no KVM. `best` is the highest that works wholly.
    """

    tiers: tuple[Tier, ...]

    @classmethod
    def from_observations(cls, observations: list[Observation]) -> Report:
        """Sort observations into tiers."""
        return cls(tuple(Tier(name, tuple(o for o in observations if o.tier == name)) for name in TITLES))

    def __getitem__(self, name: str) -> Tier:
        for tier in self.tiers:
            if tier.name == name:
                return tier
        raise KeyError(f"{name!r} is no tier; there are {', '.join(TITLES)}")

    def observation(self, name: str) -> Observation:
        """Return what the experiment `name` showed.

        Raises:
            KeyError: there is no such experiment.
        """
        for tier in self.tiers:
            for observation in tier.observations:
                if observation.name == name:
                    return observation
        raise KeyError(f"no experiment is called {name!r}")

    @property
    def best(self) -> str:
        """The name of the highest tier that works wholly; ``"T0"`` at least, since this is Python."""
        return max((tier.name for tier in self.tiers if tier), default="T0")

    @property
    def kvm(self) -> str:
        """The level of KVM: absent, no-permission, bad-api, broken, mini or full (only that one boots Linux)."""
        levels = [o.facts.get("level") for o in self["T3"].observations if o.name == "kvm"]
        return str(levels[0] if levels and levels[0] else "absent")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON data: ``best``, ``kvm`` and one entry per tier."""
        return {"best": self.best, "kvm": self.kvm, "tiers": {tier.name: tier.as_dict() for tier in self.tiers}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """Read back what `as_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        found = [Observation.from_dict(o) for tier in data["tiers"].values() for o in tier["observations"]]
        return cls.from_observations(found)

    def __repr__(self) -> str:
        return f"<Report best={self.best} kvm={self.kvm}: {self.sentence()}>"

    def sentence(self) -> str:
        """Say it in one line, for a notebook without a front end and for people who listen to it."""
        return " · ".join(f"{tier.name} {tier.title}: {tier.state.value}" for tier in self.tiers)

    def __rich__(self) -> Table:
        """Draw the table that `course probe` shows."""
        from rich.table import Table  # noqa: PLC0415 - a kernel need not load it

        table = Table(title="What this machine can do", title_justify="left")
        for heading in ("tier", "works", "what was observed", "what you can do"):
            table.add_column(heading, overflow="fold")
        for tier in self.tiers:
            table.add_row(
                f"[bold]{tier.name}[/] {tier.title}",
                f"{tier.state.mark} {tier.state.value}",
                "\n".join(f"{o.name}: {o.observed}" for o in tier.observations),
                "\n".join(o.remedy for o in tier.observations if o.remedy),
                end_section=True,
            )
        return table

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.sentence(), "image/svg+xml": badge(self), "text/html": badge(self) + details(self)}


# Fill, and the ink on it: each pair has a contrast of 7 or more. The word beside the mark says the same.
COLOURS = {State.YES: ("#14532d", "#ffffff"), State.PARTLY: ("#fde68a", "#1f2937"), State.NO: ("#e5e7eb", "#1f2937")}


def badge(report: Report) -> str:
    """Draw the badge: six plates in a row, each with the tier's name, a mark and a word."""
    width, height, gap = 92, 44, 6
    plates = "".join(
        f'<g transform="translate({(width + gap) * i},0)">'
        f'<rect width="{width}" height="{height}" rx="6" fill="{COLOURS[tier.state][0]}" stroke="#6b7280"/>'
        f'<text x="{width // 2}" y="18" font-weight="bold" fill="{COLOURS[tier.state][1]}">{tier.name}</text>'
        f'<text x="{width // 2}" y="36" fill="{COLOURS[tier.state][1]}">{tier.state.mark} {tier.state.value}</text></g>'
        for i, tier in enumerate(report.tiers)
    )
    total = (width + gap) * len(report.tiers) - gap
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(report.sentence())}" '
        f'viewBox="0 0 {total} {height}" width="{total}" height="{height}" '
        f'font-family="sans-serif" font-size="14" text-anchor="middle">'
        f"<title>Capability tiers of this machine</title><desc>{escape(report.sentence())}</desc>{plates}</svg>"
    )


def details(report: Report) -> str:
    """Fold out what was observed, tier by tier, with the remedies."""

    def lines(texts: list[str]) -> str:
        return "<br/>".join(escape(text) for text in texts if text)

    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{tier.name} {escape(tier.title)}</th>'
        f'<td style="text-align:left">{tier.state.mark} {tier.state.value}</td>'
        f'<td style="text-align:left">{lines([o.name + ": " + o.observed for o in tier.observations])}</td>'
        f'<td style="text-align:left">{lines([o.remedy for o in tier.observations])}</td></tr>'
        for tier in report.tiers
    )
    headings = "".join(
        f'<th scope="col" style="text-align:left">{heading}</th>' for heading in ("tier", "works", "observed", "remedy")
    )
    return (
        "<details><summary>What was observed, and what you can do</summary>"
        f"<table><thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table></details>"
    )
