"""Toy batches and learners for tests: uneven groups, some samples without a reward."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from services.config import RunConfig, config_from_tree
from services.generator.learner import GeneratorLearner
from services.surrogate.learner import SurrogateLearner
from tdm_core.advantages import AdvantageNormaliser
from tdm_core.batches import rewarded_batch
from tdm_core.sampler import initial_noise, sample
from tdm_core.seeding import rng_for
from tdm_core.toy import ToyDenoiser, two_by_two
from tdm_core.types import Prompt, RewardedBatch, RewardedGroup, RolloutGroup

GROUP_SIZES = (6, 3, 5, 4)


def toy_config(**cluster: Any) -> RunConfig:
    """Four groups in two microbatches, at rates that move the toy's five thousand weights."""
    dtype = cluster.pop("dtype", "float32")
    ranks = {"placement": "split"} if cluster.get("generator_ranks", 1) > 1 else {}
    tree = {
        "algorithm": {
            "num_groups": 4,
            "group_size": 6,
            "groups_per_microbatch": 2,
            "surrogate": {"lr": 2e-3},
            "fake_score": {"lr": 2e-3},
            "generator": {"lr": 5e-4},
            "advantages": {"normaliser": "batch_std"},
        },
        "model": {"family": "toy", "teacher": "toy", "dtype": dtype, "device": "cpu"},
        "prompts": {"train": "prompts.jsonl"},
        "rewards": [{"name": "upper_half", "kind": "python:tdm_core.toy:UpperHalfReward"}],
        "cluster": cluster | ranks,
    }
    return config_from_tree(tree, "toy_config", check_files=False)


def toy_batch(config: RunConfig, iteration: int) -> RewardedBatch:
    """Rollouts of the untrained generator, rewarded in the upper half; a few rewards missing."""
    dtype = torch.float64 if config.model.dtype == "float64" else torch.float32
    denoiser = ToyDenoiser(two_by_two(dtype)).requires_grad_(False)
    groups = [
        _group(denoiser, config, 100 * iteration + index, size)
        for index, size in enumerate(GROUP_SIZES)
    ]
    normaliser = AdvantageNormaliser(config.algorithm.advantages, weights=[1.0])
    return rewarded_batch(groups, normaliser, ["upper_half"])


def _group(denoiser: ToyDenoiser, config: RunConfig, group_id: int, size: int) -> RewardedGroup:
    world, label = denoiser.world, group_id % 2
    noise = initial_noise(config.run.seed, group_id, size, world.latent_shape, world.means_MD)
    conditioning = world.conditioning([label])
    trajectory = sample(denoiser, noise, conditioning, config.algorithm.sampler)
    prompt = Prompt(f"toy:{label}", f"label {label}")
    rewards = (trajectory.boundaries_GKCHW[:, -1, 1, 0, 0] > 0).double()
    rewards[torch.rand(size, generator=rng_for(0, "missing", group_id)) < 0.15] = torch.nan
    rewards_RGK = rewards[None, :, None].expand(1, size, 4).clone()
    group = RolloutGroup(group_id, prompt, 0, trajectory, conditioning)
    return RewardedGroup(group, rewards_RGK, ~rewards_RGK.isnan(), revision=0)


@dataclass
class Learners:
    """Both learners of one rank."""

    generator: GeneratorLearner
    surrogate: SurrogateLearner

    @classmethod
    def make(cls, config: RunConfig, *rank: Any) -> "Learners":
        """`rank` is (rank, world size, rendezvous)."""
        return cls(GeneratorLearner(config, *rank), SurrogateLearner(config, *rank))

    def iterate(self, batch: RewardedBatch) -> dict[str, float]:
        """One iteration in the order `gauss_seidel`; all metrics."""
        metrics = self.surrogate.update(batch)
        self.generator.load_surrogate(self.surrogate.publish_weights())
        metrics |= self.generator.update_fake_score(batch.fresh)
        return metrics | self.generator.update_generator(batch.fresh)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that both have learned, by "part/name"."""
        parts = self.generator.state_dict()["tensors"] | self.surrogate.state_dict()["tensors"]
        return {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()}
