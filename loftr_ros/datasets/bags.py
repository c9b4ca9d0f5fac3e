"""Read rosbags without ROS: rosbag2 (sqlite3, MCAP; a folder or a bare file) and ROS 1 .bag.

What can be read is read. A topic, a definition or a file that cannot is passed over with one warning.
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
from loftr_ros.errors import InputError, MissingDependencyError

SUFFIXES = ('.db3', '.mcap', '.bag')
HEADER = 'std_msgs/msg/Header'
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


def full_type_name(name: str) -> str:
    """Return 'sensor_msgs/msg/Image' also for 'sensor_msgs/Image', as bags before ROS 2 Dashing have it."""
    package, _, rest = name.partition('/')
    return name if '/' in rest else f'{package}/msg/{rest}'


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
        self._types = _Types()
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
            logger.warning('%s: %s is passed over: %s', path, topic, reason)
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


class _Types:
    """Message types of a bag, each parsed when it is asked for: one that cannot be parsed stops no other."""

    def __init__(self):
        self._parsed: dict[tuple[str, str], dict | InputError | None] = {}
        self._stores: dict[tuple[str, str, bool], object] = {}

    def decode(self, channel: Channel, data: bytes, serialized: bool):
        """Return the message, or its CDR bytes."""
        if serialized and channel.encoding == 'cdr':
            return data
        name, store = full_type_name(channel.message_type), self._store(channel, serialized)
        if name not in store.fielddefs:
            raise InputError(
                f'the bag does not describe {name} and it is no standard type; read other topics, or read it serialized'
            )
        try:
            if serialized:
                return bytes(store.ros1_to_cdr(data, name))
            return (
                store.deserialize_cdr(data, name) if channel.encoding == 'cdr' else store.deserialize_ros1(data, name)
            )
        except Exception as error:
            raise InputError(f'a message on {channel.topic} is no {name}: {error}') from error

    def layout(self, channel: Channel) -> tuple:
        """Return the fields of a type as `Bag.layout` does."""
        parsed = self.parse(channel)
        name = full_type_name(channel.message_type)
        try:
            standard = _typesys().get_typestore(_typesys().Stores.LATEST).fielddefs
            # What is published is CDR, in which a header has no sequence number.
            return _fields({**standard, **(parsed or {}), HEADER: standard[HEADER]}, name)
        except KeyError as error:
            raise InputError(f'the definition of {name} in the bag lacks the type {error}') from error

    def parse(self, channel: Channel) -> dict | None:
        """Return the definitions that the bag has of a type and the types in it, as rosbags keeps them, or None.

        Raises:
            InputError: they cannot be read.
        """
        key = (channel.message_type, channel.definition)
        if key not in self._parsed:
            try:
                self._parsed[key] = self._parse_now(channel)
            except InputError as error:
                self._parsed[key] = error
        if isinstance(self._parsed[key], InputError):
            raise self._parsed[key]
        return self._parsed[key]

    @staticmethod
    def _parse_now(channel: Channel) -> dict | None:
        if not channel.definition or channel.definition_format not in ('msg', 'idl'):
            return None
        typesys = _typesys()
        name = full_type_name(channel.message_type)
        try:
            if channel.definition_format == 'msg':
                return dict(typesys.get_types_from_msg(channel.definition, name))
            # rosbag2 joins the files of all types; each follows a line IDL: NAME.
            separator = '=' * 80 + '\n'
            parts = [part.partition('\n')[2] for part in channel.definition.split(separator) if part.startswith('IDL:')]
            found = {}
            for text in parts or [channel.definition]:
                found.update(typesys.get_types_from_idl(text))
            return found
        except Exception as error:  # a definition by a foreign hand raises anything
            words = ' '.join(str(error).split())[:200]
            raise InputError(f'the definition of {name} in the bag cannot be read: {words}') from error

    def _store(self, channel: Channel, to_cdr: bool):
        key = (channel.message_type, channel.definition, to_cdr)
        if key not in self._stores:
            typesys = _typesys()
            store = typesys.get_typestore(typesys.Stores.LATEST)
            try:
                parsed = self.parse(channel)
            except InputError as error:
                logger.warning('%s', error)
                parsed = None
            if parsed:
                # rosbags skips `seq` of ROS 1's Header by itself when it makes CDR, but not when it makes messages.
                parsed = {name: own for name, own in parsed.items() if not (to_cdr and name == HEADER)}
                standard = {name: store.fielddefs[name] for name in store.fielddefs if name not in parsed}
                store = typesys.get_typestore(typesys.Stores.EMPTY)
                store.register({**standard, **parsed})
            self._stores[key] = store
        return self._stores[key]


IDL_NAMES = {'float64': 'double', 'float32': 'float', 'bool': 'boolean', 'byte': 'octet', 'char': 'uint8'}


def _fields(types: dict, name: str) -> tuple:
    fields = [(field.lower(), kind) for field, kind in types[name][1]]
    # IDL puts this into a type without fields.
    return tuple((f, _layout(types, kind)) for f, kind in fields if f != 'structure_needs_at_least_one_member')


def _layout(types: dict, kind):
    """Return the layout of one field: a name, ('sequence', ...), ('array', size, ...), or fields."""
    node, value = int(kind[0]), kind[1]
    if node == 1:
        return IDL_NAMES.get(value[0], value[0])
    if node == 2:
        return 'wstring' if value.endswith('/wstring') else _fields(types, value)  # rosbags knows no wide strings
    element, size = value
    return ('array', size, _layout(types, element)) if node == 3 else ('sequence', _layout(types, element))


def _typesys():
    try:
        from rosbags import typesys
    except ImportError as error:
        raise MissingDependencyError(
            'reading messages of a bag needs the package rosbags: pip install rosbags'
        ) from error
    return typesys


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
        logger.warning('%s is passed over: %s', path, ' '.join(str(error).split()))
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
