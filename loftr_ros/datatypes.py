"""The types that the parts of the package hand to each other: frozen, checked, numpy only.

Conventions, for the whole package:

* Image 0 is the reference (the keyframe, or the left camera), image 1 the current one (or the right).
* Pixels are (x, y) with the centre of the top-left pixel at (0, 0), as in OpenCV and ROS.
* A transform `a_from_b` takes points from frame b to frame a: `x_a = a_from_b @ x_b`. Camera frames are optical:
  z forward, x right, y down.
* A pose covariance is 6x6 in ROS order (x, y, z, rotX, rotY, rotZ), rotation about fixed axes.
* Units end the name: `_px`, `_deg`, `_m`, `_s`, `_ns`. Time is integer nanoseconds.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from loftr_ros.errors import InputError

UNKNOWN_VARIANCE = 9999.0
"""Stands in a covariance along a direction that the data say nothing about (RelativePose.msg has the same value)."""


class Scale(enum.IntEnum):
    """What the length of a translation means; the values are those of RelativePose.msg."""

    UP_TO_SCALE = 0
    STEREO = 1
    DEPTH = 2
    BASELINE = 3
    EXTERNAL = 4


class PoseStatus(enum.IntEnum):
    """What the world allowed; the values are those of RelativePose.msg. From 10 on there is no pose."""

    OK = 0
    LOW_PARALLAX = 1
    PURE_ROTATION = 2
    STATIC = 3
    AMBIGUOUS = 4
    TOO_FEW_MATCHES = 10
    TOO_FEW_INLIERS = 11


class CameraModel(enum.Enum):
    """Distortion models of sensor_msgs/CameraInfo, with the lengths of D that each accepts."""

    PLUMB_BOB = 'plumb_bob'  # k1 k2 p1 p2 [k3]
    RATIONAL_POLYNOMIAL = 'rational_polynomial'  # k1 k2 p1 p2 k3 k4 k5 k6 [s1 s2 s3 s4 [tx ty]]
    EQUIDISTANT = 'equidistant'  # k1 k2 k3 k4

    @property
    def coefficient_counts(self) -> tuple[int, ...]:
        return {'plumb_bob': (0, 4, 5), 'rational_polynomial': (0, 8, 12, 14), 'equidistant': (4,)}[self.value]

    def fit(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the coefficients in a number that this model takes: zeros may be missing or too many, values not.

        An ideal lens has no coefficients, but an ideal fisheye has four zeros: its rays bend without any.
        """
        if not coefficients.any():
            return np.zeros(4 if self is CameraModel.EQUIDISTANT else 0)
        given = coefficients
        while len(coefficients) not in self.coefficient_counts and coefficients[-1] == 0:
            coefficients = coefficients[:-1]
        if len(coefficients) not in self.coefficient_counts:
            counts = ' or '.join(str(count) for count in self.coefficient_counts if count)
            raise InputError(
                f'distortion model {self.value} takes {counts} coefficients, got {len(given)}: {given.tolist()}; '
                'name the model that they belong to, or calibrate again'
            )
        return coefficients


DISTORTION_MODELS = {model.value: model for model in CameraModel} | {
    'fisheye': CameraModel.EQUIDISTANT,
    'equi': CameraModel.EQUIDISTANT,
    'radtan': CameraModel.PLUMB_BOB,
    'radial-tangential': CameraModel.PLUMB_BOB,
}
"""The names that ROS, Kalibr and EuRoC have for the distortion models."""


def _array(name: str, value, shape: tuple[int | None, ...], dtype) -> np.ndarray:
    """Return `value` as a read-only array of `dtype`, or say what is wrong with its shape (None: any length)."""
    array = np.array(value, dtype=dtype, copy=True)
    fits = array.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = '(' + ', '.join('N' if n is None else str(n) for n in shape) + ')'
        raise InputError(f'{name} must have shape {wanted}, got {array.shape}')
    array.flags.writeable = False
    return array


def _set(instance, **values) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _check_intrinsics(matrix: np.ndarray) -> None:
    """Raise InputError unless `matrix` has the form fx s cx, 0 fy cy, 0 0 1; the focal lengths are checked before."""
    focal = matrix[0, 0]
    below = np.array([matrix[1, 0] / focal, *(matrix[2] - (0, 0, 1))])
    if np.all(np.abs(below) <= 1e-6):
        return
    remedy = 'give it as fx s cx, 0 fy cy, 0 0 1'
    if matrix[2, 0] > 1 and matrix[2, 1] > 1 and not matrix[:2, 2].any():
        remedy = 'it is transposed, as MATLAB has it: transpose it'
    elif matrix[2, 2] > 0 and not np.any(matrix[[1, 2, 2], [0, 0, 1]]):
        remedy = f'divide it by {matrix[2, 2]:g}'
    raise InputError(f'camera matrix needs the last row 0 0 1 and 0 below fx, got {matrix.tolist()}; {remedy}')


@dataclasses.dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera: how a ray becomes a pixel of an image of `width` x `height`.

    Args:
        matrix: (3, 3) intrinsic matrix [px].
        distortion: coefficients in OpenCV's order for `model`; empty without distortion. An EQUIDISTANT camera without
            coefficients has four zeros: a fisheye, not a pinhole.
        rectification: (3, 3) R of the calibration, from the camera to its rectified frame; None where it has none.
        projection: (3, 4) P of the calibration, of the rectified image; None where it has none.
    """

    matrix: np.ndarray
    width: int
    height: int
    distortion: np.ndarray = ()
    model: CameraModel = CameraModel.PLUMB_BOB
    rectification: np.ndarray | None = None
    projection: np.ndarray | None = None

    def __post_init__(self):
        matrix = _array('camera matrix', self.matrix, (3, 3), np.float64)
        distortion = _array('distortion', self.distortion, (None,), np.float64)
        if not (np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise InputError(
                f'camera matrix needs positive finite focal lengths, got fx={matrix[0, 0]}, fy={matrix[1, 1]}; '
                'an uncalibrated camera_info has K of zeros: calibrate the camera (camera_calibration)'
            )
        if not np.isfinite(distortion).all():
            raise InputError(f'distortion must be finite, got {distortion.tolist()}; calibrate the camera again')
        _check_intrinsics(matrix)
        distortion = _array('distortion', self.model.fit(distortion), (None,), np.float64)
        if self.width <= 0 or self.height <= 0:
            raise InputError(f'camera needs a positive image size, got {self.width}x{self.height}')
        for name, shape in (('rectification', (3, 3)), ('projection', (3, 4))):
            value = getattr(self, name)
            if value is not None:
                value = _array(name, value, shape, np.float64)
                if not np.isfinite(value).all():
                    raise InputError(f'{name} must be finite, got {value.tolist()}; calibrate the camera again')
                _set(self, **{name: value})
        _set(self, matrix=matrix, distortion=distortion, width=int(self.width), height=int(self.height))

    @classmethod
    def from_focal(cls, focal_px: float, width: int, height: int) -> Camera:
        """Return the camera without distortion whose optical axis meets the centre of the image.

        For images without a calibration: an error of 10 % in the focal length is an error of about 10 % in angles.
        """
        return cls([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]], width, height)

    @property
    def is_distorted(self) -> bool:
        return bool(np.any(self.distortion)) or self.model is CameraModel.EQUIDISTANT

    @property
    def focal_px(self) -> float:
        """Mean focal length [px], to turn pixels into radians near the optical axis."""
        return float(self.matrix[0, 0] + self.matrix[1, 1]) / 2


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One image as a camera took it.

    Args:
        image: uint8 (H, W) grey or (H, W, 3) in OpenCV's order, blue first.
        camera: its calibration; None when unknown (matches can be made, a pose cannot).
        stamp_ns: time of exposure on the driver's clock [ns].
        frame_id: name of the optical frame.
    """

    image: np.ndarray
    camera: Camera | None
    stamp_ns: int = 0
    frame_id: str = ''

    def __post_init__(self):
        check_image('image', self.image)
        height, width = self.image.shape[:2]
        if self.camera is not None and (self.camera.width, self.camera.height) != (width, height):
            raise InputError(
                f'image is {width}x{height} but its camera is calibrated for {self.camera.width}x{self.camera.height}; '
                'publish a camera_info that belongs to this image size (binning, roi and resize nodes must adapt it)'
            )


@dataclasses.dataclass(frozen=True, eq=False)
class FrameSet:
    """The images that the cameras of a rig took at one time.

    Args:
        frame0: of the only camera, or of the left camera of a stereo pair.
        frame1: of the right camera; None for a single camera.
        cam1_from_cam0: (4, 4) from the left to the right camera [m]; None where unknown. Of rectified images only the
            translation differs from the identity.
        depth_m: float32 (H, W), z of each pixel of frame0 [m], 0 or NaN where unknown; None without a depth camera.
    """

    frame0: Frame
    frame1: Frame | None = None
    cam1_from_cam0: np.ndarray | None = None
    depth_m: np.ndarray | None = None

    def __post_init__(self):
        if self.cam1_from_cam0 is not None:
            if self.frame1 is None:
                raise InputError('cam1_from_cam0 needs two cameras, got one frame; give frame1 as well')
            extrinsics = _array('cam1_from_cam0', self.cam1_from_cam0, (4, 4), np.float64)
            if not (np.isfinite(extrinsics).all() and extrinsics[:3, 3].any()):
                raise InputError(
                    'cam1_from_cam0 needs finite values and a translation that is not 0, got '
                    f'{extrinsics.tolist()}; None where it is unknown'
                )
            _set(self, cam1_from_cam0=extrinsics)
        if self.depth_m is not None and self.depth_m.shape != self.frame0.image.shape[:2]:
            raise InputError(
                f'depth_m is {self.depth_m.shape} but the image is {self.frame0.image.shape[:2]}; register the depth '
                'to the camera of the image'
            )

    @property
    def is_stereo(self) -> bool:
        return self.frame1 is not None

    @property
    def baseline_m(self) -> float | None:
        """Distance between the two cameras [m]; None where unknown."""
        return None if self.cam1_from_cam0 is None else float(np.linalg.norm(self.cam1_from_cam0[:3, 3]))

    @property
    def frames(self) -> tuple[Frame, ...]:
        return (self.frame0,) if self.frame1 is None else (self.frame0, self.frame1)

    @property
    def stamp_ns(self) -> int:
        """Time of the set: the stamp of frame0 [ns]."""
        return self.frame0.stamp_ns


def check_image(name: str, image) -> None:
    """Raise InputError unless `image` is a non-empty uint8 array (H, W) or (H, W, 3)."""
    if not isinstance(image, np.ndarray):
        raise InputError(f'{name} must be a numpy array uint8 (H, W) or (H, W, 3), got {type(image).__name__}')
    grey_or_colour = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype != np.uint8 or not grey_or_colour or 0 in image.shape:
        raise InputError(f'{name} must be uint8 (H, W) or (H, W, 3) and not empty, got {image.dtype} {image.shape}')


DENSE_DEPENDENCE = 24.0
"""`Matches.log10_dependence` of the default matcher. Measured on 600 pairs of different places: with it the most
deceptive pair has about one expected false alarm, as with SIFT's keypoints and 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class Matches:
    """Corresponding points of two images; row i of every array is one match.

    Args:
        keypoints0: (N, 2) float32 in image 0 [px, original image].
        keypoints1: (N, 2) float32 in image 1 [px, original image].
        confidence: (N,) float32 in [0, 1], comparable within one matcher only; by default 1.
        sigma_px: (N,) float32 standard deviation of keypoints1 along each axis [px]; NaN, the default, where unknown.
        point_id0: (N,) int64 number of the point in image 0, the same whenever this image 0 is matched again; -1, the
            default, where unknown.
        point_id1: the same for the point in image 1, of matchers with keypoints: its `point_id0` where image 1 is image
            0 of another match.
        log10_dependence: log10 of how many times as often wrong matches of this matcher agree with one motion as
            independent wrong matches would. 0 for keypoints with descriptors; dense matchers need more agreement before
            a motion is accepted (`pose.acceptance`).
        from_images: whether a matcher found them in two images, so that the points are on visible surfaces; False for
            simulated points.
    """

    keypoints0: np.ndarray
    keypoints1: np.ndarray
    confidence: np.ndarray | None = None
    sigma_px: np.ndarray | None = None
    point_id0: np.ndarray | None = None
    point_id1: np.ndarray | None = None
    log10_dependence: float = DENSE_DEPENDENCE
    from_images: bool = False

    def __post_init__(self):
        keypoints0 = _array('keypoints0', self.keypoints0, (None, 2), np.float32)
        count = len(keypoints0)
        _set(self, keypoints0=keypoints0, keypoints1=_array('keypoints1', self.keypoints1, (count, 2), np.float32))
        defaults = {
            'confidence': (1, np.float32),
            'sigma_px': (np.nan, np.float32),
            'point_id0': (-1, np.int64),
            'point_id1': (-1, np.int64),
        }
        for name, (default, dtype) in defaults.items():
            value = getattr(self, name)
            value = np.full(count, default) if value is None else value
            _set(self, **{name: _array(name, value, (count,), dtype)})

    def __len__(self) -> int:
        return len(self.keypoints0)

    @classmethod
    def empty(cls) -> Matches:
        return cls(np.empty((0, 2)), np.empty((0, 2)))

    def select(self, index) -> Matches:
        """Return the matches that `index` (integers, slice or mask) picks, in its order."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return dataclasses.replace(self, **{name: array[index] for name, array in arrays.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class RelativePose:
    """Motion from camera 0 to camera 1.

    Args:
        cam1_from_cam0: (4, 4) rigid transform. With UP_TO_SCALE the translation has length 1; with a status of
            PURE_ROTATION or STATIC it is 0 because it cannot be observed.
        covariance: (6, 6) of (x, y, z, rotX, rotY, rotZ), R_true = exp(rot) @ R; UNKNOWN_VARIANCE along every
            direction that the data say nothing about.
        inliers: (N,) bool, which matches agree.
        median_parallax_deg: median angle between the two rays of an inlier, rotation removed.
        epipolar_rmse_px: root mean square Sampson error of the inliers [px of image 1].
        log10_false_alarms: log10 of the expected number of motions that wrong matches alone would support as well; the
            lower, the surer. NaN where it was not computed.
        other_cam1_from_cam0: with the status AMBIGUOUS the second motion (4, 4) that explains the matches as well;
            `covariance` spans both.
    """

    cam1_from_cam0: np.ndarray
    covariance: np.ndarray
    inliers: np.ndarray
    median_parallax_deg: float
    epipolar_rmse_px: float
    scale: Scale = Scale.UP_TO_SCALE
    status: PoseStatus = PoseStatus.OK
    log10_false_alarms: float = float('nan')
    other_cam1_from_cam0: np.ndarray | None = None

    def __post_init__(self):
        if self.status >= PoseStatus.TOO_FEW_MATCHES:
            raise InputError(f'a RelativePose cannot have the status {self.status.name}; return a PoseFailure')
        if (self.status is PoseStatus.AMBIGUOUS) != (self.other_cam1_from_cam0 is not None):
            raise InputError('a RelativePose has the status AMBIGUOUS and other_cam1_from_cam0, or neither')
        if self.other_cam1_from_cam0 is not None:
            other = _array('other_cam1_from_cam0', self.other_cam1_from_cam0, (4, 4), np.float64)
            _set(self, other_cam1_from_cam0=other)
        _set(
            self,
            cam1_from_cam0=_array('cam1_from_cam0', self.cam1_from_cam0, (4, 4), np.float64),
            covariance=_array('covariance', self.covariance, (6, 6), np.float64),
            inliers=_array('inliers', self.inliers, (None,), bool),
        )

    @property
    def rotation(self) -> np.ndarray:
        return self.cam1_from_cam0[:3, :3]

    @property
    def translation(self) -> np.ndarray:
        return self.cam1_from_cam0[:3, 3]

    @property
    def num_matches(self) -> int:
        return len(self.inliers)

    @property
    def num_inliers(self) -> int:
        return int(self.inliers.sum())

    @property
    def has_translation(self) -> bool:
        """Whether the direction of the translation was observed, and is the only one that explains the matches."""
        return self.status in (PoseStatus.OK, PoseStatus.LOW_PARALLAX)

    def with_length(self, length_m: float, scale: Scale) -> RelativePose:
        """Return the pose with its translation `length_m` long, a length that this estimate did not measure.

        Along the translation the covariance keeps UNKNOWN_VARIANCE; across it, the angle's share grows with the length.
        """
        if not np.any(self.translation):
            return self
        direction = self.translation / np.linalg.norm(self.translation)
        stretch = np.eye(6)
        stretch[:3, :3] = length_m * (np.eye(3) - np.outer(direction, direction))
        covariance = stretch @ self.covariance @ stretch.T
        covariance[:3, :3] += UNKNOWN_VARIANCE * np.outer(direction, direction)
        cam1_from_cam0 = self.cam1_from_cam0.copy()
        cam1_from_cam0[:3, 3] = length_m * direction
        other = self.other_cam1_from_cam0
        if other is not None:
            other = other.copy()
            other[:3, 3] *= length_m / np.linalg.norm(other[:3, 3])
        return dataclasses.replace(
            self, cam1_from_cam0=cam1_from_cam0, covariance=covariance, scale=scale, other_cam1_from_cam0=other
        )


@dataclasses.dataclass(frozen=True)
class PoseFailure:
    """Why two images gave no pose. Never dressed as an identity."""

    status: PoseStatus
    reason: str
    num_matches: int
    num_inliers: int = 0

    def __post_init__(self):
        if self.status < PoseStatus.TOO_FEW_MATCHES:
            raise InputError(f'a PoseFailure cannot have the status {self.status.name}')
