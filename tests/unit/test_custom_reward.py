"""The example of a reward of one's own runs from its own folder, with no change to this code."""

import shutil
from pathlib import Path

import pytest
import torch

from services.config import RewardConfig
from services.reward.worker import RewardWorker
from tdm_core.types import ImageGroup, Prompt

pytestmark = pytest.mark.unit

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_reward.py"


def test_the_example_is_found_in_the_working_directory_and_ranks_colour(tmp_path, monkeypatch):
    shutil.copy(EXAMPLE, tmp_path / "copied_custom_reward.py")
    monkeypatch.chdir(tmp_path)
    images = torch.full((3, 1, 3, 4, 4), 128, dtype=torch.uint8)
    images[1, 0, 0] = 255
    images[2, 0, :, :2] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    config = RewardConfig(name="colour", kind="python:copied_custom_reward:Colourfulness")
    records = RewardWorker(config).evaluate([ImageGroup(3, Prompt("p:1", "x"), 0, images)])
    grey, pink, half_red = [record.value for record in records]
    assert grey == 0
    # Uniform (255, 128, 128): opponents (127, 63.5), no spread: 0.3 * |(127, 63.5)| / 100.
    assert pink == pytest.approx(0.3 * (127**2 + 63.5**2) ** 0.5 / 100)
    assert half_red > pink
