"""Relative pose of real images with known calibration and motion, from SIFT matches."""

import re

import cv2
import numpy as np
import pytest
from data import shared_data
from pose_scenes import ESTIMATORS, errors_deg, estimate, matches_of

from loftr_ros import geometry
from loftr_ros.camera import Camera
from loftr_ros.datatypes import Matches, PoseStatus


def sift_matches(image0, image1) -> Matches:
    detector = cv2.SIFT_create(2000)
    (keypoints0, descriptors0), (keypoints1, descriptors1) = (
        detector.detectAndCompute(image, None) for image in (image0, image1)
    )
    pairs = cv2.BFMatcher().knnMatch(descriptors0, descriptors1, k=2)
    good = [best for best, second in pairs if best.distance < 0.8 * second.distance]
    return matches_of(
        np.array([keypoints0[match.queryIdx].pt for match in good]),
        np.array([keypoints1[match.trainIdx].pt for match in good]),
    )


def euroc(name: str):
    """Return the images, the camera and body_from_cam of one camera of EuRoC V1_01."""
    folder = shared_data('euroc_v1_01_at_rest') / name
    text = (folder / 'sensor.yaml').read_text()

    def numbers(key):
        return [float(x) for x in re.search(key + r':\s*\[([^\]]*)\]', text).group(1).split(',')]

    fx, fy, cx, cy = numbers('intrinsics')
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob('*.png'))]
    height, width = images[0].shape
    matrix = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    return (
        images,
        Camera(matrix, width, height, numbers('distortion_coefficients')),
        np.reshape(numbers('data'), (4, 4)),
    )


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_distorted_stereo_images_give_the_stated_extrinsics(estimator):
    images0, camera0, body_from_cam0 = euroc('cam0')
    images1, camera1, body_from_cam1 = euroc('cam1')
    truth = geometry.invert_transform(body_from_cam1) @ body_from_cam0
    for index in (0, 10):
        pose = estimate(sift_matches(images0[index], images1[index]), (camera0, camera1), estimator=estimator)
        rotation_deg, direction_deg = errors_deg(pose, truth[:3, :3], truth[:3, 3])
        assert pose.status is PoseStatus.OK
        assert rotation_deg < 0.5
        assert direction_deg < 5


@pytest.mark.parametrize('estimator', ESTIMATORS)
def test_images_of_a_vehicle_at_rest_are_static(estimator):
    images, camera0, _ = euroc('cam0')
    for index in (0, 6, 14):  # 0 is still to 0.01 px, 6 trembles by 0.1 px, 14 by 0.7 px
        pose = estimate(sift_matches(images[index], images[index + 1]), (camera0, camera0), estimator=estimator)
        assert pose.status is PoseStatus.STATIC


def test_consecutive_images_of_a_car():
    """KITTI 06, 10 Hz: rotation to 0.2 degrees in the median, direction of travel to 2 degrees."""
    folder = shared_data('kitti06')
    paths = sorted((folder / 'image_l').iterdir())
    poses = [np.vstack([row.reshape(3, 4), [0, 0, 0, 1]]) for row in np.loadtxt(folder / 'poses.txt')]
    kitti = Camera([[707.0912, 0, 601.8873], [0, 707.0912, 183.1104], [0, 0, 1]], 1226, 370)
    found = []
    for index in (0, 20, 40):
        image0, image1 = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths[index : index + 2])
        pose = estimate(sift_matches(image0, image1), (kitti, kitti))
        truth = geometry.invert_transform(poses[index + 1]) @ poses[index]
        found.append(errors_deg(pose, truth[:3, :3], truth[:3, 3]))
    rotation_deg, direction_deg = np.median(found, axis=0)
    assert rotation_deg < 0.2
    assert direction_deg < 2
