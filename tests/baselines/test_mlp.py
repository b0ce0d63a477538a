from __future__ import annotations

import numpy as np
import pytest
import torch

from synbrain.baselines.mindsimulator import MindSimulator, cosine_schedule
from synbrain.baselines.mlp_autoencoder import MLPAE, MLPVAE
from synbrain.baselines.mlp_networks import Denoiser, MLPAutoencoder
from synbrain.baselines.mlp_parts import LatentTokens, MLPConfig
from synbrain.metrics.voxel import voxel_r

LEARNS = MLPConfig(
    tokens=1, dim=16, hidden=32, blocks=1, dropout=0.0, lr=5e-3, second_lr=5e-3, batch_size=32, epochs=8,
    depth=1, heads=2, clip_weight=0.1, sample_steps=10,
)  # fmt: skip


@pytest.mark.parametrize(("kind", "second_epochs"), [(MLPAE, 16), (MLPVAE, 16), (MindSimulator, 35)])
def test_they_learn_a_linear_brain(kind, second_epochs: int, make_pairs) -> None:
    pairs, _, means = make_pairs(n_images=220, noise=0.3, max_repeats=2)
    train, test = pairs.take(np.arange(150)), pairs.take(np.arange(150, 220))
    model = kind(LEARNS.model_copy(update={"second_epochs": second_epochs})).fit(train)
    assert voxel_r(model.predict(test.tokens), means[150:220]).mean() > 0.25
    mses = [epoch["mse"] for epoch in model.curves]
    assert min(mses) < 0.8 * mses[0]
    assert {"train", "soft_clip", "images_ranked_for_responses"} <= set(model.curves[0])
    assert len(model.mapper_curves) == second_epochs


def test_latent_spread_is_learned_only_by_the_variational_one() -> None:
    y = torch.randn(3, 10)
    plain, variational = (MLPAutoencoder(10, 2, 4, 8, 1, 0.0, v) for v in (False, True))
    posterior = plain.encode(y)
    torch.testing.assert_close(posterior.sample(), posterior.mode())
    posterior = variational.encode(y)
    assert not torch.allclose(posterior.sample(), posterior.mode())
    assert posterior.kl().shape == (3,)


def test_released_sizes_have_the_released_number_of_parameters() -> None:
    """About 212 million for subject 1 of NSD (facts computed from the released code)."""
    with torch.device("meta"):
        network = MLPAutoencoder(15724, 257, 768, 256, 2, 0.15, False)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(212e6, rel=0.02)


def test_schedule_and_noising_keep_unit_variance() -> None:
    kept = cosine_schedule(100)
    assert torch.all(kept[1:] < kept[:-1])
    assert kept[0] > 0.99
    assert kept[-1] < 1e-3
    model = MindSimulator()
    model.kept_signal = kept
    clean = torch.randn(4000, 2, 4)
    noisy = model._noised(clean, torch.full((4000,), 40), torch.randn(4000, 2, 4))
    assert noisy.std() == pytest.approx(1, abs=0.02)


def test_sampling_with_a_perfect_denoiser_gives_the_target() -> None:
    model = MindSimulator(MLPConfig(tokens=2, dim=4, timesteps=50, sample_steps=50))
    model.kept_signal, model.latent_sd, model.latent_mean = cosine_schedule(50), 2.0, torch.ones(2, 4)
    model.prior = lambda x, t, seen: seen  # type: ignore[assignment]
    seen = torch.randn(5, 2, 4)
    found = model._denoised(seen, torch.Generator().manual_seed(0), shared=False)
    torch.testing.assert_close(found, 2 * seen + 1)


def test_sampling_recovers_a_gaussian() -> None:
    """For data N(m, s2) the optimal denoiser is known; ancestral sampling must give mean and sd back."""
    model = MindSimulator(MLPConfig(tokens=1, dim=2, timesteps=100, sample_steps=100))
    kept, m, s2 = cosine_schedule(100), 0.7, 0.25
    model.kept_signal, model.latent_sd, model.latent_mean = kept, 1.0, torch.zeros(1, 2)

    def optimal(x: torch.Tensor, t: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        a = kept[t][:, None, None]
        return m + a.sqrt() * s2 / (a * s2 + 1 - a) * (x - a.sqrt() * m)

    model.prior = optimal  # type: ignore[assignment]
    found = model._denoised(torch.zeros(4000, 1, 2), torch.Generator().manual_seed(0), shared=False)
    assert found.mean() == pytest.approx(0.7, abs=0.03)
    assert found.std() == pytest.approx(0.5, abs=0.05)


def test_denoiser_sees_the_image_unless_it_is_dropped() -> None:
    torch.manual_seed(0)
    network = Denoiser(2, 8, 1, 2, 10).eval()
    noisy, t = torch.randn(3, 2, 8), torch.tensor([1, 5, 9])
    a, b = torch.randn(3, 2, 8), torch.randn(3, 2, 8)
    with torch.no_grad():
        assert not torch.allclose(network(noisy, t, a), network(noisy, t, b))
        gone = torch.zeros(3, dtype=torch.bool)
        torch.testing.assert_close(network(noisy, t, a, gone), network(noisy, t, b, gone))


def test_tokens_in_the_shape_of_the_latent(make_pairs) -> None:
    train, _, _ = make_pairs(n_images=40)
    grid = LatentTokens(train.tokens, 2, 8)
    found = grid.read(train.tokens)
    assert found.shape == (40, 2, 8)
    assert float(found.square().mean()) == pytest.approx(1, rel=1e-4)
    early = train.tokens.only("early")
    same = LatentTokens(early, 2, 5).read(early).numpy()  # already the latent's shape
    raw = train.tokens.read("early")
    centred = raw - raw.mean(0)
    np.testing.assert_allclose(same, centred / np.sqrt(np.mean(centred**2)), atol=1e-4)
