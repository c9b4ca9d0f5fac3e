"""Two views in closed form: rotations, camera models, epipolar error, triangulation. NumPy only.

"Normalised" points are (N, 2) float64, the ray (x, y, 1) of an ideal pinhole camera of focal length 1.
"""

from __future__ import annotations

import functools

import numpy as np

from loftr_ros.camera import Camera, CameraModel
from loftr_ros.errors import InputError

NEWTON_STEPS = 20
LAST_STEP = 1e-10
"""After a step this short Newton's method, whose error becomes its square, is exact [normalised coordinates]."""

START_SAMPLES = 2048
"""Entries of the table from which the inversion of a distortion starts; Newton's method does the rest."""

MAX_PIXEL_ERROR = 1e-6
"""An undistorted point must project back this close to its pixel [px], or it is not one."""


def skew(vector) -> np.ndarray:
    """Return the (..., 3, 3) matrices of the cross product `vector` x, for (..., 3)."""
    vector = np.asarray(vector, dtype=np.float64)
    matrix = np.zeros((*vector.shape, 3))
    for row, column, axis in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        matrix[..., column, row] = vector[..., axis]
        matrix[..., row, column] = -vector[..., axis]
    return matrix


def rotation_from_vector(vector) -> np.ndarray:
    """Return exp of the rotation vector (3,) [rad] as a (3, 3) matrix (Rodrigues)."""
    vector = np.asarray(vector, dtype=np.float64)
    angle = float(np.linalg.norm(vector))
    cross = skew(vector)
    # np.sinc is sin(pi x) / (pi x) and exact at 0, so no branch for small angles.
    sine = np.sinc(angle / np.pi)
    versine = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + sine * cross + versine * cross @ cross


def vector_from_rotation(rotation) -> np.ndarray:
    """Return the rotation vector (3,) [rad], of length at most pi, of a (3, 3) matrix."""
    quaternion = quaternion_from_matrix(rotation)
    imaginary = float(np.linalg.norm(quaternion[:3]))
    if imaginary < 1e-12:
        return 2 * quaternion[:3]
    return 2 * np.arctan2(imaginary, quaternion[3]) / imaginary * quaternion[:3]


def quaternion_from_matrix(rotation) -> np.ndarray:
    """Return the unit quaternion (x, y, z, w), w >= 0, of a (3, 3) rotation.

    Every column of the symmetric matrix below is a multiple of the quaternion; the longest is the one without
    cancellation (Bar-Itzhack 2000 reduced to exact rotations).
    """
    m = np.asarray(rotation, dtype=np.float64)
    if m.shape != (3, 3):
        raise InputError(f'a rotation must have shape (3, 3), got {m.shape}')
    xx, yy, zz = np.diag(m)
    outer = np.array(
        [
            [1 + xx - yy - zz, m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
            [m[0, 1] + m[1, 0], 1 - xx + yy - zz, m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], 1 - xx - yy + zz, m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + xx + yy + zz],
        ]
    )
    quaternion = outer[:, np.argmax(np.diag(outer))]
    quaternion = quaternion / np.linalg.norm(quaternion)
    return -quaternion if quaternion[3] < 0 else quaternion


def matrix_from_quaternion(quaternion) -> np.ndarray:
    """Return the (3, 3) rotation of a quaternion (x, y, z, w) of any length but 0."""
    quaternion = np.asarray(quaternion, dtype=np.float64)
    length = np.linalg.norm(quaternion)
    if quaternion.shape != (4,) or not length > 0:
        raise InputError(f'a quaternion must be (x, y, z, w) and not 0, got {quaternion.tolist()}')
    x, y, z, w = quaternion / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def nearest_rotation(matrix) -> np.ndarray:
    """Return the rotation nearest to a (3, 3) matrix in the Frobenius norm."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


def rotation_angle(rotation) -> float:
    """Return the angle of a (3, 3) rotation [rad], in 0 .. pi."""
    return float(np.linalg.norm(vector_from_rotation(rotation)))


def angle_between(a, b) -> np.ndarray:
    """Return the angles [rad], 0 .. pi, between the vectors (..., 3) of `a` and `b`; exact also near 0 and pi."""
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(np.multiply(a, b), axis=-1))


def transform(rotation, translation) -> np.ndarray:
    """Return the (4, 4) matrix of x -> rotation @ x + translation."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = translation
    return matrix


def invert_transform(a_from_b) -> np.ndarray:
    """Return b_from_a of a rigid (4, 4) transform."""
    rotation = np.asarray(a_from_b)[:3, :3].T
    return transform(rotation, -rotation @ np.asarray(a_from_b)[:3, 3])


def homogeneous(points) -> np.ndarray:
    """Return (N, 2) points with a third coordinate of 1."""
    return np.column_stack([points, np.ones(len(points))])


# --- camera models -----------------------------------------------------------------------------------------------


def project(camera: Camera, points) -> np.ndarray:
    """Return the pixels (N, 2) of points (N, 3) in camera axes.

    NaN where the camera model does not reach: behind the camera, or beyond the radius at which the distortion
    polynomial turns back and would fold the point into the image.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    with np.errstate(divide='ignore', invalid='ignore'):
        normalised = np.where(points[:, 2:] > 0, points[:, :2] / points[:, 2:], np.nan)
    if camera.is_distorted:
        distorted, _ = _distort(camera, normalised)
        inside = np.sum(normalised**2, axis=1) <= _field_radius(*_lens(camera)) ** 2
        normalised = np.where(inside[:, None], distorted, np.nan)
    return normalised @ camera.matrix[:2, :2].T + camera.matrix[:2, 2]


def undistort_points(camera: Camera, pixels) -> np.ndarray:
    """Return the normalised points (N, 2) of pixels (N, 2); NaN where no ray of the camera model has that pixel."""
    return undistort_with_jacobian(camera, pixels)[0]


def undistort_with_jacobian(camera: Camera, pixels) -> tuple[np.ndarray, np.ndarray]:
    """Return normalised points (N, 2) and their derivatives by the pixel (N, 2, 2) [1/px].

    The derivative carries a pixel's noise to the ray: with it an error is in pixels of the original, distorted image.
    """
    pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    pixels = np.where(np.isfinite(pixels).all(axis=1, keepdims=True), pixels, np.nan)
    inverse = np.linalg.inv(camera.matrix[:2, :2])
    distorted = (pixels - camera.matrix[:2, 2]) @ inverse.T
    if not camera.is_distorted:
        return distorted, np.broadcast_to(inverse, (len(pixels), 2, 2))
    normalised = _start(camera, distorted)
    with np.errstate(all='ignore'):
        for _ in range(NEWTON_STEPS):
            image, jacobian = _distort(camera, normalised)
            step = _solve_2x2(jacobian, distorted - image)
            normalised = normalised + step
            if not np.max(np.abs(step), initial=0.0, where=np.isfinite(step)) > LAST_STEP:
                break
        image, jacobian = _distort(camera, normalised)
        error_px = np.linalg.norm((image - distorted) @ camera.matrix[:2, :2].T, axis=1)
        inside = np.sum(normalised**2, axis=1) <= _field_radius(*_lens(camera)) ** 2
        valid = inside & (error_px <= MAX_PIXEL_ERROR) & (np.linalg.det(jacobian) > 0)
        derivative = _inverse_2x2(jacobian) @ inverse
    return np.where(valid[:, None], normalised, np.nan), np.where(valid[:, None, None], derivative, np.nan)


def _start(camera: Camera, distorted: np.ndarray) -> np.ndarray:
    """Return where Newton's method begins: the inverse of the radial part alone, on its first rising branch."""
    undone = distorted
    if len(camera.distortion) == 14:
        untilted = homogeneous(distorted) @ np.linalg.inv(_tilt(*camera.distortion[12:])).T
        undone = untilted[:, :2] / untilted[:, 2:]
    wanted = np.linalg.norm(undone, axis=1)
    scale = np.interp(wanted, *_radial_table(*_lens(camera))) / np.where(wanted > 0, wanted, 1)
    return undone * np.where(wanted > 0, scale, 1)[:, None]


@functools.lru_cache(maxsize=16)
def _radial_table(model: CameraModel, distortion: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return distorted radii, rising, and the undistorted ones that belong to them."""
    limit = min(_field_radius(model, distortion), np.tan(np.deg2rad(89.99)))
    radius = np.tan(np.linspace(0, np.arctan(limit), START_SAMPLES))
    return radius * _radial_factor(model, distortion, radius), radius


def _lens(camera: Camera) -> tuple[CameraModel, tuple[float, ...]]:
    """Return what identifies the lens of a camera: a node gets a new Camera with each message."""
    return camera.model, tuple(camera.distortion.tolist())


def _coefficients(distortion) -> np.ndarray:
    """Return k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tx ty with zeros where the model has fewer."""
    return np.concatenate([distortion, np.zeros(14 - len(distortion))])


def _radial_factor(model: CameraModel, distortion: tuple[float, ...], radius: np.ndarray) -> np.ndarray:
    """Return distorted over undistorted radius at undistorted `radius`, radial terms only."""
    if model is CameraModel.EQUIDISTANT:
        angle = np.arctan(radius)
        k = distortion
        bent = angle * np.polyval([*k[::-1], 1], angle**2)
        return np.divide(bent, radius, out=np.ones_like(bent), where=radius > 0)
    k1, k2, _, _, k3, k4, k5, k6 = _coefficients(distortion)[:8]
    return np.polyval([k3, k2, k1, 1], radius**2) / np.polyval([k6, k5, k4, 1], radius**2)


@functools.lru_cache(maxsize=16)
def _field_radius(model: CameraModel, distortion: tuple[float, ...]) -> float:
    """Return the undistorted radius at which the radial distortion stops to grow (inf: never); beyond it, it folds."""
    if model is CameraModel.EQUIDISTANT:
        k1, k2, k3, k4 = distortion
        angle = _first_positive_root([9 * k4, 7 * k3, 5 * k2, 3 * k1, 1]) ** 0.5
        return float(np.tan(angle)) if angle < np.pi / 2 else np.inf
    k1, k2, _, _, k3, k4, k5, k6 = _coefficients(distortion)[:8]
    above, below = np.poly1d([k3, k2, k1, 1]), np.poly1d([k6, k5, k4, 1])
    # d/dr of r N(s) / D(s), s = r^2, has the numerator N D + 2 s (N' D - N D').
    slope = above * below + np.poly1d([2, 0]) * (above.deriv() * below - above * below.deriv())
    return min(_first_positive_root(slope.coeffs), _first_positive_root(below.coeffs)) ** 0.5


def _first_positive_root(coefficients) -> float:
    roots = np.roots(coefficients)
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.maximum(1, np.abs(roots))) & (roots.real > 0)]
    return float(real.min()) if len(real) else np.inf


def _distort(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distorted normalised points (N, 2) and their derivatives by `points` (N, 2, 2), in OpenCV's models."""
    if camera.model is CameraModel.EQUIDISTANT:
        return _distort_equidistant(camera, points)
    x, y = points.T
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tilt_x, tilt_y = _coefficients(camera.distortion)
    s = x * x + y * y
    above, below = np.poly1d([k3, k2, k1, 1]), np.poly1d([k6, k5, k4, 1])
    factor = above(s) / below(s)
    slope = (above.deriv()(s) - factor * below.deriv()(s)) / below(s)  # d factor / d s
    u = x * factor + 2 * p1 * x * y + p2 * (s + 2 * x * x) + s1 * s + s2 * s * s
    v = y * factor + p1 * (s + 2 * y * y) + 2 * p2 * x * y + s3 * s + s4 * s * s
    prism_u, prism_v = s1 + 2 * s2 * s, s3 + 2 * s4 * s
    jacobian = np.empty((len(points), 2, 2))
    jacobian[:, 0, 0] = factor + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x + 2 * x * prism_u
    jacobian[:, 0, 1] = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y + 2 * y * prism_u
    jacobian[:, 1, 0] = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y + 2 * x * prism_v
    jacobian[:, 1, 1] = factor + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x + 2 * y * prism_v
    image = np.column_stack([u, v])
    if tilt_x or tilt_y:
        tilt = _tilt(tilt_x, tilt_y)
        ray = homogeneous(image) @ tilt.T
        image = ray[:, :2] / ray[:, 2:]
        bend = (tilt[:2, :2] - image[:, :, None] * tilt[2, :2]) / ray[:, 2, None, None]
        jacobian = bend @ jacobian
    return image, jacobian


def _distort_equidistant(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kannala-Brandt as in OpenCV's fisheye: theta_d = theta (1 + k1 theta^2 + .. + k4 theta^8)."""
    radius = np.linalg.norm(points, axis=1)
    angle = np.arctan(radius)
    k1, k2, k3, k4 = camera.distortion
    bent = angle * np.polyval([k4, k3, k2, k1, 1], angle**2)
    slope = np.polyval([9 * k4, 7 * k3, 5 * k2, 3 * k1, 1], angle**2) / (1 + radius**2)  # d bent / d radius
    safe = np.where(radius > 0, radius, 1)
    factor = np.where(radius > 0, bent / safe, 1.0)
    direction = points / safe[:, None]
    outer = direction[:, :, None] * direction[:, None, :]
    jacobian = factor[:, None, None] * np.eye(2) + (slope - factor)[:, None, None] * outer
    return points * factor[:, None], jacobian


def _tilt(tilt_x: float, tilt_y: float) -> np.ndarray:
    """Return the (3, 3) homography of a tilted sensor (Scheimpflug, OpenCV's tx, ty [rad])."""
    # OpenCV turns the axes, not the points: the transposed elementary rotations.
    rotation = rotation_from_vector([0, -tilt_y, 0]) @ rotation_from_vector([-tilt_x, 0, 0])
    to_plane = np.array([[rotation[2, 2], 0, -rotation[0, 2]], [0, rotation[2, 2], -rotation[1, 2]], [0, 0, 1]])
    return to_plane @ rotation


def _inverse_2x2(matrices: np.ndarray) -> np.ndarray:
    a, b, c, d = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 0], matrices[:, 1, 1]
    adjugate = np.stack([np.stack([d, -b], axis=-1), np.stack([-c, a], axis=-1)], axis=-2)
    return adjugate / (a * d - b * c)[:, None, None]


def _solve_2x2(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum('nij,nj->ni', _inverse_2x2(matrices), vectors)


# --- two views ---------------------------------------------------------------------------------------------------


def essential_from_pose(cam1_from_cam0) -> np.ndarray:
    """Return E (3, 3) with x1^T E x0 = 0 of a (4, 4) pose, translation taken as of length 1."""
    pose = np.asarray(cam1_from_cam0)
    return skew(pose[:3, 3] / np.linalg.norm(pose[:3, 3])) @ pose[:3, :3]


def decompose_essential(essential) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the four (rotation, unit translation) of an essential matrix (Hartley and Zisserman, 9.6.2)."""
    u, _, vt = np.linalg.svd(essential)
    u, vt = u * np.sign(np.linalg.det(u)), vt * np.sign(np.linalg.det(vt))
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return [(u @ w @ vt, sign * u[:, 2]) for w in (quarter, quarter.T) for sign in (1, -1)]


def sampson_error(essential, rays0, rays1, jacobian0, jacobian1) -> np.ndarray:
    """Return the signed Sampson errors (N,) [px] of rays (3, N) whose third coordinate is 1.

    First-order distance of the four coordinates of a match to the epipolar constraint (Hartley and Zisserman, 11.4.3),
    measured in pixels through `jacobian0`, `jacobian1`: (2, 2, N), normalised point by pixel. So it means the same for
    two different cameras and for distorted images; equal noise of sigma [px] in both images gives errors of sigma.
    """
    line1, line0 = essential @ rays0, np.transpose(essential) @ rays1
    gradient0 = np.einsum('in,ijn->jn', line0[:2], jacobian0)
    gradient1 = np.einsum('in,ijn->jn', line1[:2], jacobian1)
    length = np.sqrt(np.sum(gradient0**2 + gradient1**2, axis=0))
    return np.sum(rays1 * line1, axis=0) / np.maximum(length, np.finfo(float).tiny)


def epipolar_error_px(cam1_from_cam0, keypoints0, keypoints1, camera0: Camera, camera1: Camera) -> np.ndarray:
    """Return the absolute Sampson errors (N,) [px] of pixels (N, 2) under a (4, 4) pose; NaN where a ray is missing."""
    points0, jacobian0 = undistort_with_jacobian(camera0, keypoints0)
    points1, jacobian1 = undistort_with_jacobian(camera1, keypoints1)
    rays = (homogeneous(points).T for points in (points0, points1))
    jacobians = (np.moveaxis(jacobian, 0, -1) for jacobian in (jacobian0, jacobian1))
    return np.abs(sampson_error(essential_from_pose(cam1_from_cam0), *rays, *jacobians))


def _depth_numerators(rays0, rays1, translation) -> tuple[np.ndarray, np.ndarray]:
    """Return both depths (N,) times a common positive factor; rays (3, N), those of camera 0 in axes of camera 1."""
    at, bt = translation @ rays0, translation @ rays1
    aa, ab, bb = (np.einsum('in,in->n', *pair) for pair in ((rays0, rays0), (rays0, rays1), (rays1, rays1)))
    return ab * bt - bb * at, aa * bt - ab * at


def in_front(rotation, translation, rays0, rays1) -> np.ndarray:
    """Return (N,) bool, where two rays (3, N) meet in front of both cameras; parallel rays do not meet."""
    depth0, depth1 = _depth_numerators(rotation @ rays0, rays1, translation)
    return (depth0 > 0) & (depth1 > 0)


def triangulate(cam1_from_cam0, points0, points1) -> np.ndarray:
    """Return the points (N, 3) in camera-0 axes where the rays of normalised points come nearest (midpoint).

    In units of the translation. NaN for parallel rays; negative z where the rays meet behind camera 0.
    """
    pose = np.asarray(cam1_from_cam0, dtype=np.float64)
    rotation, translation = pose[:3, :3], pose[:3, 3]
    rays0, rays1 = rotation @ homogeneous(points0).T, homogeneous(points1).T
    depth0, depth1 = _depth_numerators(rays0, rays1, translation)
    denominator = np.sum(np.cross(rays0, rays1, axis=0) ** 2, axis=0)
    with np.errstate(divide='ignore', invalid='ignore'):
        depth0, depth1 = depth0 / denominator, depth1 / denominator
        on_ray0 = homogeneous(points0) * depth0[:, None]
        on_ray1 = (homogeneous(points1) * depth1[:, None] - translation) @ rotation
        middle = (on_ray0 + on_ray1) / 2
    return np.where(np.isfinite(middle).all(axis=1, keepdims=True), middle, np.nan)


def parallax_angles(rotation, points0, points1) -> np.ndarray:
    """Return the angles (N,) [rad] between the two rays of normalised points, rotation removed."""
    return angle_between(homogeneous(points0) @ np.transpose(rotation), homogeneous(points1))
