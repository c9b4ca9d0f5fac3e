"""Special properties of each data set: files, axes, units and stamps."""

import shutil

import cv2
import numpy as np
import pytest
from dataset_folders import euroc, kitti, positions, scannet, tartanair, write, write_images

from loftr_ros.datasets import open_sequence
from loftr_ros.errors import InputError
from loftr_ros.geometry import transform

# --- KITTI odometry ------------------------------------------------------------------------------------------------


def test_kitti_odometry_stereo_with_labels(tmp_path):
    for folder in ('image_2', 'image_3'):
        write_images(tmp_path / folder, ['000000.png', '000001.png'])
    row = '{}: 7e+01 0.0e+00 1.55e+01 {} 0.0e+00 7.0e+01 1.15e+01 0.0e+00 0.0e+00 0.0e+00 1.0e+00 0.0e+00\n'
    offsets = {'P0': '0.0e+00', 'P1': '-3.5e+01', 'P2': '7.0e+00', 'P3': '-2.8e+01'}
    text = ''.join(row.format(label, offset) for label, offset in offsets.items()).replace('7e+01', '7.0e+01')
    (tmp_path / 'calib.txt').write_text(text + 'Tr: 1.0e+00\n')
    (tmp_path / 'times.txt').write_text('0.0\n0.103\n')
    (tmp_path / 'poses.txt').write_text('1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 2\n')
    sequence = open_sequence(tmp_path)
    assert sequence.camera0.matrix[0].tolist() == [70.0, 0.0, 15.5]
    assert np.allclose(sequence.cam1_from_cam0[:3, 3], (-0.5, 0, 0))  # (-28 - 7) / 70
    # Camera 2 is 0.1 m left of camera 0, whose poses the file gives.
    assert np.allclose(sequence.world_from_cam0[1][:3, 3], (-0.1, 0, 2))
    assert np.diff(sequence.stamps_ns).tolist() == [103_000_000]


def test_kitti_matrices_without_a_line_break_between_them_are_read(tmp_path):
    write_images(tmp_path / 'image_l', ['0.png'])
    first = '7.0e+01 0.0e+00 1.55e+01 0.0e+00 0.0e+00 7.0e+01 1.15e+01 0.0e+00 0.0e+00 0.0e+00 1.0e+00 0.0e+00'
    (tmp_path / 'calib.txt').write_text(first + first.replace('1.55e+01 0.0e+00', '1.55e+01 -3.5e+01'))
    assert open_sequence(tmp_path).camera0.matrix[0].tolist() == [70.0, 0.0, 15.5]
    shutil.copytree(tmp_path / 'image_l', tmp_path / 'image_r')
    assert np.allclose(open_sequence(tmp_path).cam1_from_cam0[:3, 3], (-0.5, 0, 0))


def test_kitti_as_it_is_downloaded_has_its_poses_apart(tmp_path):
    kitti(tmp_path / 'dataset/sequences/07')
    (tmp_path / 'dataset/poses').mkdir()
    shutil.move(tmp_path / 'dataset/sequences/07/poses.txt', tmp_path / 'dataset/poses/07.txt')
    assert positions(open_sequence(tmp_path / 'dataset/sequences/07')) == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


def test_a_part_of_a_kitti_sequence_has_the_rows_of_its_numbers(tmp_path):
    sequence = open_sequence(kitti(tmp_path, ['000001.png', '000002.png']))
    assert positions(sequence) == [[0, 0, 1], [0, 0, 2]]
    assert sequence.stamps_ns.tolist() == [1_100_000_000, 1_200_000_000]
    write_images(tmp_path / 'image_0', ['000007.png'])
    (tmp_path / 'image_0/000002.png').unlink()
    with pytest.raises(InputError, match=r'times\.txt has 3 rows for 2 images, 000001\.png to 000007\.png; needs'):
        open_sequence(tmp_path)


# --- EuRoC ---------------------------------------------------------------------------------------------------------


SENSOR = """%YAML:1.0
T_BS: {{cols: 4, rows: 4, data: [0, 0, 1, {x}, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 1]}}
resolution: [32, 24]
intrinsics: [50, 51, 15, 11]
distortion_model: radial-tangential
distortion_coefficients: [-0.1, 0.01, 0.0, 0.0]
"""


def test_euroc_with_ground_truth_of_the_body(tmp_path):
    stamps = [1403715273262142976 + i * 50_000_000 for i in range(3)]
    for camera, x in (('cam0', 0.5), ('cam1', 0.7)):
        write_images(tmp_path / 'mav0' / camera / 'data', [f'{s}.png' for s in stamps])
        (tmp_path / 'mav0' / camera / 'sensor.yaml').write_text(SENSOR.format(x=x))
    (tmp_path / 'mav0' / 'cam1' / 'data' / f'{stamps[2]}.png').unlink()  # a dropped frame
    truth = tmp_path / 'mav0' / 'state_groundtruth_estimate0'
    truth.mkdir()
    quarter = np.sqrt(0.5)  # a quarter turn about z, w first
    rows = [f'{stamps[i] + 2_000_000},{i},2,3,{quarter},0,0,{quarter},9,9,9' for i in range(3)]
    (truth / 'data.csv').write_text('#timestamp, p, q, v\n' + '\n'.join(rows) + '\n')
    sequence = open_sequence(tmp_path)
    assert sequence.stamps_ns.tolist() == stamps[:2] and sequence.rate_hz == pytest.approx(20)
    assert sequence.camera0.is_distorted
    # Both look along the body's x; camera 1 is 0.2 m ahead, so points are nearer to it along z.
    assert np.allclose(sequence.cam1_from_cam0, transform(np.eye(3), (0, 0, -0.2)))
    # The body looks along y after a quarter turn; the camera sits 0.5 m ahead of it.
    assert np.allclose(sequence.world_from_cam0[1][:3, 3], (1, 2.5, 3))
    assert np.allclose(sequence.world_from_cam0[1][:3, 2], (0, 1, 0))


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


# --- TUM RGB-D -----------------------------------------------------------------------------------------------------


def test_tum_rgbd_pairs_stamps_that_differ(tmp_path):
    folder = tmp_path / 'rgbd_dataset_freiburg2_desk'
    write_images(folder / 'rgb', ['100.000000.png', '100.033300.png', '100.500000.png'], size=(640, 480))
    (folder / 'depth').mkdir()
    for name, value in (('100.010000', 5000), ('100.040000', 10000)):
        cv2.imwrite(str(folder / 'depth' / f'{name}.png'), np.full((24, 32), value, np.uint16))
    truth = ['# stamp tx ty tz qx qy qz qw'] + [f'{100 + 0.01 * i:.4f} {i} 0 0 0 0 0 1' for i in range(60)]
    (folder / 'groundtruth.txt').write_text('\n'.join(truth))
    sequence = open_sequence(folder)
    assert sequence.stamps_ns.tolist() == [100_000_000_000, 100_033_300_000]  # the third has no depth
    assert [float(sequence.depth0(i)[0, 0]) for i in (0, 1)] == [1.0, 2.0]
    assert sequence.world_from_cam0[:, 0, 3].tolist() == [0, 3]
    assert sequence.camera0.matrix[0, 0] == 520.9


def test_a_kinect_is_known_for_its_own_size_only(tmp_path, caplog):
    write_images(tmp_path / 'fr1' / 'rgb', ['100.5.png'], (640, 480))
    write_images(tmp_path / 'small_fr1' / 'rgb', ['100.5.png'], (320, 240))
    assert open_sequence(tmp_path / 'fr1').camera0.matrix[0, 0] == 517.3
    assert open_sequence(tmp_path / 'small_fr1').camera0 is None and 'takes 640x480' in caplog.text


# --- TartanAir, ScanNet --------------------------------------------------------------------------------------------


def test_depth_of_tartanair_is_that_of_the_same_number(tmp_path):
    tartanair(tmp_path)
    write_images(tmp_path / 'depth_lcam_front', ['000000_depth.png', '000001_depth.png'])
    with pytest.raises(InputError, match=r"lacks the depth of 1 of 2 images \(\['000002_lcam\.png'\]\)"):
        open_sequence(tmp_path)


def test_scannet_leaves_out_lost_frames_and_keeps_the_camera_of_the_depth(tmp_path, caplog):
    scannet(tmp_path)
    write(tmp_path, '-inf -inf -inf -inf\n' * 4, 'pose/0.txt')
    write(tmp_path, '25 0 16 0\n0 25 12 0\n0 0 1 0\n0 0 0 1\n', 'intrinsic/intrinsic_depth.txt')
    sequence = open_sequence(tmp_path)
    assert [int(frame.image[0, 0]) for frame in sequence.frames(0)] == [1] and len(sequence) == 1
    assert '1 images without a pose' in caplog.text
    assert (sequence.camera0.matrix[0, 0], sequence.depth_matrix0[0, 0]) == (50, 25)
    assert (sequence.depth0(0) == 1.0).all(), 'millimetres'
    write(tmp_path, '-inf -inf -inf -inf\n' * 4, 'pose/1.txt')
    with pytest.raises(InputError, match='has no pose for any of 2 images'):
        open_sequence(tmp_path)
