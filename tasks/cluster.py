"""Where Ray work runs: a Ray of this command's own, or a cluster that others share.

A local Ray listens on all interfaces whatever address it is told, and who reaches it can run code. So authentication is
left to Ray's default for local clusters: a token that Ray makes in ``~/.ray/auth_token`` and announces to its processes
by setting ``RAY_AUTH_MODE=token``. A mode that is set already is respected; on a cluster it is the operator's.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from tasks.errors import ConfigError, ServiceError
from tasks.s3_setting import job_environment, prepare_process
from tasks.settings import Settings

PROJECT_ROOT = Path(__file__).resolve().parents[1]
_SHIPPED_PACKAGES = ("model", "tasks")
_MEBIBYTE = 1 << 20
_RAY_UNITS = 10_000  # Ray's kResourceUnitScaling: the smallest part of a CPU or GPU that it tells apart


@dataclass(frozen=True, kw_only=True)
class PoolResources:
    """How many actors a pool gets, and what each reserves: CPUs and GPUs as Ray counts them.

    No actors means that the calling process does the work.
    """

    num_actors: int
    num_cpus: float
    num_gpus: float

    @property
    def device(self) -> str:
        """Torch device of an actor."""
        return "cuda" if self.num_gpus else "cpu"


@contextmanager
def ray_session(settings: Settings) -> Iterator[None]:
    """Have Ray for the length of the block.

    A Ray that this process already uses is used on, and left alone afterwards. Otherwise connects to
    ``settings.ray_address``, which is left running, or starts a local Ray, which ends with the block.
    Raises ServiceError when neither is possible.
    """
    if ray.is_initialized():
        yield
        return
    try:
        if settings.ray_address:
            _connect(settings.ray_address)
        else:
            _start_local(settings)
    except Exception as error:  # Ray raises Exception itself where a busy machine starts it too slowly
        where = f"connect to Ray at {settings.ray_address}" if settings.ray_address else "start a local Ray"
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ServiceError(
            f"can not {where}: {reason[0]}; check GWM_RAY_ADDRESS, RAY_AUTH_MODE and that /tmp and /dev/shm have room"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()  # of a cluster this is only the connection


def resources(settings: Settings) -> PoolResources:
    """Share out the machines of the running Ray among ingest actors: a GPU each where there are any, else a CPU.

    Raises ConfigError when the settings ask for CUDA and Ray sees no GPU.
    """
    if settings.ingest_actors == 0:
        return PoolResources(num_actors=0, num_cpus=0, num_gpus=0)
    return share_resources(ray.cluster_resources(), settings)


def share_resources(cluster: Mapping[str, float], settings: Settings) -> PoolResources:
    """The decision of ``resources``, given what Ray says it has."""
    cpus, gpus = int(cluster.get("CPU", 0)), int(cluster.get("GPU", 0))
    if settings.device == "cuda" and not gpus:
        raise ConfigError("GWM_DEVICE=cuda, but Ray sees no GPU; use auto or cpu, or start Ray with GPUs")
    use_gpu = gpus > 0 and settings.device != "cpu"
    num_actors = settings.ingest_actors or max(1, gpus if use_gpu else cpus)
    if use_gpu:
        # more actors than GPUs share them: decoding then overlaps with another actor's networks
        return PoolResources(num_actors=num_actors, num_cpus=1, num_gpus=_share(1, math.ceil(num_actors / gpus)))
    return PoolResources(num_actors=num_actors, num_cpus=_share(cpus, num_actors), num_gpus=0)


def _share(available: int, num_actors: int) -> float:
    """What each of ``num_actors`` may reserve so that all of them run at once: at most 1, rounded down.

    An actor's part of a GPU lies on one GPU, and Ray counts in ten-thousandths, rounding to the nearest: three times
    2/3 is more than 2 to it, and the third actor would wait for ever.
    """
    return min(1.0, available * _RAY_UNITS // num_actors / _RAY_UNITS)


def _connect(address: str) -> None:
    packages = [str(PROJECT_ROOT / name) for name in _SHIPPED_PACKAGES]
    ray.init(address=address, runtime_env={"py_modules": packages, "env_vars": job_environment()}, **_quiet())


def _start_local(settings: Settings) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default; unset it warns
    prepare_process()  # all of Ray's processes inherit it
    ray.init(
        num_cpus=settings.ray_cpus,
        include_dashboard=False,
        object_store_memory=settings.ray_object_store_mb * _MEBIBYTE,
        runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
        **_quiet(),
    )


def _quiet() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}


def _python_path() -> str:
    """The project first, so that ``tasks`` in a worker is ours whatever else is installed under that name."""
    return os.pathsep.join([str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
