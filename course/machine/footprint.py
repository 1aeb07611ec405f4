"""What a process really holds of the host's memory, as the kernel accounts for it.

::

    VmSize   all addresses it has reserved            a promise: costs nothing until touched
    RSS      its pages that are in RAM now            counts a page shared by 3 processes 3 times
    PSS      the same, a shared page divided by its   the sum over all processes is the RAM in use
             number of users
    private  its pages that nobody else uses          what comes back when it ends
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..error import CapabilityError, UsageError


@dataclasses.dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of one process at one moment, in MiB.

    Attributes:
        rss_mib: resident set size.
        pss_mib: proportional set size.
        private_mib: pages of this process alone.
    """

    rss_mib: float
    pss_mib: float
    private_mib: float


def footprint(pid: int) -> Footprint:
    """Read the footprint of process `pid`.

    Raises:
        UsageError: when there is no such process, or it has ended.
        CapabilityError: when the kernel does not let us look.

    Source: proc(5), ``/proc/pid/smaps_rollup`` (Linux 4.14): fields in kB of 1024 bytes.
    """
    path = Path(f"/proc/{pid}/smaps_rollup")
    try:
        text = path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        if path.parent.exists() or not Path("/proc/self/smaps_rollup").exists():
            remedy = "It exists on Linux 4.14 and later, for processes that have not ended."
            raise CapabilityError(str(path), "the file cannot be read", remedy) from None
        raise UsageError(f"there is no process {pid}; expected the id of a running process") from None
    except PermissionError:
        remedy = "Look at processes of your own user."
        raise CapabilityError(str(path), "it belongs to another user", remedy) from None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    private = kib["Private_Clean"] + kib["Private_Dirty"] + kib.get("Private_Hugetlb", 0)
    return Footprint(kib["Rss"] / 1024, kib["Pss"] / 1024, private / 1024)
