"""Scores a generator on held-out prompts with fixed noise, so that two evaluations differ by it.

Image i has prompt i of a seeded walk over the held-out file and noise keyed by (seed, i): the same
at every evaluation, whatever the batch size or the number of images. A reward that compares the
images of a group gets groups as it does in training: group i is image i and more of its prompt.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from services.config import RunConfig, config_hash
from services.evaluation.grid import draw_grid
from services.evaluation.scores import score_table
from services.models.backbone import Backbone
from services.models.load import load_backbone
from services.prompts import PromptSource, read_prompts
from services.weights import PublishedWeights, unpack
from tdm_core.sampler import sample, sample_teacher
from tdm_core.seeding import normal, rng_for
from tdm_core.types import Conditioning, ImageGroup, RewardRecord

GRID_IMAGES = 16
Sampling = Callable[[Tensor, Conditioning], Tensor]


class Judge(Protocol):
    """A reward worker, as far as an evaluation needs it."""

    groupwise: bool
    """Whether it compares the images of a group."""

    def evaluate(self, groups: list[ImageGroup]) -> list[RewardRecord]:
        """One record for every image."""
        ...


class Evaluator:
    """Holds the teacher and the generator, the held-out prompts and the run's rewards."""

    def __init__(
        self,
        config: RunConfig,
        folder: str | Path,
        judges: Mapping[str, Judge],
        backbone: Backbone | None = None,
    ) -> None:
        """Grids go to `folder`/evaluations; `judges` by reward name."""
        torch.set_num_threads(config.cluster.threads_per_worker)
        if config.prompts.heldout is None:
            raise ValueError("prompts.heldout is not set; an evaluation needs held-out prompts")
        self._config = config
        self._folder = Path(folder) / "evaluations"
        self._judges = judges
        self._prompts = PromptSource(read_prompts(config.prompts.heldout), config.evaluation.seed)
        self._backbone = backbone or load_backbone(config.model, ["teacher", "generator"])

    def evaluate(self, published: PublishedWeights | None, label: str) -> dict[str, Any]:
        """Score these generator weights (None: as loaded) in K steps; see `score_table`.

        Besides the scores: num_images, seconds, policy_version, label and the grid's path. A shared
        backbone's generator is put back as it was.
        """
        denoiser = self._backbone.denoiser("generator")
        sampler = self._config.algorithm.sampler

        def few_steps(noise: Tensor, conditioning: Conditioning) -> Tensor:
            return sample(denoiser, noise, conditioning, sampler).boundaries_GKCHW[:, -1]

        with self._generator(published):
            report = self._score(few_steps, label)
        return report | {"policy_version": published.version if published else 0}

    def evaluate_teacher(self) -> dict[str, Any]:
        """Score the frozen teacher with guidance in many steps."""
        backbone, evaluation = self._backbone, self._config.evaluation

        def many_steps(noise: Tensor, conditioning: Conditioning) -> Tensor:
            return sample_teacher(
                backbone.denoiser("teacher"),
                noise,
                conditioning,
                backbone.unconditional,
                evaluation.teacher_steps,
                self._config.algorithm.sampler.shift,
                evaluation.teacher_guidance,
            )

        return self._score(many_steps, "teacher")

    @contextmanager
    def _generator(self, published: PublishedWeights | None) -> Iterator[None]:
        if published is None:
            yield
            return
        tensors = unpack(published, "generator", config_hash(self._config))
        before = self._backbone.tensors("generator")
        self._backbone.load("generator", tensors)
        try:
            yield
        finally:
            self._backbone.load("generator", before)

    def _score(self, sampling: Sampling, label: str) -> dict[str, Any]:
        start = time.monotonic()
        total, size = self._config.evaluation.num_images, self._config.algorithm.group_size
        shown = {False: self._groups(total, 1, sampling)}
        if any(judge.groupwise for judge in self._judges.values()):
            shown[True] = self._groups(max(total // size, 1), size, sampling)
        prompts = {group.group_id: group.prompt for group in [*shown[False], *shown.get(True, [])]}
        report: dict[str, Any] = {}
        for reward, judge in self._judges.items():
            report |= score_table(reward, judge.evaluate(shown[judge.groupwise]), prompts)
        grid = self._draw(shown[False][:GRID_IMAGES], label)
        seconds = time.monotonic() - start
        return report | {
            "label": label,
            "num_images": total,
            "seconds": seconds,
            "grid": str(grid),
        }

    def _groups(self, count: int, size: int, sampling: Sampling) -> list[ImageGroup]:
        """`count` groups of `size` images each."""
        places = [(number, sample) for number in range(count) for sample in range(size)]
        step = self._config.evaluation.batch_size
        batches = [places[first : first + step] for first in range(0, len(places), step)]
        images = torch.cat([self._images(batch, sampling) for batch in batches])
        return [
            ImageGroup(number, self._prompts.prompt_of(number), 0, group[:, None])
            for number, group in enumerate(images.split(size))
        ]

    @torch.no_grad()
    def _images(self, places: Sequence[tuple[int, int]], sampling: Sampling) -> Tensor:
        """(N, 3, H, W) uint8: the image at each (number, sample)."""
        backbone, seed = self._backbone, self._config.evaluation.seed
        like = torch.empty(0, dtype=backbone.dtype, device=backbone.device)
        # The first of a group has the key of the image that stands for its prompt alone.
        keys = [(number, sample)[: 1 + (sample > 0)] for number, sample in places]
        noise = [
            normal(backbone.latent_shape, rng_for(seed, "evaluation", *key), like) for key in keys
        ]
        texts = [self._prompts.prompt_of(number).text for number, _ in places]
        return backbone.decode(sampling(torch.stack(noise), backbone.encode_prompts(texts)))

    def _draw(self, groups: list[ImageGroup], label: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        images = torch.cat([group.images_GS3HW[:, 0] for group in groups])
        path = self._folder / f"{label}.png"
        draw_grid(images, [group.prompt.text for group in groups]).save(path)
        return path
