from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tasks.cluster import PoolResources, ray_session, resources, share_resources
from tasks.errors import ConfigError, FootageError, ServiceError, WeightsError
from tasks.pool import PoolResult, pool_session, run_pool
from tasks.settings import Settings

TWO = PoolResources(num_actors=2, num_cpus=0.5, num_gpus=0)


def wait_until(done: Callable[[], bool], seconds: int = 60) -> None:
    for _ in range(10 * seconds):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError(f"{seconds} seconds passed")


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
        if item == "slow":
            wait_until((self.folder / "go on").exists)
            return 0
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
    assert results["kill once"].value == -1
    # five deaths at most, two of them of processes that had two items: two at the start, five in place of dead ones
    assert 2 <= len(list(tmp_path.glob("started_*"))) <= 7


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


def test_the_item_behind_the_one_that_killed_the_process_is_not_blamed(ray_cluster: None, tmp_path: Path) -> None:
    items: list[int | str] = ["kill", *range(8)]
    results: dict[object, PoolResult[int | str]] = {}
    one = PoolResources(num_actors=1, num_cpus=0.5, num_gpus=0)
    run_pool(
        Moody,
        (str(tmp_path),),
        items,
        resources=one,
        max_attempts=1,
        on_result=lambda result: results.update({result.item: result}),
    )
    assert results["kill"].status == "died"
    assert [results[item].attempts for item in range(8)] == [1] * 8
    assert all(results[item].value == item * item for item in range(8))


def test_actors_are_handed_on_inside_a_session_and_end_with_it(ray_cluster: None, tmp_path: Path) -> None:
    def processes() -> set[str]:
        return {path.name for path in tmp_path.glob("started_*")}

    def run(items: list[int | str], *, more_to_come: bool) -> None:
        run_pool(
            Moody, (str(tmp_path),), items, resources=TWO, more_to_come=more_to_come, on_result=lambda result: None
        )

    with pool_session(Settings(ingest_actors=2)):
        run([*range(6)], more_to_come=True)
        first = processes()
        run([*range(6)], more_to_come=True)
        assert processes() == first
        for name in first:
            os.kill(int(name.removeprefix("started_")), signal.SIGKILL)
        run([1, 2, 3], more_to_come=True)  # kept processes that died are replaced, and no item is blamed
        run([1], more_to_come=False)
        last = processes() - first
    assert 1 <= len(last) <= 2
    wait_until(lambda: not any(_is_alive(name) for name in last))


def _is_alive(name: str) -> bool:
    try:
        return psutil.Process(int(name.removeprefix("started_"))).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_reservations_return_while_the_last_items_are_under_way(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    before = ray.cluster_resources()["CPU"]
    wait_until(lambda: ray.available_resources()["CPU"] == before)  # actors of other tests are gone
    seen: list[float] = []

    def look(result: PoolResult[int | str]) -> None:
        if result.item == 1:  # "slow" is still under way on the other actor
            wait_until(lambda: ray.available_resources()["CPU"] == before - 0.5)
            seen.append(ray.available_resources()["CPU"])
            (tmp_path / "go on").touch()

    run_pool(Moody, (str(tmp_path),), ["slow", 1], resources=TWO, on_result=look)
    assert seen == [before - 0.5]


def test_no_actors_means_this_process(tmp_path: Path) -> None:
    results: dict[object, PoolResult[int | str]] = {}
    here = resources(Settings(ingest_actors=0))
    with pool_session(Settings(ingest_actors=0)):
        run_pool(
            Moody,
            (str(tmp_path),),
            [3, "poison"],
            resources=here,
            on_result=lambda result: results.update({result.item: result}),
        )
    assert [path.name for path in tmp_path.iterdir()] == [f"started_{os.getpid()}"]
    assert (results[3].value, results["poison"].status) == (9, "raised")
    assert isinstance(results["poison"].error, FootageError)


def test_a_ray_that_is_in_use_is_left_running(ray_cluster: None) -> None:
    import ray

    with ray_session(Settings()):
        assert ray.is_initialized()
    assert ray.is_initialized()


def test_a_ray_that_starts_too_slowly_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # what Ray 2.60 raises

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", too_slow)
    with (
        pytest.raises(ServiceError, match="can not start a local Ray: The current node timed out"),
        ray_session(Settings()),
    ):
        pytest.fail("there is no Ray")


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
