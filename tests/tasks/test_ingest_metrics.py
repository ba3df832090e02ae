from __future__ import annotations

import re
import urllib.request
from unittest.mock import patch

import ray

from tasks import ingest_metrics
from tasks.ingest_metrics import IngestMetrics
from tests.tasks.test_pool import wait_until

DATASET = "s3://bucket/scraped"


def _page() -> str:
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return str(answer.read().decode())


def test_prometheus_can_scrape_what_an_ingest_did(ray_cluster: None) -> None:
    metrics = IngestMetrics(DATASET)
    metrics.video_ended("ingested", "new", num_frames=5, num_bytes=100, seconds=0.5, num_left=2)
    metrics.video_ended("ingested", "new", num_frames=7, num_bytes=200, seconds=5.0, num_left=1)
    metrics.video_ended("rejected", "corrupt", num_frames=0, num_bytes=0, seconds=0.1, num_left=0)
    metrics.committed()
    pages: list[str] = []

    def is_told() -> bool:
        pages.append(_page())
        return f'dataset="{DATASET}"' in pages[-1]

    wait_until(is_told)  # Ray reports every ten seconds

    told = {}
    for line in pages[-1].splitlines():
        if f'dataset="{DATASET}"' in line:
            name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
            status = re.search(r'status="(\w+)"', labels)
            reason = re.search(r'reason="(\w+)"', labels)
            bound = re.search(r'le="([^"]+)"', labels)
            key = tuple(found[1] for found in (status, reason, bound) if found)
            told[name, *key] = float(value)
    assert told["ray_gwm_ingest_videos_total", "ingested"] == 2
    assert told["ray_gwm_ingest_videos_total", "rejected", "corrupt"] == 1
    assert told["ray_gwm_ingest_frames_total",] == 12
    assert told["ray_gwm_ingest_bytes_total",] == 300
    assert told["ray_gwm_ingest_commits_total",] == 1
    assert told["ray_gwm_ingest_videos_left",] == 0
    assert told["ray_gwm_ingest_video_seconds_bucket", "1.0"] == 2
    documented = set(re.findall(r"ray_gwm_\w+", ingest_metrics.__doc__ or ""))
    assert documented == {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name, *_ in told}


def test_without_ray_nobody_is_told() -> None:
    with patch("ray.is_initialized", return_value=False), patch("tasks.ingest_metrics._metrics") as made:
        IngestMetrics(DATASET).video_ended("ingested", "new", num_frames=1, num_bytes=1, seconds=1, num_left=0)
        IngestMetrics(DATASET).committed()
    made.assert_not_called()
