"""Weights on this machine, from a name, a file or a URI; only ever the bytes that were meant.

A reference is one of::

    dino-vit-b8             a name of tasks/named_weights.py, or one that gwm import-checkpoint gave
    weights/raft.pth        a local file, also as file://
    s3://bucket/raft.pth    a URI, with the SHA-256 that its bytes must have

What is fetched lies in one folder (``Settings.weights_path``) under the file name that ``gwm weights`` shows; a file
put there by hand is used as if it had been fetched. Where nobody publishes a file's SHA-256, the first file that is
used is pinned in ``<file>.lock.json`` beside it, and another one is refused from then on.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from model.weights import sha256_of
from tasks.downloads import OnBytes, download, publish, require_weights_bytes
from tasks.errors import WeightsError
from tasks.named_weights import NAMED_WEIGHTS, NamedWeights, names_for
from tasks.settings import Settings

logger = logging.getLogger(__name__)

IMPORTED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What weights that were imported may be called."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_IMPORTED_FOLDER = "imported"


@dataclass(frozen=True, kw_only=True)
class LocalWeights:
    """A file of weights on this machine, checked.

    network, converter: as in NamedWeights; None for a file or URI, whose own names have to tell.
    """

    reference: str
    path: Path
    sha256: str
    network: str | None = None
    converter: str | None = None


def fetch_weights(
    reference: str,
    sha256: str | None = None,
    *,
    networks: tuple[str, ...] = (),
    cache: Path | None = None,
    on_bytes: OnBytes | None = None,
) -> LocalWeights:
    """Return the weights that ``reference`` names, downloading them when they are not at hand.

    sha256: what the file must hash to; required for a URI. networks: what the weights may be for, checked where a
    name tells; any when empty. cache: folder of downloads; None takes the settings'. on_bytes: told of the
    progress of a download. Raises WeightsError for an unknown reference, weights of another network, bytes that
    are not the ones meant, and a network that refuses; then it says where to put the file.
    """
    folder = cache or Settings().weights_path
    wanted = _whole_hash(sha256)
    if reference in NAMED_WEIGHTS:
        return _named(reference, NAMED_WEIGHTS[reference], wanted, networks, folder, on_bytes)
    if IMPORTED_NAME.fullmatch(reference) and _is_file(imported_path(reference, folder)):
        return _imported(reference, wanted, networks, folder)
    if reference.startswith("file:"):
        reference = unquote(urlsplit(reference).path)
    if "://" in reference:
        return _at_uri(reference, wanted, folder, on_bytes)
    path = _expanded(reference)
    if not _is_file(path):
        raise WeightsError(
            f"no weights {reference!r}{_purpose(networks)}: expected a file, a URI with its SHA-256, or one of "
            f"{', '.join(names_for(networks))}; gwm weights tells more of them"
        )
    return LocalWeights(reference=reference, path=path, sha256=_checked(path, {"asked for": wanted}))


def cached_file(name: str, cache: Path | None = None) -> Path:
    """Return where the file of registered weights lies, or belongs when it is put there by hand."""
    return (cache or Settings().weights_path) / NAMED_WEIGHTS[name].file_name


def imported_path(name: str, cache: Path) -> Path:
    """Return where weights imported as ``name`` lie."""
    return cache / _IMPORTED_FOLDER / f"{name}.safetensors"


def imported_names(cache: Path) -> list[str]:
    """Return the names that gwm import-checkpoint gave, sorted."""
    return sorted(path.stem for path in (cache / _IMPORTED_FOLDER).glob("*.safetensors"))


def weights_table(cache: Path) -> list[dict[str, str]]:
    """Return one row for each name: what it is, whether it is here, its licence, and the file's name in ``cache``."""
    registered = [
        {
            "name": name,
            "what": entry.what,
            "labels": entry.labels,
            "cached": "yes" if _is_file(cache / entry.file_name) else "no",
            "licence": entry.licence,
            "file": entry.file_name,
        }
        for name, entry in NAMED_WEIGHTS.items()
    ]
    imported = [
        {
            "name": name,
            "what": f"imported from {read_lock(imported_path(name, cache)).get('source')}",
            "labels": "unknown",
            "cached": "yes",
            "licence": "unknown: that of its source",
            "file": str(imported_path(name, cache).relative_to(cache)),
        }
        for name in imported_names(cache)
    ]
    return registered + imported


def read_lock(file: Path) -> dict[str, Any]:
    """Return what is pinned of ``file``, empty when nothing is; raises WeightsError when that can not be read."""
    lock = lock_path(file)
    try:
        content = json.loads(lock.read_text()) if lock.is_file() else {}
        if content and not _SHA256.fullmatch(content["sha256"]):
            raise ValueError(f"sha256 is {content['sha256']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{lock} can not be read ({type(error).__name__}: {error}): expected JSON with the SHA-256 of {file.name}; "
            "remove it to pin the file anew"
        ) from error
    return dict(content)


def write_lock(file: Path, content: Mapping[str, str | None]) -> None:
    """Pin ``file``: store its ``sha256`` and where it comes from beside it."""
    publish(lock_path(file), json.dumps(dict(content), indent=2).encode())


def lock_path(file: Path) -> Path:
    """Return the file that pins ``file``."""
    return file.with_name(f"{file.name}.lock.json")


def _named(
    name: str,
    entry: NamedWeights,
    wanted: str | None,
    networks: tuple[str, ...],
    folder: Path,
    on_bytes: OnBytes | None,
) -> LocalWeights:
    _require_fit(name, entry.network, networks)
    path = folder / entry.file_name
    pinned = None if entry.sha256 else read_lock(path).get("sha256")
    expected = {"asked for": wanted, "published": entry.sha256, f"pinned in {lock_path(path)}": pinned}
    known = wanted or entry.sha256 or pinned

    def check(file: Path) -> str:
        digest = _checked(file, expected)
        if not known:
            require_weights_bytes(file)  # an error page must not become what is pinned
        return digest

    if _is_file(path):
        digest = check(path)
    else:
        digest = download(entry.url, path, check, hint=_where_to_put(path, known), on_bytes=on_bytes)
    if not entry.sha256 and not pinned:
        _pin(path, {"name": name, "url": entry.url, "sha256": digest})
    return LocalWeights(reference=name, path=path, sha256=digest, network=entry.network, converter=entry.converter)


def _pin(path: Path, content: Mapping[str, str | None]) -> None:
    try:
        write_lock(path, content)
    except WeightsError as error:  # a folder prepared by others, which may only be read
        logger.warning("%s is used without being pinned: %s", path, error)


def _imported(name: str, wanted: str | None, networks: tuple[str, ...], folder: Path) -> LocalWeights:
    path = imported_path(name, folder)
    lock = read_lock(path)
    if not lock:
        raise WeightsError(f"{lock_path(path)} is missing: expected what {name} is; import the checkpoint again")
    _require_fit(name, lock.get("network"), networks)
    digest = _checked(path, {"asked for": wanted, f"pinned in {lock_path(path)}": lock["sha256"]})
    return LocalWeights(
        reference=name, path=path, sha256=digest, network=lock.get("network"), converter=lock.get("converter")
    )


def _at_uri(uri: str, wanted: str | None, folder: Path, on_bytes: OnBytes | None) -> LocalWeights:
    if wanted is None:
        raise WeightsError(f"weights at {uri} have no pinned SHA-256: add it, so that nobody can swap them unnoticed")
    path = folder / f"{wanted[:16]}-{PurePosixPath(urlsplit(uri).path).name}"

    def check(file: Path) -> str:
        return _checked(file, {"asked for": wanted})

    if _is_file(path):
        digest = check(path)
    else:
        digest = download(uri, path, check, hint=_where_to_put(path, wanted), on_bytes=on_bytes)
    return LocalWeights(reference=uri, path=path, sha256=digest)


def _checked(file: Path, expected: Mapping[str, str | None]) -> str:
    """Return the file's SHA-256; raise WeightsError unless it begins with all that is ``expected``, by origin."""
    digest = sha256_of(file)
    for origin, digits in expected.items():
        if digits is not None and not digest.startswith(digits):
            raise WeightsError(
                f"{file} has SHA-256 {digest}, expected {digits} ({origin}): the file was altered or is another one; "
                "fetch it again, or pin the hash of the file you mean"
            )
    return digest


def _whole_hash(sha256: str | None) -> str | None:
    digits = None if sha256 is None else sha256.strip().lower()
    if digits is not None and not _SHA256.fullmatch(digits):
        raise WeightsError(f"sha256={sha256!r}: expected 64 hex digits, as sha256sum prints them")
    return digits


def _require_fit(name: str, network: str | None, networks: tuple[str, ...]) -> None:
    if networks and network is not None and network not in networks:
        raise WeightsError(
            f"{name} are weights of {network}{_purpose(networks)}: expected one of {', '.join(names_for(networks))}"
        )


def _purpose(networks: tuple[str, ...]) -> str:
    return f" for {' or '.join(networks)}" if networks else ""


def _where_to_put(path: Path, known: str | None) -> str:
    what = f"its SHA-256 must {'be' if known and len(known) == 64 else 'begin with'} {known}"
    return (
        f"Fetch it where there is a network and put it at {path}; "
        f"{what if known else 'its SHA-256 is not published, the first file that is used is pinned'}"
    )


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~name of no user
        raise WeightsError(f"no weights {text!r}: {error}; expected a path") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that may not be looked into, a name that is too long
        return False


__all__ = [
    "IMPORTED_NAME",
    "NAMED_WEIGHTS",
    "LocalWeights",
    "NamedWeights",
    "cached_file",
    "fetch_weights",
    "imported_names",
    "imported_path",
    "lock_path",
    "read_lock",
    "weights_table",
    "write_lock",
]
