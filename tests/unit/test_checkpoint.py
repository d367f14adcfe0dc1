"""A checkpoint is whole, or it is not there; what is damaged is named."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from services.checkpoint import load_checkpoint, save_checkpoint
from services.manifest import list_checkpoints, read_manifest

pytestmark = pytest.mark.unit

PARTS = {
    "generator": {"a.weight": torch.randn(3, 4), "b": torch.randn(4, 3).T},
    "generator_optimizer": {"0.step": torch.tensor(7), "0.exp_avg": torch.randn(3).double()},
    "replay": {},
}
FACTS = {"iteration": 100, "config_hash": "ab" * 32, "versions": {"policy": 100}}


def test_tensors_and_facts_come_back_bit_for_bit(tmp_path):
    folder = save_checkpoint(tmp_path / "step_000100", PARTS, FACTS)
    parts, facts = load_checkpoint(folder, config_hash="ab" * 32)
    assert facts == FACTS
    assert parts.keys() == PARTS.keys()
    for name, tensors in PARTS.items():
        assert parts[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert parts[name][key].dtype == tensor.dtype
            assert torch.equal(parts[name][key], tensor)
    assert load_checkpoint(folder, ["generator"])[0].keys() == {"generator"}


def test_the_manifest_hashes_every_file(tmp_path):
    folder = save_checkpoint(tmp_path / "step_000100", PARTS, FACTS)
    names = {path.name for path in folder.iterdir()}
    assert names == {"manifest.json", *(f"{name}.safetensors" for name in PARTS)}
    files = read_manifest(folder)["files"]
    assert files.keys() == names - {"manifest.json"}
    assert all(len(file["sha256"]) == 64 for file in files.values())


def test_one_flipped_bit_is_found_and_its_file_named(tmp_path):
    folder = save_checkpoint(tmp_path / "step_000100", PARTS, FACTS)
    path = folder / "generator.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    expected = read_manifest(folder)["files"]["generator.safetensors"]["sha256"][:16]
    with pytest.raises(ValueError, match=rf"generator.safetensors .* the manifest says {expected}"):
        load_checkpoint(folder)
    assert load_checkpoint(folder, ["replay"])[0] == {"replay": {}}


def test_what_is_missing_is_named(tmp_path):
    folder = save_checkpoint(tmp_path / "step_000100", PARTS, FACTS)
    with pytest.raises(ValueError, match="no part 'surrogate'; it has generator, generator_opt"):
        load_checkpoint(folder, ["surrogate"])
    (folder / "generator.safetensors").unlink()
    with pytest.raises(ValueError, match=r"generator.safetensors is missing; .*another checkpoint"):
        load_checkpoint(folder)
    with pytest.raises(ValueError, match=r"no manifest.json; give a checkpoint folder"):
        load_checkpoint(tmp_path / "step_000200")


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"format": 99})])
def test_a_damaged_manifest_is_named(tmp_path, text):
    folder = save_checkpoint(tmp_path / "step_000100", PARTS, FACTS)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json is (damaged|not of format 1)"):
        load_checkpoint(folder)


def test_another_config_is_refused(tmp_path):
    folder = save_checkpoint(tmp_path / "step_000100", PARTS, FACTS)
    with pytest.raises(ValueError, match="config abababababab, this is cdcdcdcdcdcd"):
        load_checkpoint(folder, config_hash="cd" * 32)


def test_a_checkpoint_that_is_spared_stays_beside_the_newest_even_if_it_was_late(tmp_path):
    asked = []

    def is_spared(name):
        asked.append(name)
        return name == "step_000100" or asked.count(name) > 1  # 200: only once it is away

    for step in (100, 200, 300):
        folder = tmp_path / f"step_{step:06d}"
        save_checkpoint(folder, PARTS, FACTS, keep=1, is_spared=is_spared)
    names = ["step_000100", "step_000200", "step_000300"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [load_checkpoint(path)[1] for path in list_checkpoints(tmp_path)] == [FACTS] * 3


def test_the_newest_stay_and_a_step_can_be_saved_again(tmp_path):
    for step in (100, 200, 300):
        save_checkpoint(tmp_path / f"step_{step:06d}", PARTS, FACTS, keep=2)
    save_checkpoint(tmp_path / "step_000300", PARTS, {**FACTS, "iteration": 300}, keep=2)
    kept = list_checkpoints(tmp_path)
    assert [path.name for path in kept] == ["step_000300", "step_000200"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000200", "step_000300"]
    assert load_checkpoint(kept[0])[1]["iteration"] == 300


def test_a_killed_save_leaves_the_previous_checkpoint_and_is_swept_up(tmp_path):
    save_checkpoint(tmp_path / "step_000100", PARTS, FACTS)
    script = textwrap.dedent(
        """
        import os, signal, sys, torch
        from pathlib import Path
        from services.checkpoint import save_checkpoint

        class Parts(dict):
            def items(self):
                yield "generator", {"a": torch.zeros(4)}
                os.kill(os.getpid(), signal.SIGKILL)

        save_checkpoint(Path(sys.argv[1]), Parts(), {})
        """
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "step_000200")],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000100"]
    assert torch.equal(
        load_checkpoint(tmp_path / "step_000100")[0]["generator"]["b"], PARTS["generator"]["b"]
    )
    save_checkpoint(tmp_path / "step_000200", PARTS, FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000100", "step_000200"]
