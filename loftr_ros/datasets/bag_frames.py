"""Frames of the cameras in a bag, decoded and synchronized without ROS as the node does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from loftr_ros.datasets import bag_cameras
from loftr_ros.datasets.bag_transforms import StaticTransforms
from loftr_ros.datasets.bags import bag_topics, read_bag
from loftr_ros.datatypes import FrameSet
from loftr_ros.errors import InputError
from loftr_ros.messages import FrameReader, stamp_ns
from loftr_ros.sync import StampSync
from loftr_ros.transforms import FROM_TF, parse_pose

IMAGE_TYPES = {'sensor_msgs/msg/Image': False, 'sensor_msgs/msg/CompressedImage': True}
"""Message types of images, and whether they are compressed."""

SIDES = (('left', 'right'), ('infra1', 'infra2'), ('cam0', 'cam1'), ('image_0', 'image_1'))
"""Words in the topics of a stereo pair that distinguish left and right."""


def read_frames(
    path,
    image_topics: Sequence[str] = (),
    camera_files: Sequence = (),
    *,
    depth_topic: str = '',
    camera_from_depth: str = '',
    rectified: bool = True,
    queue_size: int = 10,
    slop_s: float = 0.0,
    on_invalid: Callable[[InputError], None] | None = None,
) -> Iterator[FrameSet]:
    """Yield the frames of a bag in the order of the recording.

    Args:
        image_topics: of one camera, or of the left and the right camera. By default those of the bag, if it has one
            camera or one stereo pair.
        camera_files: calibration files of the cameras without camera_info, as for `bag_cameras.assign`.
        depth_topic: depth of the one camera; `auto`: the one of the bag.
        camera_from_depth: as the setting odometry.camera_from_depth; `tf`: from /tf_static of the bag.
        rectified: whether the images are rectified (P of camera_info applies) or raw (K and D).
        queue_size, slop_s: of the synchronization, as the settings `sync.queue_size` and
            `sync.approximate_sync_tolerance_seconds` [s].
        on_invalid: called with the error of a set of messages that is invalid, which is then left out; by default the
            error is raised.

    Raises:
        InputError: a topic is missing or not an image, the cameras are ambiguous, a message is invalid, or the bag is
            broken further on.
    """
    topics = bag_topics(path)
    images = _images(topics)
    chosen = tuple(image_topics) or camera_topics(path)
    unknown = [name for name in chosen if name not in images]
    if unknown:
        raise InputError(f'{path} has no image topic {", ".join(unknown)}; it has {", ".join(images) or "none"}')
    infos = {image: bag_cameras.info_topic(image) for image in chosen}
    cameras = bag_cameras.read([image for image in chosen if infos[image] not in topics], camera_files)
    missing = [image for image in chosen if infos[image] not in topics and image not in cameras]
    if missing:
        raise InputError(
            f'{path} has no {", ".join(infos[image] for image in missing)} for {", ".join(missing)}; '
            'give the calibration as a file'
        )
    sources = [source for image in chosen for source in (image, cameras.get(image, infos[image]))]
    if depth_topic:
        if len(chosen) > 1:
            raise InputError(f'depth belongs to one camera; name one image topic of {", ".join(chosen)}')
        if depth_topic == 'auto':
            depth_topic = _depth_of(path, images, registered=not camera_from_depth)
        sources.append(depth_topic)
        if camera_from_depth:
            info = bag_cameras.info_topic(depth_topic)
            if info not in topics:
                raise InputError(f'{path} has no {info}, which depth that is not registered needs')
            sources.append(info)
    reader = FrameReader(_pose_of_depth(path, camera_from_depth) if depth_topic and camera_from_depth else None)
    topic_count = sum(isinstance(source, str) for source in sources)
    sync = StampSync(topic_count, queue_size, round(slop_s * 1e9))
    return _frames(path, sources, reader, rectified, sync, on_invalid)


def _pose_of_depth(path, camera_from_depth: str) -> Callable[[str, str], np.ndarray]:
    if camera_from_depth == FROM_TF:
        return StaticTransforms(path).look_up
    pose = parse_pose(camera_from_depth, alternatives=(FROM_TF,))
    return lambda _camera_frame, _depth_frame: pose


def _frames(path, sources: list, reader: FrameReader, rectified: bool, sync, on_invalid) -> Iterator[FrameSet]:
    """Yield the frames of sources: topics of images, camera_info (or a Camera in its place) and depth."""
    wanted = [source for source in sources if isinstance(source, str)]
    for topic, _, _, message in read_bag(path, wanted):
        complete = sync.add(stamp_ns(message.header), message, wanted.index(topic))
        if complete is None:
            continue
        found = dict(zip(wanted, complete, strict=True))
        messages = tuple(found[source] if isinstance(source, str) else source for source in sources)
        try:
            frames = reader.read(messages, rectified)
        except InputError as error:
            if on_invalid is None:
                raise
            on_invalid(error)
        else:
            yield frames


def camera_topics(path) -> tuple[str, ...]:
    """Return the image topics of the one camera or stereo pair of a bag.

    Raises:
        InputError: it has none or several.
    """
    images = _images(bag_topics(path))
    found = list(bag_cameras.cameras(images))
    if len(found) == 1:
        return tuple(found)
    for words in SIDES:
        pair = [[topic for topic in found if word in topic] for word in words]
        if len(found) == 2 and [len(topics) for topics in pair] == [1, 1]:
            return tuple(topics[0] for topics in pair)
    raise InputError(
        f'{path} has {len(found)} cameras: {", ".join(found) or "none"}; name the image topic of one, or of the left '
        'and the right camera'
    )


def _images(topics: Mapping[str, str]) -> dict[str, bool]:
    return {name: IMAGE_TYPES[kind] for name, kind in topics.items() if kind in IMAGE_TYPES}


def _depth_of(path: Path, images: dict[str, bool], registered: bool) -> str:
    """Return the topic of the depth images of a bag: raw before compressed, and registered before others or after."""
    found = [topic for topic in images if 'depth' in topic.lower() and not topic.endswith('/compressed')]
    for word in ('aligned', 'registered'):
        found = [topic for topic in found if (word in topic) == registered] or found
    raw = [topic for topic in found if not images[topic]] or found
    if len(raw) != 1:
        raise InputError(f'{path} has {len(raw)} topics of depth images: {", ".join(raw) or "none"}; name one')
    return raw[0]
