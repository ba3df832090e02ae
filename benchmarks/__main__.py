"""Run the benchmarks named on the command line, or all of them."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import sys

import torch

import benchmarks

_HELPERS = {"__main__", "footage", "timing"}


def main() -> int:
    """Run each benchmark's ``main`` in turn; returns 2 for an unknown name. Options go to the one that is named."""
    known = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in _HELPERS)
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
    options = sys.argv[1 + len(names) :]
    wanted = names or known
    if options and len(wanted) != 1:
        print(f"options {' '.join(options)} of which benchmark? Name one of {', '.join(known)}", file=sys.stderr)
        return 2
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}: expected any of {', '.join(known)}", file=sys.stderr)
        return 2
    threads = torch.get_num_threads()
    for name in wanted:
        torch.set_num_threads(threads)  # some set their own number
        importlib.import_module(f"benchmarks.{name}").main(*([options] if options else []))
    return 0


if __name__ == "__main__":
    sys.exit(main())
