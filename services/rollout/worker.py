"""Generates prompt groups: the trajectory for the learners, the images for the rewards.

One batched forward pass a step serves every requested group; a group's noise is keyed by its id,
so which worker makes it, and beside which other groups, does not matter to its noise. The version
of the generator is stamped here, where the sample is made.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from services.config import RunConfig, config_hash
from services.models.backbone import Backbone
from services.models.load import load_backbone
from services.weights import PublishedWeights, unpack
from tdm_core.sampler import clean_predictions, initial_noise, sample
from tdm_core.types import (
    Conditioning,
    ImageGroup,
    PredictionImages,
    Prompt,
    RolloutGroup,
    Trajectory,
)


class RolloutWorker:
    """A generator with its text encoders and decoder."""

    def __init__(self, config: RunConfig, index: int = 0, backbone: Backbone | None = None) -> None:
        """`index` tells workers apart; a given backbone has the role `generator`."""
        torch.set_num_threads(config.cluster.threads_per_worker)
        self.index = index
        self.policy_version = 0
        self._config = config
        self._config_hash = config_hash(config)
        self._backbone = backbone or load_backbone(config.model, ["generator"])

    def load_weights(self, published: PublishedWeights) -> int:
        """Verify, swap, and answer with the version that is now in use.

        Between groups by construction: a worker does one call at a time.
        """
        tensors = unpack(published, "generator", self._config_hash)
        self._backbone.load("generator", tensors)
        self.policy_version = published.version
        return self.policy_version

    @torch.no_grad()
    def generate(
        self, requests: Sequence[tuple[int, Prompt]]
    ) -> tuple[list[RolloutGroup], list[ImageGroup]]:
        """One rollout and one image group for each (group_id, prompt), in order, on the CPU."""
        sampler, size = self._config.algorithm.sampler, self._config.algorithm.group_size
        encoded = self._backbone.encode_prompts([prompt.text for _, prompt in requests])
        trajectory = sample(
            self._backbone.denoiser("generator"),
            self._noise([group_id for group_id, _ in requests]),
            {name: rows.repeat_interleave(size, dim=0) for name, rows in encoded.items()},
            sampler,
        )
        images = self._images(trajectory).split(size)
        paths = trajectory.boundaries_GKCHW.cpu().split(size)
        rollouts, image_groups = [], []
        for row, (group_id, prompt) in enumerate(requests):
            rollouts.append(
                RolloutGroup(
                    group_id=group_id,
                    prompt=prompt,
                    policy_version=self.policy_version,
                    trajectory=Trajectory(paths[row].clone(), trajectory.sigmas),
                    conditioning=_row(encoded, row),
                )
            )
            image_groups.append(
                ImageGroup(group_id, prompt, self.policy_version, images[row].clone())
            )
        return rollouts, image_groups

    def generate_apart(self, requests: Sequence[tuple[int, Prompt]]) -> tuple[Any, ...]:
        """The rollouts, then the images of each group by itself, so that each goes its own way;
        then the predictions on the way of those groups whose images are stored."""
        rollouts, images = self.generate(requests)
        predictions = [
            self._predictions(rollout, group)
            for rollout, group in zip(rollouts, images, strict=True)
            if self._config.is_stored(rollout.group_id)
        ]
        return rollouts, *([group] for group in images), *predictions

    def _noise(self, group_ids: Sequence[int]) -> Tensor:
        backbone, size = self._backbone, self._config.algorithm.group_size
        like = torch.empty(0, dtype=backbone.dtype, device=backbone.device)
        seed = self._config.run.seed
        return torch.cat(
            [initial_noise(seed, g, size, backbone.latent_shape, like) for g in group_ids]
        )

    @torch.no_grad()
    def _predictions(self, rollout: RolloutGroup, group: ImageGroup) -> PredictionImages:
        telemetry, sampler = self._config.telemetry, self._config.algorithm.sampler
        count = min(telemetry.images_per_group, telemetry.predictions_per_group)
        path, images = rollout.trajectory, group.images_GS3HW[:count]
        if images.shape[1] == sampler.num_steps or not count:  # the rewards see every step already
            return PredictionImages(images[:, :-1].clone(), path.sigmas)
        clean_NKCHW = clean_predictions(path.boundaries_GKCHW[:count], path.sigmas, sampler)
        before_last = clean_NKCHW[:, :-1].flatten(0, 1).to(self._backbone.device)
        decoded = self._backbone.decode(before_last)
        return PredictionImages(decoded.unflatten(0, (-1, sampler.num_steps - 1)), path.sigmas)

    def _images(self, trajectory: Trajectory) -> Tensor:
        """(N, S, 3, H, W): the final image, or every step's clean prediction under `gain`."""
        path_NKCHW = trajectory.boundaries_GKCHW
        if self._config.algorithm.advantages.per_step == "terminal":
            return self._backbone.decode(path_NKCHW[:, -1])[:, None]
        clean_NKCHW = clean_predictions(
            path_NKCHW, trajectory.sigmas, self._config.algorithm.sampler
        )
        images = self._backbone.decode(clean_NKCHW.flatten(0, 1))
        return images.unflatten(0, clean_NKCHW.shape[:2])


def _row(encoded: Conditioning, row: int) -> Conditioning:
    # Cloned: a slice would carry the whole batch's storage along wherever the group is sent.
    return {name: rows[row : row + 1].cpu().clone() for name, rows in encoded.items()}
