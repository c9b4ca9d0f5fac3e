"""Read rosbags without ROS: rosbag2 (sqlite3, mcap; a folder or a bare file) and ROS 1 .bag."""

from __future__ import annotations

import contextlib
import heapq
import logging
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import yaml

from loftr_ros.errors import InputError, LoftrRosError, MissingDependencyError
from loftr_ros.evaluation import bag_types
from loftr_ros.evaluation.bag_storage import (
    MCAP_MAGIC,
    ROS1_MAGIC,
    SQLITE_MAGIC,
    ZSTD_MAGIC,
    Channel,
    McapFile,
    SqliteFile,
    cut_short,
    zstd,
)

SUFFIXES = ('.db3', '.mcap', '.bag', '.db3.zstd', '.mcap.zstd')

logger = logging.getLogger(__name__)


def is_bag(path) -> bool:
    """Whether the path looks like a rosbag: a file of one, or a folder that holds one."""
    path = Path(path)
    if path.is_dir():
        return (path / 'metadata.yaml').is_file() or bool(_bare_files(path))
    return path.is_file() and path.name.endswith(SUFFIXES)


def bag_topics(path) -> dict[str, str]:
    """Return the message type of every topic of a bag that can be read, as in 'sensor_msgs/msg/Image'."""
    with open_bag(path) as bag:
        return {name: topic.type for name, topic in bag.topics.items()}


def read_bag(
    path, topics: Collection[str] | None = None, serialized: bool = False
) -> Iterator[tuple[str, str, int, object]]:
    """Yield (topic, message type, stamp of the recording [ns], message) in the order of the stamps.

    Args:
        topics: only these; all that can be read by default.
        serialized: give the CDR bytes instead of a message, to publish any type without knowing it. Otherwise messages
            are dataclasses of rosbags with ROS's field names; arrays of numbers are numpy arrays.
    """
    with open_bag(path) as bag:
        bag.check(topics)
    return _messages(path, topics, serialized)


def _messages(path, topics, serialized: bool) -> Iterator[tuple[str, str, int, object]]:
    with open_bag(path) as bag:
        for name, stamp_ns, data in bag.messages(topics):
            topic = bag.topics[name]
            yield name, topic.type, stamp_ns, topic.cdr(data) if serialized else topic.message(data)


def full_type_name(name: str) -> str:
    """Return 'sensor_msgs/msg/Image' also for 'sensor_msgs/Image', as bags before ROS 2 Dashing have it."""
    package, _, rest = name.partition('/')
    return name if '/' in rest else f'{package}/msg/{rest}'


@dataclass
class Topic:
    """A topic of a bag.

    Args:
        qos: the profiles that its publishers offered, as metadata.yaml has them; empty where none was recorded.
    """

    name: str
    type: str
    encoding: str
    definition: bag_types.Definition
    qos: list[dict] = field(default_factory=list)

    def cdr(self, data: bytes) -> bytes:
        """Return a message as ROS 2 publishes it."""
        if data[:4] == ZSTD_MAGIC and self.encoding == 'cdr':  # compressed one by one; CDR begins with a zero
            data = zstd().decompress(data)
        return bytes(data) if self.encoding == 'cdr' else self.definition.cdr_from_ros1(data)

    def message(self, data: bytes):
        """Return a message as a dataclass of rosbags."""
        return self.definition.message(self.cdr(data))


class Bag:
    """An open bag.

    Args:
        topics: those that can be read, by name.
        unreadable: the others, with the reason.
    """

    def __init__(self, path: Path, files: list, qos: dict[str, list]):
        self.path = path
        self._files = files
        self.topics: dict[str, Topic] = {}
        self.unreadable: dict[str, str] = {}
        for channel in sorted((c for file in files for c in file.channels), key=lambda c: c.topic):
            self._add(channel, qos)

    def _add(self, channel: Channel, qos: dict[str, list]) -> None:
        name, type_name = channel.topic, full_type_name(channel.type)
        if channel.encoding not in ('cdr', 'ros1') or not channel.type:
            kind = channel.schema or channel.encoding or 'no schema'
            self.unreadable[name] = (
                f'its messages are {channel.encoding or kind} of {channel.type or kind}, not CDR of ROS'
            )
            return
        known = self.topics.get(name)
        if known is None:
            definition = bag_types.Definition(type_name, channel.schema, channel.definition)
            profiles = qos[name] if name in qos else _profiles(channel.qos)
            self.topics[name] = Topic(name, type_name, channel.encoding, definition, profiles)
        elif (known.type, known.encoding) != (type_name, channel.encoding):
            self.unreadable[name] = f'recorded as {known.type} and as {type_name}; only the first is read'
        elif name not in qos:
            known.qos.extend(_profiles(channel.qos))

    def check(self, topics: Collection[str] | None) -> None:
        """Raise InputError where a topic is not there to be read."""
        for name in sorted(set(topics or ()) - set(self.topics)):
            if name in self.unreadable:
                raise InputError(f'{self.path}: {name} cannot be read: {self.unreadable[name]}')
            raise InputError(f'{self.path} has no topic {name}; it has {", ".join(self.topics)}')
        if not self.topics:
            reasons = '; '.join(f'{name}: {reason}' for name, reason in self.unreadable.items())
            raise InputError(f'{self.path} has no topic that can be read ({reasons or "it has none"})')

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """Yield (topic, stamp [ns], data as recorded) in the order of the stamps."""
        wanted = set(self.topics if topics is None else topics)
        yield from heapq.merge(*(self._of_file(file, wanted) for file in self._files), key=lambda row: row[1])

    def _of_file(self, file, wanted: set[str]) -> Iterator[tuple[str, int, bytes]]:
        names = {
            channel.id: channel.topic
            for channel in file.channels
            if channel.topic in wanted
            and self.topics[channel.topic].type == full_type_name(channel.type)
            and self.topics[channel.topic].encoding == channel.encoding
        }
        if names:
            for channel, stamp_ns, data in file.messages(names):
                yield names[channel], stamp_ns, data


class Ros1File:
    """A .bag file of ROS 1, read by rosbags."""

    def __init__(self, path: Path):
        try:
            from rosbags.rosbag1 import Reader
        except ImportError as error:
            raise MissingDependencyError(f'reading {path} needs the package rosbags: pip install rosbags') from error
        self.path = path
        self._reader = Reader(path)
        with self._in_words():
            self._reader.open()
        latched = [{'durability': 'transient_local', 'reliability': 'reliable'}]
        self.channels = [
            Channel(c.id, c.topic, c.msgtype, 'ros1', 'ros1msg', c.msgdef.data, latched if c.ext.latching else '')
            for c in self._reader.connections
        ]
        self.is_empty = not self._reader.message_count

    @contextlib.contextmanager
    def _in_words(self):
        try:
            yield
        except LoftrRosError:
            raise
        except Exception as error:  # damaged bytes make the library raise anything
            raise InputError(
                f'{cut_short(self.path, f"`rosbag reindex {self.path.name}` of ROS 1")} ({error})'
            ) from error

    def messages(self, ids: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield (id of the channel, stamp [ns], data) in the order of the stamps."""
        with self._in_words():
            connections = [c for c in self._reader.connections if c.id in ids]
            for connection, stamp_ns, data in self._reader.messages(connections):
                yield connection.id, stamp_ns, bytes(data)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._reader.close()


@contextlib.contextmanager
def open_bag(path) -> Iterator[Bag]:
    """Open a bag that has messages."""
    path = Path(path)
    if not is_bag(path):
        found = 'a folder without one' if path.is_dir() else 'a file of another kind' if path.exists() else 'nothing'
        raise InputError(f'{path} is {found}; needs a rosbag: {", ".join(SUFFIXES)}, or a folder with metadata.yaml')
    paths, qos = _folder(path) if path.is_dir() else ([path], {})
    with contextlib.ExitStack() as stack:
        files = []
        for file in paths:
            files.append(_open_file(file, stack))
            stack.callback(files[-1].close)
        if all(file.is_empty for file in files):
            raise InputError(f'{path} holds no messages; check with `ros2 bag info` that the topics were published')
        yield Bag(path, files, qos)


def _open_file(path: Path, stack: contextlib.ExitStack):
    """Open a file of a bag as what its first bytes say."""
    try:
        with path.open('rb') as stream:
            head = stream.read(16)
        if head.startswith(ZSTD_MAGIC):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            unpacked = Path(folder, path.name.removesuffix('.zstd'))
            with zstd().open(path, 'rb') as packed, unpacked.open('wb') as target:
                shutil.copyfileobj(packed, target)
            return _open_file(unpacked, stack)
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror or error}') from error
    except EOFError as error:
        raise cut_short(path, 'recording it again, or `zstd -d`,') from error
    for magic, kind in ((SQLITE_MAGIC, SqliteFile), (MCAP_MAGIC, McapFile), (ROS1_MAGIC, Ros1File)):
        if head.startswith(magic):
            return kind(path)
    what = 'is empty' if not head else 'begins like no bag'
    raise InputError(f'{path} {what}; needs rosbag2 (sqlite3 or mcap) or ROS 1 .bag')


def _bare_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.name.endswith(SUFFIXES) and not f.name.startswith('.'))


def _folder(folder: Path) -> tuple[list[Path], dict[str, list]]:
    """Return the files of a bag and the profiles by topic that metadata.yaml says; all else stands in the files."""
    files = _bare_files(folder)
    try:
        text = (folder / 'metadata.yaml').read_text()
        metadata = yaml.safe_load(text)['rosbag2_bagfile_information']
        listed = [folder / PurePath(name).name for name in metadata['relative_file_paths']]
        qos = {}
        for entry in metadata['topics_with_message_count']:
            topic = entry['topic_metadata']
            if topic.get('offered_qos_profiles'):
                qos[topic['name']] = _profiles(topic['offered_qos_profiles'])
    except FileNotFoundError:
        return files, {}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        logger.warning(
            '%s cannot be read (%s); the files of the bag are read without it', folder / 'metadata.yaml', error
        )
        listed, qos = [], {}
    present = [path for path in listed if path.is_file()]
    if missing := [path.name for path in listed if path not in present]:
        logger.warning('%s has not the files %s that metadata.yaml lists', folder, ', '.join(missing))
    if present and (others := [path.name for path in files if path not in present]):
        logger.warning('%s are not read: metadata.yaml does not list them', ', '.join(others))
    if not (present or files):
        raise InputError(f'{folder} has a metadata.yaml and no file of a bag: {", ".join(missing)} is missing')
    return present or files, qos


def _profiles(qos: str | list) -> list[dict]:
    """Return recorded profiles; those that cannot be read are none."""
    try:
        profiles = yaml.safe_load(qos) if isinstance(qos, str) else qos
    except yaml.YAMLError:
        return []
    return [p for p in profiles if isinstance(p, dict)] if isinstance(profiles, list) else []
