"""The diffusion prior at sizes that no published checkpoint has."""

from __future__ import annotations

import math

import pytest
import torch

from synbrain.decoding.mindeye2.prior import DiffusionPrior, NoiseSchedule, sampling_times, seeded_draws
from synbrain.decoding.mindeye2.prior_network import PriorConfig, _rotated
from synbrain.decoding.options import PriorSizes
from synbrain.errors import SynBrainError


def test_the_steps_that_are_visited_are_the_originals() -> None:
    """It rounds in torch: at 57 and 22 NumPy's other rounding gave 18 where it visits 17."""
    for schedule, steps in ((57, 22), (15, 14), (31, 14), (100, 20), (1000, 64)):
        original = torch.linspace(-1.0, schedule, steps=steps + 1)[:-1].int().tolist()
        assert sampling_times(schedule, steps) == list(reversed(original))


@pytest.mark.parametrize(("dim", "dim_head"), [(7, 4), (8, 5), (9, 33)])
def test_odd_sizes(dim: int, dim_head: int) -> None:
    prior = DiffusionPrior(PriorConfig(tokens=3, dim=dim, depth=1, heads=2, dim_head=dim_head, steps=10))
    out = prior.sample(torch.zeros(2, 3, dim), seeded_draws(range(2), 3, dim, 0), steps=4)
    assert out.shape == (2, 3, dim)
    assert torch.isfinite(out).all()


def test_a_head_of_odd_width_turns_by_the_originals_angles() -> None:
    """rotary-embedding-torch divides exponents by the odd width and leaves the last dimension alone."""
    x = torch.randn(1, 4, 13, generator=torch.Generator().manual_seed(0))
    angles = torch.arange(4.0)[:, None] / 10000 ** (torch.arange(0, 12, 2) / 13)
    turned = torch.view_as_complex(x[..., :12].reshape(1, 4, 6, 2).contiguous()) * torch.polar(
        angles * 0 + 1, angles
    )
    torch.testing.assert_close(_rotated(x)[..., :12], torch.view_as_real(turned).flatten(-2))
    assert torch.equal(_rotated(x)[..., 12], x[..., 12])


def test_one_sampling_step_would_be_noise_and_is_refused() -> None:
    prior = DiffusionPrior(PriorConfig(tokens=3, dim=8, depth=1, heads=2, dim_head=4, steps=10))
    with pytest.raises(SynBrainError, match="1 sampling step: choose 2 to 10"):
        prior.sample(torch.zeros(2, 3, 8), seeded_draws(range(2), 3, 8, 0), steps=1)
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        PriorSizes(sample_steps=1)


def test_the_noise_of_the_first_of_many_steps() -> None:
    """1 - kept is 4e-5 there: of a kept that was rounded before, two digits are lost."""

    def curve(t: int) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    lost, schedule = 1 - curve(1) / curve(0), NoiseSchedule(1000)
    one = torch.ones(1, 1, 1)
    assert float(schedule.noised(0 * one, torch.tensor([0]), one)) == pytest.approx(lost**0.5, rel=1e-6)
    read_off = float(schedule.noise_of(0 * one, 0, -one))
    assert read_off == pytest.approx((1 / (1 - lost) - 1) ** -0.5, rel=1e-6)
