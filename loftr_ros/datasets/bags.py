"""Read rosbags without ROS: rosbag2 (sqlite3, MCAP; a folder or a bare file) and ROS 1 .bag.

A topic, a definition or a file that cannot be read is skipped with one warning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import logging
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from loftr_ros.datasets.bag_storage import ZSTD_MAGIC, Channel, Storage, open_storage, unreadable
from loftr_ros.datasets.bag_types import MessageTypes, full_type_name
from loftr_ros.errors import InputError, MissingDependencyError

SUFFIXES = ('.db3', '.mcap', '.bag')
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Args:
        message_type: as in 'sensor_msgs/msg/Image'.
        count: number of messages.
        is_reliable: whether a publisher offered reliable delivery; True when the bag does not say.
        is_latched: whether a publisher kept its last messages for those who subscribe later (transient local).
    """

    name: str
    message_type: str
    count: int
    is_reliable: bool
    is_latched: bool


def is_bag(path) -> bool:
    """Whether the path looks like a rosbag: a file of one, or a folder that holds one."""
    path = Path(path)
    if path.is_dir():
        return (path / 'metadata.yaml').is_file() or bool(_bare_files(path))
    return path.is_file() and path.suffix in SUFFIXES


def bag_topics(path) -> dict[str, str]:
    """Return the message type of every topic of a bag that can be read, as in 'sensor_msgs/msg/Image'."""
    with open_bag(path) as bag:
        return {name: topic.message_type for name, topic in bag.topics.items()}


def read_bag(
    path, topics: Collection[str] | None = None, serialized: bool = False
) -> Iterator[tuple[str, str, int, object]]:
    """Yield (topic, message type, stamp of the recording [ns], message) in the order of the stamps.

    Args:
        topics: only these; all that can be read by default.
        serialized: give the CDR bytes instead of a message, to publish any type without knowing it. Otherwise messages
            are dataclasses of rosbags with ROS's field names; arrays of numbers are numpy arrays.
    """
    wanted = None if topics is None else set(topics)
    available = bag_topics(path)
    if wanted is not None and not wanted <= set(available):
        missing = ', '.join(sorted(wanted - set(available)))
        raise InputError(f'{path} has no topic {missing}; it has {", ".join(available)}')
    return _messages(path, wanted, serialized)


def _messages(path, wanted: set[str] | None, serialized: bool) -> Iterator[tuple[str, str, int, object]]:
    with open_bag(path) as bag:
        yield from bag.messages(wanted, serialized)


@contextlib.contextmanager
def open_bag(path) -> Iterator[Bag]:
    """Open a bag that has messages.

    Raises:
        InputError: it is none, nothing of it can be read, or it has no messages.
    """
    path = Path(path)
    if not is_bag(path):
        found = 'a folder without one' if path.is_dir() else 'a file of another kind' if path.exists() else 'nothing'
        raise InputError(f'{path} is {found}; needs a rosbag: {", ".join(SUFFIXES)}, or a folder with metadata.yaml')
    with contextlib.ExitStack() as stack:
        metadata = _metadata(path) if path.is_dir() else {}
        storages, failures = [], []
        for file in _files(path, metadata):
            try:
                storages.append((file, stack.enter_context(open_storage(_decompressed(file, stack)))))
            except InputError as error:
                failures.append(error)
        if not storages:
            raise failures[0] if failures else InputError(f'{path} has no file that can be read')
        for error in failures:
            logger.warning('%s', error)
        bag = Bag(path, storages, _profiles(metadata))
        if not any(topic.count for topic in bag.topics.values()):
            raise InputError(f'{path} holds no messages that can be read; check with `ros2 bag info` what is in it')
        yield bag


class Bag:
    """An open bag. `topics` is what can be read of it, by name."""

    def __init__(self, path: Path, storages: list[tuple[Path, Storage]], profiles: dict[str, list]):
        """Take the open files, and the quality of service of metadata.yaml, which users edit and rosbag2 obeys."""
        self._path = path
        self._storages = storages
        self._types = MessageTypes()
        channels = [channel for _, storage in storages for channel in storage.channels.values()]
        self._refused: dict[str, str] = {}
        by_topic: dict[str, list[Channel]] = {}
        for channel in channels:
            reason = self._refusal(channel, by_topic.get(channel.topic))
            if reason:
                self._refused.setdefault(channel.topic, reason)
            else:
                by_topic.setdefault(channel.topic, []).append(channel)
        for topic, reason in self._refused.items():
            logger.warning('%s: %s is skipped: %s', path, topic, reason)
        self._channels = by_topic
        self.topics = {name: self._topic(name, own, profiles.get(name)) for name, own in sorted(by_topic.items())}

    @staticmethod
    def _refusal(channel: Channel, others: list[Channel] | None) -> str:
        if channel.encoding not in ('cdr', 'ros1'):
            return f'its messages are encoded as {channel.encoding!r}, needs cdr'
        if not channel.message_type:
            return 'it has no message type'
        if others and full_type_name(others[0].message_type) != full_type_name(channel.message_type):
            return f'it has two types, {others[0].message_type} and {channel.message_type}; only the first is read'
        return ''

    def _topic(self, name: str, channels: list[Channel], profile: list | None) -> Topic:
        offered = profile if profile is not None else [p for c in channels for p in _parse_profiles(c.qos)]
        kinds = [(str(p.get('reliability')).lower(), str(p.get('durability')).lower()) for p in offered]
        return Topic(
            name,
            full_type_name(channels[0].message_type),
            sum(channel.count for channel in channels),
            not kinds or any(reliability not in ('best_effort', '2') for reliability, _ in kinds),
            any(durability in ('transient_local', '1') for _, durability in kinds),
        )

    def layout(self, topic: str) -> tuple | None:
        """Return the fields of a topic's type as ((name, layout), ...), nested; None where the bag does not say.

        Names are in lower case and base types have their names in IDL, whichever ROS recorded them.

        Raises:
            InputError: the bag says it in a way that cannot be read.
        """
        channel = self._channels[topic][0]
        if not channel.definition.strip() or channel.definition_format not in ('msg', 'idl'):
            return None
        return self._types.layout(channel)

    def messages(self, wanted: Collection[str] | None, serialized: bool) -> Iterator[tuple[str, str, int, object]]:
        """Yield what `read_bag` yields.

        Raises:
            InputError: a file is broken further on, or a type is unknown to the bag and to the standard types.
        """
        names = set(self.topics) if wanted is None else set(wanted)
        streams = [self._stream(number, file, storage, names) for number, (file, storage) in enumerate(self._storages)]
        for stamp_ns, _, channel, data in heapq.merge(*streams, key=lambda row: row[:2]):
            if data[:4] == ZSTD_MAGIC:
                data = _zstd().ZstdDecompressor().decompressobj().decompress(data)
            name = full_type_name(channel.message_type)
            yield channel.topic, name, stamp_ns, self._types.decode(channel, bytes(data), serialized)

    def _stream(self, number: int, file: Path, storage: Storage, names: set[str]):
        channels = {
            key: channel
            for key, channel in storage.channels.items()
            if channel.topic in names
            and full_type_name(channel.message_type) == self.topics[channel.topic].message_type
            and channel.encoding in ('cdr', 'ros1')
        }
        if not channels:
            return
        try:
            for stamp_ns, key, data in storage.messages(set(channels)):
                yield stamp_ns, number, channels[key], data
        except Exception as error:  # libraries raise what their bytes make them
            raise unreadable(file, error) from error


def _zstd():
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError('the bag is compressed: pip install zstandard') from error
    return zstandard


# --- files and metadata ----------------------------------------------------------------------------------------------


def _bare_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES or _is_compressed_name(file))


def _is_compressed_name(file: Path) -> bool:
    return file.suffix == '.zstd' and Path(file.stem).suffix in SUFFIXES


def _metadata(folder: Path) -> dict:
    """Return what metadata.yaml says; empty when it is absent or unreadable, since the files say the same."""
    import yaml

    path = folder / 'metadata.yaml'
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text())['rosbag2_bagfile_information']
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        logger.warning('%s is skipped: %s', path, ' '.join(str(error).split()))
        return {}


def _files(path: Path, metadata: dict) -> list[Path]:
    """Return the files of a bag: those that metadata.yaml names and that exist, otherwise those of the folder."""
    if not path.is_dir():
        return [path]
    kind = metadata.get('storage_identifier')
    if kind not in (None, '', 'sqlite3', 'mcap'):
        raise InputError(f'{path} has the storage {kind!r}; needs sqlite3 or mcap: `ros2 bag convert` changes it')
    named = [path / Path(str(name)).name for name in metadata.get('relative_file_paths') or []]
    missing = [file.name for file in named if not file.is_file()]
    if missing:
        logger.warning('%s: %s, named in metadata.yaml, is not there', path, ', '.join(missing))
    return [file for file in named if file.is_file()] or _bare_files(path)


def _decompressed(file: Path, stack: contextlib.ExitStack) -> Path:
    """Return the path of the file, or of a decompressed copy that exists until the stack closes."""
    with file.open('rb') as head:
        if head.read(4) != ZSTD_MAGIC:
            return file
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    target = folder / (file.stem if file.suffix == '.zstd' else file.name)
    with file.open('rb') as source, target.open('wb') as sink:
        _zstd().ZstdDecompressor().copy_stream(source, sink)
    return target


def _profiles(metadata: dict) -> dict[str, list]:
    """Return the quality of service of each topic for which metadata.yaml states one."""
    found = {}
    for item in metadata.get('topics_with_message_count') or []:
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            own = item['topic_metadata']
            profiles = _parse_profiles(own.get('offered_qos_profiles'))
            if profiles:
                found[own['name']] = profiles
    return found


def _parse_profiles(text) -> list[dict]:
    """Return profiles that are stated as a list or as YAML text."""
    import yaml

    if isinstance(text, str):
        try:
            text = yaml.safe_load(text)
        except yaml.YAMLError:
            return []
    return [profile for profile in text or [] if isinstance(profile, dict)]
