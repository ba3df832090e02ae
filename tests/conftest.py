"""Fixtures of all tests: a quiet environment of their own, seeded randomness and one Ray cluster for the session.

``make test`` runs two sessions beside each other: most tests wait for processes to start half of their time.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from tests import s3_server

s3_server.prepare_environment()
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # how late the end of a training is seen
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

_SHARED_SERVERS = ("ray_cluster", "s3_store", "s3_bucket", "s3_root")  # fixtures of the session


class _ByServers(LoadScopeScheduling):
    """Keeps together what shares servers, so that one of each kind is started, and parts the others by file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/pipelines/"):
            return "pipelines"  # Prefect's server, and a Ray of their own
        text = (Path(__file__).parents[1] / file).read_text()
        return "servers" if any(name in text for name in _SHARED_SERVERS) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Of pytest-xdist, which two halves of the tests run by."""
    return _ByServers(config, log)


@pytest.fixture(autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test an empty home, and undo what it did to the environment and to the random generators."""
    environment = dict(os.environ)
    monkeypatch.setenv("GWM_HOME", str(tmp_path_factory.mktemp("gwm_home")))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and on a busy machine lose twentyfold by waiting for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One local Ray without a dashboard for all tests that need one."""
    import ray

    root = Path(__file__).resolve().parents[1]
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(root)}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.S3Server]:
    """One S3 server for the session, with an empty bucket. Whoever kills it starts it again."""
    if s3_server.IS_GIVEN:
        pytest.skip("kills the S3 server; this one was given")
    server = s3_server.S3Server(tmp_path_factory.mktemp("s3") / "store")
    server.start()
    s3_server.make_bucket()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def s3_bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """URI of the bucket of a running S3 server."""
    if s3_server.IS_GIVEN:
        s3_server.make_bucket()
    else:
        request.getfixturevalue("s3_store")
    yield f"s3://{s3_server.BUCKET}"
    if s3_server.IS_GIVEN:
        s3_server.remove_bucket()


@pytest.fixture
def s3_root(s3_bucket: str, tmp_path: Path) -> str:
    """URI of a folder of this test's own on a running S3 server: what ``tmp_path`` is on a disk."""
    return f"{s3_bucket}/{tmp_path.name}-{uuid.uuid4().hex[:8]}"
