"""Frames, matches and poses: the immutable types that the parts of the package exchange. NumPy only.

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

from loftr_ros.camera import Camera
from loftr_ros.errors import InputError
from loftr_ros.immutable import checked_array, set_fields

UNKNOWN_VARIANCE = 9999.0
"""Variance along a direction that the data do not determine (RelativePose.msg has the same value)."""


class Scale(enum.IntEnum):
    """What the length of a translation means; the values are those of RelativePose.msg."""

    UP_TO_SCALE = 0
    STEREO = 1
    DEPTH = 2
    BASELINE = 3
    EXTERNAL = 4


class PoseStatus(enum.IntEnum):
    """What could be estimated; the values are those of RelativePose.msg. From 10 on there is no pose."""

    OK = 0
    LOW_PARALLAX = 1
    PURE_ROTATION = 2
    STATIC = 3
    AMBIGUOUS = 4
    TOO_FEW_MATCHES = 10
    TOO_FEW_INLIERS = 11


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
        depth_m: float32 (H, W), z of each pixel of frame0, or of `depth_camera`, [m], 0 or NaN where unknown; None
            without a depth camera.
        depth_camera: that of a depth image that is not registered to frame0.
        cam0_from_depth: (4, 4) from this camera to that of frame0 [m].
    """

    frame0: Frame
    frame1: Frame | None = None
    cam1_from_cam0: np.ndarray | None = None
    depth_m: np.ndarray | None = None
    depth_camera: Camera | None = None
    cam0_from_depth: np.ndarray | None = None

    def __post_init__(self):
        if self.cam1_from_cam0 is not None:
            if self.frame1 is None:
                raise InputError('cam1_from_cam0 needs two cameras, got one frame; give frame1 as well')
            extrinsics = checked_array('cam1_from_cam0', self.cam1_from_cam0, (4, 4), np.float64)
            if not (np.isfinite(extrinsics).all() and extrinsics[:3, 3].any()):
                raise InputError(
                    'cam1_from_cam0 needs finite values and a translation that is not 0, got '
                    f'{extrinsics.tolist()}; None where it is unknown'
                )
            set_fields(self, cam1_from_cam0=extrinsics)
        self._check_depth()

    def _check_depth(self) -> None:
        if (self.depth_camera is None) != (self.cam0_from_depth is None):
            raise InputError('unregistered depth needs both depth_camera and cam0_from_depth, got only one')
        if self.depth_camera is not None:
            pose = checked_array('cam0_from_depth', self.cam0_from_depth, (4, 4), np.float64)
            if not np.isfinite(pose).all():
                raise InputError(f'cam0_from_depth needs finite values, got {pose.tolist()}')
            set_fields(self, cam0_from_depth=pose)
        if self.depth_m is None:
            return
        shape, remedy = self.frame0.image.shape[:2], 'register the depth to the camera of the image, or give its camera'
        if self.depth_camera is not None:
            shape, remedy = (self.depth_camera.height, self.depth_camera.width), 'give the calibration of this depth'
        if self.depth_m.shape != shape:
            raise InputError(f'depth_m is {self.depth_m.shape}, needed is {shape}; {remedy}')

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
        keypoints0 = checked_array('keypoints0', self.keypoints0, (None, 2), np.float32)
        count = len(keypoints0)
        keypoints1 = checked_array('keypoints1', self.keypoints1, (count, 2), np.float32)
        set_fields(self, keypoints0=keypoints0, keypoints1=keypoints1)
        defaults = {
            'confidence': (1, np.float32),
            'sigma_px': (np.nan, np.float32),
            'point_id0': (-1, np.int64),
            'point_id1': (-1, np.int64),
        }
        for name, (default, dtype) in defaults.items():
            value = getattr(self, name)
            value = np.full(count, default) if value is None else value
            set_fields(self, **{name: checked_array(name, value, (count,), dtype)})

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
        log10_false_alarms: log10 of the expected number of motions that wrong matches alone would support as well. A
            lower value is more reliable. NaN where it was not computed.
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
            other = checked_array('other_cam1_from_cam0', self.other_cam1_from_cam0, (4, 4), np.float64)
            set_fields(self, other_cam1_from_cam0=other)
        set_fields(
            self,
            cam1_from_cam0=checked_array('cam1_from_cam0', self.cam1_from_cam0, (4, 4), np.float64),
            covariance=checked_array('covariance', self.covariance, (6, 6), np.float64),
            inliers=checked_array('inliers', self.inliers, (None,), bool),
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
