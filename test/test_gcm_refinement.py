"""The hierarchical refinement of GCM on features made by hand, where the right answer of every level is known."""

import numpy as np
import pytest
import torch
from torch import nn

from loftr_ros.networks import gcm
from loftr_ros.networks.backbones import Backbone
from loftr_ros.networks.widened_refinement import refine_widened


class Given(Backbone):
    """Maps made before; `levels` are (H / stride, W / stride, C) by stride."""

    def __init__(self, levels):
        super().__init__()
        self.strides, self.maps = tuple(levels), list(levels.values())

    def forward(self, image, finest):
        return self.maps


class GivenFinest(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, image):
        return self.features


def distinct(height, width, seed, channels=64):
    """Return features (H, W, C) of length one; any two have a cosine well below one."""
    features = torch.randn(height, width, channels, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(features, dim=-1)


def pyramid(levels):
    """Make a pyramid from maps by stride, stride 1 first where there is an F_0."""
    finest, *rest = levels.items()
    height, width = (side * finest[0] for side in finest[1].shape[:2])
    if finest[0] == 1:
        return gcm.Pyramid(torch.zeros(1, 1, height, width), GivenFinest(finest[1].half()), Given(dict(rest)))
    return gcm.Pyramid(torch.zeros(1, 1, height, width), None, Given(levels))


def levels_of(strides, height, width, seed=0):
    return {s: distinct(height // s, width // s, seed + s) for s in strides}


def shifted(levels, dx):
    """Return what the levels become when the image moves to the right by dx pixels, a multiple of all strides."""
    return {stride: torch.roll(maps, dx // stride, dims=1) for stride, maps in levels.items()}


STRIDES = [(1, 2, 4, 8), (1, 2, 6, 12), (1, 4, 8), (1, 3, 12), (2, 4, 8), (4, 16)]


@pytest.mark.parametrize('strides', STRIDES)
def test_a_shift_by_whole_cells_is_found_at_every_place(strides):
    levels = levels_of(strides, 48, 96)
    dx = 3 * strides[-1]
    pyramid0, pyramid1 = pyramid(levels), pyramid(shifted(levels, dx))
    cells = gcm.match_coarsest(pyramid0, pyramid1)
    assert len(cells.index0) == 48 * 96 // strides[-1] ** 2
    found = gcm.refine(pyramid0, pyramid1, cells)
    assert len(found.index0) == 48 * 96 // strides[0] ** 2  # every place of the finest level, none lost on the way
    assert len(found.index0.unique()) == len(found.index0)
    x0, x1 = found.points0[:, 0], found.points1[:, 0]
    torch.testing.assert_close((x1 - x0) % 96, torch.full_like(x0, dx))
    assert torch.equal(found.points0[:, 1], found.points1[:, 1])
    # The first place is centred at the middle of its stride x stride pixels.
    assert found.points0.min() == (strides[0] - 1) / 2


@pytest.mark.parametrize('strides', [(1, 2, 4), (1, 2, 6), (1, 4, 8)])
def test_places_that_changed_seats_within_a_region_are_found_and_others_are_not(strides):
    """F_1 of image 1 has two children of each cell exchanged: matches must follow, and F_0 must stay inside them."""
    levels = levels_of(strides, 24, 24)
    other = {stride: maps.clone() for stride, maps in levels.items()}
    one, two = strides[:2]
    # Columns 0 and 1 of each F_2 cell change seats in F_1, and F_0 moves with its places.
    factor = strides[2] // two
    order = torch.arange(24 // two).view(-1, factor)
    order = torch.cat((order[:, 1:2], order[:, 0:1], order[:, 2:]), dim=1).flatten()
    other[two] = levels[two][:, order]
    pixels = (order[:, None] * two + torch.arange(two)).flatten()
    other[one] = levels[one][:, pixels]
    pyramid0, pyramid1 = pyramid(levels), pyramid(other)
    found = gcm.refine(pyramid0, pyramid1, gcm.match_coarsest(pyramid0, pyramid1))
    assert len(found.index0) == 24 * 24
    x0, x1 = found.points0[:, 0].long(), found.points1[:, 0].long()
    assert torch.equal(pixels[x1], x0)

    # Where only F_0 moves out of its F_1 place, its true partner is outside of the region that is opened.
    other[two] = levels[two]
    found = gcm.refine(pyramid0, pyramid(other), gcm.match_coarsest(pyramid0, pyramid(other)))
    place0, place1 = found.points0 // two, found.points1 // two
    assert torch.equal(place0, place1)


def test_a_match_that_is_only_one_way_is_dropped_at_its_level():
    levels = levels_of((1, 2, 4), 8, 8)
    other = {stride: maps.clone() for stride, maps in levels.items()}
    # In the first F_2 cell of image 1 all four F_1 places look like the first of image 0: only one of them is mutual,
    # and the other three of image 0 have no partner.
    other[2][:2, :2] = levels[2][0, 0]
    pyramid0, pyramid1 = pyramid(levels), pyramid(other)
    found = gcm.refine(pyramid0, pyramid1, gcm.match_coarsest(pyramid0, pyramid1))
    inside = (found.points0 < 4).all(1)
    assert (found.points0[~inside] == found.points1[~inside]).all() and (~inside).sum() == 8 * 8 - 16
    assert (found.points0[inside] < 2).all() and len(found.points0[inside]) <= 4


def angled(cosines):
    """Return rows of length one whose cosines with the first axis are these, in planes of their own."""
    rows = torch.zeros(len(cosines), 16)
    for i, cosine in enumerate(cosines):
        rows[i, 0], rows[i, i + 1] = cosine, (1 - cosine**2) ** 0.5
    return rows


def test_the_confidence_is_one_minus_the_worse_ratio_of_distances():
    """One F_1 place with four pixels; pixel 0 of image 0 has the cosines 0.9, 0.5, 0.2, 0.1 with those of image 1."""
    one = nn.functional.normalize(torch.ones(1, 1, 4), dim=-1)
    pixels1 = angled([0.9, 0.5, 0.2, 0.1])
    pixels0 = torch.zeros(4, 16)
    pixels0[0, 0] = 1
    pixels0[1:, 12:15] = torch.eye(3)  # at right angles to everything in image 1
    cells = gcm.Cells(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), torch.ones(1))
    pyramids = [pyramid({1: p.view(2, 2, 16), 2: one}) for p in (pixels0, pixels1)]
    found = gcm.refine(*pyramids, cells)
    pair = found.index0 == 0
    # Distances 0.1 and 0.5 in image 1, and 0.1 and 1 in image 0: the ratios are 0.2 and 0.1.
    assert found.confidence[pair].item() == pytest.approx(0.8, abs=2e-3)  # float16
    for ratio, kept in ((0.25, True), (0.15, False)):
        assert (0 in gcm.refine(*pyramids, cells, ratios=[1.0, ratio]).index0) is kept


def test_ratios_drop_what_is_repeated_at_the_level_they_belong_to():
    """DFM: two equal cells in F_2 are both ambiguous under a ratio at F_2, and pass without one."""
    levels = levels_of((1, 2, 4), 16, 16)
    levels[4][2, 2] = levels[4][0, 0]
    pyramid0 = pyramid(levels)
    cells = gcm.match_coarsest(pyramid0, pyramid0)
    assert len(gcm.refine(pyramid0, pyramid0, cells, [1.0, 1.0, 1.0]).index0) >= 15 * 16
    found = gcm.refine(pyramid0, pyramid0, cells, [0.9, 1.0, 1.0])
    assert len(found.index0) == 14 * 16
    assert not ((found.points0 // 4 == 0).all(1) | (found.points0 // 4 == 2).all(1)).any()


@pytest.mark.parametrize('strides', [(1, 2, 4, 8), (1, 2, 6, 12), (1, 4, 8), (2, 4, 8)])
def test_the_widened_refinement_finds_one_place_of_each_block(strides):
    levels = levels_of(strides, 48, 96)
    dx = 2 * strides[-1]
    pyramid0, pyramid1 = pyramid(levels), pyramid(shifted(levels, dx))
    found = refine_widened(pyramid0, pyramid1, gcm.match_coarsest(pyramid0, pyramid1))
    side = max(4, strides[1])
    blocks = found.points0 // side
    assert len(found.index0) == len(blocks.unique(dim=0)) == 48 * 96 // side**2
    residual = (found.points1 - found.points0 - torch.tensor([dx, 0]) + 48) % 96 - 48
    # A parabola through unrelated neighbours is only a guess between places: up to half a place.
    assert np.abs(residual.numpy()).max() <= 0.5 * strides[0]


def test_nothing_in_gives_nothing_out():
    levels = levels_of((1, 2, 4), 8, 8)
    pyramid0 = pyramid(levels)
    empty = torch.zeros(0, dtype=torch.long)
    cells = gcm.Cells(empty, empty, torch.zeros(0))
    for found in (gcm.refine(pyramid0, pyramid0, cells, [0.9] * 3), refine_widened(pyramid0, pyramid0, cells)):
        assert found.points0.shape == found.points1.shape == (0, 2) and len(found.confidence) == 0
