"""From sample keys to stacked batches, ahead of the training loop.

Which samples make a batch is decided in ``tasks/sampling.py``; here they are read, mirrored, prepared by the method,
kept in memory as far as allowed, and stacked by a few threads that work on the next batches. The work is in OpenCV,
zstd, numba and torch, which all release Python's lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from model.types import FramePair
from tasks.config import ExperimentConfig
from tasks.dataset import FrameReader
from tasks.errors import ConfigError
from tasks.sampling import SampleKey, batch_for, plan_sampling

Sample = dict[str, Tensor]


class SampleCache:
    """Prepared samples up to a number of bytes.

    What is in stays in: with every sample equally likely at every step, no order of eviction would hit more often.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._samples: dict[SampleKey, Sample] = {}
        self._lock = threading.Lock()
        self.num_bytes = 0

    def get(self, key: SampleKey) -> Sample | None:
        """Return the sample, None when it is not kept."""
        return self._samples.get(key)

    def offer(self, key: SampleKey, sample: Sample) -> None:
        """Keep the sample if it fits."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in sample.values())
        with self._lock:
            if key not in self._samples and self.num_bytes + size <= self._max_bytes:
                self._samples[key] = sample
                self.num_bytes += size


class TrainingLoader:
    """Stacked batches of one worker, from any step on, always the same ones."""

    def __init__(
        self,
        reader: FrameReader,
        prepare: Callable[[FramePair], Sample],
        config: ExperimentConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        num_threads: int = 2,
        pin_memory: bool = False,
    ) -> None:
        """``pin_memory``: leave batches where a GPU can fetch them while it computes."""
        batch_size = config.optimisation.global_batch_size
        if batch_size % world_size:
            raise ConfigError(
                f"global_batch_size={batch_size} can not be shared by {world_size} workers in equal parts; "
                f"use a multiple of {world_size}"
            )
        gaps = config.data.gaps if config.data.gaps_from == "experiment" else None
        if gaps is not None:
            reader.require_gaps(gaps)
        self._reader = reader
        self._prepare = prepare
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._num_threads = num_threads
        self._pin_memory = pin_memory
        self._cache = SampleCache(config.data.cache_mb * 2**20)
        self._plan = plan_sampling(
            seed=config.optimisation.seed,
            clips=reader.clips,
            gaps=gaps,
            gap_sampling=config.data.gap_sampling,
            flip=config.data.horizontal_flip,
            held_out_percent=config.held_out_frames_percent,
        )

    def keys(self, step: int) -> tuple[SampleKey, ...]:
        """Return which samples this worker trains on at ``step``."""
        return batch_for(
            self._plan,
            step=step,
            global_batch_size=self._batch_size,
            rank=self._rank,
            world_size=self._world_size,
        )

    def batch(self, step: int) -> Sample:
        """Read and stack the batch of ``step``; every value gets a first dimension of local batch size."""
        samples = [self._sample(key) for key in self.keys(step)]
        stacked = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
        return {name: value.pin_memory() for name, value in stacked.items()} if self._pin_memory else stacked

    def iterate(self, start_step: int, stop_step: int) -> Iterator[tuple[int, Sample]]:
        """Yield (step, batch) from ``start_step`` to before ``stop_step``, preparing the next ones meanwhile."""
        with ThreadPoolExecutor(self._num_threads, thread_name_prefix="loader") as pool:
            ahead: deque[tuple[int, Future[Sample]]] = deque()
            try:
                for step in range(start_step, stop_step + self._num_threads):
                    if step < stop_step:
                        ahead.append((step, pool.submit(self.batch, step)))
                    if ahead and (len(ahead) > self._num_threads or step >= stop_step):
                        ready, future = ahead.popleft()
                        yield ready, future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _sample(self, key: SampleKey) -> Sample:
        kept = self._cache.get(key)
        if kept is not None:
            return kept
        pair = self._reader.read_pair(key.clip, key.frame, key.gap)
        sample = self._prepare(mirrored(pair) if key.flip else pair)
        self._cache.offer(key, sample)
        return sample


def mirrored(pair: FramePair) -> FramePair:
    """Mirror left and right: pixels change places, and what moved right now moves left."""
    flow = pair.flow.flip(-1)
    return FramePair(image=pair.image.flip(-1), flow=torch.stack((-flow[0], flow[1])), gap=pair.gap)
