"""Containers of the lab cluster: a tree of processes in namespaces, or a small guest where those are refused.

- `template`: the archive that the lab's containers are made of.
- `tree`: a container's files, handled from outside.
- `box`, `boxed`: the program that keeps a running container, and the node's end of it.
- `guestbox`: the same in a small virtual machine.
- `registry`: the running ones of a node; `network`: their way to the node's bridges.
- `console`: terminals, and programs for the lab.
- `lifecycle`, `creation`, `snapshots`, `migrate`, `status`: what the calls do.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from ...error import CourseError

if TYPE_CHECKING:
    from ..node import Node


def attach(node: Node) -> None:
    """Give a node its registry of running containers, and the template that they are made of."""
    from . import console, status, template  # noqa: PLC0415 - the layer is loaded when a node wants it
    from .registry import Containers  # noqa: PLC0415 - likewise

    node.containers = Containers(node)
    node.containers.programs = console.serve_programs(node)
    node.statistics.sources.append(lambda: status.resources(node))
    place = node.disk / "vz" / "template" / "cache" / template.NAME
    if not place.exists():
        with contextlib.suppress(CourseError, OSError):  # a machine without busybox has no template
            place.parent.mkdir(parents=True, exist_ok=True)
            draft = place.with_name(f".{place.name}")
            shutil.copyfile(template.ensure(), draft)
            draft.rename(place)


def detach(node: Node) -> None:
    """End the containers of a node that goes down."""
    if node.containers is not None:
        node.containers.close()
