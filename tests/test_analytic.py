import math

import numpy as np
import pytest
import torch
from toys import smooth_prior

from operators import JPEG, Blur, Downsample, Grayscale, Identity, Mask
from restore.analytic import Gaussian, GaussianPrior, operator_matrix, smooth_covariance
from restore.schedule import Schedule


@pytest.fixture
def prior():
    """Two channels, correlated and uneven, with a mean that is not flat."""
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    mean = torch.rand(2, 2, 3, generator=generator, dtype=torch.float64)
    return GaussianPrior(mean, root @ root.T / 12 + 0.01 * torch.eye(12, dtype=torch.float64))


@pytest.mark.parametrize("t", [0.001, 0.05, 0.3, 0.7, 1.0])
def test_the_denoiser_is_the_conditional_mean_of_the_joint_gaussian(prior, t):
    """Conditioning (x_0, x_t) by block matrices, without eigenvectors."""
    alpha, sigma = prior.schedule(t)
    mean, covariance = prior.distribution.mean.flatten(), prior.distribution.covariance
    x_t = torch.randn(3, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    of_state = alpha**2 * covariance + sigma**2 * torch.eye(12, dtype=torch.float64)
    expected = mean + (alpha * covariance @ torch.linalg.inv(of_state) @ (x_t.flatten(1) - alpha * mean).T).T
    torch.testing.assert_close(prior(x_t, t).flatten(1), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prior(x_t.float(), t).double(), prior(x_t, t), rtol=2e-4, atol=2e-4)


def test_the_denoiser_by_brute_force_on_a_grid():
    """One pixel: the integral of x_0 p(x_0) p(x_t | x_0), summed."""
    prior = GaussianPrior(torch.full((1, 1, 1), 0.3), torch.full((1, 1), 0.04))
    x_0 = torch.linspace(-3, 3, 200001, dtype=torch.float64)
    for t, x_t in ((0.1, 0.5), (0.5, -0.4), (0.9, 1.3)):
        alpha, sigma = prior.schedule(t)
        weight = torch.exp(-((x_0 - 0.3) ** 2) / 0.08 - (x_t - alpha * x_0) ** 2 / (2 * sigma**2))
        expected = float((weight * x_0).sum() / weight.sum())
        assert float(prior(torch.full((1, 1, 1, 1), x_t).double(), t)) == pytest.approx(expected, abs=1e-6)


def test_the_denoiser_at_time_zero_is_the_identity_and_takes_one_time_per_image(prior):
    x = torch.randn(3, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(prior(x, 0.0), x)
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    each = torch.cat([prior(x[i : i + 1], float(times[i])) for i in range(3)])
    torch.testing.assert_close(prior(x, times), each)


def test_directions_without_variance_stay_at_the_mean():
    covariance = torch.diag(torch.tensor([0.0, 0.04]))
    prior = GaussianPrior(torch.tensor([[[0.2, 0.7]]]), covariance)
    for t in (0.0, 0.5):
        out = prior(torch.tensor([[[[0.9, 0.9]]]]), t)
        assert torch.isfinite(out).all()
        assert float(out[0, 0, 0, 0]) == pytest.approx(0.2)
    assert float(prior(torch.tensor([[[[0.9, 0.9]]]]), 0.0)[0, 0, 0, 1]) == pytest.approx(0.9)


def test_numpy_arrays_are_taken():
    """The same as torch's."""
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    one = GaussianPrior(np.zeros((1, 1, 2)), covariance)
    other = GaussianPrior(torch.zeros(1, 1, 2), torch.from_numpy(covariance))
    x_t = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    assert torch.equal(one(x_t, 0.3), other(x_t, 0.3))


def test_another_schedule_is_used():
    prior = GaussianPrior(torch.zeros(1, 1, 1), torch.eye(1), Schedule.flow())
    # alpha = sigma = 1/2: gain = (1/2) / (1/4 + 1/4) = 1
    assert float(prior(torch.full((1, 1, 1, 1), 0.8), 0.5)) == pytest.approx(0.8)
    assert float(prior(torch.full((1, 1, 1, 1), 0.8), 0.75)) == pytest.approx(0.8 * 0.25 / (1 / 16 + 9 / 16))


@pytest.mark.parametrize(
    "operator",
    [
        Mask(torch.tensor([[True, False, True], [False, True, True]])),
        Blur(torch.tensor([[0.5, 0.3, 0.2]]), boundary="zero"),
        Downsample((2, 1), filter="box"),
    ],
    ids=["mask", "blur", "downsample"],
)
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_the_posterior_is_that_of_the_information_form(prior, operator, noise):
    """Precision form of Bayes' rule, which shares no formula with the one in the package."""
    matrix = operator_matrix(operator, (2, 2, 3))
    y = torch.rand(
        operator.measurement_shape((2, 2, 3)), generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    posterior = prior.posterior(y, operator, noise)
    precision = torch.linalg.inv(prior.distribution.covariance) + matrix.T @ matrix / noise**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (
        torch.linalg.solve(prior.distribution.covariance, prior.distribution.mean.flatten())
        + matrix.T @ y.flatten() / noise**2
    )
    torch.testing.assert_close(posterior.covariance, covariance, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(posterior.mean.flatten(), mean, rtol=1e-6, atol=1e-8)
    assert posterior.variance.shape == (2, 2, 3)


def test_the_posterior_of_two_pixels_by_hand():
    prior = GaussianPrior(torch.tensor([[[0.5, 0.5]]]), torch.tensor([[0.04, 0.03], [0.03, 0.04]]).double())
    y = torch.tensor([[[0.7, 0.0]]])
    exact = prior.posterior(y, Mask(torch.tensor([[True, False]])), 0.0)
    assert exact.mean.flatten().tolist() == pytest.approx([0.7, 0.5 + 0.75 * 0.2])
    assert exact.variance.flatten().tolist() == pytest.approx([0.0, 0.04 - 0.0009 / 0.04], abs=1e-8)
    noisy = prior.posterior(y, Mask(torch.tensor([[True, False]])), 0.2)  # noise as strong as the prior
    assert noisy.mean.flatten().tolist() == pytest.approx([0.6, 0.5 + 0.375 * 0.2])
    assert noisy.variance.flatten().tolist() == pytest.approx([0.02, 0.04 - 0.0009 / 0.08])


def test_without_noise_the_posterior_agrees_with_the_measurement(prior):
    operator = Mask(torch.tensor([[True, False, True], [False, True, True]]))
    x = prior.distribution.sample(1, seed=4)
    limit = prior.posterior(operator(x)[0], operator, 0.0)
    kept = operator.mask.bool().expand(1, 2, 2, 3)[0]
    torch.testing.assert_close(limit.mean[kept], x[0][kept], rtol=0, atol=1e-8)
    assert float(limit.variance[kept].abs().max()) < 1e-9
    almost = prior.posterior(operator(x)[0], operator, 1e-4)
    torch.testing.assert_close(limit.mean, almost.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(limit.covariance, almost.covariance, rtol=0, atol=1e-4)


def test_with_much_noise_the_posterior_is_the_prior(prior):
    y = torch.rand(2, 2, 3)
    posterior = prior.posterior(y, Identity(), 1e6)
    torch.testing.assert_close(posterior.mean, prior.distribution.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(posterior.covariance, prior.distribution.covariance, rtol=0, atol=1e-6)


def test_the_log_density_of_a_gaussian(prior):
    gaussian = prior.distribution
    x = gaussian.sample(5, seed=1)
    centred = (x - gaussian.mean).flatten(1)
    distance = (centred * torch.linalg.solve(gaussian.covariance, centred.T).T).sum(1)
    expected = -0.5 * (distance + torch.logdet(gaussian.covariance) + 12 * math.log(2 * math.pi))
    torch.testing.assert_close(gaussian.log_density(x), expected)
    one = Gaussian(torch.zeros(1, 1, 1).double(), torch.full((1, 1), 4.0).double())
    assert float(one.log_density(torch.full((1, 1, 1, 1), 2.0))) == pytest.approx(
        -0.5 - math.log(2) - 0.5 * math.log(2 * math.pi)
    )


def test_samples_have_the_mean_and_the_covariance(prior):
    x = prior.distribution.sample(200_000, seed=0)
    assert x.shape == (200_000, 2, 2, 3)
    torch.testing.assert_close(x.mean(0), prior.distribution.mean, rtol=0, atol=0.015)
    torch.testing.assert_close(x.flatten(1).T.cov(), prior.distribution.covariance, rtol=0, atol=0.02)
    assert torch.equal(x[:5], prior.distribution.sample(200_000, seed=0)[:5])
    assert not torch.equal(x[:5], prior.distribution.sample(200_000, seed=1)[:5])


def test_samples_of_a_singular_posterior_are_finite():
    prior = smooth_prior((2, 2))
    operator = Mask(torch.tensor([[True, False], [False, True]]))
    x = prior.distribution.sample(1, seed=0)
    posterior = prior.posterior(operator(x)[0], operator, 0.0)
    drawn = posterior.sample(100)
    assert torch.isfinite(drawn).all()
    torch.testing.assert_close(operator(drawn), operator(x).expand(100, -1, -1, -1), rtol=0, atol=1e-5)


def test_an_operator_as_a_matrix():
    matrix = operator_matrix(Blur(torch.tensor([[0.5, 0.3, 0.2]]), boundary="zero"), (1, 1, 4))
    # The bright point becomes the kernel: column j is the kernel around j.
    expected = torch.tensor([[0.3, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0, 0.2, 0.3, 0.5], [0, 0, 0.2, 0.3]])
    torch.testing.assert_close(matrix, expected.double(), rtol=0, atol=1e-7)
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    for operator in (Grayscale(), Downsample(2), Mask(torch.eye(4))):
        matrix = operator_matrix(operator, (3, 4, 4))
        torch.testing.assert_close(matrix @ x.flatten(), operator(x).flatten(), rtol=1e-6, atol=1e-6)
    with pytest.raises(TypeError, match="only a linear operator is a matrix; JPEG is not one"):
        operator_matrix(JPEG(50), (3, 8, 8))


def test_smooth_covariance_written_out():
    covariance = smooth_covariance((2, 3), length=1.5, deviation=0.2)
    assert float(covariance[0, 0]) == pytest.approx(0.04)
    assert float(covariance[0, 1]) == pytest.approx(0.04 * math.exp(-1 / 1.5))
    assert float(covariance[0, 3]) == pytest.approx(0.04 * math.exp(-1 / 1.5))
    assert float(covariance[0, 5]) == pytest.approx(0.04 * math.exp(-math.sqrt(5) / 1.5))
    assert float(torch.linalg.eigvalsh(covariance).min()) > 0


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (torch.zeros(2, 2), torch.eye(4), r"expected a mean \(C, H, W\)"),
        (torch.zeros(1, 2, 2), torch.eye(3), r"got \(1, 2, 2\) and \(3, 3\)"),
        (torch.zeros(1, 1, 2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "must be symmetric"),
        (torch.zeros(1, 1, 2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "no negative eigenvalue"),
    ],
)
def test_what_is_no_gaussian_is_refused(mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        GaussianPrior(mean, covariance)


def test_a_measurement_of_another_size_is_refused():
    with pytest.raises(ValueError, match="measures 4 numbers of such an image, y has 6"):
        smooth_prior((2, 2)).posterior(torch.zeros(1, 2, 3), Identity(), 0.1)
    with pytest.raises(TypeError, match="only a linear operator"):
        smooth_prior((8, 8)).posterior(torch.zeros(1, 8, 8), JPEG(50), 0.1)
