"""Files of poses and the layouts of folders: read rightly, or refused in words; never another error."""

import json
import shutil

import cv2
import numpy as np
import pytest

from loftr_ros.datasets import open_sequence
from loftr_ros.datasets.poses import (
    EUROC_COLUMNS,
    poses_from_tum,
    poses_to_tum,
    read_matrix_poses,
    read_stamped_poses,
    rotation_matrix,
)
from loftr_ros.errors import InputError, LoftrRosError
from loftr_ros.geometry import quaternion_from_matrix, rotation_from_vector, transform

POSE = transform(rotation_from_vector((0.3, -0.2, 0.5)), (1, 2, 3))
X, Y, Z, W = quaternion_from_matrix(POSE[:3, :3]).round(6)


def write(folder, text, name='poses.txt'):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    'text',
    [
        f'100.5 1 2 3 {X} {Y} {Z} {W}\n',
        f'# a remark\n#timestamp tx ty tz qx qy qz qw\n100.5,1,2,3,{X},{Y},{Z},{W}\n',
        f'timestamp tx ty tz qx qy qz qw\n1.005e+02 1 2 3 {X} {Y} {Z} {W}\n',
        f'timestamp,px,py,pz,qw,qx,qy,qz\n100.5,1,2,3,{W},{X},{Y},{Z}\n',
        f'# time qx qy qz qw x y z\n100.5 {X} {Y} {Z} {W} 1 2 3\n',
        f'stamp, position.x, position.y, position.z, orientation.x, orientation.y, orientation.z, orientation.w\n'
        f'100.5, 1, 2, 3, {X}, {Y}, {Z}, {W}\n',
        f'timestamp x y z qx qy qz qw vx\n100.5 1 2 3 {X} {Y} {Z} {W} 9\n',
    ],
    ids=['plain', 'commas', 'header', 'w first', 'turned', 'ros', 'more columns'],
)
def test_the_header_tells_the_columns_and_else_the_form_of_tum(tmp_path, text):
    stamps_ns, poses = poses_from_tum(write(tmp_path, text))
    assert stamps_ns.tolist() == [100_500_000_000]
    assert np.allclose(poses[0], POSE, atol=2e-6)  # six decimals


EUROC_HEADER = (
    '#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], '
    'v_RS_R_x [m s^-1], v_RS_R_y [m s^-1], v_RS_R_z [m s^-1]\n'
)


@pytest.mark.parametrize(
    'text',
    [
        f'{EUROC_HEADER}1403636579763555584,1,2,3,{W},{X},{Y},{Z},7,8,9\n',
        f'timestamp,px,py,pz,qw,qx,qy,qz\n1403636579763555584,1,2,3,{W},{X},{Y},{Z}\n',
        f'1403636579763555584,1,2,3,{W},{X},{Y},{Z}\r\n',
        f'1.403636579763555584e+18 1 2 3 {W} {X} {Y} {Z} 7 8 9\n',
        f'1403636579.763555584,1,2,3,{W},{X},{Y},{Z}\n',
    ],
    ids=['as published', 'header without #', 'no header', 'savetxt', 'seconds'],
)
def test_euroc_has_w_first_and_nanoseconds(tmp_path, text):
    stamps_ns, poses = read_stamped_poses(write(tmp_path, text), EUROC_COLUMNS, 'ns')
    assert stamps_ns.tolist() == [1403636579763555584]
    assert np.allclose(poses[0], POSE, atol=2e-6)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('100 0 0 0 0 0 0\n', ':1 has 7 fields; needs stamp tx ty tz qx qy qz qw'),
        ('100 0 0 0 0 0 0 1 5\n', ':1 has 9 fields; needs stamp'),
        ('1 0 0 0 0 0 0 1\n100 0 0 0 0 0 0 0\n', r':2 the quaternion .* has length 0; needs 1'),
        ('100 0 0 0 1 2 3 4\n', ':1 the quaternion .* has length 5.477; needs 1'),
        ('100 0 nan 0 0 0 0 1\n', r":1 'nan' is not finite"),
        ('100 0 zero 0 0 0 0 1\n', ":1 'zero' is not a number"),
        ('nan 0 0 0 0 0 0 1\n', "'nan' is not finite"),
        ('stamp x y z roll pitch yaw\n100 0 0 0 0 0 0\n', r":1 names 'stamp x .*' without qx, qy, qz, qw"),
        ('', 'has no row of numbers; needs stamp tx'),
        ('1 0 0 0 0 0 0 1\n1.0 5 0 0 0 0 0 1\n', ':2 has the stamp of line 1 and another pose'),
    ],
)
def test_a_row_that_is_no_pose_is_refused_by_its_line(tmp_path, text, words):
    with pytest.raises(InputError, match=rf'poses\.txt.*{words}'):
        poses_from_tum(write(tmp_path, text))


def test_rows_come_in_the_order_of_their_stamps_and_the_same_row_twice_is_one(tmp_path):
    text = '3 3 0 0 0 0 0 1\n1 1 0 0 0 0 0 1\n2 2 0 0 0 0 0 1\n1.0 1 0 0 0 0 0 1\n'
    stamps_ns, poses = poses_from_tum(write(tmp_path, text))
    assert stamps_ns.tolist() == [10**9, 2 * 10**9, 3 * 10**9] and poses[:, 0, 3].tolist() == [1, 2, 3]


def test_negative_stamps_survive_being_written(tmp_path):
    stamps_ns = np.array([-1_500_000_001, 1])
    poses_to_tum(tmp_path / 'p.txt', stamps_ns, np.stack([POSE, POSE]))
    assert poses_from_tum(tmp_path / 'p.txt')[0].tolist() == stamps_ns.tolist()


def row(matrix):
    return ' '.join(f'{x:.6e}' for x in np.ravel(matrix))


@pytest.mark.parametrize('separator', [' ', ','])
@pytest.mark.parametrize('rows', [3, 4])
def test_rows_of_kitti_may_be_3x4_or_4x4(tmp_path, rows, separator):
    poses = read_matrix_poses(write(tmp_path, row(POSE[:rows]).replace(' ', separator) + '\n'))
    assert np.allclose(poses, [POSE], atol=1e-6)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (row(np.eye(3)), ':1 has 9 fields; needs 12 numbers'),
        (row(POSE.T), ':1 the pose needs the last row 0 0 0 1'),
        (f'{row(POSE[:3])}\n{row(2 * POSE[:3])}', ':2 the 3x3 part of the pose is not a rotation'),
        (row(np.diag([1, 1, -1, 1])), 'is not a rotation: .*determinant 1'),
        (row(np.zeros((3, 4))), 'is not a rotation'),
    ],
)
def test_rows_of_kitti_that_are_no_pose_are_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=rf'poses\.txt.*{words}'):
        read_matrix_poses(write(tmp_path, text))


def test_a_rotation_of_four_decimals_is_one():
    rotation = rotation_matrix(POSE[:3, :3].round(4), 'R')
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12) and np.allclose(rotation, POSE[:3, :3], atol=1e-4)


# --- folders -------------------------------------------------------------------------------------------------------


def images(folder, names, size=(64, 48)):
    folder.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full(size[::-1], value, np.uint8))


P0 = 'P0: 7.0e+02 0 3.2e+01 0 0 7e2 24 0 0 0 1 0\nP1: 700 0 32 -350 0 700 24 0 0 0 1 0\n'


def kitti(root, names=('000000.png', '000001.png', '000002.png')):
    images(root / 'image_0', names)
    write(root, P0, 'calib.txt')
    write(root, '0.0\n1.0e-1\n2.0e-1\n', 'times.txt')
    write(root, ''.join(f'1 0 0 0 0 1 0 0 0 0 1 {i}\n' for i in range(3)))
    return root


def euroc(root):
    names = [f'{1403636579763555584 + i * 50_000_000}.png' for i in range(3)]
    images(root / 'mav0/cam0/data', names)
    write(
        root,
        'resolution: [64, 48]\nintrinsics: [50, 50, 32, 24]\ndistortion_model: none\n'
        'T_BS: {data: [1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1]}\n',
        'mav0/cam0/sensor.yaml',
    )
    rows = ''.join(f'{name[:-4]},{i},0,0,1,0,0,0\n' for i, name in enumerate(names))
    write(root, EUROC_HEADER + rows.replace('0\n', '0,0,0,0\n'), 'mav0/state_groundtruth_estimate0/data.csv')
    return root


def tum(root):
    images(root / 'rgb', ['100.5.png', '100.25.png', '100.75.png'])
    write(root, 'intrinsics: [[50, 0, 32], [0, 50, 24], [0, 0, 1]]\n', 'camera_intrinsics.yaml')
    write(root, ''.join(f'{t} {t} 0 0 0 0 0 1\n' for t in (100.25, 100.5, 100.75)), 'groundtruth.txt')
    return root


def tum_json(root):
    images(root / 'rgb', ['0.png', '1.png'])
    write(root, json.dumps({str(i): {'transformation': np.eye(4).tolist()} for i in range(2)}), 'ground_truth.json')
    return root


def tartanair(root):
    images(root / 'image_lcam_front', ['000000_lcam.png', '000002_lcam.png'], (64, 64))
    write(root, ''.join(f'{i} 0 0 0 0 0 1\n' for i in range(3)), 'pose_lcam_front.txt')
    return root


def colmap(root):
    images(root / 'images', ['a.png', 'b.png'])
    write(root, '1 PINHOLE 64 48 50 50 32.5 24.5\n', 'sparse/0/cameras.txt')
    write(root, '1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 1 0 0 1 b.png\n1 2 -1\n', 'sparse/0/images.txt')
    return root


def own(root):
    images(root / 'left', ['0.png', '1.png'])
    write(root, '1000000000\n2e9\n', 'stamps.txt')
    write(root, '1 0 0 0 0 0 0 1\n2 1 0 0 0 0 0 1\n')
    return root


def scannet(root):
    images(root / 'color', ['0.png', '1.png'])
    (root / 'depth').mkdir()
    for i in range(2):
        cv2.imwrite(str(root / f'depth/{i}.png'), np.full((48, 64), 1000, np.uint16))
        write(root, '\n'.join(row(r) for r in np.eye(4)) + '\n', f'pose/{i}.txt')
    for kind in ('color', 'depth'):
        write(root, '50 0 32 0\n0 50 24 0\n0 0 1 0\n0 0 0 1\n', f'intrinsic/intrinsic_{kind}.txt')
    return root


LAYOUTS = {f.__name__: f for f in (kitti, euroc, tum, tum_json, tartanair, colmap, scannet, own)}


def shifts(sequence):
    return sequence.world_from_cam0[:, :3, 3].tolist()


def test_each_layout_is_read_with_its_poses(tmp_path):
    for name, make in LAYOUTS.items():
        sequence = open_sequence(make(tmp_path / name))
        assert sequence.world_from_cam0 is not None and len(sequence.frames(0)) == 1, name
    assert shifts(open_sequence(tmp_path / 'kitti')) == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    assert shifts(open_sequence(tmp_path / 'euroc'))[2] == [2, 0, 0]
    # Names of seconds are ordered as numbers: .25 before .5.
    assert open_sequence(tmp_path / 'tum').stamps_ns.tolist() == [100_250_000_000, 100_500_000_000, 100_750_000_000]
    assert [int(open_sequence(tmp_path / 'tum').frames(i)[0].image[0, 0]) for i in range(3)] == [1, 0, 2]
    # Row 2 is of image 2, though it is the second one: x of NED is forward.
    assert shifts(open_sequence(tmp_path / 'tartanair')) == [[0, 0, 0], [2, 0, 0]]


def test_kitti_as_it_is_downloaded_has_its_poses_apart(tmp_path):
    kitti(tmp_path / 'dataset/sequences/07')
    (tmp_path / 'dataset/poses').mkdir()
    shutil.move(tmp_path / 'dataset/sequences/07/poses.txt', tmp_path / 'dataset/poses/07.txt')
    assert shifts(open_sequence(tmp_path / 'dataset/sequences/07')) == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


def test_a_part_of_a_kitti_sequence_has_the_rows_of_its_numbers(tmp_path):
    sequence = open_sequence(kitti(tmp_path, ['000001.png', '000002.png']))
    assert shifts(sequence) == [[0, 0, 1], [0, 0, 2]]
    assert sequence.stamps_ns.tolist() == [1_100_000_000, 1_200_000_000]
    images(tmp_path / 'image_0', ['000007.png'])
    (tmp_path / 'image_0/000002.png').unlink()
    with pytest.raises(InputError, match=r'times\.txt has 3 rows for 2 images, 000001\.png to 000007\.png; needs'):
        open_sequence(tmp_path)


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
        ('own', 'stamps.txt', '1\n1\n', r'stamps\.txt:2 1 follows 1'),
        ('own', 'stamps.txt', '1.5\n2.5\n3.5\n', 'has 2 images and 3 stamps'),
        ('own', 'poses.txt', '1 0 0 0 0 0 0 1\n9 1 0 0 0 0 0 1\n', 'has a pose for 1 of 2 stamps'),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_its_name(tmp_path, layout, file, text, words):
    write(LAYOUTS[layout](tmp_path), text, file)
    with pytest.raises(InputError, match=words):
        open_sequence(tmp_path)


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
    images(tmp_path / 'rgb', names)
    with pytest.raises(InputError, match=words):
        open_sequence(tmp_path)


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
    images(tmp_path, names)
    assert open_sequence(tmp_path).stamps_ns.tolist() == stamps_ns


def test_euroc_pairs_the_names_of_both_cameras_and_refuses_none(tmp_path):
    euroc(tmp_path)
    shutil.copytree(tmp_path / 'mav0/cam0', tmp_path / 'mav0/cam1')
    assert len(open_sequence(tmp_path)) == 3
    for file in (tmp_path / 'mav0/cam1/data').iterdir():
        file.rename(file.with_name(f'{int(file.stem) + 3}.png'))
    with pytest.raises(InputError, match='no image name that cam0 and cam1 share'):
        open_sequence(tmp_path)
    shutil.rmtree(tmp_path / 'mav0/cam1')
    sensor = tmp_path / 'mav0/cam0/sensor.yaml'
    sensor.write_text(sensor.read_text().partition('T_BS')[0])
    with pytest.raises(InputError, match=r'sensor\.yaml has no T_BS'):
        open_sequence(tmp_path)


def test_sides_that_lost_different_frames_are_refused(tmp_path):
    images(tmp_path / 'left', ['0.png', '1.png', '2.png'])
    images(tmp_path / 'right', ['0.png', '2.png', '3.png'])
    with pytest.raises(InputError, match=r'right image 2\.png beside the left image 1\.png'):
        open_sequence(tmp_path)


def test_depth_of_tartanair_is_that_of_the_same_number(tmp_path):
    tartanair(tmp_path)
    images(tmp_path / 'depth_lcam_front', ['000000_depth.png', '000001_depth.png'])
    with pytest.raises(InputError, match=r"lacks the depth of 1 of 2 images \(\['000002_lcam\.png'\]\)"):
        open_sequence(tmp_path)


def test_a_kinect_is_known_for_its_own_size_only(tmp_path, caplog):
    images(tmp_path / 'fr1' / 'rgb', ['100.5.png'], (640, 480))
    images(tmp_path / 'small_fr1' / 'rgb', ['100.5.png'], (320, 240))
    assert open_sequence(tmp_path / 'fr1').camera0.matrix[0, 0] == 517.3
    assert open_sequence(tmp_path / 'small_fr1').camera0 is None and 'takes 640x480' in caplog.text


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
