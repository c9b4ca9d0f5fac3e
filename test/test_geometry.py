"""Rotations, camera models and two-view formulas, on cases whose answer is known by construction or from OpenCV."""

import cv2
import numpy as np
import pytest

from loftr_ros import geometry
from loftr_ros.camera import Camera, CameraModel
from loftr_ros.errors import InputError

MATRIX = np.array([[460.0, 0.5, 370.0], [0.0, 458.0, 248.0], [0.0, 0.0, 1.0]])
EUROC = (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05)
LENSES = {
    'none': (CameraModel.PLUMB_BOB, ()),
    'euroc': (CameraModel.PLUMB_BOB, EUROC),
    'plumb_bob': (CameraModel.PLUMB_BOB, (-0.32, 0.15, 1e-3, -5e-4, -0.02)),
    'rational_8': (CameraModel.RATIONAL_POLYNOMIAL, (0.9, 0.2, 3e-4, -2e-4, 0.01, 1.2, 0.4, 0.03)),
    'rational_12': (
        CameraModel.RATIONAL_POLYNOMIAL,
        (0.9, 0.2, 3e-4, -2e-4, 0.01, 1.2, 0.4, 0.03, 2e-3, -1e-3, 1e-3, 5e-4),
    ),
    'rational_14': (
        CameraModel.RATIONAL_POLYNOMIAL,
        (0.9, 0.2, 3e-4, -2e-4, 0.01, 1.2, 0.4, 0.03, 2e-3, -1e-3, 1e-3, 5e-4, 0.04, -0.03),
    ),
    'equidistant': (CameraModel.EQUIDISTANT, (-0.01, 0.02, -0.015, 0.004)),
}


def camera_with(lens: str) -> Camera:
    model, distortion = LENSES[lens]
    return Camera(MATRIX, 752, 480, distortion, model)


def grid(camera: Camera, step: int = 16) -> np.ndarray:
    x, y = np.meshgrid(np.arange(0, camera.width, step), np.arange(0, camera.height, step))
    return np.column_stack([x.ravel(), y.ravel()]).astype(float)


def random_rotation(random, scale=1.0) -> np.ndarray:
    return geometry.rotation_from_vector(random.normal(size=3) * scale)


def test_skew_is_the_cross_product():
    a, b = np.array([1.0, -2.0, 3.0]), np.array([0.5, 4.0, -1.0])
    np.testing.assert_allclose(geometry.skew(a) @ b, np.cross(a, b))
    np.testing.assert_allclose(geometry.skew(np.stack([a, b]))[1], geometry.skew(b))


def test_a_quarter_turn_about_z_takes_x_to_y():
    rotation = geometry.rotation_from_vector([0, 0, np.pi / 2])
    np.testing.assert_allclose(rotation @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(geometry.quaternion_from_matrix(rotation), [0, 0, 0.5**0.5, 0.5**0.5], atol=1e-15)


@pytest.mark.parametrize('angle', [0.0, 1e-12, 1e-7, 1e-3, 1.0, 3.0, np.pi - 1e-6, np.pi])
def test_rotation_vector_and_back_at_every_size(angle):
    vector = angle * np.array([2.0, -1.0, 0.5]) / np.linalg.norm([2.0, -1.0, 0.5])
    rotation = geometry.rotation_from_vector(vector)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    back = geometry.vector_from_rotation(rotation)
    # At half a turn both signs are the same rotation.
    assert min(np.linalg.norm(back - vector), np.linalg.norm(back + vector) + (angle < np.pi)) < 1e-9
    assert geometry.rotation_angle(rotation) == pytest.approx(angle, abs=1e-9)


def test_quaternion_and_back_for_every_largest_component():
    random = np.random.default_rng(0)
    for quaternion in [*np.eye(4), *random.normal(size=(50, 4))]:
        rotation = geometry.matrix_from_quaternion(quaternion)
        back = geometry.quaternion_from_matrix(rotation)
        assert back[3] >= 0
        assert abs(back @ quaternion / np.linalg.norm(quaternion)) == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(geometry.matrix_from_quaternion(back), rotation, atol=1e-12)


def test_a_quaternion_of_zeros_is_refused():
    with pytest.raises(InputError, match='not 0'):
        geometry.matrix_from_quaternion([0, 0, 0, 0])


def test_a_transform_times_its_inverse_is_the_identity():
    random = np.random.default_rng(1)
    transform = geometry.transform(random_rotation(random), random.normal(size=3))
    np.testing.assert_allclose(geometry.invert_transform(transform) @ transform, np.eye(4), atol=1e-14)


@pytest.mark.parametrize('lens', LENSES)
def test_project_agrees_with_opencv(lens):
    model, distortion = LENSES[lens]
    matrix = MATRIX.copy()
    matrix[0, 1] = 0  # cv2.projectPoints knows no skew
    camera = Camera(matrix, 752, 480, distortion, model)
    points = np.random.default_rng(2).uniform([-1, -0.6, 1], [1, 0.6, 3], size=(200, 3))
    if model is CameraModel.EQUIDISTANT:
        theirs, _ = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), matrix, np.array(distortion))
    else:
        theirs, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, np.array(distortion))
    ours = geometry.project(camera, points)
    reached = np.isfinite(ours).all(axis=1)
    assert reached.mean() > 0.8
    np.testing.assert_allclose(ours[reached], theirs[:, 0][reached], atol=1e-6)


@pytest.mark.parametrize('lens', LENSES)
def test_undistortion_is_the_inverse_over_the_whole_image(lens):
    camera = camera_with(lens)
    pixels = grid(camera)
    points = geometry.undistort_points(camera, pixels)
    assert np.isfinite(points).all(), 'these lenses see the whole image'
    back = geometry.project(camera, geometry.homogeneous(points))
    np.testing.assert_allclose(back, pixels, atol=1e-5)  # needed: 1e-3 px


@pytest.mark.parametrize('lens', LENSES)
def test_undistortion_jacobian_agrees_with_differences(lens):
    camera = camera_with(lens)
    pixels, step = grid(camera, 60), 1e-3
    _, jacobian = geometry.undistort_with_jacobian(camera, pixels)
    for axis in range(2):
        move = step * np.eye(2)[axis]
        ahead, behind = (geometry.undistort_points(camera, pixels + sign * move) for sign in (1, -1))
        np.testing.assert_allclose(jacobian[:, :, axis], (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-8)


def test_pixels_outside_the_invertible_field_are_nan_and_the_others_exact():
    """r (1 - 0.5 r^2) grows up to r = sqrt(2/3), where it is 0.5443: no ray has a larger distorted radius."""
    camera = Camera(np.diag([500.0, 500.0, 1.0]), 800, 600, (-0.5, 0, 0, 0))
    limit = 500 * (2 / 3) ** 0.5 * (1 - 0.5 * 2 / 3)
    pixels = np.array([[limit - 0.5, 0], [limit + 0.5, 0], [0, limit + 40], [2000, 2000], [10, 5]])
    points = geometry.undistort_points(camera, pixels)
    np.testing.assert_array_equal(np.isfinite(points).all(axis=1), [True, False, False, False, True])
    good = [0, 4]
    np.testing.assert_allclose(geometry.project(camera, geometry.homogeneous(points[good])), pixels[good], atol=1e-5)


def test_points_behind_the_camera_or_folded_into_the_image_do_not_project():
    camera = Camera(np.diag([500.0, 500.0, 1.0]), 800, 600, (-0.5, 0, 0, 0))
    pixels = geometry.project(camera, [[0, 0, -1], [0.1, 0, 1], [1.3, 0, 1]])
    np.testing.assert_array_equal(np.isfinite(pixels).all(axis=1), [False, True, False])


def test_a_fisheye_pixel_180_degrees_from_the_axis_has_no_ray():
    camera = Camera(np.diag([200.0, 200.0, 1.0]), 800, 800, (0, 0, 0, 0), CameraModel.EQUIDISTANT)
    points = geometry.undistort_points(camera, [[200 * np.deg2rad(80), 0], [200 * np.deg2rad(95), 0]])
    assert points[0, 0] == pytest.approx(np.tan(np.deg2rad(80)), rel=1e-9)
    assert np.isnan(points[1]).all()


def test_nan_and_infinite_pixels_give_nan_and_disturb_no_other():
    for lens in LENSES:
        points = geometry.undistort_points(camera_with(lens), [[np.nan, 1], [np.inf, 1], [100, 200]])
        assert not np.isfinite(points[:2]).all(axis=1).any()
        np.testing.assert_allclose(points[2:], geometry.undistort_points(camera_with(lens), [[100, 200]]))


def two_views(seed=3, count=50):
    random = np.random.default_rng(seed)
    pose = geometry.transform(random_rotation(random, 0.1), random.normal(size=3))
    points = random.uniform([-2, -2, 4], [2, 2, 9], size=(count, 3))
    moved = points @ pose[:3, :3].T + pose[:3, 3]
    return pose, points, points[:, :2] / points[:, 2:], moved[:, :2] / moved[:, 2:]


def test_triangulation_finds_the_points():
    pose, points, x0, x1 = two_views()
    np.testing.assert_allclose(geometry.triangulate(pose, x0, x1), points, rtol=1e-9)
    rays0, rays1 = (geometry.homogeneous(x).T for x in (x0, x1))
    assert geometry.in_front(pose[:3, :3], pose[:3, 3], rays0, rays1).all()
    assert not geometry.in_front(pose[:3, :3], -pose[:3, 3], rays0, rays1).any()


def test_parallel_rays_meet_nowhere_and_have_no_parallax():
    pose = geometry.transform(np.eye(3), [1.0, 0, 0])
    x = np.array([[0.1, 0.2]])
    assert np.isnan(geometry.triangulate(pose, x, x)).all()
    assert geometry.parallax_angles(np.eye(3), x, x)[0] == pytest.approx(0, abs=1e-12)


def test_parallax_is_the_angle_at_the_point():
    """A point 10 away straight ahead, seen from 1 to the side: atan(1/10)."""
    parallax = geometry.parallax_angles(np.eye(3), np.array([[0.0, 0.0]]), np.array([[-0.1, 0.0]]))
    assert parallax[0] == pytest.approx(np.arctan(0.1), rel=1e-12)


def test_true_matches_have_no_epipolar_error_and_e_is_found_again():
    pose, _, x0, x1 = two_views()
    essential = geometry.essential_from_pose(pose)
    unit = np.broadcast_to(np.eye(2)[..., None], (2, 2, len(x0)))
    rays0, rays1 = (geometry.homogeneous(x).T for x in (x0, x1))
    np.testing.assert_allclose(geometry.sampson_error(essential, rays0, rays1, unit, unit), 0, atol=1e-14)
    direction = pose[:3, 3] / np.linalg.norm(pose[:3, 3])
    errors = [
        geometry.rotation_angle(r.T @ pose[:3, :3]) + geometry.angle_between(t, direction)
        for r, t in geometry.decompose_essential(essential)
    ]
    assert min(errors) < 1e-7
    assert sum(error < 0.1 for error in errors) == 1


def test_epipolar_error_is_in_pixels_of_each_image():
    """Sideways motion: lines are rows, and a row off by d in one image is split between both images."""
    pose = geometry.transform(np.eye(3), [1.0, 0, 0])
    camera0 = Camera(np.diag([500.0, 500.0, 1.0]), 640, 480)
    camera1 = Camera(np.diag([1000.0, 1000.0, 1.0]), 1280, 960)
    here, there = np.array([[100.0, 50.0]]), np.array([[80.0, 100.0 + 3.0]])
    # v1 / 1000 - v0 / 500 = 0 has the gradient (2, 1) / 1000.
    expected = 3 / 5**0.5
    assert geometry.epipolar_error_px(pose, here, there, camera0, camera1)[0] == pytest.approx(expected, rel=1e-12)
    same = geometry.epipolar_error_px(pose, here, here + [[7, 3.0]], camera0, camera0)
    assert same[0] == pytest.approx(3 / 2**0.5, rel=1e-12)


def test_epipolar_error_of_noise_is_the_noise_also_for_distorted_images():
    """Equal noise of 0.5 px in both images gives errors of 0.5 px, in the corners of a strong lens too."""
    camera0, camera1 = camera_with('plumb_bob'), camera_with('equidistant')
    random = np.random.default_rng(5)
    pose = geometry.transform(random_rotation(random, 0.05), [0.4, 0.1, 0.1])
    rays = geometry.homogeneous(geometry.undistort_points(camera0, random.uniform([0, 0], [752, 480], size=(4000, 2))))
    points = rays * random.uniform(2, 6, size=(4000, 1))
    pixels0 = geometry.project(camera0, points)
    pixels1 = geometry.project(camera1, points @ pose[:3, :3].T + pose[:3, 3])
    error = geometry.epipolar_error_px(
        pose,
        pixels0 + random.normal(size=(4000, 2)) * 0.5,
        pixels1 + random.normal(size=(4000, 2)) * 0.5,
        camera0,
        camera1,
    )
    # Standard error of a standard deviation from 4000: 0.5 / sqrt(8000) = 0.0056; four of them.
    assert np.sqrt(np.nanmean(error**2)) == pytest.approx(0.5, abs=0.023)


def test_angles_are_exact_near_zero_and_half_a_turn():
    a = np.array([1.0, 0, 0])
    assert geometry.angle_between(a, [1, 1e-9, 0]) == pytest.approx(1e-9, rel=1e-6)
    assert geometry.angle_between(a, [-1, 0, 0]) == pytest.approx(np.pi)
