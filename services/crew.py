"""Which processes a run consists of, and the handles to them by what they do."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from services.config import ROLLOUT, RewardConfig, RunConfig
from services.run_store.run_folder import RunFolder
from services.runtime.batch_pool import BatchPool
from services.runtime.batches import BatchQueue, Lost
from services.runtime.handles import Handle, Hire, HostSpec, Recipe
from services.runtime.pool import Pool
from services.runtime.scaling import ScaleBounds
from services.runtime.staff import Staff

log = logging.getLogger(__name__)

ROLES = ("teacher", "generator", "fake_score", "surrogate", "surrogate_ema")


@dataclass(frozen=True)
class Crew:
    """The workers of one run."""

    rollout: Pool
    """Generate groups."""
    rewards: Mapping[str, BatchPool]
    """Reward name to the workers that judge by it, of those that are trained on."""
    heldout: Mapping[str, BatchPool]
    """The same of those that only evaluations ask."""
    people: Mapping[str, Pool]
    """Reward name to the one worker that passes groups on to people."""
    replay: Handle
    """Holds the groups."""
    surrogate: Handle
    """Learns the reward."""
    generator: Handle
    """Learns the fake score and the generator."""
    evaluator: Pool | None
    """Generates for held-out prompts; None where the config wants no evaluation."""
    recorder: Pool
    """Writes images and checkpoints."""

    @property
    def judges(self) -> dict[str, BatchPool]:
        """All that judge held-out images."""
        return {**self.rewards, **self.heldout}


def plan(config: RunConfig, folder: RunFolder) -> list[HostSpec]:
    """The run's processes, with what each reserves; nothing is started."""
    return [*_networks(config, folder), *_rewards(config, folder), *_keepers(config, folder)]


def assemble(config: RunConfig, handles: Mapping[str, Handle], hire: Hire | None = None) -> Crew:
    """The crew of a run whose `plan` was started; `hire` keeps those that are hired, if it can."""
    return Crew(
        rollout=_rollout_pool(config, handles, hire),
        rewards={
            reward.name: _reward_pool(config, reward, handles, hire)
            for reward in config.automatic_rewards
        },
        heldout={
            reward.name: _reward_pool(config, reward, handles, hire)
            for reward in _heldout_rewards(config)
        },
        people={
            reward.name: _pool_of_one(handles, f"reward-{reward.name}-0")
            for reward in config.rewards
            if reward.human
        },
        replay=handles["replay"],
        surrogate=handles["surrogate"],
        generator=handles["generator"],
        evaluator=_pool_of_one(handles, "evaluator") if "evaluator" in handles else None,
        recorder=_pool_of_one(handles, "recorder"),
    )


def _pool_of_one(handles: Mapping[str, Handle], name: str) -> Pool:
    return Pool(Staff([handles[name]]))


def _rollout_pool(config: RunConfig, handles: Mapping[str, Handle], hire: Hire | None) -> Pool:
    names = _rollout_workers(config)
    return Pool(_staff(ROLLOUT, names, ScaleBounds(1, len(names)), handles, hire))


def _reward_pool(
    config: RunConfig, reward: RewardConfig, handles: Mapping[str, Handle], hire: Hire | None
) -> BatchPool:
    names = _reward_workers(reward)
    pace_s = (reward.scale_up_after_s, reward.scale_down_after_s)
    bounds = ScaleBounds(reward.num_workers, len(names), *pace_s)
    capacity = config.algorithm.replay.capacity_groups
    return BatchPool(
        _staff(f"reward {reward.name!r}", names, bounds, handles, hire),
        BatchQueue(reward.batch_size, reward.batch_wait_s, capacity, reward.queue_deadline_s),
        partial(_fault_of, reward),
    )


def _staff(
    pool: str,
    names: Sequence[str],
    bounds: ScaleBounds,
    handles: Mapping[str, Handle],
    hire: Hire | None,
) -> Staff:
    """Those of `names` that were started, and the others on standby."""
    here = [handles[name] for name in names if name in handles]
    if hire is None and len(here) < len(names):
        log.warning(
            "%s keeps its %d workers: only cluster.runtime=ray can start more of them (%d at most)",
            pool,
            len(here),
            len(names),
        )
    return Staff(here, bounds, names[len(here) :], hire)


def _fault_of(reward: RewardConfig, lost: Lost) -> RuntimeError | None:
    """What ends the run when the reward has lost a group, if its `on_failure` says so."""
    if reward.on_failure != "stop_run":
        return None
    return RuntimeError(
        f"reward {reward.name!r} has no value for a group and its on_failure is stop_run: "
        f"{lost.reason}; mend the reward or give it more workers, or set on_failure to drop_sample "
        "or drop_group"
    )


def _heldout_rewards(config: RunConfig) -> list[RewardConfig]:
    return config.evaluation.rewards if config.evaluation.num_images else []


def _reward_workers(reward: RewardConfig) -> list[str]:
    """Those that are always there, then those that may be hired."""
    return [f"reward-{reward.name}-{i}" for i in range(reward.max_workers or reward.num_workers)]


def _rollout_workers(config: RunConfig) -> list[str]:
    """The same of rollout: one is always there."""
    colocated = config.cluster.placement == "colocated"
    return [f"rollout-{i}" for i in range(1 if colocated else config.cluster.most_rollout_workers)]


def _networks(config: RunConfig, folder: RunFolder) -> list[HostSpec]:
    """Workers that hold a network: a process each, or one for all with one backbone."""
    cluster, rollouts = config.cluster, _rollout_workers(config)
    workers = {
        name: Recipe("services.rollout.worker:RolloutWorker", (config, index))
        for index, name in enumerate(rollouts)
    } | {
        "surrogate": Recipe("services.surrogate.learner:SurrogateLearner", (config,)),
        "generator": Recipe("services.generator.learner:GeneratorLearner", (config,)),
    }
    if config.evaluation.num_images:
        make = "services.evaluation.evaluator:Evaluator"
        workers["evaluator"] = Recipe(make, (config, str(folder.path)))
    if cluster.placement == "colocated":
        backbone = Recipe("services.models.load:load_backbone", (config.model, ROLES))
        return [
            HostSpec(
                "colocated",
                workers,
                backbone,
                num_cpus=cluster.threads_per_worker,
                num_gpus=max(cluster.gpus.model_dump().values()),
                threads=cluster.threads_per_worker,
            )
        ]
    ranks = {"surrogate": cluster.surrogate_ranks, "generator": cluster.generator_ranks}
    gpus = cluster.gpus.model_dump()
    return [
        HostSpec(
            name,
            {name: recipe},
            ranks=ranks.get(name, 1),
            num_cpus=cluster.threads_per_worker,
            num_gpus=gpus[name.partition("-")[0]],
            threads=cluster.threads_per_worker,
            restartable=name not in ranks,
            hired=name in rollouts[1:],
            standby=name in rollouts[cluster.num_rollout_workers :],
        )
        for name, recipe in workers.items()
    ]


def _rewards(config: RunConfig, folder: RunFolder) -> list[HostSpec]:
    def recipe(reward: RewardConfig, index: int) -> Recipe:
        if reward.human is None:
            return Recipe("services.reward.worker:RewardWorker", (reward, index))
        sampler = {"nfe": config.algorithm.sampler.num_steps, "seed": config.run.seed}
        arguments = (reward, folder.id, config.algorithm.group_size, sampler)
        return Recipe("services.reward.human:HumanRewardWorker", arguments)

    return [
        HostSpec(
            name,
            {name: recipe(reward, index)},
            num_cpus=reward.num_cpus,
            num_gpus=reward.num_gpus,
            threads=config.cluster.threads_per_worker,
            restartable=True,
            hired=index >= reward.num_workers,
            standby=index >= reward.num_workers,
        )
        for reward in (*config.rewards, *_heldout_rewards(config))
        for index, name in enumerate(_reward_workers(reward))
    ]


def _keepers(config: RunConfig, folder: RunFolder) -> list[HostSpec]:
    """The replay buffer and the recorder: they hold and write, and compute next to nothing."""
    recipes = {
        "replay": Recipe("services.replay.worker:ReplayWorker", (config,)),
        "recorder": Recipe("services.recording.worker:Recorder", (config, str(folder.path))),
    }
    return [
        HostSpec(name, {name: recipe}, num_cpus=0, restartable=name == "recorder")
        for name, recipe in recipes.items()
    ]
