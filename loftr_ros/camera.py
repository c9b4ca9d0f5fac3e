"""The camera model: intrinsic matrix, lens distortion and the names of the distortion models."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from loftr_ros.errors import InputError
from loftr_ros.immutable import checked_array, set_fields


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
        matrix = checked_array('camera matrix', self.matrix, (3, 3), np.float64)
        distortion = checked_array('distortion', self.distortion, (None,), np.float64)
        if not (np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise InputError(
                f'camera matrix needs positive finite focal lengths, got fx={matrix[0, 0]}, fy={matrix[1, 1]}; '
                'an uncalibrated camera_info has K of zeros: calibrate the camera (camera_calibration)'
            )
        if not np.isfinite(distortion).all():
            raise InputError(f'distortion must be finite, got {distortion.tolist()}; calibrate the camera again')
        _check_intrinsics(matrix)
        distortion = checked_array('distortion', self.model.fit(distortion), (None,), np.float64)
        if self.width <= 0 or self.height <= 0:
            raise InputError(f'camera needs a positive image size, got {self.width}x{self.height}')
        for name, shape in (('rectification', (3, 3)), ('projection', (3, 4))):
            value = getattr(self, name)
            if value is not None:
                value = checked_array(name, value, shape, np.float64)
                if not np.isfinite(value).all():
                    raise InputError(f'{name} must be finite, got {value.tolist()}; calibrate the camera again')
                set_fields(self, **{name: value})
        set_fields(self, matrix=matrix, distortion=distortion, width=int(self.width), height=int(self.height))

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
