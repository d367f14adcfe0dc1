"""`tdm-r1 distill`: a many-step teacher becomes the few-step student that TDM-R1 starts from.

Prompts in, a diffusers folder out; the mathematics is `tdm_core.distillation`. One process, since
the student and its fake score are small beside the teacher they follow.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from services.config import RunConfig
from services.models.backbone import Backbone
from services.models.load import load_backbone
from services.prompts import PromptSource, training_prompts
from services.rollout.worker import RolloutWorker
from tdm_core.batches import fresh_batch
from tdm_core.config import FakeScoreConfig, GeneratorConfig
from tdm_core.distillation import Distiller, distillation_config
from tdm_core.ema import ema_update, generator_retained
from tdm_core.optimizer import RoleOptimizer

Report = Callable[[int, dict[str, float]], None]
"""Called after every update with its number (from 1) and its metrics."""


def distill(
    config: RunConfig,
    out: Path,
    *,
    guidance: float,
    fake_score_updates: int = 1,
    report: Report = lambda iteration, metrics: None,
) -> str:
    """Train for `run.iterations` updates and write the averaged student to `out` in bfloat16.

    `guidance` is the teacher's scale that the student absorbs. Returns the line that loads it.
    """
    if guidance < 1:
        raise ValueError(f"guidance={guidance}: allowed from 1 (none); 3 to 7 are usual")
    if fake_score_updates < 1:
        raise ValueError(f"fake_score_updates={fake_score_updates}: at least 1 a student update")
    backbone = load_backbone(config.model, ("teacher", "generator", "fake_score"))
    distiller = make_distiller(config, backbone, guidance)
    prompts = PromptSource(training_prompts(config.prompts), config.run.seed)
    student = RolloutWorker(config, backbone=backbone)
    average = [p.detach().clone() for p in backbone.parameters("generator")]
    started = time.monotonic()
    for iteration in range(config.run.iterations):
        batches = [
            fresh_batch(student.generate(prompts.take(config.algorithm.num_groups))[0])
            for _ in range(fake_score_updates)
        ]
        metrics = distiller.update(batches, config.run.seed, iteration)
        retained = generator_retained(iteration, config.algorithm.generator)
        ema_update(average, backbone.parameters("generator"), retained)
        report(iteration + 1, metrics | {"seconds": time.monotonic() - started})
    names = backbone.tensors("generator")
    stored = {name: t.to(torch.bfloat16) for name, t in zip(names, average, strict=True)}
    return backbone.save_generator(str(out), stored)


def make_distiller(config: RunConfig, backbone: Backbone, guidance: float) -> Distiller:
    """The two trained roles with their optimizers."""
    algorithm = distillation_config(config.algorithm, guidance)

    def optimizer(role: str, settings: GeneratorConfig | FakeScoreConfig) -> RoleOptimizer:
        return RoleOptimizer(
            backbone.parameters(role),
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=algorithm.weight_decay,
            eps=algorithm.adam_eps,
            max_grad_norm=algorithm.max_grad_norm,
        )

    return Distiller(
        config=algorithm,
        teacher=backbone.denoiser("teacher"),
        generator=backbone.denoiser("generator"),
        fake_score=backbone.denoiser("fake_score"),
        generator_optimizer=optimizer("generator", algorithm.generator),
        fake_score_optimizer=optimizer("fake_score", algorithm.fake_score),
        unconditional=backbone.unconditional,
    )
