r"""An interpreter at work: the student's own ``step`` function, instruction by instruction.

::

    Interpreter(step, "addi x5, x0, 7\nebreak", compare=True)

The run is recorded first (see `interpreting`), then shown by the stepper's front end: forwards, backwards, without a
kernel. A function that raises is shown up to there, with what it raised.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import traitlets

from ..isa import rv32
from .interpreting import MOST_STEPS, Judge, Reader, Record, Step, first, record
from .view import View, script, style

_WRITTEN = 24
_ROW, _MOST_ROWS = 16, 16
_ABI = ("zero", "ra, return address", "sp, stack", "gp", "tp", "t0", "t1", "t2", "s0", "s1",
        *(f"a{n}, argument {n + 1}" for n in range(8)), *(f"s{n}" for n in range(2, 12)), "t3", "t4", "t5",
        "t6")  # fmt: skip


class Interpreter(View):
    """Show what an RV32I interpreter does with a program.

    Keys: right or ``n`` next, left or ``p`` back, Home and End to the ends, ``d`` to the first difference; buttons and
    a slider do the same.

    Args:
        step: a function from a state to the next one; see `course.isa.rv32` for states. It is called in this process.
        state: the state to begin with, or a program as assembly text or machine code. It stays as it is.
        fuel: number of calls at most, up to 400.
        compare: mark the first step that Unicorn does otherwise; or a function that does it right.
        title: a few words.
        watch: regions of memory to show: (name, address, size in bytes). By default what the run writes.
        read: for a `step` that works with states of its own: gives the plain state of one.
        position: the step shown first.

    Attributes:
        record: what happened.

    Raises:
        UsageError: the first state is none.
        AssemblyError: naming the line of the program that cannot be encoded.
    """

    _esm = script("stepper")
    _css = style("stepper")
    run = traitlets.Dict().tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        step: Step,
        state: Any,
        *,
        fuel: int = MOST_STEPS,
        compare: bool | Step = False,
        title: str = "Your interpreter",
        watch: Sequence[tuple[str, int, int]] = (),
        read: Reader | None = None,
        position: int = 0,
    ) -> None:
        begin = rv32.state(state) if isinstance(state, (str, bytes)) else state
        judge = _judge(begin, compare, read)
        name = "" if judge is None else "Unicorn" if compare is True else getattr(compare, "__name__", "the other")
        self.record = record(step, begin, fuel=min(fuel, MOST_STEPS), read=read, judge=judge, judged_by=name)
        super().__init__(run=_plain(self.record, title, watch), position=0)
        self.position = position

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.record.steps)

    @traitlets.validate("position")
    def _in_range(self, proposal: Mapping[str, Any]) -> int:
        """Keep the position between the first and the last step."""
        return max(0, min(int(proposal["value"]), len(self.run.get("steps", []))))

    def static(self) -> dict[str, str]:
        """The run as a table."""
        return {"text/html": as_html(self.record, self.run["title"])}

    def __str__(self) -> str:
        return as_text(self.record, self.run["title"])


def _judge(state: Any, compare: bool | Step, read: Reader | None) -> Judge | None:
    if compare is False:
        return None
    return Judge(first(state, read), None if compare is True else compare)


def as_text(run: Record, title: str) -> str:
    """The whole run as a table: address, instruction, what it changed."""
    lines = [title, *(f"{at:4}  {step}" for at, step in enumerate(run.steps[:_WRITTEN], 1))]
    if len(run.steps) > _WRITTEN:
        lines.append(f"      … {len(run.steps) - _WRITTEN} more steps")
    return "\n".join([*lines, f"end:  {run.end}", *([run.verdict] if run.verdict else [])])


def as_html(run: Record, title: str) -> str:
    """The same as a table for committed notebooks."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("step", "address", "instruction", "what it did"))
    rows = []
    for at, step in enumerate(run.steps[:_WRITTEN], 1):
        done = [f"{name} = {value:#x}" for name, value in step.changes.items() if step.tells(name)]
        done += [f"memory {where:#x} = {data.hex(' ')}" for where, data in step.writes]
        what = ", ".join(done) + (f"{' ' if done else ''}✗ {step.note}" if step.note else "")
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in (f"{step.pc:#x}", step.text, what))
        rows.append(f'<tr><th scope="row">{at}</th>{cells}</tr>')
    more = f"; {len(run.steps) - _WRITTEN} more steps are not shown" if len(run.steps) > _WRITTEN else ""
    words = html.escape(f"The end: {run.end}{more}. {run.verdict}".strip())
    caption = f"<caption>{html.escape(title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table><p>{words}</p>"


def _plain(run: Record, title: str, watch: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    """The run as JSON, in the form that the stepper shows."""
    difference = run.difference
    return {
        "title": title,
        "digits": 8,
        "counter": "pc",
        "registers": ["pc", *(f"x{number}" for number in range(32))],
        "start": {name: f"{value:x}" for name, value in run.start.named().items()},
        "roles": {"pc": "next instruction", **{f"x{n}": role for n, role in enumerate(_ABI)}},
        "memory": [
            {"name": name, "base": base, "bytes": run.start.memory[base : base + size].hex()}
            for name, base, size in watch or _written(run)
        ],
        "steps": [
            {
                "address": step.pc,
                "code": step.word.to_bytes(4, "little").hex(" ") if step.word >= 0 else "",
                "text": step.text,
                "changes": {name: f"{value:x}" for name, value in step.changes.items()},
                "writes": [[address, content.hex()] for address, content in step.writes],
                "note": step.note,
            }
            for step in run.steps
        ],
        "end": run.end,
        "verdict": run.verdict,
        "judge": run.judge,
        "difference": {"step": difference.step, "rows": [list(row) for row in difference.rows]} if difference else None,
    }


def _written(run: Record) -> list[tuple[str, int, int]]:
    """Rows of 16 bytes that the run writes to, neighbours joined; the first ones if there are many."""
    touched = {row for step in run.steps for at, data in step.writes for row in _rows(at, len(data))}
    found: list[tuple[int, int]] = []
    for row in sorted(touched)[:_MOST_ROWS]:
        if found and sum(found[-1]) == row * _ROW:
            found[-1] = (found[-1][0], found[-1][1] + _ROW)
        else:
            found.append((row * _ROW, _ROW))
    size = len(run.start.memory)
    return [(f"{base:#x} to {min(base + length, size) - 1:#x}", base, length) for base, length in found]


def _rows(address: int, size: int) -> range:
    return range(address // _ROW, (address + size - 1) // _ROW + 1)
