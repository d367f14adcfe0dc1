"""One optimizer engine a role: gradients summed over ranks, the role's own clip, AdamW.

The only importer of DeepSpeed. An engine owns one role's parameters and no other's: DeepSpeed gets
a `LossModule` that holds those parameters and whose forward is the loss itself, so the backbone,
which several engines share, carries none of its hooks. Nothing is compiled: the optimizer is
torch's, and DeepSpeed's shared-memory op is switched off.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from services.ranks import Ranks, ensure_process_group
from tdm_core.config import AlgorithmConfig, FakeScoreConfig, GeneratorConfig
from tdm_core.optimizer import RoleOptimizer

MOMENTS = ("exp_avg", "exp_avg_sq")
MAX_BUCKET_ELEMENTS = 50_000_000


class RoleEngine(Protocol):
    """What a learner asks of an engine; `tdm_core.optimizer.RoleOptimizer` is the plain one."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss to the role's accumulated gradient."""
        ...

    def step(self) -> float:
        """Sum over ranks, clip, step, clear. Returns the norm before the clip.

        A gradient that is not finite on any rank skips the step on all; its norm is not finite.
        """
        ...

    def set_lr(self, lr: float) -> None:
        """Step at this learning rate from now on."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts by "index.name", whole, on the CPU; every rank must call it."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` of any engine gave, after the parameters were restored."""
        ...


def make_engine(
    engine: Literal["deepspeed", "torch"],
    parameters: Sequence[nn.Parameter],
    role: FakeScoreConfig | GeneratorConfig,
    algorithm: AlgorithmConfig,
    ranks: Ranks,
    zero_stage: int = 0,
) -> RoleEngine:
    """The configured engine over one role's parameters, which are equal on all ranks."""
    settings: dict[str, Any] = {
        "lr": role.lr,
        "betas": role.betas,
        "weight_decay": algorithm.weight_decay,
        "eps": algorithm.adam_eps,
        "max_grad_norm": algorithm.max_grad_norm,
    }
    if engine == "torch":
        return RoleOptimizer(parameters, all_reduce=ranks.all_reduce_sum, **settings)
    return DeepSpeedRoleEngine(parameters, ranks=ranks, zero_stage=zero_stage, **settings)


class LossModule(nn.Module):
    """A role as DeepSpeed sees it: its parameters, and a forward that hands the loss through."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        """`parameters` stay the backbone's own."""
        super().__init__()
        self.role_parameters = nn.ParameterList(parameters)

    def forward(self, loss: Tensor) -> Tensor:
        """`loss`, tied to the parameters where a rank's rows gave it no gradient at all."""
        if loss.requires_grad:
            return loss
        return loss + sum(0.0 * parameter.sum() for parameter in self.role_parameters)


class ClippedAdamW(torch.optim.AdamW):
    """AdamW that clips to `max_grad_norm` and does nothing on a norm that is not finite.

    For ZeRO 0, where DeepSpeed would clip an infinite norm to NaN and step.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], max_grad_norm: float, **kw: Any) -> None:
        """`kw` are AdamW's."""
        super().__init__(parameters, **kw)
        self.max_grad_norm = max_grad_norm
        self.last_norm = 0.0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Clip, then AdamW; gradients are already summed over ranks."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self.last_norm = float(norm)
        if torch.isfinite(norm):
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
            super().step(closure)


class DeepSpeedRoleEngine:
    """AdamW over one role's parameters under DeepSpeed, ZeRO 0, 1 or 2."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float = 1e-4,
        eps: float = 1e-8,
        max_grad_norm: float = 1.0,
        zero_stage: int = 0,
        ranks: Ranks,
    ) -> None:
        """`parameters` are float32, on one device, and equal on all ranks."""
        self.parameters = list(parameters)
        _require_float32(self.parameters)
        self.zero_stage = zero_stage
        adamw = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps}
        self._adamw = (
            ClippedAdamW(self.parameters, max_grad_norm, **adamw)
            if zero_stage == 0
            else torch.optim.AdamW(self.parameters, **adamw)
        )
        deepspeed = _import_deepspeed(self.parameters[0].device)
        self._fragments = deepspeed.utils  # reads and writes what ZeRO has partitioned
        if ranks.group is None:
            ensure_process_group()
        self._engine, *_ = deepspeed.initialize(
            model=LossModule(self.parameters),
            model_parameters=self.parameters,
            optimizer=self._adamw,
            dist_init_required=False,
            config=self._deepspeed_config(max_grad_norm),
        )

    def _deepspeed_config(self, max_grad_norm: float) -> dict[str, Any]:
        num_elements = sum(parameter.numel() for parameter in self.parameters)
        bucket = min(num_elements, MAX_BUCKET_ELEMENTS)
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False,  # step() ends the accumulation
            "gradient_allreduce_op": "sum",  # the losses' weights sum to 1 over all ranks
            "gradient_clipping": max_grad_norm if self.zero_stage else 0.0,
            "steps_per_print": None,
            "zero_optimization": {
                "stage": self.zero_stage,
                "overlap_comm": False,
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": bucket,
            },
        }

    def backward(self, loss: Tensor) -> None:
        """See `RoleEngine`. ZeRO 2 reduces here, so every rank makes as many calls."""
        self._engine.backward(self._engine(loss))

    def step(self) -> float:
        """See `RoleEngine`."""
        self._engine.step()
        if isinstance(self._adamw, ClippedAdamW):
            return self._adamw.last_norm
        return float(self._engine.get_global_grad_norm())

    def set_lr(self, lr: float) -> None:
        """See `RoleEngine`; ZeRO's wrapper reads the same groups."""
        for group in self._adamw.param_groups:
            group["lr"] = lr

    def state(self) -> dict[str, Tensor]:
        """See `RoleEngine`. Empty before the first step."""
        steps = self._num_steps()
        if steps == 0:
            return {}
        state = {}
        for index, parameter in enumerate(self.parameters):
            state[f"{index}.step"] = torch.tensor(float(steps))
            for moment in MOMENTS:
                state[f"{index}.{moment}"] = self._moment(parameter, moment).detach().cpu().clone()
        return state

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """See `RoleEngine`."""
        values = [parameter.detach().clone() for parameter in self.parameters]
        self._make_state()
        for index, parameter in enumerate(self.parameters):
            self._set_value(parameter, values[index])
            for moment in MOMENTS:
                value = tensors.get(f"{index}.{moment}", torch.zeros_like(values[index]))
                self._set_moment(parameter, moment, value.to(parameter))
        steps = tensors.get("0.step", torch.tensor(0.0))
        for entry in self._adamw.state.values():
            entry["step"].fill_(float(steps))

    def _num_steps(self) -> int:
        return max((int(entry["step"]) for entry in self._adamw.state.values()), default=0)

    def _make_state(self) -> None:
        """A step on a zero gradient allocates the moments; the caller restores what it moved."""
        self.backward(torch.zeros((), device=self.parameters[0].device))
        self.step()

    def _moment(self, parameter: nn.Parameter, name: str) -> Tensor:
        if self.zero_stage == 0:
            return self._adamw.state[parameter][name]
        return self._fragments.safe_get_full_optimizer_state(parameter, name)

    def _set_moment(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        if self.zero_stage == 0:
            self._adamw.state[parameter][name].copy_(value)
        else:
            self._fragments.safe_set_full_optimizer_state(parameter, value, name)

    @torch.no_grad()
    def _set_value(self, parameter: nn.Parameter, value: Tensor) -> None:
        """The parameter and, under ZeRO 1 and 2, the copy that the optimizer steps."""
        parameter.copy_(value)
        if self.zero_stage:
            self._fragments.safe_set_full_fp32_param(parameter, value)


def _require_float32(parameters: Sequence[nn.Parameter]) -> None:
    dtypes = {parameter.dtype for parameter in parameters}
    if dtypes != {torch.float32}:
        names = ", ".join(sorted(str(dtype) for dtype in dtypes)) or "no parameter"
        raise ValueError(
            f"cluster.engine=deepspeed got {names}: DeepSpeed reduces float32 parameters only; "
            "use cluster.engine=torch for float64"
        )


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed set up for this device, quiet, without a launcher and without a compiler.

    It reads its device and local rank from the environment only. A process drives one device,
    its first visible one, so the local rank is always 0.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", "0")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    # It would be compiled for half a minute on first use, and serves inference kernels only.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
