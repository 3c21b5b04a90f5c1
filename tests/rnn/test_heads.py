"""Heads: the loss is the likelihood it says it is, and the band holds what it says it holds."""

from __future__ import annotations

import torch

from rnn.config import ModelConfig
from rnn.heads import SCALE_FLOOR, Gaussian, Point, band, surprise
from rnn.network import Network


def test_surprise_is_the_negative_log_likelihood() -> None:
    torch.manual_seed(0)
    mean, scale, truth = torch.randn(50, 3), torch.rand(50, 3) + 0.1, torch.randn(50, 3)
    expected = -torch.distributions.Normal(mean, scale).log_prob(truth)
    assert torch.allclose(surprise(mean, scale, truth), expected, atol=1e-5)


def test_band_holds_its_share_of_a_gaussian() -> None:
    torch.manual_seed(0)
    draws = 3 + 2 * torch.randn(200_000)
    lo, hi = band(torch.tensor(3.0), torch.tensor(2.0), 0.8)
    assert abs(((draws > lo) & (draws < hi)).float().mean().item() - 0.8) < 0.01


def test_a_gaussian_head_never_claims_certainty() -> None:
    head = Gaussian(4, 2)
    _, scale = head(torch.full((3, 4), 1e6))
    _, other = head(torch.full((3, 4), -1e6))
    assert scale is not None and other is not None
    assert (torch.cat((scale, other)) >= SCALE_FLOOR).all()


def test_a_new_network_predicts_about_persistence() -> None:
    torch.manual_seed(0)
    network = Network(ModelConfig(("a",), hidden=64))
    h, _ = network.unroll(torch.randn(20, 8, 3))
    mean, scale = network.head(h)
    assert mean.abs().max() < 0.5
    assert 0.3 < scale.mean() < 1.5


def test_losses_count_only_what_has_weight() -> None:
    torch.manual_seed(0)
    h, truth = torch.randn(10, 4), torch.randn(10, 2)
    weight = torch.ones(10, 1)
    weight[7:] = 0
    for head in (Point(4, 2), Gaussian(4, 2)):
        all_of_it = head.loss(*head(h[:7]), truth[:7])
        with_weight = head.loss(*head(h), truth, weight)
        assert torch.allclose(all_of_it, with_weight)
        assert head.loss(*head(h), truth, torch.zeros(10, 1)) == 0


def test_a_gaussian_head_learns_mean_and_scale() -> None:
    torch.manual_seed(0)
    h = torch.ones(4000, 1)
    truth = 0.7 + 0.2 * torch.randn(4000, 1)
    head = Gaussian(1, 1)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        head.loss(*head(h), truth).backward()
        optimiser.step()
    mean, scale = head(h[:1])
    assert abs(mean.item() - 0.7) < 0.02 and abs(scale.item() - 0.2) < 0.02
