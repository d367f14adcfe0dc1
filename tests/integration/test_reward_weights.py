"""The line that converts a pickle, as the error gives it, in a process of its own."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from services.reward.checkpoints import find_checkpoint

pytestmark = pytest.mark.integration


def test_the_line_in_the_error_converts_the_pickle(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="convert it once") as refused:
        find_checkpoint(str(tmp_path / "model.pt"), "weights")
    code, arguments = str(refused.value).split('python -c "')[1].split('" ')
    command = [sys.executable, "-c", code, *arguments.split()]
    subprocess.run(command, cwd=tmp_path, check=True)
    converted = load_file(tmp_path / "model.safetensors")
    assert list(converted) == ["a"]
    assert converted["a"].tolist() == [1.0, 1.0]
