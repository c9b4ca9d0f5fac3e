"""Odometry of one camera, a stereo pair or an RGB-D camera: the pose of each frame in the frame of the first one."""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from collections.abc import Callable

import numpy as np

from loftr_ros import geometry
from loftr_ros.config import Config
from loftr_ros.datatypes import UNKNOWN_VARIANCE, FrameSet, Matches, PoseFailure, PoseStatus, RelativePose, Scale
from loftr_ros.depth import depth_of_image
from loftr_ros.errors import InputError
from loftr_ros.matchers.base import Matcher
from loftr_ros.odometry.degeneracy import in_metres, is_static, motion_status, up_to_scale
from loftr_ros.odometry.frontend import PairResult
from loftr_ros.odometry.keyframes import FrameFeatures
from loftr_ros.odometry.landmarks import DepthImage, Landmarks, PointDepths
from loftr_ros.odometry.located import LocatedFrame, LocatedKeyframe
from loftr_ros.odometry.map_unit import MapUnit, SpeedLog
from loftr_ros.odometry.motion import Motion, MotionStatus
from loftr_ros.odometry.stamps import StampPolicy
from loftr_ros.odometry.tracks import Tracks, TrackTable
from loftr_ros.pose import estimate_relative_pose
from loftr_ros.pose.inverse_depth import carry_depth, triangulate
from loftr_ros.pose.with_depth import estimate_pose_with_depth
from loftr_ros.transforms import UncertainTransform

logger = logging.getLogger(__name__)

SCALES = {'mono': Scale.UP_TO_SCALE, 'stereo': Scale.STEREO, 'rgbd': Scale.DEPTH}

START_VARIANCE = 1e-8
"""Of the first pose, which is exact by definition [m^2, rad^2]: filters need a covariance that can be inverted."""


class Odometer:
    """Computes the motion of a rig, frame by frame. All rigs share all steps but the source of depth.

    Sets of frames are numbered from 0. The features of each image are extracted once.

    Args:
        on_restart: called with the reason when the motion starts again, for example because time jumped.
    """

    def __init__(self, matcher: Matcher, config: Config, on_restart: Callable[[str], None] | None = None):
        self.matcher = matcher
        self.config = config
        self._rig_scale = SCALES[config.odometry.rig]
        self._speeds = SpeedLog()
        self._on_restart = on_restart or (lambda reason: logger.info('%s: the motion starts again', reason))
        self._stamps = StampPolicy()
        self._count = 0
        self._segments = 0
        self._table = TrackTable()
        self._forget()

    @property
    def scale(self) -> Scale:
        """The unit of the last motion."""
        return self._rig_scale if self._unit is None or self._unit.metres is None else Scale.EXTERNAL

    @property
    def unit_fault(self) -> str:
        """Why speeds do not give a single camera its unit; empty where they do, or none are expected."""
        return '' if self._unit is None or self.config.odometry.speed == 'none' else self._unit.fault

    @property
    def _unit(self) -> MapUnit | None:
        return None if self._keyframe is None else self._keyframe.unit

    def configure(self, config: Config, matcher: Matcher | None = None) -> None:
        """Use other settings. With another matcher the motion starts again, because it cannot read the old features."""
        self.config = config
        if matcher is not None:
            self.matcher = matcher
            self.restart('the matcher changed')

    def restart(self, reason: str) -> None:
        """Start again at the origin, for example when the clock jumped. Numbers continue, so that ids stay unique."""
        self._stamps.reset()
        self._start_again(reason)

    def add_speed(self, stamp_ns: int, speed: float) -> None:
        """Add a measured speed of the camera [m/s], by which the lengths of a single camera become metric."""
        self._speeds.add(stamp_ns, speed)

    def request_keyframe(self) -> None:
        """Make the next frame that has a pose the keyframe."""
        self._keyframe_requested = True

    def process(self, frames: FrameSet) -> Motion:
        """Return the motion up to these frames.

        Raises:
            InputError: the stamp is not newer than the last one, or the frames lack what the rig needs; they are
                ignored.
        """
        self._check(frames)
        jump = self._stamps.accept(frames.stamp_ns)
        if jump:
            self._start_again(jump)
        current = self._extract(frames)
        if self._keyframe is None:
            return self._start(current)
        pairs = [self._match(self._keyframe, current)]
        if isinstance(pairs[0][1].pose, PoseFailure):
            other = self._next_keyframe()
            if other is not None:
                pairs.append(self._match(other, current))
        keyframe, pair, relative = pairs[-1]
        if isinstance(pair.pose, PoseFailure):
            return self._without_pose(current, pairs[0][1])
        return self._with_pose(current, keyframe, pair, relative)

    # --- steps -------------------------------------------------------------------------------------------------------

    def _check(self, frames: FrameSet) -> None:
        rig = self.config.odometry.rig
        if any(frame.camera is None for frame in frames.frames):
            raise InputError('odometry needs the calibration of each camera; publish camera_info with the images')
        if rig == 'stereo' and frames.cam1_from_cam0 is None:
            raise InputError(
                'odometry.rig is stereo but the transform between the two cameras is unknown: P of both camera_infos '
                'gives it for a calibrated pair'
            )
        if rig == 'rgbd' and frames.depth_m is None:
            raise InputError('odometry.rig is rgbd but the frames have no depth image; give depth_m')

    def _extract(self, frames: FrameSet) -> FrameFeatures:
        started = time.perf_counter()
        features = (self.matcher.extract(frames.frame0.image),)
        self._count += 1
        return FrameFeatures(frames, features, self._count - 1, time.perf_counter() - started)

    def _start(self, current: FrameFeatures) -> Motion:
        """Make the first frame the keyframe, at the origin."""
        started = time.perf_counter()
        origin = UncertainTransform(np.eye(4), START_VARIANCE * np.eye(6))
        keyframe = self._new_keyframe(current, origin, self._table, self._segments)
        self._use(keyframe)
        at_keyframe = UncertainTransform.exact(np.eye(4))
        self._last = LocatedFrame(keyframe, at_keyframe, current.frames.stamp_ns, current.number, Tracks.empty())
        return self._motion(current, MotionStatus.STARTING, origin, started=started, is_keyframe=True)

    def _match(
        self, keyframe: LocatedKeyframe, current: FrameFeatures
    ) -> tuple[LocatedKeyframe, PairResult, UncertainTransform | None]:
        """Return the keyframe, its pair with the frame, and cam_from_keyframe, None without a pose."""
        started = time.perf_counter()
        matches = self.matcher.match(keyframe.features0, current.features[0])
        keyframe.features0 = self.matcher.keep_points(keyframe.features0, matches)
        matched = time.perf_counter()
        pose, relative = self._estimate(keyframe, current, matches)
        pair = PairResult(
            keyframe.frame0,
            current.frames.frame0,
            keyframe.number,
            current.number,
            matches,
            pose,
            current.extract_s + matched - started,
            time.perf_counter() - matched,
        )
        keyframe.record(pose)
        return keyframe, pair, relative

    def _estimate(
        self, keyframe: LocatedKeyframe, current: FrameFeatures, matches: Matches
    ) -> tuple[RelativePose | PoseFailure, UncertainTransform | None]:
        cameras = keyframe.frame0.camera, current.frames.frame0.camera
        if keyframe.landmarks is None:
            pose = estimate_relative_pose(matches, *cameras, self.config.pose)
            return pose, None if isinstance(pose, PoseFailure) else self._start_map(keyframe, pose, matches, cameras)
        depth = keyframe.landmarks.filled(matches.keypoints0)
        guesses = self._last.predict(keyframe, current.frames.stamp_ns)
        pose = estimate_pose_with_depth(matches, *cameras, depth, self.config.pose, self._rig_scale, guesses)
        if isinstance(pose, PoseFailure):
            return pose, None
        if is_static(pose, matches):
            pose = dataclasses.replace(pose, cam1_from_cam0=np.eye(4), status=PoseStatus.STATIC)
        relative = UncertainTransform(pose.cam1_from_cam0, pose.covariance)
        if self._rig_scale is not Scale.DEPTH:
            self._improve_map(keyframe, matches.select(pose.inliers), cameras, relative)
        if self._rig_scale is Scale.UP_TO_SCALE:
            pose = in_metres(pose, keyframe.unit) or up_to_scale(pose)
        return pose, relative

    def _start_map(self, keyframe: LocatedKeyframe, pose: RelativePose, matches: Matches, cameras):
        """Return cam_from_keyframe of a pair without a map; with enough parallax its translation is the unit of length.

        Otherwise only the rotation is known.
        """
        if pose.status is PoseStatus.OK and pose.median_parallax_deg >= self.config.odometry.min_start_parallax_deg:
            across = np.eye(6)
            across[:3, :3] -= np.outer(pose.translation, pose.translation)
            relative = UncertainTransform(pose.cam1_from_cam0, across @ pose.covariance @ across)
            keyframe.landmarks = PointDepths((cameras[0].width, cameras[0].height))
            keyframe.unit = MapUnit(self._speeds, self.config.odometry.speed_noise, keyframe.origin_from_keyframe)
            self._improve_map(keyframe, matches.select(pose.inliers), cameras, relative)
            return relative
        covariance = UNKNOWN_VARIANCE * np.eye(6)
        covariance[3:, 3:] = pose.covariance[3:, 3:]
        return UncertainTransform(geometry.transform(pose.rotation, np.zeros(3)), covariance)

    def _improve_map(self, keyframe: LocatedKeyframe, matches: Matches, cameras, relative: UncertainTransform) -> None:
        """Triangulate the matches of a single camera with a pose of known length."""
        if np.any(relative.translation):
            depth = triangulate(matches, *cameras, relative, self.config.pose.max_epipolar_error_px)
            keyframe.landmarks.add(matches.keypoints0, depth)

    def _with_pose(
        self, current: FrameFeatures, keyframe: LocatedKeyframe, pair: PairResult, relative: UncertainTransform
    ) -> Motion:
        started = time.perf_counter()
        relocalised = self._lost > 0 or keyframe is not self._keyframe
        if keyframe.segment > self._segments:
            self._segments = keyframe.segment
            self._on_restart('no earlier keyframe was found again')
        self._keyframe, self._lost = keyframe, 0
        status = motion_status(pair.pose, pair.matches, keyframe.landmarks)
        if keyframe.unit is not None:
            self._improve_unit(keyframe, relative, current)
        origin_from_cam = keyframe.origin_from_keyframe @ keyframe.in_metres(relative).inverse()
        inliers = pair.matches.select(pair.pose.inliers)
        ids, places = keyframe.tracks.follow(inliers.point_id0, inliers.keypoints0, inliers.keypoints1)
        tracks = self._tracks(current, keyframe, inliers, ids, places, relative)
        has_map = keyframe.landmarks is not None
        velocity = self._last.velocity_to(current, keyframe, relative) if has_map else None
        self._last = LocatedFrame(keyframe, relative, current.frames.stamp_ns, current.number, tracks, velocity)
        replace = self._keyframe_requested or keyframe.should_be_replaced(self.config.keyframe)
        is_keyframe = replace and self._become_keyframe(current, origin_from_cam, inliers, ids, places, relative)
        return self._motion(
            current,
            status,
            origin_from_cam,
            pair=pair,
            velocity=velocity,
            tracks=tracks,
            is_keyframe=is_keyframe,
            relocalised=relocalised,
            started=started,
        )

    def _improve_unit(self, keyframe: LocatedKeyframe, relative: UncertainTransform, current: FrameFeatures) -> None:
        """Compare the step since the last frame with the speed; when the unit becomes known, bring all poses to it."""
        unit, last = keyframe.unit, self._last
        was_known = unit.metres is not None
        if last.keyframe is keyframe and last.number == current.number - 1:
            step = (last.cam_from_keyframe @ relative.inverse()).translation
            unit.add_step(last.stamp_ns, current.frames.stamp_ns, float(np.linalg.norm(step)))
        if not was_known and unit.metres is not None:
            for other in {keyframe, *self._recent}:
                if other.unit is unit:
                    other.origin_from_keyframe = unit.bring_to_metres(other.origin_from_keyframe)

    def _without_pose(self, current: FrameFeatures, pair: PairResult) -> Motion:
        """Keep the keyframe, or begin a new one where it never matched, or after many frames without a pose."""
        started = time.perf_counter()
        self._lost += 1
        keyframe = self._keyframe
        is_new = not keyframe.has_matched and not keyframe.is_located
        if not is_new and keyframe.failures >= self.config.odometry.restart_after:
            is_new = True
            pose = self._last.origin_from_cam
            covariance = pose.covariance + UNKNOWN_VARIANCE * np.eye(6)
            pose, segment = UncertainTransform(pose.matrix, covariance), self._segments + 1
        else:
            pose, segment = keyframe.origin_from_keyframe, keyframe.segment
        if is_new:
            # It has not matched yet: if it is a bad frame too, the next one takes its place.
            self._use(self._new_keyframe(current, pose, self._table, segment), keep=False)
        lost = self._lost > self.config.keyframe.max_failures
        status = MotionStatus.LOST if lost else MotionStatus.TOO_FEW
        return self._motion(current, status, None, pair=pair, is_keyframe=is_new, started=started)

    # --- keyframes ---------------------------------------------------------------------------------------------------

    def _become_keyframe(
        self,
        current: FrameFeatures,
        origin_from_cam: UncertainTransform,
        inliers: Matches,
        ids: np.ndarray,
        places: np.ndarray,
        relative: UncertainTransform,
    ) -> bool:
        """Make the frame the keyframe, with the tracks through it; return False if its depth is not known."""
        old = self._keyframe
        landmarks = None
        if self._rig_scale is Scale.UP_TO_SCALE and old.landmarks is not None:
            depth = old.landmarks.at(inliers.keypoints0)
            if np.count_nonzero(depth.reliable) < self.config.pose.min_inliers:
                return False
            camera = current.frames.frame0.camera
            landmarks = PointDepths((camera.width, camera.height))
            landmarks.add(places, carry_depth(depth, old.frame0.camera, inliers.keypoints0, relative.matrix))
        features0 = current.features[0]
        point_ids = np.where(inliers.point_id1 >= 0, inliers.point_id1, self.matcher.point_ids_at(features0, places))
        swapped = dataclasses.replace(
            inliers, keypoints0=places, keypoints1=inliers.keypoints0, point_id0=point_ids, point_id1=inliers.point_id0
        )
        current = dataclasses.replace(current, features=(self.matcher.keep_points(features0, swapped),))
        table = old.tracks.hand_over(point_ids, ids, places)
        keyframe = self._new_keyframe(current, origin_from_cam, table, old.segment, landmarks, old.unit)
        keyframe.is_located = True
        self._use(keyframe)
        self._last = dataclasses.replace(
            self._last, keyframe=keyframe, cam_from_keyframe=UncertainTransform.exact(np.eye(4))
        )
        self._keyframe_requested = False
        return True

    def _new_keyframe(
        self,
        current: FrameFeatures,
        origin_from_cam: UncertainTransform,
        tracks: TrackTable,
        segment: int,
        landmarks: Landmarks | None = None,
        unit: MapUnit | None = None,
    ) -> LocatedKeyframe:
        """Return the frame as a keyframe, with the depth that a stereo pair or a depth camera measures."""
        frames = current.frames
        keyframe = LocatedKeyframe(current, origin_from_cam, landmarks, tracks, segment, unit)
        if self._rig_scale is Scale.DEPTH:
            keyframe.landmarks = DepthImage(depth_of_image(frames), self.config.odometry.depth_noise_per_m)
        elif self._rig_scale is Scale.STEREO:
            cameras = frames.frame0.camera, frames.frame1.camera
            matches = self.matcher.match(keyframe.features0, self.matcher.extract(frames.frame1.image))
            # Later matches use the same points of the left image, whose depth is known.
            keyframe.features0 = self.matcher.keep_points(keyframe.features0, matches)
            extrinsics = UncertainTransform.exact(frames.cam1_from_cam0)
            keyframe.landmarks = PointDepths((cameras[0].width, cameras[0].height))
            gate_px = self.config.pose.max_epipolar_error_px
            keyframe.landmarks.add(matches.keypoints0, triangulate(matches, *cameras, extrinsics, gate_px))
        return keyframe

    def _use(self, keyframe: LocatedKeyframe, keep: bool = True) -> None:
        self._keyframe = keyframe
        if keep:
            self._recent = collections.deque([*self._recent, keyframe], self.config.odometry.max_keyframes)

    def _next_keyframe(self) -> LocatedKeyframe | None:
        """Return one of the earlier keyframes, each in turn."""
        others = [keyframe for keyframe in self._recent if keyframe is not self._keyframe and keyframe.has_matched]
        return others[-1 - self._lost % len(others)] if others else None

    def _forget(self) -> None:
        self._keyframe: LocatedKeyframe | None = None
        self._recent: collections.deque[LocatedKeyframe] = collections.deque()
        self._last: LocatedFrame | None = None
        self._lost = 0
        self._keyframe_requested = False

    def _start_again(self, reason: str) -> None:
        if self._keyframe is not None:
            self._segments += 1
        self._forget()
        self._on_restart(reason)

    # --- results -----------------------------------------------------------------------------------------------------

    def _tracks(self, current, keyframe, inliers: Matches, ids, places, relative: UncertainTransform) -> Tracks:
        camera = current.frames.frame0.camera
        rays = geometry.undistort_points(camera, places)
        depth = np.full(len(ids), np.nan)
        if keyframe.landmarks is not None:
            known = keyframe.landmarks.at(inliers.keypoints0)  # not interpolated: a track is one point
            inverse = carry_depth(known, keyframe.frame0.camera, inliers.keypoints0, relative.matrix).value
            depth = keyframe.metres / inverse
        velocity = self._last.ray_velocities(current, ids, rays)
        used = (ids >= 0) & np.isfinite(rays).all(axis=1)
        return Tracks(ids[used], places[used], rays[used], velocity[used], depth[used], inliers.sigma_px[used])

    def _motion(self, current: FrameFeatures, status: MotionStatus, origin_from_cam, *, started: float, **changes):
        values = {'pair': None, 'velocity': None, 'tracks': Tracks.empty(), 'is_keyframe': False, 'relocalised': False}
        values |= changes
        if self.scale is Scale.EXTERNAL and origin_from_cam is not None:
            origin_from_cam = origin_from_cam.with_relative_error(self._unit.relative_sigma)
            if values['velocity'] is not None:
                values['velocity'] = values['velocity'].scaled(self._unit.metres, self._unit.relative_sigma)
        pair = values['pair']
        compute_s = time.perf_counter() - started + (pair.pose_s if pair else 0.0)
        return Motion(
            frame=current.frames.frame0,
            number=current.number,
            segment=self._segments,
            status=status,
            origin_from_cam=origin_from_cam,
            scale=self.scale,
            compute_s=compute_s,
            **values,
        )
