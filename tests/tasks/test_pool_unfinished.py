"""What actors leave to be finished without them."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.cluster import PoolResources, resources
from tasks.errors import StorageError
from tasks.pool import PoolResult, Unfinished, run_pool
from tasks.ray_pool import LEFT_PER_ACTOR
from tasks.settings import Settings
from tests.tasks.test_pool import wait_until

ONE = PoolResources(num_actors=1, num_cpus=0.5, num_gpus=0)

Results = dict[object, PoolResult[str]]


@dataclass(frozen=True)
class Rest:
    """Writes down who finished an item; some items fail, or kill the process, once or always."""

    folder: Path
    item: str

    def __call__(self) -> None:
        if self.item.startswith("wait"):
            wait_until((self.folder / "go on").exists)
        if self.item == "fail":
            raise StorageError("the disk is full")
        killed = self.folder / f"killed_{self.item}"
        if self.item == "kill" or (self.item == "kill once" and not killed.exists()):
            killed.touch()
            os._exit(139)
        (self.folder / f"finished_{self.item}").write_text(str(os.getpid()))


class Leaving:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, item: str) -> str | Unfinished:
        (self._folder / f"begun_{item}").write_text(str(os.getpid()))
        return item if item == "whole" else Unfinished(value=item.upper(), finish=Rest(self._folder, item))


def _run(folder: Path, items: list[str], resources: PoolResources = ONE) -> Results:
    results: Results = {}
    run_pool(
        Leaving, (folder,), items, resources=resources, on_result=lambda result: results.update({result.item: result})
    )
    return results


def test_another_process_finishes_what_an_actor_left(ray_cluster: None, tmp_path: Path) -> None:
    results = _run(tmp_path, ["whole", "a", "b", "fail", "kill once"])
    assert {item: result.value for item, result in results.items()} == {
        "whole": "whole",
        "a": "A",
        "b": "B",
        "fail": None,
        "kill once": "KILL ONCE",
    }
    assert (results["fail"].status, results["kill once"].attempts) == ("raised", 1)
    assert isinstance(results["fail"].error, StorageError)
    assert (tmp_path / "begun_a").read_text() != (tmp_path / "finished_a").read_text()


def test_an_item_that_is_never_finished_has_died(ray_cluster: None, tmp_path: Path) -> None:
    results = _run(tmp_path, ["kill", "a"])
    assert (results["kill"].status, results["kill"].attempts) == ("died", 2)
    assert results["a"].value == "A"


def test_the_actor_ends_while_its_last_items_are_finished(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    before = ray.cluster_resources()["CPU"]
    wait_until(lambda: ray.available_resources()["CPU"] == before)  # actors of other tests are gone

    def watch_and_release(result: PoolResult[str]) -> None:
        if result.item == "whole":  # the last one: nothing waits, and "wait" is still being finished
            wait_until(lambda: ray.available_resources()["CPU"] == before)
            assert not (tmp_path / "finished_wait").exists()
            (tmp_path / "go on").touch()

    run_pool(Leaving, (tmp_path,), ["wait", "whole"], resources=ONE, on_result=watch_and_release)
    assert (tmp_path / "finished_wait").exists()


def test_an_actor_that_left_enough_waits(ray_cluster: None, tmp_path: Path) -> None:
    items = [f"wait {number}" for number in range(LEFT_PER_ACTOR)]
    results: Results = {}
    queue = [*items, "late 1", "late 2", "late 3"]
    thread = threading.Thread(target=lambda: results.update(_run(tmp_path, queue)))
    thread.start()
    wait_until(lambda: len(list(tmp_path.glob("begun_wait*"))) == LEFT_PER_ACTOR)
    assert not (tmp_path / "begun_late 3").exists()  # the two at hand may have begun
    (tmp_path / "go on").touch()
    thread.join()
    assert set(results) == set(queue)


def test_without_actors_it_is_finished_here(tmp_path: Path) -> None:
    results = _run(tmp_path, ["a"], resources(Settings(ingest_actors=0)))
    assert (results["a"].value, (tmp_path / "finished_a").read_text()) == ("A", str(os.getpid()))
    with pytest.raises(StorageError):
        raise _run(tmp_path, ["fail"], resources(Settings(ingest_actors=0)))["fail"].error or AssertionError
