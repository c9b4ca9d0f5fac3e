"""Reading of image files: stored pixels, hidden and broken files, the order of names."""

import struct

import cv2
import numpy as np
import pytest
from pictures import forms

from loftr_ros.datasets import open_sequence
from loftr_ros.errors import InputError
from loftr_ros.image_files import (
    images_below,
    list_images,
    natural_order,
    read_colour,
    read_grey,
    read_image,
    read_raw,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 32), np.uint8)
BGR = RNG.integers(0, 256, (24, 32, 3), np.uint8)
FORMS = forms(BGR)


def jpeg_with_orientation(image, orientation: int) -> bytes:
    """A JPEG with an EXIF segment that holds this orientation alone."""
    tiff = b'II*\0' + struct.pack('<IHHHIHHI', 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b'Exif\0\0' + tiff
    data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return data[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + data[2:]


@pytest.mark.parametrize('orientation', [1, 2, 3, 6, 8])
def test_the_exif_orientation_is_ignored(tmp_path, orientation):
    (tmp_path / 'a.jpg').write_bytes(jpeg_with_orientation(BGR, orientation))
    (tmp_path / 'plain').mkdir()
    cv2.imwrite(str(tmp_path / 'plain' / 'a.jpg'), BGR, [cv2.IMWRITE_JPEG_QUALITY, 95])
    expected = read_image(tmp_path / 'plain' / 'a.jpg')
    if orientation == 6:  # otherwise the EXIF segment above is none
        assert cv2.imread(str(tmp_path / 'a.jpg')).shape == (32, 24, 3)
    for image in (read_image(tmp_path / 'a.jpg'), read_colour(tmp_path / 'a.jpg'), open_sequence(tmp_path).load[0](0)):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(('pixels', 'expected'), FORMS.values(), ids=FORMS)
def test_pictures_come_as_grey_or_bgr_of_8_bits(tmp_path, pixels, expected):
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), expected)
    assert read_grey(tmp_path / 'a.png').shape == (24, 32) and read_colour(tmp_path / 'a.png').shape == (24, 32, 3)


@pytest.mark.parametrize('kind', ['absent', 'folder', 'empty', 'text', 'cut'])
def test_a_file_that_is_not_an_image_is_refused_with_its_name(tmp_path, kind):
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


def test_names_with_any_characters_are_sorted_by_their_numbers(tmp_path):
    names = ['a10.png', 'a2.png', 'a.png', '3.png', 'a2b.png', 'a²1.png', 'a02.png']
    ordered = [file.name for file in sorted((tmp_path / name for name in names), key=natural_order)]
    assert ordered.index('a2.png') < ordered.index('a10.png') and sorted(ordered) == sorted(names)


def test_depth_is_not_read_as_an_image(tmp_path):
    depth_mm = np.full((120, 160), 0, np.uint16)
    depth_mm[:, 20:] = np.linspace(800, 3350, 140)
    cv2.imwrite(str(tmp_path / 'a.png'), depth_mm)
    with pytest.raises(InputError, match=r'a\.png looks like depth, not like a grey image: .* 12\.5% are 0'):
        read_image(tmp_path / 'a.png')
