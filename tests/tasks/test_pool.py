from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tasks.cluster import PoolResources, ray_session, share_resources
from tasks.errors import ConfigError, FootageError, ServiceError, WeightsError
from tasks.pool import PoolResult, run_pool
from tasks.settings import Settings

TWO = PoolResources(num_actors=2, num_cpus=0.5, num_gpus=0)


class Moody:
    """Squares numbers; some items make it raise, some kill its process, once or always."""

    def __init__(self, folder: str, mood: str = "good") -> None:
        if mood == "raise":
            raise WeightsError("no weights here")
        if mood == "die":
            os._exit(3)
        self.folder = Path(folder)
        (self.folder / f"started_{os.getpid()}").touch()

    def run(self, item: int | str) -> int:
        if item == "poison":
            raise FootageError("corrupt", "at frame 3")
        if item == "kill":
            os._exit(139)
        if item == "kill once":
            try:
                (self.folder / "killed").touch(exist_ok=False)
            except FileExistsError:
                return -1
            os._exit(139)
        assert isinstance(item, int)
        time.sleep(0.01)
        return item * item


def _run(
    folder: Path, items: list[int | str], mood: str = "good", **options: int
) -> dict[object, PoolResult[int | str]]:
    results: dict[object, PoolResult[int | str]] = {}

    def keep(result: PoolResult[int | str]) -> None:
        assert result.item not in results
        results[result.item] = result

    run_pool(Moody, (str(folder), mood), items, resources=TWO, on_result=keep, **options)
    return results


def test_every_item_ends_as_one_result(ray_cluster: None, tmp_path: Path) -> None:
    items: list[int | str] = [*range(20), "poison", "kill", "kill once", *range(20, 30)]
    results = _run(tmp_path, items)
    assert set(results) == set(items)
    assert all(results[item].value == item * item for item in range(30))
    poison, killed = results["poison"], results["kill"]
    assert poison.status == "raised"
    assert isinstance(poison.error, FootageError)
    assert poison.error.reason == "corrupt"
    assert (killed.status, killed.attempts) == ("died", 2)
    assert (results["kill once"].value, results["kill once"].attempts) == (-1, 2)
    # three deaths: two processes at the start, three in place of dead ones at most
    assert 2 <= len(list(tmp_path.glob("started_*"))) <= 5


def test_an_exception_of_the_constructor_is_raised_as_it_is(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights here"):
        _run(tmp_path, [1, 2], mood="raise")


def test_processes_that_die_at_their_start_are_no_fault_of_items(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="died before their first item"):
        _run(tmp_path, [1, 2], mood="die")


def test_an_error_in_the_callback_ends_the_pool(ray_cluster: None, tmp_path: Path) -> None:
    def fail(result: PoolResult[int]) -> None:
        results.append(result)
        raise KeyError(result.item)

    results: list[PoolResult[int]] = []
    with pytest.raises(KeyError):
        run_pool(Moody, (str(tmp_path),), range(5), resources=TWO, on_result=fail)
    assert len(results) == 1


def test_no_items_need_no_process(ray_cluster: None, tmp_path: Path) -> None:
    assert _run(tmp_path, []) == {}
    assert not list(tmp_path.iterdir())


def test_a_ray_that_is_in_use_is_left_running(ray_cluster: None) -> None:
    import ray

    with ray_session(Settings()):
        assert ray.is_initialized()
    assert ray.is_initialized()


@pytest.mark.parametrize(
    ("cluster", "actors", "expected"),
    [
        ({"CPU": 4.0}, None, (4, 1, 0)),
        ({"CPU": 2.0}, 4, (4, 0.5, 0)),
        ({"CPU": 8.0}, 2, (2, 1, 0)),
        ({"CPU": 8.0, "GPU": 2.0}, None, (2, 1, 1)),
        ({"CPU": 8.0, "GPU": 1.0}, 4, (4, 1, 0.25)),
        ({"CPU": 8.0, "GPU": 2.0}, 3, (3, 1, 0.5)),  # two on one GPU, one on the other
        ({"CPU": 8.0, "GPU": 1.0}, 6, (6, 1, 0.1666)),  # 0.1667 would be more than one GPU in all
        ({"CPU": 2.0}, 3, (3, 0.6666, 0)),
    ],
)
def test_resources_are_shared_out(cluster: dict[str, float], actors: int | None, expected: tuple[float, ...]) -> None:
    shared = share_resources(cluster, Settings(ingest_actors=actors))
    assert (shared.num_actors, shared.num_cpus, shared.num_gpus) == expected
    assert shared.device == ("cuda" if expected[2] else "cpu")


def test_a_gpu_can_be_left_alone_and_not_invented() -> None:
    assert share_resources({"CPU": 2.0, "GPU": 1.0}, Settings(device="cpu")).device == "cpu"
    with pytest.raises(ConfigError, match="sees no GPU"):
        share_resources({"CPU": 2.0}, Settings(device="cuda"))
