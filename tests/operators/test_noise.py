import pytest
import torch

from operators import GaussianNoise, PoissonNoise


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("std", [0.3, torch.tensor([0.1, 0.5, 2.0])], ids=["number", "per-image"])
def test_gaussian_likelihood(std):
    y, clean = draw(3, 2, 4, 5), draw(3, 2, 4, 5, seed=1)
    column = torch.as_tensor(std, dtype=torch.float64).reshape(-1, 1, 1, 1)
    expected = torch.distributions.Normal(clean, column.expand(3, 1, 1, 1)).log_prob(y).sum((1, 2, 3))
    result = GaussianNoise(std).double().log_likelihood(y, clean)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("peak", [30.0, torch.tensor([1.0, 10.0, 1000.0])], ids=["number", "per-image"])
def test_poisson_likelihood(peak):
    noise = PoissonNoise(peak).double()
    clean = draw(3, 2, 4, 5)
    y = noise.sample(clean, torch.Generator().manual_seed(0))
    column = torch.as_tensor(peak, dtype=torch.float64).reshape(-1, 1, 1, 1)
    torch.testing.assert_close((y * column).round(), y * column)
    expected = torch.distributions.Poisson(clean * column).log_prob((y * column).round()).sum((1, 2, 3))
    torch.testing.assert_close(noise.log_likelihood(y, clean), expected)


@pytest.mark.parametrize("noise", [GaussianNoise(0.3).double(), PoissonNoise(50.0).double()], ids=repr)
def test_gradient_is_right(noise):
    y = noise.sample(draw(2, 1, 3, 4), torch.Generator().manual_seed(0))
    clean = draw(2, 1, 3, 4, seed=1) + 0.1
    assert torch.autograd.gradcheck(lambda c: noise.log_likelihood(y, c), clean.requires_grad_())


def test_poisson_below_zero_pulls_up():
    clean = torch.tensor([[-0.1, 0.0, 1e-9]], requires_grad=True)
    likelihood = PoissonNoise(10.0).log_likelihood(torch.full((1, 3), 0.5), clean)
    likelihood.sum().backward()
    assert likelihood.isfinite().all()
    assert (clean.grad > 0).all()


def test_gaussian_samples():
    clean = torch.full((3, 1, 200, 200), 0.5)
    noisy = (
        GaussianNoise(torch.tensor([0.0, 0.1, 2.0])).sample(clean, torch.Generator().manual_seed(0)) - clean
    )
    torch.testing.assert_close(noisy.flatten(1).std(1), torch.tensor([0.0, 0.1, 2.0]), rtol=0.02, atol=0)
    assert noisy.flatten(1).mean(1).abs().max() < 0.03
    assert noisy[0].abs().max() == 0


def test_poisson_samples():
    clean = torch.full((2, 1, 200, 200), 0.5)
    noise = PoissonNoise(torch.tensor([10.0, 1000.0]))
    noisy = noise.sample(clean, torch.Generator().manual_seed(0)).flatten(1)
    torch.testing.assert_close(noisy.mean(1), torch.tensor([0.5, 0.5]), rtol=0.02, atol=0)
    torch.testing.assert_close(noisy.var(1), 0.5 / torch.tensor([10.0, 1000.0]), rtol=0.05, atol=0)
    assert noise.sample(-clean).abs().max() == 0


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), PoissonNoise(20.0)], ids=repr)
def test_generators(noise):
    clean = torch.full((3, 2, 5, 4), 0.5)

    def generators(*seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]

    together = noise.sample(clean, generators(5, 6, 7))
    torch.testing.assert_close(noise.sample(clean[:1], generators(6)), together[1:2], rtol=0, atol=0)
    one, same = (noise.sample(clean, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(one, same)
    with pytest.raises(ValueError, match="2 generators for 3 images"):
        noise.sample(clean, generators(1, 2))


def test_select():
    noise = GaussianNoise(torch.tensor([0.1, 0.5]))
    assert noise.batch_size == 2
    assert noise.select(torch.tensor([1])).std.tolist() == [0.5]
    with pytest.raises(ValueError, match=r"for 2 images, but got 3.*select"):
        noise.sample(torch.ones(3, 1, 2, 2))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: GaussianNoise(-0.1), "std is a standard deviation, not negative.*got -0.1"),
        (lambda: GaussianNoise(float("nan")), "std has NaN"),
        (lambda: GaussianNoise(torch.ones(2, 2)), r"one per image, \(B,\)"),
        (lambda: PoissonNoise(0.0), "peak is a number of photons, above 0"),
        (
            lambda: GaussianNoise(0.0).log_likelihood(torch.ones(1, 2), torch.ones(1, 2)),
            "there is no likelihood",
        ),
        (lambda: GaussianNoise(1.0).log_likelihood(torch.ones(1, 2), torch.ones(1, 3)), "same shape"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(ValueError, match=match):
        make()
