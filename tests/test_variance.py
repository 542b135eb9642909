"""The learned variance of guided-diffusion's networks, from the formula to the steps of a run."""

import math

import pytest
import torch
from torch import nn
from toys import problem_for

import restore
from operators import Mask
from restore import Prior, Schedule
from restore.benchmark.contenders import CountedPrior
from restore.methods import DPS, TDS, RePaint
from restore.samplers import DDIM, DDPM
from restore.variance import KeepsVariance, of_step, offers_variance


class Wavy(nn.Module):
    """Predicts some noise, and a variance that differs from pixel to pixel; counts its calls."""

    in_channels, out_channels = 2, 4

    def __init__(self):
        super().__init__()
        self.calls = []
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x, step):
        self.calls.append(len(x))
        share = torch.sin(3 * x + step.reshape(-1, 1, 1, 1) / 100)
        return torch.cat([self.scale * torch.tanh(x), share], dim=1)


class GaussianNetwork(nn.Module):
    """The exact estimate and the exact variance of every one of N steps, for pixels of variance ``spread``."""

    in_channels, out_channels = 1, 2

    def __init__(self, schedule, steps, spread):
        super().__init__()
        self.schedule, self.length, self.spread = schedule, 1 / steps, spread
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, step):
        t = (float(step[0]) + 1) / self.schedule.steps
        s = max(0.0, round((t - self.length) * 1000) / 1000)
        (alpha, sigma), (before, noise) = self.schedule(t), self.schedule(s)
        eps = sigma * x / (alpha**2 * self.spread + sigma**2)
        if s == 0:
            return torch.cat([eps, eps], dim=1)  # The last step has no noise.
        now, then = alpha**2 * self.spread + sigma**2, before**2 * self.spread + noise**2
        exact = then - (alpha / before) ** 2 * then**2 / now  # Var[x_s | x_t] of two jointly Gaussian numbers
        beta = sigma**2 - (alpha / before) ** 2 * noise**2
        rest = beta * noise**2 / sigma**2
        assert rest < exact < beta
        share = math.log(exact / rest) / math.log(beta / rest)
        return torch.cat([eps, torch.full_like(eps, 2 * share - 1)], dim=1)


def wavy(schedule=None):
    return Prior(Wavy(), schedule or Schedule.linear(), config={"name": "wavy"})


def state(size=(6, 6), batch=2, seed=0):
    return torch.randn(batch, 2, *size, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize("number", [1000, 250, 20])
@pytest.mark.parametrize("kind", ["learned", "small", "large"])
def test_steps_are_those_of_diffusers(kind, number):
    """diffusers' scheduler is the reference, for the trained steps and for fewer, longer ones."""
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(
        variance_type={"learned": "learned_range", "small": "fixed_small", "large": "fixed_large"}[kind],
        clip_sample=False,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(number)
    prior, x = wavy(), state()
    sampler, keeping = DDPM(kind).attach(prior)
    for step in (999, 999 - 1000 // number, 1000 // number * 2 - 1):
        t, s = (step + 1) / 1000, (step + 1) / 1000 - 1 / number
        mean, std = sampler.kernel(x, keeping(x, t), t, s, prior.schedule)
        output = prior.network(x, torch.full((2,), float(step)))
        torch.manual_seed(0)
        expected = theirs.step(output if kind == "learned" else output[:, :2], step, x).prev_sample
        torch.manual_seed(0)
        noise = torch.randn(2, 2, 6, 6)
        torch.testing.assert_close(mean + std * noise, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [2, 5, 40])
def test_the_exact_variance_gives_the_exact_moments(steps):
    """With it, draws of a Gaussian have its variance after any number of steps; with a fixed one they do not."""
    schedule, spread = Schedule.linear(), 0.25
    prior = Prior(GaussianNetwork(schedule, steps, spread), schedule)

    def last_but_one(variance):
        kept = {}
        restore.sample(
            prior,
            (1, 1, 160, 160),
            steps=steps,
            sampler=DDPM(variance),
            seed=0,
            progress=False,
            callback=lambda event: kept.update({event.s: event.x}) if event.s > 0 else None,
        )
        t = min(kept)
        alpha, sigma = schedule(t)
        return float(kept[t].var()) / (alpha**2 * spread + sigma**2)

    assert last_but_one("learned") == pytest.approx(1, abs=0.03)
    assert last_but_one(None) == last_but_one("learned")
    if steps == 5:
        assert last_but_one("small") < 0.9
        assert last_but_one("large") > 1.05


def test_it_lies_between_the_two_of_ddpm():
    schedule = Schedule.cosine(50)
    for t, s in [(1.0, 0.5), (0.5, 0.48), (0.3, 0.0), (0.02, 0.0), (0.9, 0.0)]:
        small, middle, large = (
            float(of_step(torch.full((1, 1, 1, 1), v), schedule, t, s)) for v in (-1.0, 0.0, 1.0)
        )
        assert 0 < small <= middle <= large <= 1 + 1e-6
        assert middle == pytest.approx(math.sqrt(small * large), rel=1e-4)


def test_one_step_from_noise_to_the_image_has_no_variance():
    with pytest.raises(ValueError, match="one step from time 1 to 0 has no step before it"):
        wavy(Schedule.linear(1)).variance(state(), 1.0)
    x = restore.sample(wavy(), (1, 2, 4, 4), steps=1, sampler="ddpm", seed=0, progress=False)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize(("t", "s"), [(0.5, 0.5), (0.2, 0.4), (0.0, 0.0), (0.5, -0.1)])
def test_a_step_that_does_not_go_down_is_refused(t, s):
    with pytest.raises(ValueError, match=f"a step goes from a time t above 0 down to s.* got t={t}, s={s}"):
        wavy().variance(state(), t, s)


def test_on_a_picture_of_any_size_it_belongs_to_its_pixels():
    """Padding and tiles treat the variance as they treat the estimate."""
    whole = Prior(Wavy(), Schedule.linear(), multiple=2, tile=64, overlap=4)
    tiles = Prior(Wavy(), Schedule.linear(), multiple=2, tile=16, overlap=4)
    x = state((33, 27))
    torch.testing.assert_close(whole.variance(x, 0.5), tiles.variance(x, 0.5))
    assert whole.variance(x, 0.5).shape == x.shape
    estimate, _ = tiles.with_variance(x, 0.5)
    torch.testing.assert_close(estimate, tiles(x, 0.5))


# ------------------------------------------------------------------------------------------- the runs


def test_a_step_makes_one_call():
    prior = wavy()
    restore.sample(prior, (2, 2, 8, 8), steps=7, sampler="ddpm", seed=0, progress=False)
    assert prior.network.calls == [2] * 7


def test_it_is_the_state_at_hand_that_is_asked_for():
    """What is kept is for one state and time; for another one the network is called."""
    prior = wavy()
    keeping = KeepsVariance(prior)
    x, other = state(seed=1), state(seed=2)
    keeping(x, 0.5)
    assert torch.equal(keeping.variance(x, 0.5, 0.4), prior.variance(x, 0.5, 0.4))
    calls = len(prior.network.calls)
    torch.testing.assert_close(keeping.variance(other, 0.5, 0.4), prior.variance(other, 0.5, 0.4))
    torch.testing.assert_close(keeping.variance(other, 0.6, 0.4), prior.variance(other, 0.6, 0.4))
    assert len(prior.network.calls) == calls + 4
    assert torch.equal(keeping.variance(other, 0.6, 0.2), prior.variance(other, 0.6, 0.2))
    assert len(prior.network.calls) == calls + 5


@pytest.mark.parametrize("method", [DPS(zeta=0.5), RePaint(jump=2, resamplings=2), DPS()], ids=repr)
def test_the_papers_methods_take_it(method):
    """DPS's and RePaint's published code runs such checkpoints with the learned variance."""
    prior, mask = wavy(), Mask(torch.arange(36).reshape(1, 6, 6) % 3 > 0)
    y = mask(0.3 * state() + 0.5)

    def run(sampler):
        return restore.solve(y, mask, method, prior=prior, steps=12, sampler=sampler, seed=0, progress=False)

    learned, small = run(DDPM("learned")), run(DDPM("small"))
    assert not torch.equal(learned, small)
    assert torch.isfinite(learned).all()
    own = run(None)
    assert torch.equal(own, learned) == (method != DPS())  # DPS without zeta goes by DDIM.


def test_images_do_not_depend_on_their_batch():
    prior = wavy()
    many, few = (
        restore.sample(prior, (n, 2, 6, 6), steps=4, sampler="ddpm", seed=1, progress=False) for n in (3, 2)
    )
    torch.testing.assert_close(many[:2], few)


def test_methods_with_steps_of_their_own_are_left_alone():
    prior, problem = wavy(), None
    run = restore.methods.DDNM().bind(prior, problem, None, 3)
    assert run.prior is prior


def test_calls_with_the_variance_are_counted():
    prior = CountedPrior.of(wavy())
    restore.sample(prior, (2, 2, 8, 8), steps=5, sampler="ddpm", seed=0, progress=False)
    assert prior.calls == 10


def test_an_estimate_of_ones_own_is_the_one_that_is_called():
    """A subclass of Prior that changes the estimate is not passed by; with both of its own it has the variance."""

    class Halved(Prior):
        def __call__(self, x_t, t):
            return super().__call__(x_t, t) / 2

    class Both(Halved):
        def with_variance(self, x_t, t):
            x_hat, variance = super().with_variance(x_t, t)
            return x_hat / 2, variance

    halved, both = (kind(Wavy(), Schedule.linear()) for kind in (Halved, Both))
    assert not offers_variance(halved)
    assert offers_variance(both)
    assert DDPM().attach(halved)[1] is halved
    _, keeping = DDPM().attach(both)
    torch.testing.assert_close(keeping(state(), 0.5), both(state(), 0.5))


def test_a_sampler_of_ones_own_stays_what_it_is():
    class Louder(DDPM):
        def kernel(self, x_t, x_hat, t, s, schedule):
            mean, std = super().kernel(x_t, x_hat, t, s, schedule)
            return mean, 2 * std

    prior = wavy()
    attached, _ = Louder().attach(prior)
    assert isinstance(attached, Louder)
    _, std = attached.kernel(state(), state(), 0.5, 0.4, prior.schedule)
    torch.testing.assert_close(std, 2 * prior.variance(state(), 0.5, 0.4).sqrt())


def test_a_variance_in_another_form_is_not_misread(tmp_path):
    """diffusers' "learned" is the logarithm itself."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    for kind, offered in (("learned_range", True), ("learned", False)):
        network = UNet2DModel(
            sample_size=8,
            out_channels=6,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            add_attention=False,
        )
        DDPMPipeline(network, DDPMScheduler(variance_type=kind)).save_pretrained(tmp_path / kind)
        prior = restore.load_prior(tmp_path / kind)
        assert offers_variance(prior) == offered
        again = restore.load_prior(prior.save(tmp_path / "again" / kind))
        assert offers_variance(again) == offered
        x = restore.sample(again, (1, 3, 8, 8), steps=2, sampler="ddpm", seed=0, progress=False)
        assert torch.isfinite(x).all()


# ------------------------------------------------------------------------------------------- refusals


def test_a_variance_that_was_not_learned_is_refused_before_the_first_call():
    prior = restore.load_prior("photo")
    with pytest.raises(ValueError, match=r"DDPM\(variance='learned'\): 'photo' predicts no variance; take"):
        restore.sample(prior, (1, 3, 8, 8), sampler=DDPM("learned"), progress=False)
    with pytest.raises(ValueError, match="must be 'small', 'large', 'learned' or None, not 'big'"):
        DDPM("big")


def test_tds_weighs_with_one_deviation():
    prior, mask = wavy(), Mask(torch.arange(16).reshape(1, 4, 4) < 2)
    y = mask(state((4, 4), batch=1) / 4 + 0.5)

    def run(sampler):
        method = TDS(particles=3)
        return restore.solve(
            y, mask, method, noise=0.1, prior=prior, steps=3, sampler=sampler, seed=0, progress=False
        )

    assert torch.equal(run(DDPM()), run(DDPM("small")))
    assert not isinstance(
        TDS().bind(prior, problem_for(y[0], mask, 64, (2, 4, 4)), DDPM(), 3).guide.prior, KeepsVariance
    )
    with pytest.raises(ValueError, match="tds weighs draws by densities of one deviation"):
        run(DDPM("learned"))


def test_the_small_variance_is_ddims():
    x, x_hat = state(), state(seed=1) / 2
    for t, s in [(1.0, 0.7), (0.5, 0.1), (0.2, 0.0)]:
        one, two = (z.kernel(x, x_hat, t, s, Schedule.linear()) for z in (DDPM("small"), DDIM(1.0)))
        assert torch.equal(one[0], two[0])
        assert one[1] == two[1]
