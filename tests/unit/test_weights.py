"""Weights survive the way between workers whole, or are refused with the reason."""

from dataclasses import replace

import pytest
import torch

from services.weights import pack, unpack

pytestmark = pytest.mark.unit

HASH = "ab" * 32
TENSORS = {
    "a": torch.randn(3, 2),
    "half": torch.randn(5).to(torch.bfloat16),
    "strided": torch.randn(4, 3).T,
    "double": torch.randn(2, dtype=torch.float64),
}


def test_every_tensor_comes_back_bit_for_bit_in_its_own_dtype():
    published = pack("generator", 7, TENSORS, HASH)
    unpacked = unpack(published, "generator", HASH)
    assert published.version == 7
    assert unpacked.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert unpacked[name].dtype == tensor.dtype
        assert torch.equal(unpacked[name], tensor)


def test_a_flipped_bit_is_refused():
    published = pack("generator", 7, TENSORS, HASH)
    payload = bytearray(published.payload)
    payload[-1] ^= 1
    damaged = replace(published, payload=bytes(payload))
    with pytest.raises(ValueError, match=r"'generator', version 7: .* damaged on the way"):
        unpack(damaged, "generator", HASH)


def test_another_roles_weights_are_refused():
    with pytest.raises(ValueError, match="expected weights of 'generator'"):
        unpack(pack("surrogate", 1, TENSORS, HASH), "generator", HASH)


def test_weights_of_another_config_are_refused():
    with pytest.raises(ValueError, match="config abababababab, this worker runs cdcdcdcdcdcd"):
        unpack(pack("generator", 1, TENSORS, HASH), "generator", "cd" * 32)
