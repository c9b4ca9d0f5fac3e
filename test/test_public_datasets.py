"""Published data sets: their numbers, axes, baseline and depth agree with the images."""

import numpy as np
import pytest
from data import shared_data
from warping import errors_of_warp_and_of_identity, warp

from loftr_ros.config import MatcherConfig
from loftr_ros.datasets import open_sequence
from loftr_ros.geometry import epipolar_error_px
from loftr_ros.matchers import create_matcher, match_images


def test_kitti06_is_51_frames_of_the_stated_camera():
    sequence = open_sequence(shared_data('kitti06'))
    assert (len(sequence), sequence.is_stereo, sequence.rate_hz) == (51, False, pytest.approx(10))
    matrix = sequence.camera0.matrix
    assert (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]) == (707.0912, 707.0912, 601.8873, 183.1104)
    (frame,) = sequence.frames(50)
    assert frame.image.shape == (370, 1226) and not frame.camera.is_distorted
    steps = np.diff(sequence.world_from_cam0[:, :3, 3], axis=0)
    assert np.linalg.norm(steps[0]) == pytest.approx(1.2, abs=0.01)
    # A car drives forward: along the optical z axis of the pose.
    assert steps[0] @ sequence.world_from_cam0[0][:3, 2] > 1.19


def test_tartanair_axes_baseline_and_depth_fit_the_images():
    sequence = open_sequence(shared_data('tartanair_stereo_rgbd'))
    assert (len(sequence), sequence.is_stereo, sequence.has_depth) == (10, True, True)
    assert sequence.camera0.matrix[0].tolist() == [320, 0, 319.5]
    after, before = errors_of_warp_and_of_identity(sequence, 0, 1)
    assert after < 0.5 * before
    left, right = sequence.frames(0)
    warped, valid = warp(right.image, left.camera, sequence.depth0(0), sequence.cam1_from_cam0)
    aligned = np.abs(warped.astype(int) - left.image)[valid].mean()
    assert aligned < 0.5 * np.abs(right.image.astype(int) - left.image)[valid].mean()
    # z is up in the world of ROS: the image's down is the world's down.
    assert (sequence.world_from_cam0[:, 2, 1] < -0.5).all()


def test_tum_fr1_poses_and_depth_fit_the_images():
    sequence = open_sequence(shared_data('tum_fr1_rgbd'))
    assert len(sequence) == 10 and sequence.camera0.matrix[0, 0] == 517.3
    after, before = errors_of_warp_and_of_identity(sequence, 0, 9)
    assert after < 0.8 * before  # rolling shutter and noisy depth: 3.8 px median
    assert sequence.world_from_cam0[0][0, 3] == 1.3434


def test_euroc_is_a_distorted_stereo_pair():
    sequence = open_sequence(shared_data('euroc_v1_01_at_rest'))
    assert (len(sequence), sequence.is_stereo) == (20, True) and sequence.rate_hz == pytest.approx(20, rel=1e-3)
    assert sequence.camera0.is_distorted and sequence.camera1.matrix[0, 0] == 457.587
    assert sequence.stamps_ns[0] == 1403715273262142976
    # The rig is 11 cm wide, the right camera to the right.
    assert sequence.cam1_from_cam0[0, 3] == pytest.approx(-0.110, abs=0.001)
    assert sequence.cam1_from_cam0[:3, :3].trace() > 2.999  # and they look alike


def test_lund_door_poses_and_camera_fit_the_photographs():
    sequence = open_sequence(shared_data('lund_door'))
    assert len(sequence) == 12 and sequence.camera0.matrix[0].tolist() == [2435.38, 0, 647.5]
    matcher = create_matcher(MatcherConfig(name='sift', max_matches=500, subpixel='none'))
    matches = match_images(matcher, *(sequence.frames(i)[0].image for i in (5, 6)))
    truth = np.linalg.inv(sequence.world_from_cam0[6]) @ sequence.world_from_cam0[5]
    cameras = (sequence.camera0, sequence.camera0)
    error = np.median(epipolar_error_px(truth, matches.keypoints0, matches.keypoints1, *cameras))
    assert error < 0.2  # 0.07 px; the poses come from SIFT themselves
