"""Footage with annotations to score against, read in place: one file for each dataset, and how its copies vary.

A benchmark is a list of sequences; a sequence yields its frames, and its annotations by frame number, without
holding more than one of either. Another benchmark is one file beside these and one line in ``BENCHMARKS``.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.benchmarks.davis16 import DAVIS16, DAVIS16_VALIDATION
from tasks.benchmarks.fbms59 import FBMS59, FBMS59_TEST
from tasks.benchmarks.rendered import RENDERED
from tasks.benchmarks.segtrackv2 import SEGTRACKV2, SEGTRACKV2_SEQUENCES
from tasks.benchmarks.types import Benchmark, BenchmarkFamily, BenchmarkSequence, MaskFiles
from tasks.errors import ConfigError
from tasks.storage import location

BENCHMARKS: dict[str, BenchmarkFamily] = {
    "davis16": DAVIS16,
    "segtrackv2": SEGTRACKV2,
    "fbms59": FBMS59,
    "rendered": RENDERED,
}


def open_benchmark(name: str, root: str, sequences: Sequence[str] | None = None) -> Benchmark:
    """Open benchmark ``name`` in the folder or URI ``root``; ``sequences`` narrows it to those named.

    Without ``sequences``: the sequences that published numbers average, as far as they are there; everything where
    none of them is. ``Benchmark.coverage`` says how many they are.
    Raises ConfigError for an unknown benchmark or sequence, DatasetError naming folders or frames that are missing.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"no benchmark {name!r}: expected one of {', '.join(sorted(BENCHMARKS))}")
    family, root = BENCHMARKS[name], location(root).uri
    chosen = _select(name, root, family.read(root), sequences)
    return Benchmark(
        name=name,
        root=root,
        sequences=tuple(chosen.values()),
        published=family.published,
        headline_protocol=family.headline_protocol,
        saliency_gaps=family.saliency_gaps,
        notes=family.check(chosen),
    )


def _select(
    benchmark: str, root: str, available: dict[str, BenchmarkSequence], names: Sequence[str] | None
) -> dict[str, BenchmarkSequence]:
    if names is None:
        split = [name for name in BENCHMARKS[benchmark].published if name in available]
        return {name: available[name] for name in split} or available
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        raise ConfigError(
            f"sequences {', '.join(unknown) or '(none)'} are not in {benchmark} at {root}: expected some of "
            f"{', '.join(sorted(available))}"
        )
    return {name: available[name] for name in dict.fromkeys(names)}


__all__ = [
    "BENCHMARKS",
    "DAVIS16_VALIDATION",
    "FBMS59_TEST",
    "SEGTRACKV2_SEQUENCES",
    "Benchmark",
    "BenchmarkFamily",
    "BenchmarkSequence",
    "MaskFiles",
    "open_benchmark",
]
