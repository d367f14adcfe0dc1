"""Roles as full copies of a small network, and what both kinds of roles share.

Every role has the same parameter names, so one role's tensors load into any other.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

ROLES = ("teacher", "generator", "fake_score", "surrogate", "surrogate_ema")


class Roles(Protocol):
    """Several networks of one architecture, told apart by name."""

    def run(self, role: str, *args: Any, **kwargs: Any) -> Any:
        """The network's forward pass in this role."""
        ...

    def module(self, role: str) -> nn.Module:
        """The module that holds the role's parameters."""
        ...

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """The role's trainable parameters by shared name, in a fixed order."""
        ...


class FullCopies:
    """Each role a deep copy of the teacher; the generator may start from other weights."""

    def __init__(
        self,
        teacher: nn.Module,
        roles: Sequence[str],
        generator_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`teacher` becomes the frozen role; `generator_weights` is a whole state dict."""
        check_roles(roles)
        self._modules = {
            role: copy.deepcopy(teacher).requires_grad_(True) for role in roles if role != "teacher"
        }
        if "teacher" in roles:
            self._modules["teacher"] = teacher.requires_grad_(False)
        if generator_weights is not None and "generator" in self._modules:
            check_names(generator_weights, self.module("generator").state_dict(), "model.generator")
            self.module("generator").load_state_dict(dict(generator_weights))

    def run(self, role: str, *args: Any, **kwargs: Any) -> Any:
        """See `Roles`."""
        return self.module(role)(*args, **kwargs)

    def module(self, role: str) -> nn.Module:
        """See `Roles`."""
        return self._modules[loaded(role, self._modules)]

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """See `Roles`."""
        module = self.module(role)
        return {} if role == "teacher" else dict(module.named_parameters())


def check_roles(roles: Sequence[str]) -> None:
    """Raise ValueError for a role that does not exist."""
    for role in roles:
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}; allowed are {', '.join(ROLES)}")


def loaded(role: str, roles: Sequence[str] | Mapping[str, Any]) -> str:
    """The role itself; ValueError where this backbone was not asked to hold it."""
    if role not in roles:
        raise ValueError(
            f"role {role!r} is not loaded here (loaded: {', '.join(roles)}); "
            "name it in load_backbone's roles"
        )
    return role


def check_names(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Raise ValueError where names or shapes of `given` are not those of `wanted`."""
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or extra:
        raise ValueError(
            f"{what}: {len(missing)} tensors missing (first: {missing[:1]}), "
            f"{len(extra)} unknown (first: {extra[:1]}); are these weights of another "
            "architecture, another model.roles or other adapters?"
        )
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape:
            raise ValueError(
                f"{what}: {name} has shape {tuple(given[name].shape)}, "
                f"this network's is {tuple(tensor.shape)}"
            )


def tensors_of(roles: Roles, role: str) -> dict[str, Tensor]:
    """Detached CPU copies of the role's parameters."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in roles.named_parameters(role).items()
    }


@torch.no_grad()
def load_tensors(roles: Roles, role: str, tensors: Mapping[str, Tensor]) -> None:
    """Overwrite the role's parameters in place."""
    parameters = roles.named_parameters(role)
    check_names(tensors, parameters, f"role {role!r}")
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def copy_tensors(roles: Roles, source: str, target: str) -> None:
    """Make `target` equal to `source`, neither of them the teacher."""
    load_tensors(roles, target, roles.named_parameters(source))
