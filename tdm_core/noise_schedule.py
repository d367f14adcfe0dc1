"""Noise levels, the transport between them, and the velocity it implies (algorithm.md 1 and 2).

Path: x_s = (1-s) x0 + s e. A boundary x_n is carried up to a noisier tau > n by
    x_tau = a x_n + b e',   a = (1-tau)/(1-n),   b^2 = (tau-n)(tau+n-2 n tau)/(1-n)^2,
so that if x_n lies on the path then so does x_tau. Its derivative in tau at fixed e' is the exact
conditional velocity u = -x_n/(1-n) + kappa e', kappa = (tau + a n^2/(1-n))/b.
"""

from typing import TypeVar

import torch
from torch import Tensor

from tdm_core.config import SamplerConfig
from tdm_core.denoiser import broadcast_rows

Number = TypeVar("Number", float, Tensor)

MIN_TRANSPORT = 1e-4
"""Least tau - n: below it b vanishes and kappa diverges."""


def shift_sigma(u: Number, shift: float) -> Number:
    """s = g u / (1 + (g-1) u): source coordinate u in [0, 1] to noise level s in [0, 1]."""
    return shift * u / (1 + (shift - 1) * u)


def unshift_sigma(s: Number, shift: float) -> Number:
    """u = s / (g - (g-1) s), the inverse of `shift_sigma`."""
    return s / (shift - (shift - 1) * s)


def boundaries(config: SamplerConfig) -> tuple[float, ...]:
    """s_0 > s_1 > ... > s_K = 0, the K+1 noise levels of the few-step sampler.

    For K = 4 and shift 3 the nominal grid is 1, .9, .75, .5, 0; the discrete grid starts at the
    first sigma of a 1000-step scheduler: .99967, .89964, .74962, .49967, 0.
    """
    top = 1.0 if config.grid == "nominal" else 0.999
    steps = config.num_steps
    levels = [shift_sigma(top * (steps - k) / steps, config.shift) for k in range(steps)]
    return (*levels, 0.0)


def transport(n: float, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (a, b) that carry a boundary at noise level n to tau; tau (N,) in (n, 1]."""
    if not 0 <= n < 1:
        raise ValueError(f"boundary noise level n={n}: allowed 0 <= n < 1")
    if bool((tau - n < MIN_TRANSPORT).any()):
        raise ValueError(
            f"tau={float(tau.min())} is not above n={n} by {MIN_TRANSPORT}; raise tau_offset"
        )
    a = (1 - tau) / (1 - n)
    # The factored form keeps b^2 >= 0, where tau^2 - (a n)^2 cancels to noise near n.
    variance = (tau - n) * (tau + n - 2 * n * tau) / (1 - n) ** 2
    return a, variance.clamp(min=0).sqrt()


def kappa(n: float, tau: Tensor) -> Tensor:
    """Coefficient of the noise in the exact conditional velocity; (N,), about 1/b near n."""
    a, b = transport(n, tau)
    return (tau + a * n**2 / (1 - n)) / b


def renoise(x_n: Tensor, noise: Tensor, n: float, tau: Tensor) -> Tensor:
    """x_tau = a x_n + b e'. Rows (N, ...), tau (N,)."""
    a, b = transport(n, tau)
    return broadcast_rows(a, x_n) * x_n + broadcast_rows(b, x_n) * noise


def conditional_velocity(x_n: Tensor, noise: Tensor, n: float, tau: Tensor) -> Tensor:
    """u = -x_n/(1-n) + kappa e', d x_tau / d tau at fixed noise. Rows (N, ...), tau (N,)."""
    return broadcast_rows(kappa(n, tau), x_n) * noise - x_n / (1 - n)


def tau_lower_bound(n: float, tau_min: float, shift: float, offset: float) -> float:
    """lo = S^-1(max(n, tau_min)) + offset, kept inside the unit interval (algorithm.md 2.4)."""
    u = unshift_sigma(max(n, tau_min), shift)
    return min(u + offset, (u + 1) / 2)


def tau_from_uniform(r: Tensor, n: float, tau_min: float, shift: float, offset: float) -> Tensor:
    """tau = S(lo + r (1 - lo)) for r uniform on [0, 1): uniform in u above the bound."""
    lo = tau_lower_bound(n, tau_min, shift, offset)
    return shift_sigma(lo + r * (1 - lo), shift)


def surrogate_slot_weights(num_steps: int) -> Tensor:
    """p_j proportional to j+1: the slot law of surrogate training; (K,) float64, sums to 1."""
    weights = torch.arange(1, num_steps + 1, dtype=torch.float64)
    return weights / weights.sum()
