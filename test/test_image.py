"""Resizing and padding move pixels by the half-pixel rule, and the conversion back is exact."""

import numpy as np
import pytest

from loftr_ros.errors import InputError
from loftr_ros.image import pad_to_multiple, prepare, scale_points, to_colour, to_grey


def test_halving_an_image_puts_a_pixel_between_the_four_it_averages():
    assert scale_points([[0, 0], [1, 2]], (2, 2)).tolist() == [[0.5, 0.5], [2.5, 4.5]]


def test_corners_of_the_image_stay_corners():
    # The outline of a 1226x370 image is (-0.5, -0.5) .. (1225.5, 369.5) whatever its resolution.
    prepared = prepare(np.zeros((370, 1226), np.uint8), resize_max=1024, multiple=16)
    outline = [[-0.5, -0.5], [prepared.width - 0.5, prepared.height - 0.5]]
    np.testing.assert_allclose(prepared.to_original(np.array(outline)), [[-0.5, -0.5], [1225.5, 369.5]])


@pytest.mark.parametrize('size', [(480, 640), (1200, 900), (333, 1021)])
def test_a_bright_blob_is_found_where_it_was(size):
    height, width = size
    y, x = np.mgrid[:height, :width]
    true = np.array([0.62 * width, 0.37 * height])
    image = (255 * np.exp(-((x - true[0]) ** 2 + (y - true[1]) ** 2) / (2 * 12**2))).astype(np.uint8)
    prepared = prepare(image, resize_max=320, multiple=32)
    weight = prepared.pixels.astype(np.float64)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    centroid = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    # 8-bit rounding moves the centroid by some hundredths; a forgotten half pixel by half the scale, 0.5 px and more.
    np.testing.assert_allclose(prepared.to_original(centroid[None])[0], true, atol=0.1)


@pytest.mark.parametrize('size', [(1, 1), (7, 5), (480, 640), (3, 2000), (2000, 3)])
@pytest.mark.parametrize('multiple', [1, 8, 32])
def test_sides_become_multiples_and_the_longer_side_at_most_resize_max(size, multiple):
    prepared = prepare(np.zeros(size, np.uint8), resize_max=640, multiple=multiple)
    assert max(prepared.width, prepared.height) <= 640
    assert all(side % multiple == 0 and side > 0 for side in prepared.pixels.shape)
    assert (prepared.original_height, prepared.original_width) == size


def test_a_small_image_is_never_enlarged():
    prepared = prepare(np.zeros((100, 200), np.uint8), resize_max=640)
    assert prepared.scale == (1.0, 1.0) and prepared.pixels.shape == (100, 200)


def test_resize_max_zero_keeps_the_size():
    assert prepare(np.zeros((1000, 2000), np.uint8), resize_max=0).pixels.shape == (1000, 2000)


def test_padding_repeats_the_border_on_the_right_and_below():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert pad_to_multiple(image, 4).tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]


def test_colour_is_blue_first():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255
    assert to_grey(red)[0, 0] == 76  # 0.299 * 255, the weight of red
    assert prepare(red, grey=False).pixels[0, 0].tolist() == [0, 0, 255]
    assert to_colour(np.full((4, 4), 9, np.uint8))[0, 0].tolist() == [9, 9, 9]


def test_an_image_of_another_type_is_refused():
    with pytest.raises(InputError, match='must be uint8'):
        prepare(np.zeros((4, 4), np.float32))
