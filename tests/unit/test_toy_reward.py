"""The cluster's toy reward says what the one-file run's says."""

import pytest
import torch

from services.config import RewardConfig
from services.reward.worker import RewardWorker
from tdm_core.toy import UpperHalfReward, decode
from tdm_core.types import ImageGroup, Prompt

pytestmark = pytest.mark.unit


def test_the_worker_and_the_one_file_run_give_the_same_rewards():
    latents = torch.randn(64, 2, 1, 1, generator=torch.Generator().manual_seed(0)) / 10
    images = decode(latents).reshape(16, 4, 3, 1, 2)
    groups = [ImageGroup(7, Prompt("toy:1", "0"), 0, images)]
    config = RewardConfig(name="upper_half", kind="python:services.reward.toy:UpperHalf")
    ours, theirs = RewardWorker(config).evaluate(groups), UpperHalfReward().evaluate(groups)
    assert [(r.sample, r.slot, r.value) for r in ours] == [
        (r.sample, r.slot, r.value) for r in theirs
    ]
    assert {r.value for r in ours} == {0.0, 1.0}
