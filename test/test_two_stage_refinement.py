"""The two stages of refinement of Efficient LoFTR on windows whose answer is known by construction."""

import math

import pytest
import torch

from loftr_ros.networks.two_stage_refinement import TwoStageRefinement, Windows


def refinement(offset=0, temperature=1.0):
    return TwoStageRefinement(window=4, subpixel_channels=1, temperature=temperature, subpixel_offset=offset)


def windows_with(pixel0, pixel1, heat):
    """Return Windows of one match whose pixels alone agree, the numbers of the 4 x 4 and of the widened 6 x 6 window.

    `heat` {(y, x) in the widened window: similarity of stage 2}.
    """
    window0, window1 = torch.zeros(1, 16, 3), torch.zeros(1, 36, 3)
    window0[0, pixel0, 0] = window1[0, pixel1, 0] = 10.0
    window0[..., -1] = 1.0
    for (y, x), similarity in heat.items():
        window1[0, y * 6 + x, -1] = similarity
    return Windows(window0, window1)


def test_stage_1_finds_the_pixels_and_stage_2_half_a_pixel_with_its_spread():
    # Pixel (y 1, x 2) of the cell is (2, 3) of the widened window; it and its right neighbour are equally hot.
    result = refinement()(windows_with(pixel0=3 * 4 + 1, pixel1=2 * 6 + 3, heat={(2, 3): 50.0, (2, 4): 50.0}))
    assert result.pixel0.tolist() == [[1.0, 3.0]]
    torch.testing.assert_close(result.pixel1, torch.tensor([[2.5, 1.0]]))
    torch.testing.assert_close(result.sigma, torch.tensor([math.sqrt(0.25 / 2)]))  # var_x = 1 / 4, var_y = 0


def test_a_flat_heat_map_gives_no_offset_and_the_largest_sigma():
    result = refinement()(windows_with(pixel0=5, pixel1=2 * 6 + 3, heat={}))
    torch.testing.assert_close(result.pixel1, torch.tensor([[2.0, 1.0]]))
    torch.testing.assert_close(result.sigma, torch.tensor([math.sqrt(2 / 3)]))


@pytest.mark.parametrize('pixel1, hottest', [((2, 3), (1, 2)), ((1, 1), (0, 0)), ((1, 4), (0, 3))])
def test_the_official_heat_map_lies_one_pixel_up_and_left(pixel1, hottest):
    windows = windows_with(pixel0=5, pixel1=pixel1[0] * 6 + pixel1[1], heat={hottest: 50.0})
    result = refinement(offset=-1)(windows)
    torch.testing.assert_close(result.pixel1, torch.tensor([[pixel1[1] - 1.0, pixel1[0] - 1.0]]))


def test_stage_1_may_not_choose_the_margin_but_the_margin_competes():
    windows = windows_with(pixel0=5, pixel1=0, heat={})  # the right pixel is in the margin
    windows.window0[0, 6, 1] = windows.window1[0, 3 * 6 + 3, 1] = 5.0  # a weaker pair inside
    result = refinement()(windows)
    assert result.pixel0.tolist() == [[2.0, 1.0]] and result.pixel1.tolist() == [[2.0, 2.0]]
