"""One reader of pictures: pixels as they are in the file, 16 bits in a steady range, hidden and broken files."""

import struct

import cv2
import numpy as np
import pytest

from loftr_ros.datasets import open_sequence
from loftr_ros.errors import InputError
from loftr_ros.image_files import (
    image_loader,
    images_below,
    list_images,
    natural_order,
    read_colour,
    read_grey,
    read_image,
    read_raw,
)
from loftr_ros.levels import Levels, check_no_depth

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 32), np.uint8)
BGR = RNG.integers(0, 256, (24, 32, 3), np.uint8)
VIEW = cv2.GaussianBlur(RNG.uniform(0, 255, (120, 160)), (0, 0), 3)
VIEW = (VIEW - VIEW.min()) / np.ptp(VIEW) * 255


def jpeg_with_orientation(image, orientation: int) -> bytes:
    """A JPEG with an EXIF segment that holds this orientation alone."""
    tiff = b'II*\0' + struct.pack('<IHHHIHHI', 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b'Exif\0\0' + tiff
    data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return data[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + data[2:]


@pytest.mark.parametrize('orientation', [1, 2, 3, 6, 8])
def test_the_orientation_of_exif_turns_no_pixel(tmp_path, orientation):
    (tmp_path / 'a.jpg').write_bytes(jpeg_with_orientation(BGR, orientation))
    (tmp_path / 'plain').mkdir()
    cv2.imwrite(str(tmp_path / 'plain' / 'a.jpg'), BGR, [cv2.IMWRITE_JPEG_QUALITY, 95])
    expected = read_image(tmp_path / 'plain' / 'a.jpg')
    if orientation == 6:  # otherwise the EXIF segment above is none
        assert cv2.imread(str(tmp_path / 'a.jpg')).shape == (32, 24, 3)
    for image in (read_image(tmp_path / 'a.jpg'), read_colour(tmp_path / 'a.jpg'), open_sequence(tmp_path).load[0](0)):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ('pixels', 'expected'),
    [
        (GREY, GREY),
        (BGR, BGR),
        (np.dstack([BGR, GREY]), BGR),
        (GREY.astype(np.uint16) * 257, GREY),
        (BGR.astype(np.uint16) * 257, BGR),
        (np.dstack([BGR, GREY]).astype(np.uint16) * 257, BGR),
    ],
    ids=['grey', 'colour', 'alpha', '16 bits', '16 bits colour', '16 bits alpha'],
)
def test_pictures_come_as_grey_or_bgr_of_8_bits(tmp_path, pixels, expected):
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), expected)
    assert read_grey(tmp_path / 'a.png').shape == (24, 32) and read_colour(tmp_path / 'a.png').shape == (24, 32, 3)


@pytest.mark.parametrize('kind', ['absent', 'folder', 'empty', 'text', 'cut'])
def test_what_is_no_image_is_refused_with_its_name(tmp_path, kind):
    path = tmp_path / 'a.png'
    if kind == 'folder':
        path.mkdir()
    elif kind != 'absent':
        data = cv2.imencode('.png', GREY)[1].tobytes()
        path.write_bytes({'empty': b'', 'text': b'no image', 'cut': data[:20]}[kind])
    with pytest.raises(InputError, match=r'a\.png is not (a file|an image)'):
        read_image(path)


def test_floating_point_pixels_are_no_picture(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.tiff'), GREY.astype(np.float32))
    with pytest.raises(InputError, match=r'a\.tiff: image has pixels of float32; needs uint8 or uint16'):
        read_image(tmp_path / 'a.tiff')
    with pytest.raises(InputError, match='1 channels of float32; needs depth'):
        read_raw(tmp_path / 'a.tiff', np.uint16, 1, 'depth')


def test_hidden_files_and_folders_hold_no_images(tmp_path):
    for name in ('2.png', '10.PNG', '._2.png', '.hidden/3.png', '__MACOSX/4.png', 'below/5.png', 'folder.png/6.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), GREY)
    (tmp_path / 'notes.txt').write_text('')
    assert [file.name for file in list_images(tmp_path)] == ['2.png', '10.PNG']
    assert {file.name for file in images_below(tmp_path)} == {'2.png', '10.PNG', '5.png', '6.png'}
    assert len(open_sequence(tmp_path)) == 2
    (tmp_path / 'hidden').mkdir()
    (tmp_path / 'hidden' / '._1.png').write_bytes(b'\0\5\x16\7')
    with pytest.raises(InputError, match='has no images'):
        list_images(tmp_path / 'hidden')


def test_names_are_ordered_by_their_numbers_whatever_else_they_hold(tmp_path):
    names = ['a10.png', 'a2.png', 'a.png', '3.png', 'a2b.png', 'a²1.png', 'a02.png']
    ordered = [file.name for file in sorted((tmp_path / name for name in names), key=natural_order)]
    assert ordered.index('a2.png') < ordered.index('a10.png') and sorted(ordered) == sorted(names)


# --- 16 bits -------------------------------------------------------------------------------------------------------

KINDS = {
    '16 bits': lambda v: v * 257,
    '12 bits': lambda v: v * 16,
    '10 bits': lambda v: v * 4,
    '12 bits, left': lambda v: v * 256,
    'thermal': lambda v: 29000 + 2 * v,
    'thermal, 300 counts': lambda v: 21000 + 1.2 * v,
}


@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
def test_a_picture_keeps_its_grey_levels_whatever_part_of_16_bits_it_fills(kind):
    image = Levels().to_8_bits(np.rint(kind(VIEW)).astype(np.uint16))
    assert np.corrcoef(image.ravel(), VIEW.ravel())[0, 1] > 0.999
    assert len(np.unique(image)) > 150 and np.ptp(image) > 190


def test_pictures_of_12_bits_have_the_range_of_12_bits_however_bright_they_are():
    levels = Levels()
    for brightness in (0.5, 1.0, 0.7):
        picture = np.rint(VIEW * 16 * brightness).astype(np.uint16)
        levels.to_8_bits(picture)
        assert levels.range == (0, 4095)


def test_the_range_stays_when_a_scene_drifts_and_when_a_flash_passes():
    levels, picture = Levels(), (29000 + 2 * VIEW).astype(np.uint16)
    before = levels.to_8_bits(picture)
    kept = levels.range
    for shift in (5, -5, 20):
        levels.to_8_bits(picture + np.uint16(shift % 65536) if shift > 0 else picture - np.uint16(-shift))
    flash = picture.copy()
    flash[:40] += 3000  # a third of the picture
    levels.to_8_bits(flash)
    assert levels.range == kept
    np.testing.assert_array_equal(levels.to_8_bits(picture), before)


def test_the_range_follows_a_scene_that_has_changed_for_good():
    levels, picture = Levels(), (29000 + 2 * VIEW).astype(np.uint16)
    levels.to_8_bits(picture)
    assert len(np.unique(levels.to_8_bits(picture + np.uint16(2000)))) > 150, 'all outside: at once'
    partly = picture.copy()
    partly[:40] += 5000
    levels = Levels()
    levels.to_8_bits(picture)
    ranges = []
    for _ in range(12):
        levels.to_8_bits(partly)
        ranges.append(levels.range)
    assert ranges[0] == ranges[8] and ranges[-1][1] > 34000, 'a third outside: after some pictures'


def test_hot_pixels_and_a_black_border_do_not_count():
    picture = (29000 + 2 * VIEW).astype(np.uint16)
    picture[5, 5] = 65535
    picture[:, :30] = 0
    image = Levels().to_8_bits(picture)
    assert len(np.unique(image[:, 30:])) > 150 and (image[:, :30] == 0).all() and image[5, 5 + 30] > 0


@pytest.mark.parametrize('value', [0, 1, 500, 65535])
def test_a_picture_of_one_value_becomes_one_grey_value(value):
    assert len(np.unique(Levels().to_8_bits(np.full((8, 8), value, np.uint16)))) == 1


def test_every_frame_of_a_sequence_has_one_mapping_whichever_is_read_first(tmp_path):
    files = []
    for number, (low, gain) in enumerate(((29000, 2), (29300, 2), (29100, 1))):
        files.append(tmp_path / f'{number}.png')
        cv2.imwrite(str(files[-1]), (low + gain * VIEW).astype(np.uint16))
    forward, backward = image_loader(files), image_loader(files)
    images = [forward(i) for i in (0, 1, 2)], [backward(i) for i in (2, 1, 0)][::-1]
    np.testing.assert_array_equal(*images)
    # 300 counts brighter in the file is brighter by one and the same step in the picture.
    step = images[0][1].astype(int) - images[0][0]
    assert step.min() > 50 and np.ptp(step) <= 1


def depth_mm():
    depth = (800 + 10 * VIEW).astype(np.uint16)
    depth[:, :20] = 0
    return depth


def test_depth_is_not_taken_for_a_picture(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), depth_mm())
    with pytest.raises(InputError, match=r'a\.png looks like depth, not like a grey image: .* 12\.5% are 0'):
        read_image(tmp_path / 'a.png')


@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
def test_a_picture_with_a_black_border_is_not_taken_for_depth(kind):
    picture = np.rint(kind(np.rint(VIEW))).astype(np.uint16)
    picture[:, :20] = 0
    check_no_depth(picture, 'it')
