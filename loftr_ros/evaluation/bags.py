"""Read rosbags without ROS: rosbag2 (sqlite3, mcap; a folder or a bare file) and ROS 1 .bag, through rosbags."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from loftr_ros.errors import InputError, MissingDependencyError

SUFFIXES = ('.db3', '.mcap', '.bag')


def is_bag(path) -> bool:
    """Whether the path looks like a rosbag: a file of one, or a folder that holds one."""
    path = Path(path)
    if path.is_dir():
        return bool(_files(path))
    return path.is_file() and path.suffix in SUFFIXES


def bag_topics(path) -> dict[str, str]:
    """Return the message type of every topic of a bag, as in 'sensor_msgs/msg/Image'."""
    with _open(path) as reader:
        return {c.topic: full_type_name(c.msgtype) for c in sorted(reader.connections, key=lambda c: c.topic)}


def read_bag(
    path, topics: Collection[str] | None = None, serialized: bool = False
) -> Iterator[tuple[str, str, int, object]]:
    """Yield (topic, message type, stamp of the recording [ns], message) in the order of the stamps.

    Args:
        topics: only these; all by default.
        serialized: give the CDR bytes instead of a message, to publish any type without knowing it. Otherwise messages
            are dataclasses of rosbags with ROS's field names; arrays of numbers are numpy arrays.
    """
    wanted = None if topics is None else set(topics)
    available = bag_topics(path)
    if wanted is not None and not wanted <= set(available):
        missing = ', '.join(sorted(wanted - set(available)))
        raise InputError(f'{path} has no topic {missing}; it has {", ".join(available)}')
    return _messages(path, wanted, serialized)


def full_type_name(name: str) -> str:
    """Return 'sensor_msgs/msg/Image' also for 'sensor_msgs/Image', as bags before ROS 2 Dashing have it."""
    package, _, rest = name.partition('/')
    return name if '/' in rest else f'{package}/msg/{rest}'


def _messages(path, wanted: set[str] | None, serialized: bool) -> Iterator[tuple[str, str, int, object]]:
    with _open(path) as reader:
        connections = [c for c in reader.connections if wanted is None or c.topic in wanted]
        for connection, stamp_ns, data in reader.messages(connections) if connections else ():
            name = full_type_name(connection.msgtype)
            yield connection.topic, name, stamp_ns, _decode(reader, name, data, serialized)


def _decode(reader, name: str, data, serialized: bool):
    if serialized and reader.is2:
        return bytes(data)
    # A bag that describes some of its types may lack others, which the default store knows.
    store = reader.typestore if name in reader.typestore.fielddefs else reader.default_typestore
    if name not in store.fielddefs:
        raise InputError(
            f'the bag does not describe {name} and it is no standard type; read other topics, or read it serialized'
        )
    if serialized:
        return bytes(store.ros1_to_cdr(data, name))
    return store.deserialize_cdr(data, name) if reader.is2 else store.deserialize_ros1(data, name)


def _files(folder: Path) -> list[Path]:
    """Return what to open of a folder: itself where metadata.yaml lists the files, or the bare files in it."""
    if (folder / 'metadata.yaml').is_file():
        return [folder]
    return sorted(file for suffix in SUFFIXES for file in folder.glob(f'*{suffix}'))


@contextlib.contextmanager
def _open(path):
    """Open a bag that has messages."""
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise MissingDependencyError(f'reading {path} needs the package rosbags: pip install rosbags') from error

    path = Path(path)
    if not is_bag(path):
        found = 'a folder without one' if path.is_dir() else 'a file of another kind' if path.exists() else 'nothing'
        raise InputError(f'{path} is {found}; needs a rosbag: {", ".join(SUFFIXES)}, or a folder with metadata.yaml')
    store = get_typestore(Stores.LATEST)
    try:
        reader = AnyReader(_files(path) if path.is_dir() else [path], default_typestore=store)
        reader.open()
    except (AnyReaderError, OSError) as error:
        raise InputError(
            f'{path} cannot be read: {error}; needs rosbag2 (sqlite3 or mcap) or ROS 1 .bag. '
            'Was the recording cut short? `ros2 bag reindex` repairs it; `ros2 bag convert` changes the storage'
        ) from error
    with contextlib.closing(reader):
        if not reader.message_count:
            raise InputError(f'{path} holds no messages; check with `ros2 bag info` that the topics were published')
        yield reader
