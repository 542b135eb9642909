import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from operators import JPEG, Blur, Downsample, Grayscale, Identity, Mask
from restore.analytic import (
    Gaussian,
    GaussianMixture,
    GaussianMixturePrior,
    GaussianPrior,
    operator_matrix,
    smooth_covariance,
)
from restore.schedule import Schedule

KINDS = ["number", "variances", "shared", "full"]
TIMES = [0.001, 0.1, 0.5, 1.0]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def random_covariances(kind, count, n, seed=0):
    roots = normal(count, n, n, seed=seed + 7)
    full = roots @ roots.mT / n + 0.05 * eye(n)
    return {"number": 0.3, "variances": full[:, 0, 0], "shared": full[0], "full": full}[kind]


def matrices(covariances, count, n):
    """Every form of covariances written out, ``(K, n, n)``."""
    covariances = torch.as_tensor(covariances, dtype=torch.float64)
    if covariances.ndim < 2:
        covariances = covariances.reshape(-1, 1, 1) * eye(n)
    return covariances.expand(count, n, n)


def random_prior(kind, count=3, shape=(2, 2, 2), seed=0, spread=1.0):
    weights = torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 0.2
    means = spread * normal(count, *shape, seed=seed)
    return GaussianMixturePrior(weights, means, random_covariances(kind, count, math.prod(shape), seed))


def torch_mixture(mixture, alpha=1.0, sigma=0.0):
    """The same mixture, noisy, in ``torch.distributions``."""
    count, n = len(mixture.weights), mixture.mean.numel()
    covariances = alpha**2 * matrices(mixture.covariances, count, n) + sigma**2 * eye(n)
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(mixture.weights),
        torch.distributions.MultivariateNormal(alpha * mixture.means.flatten(1), covariances),
    )


# ------------------------------------------------------------------------------------------- the distribution


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_density_is_that_of_torch(kind):
    prior = random_prior(kind)
    x = 2 * normal(50, 2, 2, 2, seed=3)
    exact = torch_mixture(prior.distribution)
    torch.testing.assert_close(prior.distribution.log_density(x), exact.log_prob(x.flatten(1)))
    torch.testing.assert_close(prior.distribution.mean.flatten(), exact.mean)
    torch.testing.assert_close(prior.distribution.variance.flatten(), exact.variance)
    for t in TIMES:
        noisy = torch_mixture(prior.distribution, *prior.schedule(t))
        torch.testing.assert_close(prior.log_density(x, t), noisy.log_prob(x.flatten(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_moments_and_the_weights(kind):
    mixture = random_prior(kind, shape=(1, 1, 3), spread=4.0).distribution
    x = mixture.sample(100_000, seed=2)
    assert x.shape == (100_000, 1, 1, 3)
    assert x.dtype == torch.float64
    scale = float(mixture.variance.max())
    torch.testing.assert_close(x.mean(0), mixture.mean, rtol=0, atol=4 * math.sqrt(scale / 100_000))
    torch.testing.assert_close(x.flatten(1).T.cov(), mixture.covariance, rtol=0, atol=0.02 * scale)
    # Third moments tell a mixture from a Gaussian of the same covariance.
    likely = torch_mixture(mixture).component_distribution.log_prob(x.flatten(1)[:, None])
    shares = (mixture.weights.log() + likely).softmax(1).mean(0)
    torch.testing.assert_close(shares, mixture.weights, rtol=0, atol=0.006)
    assert torch.equal(x, mixture.sample(100_000, seed=2))
    assert not torch.equal(x[:5], mixture.sample(5, seed=3))


def test_weights_are_divided_by_their_sum_and_may_be_zero():
    means = torch.tensor([0.0, 1.0, 50.0]).reshape(3, 1, 1, 1)
    mixture = GaussianMixture(torch.tensor([2, 6, 0]), means, 0.01)
    assert mixture.weights.tolist() == [0.25, 0.75, 0]
    assert float(mixture.sample(1000).max()) < 2
    x = torch.full((1, 1, 1, 1), 30.0, dtype=torch.float64, requires_grad=True)
    prior = GaussianMixturePrior(mixture.weights, means, 0.01)
    out = prior(x, 0.1)
    (slope,) = torch.autograd.grad(out.sum(), x)
    assert torch.isfinite(out).all()
    assert torch.isfinite(slope).all()
    assert float(prior(torch.full((1, 1, 1, 1), 5.0), 1.0)) < 1.5


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_a_singular_mixture_has_no_density_but_samples(noise):
    line = torch.ones(2, 2).double()
    mixture = GaussianMixture(torch.ones(2), normal(2, 1, 1, 2), line)
    assert torch.isfinite(mixture.sample(10)).all()
    for singular in (mixture, GaussianMixture(torch.ones(2), mixture.means, torch.tensor([1.0, 0.0]))):
        with pytest.raises(ValueError, match="singular, so there is no density"):
            singular.log_density(torch.zeros(1, 1, 1, 2))
    with pytest.raises(ValueError, match="singular"):
        Gaussian(torch.zeros(1, 1, 2).double(), line).log_density(torch.zeros(1, 1, 1, 2))
    prior = GaussianMixturePrior(torch.ones(2), mixture.means, line)
    assert torch.isfinite(prior.log_density(torch.zeros(1, 1, 1, 2), 0.01)).all()
    with pytest.raises(ValueError, match="singular"):
        prior.log_density(torch.zeros(1, 1, 1, 2), 0.0)
    posterior = random_prior("full").posterior(torch.zeros(2, 2, 2), Identity(), noise)
    if noise:
        assert torch.isfinite(posterior.log_density(torch.zeros(1, 2, 2, 2)))
    else:
        with pytest.raises(ValueError, match="give the measurement a little noise"):
            posterior.log_density(torch.zeros(1, 2, 2, 2))


# ------------------------------------------------------------------------------------------- the denoiser


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", TIMES)
def test_the_denoiser_by_conditioning_each_component(kind, t):
    """Block matrices and torch's own densities, component by component."""
    prior = random_prior(kind)
    x = 1.5 * normal(20, 2, 2, 2, seed=5)
    alpha, sigma = prior.schedule(t)
    noisy, means = torch_mixture(prior.distribution, alpha, sigma), prior.distribution.means.flatten(1)
    joint = noisy.mixture_distribution.logits + noisy.component_distribution.log_prob(x.flatten(1)[:, None])
    expected = torch.zeros(20, 8, dtype=torch.float64)
    for k, covariance in enumerate(matrices(prior.distribution.covariances, 3, 8)):
        of_state = alpha**2 * covariance + sigma**2 * eye(8)
        each = means[k] + (x.flatten(1) - alpha * means[k]) @ torch.linalg.solve(of_state, alpha * covariance)
        expected += joint.softmax(1)[:, k : k + 1] * each
    torch.testing.assert_close(prior(x, t).flatten(1), expected, rtol=1e-8, atol=1e-8)


def test_the_denoiser_by_numerical_integration():
    weights, means, variances = [0.2, 0.5, 0.3], [-1.0, 0.2, 1.5], [0.02, 0.3, 0.005]
    prior = GaussianMixturePrior(
        torch.tensor(weights), torch.tensor(means).reshape(3, 1, 1, 1), torch.tensor(variances)
    )
    x_0 = torch.linspace(-6, 6, 400_001, dtype=torch.float64)
    density = sum(
        w / math.sqrt(v) * torch.exp(-((x_0 - m) ** 2) / (2 * v))
        for w, m, v in zip(weights, means, variances, strict=True)
    )
    for t, x_t in itertools.product((0.05, 0.3, 0.6, 1.0), (-1.2, 0.1, 0.9)):
        alpha, sigma = prior.schedule(t)
        weight = density * torch.exp(-((x_t - alpha * x_0) ** 2) / (2 * sigma**2))
        expected = float((weight * x_0).sum() / weight.sum())
        assert float(prior(torch.full((1, 1, 1, 1), x_t).double(), t)) == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_gradient_of_the_log_density(kind):
    prior = random_prior(kind)
    x = (2 * normal(5, 2, 2, 2, seed=6)).requires_grad_()
    for t in (*TIMES, torch.tensor([0.01, 0.2, 0.4, 0.8, 1.0], dtype=torch.float64)):
        (slope,) = torch.autograd.grad(prior.log_density(x, t).sum(), x)
        torch.testing.assert_close(prior.score(x, t), slope, rtol=1e-6, atol=1e-7)
    (slope,) = torch.autograd.grad(prior.distribution.log_density(x).sum(), x)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_denoisers_gradient_is_right(kind):
    prior = random_prior(kind, shape=(1, 1, 3))
    x = normal(2, 1, 1, 3, seed=8).requires_grad_()
    for t in (0.2, 0.7):
        assert torch.autograd.gradcheck(lambda x, t=t: prior(x, t), (x,))


@pytest.mark.parametrize("kind", KINDS)
def test_one_time_per_image(kind):
    prior = random_prior(kind)
    x, times = normal(3, 2, 2, 2, seed=1), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    each = torch.cat([prior(x[i : i + 1], float(times[i])) for i in range(3)])
    torch.testing.assert_close(prior(x, times), each, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(prior(x, 0.0), x)
    densities = torch.cat([prior.log_density(x[i : i + 1], float(times[i])) for i in range(3)])
    torch.testing.assert_close(prior.log_density(x, times), densities)


def test_a_flow_at_time_one_knows_only_the_mean():
    prior = random_prior("full")
    flow = GaussianMixturePrior(
        prior.distribution.weights, prior.distribution.means, prior.distribution.covariances, Schedule.flow()
    )
    out = flow(normal(4, 2, 2, 2), 1.0)
    torch.testing.assert_close(out, flow.distribution.mean.expand_as(out))


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_where_the_states_are(kind):
    """Torch's device without numbers refuses to be mixed with any other, as a GPU does."""
    prior, x = random_prior(kind), torch.zeros(3, 2, 2, 2, device="meta")
    assert prior(x, 0.5).device.type == "meta"
    assert prior(x, torch.tensor([0.0, 0.5, 1.0])).device.type == "meta"


def test_points_are_found_again_at_any_noise_level():
    """Components without variance: the nearest as the noise vanishes, their mean where it is all there is."""
    points = normal(4, 1, 2, 2, seed=2)
    for covariances in (0.0, torch.zeros(4, 4)):
        prior = GaussianMixturePrior(torch.ones(4), points, covariances)
        x = (points + 0.01 * normal(4, 1, 2, 2, seed=3)).requires_grad_()
        for t in (0.0, 0.001, 0.01):
            out = prior(x, t)
            torch.testing.assert_close(out, points, rtol=0, atol=1e-6)
            assert torch.isfinite(torch.autograd.grad(out.sum(), x)[0]).all()


def test_float32_agrees_with_float64_for_far_means_in_high_dimension():
    """The mixture of the benchmark: means up to 16 in 800 dimensions; also half way between two of them."""
    grid = 8.0 * torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))
    means = grid.repeat(1, 400).reshape(25, 1, 1, 800)
    for variances in (1.0, torch.linspace(0.9, 1.1, 25)):
        prior = GaussianMixturePrior(torch.arange(1, 26), means, variances)
        for t in (0.02, 0.1, 0.5, 0.9, 1.0):
            alpha, sigma = prior.schedule(t)
            pairs = (means[:20] + means[5:]) / 2 + normal(20, 1, 1, 800, seed=1)
            x = torch.cat([alpha * prior.distribution.sample(20).double(), alpha * pairs])
            x = (x + sigma * normal(40, 1, 1, 800, seed=4)).float()
            assert prior(x, t).dtype == torch.float32
            torch.testing.assert_close(prior(x, t).double(), prior(x.double(), t), rtol=0, atol=2e-4)
            assert prior.log_density(x, t).dtype == torch.float64


def test_isotropic_components_need_no_memory_for_all_pairs():
    prior = random_prior("variances", count=50, shape=(1, 20, 20))
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    x = torch.randn(60, 1, 20, 20, requires_grad=True)
    with Watch():
        torch.autograd.grad(prior(x, 0.3).sum(), x)
    assert 60 * 400 <= max(sizes) < 2 * 60 * 400  # the states, and nothing of 60 x 50 x 400


# ------------------------------------------------------------------------------------------- the Gaussian


def test_a_gaussian_is_the_mixture_of_one():
    covariance = smooth_covariance((2, 3), deviation=0.3)
    mean = torch.rand(1, 2, 3).double()
    gaussian = GaussianPrior(mean, covariance)
    twins = GaussianMixturePrior(torch.tensor([0.3, 0.7]), torch.stack([mean, mean]), covariance)
    fulls = GaussianMixturePrior(torch.ones(2), twins.distribution.means, covariance.expand(2, 6, 6))
    x, operator = torch.rand(4, 1, 2, 3).double(), Downsample((1, 3), filter="box")
    y = operator(x)[0]
    # MultivariateNormal and the block formulas of Gaussian conditioning know nothing of this package.
    matrix = operator_matrix(operator, (1, 2, 3))
    gain = covariance @ matrix.T @ torch.linalg.inv(matrix @ covariance @ matrix.T + 0.01 * eye(2))
    exact = mean.flatten() + gain @ (y.flatten() - matrix @ mean.flatten())
    for prior in (gaussian, twins, fulls):
        density = torch.distributions.MultivariateNormal(mean.flatten(), covariance).log_prob(x.flatten(1))
        torch.testing.assert_close(prior.distribution.log_density(x), density, rtol=1e-10, atol=1e-10)
        for t in TIMES:
            torch.testing.assert_close(prior(x, t), gaussian(x, t), rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(
                prior.log_density(x, t), gaussian.log_density(x, t), rtol=1e-10, atol=0
            )
        posterior = prior.posterior(y, operator, 0.1)
        torch.testing.assert_close(posterior.mean.flatten(), exact, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(
            posterior.covariance, covariance - gain @ matrix @ covariance, atol=1e-10, rtol=0
        )


# ------------------------------------------------------------------------------------------- the posterior


def grid_posterior(mixture, matrix, y, noise, reach=14.0, points=801):
    """Mean, covariance and evidence of a posterior in two dimensions by summing over a grid."""
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    log_likelihood = -0.5 * ((y - x @ matrix.T) ** 2).sum(1) / noise**2
    weight = (torch_mixture(mixture).log_prob(x) + log_likelihood).softmax(0)
    mean = weight @ x
    return x, weight, mean, (x - mean).T @ (weight[:, None] * (x - mean))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "operator",
    [Mask(torch.tensor([[True, False]])), Blur(torch.tensor([[0.5, 0.3, 0.2]]), boundary="zero"), Identity()],
    ids=["mask", "blur", "identity"],
)
def test_the_posterior_by_numerical_integration(kind, operator):
    prior = random_prior(kind, shape=(1, 1, 2), spread=1.5)
    matrix = operator_matrix(operator, (1, 1, 2))
    y = matrix @ torch.tensor([0.7, -0.4], dtype=torch.float64)
    posterior = prior.posterior(y.reshape(1, 1, 2), operator, 0.4)
    x, weight, mean, covariance = grid_posterior(prior.distribution, matrix, y, 0.4)
    torch.testing.assert_close(posterior.mean.flatten(), mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(posterior.covariance, covariance, rtol=0, atol=1e-6)
    # The density itself, so weights and covariances of each component, not only their sum.
    cell = (28.0 / 800) ** 2
    density = posterior.log_density(x.reshape(-1, 1, 1, 2)).exp() * cell
    assert float((density - weight).abs().sum()) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_bayes_rule_holds_pointwise(kind):
    """``log p(x | y) - log p(x) - log p(y | x)`` is the same number for all x: minus the log evidence."""
    prior = random_prior(kind, shape=(3, 2, 2))
    operator, noise = Grayscale() @ Downsample((2, 1), filter="box"), 0.3
    y = operator(prior.distribution.sample(1, seed=5))[0]
    posterior, x = prior.posterior(y, operator, noise), normal(20, 3, 2, 2, seed=9)
    likelihood = torch.distributions.Normal(operator(x), noise).log_prob(y).flatten(1).sum(1)
    evidence = prior.distribution.log_density(x) + likelihood - posterior.log_density(x)
    matrix, mixture = operator_matrix(operator, (3, 2, 2)), prior.distribution
    of_y = matrix @ matrices(mixture.covariances, 3, 12) @ matrix.T + noise**2 * eye(len(matrix))
    components = torch.distributions.MultivariateNormal(mixture.means.flatten(1) @ matrix.T, of_y)
    exact = (mixture.weights.log() + components.log_prob(y.flatten())).logsumexp(0)
    torch.testing.assert_close(evidence, exact.expand(20), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_posterior_averaged_over_measurements_is_the_prior(kind):
    prior = random_prior(kind, shape=(1, 2, 2), spread=2.0)
    operator, noise, count = Mask(torch.tensor([[True, False], [False, True]])), 0.5, 1500
    x = prior.distribution.sample(count, seed=3)
    y = operator(x + noise * normal(*x.shape, seed=4))
    posteriors = [prior.posterior(each, operator, noise) for each in y]
    means = torch.stack([p.mean for p in posteriors])
    scale = float(prior.distribution.variance.max().sqrt())
    torch.testing.assert_close(
        means.mean(0), prior.distribution.mean, rtol=0, atol=4 * scale / math.sqrt(count)
    )
    weights = torch.stack([p.weights for p in posteriors]).mean(0)
    torch.testing.assert_close(weights, prior.distribution.weights, rtol=0, atol=2 / math.sqrt(count))
    # The law of total variance.
    total = torch.stack([p.covariance for p in posteriors]).mean(0) + means.flatten(1).T.cov()
    torch.testing.assert_close(total, prior.distribution.covariance, rtol=0, atol=0.15 * scale**2)


@pytest.mark.parametrize("kind", KINDS)
def test_with_much_noise_the_posterior_is_the_prior(kind):
    prior = random_prior(kind)
    posterior = prior.posterior(torch.rand(2, 2, 2), Identity(), 1e7)
    for name in ("weights", "means", "covariance"):
        torch.testing.assert_close(
            getattr(posterior, name), getattr(prior.distribution, name), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "operator",
    [Mask(torch.tensor([[True, False], [True, True]])), Downsample((1, 2), filter="box"), Identity()],
    ids=["mask", "downsample", "identity"],
)
def test_without_noise_the_posterior_agrees_with_the_measurement(kind, operator):
    prior = random_prior(kind)
    y = operator(prior.distribution.sample(1, seed=6))
    limit, almost = (prior.posterior(y[0], operator, noise) for noise in (0.0, 1e-4))
    torch.testing.assert_close(operator(limit.means), y.expand(3, *y.shape[1:]), rtol=0, atol=1e-7)
    torch.testing.assert_close(operator(limit.sample(20)), y.expand(20, *y.shape[1:]), rtol=0, atol=1e-6)
    for name in ("weights", "mean", "covariance"):
        torch.testing.assert_close(getattr(limit, name), getattr(almost, name), rtol=0, atol=1e-3)


def test_what_lies_in_the_holes_of_a_mask_says_nothing():
    prior = random_prior("variances")
    operator = Mask(torch.tensor([[True, False], [True, False]]))
    y = operator(prior.distribution.sample(1))[0]
    junk = torch.where(operator.mask.bool()[0], y, 1.0)
    for noise in (0.0, 0.1):
        clean, other = prior.posterior(y, operator, noise), prior.posterior(junk, operator, noise)
        torch.testing.assert_close(clean.weights, other.weights, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(clean.means, other.means, rtol=1e-12, atol=1e-12)


def test_where_nothing_is_measured_the_posterior_is_the_prior():
    for kind, noise in itertools.product(KINDS, (0.0, 0.1)):
        prior = random_prior(kind)
        posterior = prior.posterior(torch.zeros(2, 2, 2), Mask(torch.zeros(2, 2).bool()), noise)
        torch.testing.assert_close(posterior.weights, prior.distribution.weights)
        torch.testing.assert_close(posterior.covariance, prior.distribution.covariance)


def test_degenerate_evidence_is_the_limit_of_little_noise():
    """A point, a line and a plane, measured exactly: the least of them that contains y explains it alone."""
    means = torch.zeros(3, 1, 1, 2)
    covariances = torch.tensor([[[0.0, 0], [0, 0]], [[1, 0], [0, 0]], [[1, 0], [0, 1]]])
    prior = GaussianMixturePrior(torch.ones(3), means, covariances)
    for y, winner in (([0.0, 0.0], 0), ([0.5, 0.0], 1), ([0.5, 0.5], 2)):
        posterior = prior.posterior(torch.tensor(y).reshape(1, 1, 2), Identity(), 0.0)
        assert float(posterior.weights[winner]) == pytest.approx(1, abs=1e-5)
        assert posterior.mean.flatten().tolist() == pytest.approx(y, abs=1e-5)
    points = GaussianMixturePrior(torch.ones(2), torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), 0.0)
    assert points.posterior(torch.full((1, 1, 1), 0.4), Identity(), 0.0).weights.tolist() == [1, 0]


def test_weights_survive_evidence_too_small_for_a_float():
    prior = GaussianMixturePrior(torch.ones(2), torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), 1e-4)
    weights = prior.posterior(torch.full((1, 1, 1), 80.5), Identity(), 0.5).weights
    variance = 0.25 + 1e-4
    assert float(weights[0]) == pytest.approx(math.exp(-80 / variance), rel=1e-9)
    assert float(weights.sum()) == pytest.approx(1)


def test_a_high_dimensional_posterior():
    """800 pixels, 25 components: means and samples agree with what is measured, and the modes are found."""
    grid = 8.0 * torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))
    means = grid.repeat(1, 400).reshape(25, 1, 1, 800)
    prior = GaussianMixturePrior(torch.ones(25), means, 1.0)
    operator = Mask((torch.arange(800) == 0).reshape(1, 800))
    posterior = prior.posterior(operator(means[10:11].float())[0], operator, 0.1)
    assert posterior.covariances.shape == (800, 800)
    # The first pixel tells the first coordinate of the mode: five modes remain, alike.
    expected = torch.zeros(25).double()
    expected[10:15] = 0.2
    torch.testing.assert_close(posterior.weights, expected, rtol=0, atol=1e-10)
    x = posterior.sample(1000)
    assert float(x[:, 0, 0, 0].var()) == pytest.approx(0.01 / 1.01, rel=0.15)
    assert float(x[:, 0, 0, 1].var()) == pytest.approx(1 + 128, rel=0.1)


# ------------------------------------------------------------------------------------------- any shape, any form


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 4),
    st.sampled_from(KINDS),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.2]),
)
def test_shapes(shape, count, kind, batch, noise):
    prior = random_prior(kind, count, shape)
    assert (prior.channels, prior.image_size) == (shape[0], shape[1:])
    x = torch.randn(batch, *shape)
    assert prior(x, 0.3).shape == x.shape
    assert prior.score(x, torch.full((batch,), 0.3)).shape == x.shape
    assert prior.log_density(x, 0.3).shape == prior.distribution.log_density(x).shape == (batch,)
    posterior = prior.posterior(x[0], Identity(), noise)
    assert posterior.mean.shape == posterior.variance.shape == shape
    assert posterior.covariance.shape == (math.prod(shape),) * 2
    assert posterior.sample(5).shape == (5, *shape)
    assert float(posterior.weights.sum()) == pytest.approx(1)


# ------------------------------------------------------------------------------------------- bad input


ONE = torch.zeros(2, 1, 1, 2)


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        (
            torch.ones(3),
            ONE,
            1.0,
            r"expected weights \(K,\) and means \(K, C, H, W\); got \(3,\) and \(2, 1, 1, 2\)",
        ),
        (torch.ones(2), ONE[0], 1.0, r"got \(2,\) and \(1, 1, 2\)"),
        (torch.ones(0), ONE[:0], 1.0, r"got \(0,\)"),
        (
            torch.ones(2),
            ONE,
            torch.ones(3),
            r"expected one variance, or covariances \(2,\), \(2, 2\) or \(2, 2, 2\)",
        ),
        (torch.ones(2), ONE, torch.ones(2, 3, 3), r"for 2 components of 2 pixels; got \(2, 3, 3\)"),
        (torch.tensor([1.0, -1.0]), ONE, 1.0, "weights must be at least 0"),
        (torch.zeros(2), ONE, 1.0, "not all 0"),
        (torch.tensor([1.0, math.nan]), ONE, 1.0, "weights must be finite"),
        (torch.ones(2), ONE / 0, 1.0, "means must be finite; 4 numbers are not"),
        (torch.ones(2), ONE, math.inf, "covariances must be finite"),
        (torch.ones(2), ONE, -1.0, "a variance is at least 0"),
        (torch.ones(2), ONE, torch.tensor([1.0, -0.1]), "a variance is at least 0"),
        (torch.ones(2), ONE, torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "must be symmetric"),
        (
            torch.ones(2),
            ONE,
            torch.tensor([[1.0, 2.0], [2.0, 1.0]]),
            "no negative eigenvalue; the least .* is -1",
        ),
        (torch.ones(2), ONE, torch.stack([torch.eye(2), -torch.eye(2)]), "no negative eigenvalue"),
    ],
)
def test_what_is_no_mixture_is_refused(weights, means, covariances, message):
    for make in (GaussianMixture, GaussianMixturePrior):
        with pytest.raises(ValueError, match=message):
            make(weights, means, covariances)


def test_states_and_measurements_that_do_not_fit_are_refused():
    prior = random_prior("shared")
    for call in (
        lambda x: prior(x, 0.5),
        lambda x: prior.log_density(x, 0.5),
        prior.distribution.log_density,
    ):
        with pytest.raises(ValueError, match=r"expected images of shape \(B, 2, 2, 2\), got \(1, 2, 2, 3\)"):
            call(torch.zeros(1, 2, 2, 3))
    y = torch.zeros(2, 2, 2)
    with pytest.raises(ValueError, match="measures 8 numbers of such an image, y has 4"):
        prior.posterior(y[0], Identity(), 0.1)
    for noise in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="noise is a standard deviation: finite and at least 0"):
            prior.posterior(y, Identity(), noise)
    with pytest.raises(ValueError, match="y must be finite"):
        prior.posterior(y / 0, Identity(), 0.1)
    with pytest.raises(TypeError, match="only a linear operator"):
        prior.posterior(y, JPEG(50), 0.1)
