"""``python -m tests.golden DIR [--only a,b] [--davis ROOT]``: one line per archive, exit 1 when any misses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.golden.checks import CHECKS
from tests.golden.runner import run_checks


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden",
        description="Hold the project against recorded numbers. Every file of DIR needs a check and must pass it.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder with the archives")
    parser.add_argument("--only", metavar="NAME,NAME", help=f"check only these of: {', '.join(CHECKS)}")
    parser.add_argument(
        "--davis", type=Path, metavar="ROOT", help="DAVIS root with Annotations/480p; default: DIR/../data/davis16"
    )
    options = parser.parse_args(arguments)
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is not a folder: give the one that holds the archives")
    davis_root = options.davis or options.directory.resolve().parent / "data" / "davis16"
    only = None if options.only is None else [name.strip() for name in options.only.split(",")]
    try:
        outcomes = run_checks(options.directory, davis_root, only)
    except ValueError as error:
        parser.error(str(error))
    for outcome in outcomes:
        print(outcome)
    if not outcomes:
        print(f"MISS  {options.directory} holds nothing to check")
    return 0 if outcomes and all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
