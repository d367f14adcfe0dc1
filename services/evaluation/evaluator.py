"""Images of held-out prompts from fixed noise, so that two evaluations differ by the generator.

Image i has prompt i of a seeded walk over the held-out file and noise keyed by (seed, i): the same
at every evaluation, whatever the batch size or the number of images. A reward that compares the
images of a group gets groups as it does in training: group i is image i and more of its prompt.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.config import RunConfig, config_hash
from services.evaluation.grid import draw_grid
from services.evaluation.parts import parts_of_groups, parts_of_singles
from services.evaluation.scores import score_table
from services.models.backbone import Backbone
from services.models.load import load_backbone
from services.prompts import PromptSource, read_prompts
from services.run_store.images import ImageStore, verdict
from services.weights import PublishedWeights, unpack
from tdm_core.sampler import sample, sample_teacher
from tdm_core.seeding import normal, rng_for
from tdm_core.types import Conditioning, ImageGroup, RewardRecord

GRID_IMAGES = 16
Sampling = Callable[[Tensor, Conditioning], Tensor]


class Evaluator:
    """Holds the teacher and the generator, and the held-out prompts."""

    def __init__(
        self, config: RunConfig, folder: str | Path, backbone: Backbone | None = None
    ) -> None:
        """Images and sheets of them go to `folder`/evaluations."""
        torch.set_num_threads(config.cluster.threads_per_worker)
        if config.prompts.heldout is None:
            raise ValueError("prompts.heldout is not set; an evaluation needs held-out prompts")
        self._config = config
        self._folder = Path(folder) / "evaluations"
        self._store = ImageStore(self._folder)
        self._prompts = PromptSource(read_prompts(config.prompts.heldout), config.evaluation.seed)
        self._backbone = backbone or load_backbone(config.model, ["teacher", "generator"])

    def generate(
        self, published: PublishedWeights | None, label: str, groups: bool
    ) -> tuple[Any, ...]:
        """Images by these generator weights (None: as loaded) in K steps.

        First what there is to say of them: num_images, policy_version, label and the sheet's path.
        Then the images, a list of groups for each part: of one image each (`parts_of_singles`), and
        after them whole groups if asked for (`parts_of_groups`). A shared backbone's generator is
        put back as it was.
        """
        denoiser = self._backbone.denoiser("generator")
        sampler = self._config.algorithm.sampler

        def few_steps(noise: Tensor, conditioning: Conditioning) -> Tensor:
            return sample(denoiser, noise, conditioning, sampler).boundaries_GKCHW[:, -1]

        with self._generator(published):
            version = published.version if published else 0
            return self._shown(few_steps, label, groups, {"policy_version": version})

    def generate_teacher(self, groups: bool) -> tuple[Any, ...]:
        """The same by the frozen teacher with guidance in many steps."""
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

        return self._shown(many_steps, "teacher", groups, {})

    def score(
        self, label: str, rewards: Sequence[str], *judged: Sequence[RewardRecord] | int
    ) -> dict[str, float]:
        """The table (`score_table`) of what each of `rewards` said of a part, in `judged`.

        A number in place of records is of images that were lost on the way. What was said of
        stored images is written beside them.
        """
        table: dict[str, float] = {}
        for reward in dict.fromkeys(rewards):
            said = [part for name, part in zip(rewards, judged, strict=True) if name == reward]
            records = [each for part in said if not isinstance(part, int) for each in part]
            lost = sum(part for part in said if isinstance(part, int))
            numbers = {record.group_id for record in records}
            prompts = {number: self._prompts.prompt_of(number) for number in numbers}
            table |= score_table(reward, records, prompts, lost)
        said = [record for part in judged if not isinstance(part, int) for record in part]
        self._store_verdicts(label, said)
        return table

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

    def _shown(
        self, sampling: Sampling, label: str, groups: bool, about: dict[str, Any]
    ) -> tuple[Any, ...]:
        config = self._config
        parts = [self._groups(numbers, 1, sampling) for numbers in parts_of_singles(config)]
        first = [group for part in parts for group in part]
        self._store_images(label, first[: config.evaluation.num_stored], about)
        if groups:
            size = config.algorithm.group_size
            parts += [self._groups(numbers, size, sampling) for numbers in parts_of_groups(config)]
        facts = {"label": label, "num_images": config.evaluation.num_images}
        return {**facts, **about, "grid": str(self._draw(first[:GRID_IMAGES], label))}, *parts

    def _groups(self, numbers: range, size: int, sampling: Sampling) -> list[ImageGroup]:
        """Groups of these numbers, of `size` images each."""
        places = [(number, sample) for number in numbers for sample in range(size)]
        step = self._config.evaluation.batch_size
        batches = [places[first : first + step] for first in range(0, len(places), step)]
        images = torch.cat([self._images(batch, sampling) for batch in batches])
        return [
            ImageGroup(number, self._prompts.prompt_of(number), 0, group[:, None])
            for number, group in zip(numbers, images.split(size), strict=True)
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

    def _store_images(
        self, label: str, groups: Sequence[ImageGroup], about: dict[str, Any]
    ) -> None:
        images = [
            {
                "number": group.group_id,
                "prompt_id": group.prompt.prompt_id,
                "prompt": group.prompt.text,
                "digest": self._store.add(group.images_GS3HW[0, 0].permute(1, 2, 0).numpy()),
            }
            for group in groups
        ]
        self._store.append([{"evaluation": label, "time": time.time(), **about, "images": images}])

    def _store_verdicts(self, label: str, records: Sequence[RewardRecord]) -> None:
        """Of groups the first image: it is the one that is stored."""
        said: dict[int, dict[str, Any]] = {}
        for record in records:
            if record.sample == 0 and record.group_id < self._config.evaluation.num_stored:
                said.setdefault(record.group_id, {})[record.reward] = verdict(record)
        verdicts = [{"number": number, "rewards": rewards} for number, rewards in said.items()]
        self._store.append([{"evaluation": label, "time": time.time(), "verdicts": verdicts}])

    def _draw(self, groups: list[ImageGroup], label: str) -> Path:
        images = torch.cat([group.images_GS3HW[:, 0] for group in groups])
        path = self._folder / f"{label}.png"
        draw_grid(images, [group.prompt.text for group in groups]).save(path)
        return path
