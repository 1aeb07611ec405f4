"""A stepper: walk through a run of machine code, forwards and backwards, and watch registers and memory.

The code has already run, in a child and under fuel (`course.isa.trace`); the widget moves through the record. So it
works without a kernel behind it, a loop cannot hang it, and going back is as easy as going on. Without a front end the
same run is shown as a table in text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from ..isa import assemble, lookup, trace
from ..isa.processor import Trace
from .view import View, script, style

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_STEPS = 400
_SHOWN_AS_TEXT = 24


@dataclasses.dataclass(frozen=True)
class Moment:
    """The processor between two instructions.

    Attributes:
        step: number of instructions executed so far.
        registers: all of them.
        changed: names of those that the last instruction changed.
        memory: region name to its bytes.
        written: addresses of bytes that the last instruction wrote.
    """

    step: int
    registers: Mapping[str, int]
    changed: frozenset[str]
    memory: Mapping[str, bytes]
    written: frozenset[int]


class Stepper(View):
    """Show a run of machine code, step by step.

    Keys: right or ``n`` next, left or ``p`` back, Home and End to the ends; buttons and a slider do the same.

    Args:
        code: assembly text, or machine code as bytes.
        isa: its instruction set, one that Unicorn runs.
        *arguments: integers for its parameters.
        data: bytes for the data region at 0x30000.
        fuel: number of instructions after which the run is stopped; at most 400 are shown.
        position: the step shown first.

    Raises:
        AssemblyError: naming the line of the source that cannot be encoded.
        UsageError: for an ISA, arguments or code that cannot be meant.
    """

    _esm = script("stepper")
    _css = style("stepper")
    run = traitlets.Dict().tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        code: str | bytes,
        isa: str,
        *arguments: int,
        data: bytes = b"",
        fuel: int = _MOST_STEPS,
        position: int = 0,
    ) -> None:
        row = lookup(isa)
        body = assemble(code, row) if isinstance(code, str) else bytes(code)
        self.trace = trace(body, row, *arguments, data=data, fuel=min(fuel, _MOST_STEPS))
        super().__init__(run=_plain(self.trace, row.title, arguments), position=0)
        self.position = position

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.trace.steps)

    @traitlets.validate("position")
    def _in_range(self, proposal: Mapping[str, Any]) -> int:
        """Keep the position between the first and the last step."""
        return max(0, min(int(proposal["value"]), len(self.run.get("steps", []))))

    def moment(self, position: int | None = None) -> Moment:
        """The processor after `position` steps (None: the step that is shown)."""
        at = self.position if position is None else position
        registers = dict(self.trace.start)
        memory = {name: bytearray(content) for name, (_, content) in self.trace.memory.items()}
        bases = {name: base for name, (base, _) in self.trace.memory.items()}
        done = self.trace.steps[:at]
        for step in done:
            registers.update(step.changes)
            for address, content in step.writes:
                for name, base in bases.items():
                    inside = [i for i in range(len(content)) if 0 <= address + i - base < len(memory[name])]
                    for i in inside:
                        memory[name][address + i - base] = content[i]
        last = done[-1] if done else None
        written = {a + i for a, content in (last.writes if last else ()) for i in range(len(content))}
        changed = frozenset(last.changes) if last else frozenset()
        return Moment(at, registers, changed, {n: bytes(m) for n, m in memory.items()}, frozenset(written))

    def __str__(self) -> str:
        return as_text(self.trace, self.run["title"])


def as_text(trace: Trace, title: str) -> str:
    """The whole run as a table: address, instruction, what it changed."""
    steps: Sequence[Any] = trace.steps[:_SHOWN_AS_TEXT]
    lines = [title, *(f"{at:4}  {step}" for at, step in enumerate(steps, 1))]
    if len(trace.steps) > len(steps):
        lines.append(f"      … {len(trace.steps) - len(steps)} more steps")
    return "\n".join([*lines, f"end:  {trace.result.end.value}. {trace.result!r}"])


def _plain(trace: Trace, name: str, arguments: Sequence[int]) -> dict[str, Any]:
    """The run as JSON; numbers travel as hexadecimal text, for JavaScript's have 53 bits."""
    row = lookup(trace.result.isa)
    return {
        "title": f"{name}: f({', '.join(map(str, arguments))})",
        "digits": row.bits // 4,
        "registers": [r for r in row.registers if r not in (row.counter, "zero")],
        "start": {r: f"{v:x}" for r, v in trace.start.items()},
        "roles": _roles(row.name),
        "memory": [
            {"name": name, "base": base, "bytes": content.hex()} for name, (base, content) in trace.memory.items()
        ],
        "steps": [
            {
                "address": step.address,
                "code": step.code.hex(" "),
                "text": step.text,
                "changes": {r: f"{v:x}" for r, v in step.changes.items()},
                "writes": [[address, content.hex()] for address, content in step.writes],
            }
            for step in trace.steps
        ],
        "end": repr(trace.result)[1:-1],
    }


def _roles(name: str) -> dict[str, str]:
    """What registers are for, by the calling convention."""
    row = lookup(name)
    roles = {register: f"argument {at}" for at, register in enumerate(row.arguments[:4], 1)}
    roles |= dict.fromkeys(row.preserved, "the caller's")
    roles[row.result] = f"result, {roles[row.result]}" if row.result in roles else "result"
    roles[row.stack] = "stack"
    if row.link:
        roles[row.link] = "return address"
    return roles
