"""Pose files are read correctly, or refused with the line."""

import numpy as np
import pytest
from dataset_folders import EUROC_HEADER, row, write

from loftr_ros.datasets.poses import (
    EUROC_COLUMNS,
    poses_from_tum,
    poses_to_tum,
    read_matrix_poses,
    read_stamped_poses,
    rotation_matrix,
)
from loftr_ros.errors import InputError
from loftr_ros.geometry import quaternion_from_matrix, rotation_from_vector, transform

POSE = transform(rotation_from_vector((0.3, -0.2, 0.5)), (1, 2, 3))
X, Y, Z, W = quaternion_from_matrix(POSE[:3, :3]).round(6)


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
def test_the_header_gives_the_columns_and_without_it_they_are_those_of_tum(tmp_path, text):
    stamps_ns, poses = poses_from_tum(write(tmp_path, text))
    assert stamps_ns.tolist() == [100_500_000_000]
    assert np.allclose(poses[0], POSE, atol=2e-6)  # six decimals


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


def test_a_rotation_with_four_decimals_is_accepted():
    rotation = rotation_matrix(POSE[:3, :3].round(4), 'R')
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12) and np.allclose(rotation, POSE[:3, :3], atol=1e-4)
