"""The fine stage of blocks on windows whose answer is known by construction."""

import pytest
import torch

from loftr_ros.errors import InputError
from loftr_ros.networks.block_refinement import BlockRefinement
from loftr_ros.networks.efficient_loftr import EfficientLoFTR
from loftr_ros.networks.two_stage_refinement import Windows, doubling_matrix, full_windows, half_windows

WINDOW, SUBPIXEL, CHANNELS = 8, 4, 20


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


def shifted_windows(count: int, shift_x: int, shift_y: int) -> Windows:
    """Return windows in which image 1 is image 0 moved by whole pixels at 1/2."""
    large = 8 * torch.randn(count, 12, 12, CHANNELS)
    window0 = large[:, 4:8, 4:8]
    window1 = large[:, 3 - shift_y : 9 - shift_y, 3 - shift_x : 9 - shift_x]
    return Windows(window0.flatten(1, 2), window1.flatten(1, 2))


@pytest.mark.parametrize('shift', [(0, 0), (1, 0), (-1, 2)])
def test_a_block_is_found_where_it_was_moved_to(shift):
    found = BlockRefinement(WINDOW, SUBPIXEL)(shifted_windows(50, *shift))
    inside = ((found.pixel0 + 2 * torch.tensor(shift) >= 0) & (found.pixel0 + 2 * torch.tensor(shift) < 8)).all(1)
    assert inside.all()  # a block whose partner is outside the window has no mutual nearest neighbour
    residual = found.pixel1 - found.pixel0 - 2 * torch.tensor(shift)
    # The largest of four upsampled pixels is at most half a pixel off, and the parabola of noise another quarter.
    assert residual.abs().max() < 0.75 and residual.mean(0).abs().max() < 0.1
    assert set((found.pixel0 % 2).flatten().tolist()) == {0.5}


def test_a_given_pixel_selects_its_block():
    windows = shifted_windows(3, 0, 0)
    free = BlockRefinement(WINDOW, SUBPIXEL)(windows)
    fixed = BlockRefinement(WINDOW, SUBPIXEL)(windows, torch.tensor([-1, 0, 3 * 8 + 5]))
    assert fixed.pixel0.tolist() == [free.pixel0[0].tolist(), [0.5, 0.5], [4.5, 2.5]]
    assert (fixed.pixel1 - fixed.pixel0).abs().max() < 0.75


def test_the_correlation_is_that_of_the_window_at_full_resolution():
    fused = torch.randn(1, CHANNELS, 12, 16)
    batch, cell = torch.zeros(1, dtype=torch.int64), torch.tensor([5])
    query = torch.randn(CHANNELS)
    at_half = half_windows(fused, WINDOW, batch, cell, margin=1) @ query
    weight = doubling_matrix(WINDOW, 0, fused)
    upsampled = weight @ at_half.view(6, 6) @ weight.T
    torch.testing.assert_close(upsampled.flatten(), (full_windows(fused, WINDOW, batch, cell, margin=0) @ query)[0])


def test_points_of_the_network_stay_the_same_blocks_when_they_are_kept():
    network = EfficientLoFTR((8, 8, 16, 32), (1, 1, 2), 1, 2, subpixel_channels=SUBPIXEL, refinement='block').eval()
    image = torch.rand(1, 1, 96, 128)
    with torch.no_grad():
        features0, features1 = network.extract(image), network.extract(image.roll(3, 3))
        found = network.match(features0, features1, threshold=0.0, border=0)
        ids = network.point_ids(features0, found)
        kept = network.match(network.keep_points(features0, ids), features1, threshold=0.0, border=0)
    assert len(ids) > 10
    assert torch.equal(network.point_ids(features0, kept), ids)
    torch.testing.assert_close(kept.keypoints0, found.keypoints0)


def test_the_name_of_the_refinement_is_checked():
    with pytest.raises(InputError, match="'two_stage' or 'block', got 'blocks'"):
        EfficientLoFTR(refinement='blocks')
