"""The Python interface: the names that `loftr_ros` exports, and the types of images that it accepts."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import loftr_ros
from loftr_ros.datasets import rendered_drive, save_sequence
from loftr_ros.datatypes import Matches, RelativePose
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.image import as_image
from loftr_ros.rendering import textures

torch = pytest.importorskip('torch')

ROOT = Path(__file__).parents[1]

BGR = np.zeros((4, 6, 3), np.uint8)
BGR[...] = (200, 100, 50)
BGR[0, 0] = (1, 2, 3)
RGB = np.ascontiguousarray(BGR[..., ::-1])


@pytest.fixture(scope='module')
def images():
    """Two images that differ by a shift of (12, 5) px."""
    scene = textures.poster(np.random.default_rng(0), 380, 280)
    return scene[20:260, 30:350], scene[15:255, 18:338]


def assert_shifted(matches):
    shift = matches.keypoints1 - matches.keypoints0
    assert len(shift) > 100
    # A whole-pixel shift of the same pixels; sub-pixel noise stays below a quarter pixel.
    assert np.median(np.abs(shift - [12, 5])) < 0.25


def test_importing_the_package_loads_neither_torch_nor_opencv():
    program = (
        'import sys, loftr_ros; loaded = {"torch", "cv2", "numpy"} & set(sys.modules); '
        'assert not loaded, loaded; assert set(loftr_ros.__all__) <= set(dir(loftr_ros))'
    )
    subprocess.run([sys.executable, '-c', program], check=True, cwd=ROOT)


@pytest.mark.parametrize('name', loftr_ros.__all__)
def test_every_exported_name_exists(name):
    assert getattr(loftr_ros, name).__name__ == name


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'matsch'"):
        loftr_ros.matsch  # noqa: B018


def example_of_the_readme(word, folder, *changes):
    """Run the Python example that contains a word in the folder, with some of its text replaced; return its output."""
    examples = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
    [example] = [text for text in examples if word in text]
    for old, new in changes:
        assert old in example
        example = example.replace(old, new)
    ended = subprocess.run([sys.executable, '-c', example], cwd=folder, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_example_of_the_readme_prints_matches_and_pose(images, tmp_path):
    for name, image in zip('AB', images, strict=True):
        cv2.imwrite(str(tmp_path / f'{name}.png'), image)
    output = example_of_the_readme(
        'estimate_relative_pose', tmp_path, ('width=640, height=480', 'width=320, height=240')
    )
    number, pose = output.split(maxsplit=1)
    assert int(number) > 100 and pose.startswith((RelativePose.__name__, 'PoseFailure'))


def test_the_example_of_the_readme_prints_a_trajectory(tmp_path):
    save_sequence(rendered_drive(seed=1, num_frames=4, size=(160, 120)), tmp_path / 'drive')
    lines = example_of_the_readme('Odometer', tmp_path, ('FOLDER', 'drive')).splitlines()
    assert len(lines) == 4 and lines[0].startswith('STARTING [0')


def test_match_accepts_files_arrays_and_tensors(images, tmp_path):
    matcher = loftr_ros.create_matcher('gcm')
    of_arrays = loftr_ros.match(*images, matcher)
    assert_shifted(of_arrays)
    files = [tmp_path / 'a.png', tmp_path / 'b.png']
    for file, image in zip(files, images, strict=True):
        cv2.imwrite(str(file), image)
    red_first = [np.ascontiguousarray(image[..., ::-1]) for image in images]
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in red_first]
    same = [
        loftr_ros.match(str(files[0]), files[1], matcher),
        loftr_ros.match(*red_first, matcher, rgb=True),
        loftr_ros.match(*tensors, matcher),
        loftr_ros.match(*(tensor[None] / 255 for tensor in tensors), matcher),
        loftr_ros.match(files[0], tensors[1], 'gcm'),
    ]
    for matches in same:
        np.testing.assert_array_equal(matches.keypoints1, of_arrays.keypoints1)


def test_match_with_an_unknown_matcher_names_the_known_ones(images):
    with pytest.raises(ConfigError, match=r'did you mean gcm\?'):
        loftr_ros.match(*images, 'gmc')


@pytest.mark.parametrize(
    ('image', 'rgb'),
    [
        (BGR, None),
        (RGB, True),
        (torch.from_numpy(RGB).permute(2, 0, 1), None),
        (torch.from_numpy(BGR).permute(2, 0, 1), False),
        (torch.from_numpy(RGB).permute(2, 0, 1)[None].double() / 255, None),
        (torch.from_numpy(RGB).permute(2, 0, 1).half() / 255, None),
        ((torch.from_numpy(RGB).permute(2, 0, 1) / 255).requires_grad_(), None),
    ],
)
def test_a_colour_image_becomes_uint8_with_blue_first(image, rgb):
    found = as_image(image, rgb)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, BGR)


@pytest.mark.parametrize('shape', [(4, 6), (1, 4, 6), (1, 1, 4, 6)])
def test_a_grey_tensor_becomes_a_grey_image(shape):
    grey = BGR[..., 0]
    np.testing.assert_array_equal(as_image(torch.from_numpy(grey).reshape(shape)), grey)
    np.testing.assert_array_equal(as_image(torch.from_numpy(grey).reshape(shape) / 255), grey)


@pytest.mark.parametrize(
    ('image', 'reason'),
    [
        (BGR.astype(np.float32) / 255, 'must be uint8'),
        (BGR.tolist(), 'got list'),
        (torch.from_numpy(RGB), r'permute\(2, 0, 1\)'),
        (torch.from_numpy(RGB).permute(2, 0, 1).float(), r'got 1 to 200; divide .* by 255'),
        (torch.from_numpy(RGB).permute(2, 0, 1) / 128 - 1, 'undo a normalisation'),
        (torch.full((3, 4, 6), float('nan')), r'values in \[0, 1\], got nan'),
        (torch.from_numpy(RGB).permute(2, 0, 1).long(), 'must be uint8'),
        (torch.zeros(2, 3, 4, 6), 'give one image'),
        (torch.zeros(3, 0, 6), 'give one image'),
        (torch.zeros(4, 4, 6), 'C 1 or 3'),
    ],
)
def test_an_image_of_wrong_shape_or_type_is_refused_with_the_reason(image, reason):
    with pytest.raises(InputError, match=reason):
        as_image(image)


def test_a_camera_of_a_focal_length_looks_through_the_centre_of_the_image():
    camera = loftr_ros.Camera.from_focal(500.0, width=640, height=480)
    np.testing.assert_array_equal(camera.matrix, [[500, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    assert (camera.width, camera.height, camera.is_distorted) == (640, 480, False)
    with pytest.raises(InputError, match='positive finite focal lengths'):
        loftr_ros.Camera.from_focal(0, width=640, height=480)


def test_matches_need_only_their_points():
    matches = Matches([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    assert matches.confidence.tolist() == [1, 1] and matches.point_id0.tolist() == [-1, -1]
    assert np.isnan(matches.sigma_px).all()
    assert len(matches.select([0])) == 1
