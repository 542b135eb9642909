import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from operators import JPEG, Clip, FromCallable, Gamma, LinearOperator, Mask, PhaseRetrieval, Saturation


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def photo():
    return torch.from_numpy(data.astronaut()[:67, 100:181]).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(
    "operator",
    [
        Clip(0.2, 0.7),
        Saturation(2.0),
        Saturation(2.0, centre=0.5),
        Gamma(0.45),
        Gamma(2.2),
        PhaseRetrieval(1.5),
    ],
    ids=repr,
)
def test_gradients_and_shapes(operator):
    x = draw(2, 3, 5, 4)
    assert torch.autograd.gradcheck(operator, x.clone().requires_grad_(), fast_mode=True, atol=1e-5)
    shape = operator.measurement_shape((3, 5, 4))
    assert tuple(operator(x).shape[1:]) == shape
    assert operator.image_shape(shape) == (3, 5, 4)
    assert not operator.linear
    assert not operator.has_svd
    torch.testing.assert_close(operator(x)[1:], operator(x[1:]))
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
        operator(x[0])


class TestFromCallable:
    def test_nonlinear(self):
        operator = FromCallable(torch.square)
        x = draw(1, 1, 2, 3)
        torch.testing.assert_close(operator(x), x**2)
        assert not isinstance(operator, LinearOperator)
        assert not (Mask(torch.ones(2, 3)) @ operator).linear

    def test_linear(self):
        operator = FromCallable(lambda x: x.cumsum(-1), linear=True)
        assert isinstance(operator, LinearOperator)
        assert isinstance(operator, FromCallable)
        x = draw(2, 1, 3, 5)
        torch.testing.assert_close(operator.pinv(operator(x)), x, rtol=0, atol=1e-8)

    def test_shape_of_a_fixed_image(self):
        operator = FromCallable(lambda x: x.flatten(1)[:, ::3], image_shape=(1, 4, 6), linear=True)
        y = operator(draw(2, 1, 4, 6))
        assert operator.measurement_shape((1, 4, 6)) == (8,)
        assert operator.adjoint(y).shape == (2, 1, 4, 6)
        assert operator.pinv(y).shape == (2, 1, 4, 6)
        with pytest.raises(ValueError, match=r"shape \(1, 4, 6\); got \(1, 6, 4\)"):
            operator(draw(2, 1, 6, 4))

    def test_a_module_moves_along(self):
        operator = FromCallable(torch.nn.Conv2d(3, 2, 1, bias=False)).double()
        assert operator(draw(1, 3, 4, 4)).dtype == torch.float64

    def test_select(self):
        assert FromCallable(torch.square).select(torch.tensor([0]))(draw(1, 1, 2, 2)).shape == (1, 1, 2, 2)

    def test_refusals(self):
        with pytest.raises(TypeError, match="takes a function of images; got Tensor"):
            FromCallable(torch.ones(2))
        with pytest.raises(ValueError, match=r"image_shape should be \(C, H, W\)"):
            FromCallable(torch.square, image_shape=(4, 4))


class TestJPEG:
    def test_simulate_is_a_real_codec(self):
        x = photo()
        array = (x[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(array).save(file, "JPEG", quality=30, subsampling=2)
        expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
        torch.testing.assert_close(JPEG(30).simulate(x)[0], expected)

    @pytest.mark.parametrize("quality", [10, 50, 90])
    def test_the_imitation_is_near(self, quality):
        """Nearer to the codec's output than the codec's output is to the picture."""
        x, operator = photo(), JPEG(quality)
        real, imitation = operator.simulate(x), operator(x)
        assert (imitation - real).square().mean() < 0.5 * (real - x).square().mean()

    def test_grey(self):
        x, operator = photo()[:, :1], JPEG(50)
        assert operator(x).shape == operator.simulate(x).shape == x.shape
        assert (operator(x) - operator.simulate(x)).abs().mean() < 0.01

    def test_quality_per_image(self):
        x, operator = photo().repeat(2, 1, 1, 1), JPEG([10, 95])
        assert operator.batch_size == 2
        for y in (operator(x), operator.simulate(x)):
            errors = (y - x).square().flatten(1).mean(1)
            assert errors[0] > 3 * errors[1]
        low = torch.tensor([0])
        torch.testing.assert_close(operator.select(low)(x[:1]), operator(x)[:1], rtol=0, atol=1e-5)

    def test_gradient(self):
        x = photo().requires_grad_()
        target = JPEG(50).simulate(photo())
        (JPEG(50)(x) - target).square().sum().backward()
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0

    def test_refusals(self):
        with pytest.raises(ValueError, match="quality should be from 1 to 100; got"):
            JPEG(0)
        with pytest.raises(ValueError, match=r"\(3, H, W\)"):
            JPEG(50)(torch.rand(1, 2, 16, 16))


class TestCurves:
    def test_saturation(self):
        x = torch.tensor([[[[0.0, 0.25, 0.6, 1.0]]]])
        torch.testing.assert_close(Saturation(2.0)(x), torch.tensor([[[[0.0, 0.5, 1.0, 1.0]]]]))
        # About mid-grey, as the papers' clip(2 x, -1, 1) of images in [-1, 1].
        papers = ((2 * (2 * x - 1)).clamp(-1, 1) + 1) / 2
        torch.testing.assert_close(Saturation(2.0, centre=0.5)(x), papers)

    @pytest.mark.parametrize("gamma", [1 / 2.2, 2.2])
    def test_gamma(self, gamma):
        levels = torch.arange(256.0).reshape(1, 1, 16, 16) / 255
        torch.testing.assert_close(Gamma(gamma)(levels), levels**gamma)
        x = torch.tensor([[[[-0.5, 0.0, 1e-12, 1e-4]]]], requires_grad=True)
        y = Gamma(gamma)(x)
        y.sum().backward()
        assert y.isfinite().all()
        assert x.grad.isfinite().all()
        assert (x.grad > 0).all()

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: Clip(1.0, 0.0), "low should be below high"),
            (lambda: Saturation(0.0), "scale should be above 0"),
            (lambda: Gamma(-1.0), "gamma should be above 0"),
            (lambda: PhaseRetrieval(0.5), "at least 1"),
        ],
    )
    def test_refusals(self, make, match):
        with pytest.raises(ValueError, match=match):
            make()


class TestPhaseRetrieval:
    def test_known_ambiguities(self):
        x, operator = draw(1, 1, 6, 5), PhaseRetrieval(2.0)
        torch.testing.assert_close(operator(x.flip(-2, -1)), operator(x))
        assert (operator(x.flip(-1)) - operator(x)).abs().max() > 0.01

    def test_energy(self):
        """The FFT is orthonormal: sum |F|^2 = sum x^2."""
        x = draw(1, 1, 6, 5)
        torch.testing.assert_close(PhaseRetrieval(2.0)(x).square().sum(), x.square().sum())

    @pytest.mark.parametrize("oversample", [1.0, 1.1, 1.3, 1.5, 2.0, 3.7])
    def test_shapes_come_back(self, oversample):
        operator = PhaseRetrieval(oversample)
        for n in range(1, 60):
            assert operator.image_shape(operator.measurement_shape((3, n, n + 1))) == (3, n, n + 1)
