"""Which processes a run has, and what each reserves."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from services.crew import assemble, plan
from services.run_store.run_folder import RunFolder
from services.runtime.handles import Employer, HostSpec
from tests.train_cases import reward, toy_run

pytestmark = pytest.mark.unit

FOLDER = RunFolder(Path("runs/toy-1"))


def hosts(**cluster: object) -> dict[str, HostSpec]:
    """Host name to host."""
    device = {"device": "auto"}
    config = toy_run(Path("runs"), model=device, cluster={"runtime": "ray", **cluster})
    return {host.name: host for host in plan(config, FOLDER)}


def test_split_gives_every_worker_a_process_of_its_own() -> None:
    found = hosts(num_rollout_workers=2, generator_ranks=3, gpus={"generator": 1})
    assert list(found) == [
        "rollout-0",
        "rollout-1",
        "surrogate",
        "generator",
        "reward-upper_half-0",
        "replay",
        "recorder",
    ]
    assert (found["generator"].ranks, found["generator"].num_gpus) == (3, 1)
    assert all(host.backbone is None for host in found.values())


def test_colocated_puts_all_networks_into_one_process_with_one_backbone() -> None:
    found = hosts(placement="colocated", gpus={"rollout": 0.5, "generator": 1})
    assert list(found) == ["colocated", "reward-upper_half-0", "replay", "recorder"]
    assert list(found["colocated"].workers) == ["rollout-0", "surrogate", "generator"]
    assert found["colocated"].backbone is not None
    assert found["colocated"].num_gpus == 1


def test_workers_without_state_of_their_own_may_be_restarted() -> None:
    restartable = {name for name, host in hosts().items() if host.restartable}
    assert restartable == {"rollout-0", "reward-upper_half-0", "recorder"}


def test_the_evaluator_is_there_only_where_it_has_something_to_score(tmp_path: Path) -> None:
    heldout = tmp_path / "heldout.txt"
    heldout.write_text("label 0\n")
    config = toy_run(
        tmp_path,
        model={"device": "auto"},
        evaluation={"num_images": 4},
        prompts={"heldout": str(heldout)},
        cluster={"gpus": {"evaluator": 0.5}},
    )
    assert "evaluator" not in hosts()
    evaluator = {host.name: host for host in plan(config, FOLDER)}["evaluator"]
    assert (evaluator.num_gpus, evaluator.restartable) == (0.5, True)


def test_no_worker_module_is_imported_by_a_plan() -> None:
    targets = {recipe.target for host in hosts().values() for recipe in host.workers.values()}
    assert all(target.startswith("services.") and ":" in target for target in targets)


def test_workers_that_a_pool_may_hire_are_declared_and_not_started() -> None:
    config = toy_run(Path("runs"), rewards=[reward(num_workers=2, max_workers=3, num_cpus=0.5)])
    found = [host for host in plan(config, FOLDER) if host.name.startswith("reward-")]
    assert [(host.name, host.standby) for host in found] == [
        ("reward-upper_half-0", False),
        ("reward-upper_half-1", False),
        ("reward-upper_half-2", True),
    ]
    assert {host.num_cpus for host in found} == {0.5}
    handles = named(plan(config, FOLDER))
    assert assemble(config, handles).rewards["upper_half"].staff.num_workers == 2


def test_a_runtime_that_can_hire_nobody_says_that_the_size_is_fixed(caplog) -> None:
    config = toy_run(Path("runs"), rewards=[reward(max_workers=3)])
    handles = named(plan(config, FOLDER))
    assemble(config, handles)
    assert "reward 'upper_half' keeps its 1 workers" in caplog.text
    assert "(3 at most)" in caplog.text


def test_all_rollout_workers_but_one_may_go_and_those_beyond_the_first_are_on_standby() -> None:
    found = hosts(num_rollout_workers=2, max_rollout_workers=4)
    assert [(host.hired, host.standby) for name, host in found.items() if "rollout" in name] == [
        (False, False),
        (True, False),
        (True, True),
        (True, True),
    ]
    config = toy_run(Path("runs"), cluster={"num_rollout_workers": 2, "max_rollout_workers": 4})
    fixed = assemble(config, named(found.values())).rollout.staff
    assert (fixed.sizes()["fewest"], fixed.sizes()["most"]) == (2, 2)

    async def hire(name: str, employer: Employer) -> None:
        """Never called here."""

    sizes = assemble(config, named(found.values()), hire).rollout.staff.sizes()
    assert sizes == {"workers": 2, "fewest": 1, "most": 4, "held": 2, "automatic": False}


def test_people_have_one_door_beside_the_pools_of_the_other_rewards() -> None:
    people = {"name": "human", "kind": "human", "options": {"url": "http://127.0.0.1:1"}}
    replay = {"max_staleness_generator": 1, "max_staleness_surrogate": 2}
    advantages = {"combination": "per_reward_advantage"}
    config = toy_run(
        Path("runs"),
        algorithm={"replay": replay, "advantages": advantages},
        rewards=[reward(num_workers=2), people],
    )
    found = {host.name: host for host in plan(config, FOLDER)}
    door = found["reward-human-0"]
    assert door.restartable
    assert door.workers["reward-human-0"].target == "services.reward.human:HumanRewardWorker"
    crew = assemble(config, named(found.values()))
    assert list(crew.rewards) == ["upper_half"]
    assert crew.rewards["upper_half"].staff.num_workers == 2
    assert crew.people["human"].staff.first.name == "reward-human-0"


def named(hosts: Iterable[HostSpec]) -> dict[str, Any]:
    """A handle that is only looked at for each worker that is started."""
    return {name: Named(name) for host in hosts if not host.standby for name in host.workers}


class Named:
    """A handle that is only looked at."""

    def __init__(self, name: str) -> None:
        self.name = self.host = name
