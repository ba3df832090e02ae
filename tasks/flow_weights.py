"""Where the weights of learned optical flow estimators come from.

Weights are given as one of

- a torchvision name (``C_T_V1``), downloaded once into the cache folder where the network allows it;
- a local file (``.pth`` or ``.safetensors``), in torchvision's or princeton-vl/RAFT's names;
- a URI (``s3://``, ``https://``, ...) with the SHA-256 that its bytes must have.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from torch.hub import download_url_to_file
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights

from model.errors import WeightsError
from model.weights import check_sha256
from tasks.errors import StorageError
from tasks.settings import Settings
from tasks.storage import fsspec_view

TORCHVISION_WEIGHTS = {"raft-large": Raft_Large_Weights, "raft-small": Raft_Small_Weights}

DEFAULT_RAFT_WEIGHTS = "C_T_V1"
"""RAFT's authors' checkpoint of FlyingChairs and FlyingThings as torchvision ported it. GWM computed its flows with the
original file, ``raft-things.pth``, which can be given as a file."""


def find_weights(variant: str, weights: str, sha256: str | None = None, cache_dir: Path | None = None) -> Path:
    """Return a local file with the weights, downloading it into ``cache_dir`` when it is not there yet.

    The content of a local file is left for the loader to check. Raises WeightsError when there is no such
    file, name or URI, and when a URI has no SHA-256 to check.
    """
    cache = cache_dir or Settings().weights_path
    if weights in TORCHVISION_WEIGHTS[variant].__members__:
        return fetch_torchvision_file(TORCHVISION_WEIGHTS[variant][weights].url, cache)
    if weights.startswith("file://"):
        weights = unquote(urlsplit(weights).path)
    if "://" in weights:
        return fetch_pinned_file(weights, sha256, cache)
    path = Path(weights).expanduser()
    if not path.is_file():
        names = ", ".join(TORCHVISION_WEIGHTS[variant].__members__)
        raise WeightsError(
            f"no weights {weights!r} for {variant}: expected a file, a URI with its SHA-256, "
            f"or one of torchvision's {names}"
        )
    return path


def fetch_torchvision_file(url: str, cache: Path) -> Path:
    """Return the cached copy of a file of torchvision, whose name ends in the first digits of its SHA-256."""
    path = cache / Path(urlsplit(url).path).name
    if path.is_file():
        return path
    hash_prefix = path.stem.rpartition("-")[2]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Writes beside the target, checks the hash and renames, so that a broken download leaves nothing.
        download_url_to_file(url, str(path), hash_prefix, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"can not download {url}: {error}. Fetch it where there is a network and put it at {path}, "
            "or give the weights as a file"
        ) from error
    return path


def fetch_pinned_file(uri: str, sha256: str | None, cache: Path) -> Path:
    """Return the cached copy of a URI, named by its hash; bytes with another hash are never kept."""
    if sha256 is None:
        raise WeightsError(f"weights at {uri} have no pinned SHA-256: add it, so that nobody can swap them unnoticed")
    digest = sha256.strip().lower()
    path = cache / f"{digest[:16]}-{Path(urlsplit(uri).path).name}"
    if path.is_file():
        return path  # the loader checks it against the whole hash
    partial_path = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        filesystem, remote_path = fsspec_view(uri)
        try:
            with filesystem.open(remote_path, "rb") as source, partial_path.open("wb") as target:
                shutil.copyfileobj(source, target)
            check_sha256(partial_path, digest)
            partial_path.replace(path)
        finally:
            partial_path.unlink(missing_ok=True)
    except (OSError, ValueError, StorageError) as error:
        raise WeightsError(f"can not fetch weights from {uri}: {type(error).__name__}: {error}") from error
    return path
