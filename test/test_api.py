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
from loftr_ros.datatypes import RelativePose
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
