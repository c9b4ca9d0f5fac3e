"""COLMAP models: cameras and poses in the package's conventions, or refused with the line and the remedy."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_folders import write, write_images

from loftr_ros.camera import CameraModel
from loftr_ros.datasets import open_sequence
from loftr_ros.datasets.colmap import read_cameras
from loftr_ros.errors import InputError
from loftr_ros.geometry import transform


def write_colmap(folder, cameras, registered):
    """A model in sparse/0 with two images of 32x24; the second line of each, its points, may be empty."""
    (folder / 'sparse' / '0').mkdir(parents=True)
    (folder / 'sparse' / '0' / 'cameras.txt').write_text('# Camera list\n' + cameras)
    numbered = zip((9, 4), registered.items(), ('', '1.5 2 -1'), strict=True)
    lines = [f'{number} {pose} {name}\n{points}\n' for number, (name, pose), points in numbered]
    (folder / 'sparse' / '0' / 'images.txt').write_text('# Image list\n' + ''.join(lines))
    write_images(folder / 'images', [Path(name).name for name in registered], (32, 24))


# A quarter turn about z (w first), then a shift: cam_from_world.
POSES = {'p 10.png': '1 0 0 0 1 2 3 7', 'p 9.png': f'{np.sqrt(0.5)} 0 0 {np.sqrt(0.5)} 1 2 3 7'}


@pytest.mark.parametrize(
    ('line', 'focals', 'distortion', 'model'),
    [
        ('SIMPLE_PINHOLE 32 24 50 16 12', (50, 50), (), CameraModel.PLUMB_BOB),
        ('PINHOLE 32 24 50 51 16 12', (50, 51), (), CameraModel.PLUMB_BOB),
        ('SIMPLE_RADIAL 32 24 50 16 12 0.1', (50, 50), (0.1, 0, 0, 0), CameraModel.PLUMB_BOB),
        ('RADIAL 32 24 50 16 12 0.1 0.2', (50, 50), (0.1, 0.2, 0, 0), CameraModel.PLUMB_BOB),
        ('OPENCV 32 24 50 51 16 12 0.1 0.2 0.3 0.4', (50, 51), (0.1, 0.2, 0.3, 0.4), CameraModel.PLUMB_BOB),
        ('OPENCV_FISHEYE 32 24 50 51 16 12 0.1 0.2 0.3 0.4', (50, 51), (0.1, 0.2, 0.3, 0.4), CameraModel.EQUIDISTANT),
    ],
)
def test_colmap_cameras_and_poses_come_in_our_conventions(tmp_path, line, focals, distortion, model):
    write_colmap(tmp_path, f'7 {line}\n', POSES)
    sequence = open_sequence(tmp_path)
    assert [int(sequence.frames(i)[0].image[0, 0]) for i in (0, 1)] == [1, 0]  # 9 before 10
    camera = sequence.camera0
    # The middle of 32x24 is at (16, 12) from the corner, at (15.5, 11.5) from the first pixel's centre.
    assert camera.matrix.tolist() == [[focals[0], 0, 15.5], [0, focals[1], 11.5], [0, 0, 1]]
    assert (tuple(camera.distortion), camera.model) == (distortion, model)
    cam_from_world = transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], (1, 2, 3))
    assert np.allclose(sequence.world_from_cam0[0], np.linalg.inv(cam_from_world))
    assert np.allclose(sequence.world_from_cam0[1], transform(np.eye(3), (-1, -2, -3)))


def test_an_unsupported_colmap_model_is_refused_with_the_remedy(tmp_path):
    camera = 'PINHOLE 32 24 50 51 16 12'
    write_colmap(
        tmp_path / 'two', f'7 {camera}\n8 {camera}\n', {'a.png': '1 0 0 0 1 2 3 7', 'b.png': '1 0 0 0 1 2 3 8'}
    )
    with pytest.raises(InputError, match=r'cameras \[7, 8\].*single_camera'):
        open_sequence(tmp_path / 'two')
    write_colmap(tmp_path / 'wide', '7 FOV 32 24 50 51 16 12 0.9\n', POSES)
    with pytest.raises(InputError, match=r"cameras\.txt:2 .*'FOV' is unknown; known: SIMPLE_PINHOLE.*undistort"):
        open_sequence(tmp_path / 'wide')
    write_colmap(tmp_path / 'lost', f'7 {camera}\n', POSES)
    shutil.copytree(tmp_path / 'lost' / 'sparse' / '0', tmp_path / 'lost' / 'sparse' / '1')
    with pytest.raises(InputError, match='several COLMAP models: sparse/0, sparse/1'):
        open_sequence(tmp_path / 'lost')
    shutil.rmtree(tmp_path / 'lost' / 'sparse' / '1')
    (tmp_path / 'lost' / 'images' / 'p 9.png').unlink()
    with pytest.raises(InputError, match=r'has the poses of 2 images, of which images/ lacks 1 .*p 9\.png'):
        open_sequence(tmp_path / 'lost')


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('1 PINHOLE 640 480 500 510 320 ', 'PINHOLE has 3 parameters; needs fx fy cx cy'),
        ('1 PINHOLE 640 480 500 510 320 x', "'x' is not a number"),
        ('1 PINHOLE 640.5 480 500 510 320 240', "'640.5' is not a whole number"),
        ('1 PINHOLE 640', 'has 3 fields; needs CAMERA_ID'),
        ('1 PINHOLE 640 480 -500 510 320 240', 'positive finite focal lengths'),
        ('1 PINHOLE 640 480 500 510 320 240\n1 PINHOLE 640 480 500 510 320 240', 'repeats camera 1'),
        ('# only a remark', 'has no row of numbers'),
    ],
)
def test_an_impossible_camera_of_colmap_is_refused_with_its_line(tmp_path, line, words):
    with pytest.raises(InputError, match=rf'cameras\.txt.*{words}'):
        read_cameras(write(tmp_path, line, 'cameras.txt'))


def test_full_opencv_of_colmap_is_the_rational_polynomial(tmp_path):
    path = write(tmp_path, '4 FULL_OPENCV 640 480 5e2 510 321 240 .1 .2 .3 .4 .5 .6 .7 .8\n', 'cameras.txt')
    camera = read_cameras(path)[4]
    assert camera.model is CameraModel.RATIONAL_POLYNOMIAL
    assert camera.matrix.tolist() == [[500, 0, 320.5], [0, 510, 239.5], [0, 0, 1]]
    assert camera.distortion.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
