"""``make bench``, or ``python -m tests.bench [NAME …]``: measure, and print each result beside its target.

Every benchmark is a module of this folder with a ``main()`` that prints its ratios. One that fails does not stop the
others; the exit status says so.
"""

import importlib
import pkgutil
import sys
import traceback
from pathlib import Path

import tests.bench


def names() -> list[str]:
    """Return the benchmarks there are, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(tests.bench.__path__) if module.name != "__main__")


def run(name: str) -> bool:
    """Run one benchmark; return whether it went well."""
    sys.stdout.write(f"── {name} ──\n")
    sys.stdout.flush()
    try:
        importlib.import_module(f"tests.bench.{name}").main()
    except Exception:
        traceback.print_exc()
        return False
    finally:
        sys.stdout.flush()
    return True


def main(wanted: list[str]) -> int:
    """Run the benchmarks named, or all."""
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        sys.stderr.write(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(names())}\n")
        return 2
    went_well = [run(name) for name in wanted or names()]
    return 0 if all(went_well) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main(sys.argv[1:]))
