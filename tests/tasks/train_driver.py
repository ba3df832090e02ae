"""A driver of a training in a process of its own, so that a test can kill it: home, dataset, training id."""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.cluster import ray_session
from tasks.train import train
from tests.tasks.training_data import kill_experiment, local_settings


def main(home: str, dataset: str, training_id: str, address: str) -> None:
    settings = local_settings(Path(home), workers=1).model_copy(update={"ray_address": address})
    with ray_session(settings):
        train(kill_experiment(), dataset, None, settings, training_id=training_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
