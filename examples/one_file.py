"""The whole of TDM-R1 in one file, on a world small enough to know the answer.

    rollout -> rewards -> replay -> surrogate, fake score -> generator -> rollout ...

The toy world is a Gaussian mixture with an exact teacher; the reward, judged on 8-bit pixels, is 1
where a sample lies in the upper half. Run it:  python examples/one_file.py --iterations 60
The curve it prints in float64 is tests/golden/toy_run.txt, and the cluster prints the same.
"""

import argparse
import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tdm_core.advantages import AdvantageNormaliser
from tdm_core.batches import fresh_batch, rewarded_batch
from tdm_core.config import (
    AdvantageConfig,
    AlgorithmConfig,
    FakeScoreConfig,
    GeneratorConfig,
    ReplayConfig,
    SurrogateConfig,
    without_reward,
)
from tdm_core.ema import ema_update, surrogate_retained
from tdm_core.losses.fake_score import fake_score_loss
from tdm_core.losses.generator import generator_loss
from tdm_core.losses.surrogate import surrogate_loss, update_velocity_power
from tdm_core.microbatches import passes
from tdm_core.optimizer import RoleOptimizer
from tdm_core.prompts import prompt_index
from tdm_core.replay_buffer import ReplayBuffer
from tdm_core.sampler import initial_noise, sample
from tdm_core.toy import ToyDenoiser, UpperHalfReward, decode, two_by_two
from tdm_core.types import ImageGroup, Prompt, RolloutGroup, Trajectory

TOY = AlgorithmConfig(
    num_groups=4,
    group_size=16,
    surrogate=SurrogateConfig(lr=2e-3),
    fake_score=FakeScoreConfig(lr=2e-3),
    generator=GeneratorConfig(lr=5e-4),
    advantages=AdvantageConfig(normaliser="batch_std"),
    replay=ReplayConfig(max_staleness_generator=0, max_staleness_surrogate=0),
)
"""On-policy, and with learning rates for a network of five thousand weights."""

NUM_LABELS = 2
"""Prompts of the toy world."""

GOLDEN = (
    "reward/upper_half/mean",
    "surrogate/preference",
    "surrogate/grad_norm",
    "fake_score/matching",
    "fake_score/grad_norm",
    "generator/kl",
    "generator/reward",
    "generator/grad_norm",
)
"""Columns of the golden curve."""


@dataclass
class Roles:
    """The networks: a frozen teacher, three that learn, and the surrogate's average."""

    teacher: ToyDenoiser
    generator: ToyDenoiser
    fake_score: ToyDenoiser
    surrogate: ToyDenoiser
    surrogate_ema: ToyDenoiser


def make_roles(dtype: torch.dtype) -> Roles:
    """Every role starts as the teacher."""
    teacher = ToyDenoiser(two_by_two(dtype)).requires_grad_(False)
    learned = [copy.deepcopy(teacher).requires_grad_(True) for _ in range(3)]
    return Roles(teacher, *learned, surrogate_ema=copy.deepcopy(teacher))


def make_optimizer(
    module: torch.nn.Module,
    role: SurrogateConfig | FakeScoreConfig | GeneratorConfig,
    config: AlgorithmConfig,
) -> RoleOptimizer:
    """Each role's own AdamW and its own clip."""
    return RoleOptimizer(
        list(module.parameters()),
        lr=role.lr,
        betas=role.betas,
        weight_decay=config.weight_decay,
        eps=config.adam_eps,
        max_grad_norm=config.max_grad_norm,
    )


def rollout(
    generator: ToyDenoiser, config: AlgorithmConfig, seed: int, group_ids: range, version: int
) -> list[tuple[RolloutGroup, ImageGroup]]:
    """Prompt groups by the current generator: their trajectories, and what a reward sees."""
    world, size = generator.world, config.group_size
    labels = [prompt_index(seed, group_id, NUM_LABELS) for group_id in group_ids]
    noise = [initial_noise(seed, g, size, world.latent_shape, world.means_MD) for g in group_ids]
    rows = world.conditioning([label for label in labels for _ in range(size)])
    path = sample(generator, torch.cat(noise), rows, config.sampler)
    made = []
    for label, group_id, part in zip(
        labels, group_ids, path.boundaries_GKCHW.split(size), strict=True
    ):
        prompt = Prompt(prompt_id=f"toy:{label}", text=f"label {label}")
        trajectory = Trajectory(part, path.sigmas)
        images = decode(part[:, -1])[:, None]
        made.append(
            (
                RolloutGroup(group_id, prompt, version, trajectory, world.conditioning([label])),
                ImageGroup(group_id, prompt, version, images),
            )
        )
    return made


def train(
    config: AlgorithmConfig, iterations: int, seed: int = 0, roles: Roles | None = None
) -> Iterator[dict[str, float]]:
    """The paper's Algorithm 1, on-policy; trains `roles` and yields each iteration's metrics."""
    roles = roles or make_roles(torch.float64)
    unconditional = roles.teacher.world.unconditional
    phi = make_optimizer(roles.surrogate, config.surrogate, config)
    f = make_optimizer(roles.fake_score, config.fake_score, config)
    theta = make_optimizer(roles.generator, config.generator, config)
    reward = UpperHalfReward()
    replay = ReplayBuffer(config.replay, [reward.name], config.sampler.num_steps)
    normaliser = AdvantageNormaliser(config.advantages, weights=[1.0])
    velocity_power = 0.0

    def step_followers(version: int, metrics: Metrics) -> None:
        """The surrogate with its average, and the fake score, each by its own gradient."""
        metrics["surrogate/grad_norm"] = phi.step()
        ema_update(
            roles.surrogate_ema.parameters(),
            roles.surrogate.parameters(),
            surrogate_retained(version, config.surrogate),
        )
        metrics["fake_score/grad_norm"] = f.step()

    for version in range(iterations):
        # 0. Rollout, then rewards; a deterministic path gives every boundary the final reward.
        first = version * config.num_groups
        group_ids = range(first, first + config.num_groups)
        for group, images in rollout(roles.generator, config, seed, group_ids, version):
            replay.add(group)
            replay.attach_rewards(reward.evaluate([images]))
        fresh_groups = replay.draw_fresh(version, config.num_groups)
        rewarded_groups = replay.draw_rewarded(version, config.num_groups)
        assert fresh_groups is not None
        assert rewarded_groups is not None
        fresh = fresh_batch(fresh_groups)
        rewarded = rewarded_batch(rewarded_groups, normaliser, [reward.name])
        replay.evict(version + 1)
        metrics = Metrics(rewarded.statistics)

        # 1. The surrogate learns the reward: group preference over its own denoising errors.
        for p in passes(rewarded.fresh, config, seed, version):
            loss, terms = surrogate_loss(
                p, rewarded, roles.surrogate, roles.surrogate_ema, roles.teacher, velocity_power
            )
            phi.backward(loss)
            metrics.add(terms)
        velocity_power = update_velocity_power(velocity_power, metrics["surrogate/velocity_power"])

        # 2. The fake score follows the generator.
        for p in passes(fresh, config, seed, version):
            loss, terms = fake_score_loss(p, roles.generator, roles.fake_score, roles.teacher)
            f.backward(loss)
            metrics.add(terms)

        # Gauss-Seidel: the generator sees the updated nets. Jacobi: those from before the step.
        if config.update_order == "gauss_seidel":
            step_followers(version, metrics)

        # 3. The generator climbs the surrogate, held to the teacher by the reverse KL.
        for p in passes(fresh, config, seed, version):
            loss, terms = generator_loss(
                p, roles.generator, roles.fake_score, roles.surrogate, roles.teacher, unconditional
            )
            theta.backward(loss)
            metrics.add(terms)
        if config.update_order == "jacobi":
            step_followers(version, metrics)
        metrics["generator/grad_norm"] = theta.step()
        yield metrics


class Metrics(dict[str, float]):
    """Sums over the passes of one update."""

    def add(self, terms: dict[str, torch.Tensor]) -> None:
        """Add a pass's terms, which are weighted to sum to the update's mean."""
        for name, value in terms.items():
            self[name] = self.get(name, 0.0) + float(value)


def curve(config: AlgorithmConfig, iterations: int, seed: int = 0) -> Iterator[str]:
    """The run as text: a header, then one line an iteration at full precision."""
    yield " ".join(["iteration", *GOLDEN])
    for iteration, metrics in enumerate(train(config, iterations, seed)):
        yield " ".join([str(iteration), *(repr(metrics.get(name, 0.0)) for name in GOLDEN)])


def main() -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(description="TDM-R1 on the toy world")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-reward", action="store_true", help="the control: no reward term")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = without_reward(TOY) if arguments.no_reward else TOY
    for line in curve(config, arguments.iterations, arguments.seed):
        print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
