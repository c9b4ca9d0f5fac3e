"""What an evaluation reads: the sets of frames of a folder or a bag, and the true trajectory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from loftr_ros.config import Config
from loftr_ros.datasets import bag_frames, bags, open_sequence
from loftr_ros.datasets.association import nearest_rows
from loftr_ros.datasets.poses import poses_from_tum
from loftr_ros.datatypes import FrameSet
from loftr_ros.errors import InputError
from loftr_ros.messages import stamp_ns, transform_from_msg
from loftr_ros.odometry.base_frame import parse_mounting
from loftr_ros.speeds import SPEED_TYPES, speed_from_msg

TRUTH_SLACK_NS = 20_000_000
"""Largest difference between the stamps of an image and of its true pose."""

POSE_TYPES = {
    'nav_msgs/msg/Odometry': lambda message: message.pose.pose,
    'geometry_msgs/msg/PoseStamped': lambda message: message.pose,
    'geometry_msgs/msg/PoseWithCovarianceStamped': lambda message: message.pose.pose,
    'geometry_msgs/msg/TransformStamped': lambda message: message.transform,
}
"""Types of topics with a true trajectory, and the pose in a message."""

TF_TYPE = 'tf2_msgs/msg/TFMessage'


@dataclasses.dataclass
class Source:
    """Sets of frames and what is known about them.

    Args:
        count: number of sets; None where it is not known before.
        truth_ns, truth: (M,) stamps and (M, 4, 4) world_from_cam; None without.
        faults: filled while the frames are read: why some could not be.
        speeds: stamps [ns] and speeds of the camera [m/s], in order.
    """

    name: str
    count: int | None
    frame_sets: Iterator[FrameSet]
    truth_ns: np.ndarray | None
    truth: np.ndarray | None
    faults: list[str]
    speeds: Iterable[tuple[int, float]] = ()

    def truth_at(self, stamps_ns: np.ndarray) -> np.ndarray | None:
        """Return the true pose nearest to each stamp (N, 4, 4), NaN where there is none within TRUTH_SLACK_NS."""
        if self.truth_ns is None or not len(stamps_ns):
            return None
        nearest = nearest_rows(stamps_ns, self.truth_ns)
        found = self.truth[nearest].astype(np.float64)
        found[np.abs(self.truth_ns[nearest] - stamps_ns) > TRUTH_SLACK_NS] = np.nan
        return found


def open_source(
    path: Path,
    rig: str,
    config: Config,
    *,
    truth: str = '',
    image_topics=(),
    depth_topic: str = '',
    camera_files=(),
    speed_topic: str = '',
) -> Source:
    """Open a folder of images or a bag for a rig: mono, stereo or rgbd.

    Args:
        truth: file in TUM format, topic of a bag with one of POSE_TYPES, or its transform `/tf:PARENT:CHILD`; empty:
            that of the folder, if it has one.
        image_topics, depth_topic: of a bag; by default found by their types and names.
        speed_topic: of a bag, with the velocity of the robot in one of SPEED_TYPES.
        camera_files: calibration files, for a source without.

    Raises:
        InputError: the source cannot be read, or it lacks what the rig needs.
    """
    if bags.is_bag(path):
        if speed_topic and rig != 'mono':
            raise InputError(f'a speed is for the odometry of a mono rig, whose lengths have no unit, got {rig}')
        speeds = _speeds(path, speed_topic, config) if speed_topic else ()
        source = _open_bag(path, rig, config, truth, image_topics, depth_topic, camera_files)
        return dataclasses.replace(source, speeds=speeds)
    if image_topics or depth_topic or speed_topic:
        raise InputError('topics are only for bags')
    sequence = open_sequence(path, camera_files=camera_files)
    sequence.frame_set(0, rig)
    truth_ns, poses = sequence.stamps_ns, sequence.world_from_cam0
    if truth:
        truth_ns, poses = poses_from_tum(truth)
    frame_sets = (sequence.frame_set(index, rig) for index in range(len(sequence)))
    return Source(sequence.name, len(sequence), frame_sets, None if poses is None else truth_ns, poses, [])


def _open_bag(path, rig: str, config: Config, truth: str, image_topics, depth_topic: str, camera_files) -> Source:
    if truth.startswith('/') and not Path(truth).is_file():
        truth_ns, poses = _poses_of_topic(path, truth)
    else:
        truth_ns, poses = poses_from_tum(truth) if truth else (None, None)
    image_topics = tuple(image_topics) or bag_frames.camera_topics(path)[: None if rig == 'stereo' else 1]
    needed = 2 if rig == 'stereo' else 1
    if len(image_topics) != needed:
        raise InputError(
            f'a {rig} rig has {needed} image topics, got {len(image_topics)}: {", ".join(image_topics)}; name them by '
            '--topics'
        )
    faults: list[str] = []
    sync = config.sync
    frame_sets = bag_frames.read_frames(
        path,
        image_topics,
        camera_files,
        depth_topic=(depth_topic or 'auto') if rig == 'rgbd' else '',
        camera_from_depth=config.odometry.camera_from_depth,
        rectified=config.input.rectified,
        queue_size=sync.queue_size,
        slop_s=sync.approximate_sync_tolerance_seconds if sync.approximate_sync else 0.0,
        on_invalid=lambda error: faults.append(str(error)),
    )
    return Source(Path(path).stem, None, _until_broken(frame_sets, faults), truth_ns, poses, faults)


def _until_broken(frame_sets: Iterator[FrameSet], faults: list[str]) -> Iterator[FrameSet]:
    """Yield what can be read; a bag that is broken further on ends there."""
    try:
        yield from frame_sets
    except InputError as error:
        faults.append(f'the bag ends early: {error}')


def _poses_of_topic(path, wanted: str) -> tuple[np.ndarray, np.ndarray]:
    """Return stamps and poses of a topic, or of `TOPIC:PARENT:CHILD` of a topic with transforms."""
    topic, *frames = wanted.split(':')
    kind = bags.bag_topics(path).get(topic)
    if kind not in (*POSE_TYPES, TF_TYPE) or len(frames) not in ((0, 2) if kind == TF_TYPE else (0,)):
        known = [name for name, found in bags.bag_topics(path).items() if found in (*POSE_TYPES, TF_TYPE)]
        raise InputError(
            f'{path} has no trajectory on {wanted}; topics with one: {", ".join(known) or "none"}. Types that can be '
            f'read: {", ".join(POSE_TYPES)}, and {TF_TYPE} as TOPIC:PARENT:CHILD'
        )
    stamped = []
    for _, _, _, message in bags.read_bag(path, [topic]):
        if kind == TF_TYPE:
            stamped += [((tf.header.frame_id, tf.child_frame_id), tf.header, tf.transform) for tf in message.transforms]
        else:
            stamped.append(((), message.header, POSE_TYPES[kind](message)))
    stamped = [(stamp_ns(header), pose) for pair, header, pose in _of_frames(stamped, frames, f'{path}, {topic}')]
    if not stamped:
        raise InputError(f'{path} has no message on {topic}')
    stamped.sort(key=lambda item: item[0])
    stamps_ns, poses = zip(*stamped, strict=True)
    return np.array(stamps_ns, np.int64), np.array([transform_from_msg(pose) for pose in poses])


def _speeds(path, topic: str, config: Config) -> Iterator[tuple[int, float]]:
    """Return the speeds of the camera on a topic with the velocity of the robot; they are read when the first is."""
    types = bags.bag_topics(path)
    if types.get(topic, '').rpartition('/')[2] not in SPEED_TYPES:
        known = [name for name, found in types.items() if found.rpartition('/')[2] in SPEED_TYPES]
        raise InputError(
            f'{path} has no speed on {topic}; topics with one: {", ".join(known) or "none"}. Types that can be read: '
            f'{", ".join(SPEED_TYPES)}'
        )
    mounting = config.odometry.base_from_camera
    base_from_cam = parse_mounting(mounting) if mounting else None

    def read() -> Iterator[tuple[int, float]]:
        yield from sorted(speed_from_msg(message, base_from_cam) for _, _, _, message in bags.read_bag(path, [topic]))

    return read()


def _of_frames(stamped: list[tuple], frames: list[str], where: str) -> list[tuple]:
    """Return the entries between two frames; without `frames` there must be only one pair of frames."""
    pairs = sorted({pair for pair, _, _ in stamped})
    if (not frames and len(pairs) > 1) or (frames and tuple(frames) not in pairs):
        raise InputError(
            f'{where} has the transforms {", ".join(":".join(pair) for pair in pairs)}; name one as TOPIC:PARENT:CHILD'
        )
    return [entry for entry in stamped if not frames or entry[0] == tuple(frames)]
