"""Folders of every layout are opened with their poses, or refused with the file and the remedy."""

import shutil

import numpy as np
import pytest
from dataset_folders import LAYOUTS, positions, write, write_images

from loftr_ros.camera import Camera
from loftr_ros.datasets import open_sequence
from loftr_ros.datasets.calibration import camera_to_yaml
from loftr_ros.errors import InputError, LoftrRosError

CAMERA = Camera([[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], 32, 24)


def test_each_layout_is_read_with_its_poses(tmp_path):
    for name, make in LAYOUTS.items():
        sequence = open_sequence(make(tmp_path / name))
        assert sequence.world_from_cam0 is not None and len(sequence.frames(0)) == 1, name
    assert positions(open_sequence(tmp_path / 'kitti')) == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    assert positions(open_sequence(tmp_path / 'euroc'))[2] == [2, 0, 0]
    # Names of seconds are ordered as numbers: .25 before .5.
    assert open_sequence(tmp_path / 'tum').stamps_ns.tolist() == [100_250_000_000, 100_500_000_000, 100_750_000_000]
    assert [int(open_sequence(tmp_path / 'tum').frames(i)[0].image[0, 0]) for i in range(3)] == [1, 0, 2]
    # Row 2 is of image 2, though it is the second one: x of NED is forward.
    assert positions(open_sequence(tmp_path / 'tartanair')) == [[0, 0, 0], [2, 0, 0]]


@pytest.mark.parametrize(
    ('layout', 'file', 'text', 'words'),
    [
        ('kitti', 'times.txt', '0\n0.1\n', 'has 2 rows for 3 images'),
        ('kitti', 'times.txt', '0\n0.2\n0.1\n', r'times\.txt:3 0\.1 follows 0\.2'),
        ('kitti', 'calib.txt', 'P0: 1 2 3\n', r'calib\.txt: P0: 3 numbers; needs the 12 numbers'),
        ('kitti', 'calib.txt', 'P2: 1 2 3\n', r'calib\.txt contains P2; needs P0'),
        ('kitti', 'calib.txt', 'P0: 700 0 0 0 0 700 0 0 32 24 1 0\n', r'calib\.txt: P0: .*transpose'),
        ('kitti', 'calib.txt', 'P0: 700 0 0 0 0 700 0 0 0 0 1 0 3\n', '13 numbers'),
        ('euroc', 'mav0/state_groundtruth_estimate0/data.csv', '7,0,0,0,1,0,0,0\n', 'no image has pose within 5 ms'),
        (
            'tum',
            'groundtruth.txt',
            '7.5 0 0 0 0 0 0 1\n',
            r'images are 100\.250 .* pose 7\.500 .*same recording',
        ),
        ('tum', 'camera_intrinsics.yaml', 'focal: 5\n', r'intrinsics\.yaml: has no intrinsics, only focal'),
        ('tum', 'camera_intrinsics.yaml', 'intrinsics: [[50, 0, 0], [0, 50, 0], [32, 24, 1]]\n', 'transpose'),
        ('tum_json', 'ground_truth.json', '{"0": {"transformation": [1]}}', r'transformation needs a 4x4 matrix'),
        ('tum_json', 'ground_truth.json', '{"0": {"pose": [1]}}', 'has no transformation'),
        ('tum_json', 'ground_truth.json', '{}', "has no entry '0'"),
        ('tartanair', 'pose_lcam_front.txt', '0 0 0 0 0 0 1\n', 'has 1 rows for 2 images'),
        (
            'colmap',
            'sparse/0/images.txt',
            '1 1 0 0 0 0 0 0 1 a.png\n2 1 0 0 0 1 0 0 1 b.png\n',
            '2 is not the line of points of a',
        ),
        ('colmap', 'sparse/0/images.txt', '1 9 0 0 0 0 0 0 1 a.png\n', 'length 9; needs 1'),
        ('saved', 'stamps.txt', '1\n1\n', r'stamps\.txt:2 1 follows 1'),
        ('saved', 'stamps.txt', '1.5\n2.5\n3.5\n', 'has 2 images and 3 stamps'),
        ('saved', 'poses.txt', '1 0 0 0 0 0 0 1\n9 1 0 0 0 0 0 1\n', 'has a pose for 1 of 2 stamps'),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_its_name(tmp_path, layout, file, text, words):
    write(LAYOUTS[layout](tmp_path), text, file)
    with pytest.raises(InputError, match=words):
        open_sequence(tmp_path)


DAMAGES = {
    'empty': lambda text: b'',
    'binary': lambda text: bytes(range(256)),
    'cut': lambda text: text[: len(text) // 2].encode(),
    'a column less': lambda text: '\n'.join(line.rpartition(' ')[0] for line in text.split('\n')).encode(),
    'a word more': lambda text: text.replace('\n', ' word\n', 1).encode(),
    'a word instead': lambda text: text.replace('1', 'one', 1).encode(),
    'nan': lambda text: text.replace('0', 'nan', 3).encode(),
    'another sign': lambda text: text.replace('1', '-1').encode(),
    'huge': lambda text: text.replace('0', '1e308').encode(),
    'commas': lambda text: text.replace(' ', ', ').encode(),
    'turned round': lambda text: '\n'.join(reversed(text.split('\n'))).encode(),
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('damage', [*DAMAGES, 'folder', 'absent'])
def test_a_damaged_file_gives_an_error_of_this_package_or_none(tmp_path, layout, damage):
    LAYOUTS[layout](tmp_path / 'good')
    files = [file for file in (tmp_path / 'good').rglob('*') if file.is_file() and file.suffix != '.png']
    assert files
    for number, file in enumerate(files):
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / 'good', root)
        damaged = root / file.relative_to(tmp_path / 'good')
        text = damaged.read_text()
        damaged.unlink()
        if damage == 'folder':
            damaged.mkdir()
        elif damage != 'absent':
            damaged.write_bytes(DAMAGES[damage](text))
        try:
            sequence = open_sequence(root)
            sequence.frames(0)
            if sequence.has_depth:
                sequence.depth0(0)
        except LoftrRosError as error:
            assert len(str(error)) > 20


def test_another_folder_is_refused_with_the_known_layouts(tmp_path):
    with pytest.raises(InputError, match='is nothing; needs a folder'):
        open_sequence(tmp_path / 'absent')
    (tmp_path / 'readme.md').write_text('')
    with pytest.raises(InputError, match=r'contains readme\.md; needs one of these layouts: KITTI .*images'):
        open_sequence(tmp_path)


def test_plain_images_come_in_natural_order_without_a_camera(tmp_path):
    write_images(tmp_path, ['img2.png', 'img10.png', 'img1.png'])
    (tmp_path / 'notes.txt').write_text('no image')
    sequence = open_sequence(tmp_path, rate_hz=4)
    assert [int(sequence.frames(i)[0].image[0, 0]) for i in range(3)] == [2, 0, 1]  # 1, 2, 10
    assert sequence.camera0 is None and sequence.frames(0)[0].camera is None
    assert np.diff(sequence.stamps_ns).tolist() == [250_000_000] * 2 and sequence.stamps_ns[0] > 0


@pytest.mark.parametrize(
    ('names', 'stamps_ns'),
    [
        (['1305031102.5.png', '1305031102.25.png'], [1305031102250000000, 1305031102500000000]),
        (['1403636579763555584.png', '1403636579813555584.png'], [1403636579763555584, 1403636579813555584]),
        (['1403636579763555.png', '1403636579813555.png'], [1403636579763555000, 1403636579813555000]),
        (['1.png', '2.png'], [1_000_000_000, 1_100_000_000]),
        (['frame1305031102.5.png', 'frame1305031102.25.png'], [1_000_000_000, 1_100_000_000]),
    ],
)
def test_a_plain_folder_takes_stamps_from_names_that_are_times(tmp_path, names, stamps_ns):
    write_images(tmp_path, names)
    assert open_sequence(tmp_path).stamps_ns.tolist() == stamps_ns


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        (['a.png'], "named by their stamps .*'a' is not a number"),
        (['1.5.png', '1.50.png'], 'have the same stamp'),
        (['nan.png'], "'nan' is not finite"),
        (['1e30.png'], 'is not a stamp'),
    ],
)
def test_names_that_are_no_stamps_are_refused(tmp_path, names, words):
    write_images(tmp_path / 'rgb', names)
    with pytest.raises(InputError, match=words):
        open_sequence(tmp_path)


def test_images_are_not_read_before_they_are_asked_for(tmp_path):
    write_images(tmp_path, ['0.png', '1.png'])
    (tmp_path / '1.png').write_bytes(b'broken')
    sequence = open_sequence(tmp_path)
    sequence.frames(0)
    with pytest.raises(InputError, match=r'1\.png is not an image'):
        sequence.frames(1)


def test_camera_files_give_plain_folders_their_cameras(tmp_path):
    for side, baseline_m in (('left', 0.0), ('right', 0.3)):
        write_images(tmp_path / 'data' / side, ['a.png', 'b.png'])
        camera_to_yaml(CAMERA, tmp_path / f'{side}.yaml', side, baseline_m)
    files = [tmp_path / 'left.yaml', tmp_path / 'right.yaml']
    sequence = open_sequence(tmp_path / 'data', camera_files=files)
    assert sequence.is_stereo and sequence.camera1.matrix[1, 1] == 51
    assert np.allclose(sequence.cam1_from_cam0[:3, 3], (-0.3, 0, 0))
    with pytest.raises(InputError, match='2 cameras but 1'):
        open_sequence(tmp_path / 'data', camera_files=files[:1])


def test_a_stereo_pair_needs_a_right_image_for_each_left_one(tmp_path):
    write_images(tmp_path / 'pair' / 'left', ['0.png', '1.png'])
    write_images(tmp_path / 'pair' / 'right', ['0.png'])
    with pytest.raises(InputError, match='2 left and 1 right'):
        open_sequence(tmp_path / 'pair')


def test_sides_that_lost_different_frames_are_refused(tmp_path):
    write_images(tmp_path / 'left', ['0.png', '1.png', '2.png'])
    write_images(tmp_path / 'right', ['0.png', '2.png', '3.png'])
    with pytest.raises(InputError, match=r'right image 2\.png beside the left image 1\.png'):
        open_sequence(tmp_path)
