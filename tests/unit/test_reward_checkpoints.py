"""Weights are found, read and refused as docs/rewards.md says."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from services.reward.checkpoints import (
    PROBE_BYTES,
    Placement,
    fill,
    find_checkpoint,
    fingerprint,
    read_tensors,
    ready,
    weight_files,
)

pytestmark = pytest.mark.unit


def write(path, **tensors):
    save_file({name: torch.tensor(value) for name, value in tensors.items()}, path)


def test_a_path_is_a_folder_or_a_safetensors_file(tmp_path):
    write(tmp_path / "x.safetensors", a=1.0)
    assert find_checkpoint(str(tmp_path), "weights") == tmp_path
    assert find_checkpoint(str(tmp_path / "x.safetensors"), "weights") == tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match=r"option base=.* lacks config.json"):
        find_checkpoint(str(tmp_path), "base", ["config.json"])


@pytest.mark.parametrize("name", ["org/nothing-like-it", "./nowhere/at/all", "x.safetensors"])
def test_what_is_nowhere_is_said_to_be_fetched(name):
    with pytest.raises(ValueError, match=rf"option clip='{name}'.*hf download {name}"):
        find_checkpoint(name, "clip")


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_a_text(name):
    with pytest.raises(ValueError, match="give a path or a hub name"):
        find_checkpoint(name, "weights")


@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt", "bin"])
def test_a_pickle_is_refused(tmp_path, suffix):
    (tmp_path / f"model.{suffix}").write_bytes(b"")
    with pytest.raises(ValueError, match="a pickle, which can run anything"):
        find_checkpoint(str(tmp_path / f"model.{suffix}"), "weights")


def test_shards_and_an_only_file_are_read_whole(tmp_path):
    write(tmp_path / "HPS.safetensors", a=1.0)
    assert read_tensors(tmp_path)["a"].item() == 1.0
    write(tmp_path / "model-00001-of-00002.safetensors", b=2.0)
    write(tmp_path / "model-00002-of-00002.safetensors", c=3.0)
    assert set(read_tensors(tmp_path)) == {"b", "c"}
    write(tmp_path / "model.safetensors", d=4.0)
    assert set(read_tensors(tmp_path)) == {"d"}


def test_a_folder_without_one_checkpoint_says_what_it_holds(tmp_path):
    with pytest.raises(ValueError, match="holds no safetensors; a checkpoint is"):
        weight_files(tmp_path)
    write(tmp_path / "a.safetensors", a=1.0)
    write(tmp_path / "b.safetensors", a=1.0)
    with pytest.raises(ValueError, match=r"holds a.safetensors, b.safetensors; a checkpoint is"):
        weight_files(tmp_path)


def test_the_fingerprint_changes_with_any_sampled_byte_and_with_the_config(tmp_path):
    big = torch.zeros(40 * PROBE_BYTES, dtype=torch.uint8)
    prints = set()
    for place in (None, 0, len(big) - 1):
        changed = big.clone()
        if place is not None:
            changed[place] = 1
        save_file({"a": changed}, tmp_path / "model.safetensors")
        prints.add(fingerprint(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    prints.add(fingerprint(tmp_path))
    assert len(prints) == 4
    assert fingerprint(tmp_path) in prints


@pytest.mark.parametrize("file", ["chat_template.jinja", "vocab.txt", "spiece.model"])
def test_the_fingerprint_changes_with_the_chat_template_and_the_vocabulary(tmp_path, file):
    write(tmp_path / "model.safetensors", a=1.0)
    (tmp_path / "README.md").write_text("about")
    alone = fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("more about")
    assert fingerprint(tmp_path) == alone
    (tmp_path / file).write_text("{{ messages }}")
    assert fingerprint(tmp_path) != alone


def test_a_module_is_filled_exactly_or_the_difference_is_named(tmp_path):
    module = nn.Linear(2, 1)
    weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])
    fill(module, {"weight": weight, "bias": bias}, tmp_path)
    assert module(torch.ones(2)).item() == 6.0
    with pytest.raises(ValueError, match="does not fit Linear: bias is missing"):
        fill(module, {"weight": weight}, tmp_path)
    with pytest.raises(ValueError, match="scale is unknown"):
        fill(module, {"weight": weight, "bias": bias, "scale": bias}, tmp_path)
    with pytest.raises(ValueError, match=r"weight has shape \(2, 2\) where \(1, 2\) is needed"):
        fill(module, {"weight": torch.ones(2, 2), "bias": bias}, tmp_path)


def test_a_module_is_made_ready_frozen_and_in_its_type():
    module = ready(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), Placement("cpu", "bfloat16"))
    assert not module.training
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_wrong_placements_are_refused():
    with pytest.raises(ValueError, match="option device='tpu': allowed are auto, cpu, cuda"):
        Placement("tpu")
    with pytest.raises(ValueError, match="option dtype='int8': allowed are float32"):
        Placement(dtype="int8")
