"""Rendered, saved and public sequences: what goes in comes out, and the stated axes fit the images."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from loftr_ros.config import MatcherConfig
from loftr_ros.datasets import Sequence, open_sequence, rendered_drive, save_sequence
from loftr_ros.datasets.calibration import camera_from_yaml, camera_to_yaml
from loftr_ros.datatypes import Camera, CameraModel
from loftr_ros.errors import InputError
from loftr_ros.evaluation.baselines import create_baseline
from loftr_ros.geometry import epipolar_error_px, rotation_from_vector, transform
from loftr_ros.matchers import match_images

DATA = Path(__file__).parents[2] / 'shared' / 'data'
CAMERA = Camera([[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], 32, 24)


def needs(name):
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f'needs {DATA / name}')


def small_sequence(count=3, stereo=True):
    """Noise images, poses with every digit used, uneven stamps with nanoseconds."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, count, 24, 32, 3), dtype=np.uint8)
    poses = [transform(rotation_from_vector(rng.normal(size=3)), rng.normal(size=3)) for _ in range(count)]
    return Sequence(
        name='small',
        rate_hz=20.0,
        stamps_ns=1_700_000_000_123_456_789 + np.cumsum(rng.integers(45_000_000, 55_000_000, count)),
        load=tuple((lambda i, side=side: images[side][i]) for side in range(2 if stereo else 1)),
        camera0=CAMERA,
        camera1=CAMERA if stereo else None,
        world_from_cam0=np.stack(poses),
        cam1_from_cam0=transform(np.eye(3), (-0.123456789, 0, 0)) if stereo else None,
    )


def warp(image1, camera, depth0, cam1_from_cam0):
    """Image 1 as camera 0 would see it, by the depth of image 0."""
    y, x = np.indices(depth0.shape)
    rays = np.linalg.solve(camera.matrix, np.stack([x, y, np.ones_like(x)]).reshape(3, -1).astype(float))
    points = cam1_from_cam0[:3, :3] @ (rays * depth0.ravel()) + cam1_from_cam0[:3, 3:]
    u, v = ((camera.matrix @ points)[:2] / np.maximum(points[2], 1e-6)).reshape(2, *depth0.shape).astype(np.float32)
    return cv2.remap(image1, u, v, cv2.INTER_LINEAR), (u >= 0) & (u < x.max()) & (v >= 0) & (v < y.max())


def errors_of_warp_and_of_identity(sequence, index0, index1):
    """Median grey difference after the warp from frame index1 into index0, and without one."""
    grey0, grey1 = (cv2.cvtColor(sequence.frames(i)[0].image, cv2.COLOR_BGR2GRAY) for i in (index0, index1))
    cam1_from_cam0 = np.linalg.inv(sequence.world_from_cam0[index1]) @ sequence.world_from_cam0[index0]
    depth0 = sequence.depth0(index0)
    warped, valid = warp(grey1, sequence.camera0, depth0, cam1_from_cam0)
    valid &= depth0 > 0
    difference = np.abs(warped.astype(int) - grey0)[valid]
    return difference.mean(), np.abs(grey1.astype(int) - grey0)[valid].mean()


# --- saved and opened again --------------------------------------------------------------------------------------


@pytest.mark.parametrize('stereo', [True, False])
def test_what_is_saved_is_opened_again(tmp_path, stereo):
    sequence, done = small_sequence(stereo=stereo), []
    save_sequence(sequence, tmp_path / 'drive', progress=done.append)
    again = open_sequence(tmp_path / 'drive')
    assert done == [1, 2, 3]
    assert again.name == 'drive' and len(again) == 3 and again.is_stereo == stereo
    assert (again.stamps_ns == sequence.stamps_ns).all(), 'nanoseconds survive'
    assert np.allclose(again.world_from_cam0, sequence.world_from_cam0, atol=1e-10)  # written with 12 decimals
    assert again.rate_hz == pytest.approx(1e9 / np.median(np.diff(sequence.stamps_ns)))
    for index in range(3):
        for have, want in zip(again.frames(index), sequence.frames(index), strict=True):
            assert (have.image == want.image).all()
            assert (have.stamp_ns, have.frame_id) == (want.stamp_ns, want.frame_id)
            assert (have.camera.matrix == CAMERA.matrix).all() and not have.camera.is_distorted
    if stereo:
        assert np.allclose(again.cam1_from_cam0, sequence.cam1_from_cam0, atol=1e-12)


def test_a_shorter_sequence_saved_over_a_longer_one_leaves_no_images_of_it(tmp_path):
    save_sequence(small_sequence(count=5), tmp_path)
    save_sequence(small_sequence(count=2, stereo=False), tmp_path)
    again = open_sequence(tmp_path)
    assert len(again) == 2 and not again.is_stereo
    assert sorted(file.name for file in tmp_path.iterdir()) == ['left', 'left.yaml', 'poses.txt', 'stamps.txt']


def test_a_sequence_is_not_saved_over_images_of_another_origin(tmp_path):
    write_images(tmp_path / 'left', ['holiday.png'])
    with pytest.raises(InputError, match=r'contains holiday\.png.*choose another folder'):
        save_sequence(small_sequence(), tmp_path)
    assert (tmp_path / 'left' / 'holiday.png').is_file()


def test_the_right_yaml_holds_the_baseline_as_ros_does(tmp_path):
    import yaml

    save_sequence(small_sequence(), tmp_path)
    document = yaml.safe_load((tmp_path / 'right.yaml').read_text())
    assert document['projection_matrix']['data'][3] == pytest.approx(-50 * 0.123456789)  # Tx = -fx * baseline
    assert document['image_width'] == 32 and document['camera_matrix']['cols'] == 3


def test_only_a_rectified_pair_can_be_saved(tmp_path):
    turned = small_sequence()
    object.__setattr__(turned, 'cam1_from_cam0', transform(rotation_from_vector((0, 0.1, 0)), (-0.1, 0, 0)))
    with pytest.raises(InputError, match='not rectified'):
        save_sequence(turned, tmp_path)


@pytest.mark.parametrize(
    ('model', 'coefficients'),
    [
        (CameraModel.PLUMB_BOB, (0.1, -0.2, 0.001, 0.002, 0.05)),
        (CameraModel.RATIONAL_POLYNOMIAL, (0.1, 0.2, 0.001, 0.002, 0.3, 0.4, 0.5, 0.6)),
        (CameraModel.EQUIDISTANT, (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_a_camera_survives_its_yaml(tmp_path, model, coefficients):
    camera = Camera(CAMERA.matrix, 32, 24, coefficients, model)
    camera_to_yaml(camera, tmp_path / 'camera.yaml')
    again = camera_from_yaml(tmp_path / 'camera.yaml')
    assert (again.matrix == camera.matrix).all() and (again.distortion == camera.distortion).all()
    assert (again.model, again.width, again.height) == (model, 32, 24)


def test_rectification_and_projection_survive_the_yaml(tmp_path):
    rectification = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    projection = np.array([[24.0, 0, 16, -2.4], [0, 24, 12, 0], [0, 0, 1, 0]])
    camera = Camera(CAMERA.matrix, 32, 24, rectification=rectification, projection=projection)
    camera_to_yaml(camera, tmp_path / 'camera.yaml')
    again = camera_from_yaml(tmp_path / 'camera.yaml')
    np.testing.assert_array_equal(again.rectification, rectification)
    np.testing.assert_array_equal(again.projection, projection)


def test_rectification_matrices_give_the_extrinsics_of_raw_images(tmp_path):
    """x_rect = R x_cam for each camera, and the rectified ones differ by the baseline along x."""
    import yaml

    rotations = [rotation_from_vector((0.01, 0.02, -0.03)), rotation_from_vector((-0.02, 0.05, 0.01))]
    for side, rotation, baseline_m in zip(('left', 'right'), rotations, (0.0, 0.2), strict=True):
        file = tmp_path / f'{side}.yaml'
        camera_to_yaml(CAMERA, file, side, baseline_m)
        document = yaml.safe_load(file.read_text())
        document['rectification_matrix']['data'] = [float(x) for x in rotation.ravel()]
        file.write_text(yaml.safe_dump(document))
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / '0.png'), np.zeros((24, 32), np.uint8))
    point0 = np.array([0.3, -0.2, 2.0])
    point1 = rotations[1].T @ (rotations[0] @ point0 + (-0.2, 0, 0))
    have = open_sequence(tmp_path).cam1_from_cam0 @ [*point0, 1]
    assert np.allclose(have[:3], point1)


# --- rendered ----------------------------------------------------------------------------------------------------


def test_a_rendered_drive_opens_at_once_and_is_consistent():
    sequence = rendered_drive(seed=2, num_frames=5, baseline_m=0.2, size=(160, 120))
    assert (len(sequence), sequence.is_stereo, sequence.rate_hz, sequence.has_depth) == (5, True, 10.0, True)
    assert (np.diff(sequence.stamps_ns) == 100_000_000).all()
    left, right = sequence.frames(0)
    assert left.image.shape == (120, 160, 3) and left.stamp_ns == right.stamp_ns
    assert left.frame_id != right.frame_id
    # The right view agrees with the left one by depth and the stated extrinsics.
    depth = sequence.depth0(0)
    warped, valid = warp(right.image, left.camera, depth, sequence.cam1_from_cam0)
    aligned = np.abs(warped.astype(int) - left.image)[valid].mean()
    assert aligned < 0.5 * np.abs(right.image.astype(int) - left.image)[valid].mean()
    after, before = errors_of_warp_and_of_identity(sequence, 0, 2)
    assert after < 0.6 * before
    assert (sequence.frames(0)[0].image == left.image).all(), 'noise is drawn from the seed'


# --- plain folders -----------------------------------------------------------------------------------------------


def write_images(folder, names, value=7, size=(32, 24)):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full(size[::-1], value + number, np.uint8))


def test_plain_images_come_in_natural_order_without_a_camera(tmp_path):
    write_images(tmp_path, ['img2.png', 'img10.png', 'img1.png'])
    (tmp_path / 'notes.txt').write_text('no image')
    sequence = open_sequence(tmp_path, rate_hz=4)
    assert [int(sequence.frames(i)[0].image[0, 0]) for i in range(3)] == [9, 7, 8]  # 1, 2, 10
    assert sequence.camera0 is None and sequence.frames(0)[0].camera is None
    assert np.diff(sequence.stamps_ns).tolist() == [250_000_000] * 2 and sequence.stamps_ns[0] > 0


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


def test_images_are_not_read_before_they_are_asked_for(tmp_path):
    write_images(tmp_path, ['0.png', '1.png'])
    (tmp_path / '1.png').write_bytes(b'broken')
    sequence = open_sequence(tmp_path)
    sequence.frames(0)
    with pytest.raises(InputError, match=r'1\.png is not an image'):
        sequence.frames(1)


def test_errors_say_what_was_found_and_what_is_needed(tmp_path):
    with pytest.raises(InputError, match='is nothing; needs a folder'):
        open_sequence(tmp_path / 'absent')
    (tmp_path / 'readme.md').write_text('')
    with pytest.raises(InputError, match=r'contains readme\.md; needs one of these layouts: KITTI .*images'):
        open_sequence(tmp_path)
    with pytest.raises(InputError, match='needs camera_matrix'):
        (tmp_path / 'camera.yaml').write_text('focal: 3')
        camera_from_yaml(tmp_path / 'camera.yaml')
    with pytest.raises(InputError, match=r'camera\.yaml:1 camera_matrix needs a 3x3 matrix, got shape \(2,\)'):
        (tmp_path / 'camera.yaml').write_text('camera_matrix: {data: [1, 2]}')
        camera_from_yaml(tmp_path / 'camera.yaml')
    write_images(tmp_path / 'pair' / 'left', ['0.png', '1.png'])
    write_images(tmp_path / 'pair' / 'right', ['0.png'])
    with pytest.raises(InputError, match='2 left and 1 right'):
        open_sequence(tmp_path / 'pair')
    with pytest.raises(InputError, match='no depth'):
        small_sequence().depth0(0)
    with pytest.raises(IndexError):
        small_sequence().frames(3)


# --- the layouts of data sets, made by hand ------------------------------------------------------------------------


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
    # Camera 2 lies 0.1 m left of camera 0, whose poses the file gives.
    assert np.allclose(sequence.world_from_cam0[1][:3, 3], (-0.1, 0, 2))
    assert np.diff(sequence.stamps_ns).tolist() == [103_000_000]


def test_kitti_matrices_that_run_into_each_other(tmp_path):
    write_images(tmp_path / 'image_l', ['0.png'])
    first = '7.0e+01 0.0e+00 1.55e+01 0.0e+00 0.0e+00 7.0e+01 1.15e+01 0.0e+00 0.0e+00 0.0e+00 1.0e+00 0.0e+00'
    (tmp_path / 'calib.txt').write_text(first + first.replace('1.55e+01 0.0e+00', '1.55e+01 -3.5e+01'))
    assert open_sequence(tmp_path).camera0.matrix[0].tolist() == [70.0, 0.0, 15.5]
    shutil.copytree(tmp_path / 'image_l', tmp_path / 'image_r')
    assert np.allclose(open_sequence(tmp_path).cam1_from_cam0[:3, 3], (-0.5, 0, 0))


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


def write_colmap(folder, cameras, placed):
    """A model in sparse/0 with photographs of 32x24; the second line of each, its points, may be empty."""
    (folder / 'sparse' / '0').mkdir(parents=True)
    (folder / 'sparse' / '0' / 'cameras.txt').write_text('# Camera list\n' + cameras)
    numbered = zip((9, 4), placed.items(), ('', '1.5 2 -1'), strict=True)
    lines = [f'{number} {pose} {name}\n{points}\n' for number, (name, pose), points in numbered]
    (folder / 'sparse' / '0' / 'images.txt').write_text('# Image list\n' + ''.join(lines))
    write_images(folder / 'images', [Path(name).name for name in placed])


# A quarter turn about z (w first), then a shift: cam_from_world.
COLMAP_PHOTOGRAPHS = {'p 10.png': '1 0 0 0 1 2 3 7', 'p 9.png': f'{np.sqrt(0.5)} 0 0 {np.sqrt(0.5)} 1 2 3 7'}


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
    write_colmap(tmp_path, f'7 {line}\n', COLMAP_PHOTOGRAPHS)
    sequence = open_sequence(tmp_path)
    assert [int(sequence.frames(i)[0].image[0, 0]) for i in (0, 1)] == [8, 7]  # 9 before 10
    camera = sequence.camera0
    # The middle of 32x24 lies at (16, 12) from the corner, at (15.5, 11.5) from the first pixel's centre.
    assert camera.matrix.tolist() == [[focals[0], 0, 15.5], [0, focals[1], 11.5], [0, 0, 1]]
    assert (tuple(camera.distortion), camera.model) == (distortion, model)
    cam_from_world = transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], (1, 2, 3))
    assert np.allclose(sequence.world_from_cam0[0], np.linalg.inv(cam_from_world))
    assert np.allclose(sequence.world_from_cam0[1], transform(np.eye(3), (-1, -2, -3)))


def test_what_a_colmap_model_cannot_give_is_refused_with_the_remedy(tmp_path):
    camera = 'PINHOLE 32 24 50 51 16 12'
    write_colmap(
        tmp_path / 'two', f'7 {camera}\n8 {camera}\n', {'a.png': '1 0 0 0 1 2 3 7', 'b.png': '1 0 0 0 1 2 3 8'}
    )
    with pytest.raises(InputError, match=r'cameras \[7, 8\].*single_camera'):
        open_sequence(tmp_path / 'two')
    write_colmap(tmp_path / 'wide', '7 FOV 32 24 50 51 16 12 0.9\n', COLMAP_PHOTOGRAPHS)
    with pytest.raises(InputError, match=r"cameras\.txt:2 .*'FOV' is unknown; known: SIMPLE_PINHOLE.*undistort"):
        open_sequence(tmp_path / 'wide')
    write_colmap(tmp_path / 'lost', f'7 {camera}\n', COLMAP_PHOTOGRAPHS)
    shutil.copytree(tmp_path / 'lost' / 'sparse' / '0', tmp_path / 'lost' / 'sparse' / '1')
    with pytest.raises(InputError, match='several COLMAP models: sparse/0, sparse/1'):
        open_sequence(tmp_path / 'lost')
    shutil.rmtree(tmp_path / 'lost' / 'sparse' / '1')
    (tmp_path / 'lost' / 'images' / 'p 9.png').unlink()
    with pytest.raises(InputError, match=r'has the poses of 2 images, of which images/ lacks 1 .*p 9\.png'):
        open_sequence(tmp_path / 'lost')


# --- real data ---------------------------------------------------------------------------------------------------


@needs('kitti06')
def test_kitti06_is_51_frames_of_the_stated_camera():
    sequence = open_sequence(DATA / 'kitti06')
    assert (len(sequence), sequence.is_stereo, sequence.rate_hz) == (51, False, pytest.approx(10))
    matrix = sequence.camera0.matrix
    assert (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]) == (707.0912, 707.0912, 601.8873, 183.1104)
    (frame,) = sequence.frames(50)
    assert frame.image.shape == (370, 1226) and not frame.camera.is_distorted
    steps = np.diff(sequence.world_from_cam0[:, :3, 3], axis=0)
    assert np.linalg.norm(steps[0]) == pytest.approx(1.2, abs=0.01)
    # A car drives forward: along the optical z axis of the pose.
    assert steps[0] @ sequence.world_from_cam0[0][:3, 2] > 1.19


@needs('tartanair_stereo_rgbd')
def test_tartanair_axes_baseline_and_depth_fit_the_images():
    sequence = open_sequence(DATA / 'tartanair_stereo_rgbd')
    assert (len(sequence), sequence.is_stereo, sequence.has_depth) == (10, True, True)
    assert sequence.camera0.matrix[0].tolist() == [320, 0, 320]
    after, before = errors_of_warp_and_of_identity(sequence, 0, 1)
    assert after < 0.5 * before
    left, right = sequence.frames(0)
    warped, valid = warp(right.image, left.camera, sequence.depth0(0), sequence.cam1_from_cam0)
    aligned = np.abs(warped.astype(int) - left.image)[valid].mean()
    assert aligned < 0.5 * np.abs(right.image.astype(int) - left.image)[valid].mean()
    # z is up in the world of ROS: the image's down is the world's down.
    assert (sequence.world_from_cam0[:, 2, 1] < -0.5).all()


@needs('tum_fr1_rgbd')
def test_tum_fr1_poses_and_depth_fit_the_images():
    sequence = open_sequence(DATA / 'tum_fr1_rgbd')
    assert len(sequence) == 10 and sequence.camera0.matrix[0, 0] == 517.3
    after, before = errors_of_warp_and_of_identity(sequence, 0, 9)
    assert after < 0.8 * before  # rolling shutter and noisy depth: 3.8 px median
    assert sequence.world_from_cam0[0][0, 3] == 1.3434


@needs('euroc_v1_01_at_rest')
def test_euroc_is_a_distorted_stereo_pair():
    sequence = open_sequence(DATA / 'euroc_v1_01_at_rest')
    assert (len(sequence), sequence.is_stereo) == (20, True) and sequence.rate_hz == pytest.approx(20, rel=1e-3)
    assert sequence.camera0.is_distorted and sequence.camera1.matrix[0, 0] == 457.587
    assert sequence.stamps_ns[0] == 1403715273262142976
    # The rig is 11 cm wide, the right camera to the right.
    assert sequence.cam1_from_cam0[0, 3] == pytest.approx(-0.110, abs=0.001)
    assert sequence.cam1_from_cam0[:3, :3].trace() > 2.999  # and they look alike


@needs('lund_door')
def test_lund_door_poses_and_camera_fit_the_photographs():
    sequence = open_sequence(DATA / 'lund_door')
    assert len(sequence) == 12 and sequence.camera0.matrix[0].tolist() == [2435.38, 0, 647.5]
    matcher = create_baseline(MatcherConfig(name='sift', max_matches=500))
    matches = match_images(matcher, *(sequence.frames(i)[0].image for i in (5, 6)))
    truth = np.linalg.inv(sequence.world_from_cam0[6]) @ sequence.world_from_cam0[5]
    cameras = (sequence.camera0, sequence.camera0)
    error = np.median(epipolar_error_px(truth, matches.keypoints0, matches.keypoints1, *cameras))
    assert error < 0.2  # 0.07 px; the poses come from SIFT themselves
