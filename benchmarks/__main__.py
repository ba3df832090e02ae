"""Run the benchmarks named on the command line, or all of them."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import torch

import benchmarks

_HELPERS = {"__main__", "footage", "timing"}


def main() -> int:
    """Run each benchmark's ``main`` in turn; returns 2 for an unknown name."""
    known = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in _HELPERS)
    wanted = sys.argv[1:] or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}: expected any of {', '.join(known)}", file=sys.stderr)
        return 2
    threads = torch.get_num_threads()
    for name in wanted:
        torch.set_num_threads(threads)  # some set their own number
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
