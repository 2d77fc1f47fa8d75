"""Augmentation beyond warp and colour: the band filters, corruption, DiffAugment, all eighteen transforms in parts."""

from __future__ import annotations

import pytest
import torch

from stylegan.training.augment import Augment
from stylegan.training.blur import blurred
from stylegan.training.filters import DiffAugment, band_filters, cut_out, draw_band_gains, filter_bands

PIPES = ("b", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc")


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bands_add_up_to_doing_nothing_and_are_symmetric():
    bank = band_filters()
    delta = torch.zeros(bank.shape[1])
    delta[bank.shape[1] // 2] = 1
    torch.testing.assert_close(bank.sum(dim=0), delta, atol=1e-6, rtol=0)
    torch.testing.assert_close(bank, bank.flip(1), atol=1e-6, rtol=0)


def test_bands_lie_in_rising_octaves():
    response = torch.fft.rfft(band_filters(), n=512).abs().square()  # [4, 257]
    places = torch.linspace(0, 1, 257)
    centres = (response * places).sum(dim=1) / response.sum(dim=1)
    assert bool((centres[1:] > 1.5 * centres[:-1]).all())
    assert response[0].argmax() == 0 and float(response[3, -1]) > 0.99


def test_filtering_with_gains_of_one_is_nothing_and_a_grey_picture_only_follows_the_lowest_band():
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(filter_bands(images, torch.ones(3, 4)), images, atol=1e-5, rtol=0)
    grey = torch.full((1, 3, 64, 64), 0.5)
    changed = filter_bands(grey, torch.tensor([[1.0, 3.0, 0.2, 5.0]]))
    torch.testing.assert_close(changed, grey, atol=1e-4, rtol=0)
    assert float((filter_bands(images, torch.tensor([[1.0, 1, 1, 4]] * 3)) - images).abs().max()) > 0.1


def test_band_gains_keep_the_expected_power():
    gains = draw_band_gains(2000, 1.0, source())
    power = (torch.tensor([10.0, 1, 1, 1]) / 13 * gains.square()).sum(dim=1)
    assert 0.5 < float(power.median()) < 2 and float(gains.std()) > 0.3
    assert torch.equal(draw_band_gains(5, 0.0, source()), torch.ones(5, 4))


def test_cutout_covers_a_quarter_at_most_and_only_where_it_hits():
    images = torch.ones(3, 1, 16, 16)
    centres = torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]])
    covered = 1 - cut_out(images, centres, 0.5, torch.tensor([True, True, False])).mean(dim=(1, 2, 3))
    torch.testing.assert_close(covered, torch.tensor([0.25, 1 / 16, 0.0]))


@pytest.mark.parametrize("pipe", PIPES)
def test_every_group_changes_pictures_and_gradients_pass_twice(pipe):
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    shorter = PIPES[PIPES.index(pipe) - 1] if pipe != "b" else ""
    moved = Augment(1.0, pipe)(images, source())
    assert moved.shape == images.shape
    assert not torch.equal(moved, images if not shorter else Augment(1.0, shorter)(images, source()))
    (gradient,) = torch.autograd.grad((moved.square()).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert torch.isfinite(images.grad).all() and float(images.grad.abs().sum()) > 0


@pytest.mark.parametrize("augment", [Augment(0.6, "bgcfnc"), Augment(0.6), DiffAugment()])
def test_a_part_of_a_batch_is_treated_as_in_the_whole(augment):
    images = torch.rand(6, 3, 16, 16)
    whole = augment(images, source())
    for start in (0, 1):
        rows = slice(start, None, 2)
        torch.testing.assert_close(augment(images[rows], source(), 6, rows), whole[rows])


def test_twelve_transforms_by_default_leave_no_extra_pass():
    images, hit = torch.rand(2, 3, 16, 16), Augment(0.8)
    assert hit.transforms == "bgc"
    assert torch.equal(hit(images, source(3)), Augment(0.8, "bgc")(images, source(3)))


def test_diffaugment_always_acts_and_can_be_differentiated_twice():
    images = (torch.rand(8, 3, 16, 16) * 2 - 1).requires_grad_(True)
    seen = DiffAugment()(images, source())
    assert bool((seen != images).flatten(1).any(dim=1).all())
    assert float((seen == 0).float().mean()) > 0.1  # the boxes
    (gradient,) = torch.autograd.grad((seen**2).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert torch.isfinite(images.grad).all()


def test_blur_keeps_the_mean_and_fades_to_nothing():
    images = torch.zeros(1, 1, 33, 33)
    images[..., 16, 16] = 1
    soft = blurred(images, 3.0)
    assert float(soft.sum()) == pytest.approx(1, abs=1e-4) and float(soft.max()) < 0.05 and soft.shape == images.shape
    assert blurred(images, 0.0) is images
