"""Frames of the cameras in a bag, decoded and synchronized without ROS as the node does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from loftr_ros.datasets import bag_cameras
from loftr_ros.datasets.bags import bag_topics, read_bag
from loftr_ros.datatypes import FrameSet
from loftr_ros.errors import InputError
from loftr_ros.messages import FrameReader, stamp_ns
from loftr_ros.sync import StampSync

IMAGE_TYPES = {'sensor_msgs/msg/Image': False, 'sensor_msgs/msg/CompressedImage': True}
"""Message types of images, and whether they are compressed."""

SIDES = (('left', 'right'), ('infra1', 'infra2'), ('cam0', 'cam1'), ('image_0', 'image_1'))
"""Words in the topics of a stereo pair, by which left and right are told apart."""


def read_frames(
    path,
    image_topics: Sequence[str] = (),
    camera_files: Sequence = (),
    *,
    rectified: bool = True,
    queue_size: int = 10,
    slop_s: float = 0.0,
) -> Iterator[FrameSet]:
    """Yield the frames of a bag in the order of the recording.

    Args:
        image_topics: of one camera, or of the left and the right camera. By default those of the bag, if it has one
            camera or one stereo pair.
        camera_files: calibration files of the cameras without camera_info, as for `bag_cameras.assign`.
        rectified: whether the images are rectified (P of camera_info applies) or raw (K and D).
        queue_size, slop_s: of the synchronization, as the settings `sync.queue_size` and
            `sync.approximate_sync_tolerance_seconds` [s].

    Raises:
        InputError: a topic is missing or not an image, the cameras are ambiguous, or a message is invalid.
    """
    topics = bag_topics(path)
    images = {name: IMAGE_TYPES[kind] for name, kind in topics.items() if kind in IMAGE_TYPES}
    chosen = tuple(image_topics) or _cameras_of(path, images)
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
    return _frames(path, [(image, cameras.get(image, infos[image])) for image in chosen], rectified, queue_size, slop_s)


def _frames(path, sources: list[tuple], rectified: bool, queue_size: int, slop_s: float) -> Iterator[FrameSet]:
    """Yield the frames of sources (image topic, topic of camera_info or Camera)."""
    wanted = [source for pair in sources for source in pair if isinstance(source, str)]
    sync, reader = StampSync(len(wanted), queue_size, round(slop_s * 1e9)), FrameReader()
    for topic, _, _, message in read_bag(path, wanted):
        complete = sync.add(stamp_ns(message.header), message, wanted.index(topic))
        if complete is not None:
            found = dict(zip(wanted, complete, strict=True))
            yield reader.read(tuple(found.get(source, source) for pair in sources for source in pair), rectified)


def _cameras_of(path: Path, images: dict[str, bool]) -> tuple[str, ...]:
    """Return the image topics of the one camera or stereo pair of a bag."""
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
