"""What a lab cluster can be told: how long things take where a real cluster lets clients wait."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from ..error import UsageError

PASSWORD = "proxmox-lab"  # noqa: S105 - the example password of the lab, not a secret
NODES = ("franklin", "trevor", "michael")
FIRST_PORT = 8006


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a cluster; the defaults are as real ones are where clients see them.

    Attributes:
        address: where the API listens.
        name: the cluster's.
        password: of root@pam when the cluster is made.
        auth_delay_s: how long a refused login waits for its answer.
        ticket_life_s: how long a ticket is good for.
        status_every_s: how often a node looks at itself and its guests for the others.
        seen_within_s: how long a frozen node counts as alive.
        ha_tick_s: how often the HA services look.
        fence_delay_s: how long a node without quorum goes on before its watchdog cuts its power.
        reboot_s: how long a node is off after its watchdog cut its power; negative: it stays off.
        containers: what they are: ``namespaces``, ``guest`` (a small machine each), or ``auto``: whichever works.
        agent_s: how long a guest's agent may take to answer.
        unplug_s: how long a guest may take to let go of a device.
        upload_limit_bytes: the largest upload.
        thin_pool_bytes: size of each node's thin pool ``local-lvm``.
    """

    address: str = "127.0.0.1"
    name: str = "lab"
    password: str = PASSWORD
    auth_delay_s: float = 3.0
    ticket_life_s: float = 7200.0
    status_every_s: float = 5.0
    seen_within_s: float = 30.0
    ha_tick_s: float = 10.0
    fence_delay_s: float = 60.0
    reboot_s: float = 5.0
    containers: str = "auto"
    agent_s: float = 10.0
    unplug_s: float = 5.0
    upload_limit_bytes: int = 8 << 30
    thin_pool_bytes: int = 16 << 30

    @classmethod
    def of(cls, **values: object) -> Settings:
        """Return settings with some changed.

        Raises:
            UsageError: there is no such setting.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise UsageError(f"no such setting of the lab cluster: {', '.join(unknown)}; there are {sorted(known)}")
        return cls(**values)  # type: ignore[arg-type]

    def dump(self) -> str:
        """Write the settings as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def load(cls, text: str) -> Settings:
        """Read settings from JSON."""
        return cls.of(**json.loads(text))
