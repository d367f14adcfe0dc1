"""TDM: a many-step teacher becomes a K-step student by trajectory distribution matching.

It is the generator's update with the surrogate taken out and the guidance term at full weight,
    d = (x0_psi - x0_f) + (g-1)(x0_psi - x0_psi^uncond) = x0_psi^{cfg g} - x0_f,
so the student learns to make in K unguided steps what the teacher makes in many guided ones. It
needs prompts alone: the trajectories are the student's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from tdm_core.config import AlgorithmConfig
from tdm_core.denoiser import Denoiser
from tdm_core.losses.fake_score import fake_score_loss
from tdm_core.losses.generator import generator_loss
from tdm_core.microbatches import passes
from tdm_core.optimizer import RoleOptimizer
from tdm_core.types import Conditioning, FreshBatch


def distillation_config(config: AlgorithmConfig, guidance: float) -> AlgorithmConfig:
    """`config` with no reward term and the teacher's guidance `guidance` learned in full."""
    generator = replace(
        config.generator, teacher_guidance=guidance, distillation_weight=1.0, reward_scale=0.0
    )
    return replace(config, generator=generator)


@dataclass(frozen=True)
class Distiller:
    """The two trained roles of TDM, their optimizers and the frozen teacher."""

    config: AlgorithmConfig
    teacher: Denoiser
    generator: Denoiser
    fake_score: Denoiser
    generator_optimizer: RoleOptimizer
    fake_score_optimizer: RoleOptimizer
    unconditional: Conditioning

    def update(self, batches: Sequence[FreshBatch], seed: int, step: int) -> dict[str, float]:
        """One fake-score step on each batch of the student's paths, then one student step.

        Several batches follow the student more closely; the student itself learns on the last.
        """
        metrics: dict[str, float] = {}
        first = step * len(batches)
        for turn, batch in enumerate(batches):
            for p in passes(batch, self.config, seed, first + turn):
                loss, terms = fake_score_loss(p, self.generator, self.fake_score, self.teacher)
                self.fake_score_optimizer.backward(loss)
                _accumulate(metrics, terms, turn == len(batches) - 1)
            self.fake_score_optimizer.step()
        # The key of the last fake-score step: both roles then share its slots and its tau.
        for p in passes(batches[-1], self.config, seed, first + len(batches) - 1):
            loss, terms = generator_loss(
                p, self.generator, self.fake_score, self.teacher, self.teacher, self.unconditional
            )
            self.generator_optimizer.backward(loss)
            _accumulate(metrics, terms, True)
        metrics["generator/grad_norm"] = self.generator_optimizer.step()
        return metrics


def _accumulate(metrics: dict[str, float], terms: dict[str, Tensor], wanted: bool) -> None:
    for name, value in terms.items() if wanted else ():
        metrics[name] = metrics.get(name, 0.0) + float(value)
