"""Between ROS messages and the types of the package: images, cameras, stamps, matches and poses."""

from __future__ import annotations

import array
import re
from typing import TYPE_CHECKING

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from loftr_ros.datatypes import (
    DISTORTION_MODELS,
    UNKNOWN_VARIANCE,
    Camera,
    CameraModel,
    Matches,
    PoseFailure,
    PoseStatus,
    RelativePose,
    Scale,
)
from loftr_ros.errors import InputError
from loftr_ros.geometry import matrix_from_quaternion, quaternion_from_matrix, transform
from loftr_ros.levels import Levels, check_no_depth
from loftr_ros.msg import Matches as MatchesMsg
from loftr_ros.msg import RelativePose as RelativePoseMsg
from loftr_ros.ros.compat import bridge as own_bridge

if TYPE_CHECKING:
    from loftr_ros.odometry.frontend import PairResult

SECOND_NS = 1_000_000_000

# Headers


def stamp_ns(header: Header) -> int:
    """Return the stamp of a header [ns]."""
    return header.stamp.sec * SECOND_NS + header.stamp.nanosec


def time_msg(nanoseconds: int) -> Time:
    """Return integer nanoseconds as a Time message."""
    seconds, rest = divmod(int(nanoseconds), SECOND_NS)
    return Time(sec=seconds, nanosec=rest)


def header(nanoseconds: int, frame_id: str) -> Header:
    """Return a header with the stamp [ns] and frame."""
    return Header(stamp=time_msg(nanoseconds), frame_id=frame_id)


# Cameras


def camera_from_info(info: CameraInfo, *, rectified: bool) -> Camera:
    """Return the camera that took the image which belongs to a camera_info.

    A rectified image has the intrinsics P and no distortion, a raw one K and D. K and P hold for the full sensor; the
    image is its `roi` (all zeros: everything), binned. As in image_geometry, on which camera_info's other users rely,
    `x = (x_full - x_offset) / binning` without a half pixel: exact where binning skips pixels, (b - 1) / (2 b) px off
    where it averages them. P moves by the raw roi.

    Raises:
        InputError: not calibrated, or the distortion model is unknown.
    """
    name, values = ('P', np.reshape(info.p, (3, 4))[:, :3]) if rectified else ('K', np.reshape(info.k, (3, 3)))
    if not (np.isfinite(values).all() and values[0, 0] > 0 and values[1, 1] > 0):
        other = info.k if rectified else info.p
        remedy = 'calibrate the camera (camera_calibration) and load the result into its driver'
        if other[0] > 0:
            remedy = (
                f'{"K" if rectified else "P"} is filled: set input.rectified to {str(not rectified).lower()}, or '
                + remedy
            )
        raise InputError(
            f'camera_info of {info.header.frame_id!r} has fx={values[0, 0]:g}, fy={values[1, 1]:g} in {name}, '
            f'needed are positive focal lengths: {remedy}'
        )
    binning = np.maximum((info.binning_x, info.binning_y), 1)
    roi = info.roi
    is_full = not (roi.x_offset or roi.y_offset or roi.width or roi.height)
    size = np.array((info.width, info.height) if is_full else (roi.width, roi.height)) // binning
    matrix = values.astype(np.float64)
    matrix[:2, 2] -= (roi.x_offset, roi.y_offset)
    matrix[:2] /= binning[:, None]
    distortion, model = ((), CameraModel.PLUMB_BOB) if rectified else _distortion(info)
    try:
        return Camera(matrix, int(size[0]), int(size[1]), distortion, model)
    except InputError as error:
        raise InputError(f'camera_info of {info.header.frame_id!r}, {name}: {error}') from error


def _distortion(info: CameraInfo) -> tuple[np.ndarray, CameraModel]:
    """Return coefficients and model of raw images."""
    coefficients = np.asarray(info.d, dtype=np.float64)
    model = DISTORTION_MODELS.get(info.distortion_model)
    if model is None:
        if not coefficients.any():
            return coefficients, CameraModel.PLUMB_BOB  # simulators write zeros and no name
        raise InputError(
            f'camera_info of {info.header.frame_id!r} has the distortion model {info.distortion_model!r} with '
            f'{len(coefficients)} coefficients; known are {", ".join(DISTORTION_MODELS)}. Rectify the images '
            '(image_proc) and set input.rectified, or name the model in camera_info'
        )
    return coefficients, model


def info_from_camera(camera: Camera, header: Header, baseline_m: float = 0.0, axis: int = 0) -> CameraInfo:
    """Return the camera_info of a camera.

    R and P are those of the calibration where it has them. Otherwise R is 1 and P is K, for the second camera of a pair
    with its place: `baseline_m` [m] from the first along x (axis 0) or y (axis 1).
    """
    rectification, projection = camera.rectification, camera.projection
    if projection is None:
        projection = np.column_stack([camera.matrix, np.zeros(3)])
        projection[axis, 3] = -baseline_m * camera.matrix[axis, axis]
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model=camera.model.value,
        d=(camera.distortion if len(camera.distortion) else np.zeros(camera.model.coefficient_counts[-1])).tolist(),
        k=camera.matrix.ravel(),
        r=(np.eye(3) if rectification is None else rectification).ravel(),
        p=projection.ravel(),
    )


MAX_FOCAL_RATIO = 1.02
"""The two P of a rectified pair have one focal length; beyond this they are not of one pair."""
MAX_OFF_AXIS = 0.05
"""Share of the baseline that may lie off the axis of a rectified pair: KITTI's P have a millimetre or two there."""


def baseline_from_infos(left_info: CameraInfo, right_info: CameraInfo) -> tuple[float, str]:
    """Return the distance of two rectified cameras [m] from both P, or 0 and the reason why there is none.

    P = K' [1 | t] has the way t from a common origin to each camera, which is the left camera for most drivers but not
    for all (KITTI's colour cameras, rigs with more than two). The pair may lie side by side or one above the other.
    """
    offsets, focals = [], []
    for name, info in (('left', left_info), ('right', right_info)):
        projection = np.reshape(np.asarray(info.p, np.float64), (3, 4))
        matrix = projection[:, :3]
        if not (np.isfinite(projection).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            return 0.0, f'P of the {name} camera_info has no finite, positive focal lengths: {_CALIBRATE}'
        if not np.array_equal(matrix[2], (0, 0, 1)):
            return 0.0, f'the last row of P of the {name} camera_info is {projection[2].tolist()}, needed is 0 0 1'
        offsets.append(np.linalg.solve(matrix, projection[:, 3]))
        focals.append(matrix[0, 0])
    if max(focals) > MAX_FOCAL_RATIO * min(focals):
        return 0.0, f'P of left and right have the focal lengths {focals[0]:g} and {focals[1]:g}: {_CALIBRATE}'
    vector = offsets[1] - offsets[0]
    baseline_m = float(np.linalg.norm(vector))
    if baseline_m == 0:
        return 0.0, f'P of left and right put both cameras at one place: {_CALIBRATE}'
    if max(np.abs(vector[:2])) ** 2 < (1 - MAX_OFF_AXIS**2) * baseline_m**2:
        return 0.0, f'P of left and right are {vector.round(4).tolist()} m apart, along neither x nor y: {_CALIBRATE}'
    return baseline_m, ''


_CALIBRATE = 'calibrate the two cameras as one pair (camera_calibration with two cameras) for a translation in metres'


# Images

_GREY = ('mono8', '8UC1')
_GREY16 = ('mono16', '16UC1')
_AS_THEY_ARE = ('bgr8', '8UC3')
_BGRA = ('bgra8', '8UC4')
_COLOUR = ('rgb8', 'rgba8', 'bgr16', 'rgb16', 'bgra16', 'rgba16')
_YUV = ('yuv422', 'yuv422_yuy2')
_NEW_YUV = ('uyvy', 'yuyv')  # names that cv_bridge does not know in every distribution
_BAYER = tuple(f'bayer_{pattern}{bits}' for bits in (8, 16) for pattern in ('rggb', 'bggr', 'gbrg', 'grbg'))
ENCODINGS = (*_GREY, *_GREY16, *_AS_THEY_ARE, *_BGRA, *_COLOUR, *_YUV, *_NEW_YUV, *_BAYER)
"""What image_from_msg takes."""


def image_from_msg(msg: Image | CompressedImage, bridge, levels: Levels | None = None) -> np.ndarray:
    """Return the image of a message as uint8, (H, W) grey or (H, W, 3) with blue first.

    16 bits become 8 by `levels`, which keeps one range for the images of a topic. 16UC1 counts as mono16, but not where
    it looks like depth. Alpha is dropped. 8UC1, 8UC3 and 8UC4, which tell no order, are grey, BGR and BGRA, as OpenCV
    has it. The orientation of EXIF is not applied. The image may share the message's memory.

    Args:
        bridge: a CvBridge, of cv_bridge or the stand-in.
        levels: of the topic; without, each image of 16 bits has a range of its own.

    Raises:
        InputError: the message is empty, too short, of an encoding that is no picture, or cannot be decoded.
    """
    levels = levels or Levels()
    try:
        if isinstance(msg, CompressedImage):
            return _compressed(msg, levels)
        return _raw(msg, bridge, levels)
    except InputError:
        raise
    except Exception as error:  # cv_bridge raises errors of many types
        raise InputError(f'image of {msg.header.frame_id!r} cannot be converted: {error}') from error


def _raw(msg: Image, bridge, levels: Levels) -> np.ndarray:
    if msg.encoding not in ENCODINGS:
        raise InputError(
            f'image of {msg.header.frame_id!r} has the encoding {msg.encoding!r}; needed is a picture: '
            f'{", ".join(ENCODINGS)}. For depth, float or other data subscribe to the picture that belongs to it'
        )
    if not _is_plain(msg):
        bridge = own_bridge.CvBridge()
    if msg.encoding in _GREY + _AS_THEY_ARE:
        return bridge.imgmsg_to_cv2(msg)
    if msg.encoding in _GREY16:
        image = bridge.imgmsg_to_cv2(msg)
        if msg.encoding == '16UC1':
            _check_no_depth(msg, image)
        return levels.to_8_bits(image)
    if msg.encoding in _BGRA:
        return cv2.cvtColor(bridge.imgmsg_to_cv2(msg), cv2.COLOR_BGRA2BGR)
    if msg.encoding.endswith('16'):
        return levels.to_8_bits(bridge.imgmsg_to_cv2(msg, 'bgr16'))
    return bridge.imgmsg_to_cv2(msg, 'bgr8')


def _check_no_depth(msg: Image | CompressedImage, image: np.ndarray) -> None:
    name = f'image of {msg.header.frame_id!r}'
    if 'depth' in msg.header.frame_id.lower():
        raise InputError(
            f'{name} is 16UC1 in the frame of a depth camera; subscribe to its picture (of infrared: mono8 or mono16)'
        )
    check_no_depth(image, name)


def _is_plain(msg: Image) -> bool:
    """Whether cv_bridge reads the message rightly: some raise on big-endian ones or read padded rows askew."""
    dtype, channels = own_bridge.CvBridge().encoding_to_dtype_with_channels(msg.encoding)
    step = msg.width * channels * np.dtype(dtype).itemsize
    is_tight = step > 0 and msg.step == step and len(msg.data) == msg.height * step > 0
    return is_tight and not msg.is_bigendian and msg.encoding not in _NEW_YUV


def _compressed(msg: CompressedImage, levels: Levels) -> np.ndarray:
    if 'compressedDepth' in msg.format:
        raise InputError(f'image of {msg.header.frame_id!r} is compressed depth; subscribe to the picture')
    if not len(msg.data):
        raise InputError(f'compressed image of {msg.header.frame_id!r} is empty; check the camera driver')
    # Not by cv_bridge, of which some turn by EXIF and take 8 of 16 bits.
    image = own_bridge.CvBridge().compressed_imgmsg_to_cv2(msg)
    if image.ndim == 3 and image.shape[2] == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    source, *_ = re.split(r'[;\s]', msg.format)
    if image.dtype == np.uint16 and source != 'mono16':
        _check_no_depth(msg, image)
    image = levels.to_8_bits(image)
    if image.ndim == 2 and source in _BAYER:
        # image_transport compresses a mosaic as if it were grey.
        return own_bridge.convert(image, f'{source.rstrip("0123456789")}8', 'bgr8')
    return image


# Matches and poses


def matches_to_msg(
    result: PairResult, header: Header, header0: Header, matcher: str = '', age_s: float = 0.0
) -> MatchesMsg:
    """Return a pair's matches as a message.

    Args:
        result: matches, inliers, track_ids, id0, id1, match_s and both frames, as of odometry.frontend.PairResult.
        header: stamp and frame of image 1.
        header0: stamp and frame of image 0.
    """
    matches = result.matches
    height0, width0 = result.frame0.image.shape[:2]
    height1, width1 = result.frame1.image.shape[:2]
    return MatchesMsg(
        header=header,
        header0=header0,
        id0=result.id0,
        id1=result.id1,
        width0=width0,
        height0=height0,
        width1=width1,
        height1=height1,
        points0=_flat('f', matches.keypoints0, np.float32),
        points1=_flat('f', matches.keypoints1, np.float32),
        confidence=_flat('f', matches.confidence, np.float32),
        sigma_px=_flat('f', matches.sigma_px, np.float32),
        inliers=_flat('B', result.inliers, np.uint8),
        track_ids=_flat('q', result.track_ids, np.int64),
        matcher=matcher,
        match_s=float(result.match_s),
        age_s=float(age_s),
    )


def _flat(typecode: str, values, dtype) -> array.array:
    """Return values as the flat array that rclpy takes without looking at each."""
    return array.array(typecode, np.ascontiguousarray(values, dtype).tobytes())


def matches_from_msg(msg: MatchesMsg) -> Matches:
    """Return the matches of a message; `point_id0` are its track_ids."""
    return Matches(
        np.frombuffer(msg.points0, np.float32).reshape(-1, 2),
        np.frombuffer(msg.points1, np.float32).reshape(-1, 2),
        np.frombuffer(msg.confidence, np.float32),
        np.frombuffer(msg.sigma_px, np.float32),
        np.frombuffer(msg.track_ids, np.int64),
        from_images=True,
    )


def inliers_from_msg(msg: MatchesMsg) -> np.ndarray:
    """Return (N,) bool, which matches agree with the relative pose."""
    return np.frombuffer(msg.inliers, np.uint8).astype(bool)


def relative_pose_to_msg(
    pose: RelativePose | PoseFailure, header: Header, header0: Header, id0: int, id1: int, pose_s: float = 0.0
) -> RelativePoseMsg:
    """Return a pose as a message; a failure has a transform of NaN and UNKNOWN_VARIANCE in every direction.

    Args:
        header: stamp and frame of image 1.
        header0: stamp and frame of image 0.
        pose_s: time that the estimation took [s].
    """
    msg = RelativePoseMsg(header=header, header0=header0, id0=id0, id1=id1, pose_s=pose_s, status=int(pose.status))
    msg.num_matches, msg.num_inliers = pose.num_matches, pose.num_inliers
    if isinstance(pose, PoseFailure):
        cam1_from_cam0 = other = None
        covariance = np.eye(6) * UNKNOWN_VARIANCE
        msg.median_parallax_deg = msg.epipolar_rmse_px = msg.log10_false_alarms = float('nan')
    else:
        cam1_from_cam0, other, covariance = pose.cam1_from_cam0, pose.other_cam1_from_cam0, pose.covariance
        msg.log10_false_alarms = float(pose.log10_false_alarms)
        msg.scale = int(pose.scale)
        msg.median_parallax_deg = float(pose.median_parallax_deg)
        msg.epipolar_rmse_px = float(pose.epipolar_rmse_px)
    msg.covariance = np.ascontiguousarray(covariance, np.float64).ravel()
    _fill_transform(msg.transform, cam1_from_cam0)
    _fill_transform(msg.other_transform, other)
    return msg


def _fill_transform(field, a_from_b: np.ndarray | None) -> None:
    """Write a (4, 4) transform into a geometry_msgs/Transform; NaN for None."""
    translation, quaternion = np.full(3, np.nan), np.full(4, np.nan)
    if a_from_b is not None:
        translation, quaternion = a_from_b[:3, 3], quaternion_from_matrix(a_from_b[:3, :3])
    for target, names, values in ((field.translation, 'xyz', translation), (field.rotation, 'xyzw', quaternion)):
        for name, value in zip(names, values, strict=True):
            setattr(target, name, float(value))


def _transform_from_msg(field) -> np.ndarray:
    quaternion = [getattr(field.rotation, name) for name in 'xyzw']
    return transform(matrix_from_quaternion(quaternion), [getattr(field.translation, name) for name in 'xyz'])


def relative_pose_from_msg(msg: RelativePoseMsg) -> RelativePose | PoseFailure:
    """Return the pose of a message. It tells only how many inliers there are, so the first so many are marked."""
    status = PoseStatus(msg.status)
    if status >= PoseStatus.TOO_FEW_MATCHES:
        return PoseFailure(status, f'received as {status.name}', msg.num_matches, msg.num_inliers)
    ambiguous = status is PoseStatus.AMBIGUOUS
    return RelativePose(
        _transform_from_msg(msg.transform),
        np.reshape(msg.covariance, (6, 6)),
        np.arange(msg.num_matches) < msg.num_inliers,
        msg.median_parallax_deg,
        msg.epipolar_rmse_px,
        Scale(msg.scale),
        status,
        msg.log10_false_alarms,
        _transform_from_msg(msg.other_transform) if ambiguous else None,
    )
