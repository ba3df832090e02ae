"""Where the results of segmentation go: a folder of this machine, or one of an object store.

A clip's result appears complete and replaces an earlier one. On a disk it is made beside its place and renamed. An
object store has no rename: the result is made on this machine and copied, RESULT_FILE last, so that a folder without
that file is no result. What is in the way and is no result of ours is left alone.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import StorageError
from tasks.storage import Location, prove_writable

RESULT_FILE, PAGE_FILE = "result.json", "index.html"
UNFINISHED_FILE = "unfinished"
"""There while a result is copied to an object store: who is killed in between may be followed by another try."""

_COPIES_AT_ONCE = 8


class ResultFolder:
    """The folder that all results of one call go into."""

    def __init__(self, place: Location) -> None:
        self._place = place

    def prepare(self) -> None:
        """Make the folder; raises StorageError when it can not be written to."""
        if self._place.is_local:
            try:
                self._place.local_path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"can not make the folder {self._place.uri}: {error}; choose another") from error
        else:
            prove_writable(self._place)

    def require_free(self, clip: str) -> None:
        """Stop before overwriting something that this command did not make; raises StorageError."""
        target = self._place / clip
        if not target.exists() or any((target / name).exists() for name in (RESULT_FILE, UNFINISHED_FILE)):
            return
        if target.is_local and target.is_folder() and not any(target.local_path.iterdir()):
            return
        raise StorageError(
            f"{target.uri} is in the way: it holds no {RESULT_FILE}, so it is no earlier result; choose another folder "
            "for the results, or move it"
        )

    @contextmanager
    def scratch(self, clip: str) -> Iterator[Path]:
        """Yield an empty local folder to make a result in; it is gone afterwards, and so is what killed runs left."""
        if not self._place.is_local:
            with tempfile.TemporaryDirectory(prefix="gwm_segment_") as temporary:
                yield Path(temporary)
            return
        for stale in _leftovers(self._place.local_path, clip):
            shutil.rmtree(stale)
        folder = self._place.local_path / f".{clip}.{uuid.uuid4().hex}.partial"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, clip: str) -> None:
        """Put a complete scratch folder at its place; raises StorageError."""
        target = self._place / clip
        if target.is_local:
            _rename(folder, target.local_path)
        else:
            _copy(folder, target)

    def write_page(self, text: str) -> str:
        """Write the page over all clips and return where it is."""
        page = self._place / PAGE_FILE
        page.write_bytes(text.encode())
        return page.uri


def _rename(folder: Path, target: Path) -> None:
    """Move a complete folder to its place; an earlier result is moved away first and deleted last."""
    old = folder.with_suffix(".old")
    try:
        if target.exists():
            target.rename(old)
        folder.rename(target)
    except OSError as error:
        raise StorageError(f"can not put the result at {target}: {error}") from error
    shutil.rmtree(old, ignore_errors=True)


def _copy(folder: Path, target: Location) -> None:
    """Copy a complete folder to an object store, so that at every moment it is a whole result or none."""
    (target / UNFINISHED_FILE).write_bytes(b"")
    (target / RESULT_FILE).delete()
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        for _ in pool.map(lambda name: (target / name).upload(folder / name), sorted(names - {RESULT_FILE})):
            pass  # the errors are what is waited for
    for stale in target.list(recursive=True):
        if stale.uri.removeprefix(f"{target.uri}/") not in names | {UNFINISHED_FILE}:
            stale.delete()
    (target / RESULT_FILE).upload(folder / RESULT_FILE)
    (target / UNFINISHED_FILE).delete()


def _leftovers(out: Path, clip: str) -> list[Path]:
    """Folders that a killed run left of this clip."""
    pattern = re.compile(re.escape(f".{clip}.") + r"[0-9a-f]{32}\.(partial|old)")
    return [path for path in out.iterdir() if pattern.fullmatch(path.name)]
