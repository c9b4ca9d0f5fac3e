"""Conversion of 16-bit images to 8 bits: grey values are kept, the range is steady, and depth is refused."""

import cv2
import numpy as np
import pytest

from loftr_ros.errors import InputError
from loftr_ros.image_files import image_loader
from loftr_ros.levels import Levels, check_no_depth

VIEW = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (120, 160)), (0, 0), 3)
VIEW = (VIEW - VIEW.min()) / np.ptp(VIEW) * 255

KINDS = {
    '16 bits': lambda v: v * 257,
    '12 bits': lambda v: v * 16,
    '10 bits': lambda v: v * 4,
    '12 bits, left': lambda v: v * 256,
    'thermal': lambda v: 29000 + 2 * v,
    'thermal, 300 counts': lambda v: 21000 + 1.2 * v,
}


@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
def test_an_image_keeps_its_grey_levels_whatever_part_of_16_bits_it_fills(kind):
    converted = Levels().to_8_bits(np.rint(kind(VIEW)).astype(np.uint16))
    assert np.corrcoef(converted.ravel(), VIEW.ravel())[0, 1] > 0.999
    assert len(np.unique(converted)) > 150 and np.ptp(converted) > 190


def test_images_of_12_bits_have_the_range_of_12_bits_however_bright_they_are():
    levels = Levels()
    for brightness in (0.5, 1.0, 0.7):
        image = np.rint(VIEW * 16 * brightness).astype(np.uint16)
        levels.to_8_bits(image)
        assert levels.range == (0, 4095)


def test_the_range_stays_when_a_scene_drifts_and_when_a_flash_passes():
    levels, image = Levels(), (29000 + 2 * VIEW).astype(np.uint16)
    before = levels.to_8_bits(image)
    kept = levels.range
    for shift in (5, -5, 20):
        levels.to_8_bits(image + np.uint16(shift % 65536) if shift > 0 else image - np.uint16(-shift))
    flash = image.copy()
    flash[:40] += 3000  # a third of the image
    levels.to_8_bits(flash)
    assert levels.range == kept
    np.testing.assert_array_equal(levels.to_8_bits(image), before)


def test_the_range_follows_a_scene_that_has_changed_for_good():
    levels, image = Levels(), (29000 + 2 * VIEW).astype(np.uint16)
    levels.to_8_bits(image)
    assert len(np.unique(levels.to_8_bits(image + np.uint16(2000)))) > 150, 'all outside: at once'
    partly = image.copy()
    partly[:40] += 5000
    levels = Levels()
    levels.to_8_bits(image)
    ranges = []
    for _ in range(12):
        levels.to_8_bits(partly)
        ranges.append(levels.range)
    assert ranges[0] == ranges[8] and ranges[-1][1] > 34000, 'a third outside: after some images'


def test_hot_pixels_and_a_black_border_do_not_count():
    image = (29000 + 2 * VIEW).astype(np.uint16)
    image[5, 5] = 65535
    image[:, :30] = 0
    converted = Levels().to_8_bits(image)
    assert len(np.unique(converted[:, 30:])) > 150 and (converted[:, :30] == 0).all() and converted[5, 5 + 30] > 0


@pytest.mark.parametrize('value', [0, 1, 500, 65535])
def test_an_image_of_one_value_becomes_one_grey_value(value):
    assert len(np.unique(Levels().to_8_bits(np.full((8, 8), value, np.uint16)))) == 1


@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
def test_an_image_with_a_black_border_is_not_taken_for_depth(kind):
    image = np.rint(kind(np.rint(VIEW))).astype(np.uint16)
    image[:, :20] = 0
    check_no_depth(image, 'it')


def test_every_frame_of_a_sequence_has_one_mapping_whichever_is_read_first(tmp_path):
    files = []
    for number, (low, gain) in enumerate(((29000, 2), (29300, 2), (29100, 1))):
        files.append(tmp_path / f'{number}.png')
        cv2.imwrite(str(files[-1]), (low + gain * VIEW).astype(np.uint16))
    forward, backward = image_loader(files), image_loader(files)
    images = [forward(i) for i in (0, 1, 2)], [backward(i) for i in (2, 1, 0)][::-1]
    np.testing.assert_array_equal(*images)
    # 300 counts brighter in the file is brighter by one and the same step in the image.
    step = images[0][1].astype(int) - images[0][0]
    assert step.min() > 50 and np.ptp(step) <= 1


def test_depth_is_refused():
    depth_mm = (800 + 10 * VIEW).astype(np.uint16)
    depth_mm[:, :20] = 0
    with pytest.raises(InputError, match=r'a\.png looks like depth, not like a grey image: .* 12\.5% are 0'):
        check_no_depth(depth_mm, 'a.png')
