"""Conversions between the types of the package and the messages that it publishes: cameras, matches and poses."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from loftr_ros.camera import Camera
from loftr_ros.datatypes import (
    UNKNOWN_VARIANCE,
    Matches,
    PoseFailure,
    PoseStatus,
    RelativePose,
    Scale,
)
from loftr_ros.geometry import quaternion_from_matrix
from loftr_ros.messages import SECOND_NS, transform_from_msg
from loftr_ros.msg import Matches as MatchesMsg
from loftr_ros.msg import RelativePose as RelativePoseMsg

if TYPE_CHECKING:
    from loftr_ros.odometry.frontend import PairResult

# Headers


def time_msg(nanoseconds: int) -> Time:
    """Return integer nanoseconds as a Time message."""
    seconds, rest = divmod(int(nanoseconds), SECOND_NS)
    return Time(sec=seconds, nanosec=rest)


def header(nanoseconds: int, frame_id: str) -> Header:
    """Return a header with the stamp [ns] and frame."""
    return Header(stamp=time_msg(nanoseconds), frame_id=frame_id)


# Cameras


def info_from_camera(camera: Camera, header: Header, baseline_m: float = 0.0, axis: int = 0) -> CameraInfo:
    """Return the camera_info of a camera.

    R and P are those of the calibration if it has them. Otherwise R is the identity and P contains K and the baseline:
    the camera is `baseline_m` [m] from the first camera of the pair along x (axis 0) or y (axis 1).
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


# Matches and poses


def matches_to_msg(
    result: PairResult, header: Header, header0: Header, matcher: str = '', age_s: float = 0.0
) -> MatchesMsg:
    """Return a pair's matches as a message.

    Args:
        result: matches, inliers, track_ids, track_ids1, id0, id1, match_s and both frames, as of
            odometry.frontend.PairResult.
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
        points0=flat('f', matches.keypoints0, np.float32),
        points1=flat('f', matches.keypoints1, np.float32),
        confidence=flat('f', matches.confidence, np.float32),
        sigma_px=flat('f', matches.sigma_px, np.float32),
        inliers=flat('B', result.inliers, np.uint8),
        track_ids=flat('q', result.track_ids, np.int64),
        track_ids1=flat('q', result.track_ids1, np.int64),
        matcher=matcher,
        match_s=float(result.match_s),
        age_s=float(age_s),
    )


def flat(typecode: str, values, dtype) -> array.array:
    """Return values as a flat array.array, which rclpy copies without checking each element."""
    return array.array(typecode, np.ascontiguousarray(values, dtype).tobytes())


def matches_from_msg(msg: MatchesMsg) -> Matches:
    """Return the matches of a message; `point_id0` and `point_id1` are its track_ids and track_ids1."""
    return Matches(
        np.frombuffer(msg.points0, np.float32).reshape(-1, 2),
        np.frombuffer(msg.points1, np.float32).reshape(-1, 2),
        np.frombuffer(msg.confidence, np.float32),
        np.frombuffer(msg.sigma_px, np.float32),
        np.frombuffer(msg.track_ids, np.int64),
        np.frombuffer(msg.track_ids1, np.int64),
        from_images=True,
    )


def inliers_from_msg(msg: MatchesMsg) -> np.ndarray:
    """Return whether each match agrees with the relative pose, (N,) bool."""
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
    fill_transform(msg.transform, cam1_from_cam0)
    fill_transform(msg.other_transform, other)
    return msg


def fill_transform(field, a_from_b: np.ndarray | None) -> None:
    """Write a (4, 4) transform into a geometry_msgs/Transform; NaN for None."""
    translation, quaternion = np.full(3, np.nan), np.full(4, np.nan)
    if a_from_b is not None:
        translation, quaternion = a_from_b[:3, 3], quaternion_from_matrix(a_from_b[:3, :3])
    for target, names, values in ((field.translation, 'xyz', translation), (field.rotation, 'xyzw', quaternion)):
        for name, value in zip(names, values, strict=True):
            setattr(target, name, float(value))


def relative_pose_from_msg(msg: RelativePoseMsg) -> RelativePose | PoseFailure:
    """Return the pose of a message. It contains the number of inliers only, so the first `num_inliers` are marked."""
    status = PoseStatus(msg.status)
    if status >= PoseStatus.TOO_FEW_MATCHES:
        return PoseFailure(status, f'received as {status.name}', msg.num_matches, msg.num_inliers)
    ambiguous = status is PoseStatus.AMBIGUOUS
    return RelativePose(
        transform_from_msg(msg.transform),
        np.reshape(msg.covariance, (6, 6)),
        np.arange(msg.num_matches) < msg.num_inliers,
        msg.median_parallax_deg,
        msg.epipolar_rmse_px,
        Scale(msg.scale),
        status,
        msg.log10_false_alarms,
        transform_from_msg(msg.other_transform) if ambiguous else None,
    )
