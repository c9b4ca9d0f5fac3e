"""Conversions of motions into messages: odometry, information, tracks, points and transforms."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point32, TransformStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import ChannelFloat32, PointCloud, PointCloud2, PointField
from std_msgs.msg import Header

from loftr_ros.datatypes import UNKNOWN_VARIANCE
from loftr_ros.geometry import homogeneous, quaternion_from_matrix
from loftr_ros.messages import transform_from_msg
from loftr_ros.msg import OdometryInfo, Tracks
from loftr_ros.odometry.motion import Motion, Velocity
from loftr_ros.ros.conversions import fill_transform, flat
from loftr_ros.transforms import UncertainTransform

UNKNOWN = np.eye(6) * UNKNOWN_VARIANCE


def odometry_to_msg(
    pose: UncertainTransform, velocity: Velocity | None, header: Header, child_frame_id: str
) -> Odometry:
    """Return a pose of the child frame and its velocity, which is in the axes of the child frame.

    A velocity that is unknown is 0 with UNKNOWN_VARIANCE in every direction, never 0 with a small variance.
    """
    message = Odometry(header=header, child_frame_id=child_frame_id)
    position, orientation = message.pose.pose.position, message.pose.pose.orientation
    position.x, position.y, position.z = pose.translation.tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = quaternion_from_matrix(pose.rotation).tolist()
    message.pose.covariance = pose.covariance.ravel()
    message.twist.covariance = UNKNOWN.ravel()
    if velocity is not None:
        linear, angular = message.twist.twist.linear, message.twist.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = velocity.twist.tolist()
        message.twist.covariance = velocity.covariance.ravel()
    return message


def lost_msg(header: Header, child_frame_id: str) -> Odometry:
    """Return the message of a motion that is unknown, as rtabmap does: a quaternion of zeros, UNKNOWN_VARIANCE."""
    message = Odometry(header=header, child_frame_id=child_frame_id)
    message.pose.pose.orientation.w = 0.0
    message.pose.covariance = message.twist.covariance = UNKNOWN.ravel()
    return message


def pose_from_msg(message: Odometry) -> np.ndarray | None:
    """Return parent_from_child (4, 4) of a message, None if it says that the motion is lost."""
    turn = message.pose.pose.orientation
    return transform_from_msg(message.pose.pose) if any((turn.x, turn.y, turn.z, turn.w)) else None


def transform_to_msg(parent_from_child: np.ndarray, header: Header, child_frame_id: str) -> TransformStamped:
    """Return a (4, 4) transform of TF; the header has the parent frame."""
    message = TransformStamped(header=header, child_frame_id=child_frame_id)
    fill_transform(message.transform, parent_from_child)
    return message


def info_to_msg(motion: Motion, header: Header, age_s: float) -> OdometryInfo:
    """Return status and counts of a motion.

    Args:
        header: stamp and frame of the image.
        age_s: from the stamp of the image to now [s].
    """
    pair = motion.pair
    return OdometryInfo(
        header=header,
        id=motion.number,
        keyframe_id=motion.number if pair is None else pair.id0,
        status=int(motion.status),
        scale=int(motion.scale),
        segment=motion.segment,
        is_keyframe=motion.is_keyframe,
        relocalised=motion.relocalised,
        num_matches=0 if pair is None else len(pair.matches),
        num_inliers=0 if pair is None else int(pair.inliers.sum()),
        num_tracks=len(motion.tracks),
        match_s=0.0 if pair is None else float(pair.match_s),
        compute_s=float(motion.compute_s),
        age_s=float(age_s),
    )


def tracks_to_msg(motion: Motion, header: Header) -> Tracks:
    """Return the tracks of a motion; the header is that of the image."""
    tracks = motion.tracks
    height, width = motion.frame.image.shape[:2]
    return Tracks(
        header=header,
        id=motion.number,
        width=width,
        height=height,
        ids=flat('q', tracks.ids, np.int64),
        points=flat('f', tracks.keypoints, np.float32),
        rays=flat('f', tracks.rays, np.float32),
        velocity=flat('f', tracks.velocity, np.float32),
        depth=flat('f', tracks.depth_m, np.float32),
        sigma_px=flat('f', tracks.sigma_px, np.float32),
        scale=int(motion.scale),
    )


POINT = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('rgb', '<u4')])
"""A point of a coloured PointCloud2, as RViz and PCL read it."""


def points_to_msg(motion: Motion, odom_from_cam: np.ndarray, header: Header) -> PointCloud2:
    """Return the tracked points with a depth, in odom, with their colours in the image."""
    tracks, image = motion.tracks, motion.frame.image
    known = np.isfinite(tracks.depth_m)
    places = homogeneous(tracks.rays[known]) * tracks.depth_m[known, None]
    height, width = image.shape[:2]
    column, row = np.clip(np.rint(tracks.keypoints[known]).astype(int), 0, (width - 1, height - 1)).T
    colours = np.broadcast_to(image.reshape(height, width, -1)[row, column], (len(row), 3)).astype(np.uint32)
    cloud = np.empty(len(row), POINT)
    cloud['x'], cloud['y'], cloud['z'] = (places @ odom_from_cam[:3, :3].T + odom_from_cam[:3, 3]).T
    cloud['rgb'] = colours[:, 2] << 16 | colours[:, 1] << 8 | colours[:, 0]
    fields = [
        PointField(name=name, offset=offset, datatype=kind, count=1)
        for name, offset, kind in (
            ('x', 0, PointField.FLOAT32),
            ('y', 4, PointField.FLOAT32),
            ('z', 8, PointField.FLOAT32),
            ('rgb', 12, PointField.UINT32),
        )
    ]
    return PointCloud2(
        header=header,
        height=1,
        width=len(cloud),
        fields=fields,
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=cloud.nbytes,
        data=flat('B', cloud.view(np.uint8), np.uint8),
        is_dense=True,
    )


MAX_FLOAT_ID = 2**24
"""Numbers up to this are exact in float32, in which VINS-Fusion has them."""


def features_to_msg(motion: Motion, header: Header) -> PointCloud:
    """Return the tracks as the features that the estimator of VINS-Fusion can use instead of its own front end.

    Points are rays (x/z, y/z, 1); channels are number, camera, pixel and velocity of the ray, 0 where the point is new.
    There are nine: with more than five the estimator also reads the seventh to ninth, a true position, here 0.
    """
    tracks = motion.tracks
    zero = np.zeros(len(tracks))
    columns = (
        *(('feature_id', tracks.ids % MAX_FLOAT_ID), ('camera_id', zero)),
        *(('p_u', tracks.keypoints[:, 0]), ('p_v', tracks.keypoints[:, 1])),
        *((f'velocity_{axis}', np.nan_to_num(tracks.velocity[:, i])) for i, axis in enumerate('xy')),
        *((f'true_{axis}', zero) for axis in 'xyz'),
    )
    return PointCloud(
        header=header,
        points=[Point32(x=x, y=y, z=1.0) for x, y in tracks.rays.tolist()],
        channels=[ChannelFloat32(name=name, values=flat('f', values, np.float32)) for name, values in columns],
    )
