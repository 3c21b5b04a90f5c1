"""Heads: the loss is the likelihood it says it is, and the band holds what it says it holds."""

from __future__ import annotations

import math

import pytest
import torch

from rnn.config import ModelConfig
from rnn.nn.heads import (
    HEADS,
    SCALE_FLOOR,
    Categorical,
    Gaussian,
    Point,
    Quantile,
    Student,
    band_width,
    pinball,
    student_quantile,
    surprise,
)
from rnn.nn.network import Network

GRID = torch.linspace(-400, 400, 800_001, dtype=torch.float64)


def said(head: Point, n: int = 6) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a head with weights of some size says of random states."""
    torch.manual_seed(1)
    torch.nn.init.normal_(head.linear.weight, std=0.7)
    with torch.no_grad():
        return head(torch.randn(n, 4))


def test_surprise_is_the_negative_log_likelihood():
    torch.manual_seed(0)
    mean, scale, truth = torch.randn(50, 3), torch.rand(50, 3) + 0.1, torch.randn(50, 3)
    expected = -torch.distributions.Normal(mean, scale).log_prob(truth)
    assert torch.allclose(surprise(mean, scale, truth), expected, atol=1e-5)


@pytest.mark.parametrize("head", [Gaussian(4, 2), Student(4, 2)])
def test_a_surprise_is_of_a_density(head: Gaussian):
    """exp of minus it integrates to one, whatever the head says, and so do the bands to their share."""
    mean, scale = said(head)
    assert scale is not None
    band = head.band(mean, scale)
    assert band is not None
    for target in range(2):
        for row in range(len(mean)):
            with torch.no_grad():
                of_target = [part.double()[row].expand(len(GRID), 2) for part in (mean, scale)]
                truth = torch.zeros(len(GRID), 2, dtype=torch.float64)
                truth[:, target] = GRID
                density = torch.exp(-head.surprise(of_target[0], of_target[1], truth))[:, target]
            assert torch.trapezoid(density, GRID).item() == pytest.approx(1, abs=2e-3)
            inside = (band[0][row, target] <= GRID) & (band[1][row, target] >= GRID)
            assert torch.trapezoid(density * inside, GRID).item() == pytest.approx(0.8, abs=4e-3)


def test_student_is_torchs_students_t():
    head = Student(4, 3)
    head.raw_freedom.data = torch.tensor([-3.0, 0.5, 40.0])
    mean, scale = said(head)
    truth = torch.randn(6, 3) * 5
    with torch.no_grad():
        expected = -torch.distributions.StudentT(head.freedom, mean, scale).log_prob(truth)
        torch.testing.assert_close(head.surprise(mean, scale, truth), expected, atol=1e-5, rtol=1e-5)
        assert head.loss(mean, scale, truth) == pytest.approx(expected.mean().item(), rel=1e-5)
    assert (head.freedom > 2).all()


@pytest.mark.parametrize(
    ("level", "nu", "known"),
    [(0.9, 2.0, 1.8856), (0.9, 5.0, 1.4759), (0.975, 3.0, 3.1824), (0.95, 10.0, 1.8125), (0.995, 4.0, 4.6041)],
)
def test_student_quantiles_are_those_of_the_tables(level: float, nu: float, known: float):
    assert student_quantile(level, nu) == pytest.approx(known, abs=2e-4)


def test_many_degrees_of_freedom_are_a_gaussian():
    assert student_quantile(0.9, 5000.0) == pytest.approx(band_width(0.8), abs=2e-3)


def test_categorical_is_torchs_and_its_probabilities_add_up():
    head = Categorical(4, 5)
    logits, nothing = said(head)
    assert nothing is None
    truth = torch.tensor([0, 1, 2, 3, 4, 0])
    expected = -torch.distributions.Categorical(logits=logits).log_prob(truth)
    torch.testing.assert_close(head.surprise(logits, None, truth.float()), expected)
    assert head.loss(logits, None, truth.float()) == pytest.approx(expected.mean().item(), rel=1e-6)
    every = torch.stack([head.surprise(logits, None, torch.full((6,), float(k))) for k in range(5)])
    torch.testing.assert_close(torch.exp(-every).sum(0), torch.ones(6))


def test_a_class_that_is_unknown_can_be_weighed_nothing():
    head = Categorical(4, 3)
    logits, _ = said(head)
    truth = torch.tensor([0.0, -1, 2, -1, 1, 0])
    known = truth >= 0
    assert head.loss(logits, None, truth, known.float()) == pytest.approx(
        head.loss(logits[known], None, truth[known]).item(), rel=1e-6
    )


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_pinball_is_least_at_its_quantile(level: float):
    """Expected over a standard Gaussian, by integration: no edge is better than the true quantile."""
    density = torch.exp(-0.5 * GRID.square()) / math.sqrt(2 * math.pi)
    edges = torch.linspace(-3, 3, 601, dtype=torch.float64)
    near = GRID.abs() < 10
    costs = torch.stack(
        [torch.trapezoid(pinball(GRID[near] - edge, level) * density[near], GRID[near]) for edge in edges]
    )
    best = edges[costs.argmin()].item()
    assert best == pytest.approx(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(level)).item(), abs=0.011)


def test_quantile_loss_is_the_mean_of_three_pinballs():
    head = Quantile(4, 2)
    median, widths = said(head)
    assert widths is not None
    truth = torch.randn(6, 2)
    lo, hi = head.band(median, widths) or (median, median)
    expected = (pinball(truth - lo, 0.1) + pinball(truth - median, 0.5) + pinball(truth - hi, 0.9)).mean() / 3
    assert head.loss(median, widths, truth) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "student", "quantile"])
def test_bands_never_cross(name: str):
    head = HEADS[name](4, 3)
    torch.manual_seed(0)
    torch.nn.init.normal_(head.linear.weight, std=50.0)
    for calibration in (1.0, 0.01):
        head.calibration.fill_(calibration)
        mean, scale = head(torch.randn(1000, 4) * 20)
        lo, hi = head.band(mean, scale) or (mean, mean)
        assert (lo <= mean).all() and (mean <= hi).all()


def test_a_quantile_head_learns_the_quantiles_of_a_skewed_truth():
    torch.manual_seed(0)
    h, truth = torch.ones(8000, 1), torch.distributions.Exponential(1.0).sample((8000, 1))
    head = Quantile(1, 1)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(400):
        optimiser.zero_grad()
        head.loss(*head(h), truth).backward()
        optimiser.step()
    mean, scale = head(h[:1])
    lo, hi = head.band(mean, scale) or (mean, mean)
    for edge, level in ((lo, 0.1), (mean, 0.5), (hi, 0.9)):
        assert edge.item() == pytest.approx(-math.log(1 - level), abs=0.1)


def test_calibration_widens_bands_and_nothing_else():
    for name in ("gaussian", "student", "quantile"):
        head = HEADS[name](4, 2)
        mean, scale = said(head)
        before, cost = head.band(mean, scale), head.loss(mean, scale, mean + 1)
        head.calibration.copy_(torch.tensor([2.0, 1.0]))
        after = head.band(mean, scale)
        assert before is not None and after is not None
        torch.testing.assert_close((after[1] - after[0]) / (before[1] - before[0]), torch.tensor([[2.0, 1.0]] * 6))
        assert head.loss(mean, scale, mean + 1) == cost


def test_band_holds_its_share_of_a_gaussian():
    torch.manual_seed(0)
    draws = 3 + 2 * torch.randn(200_000, 1)
    lo, hi = Gaussian(4, 1).band(torch.tensor(3.0), torch.tensor(2.0)) or (draws, draws)
    assert abs(((draws > lo) & (draws < hi)).float().mean().item() - 0.8) < 0.01


def test_a_gaussian_head_never_claims_certainty():
    head = Gaussian(4, 2)
    _, scale = head(torch.full((3, 4), 1e6))
    _, other = head(torch.full((3, 4), -1e6))
    assert scale is not None and other is not None
    assert (torch.cat((scale, other)) >= SCALE_FLOOR).all()


def test_a_new_network_predicts_about_persistence():
    torch.manual_seed(0)
    network = Network(ModelConfig(("a",), hidden=64))
    h, _ = network.unroll(torch.randn(20, 8, 3))
    mean, scale = network.head(h)
    assert scale is not None
    assert mean.abs().max() < 0.5
    assert 0.3 < scale.mean() < 1.5


@pytest.mark.parametrize("name", ["point", "gaussian", "student", "quantile"])
def test_losses_count_only_what_has_weight(name: str):
    torch.manual_seed(0)
    h, truth = torch.randn(10, 4), torch.randn(10, 2)
    weight = torch.ones(10, 1)
    weight[7:] = 0
    head = HEADS[name](4, 2)
    assert torch.allclose(head.loss(*head(h[:7]), truth[:7]), head.loss(*head(h), truth, weight))
    assert head.loss(*head(h), truth, torch.zeros(10, 1)) == 0


def test_a_point_says_neither_band_nor_surprise():
    head = Point(4, 2)
    mean, scale = said(head)
    assert scale is None and head.band(mean, scale) is None
    assert head.surprise(mean, scale, mean).isnan().all()
    assert head.loss(mean, scale, mean + 2) == 4


def test_a_gaussian_head_learns_mean_and_scale():
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
    assert scale is not None
    assert abs(mean.item() - 0.7) < 0.02 and abs(scale.item() - 0.2) < 0.02
