"""The files that hold the messages of a bag: sqlite3 and MCAP of rosbag2, and .bag of ROS 1, each read in one way.

Here messages are bytes. What they mean is in `bags`.
"""

from __future__ import annotations

import contextlib
import heapq
import sqlite3
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from loftr_ros.errors import InputError, MissingDependencyError

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
"""Begins a compressed file, and a compressed message: CDR begins with 0, and one of 0 to 11."""

REORDER = 200
"""Messages that wait to be put in order where a file has no index: writers without one swap neighbours."""

CURES = {
    '.db3': '`sqlite3 FILE .recover` writes what is left of it',
    '.mcap': '`mcap recover FILE -o NEW` writes what is left of it',
    '.bag': '`rosbag reindex FILE` of ROS 1 repairs it',
}
"""What helps with a recording that was cut short, by suffix."""


class Channel(NamedTuple):
    """What a file says of the messages of one topic.

    Args:
        encoding: of the messages: 'cdr' or 'ros1'; others cannot be read.
        definition: of the message type, as text; empty when the file has none.
        definition_format: 'msg' or 'idl', or another one that cannot be read.
        qos: quality of service that the publishers offered, as YAML text or a list; empty when unknown.
    """

    topic: str
    message_type: str
    encoding: str
    definition: str
    definition_format: str
    qos: str | list
    count: int


class Storage(Protocol):
    """An open file of messages."""

    channels: dict[int, Channel]

    def messages(self, wanted: set[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield (stamp of the recording [ns], number of the channel, data) of some channels in the order of stamps."""


@contextlib.contextmanager
def open_storage(path: Path) -> Iterator[Storage]:
    """Open a file of messages by its suffix.

    Raises:
        InputError: it cannot be read; with the cure for a recording that was cut short.
        MissingDependencyError: the package that reads it is not installed.
    """
    readers = {'.db3': _sqlite, '.mcap': _mcap, '.bag': _ros1}
    if path.suffix not in readers:
        raise InputError(f'{path} has the suffix {path.suffix!r}; needs {", ".join(readers)}')
    if not path.stat().st_size:
        raise InputError(f'{path} is empty; was nothing recorded?')
    with contextlib.ExitStack() as stack:
        try:
            storage = stack.enter_context(readers[path.suffix](path))
        except (InputError, MissingDependencyError):
            raise
        except Exception as error:  # libraries raise what their bytes make them: struct.error, IndexError ...
            raise unreadable(path, error) from error
        yield storage


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the error for a file that cannot be read, or not to its end."""
    words = ' '.join(str(error).split()) or type(error).__name__
    return InputError(f'{path} cannot be read: {words}. If the recording was cut short, {CURES[path.suffix]}')


# --- sqlite3 ---------------------------------------------------------------------------------------------------------


class _Sqlite:
    def __init__(self, database: sqlite3.Connection):
        self._database = database
        columns = {row[1] for row in database.execute('PRAGMA table_info(topics)')}
        if not columns:
            raise ValueError('it has no table of topics')
        qos = 'offered_qos_profiles' if 'offered_qos_profiles' in columns else "''"
        counts = dict(database.execute('SELECT topic_id, count(*) FROM messages GROUP BY topic_id'))
        definitions = {}
        if list(database.execute('PRAGMA table_info(message_definitions)')):
            rows = database.execute('SELECT topic_type, encoding, encoded_message_definition FROM message_definitions')
            definitions = {name: (text, encoding.removeprefix('ros2')) for name, encoding, text in rows}
        self.channels = {
            number: Channel(topic, kind, encoding, *definitions.get(kind, ('', '')), profiles, counts.get(number, 0))
            for number, topic, kind, encoding, profiles in database.execute(
                f'SELECT id, name, type, serialization_format, {qos} FROM topics'
            )
        }

    def messages(self, wanted: set[int]) -> Iterator[tuple[int, int, bytes]]:
        numbers = ', '.join(map(str, sorted(wanted)))
        query = f'SELECT timestamp, topic_id, data FROM messages WHERE topic_id IN ({numbers}) ORDER BY timestamp, id'
        for row in self._database.execute(query):  # noqa: UP028, a `yield from` would close the database's cursor late
            yield row


@contextlib.contextmanager
def _sqlite(path: Path):
    name = urllib.parse.quote(str(path.resolve()))
    # A recorder that was killed leaves its last messages in FILE-wal, which `immutable` would pass over; but without
    # such a file a folder that cannot be written to needs it.
    mode = 'mode=ro' if path.with_name(path.name + '-wal').is_file() else 'immutable=1'
    with contextlib.closing(sqlite3.connect(f'file:{name}?{mode}', uri=True)) as database:
        yield _Sqlite(database)


# --- MCAP ------------------------------------------------------------------------------------------------------------


class _Mcap:
    def __init__(self, file):
        from mcap.reader import NonSeekingReader, SeekingReader

        self._file = file
        reader = SeekingReader(file)
        reader.get_header()
        summary = reader.get_summary()
        self._has_index = bool(summary is not None and summary.chunk_indexes and summary.statistics)
        if self._has_index:
            schemas, channels = summary.schemas, summary.channels
            counts = summary.statistics.channel_message_counts
        else:
            schemas, channels, counts = {}, {}, Counter()
            file.seek(0)
            for schema, channel, _ in NonSeekingReader(file).iter_messages(log_time_order=False):
                channels[channel.id] = channel
                counts[channel.id] += 1
                if schema is not None:
                    schemas[schema.id] = schema
        self.channels = {}
        for number, channel in channels.items():
            schema = schemas.get(channel.schema_id)
            self.channels[number] = Channel(
                channel.topic,
                schema.name if schema else '',
                channel.message_encoding,
                schema.data.decode(errors='replace') if schema else '',
                schema.encoding.removeprefix('ros1').removeprefix('ros2').replace('omgidl', 'idl') if schema else '',
                channel.metadata.get('offered_qos_profiles', ''),
                counts.get(number, 0),
            )

    def messages(self, wanted: set[int]) -> Iterator[tuple[int, int, bytes]]:
        from mcap.reader import NonSeekingReader, SeekingReader

        self._file.seek(0)
        if self._has_index:
            topics = [self.channels[number].topic for number in wanted]
            for _, channel, message in SeekingReader(self._file).iter_messages(topics=topics):
                if channel.id in wanted:
                    yield message.log_time, channel.id, message.data
            return
        rows = (
            (message.log_time, order, channel.id, message.data)
            for order, (_, channel, message) in enumerate(
                NonSeekingReader(self._file).iter_messages(log_time_order=False)
            )
            if channel.id in wanted
        )
        for stamp_ns, _, number, data in _nearly_sorted(rows):
            yield stamp_ns, number, data


def _nearly_sorted(rows: Iterator[tuple]) -> Iterator[tuple]:
    waiting = []
    for row in rows:
        heapq.heappush(waiting, row)
        if len(waiting) > REORDER:
            yield heapq.heappop(waiting)
    while waiting:
        yield heapq.heappop(waiting)


@contextlib.contextmanager
def _mcap(path: Path):
    try:
        import mcap  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f'reading {path} needs the package mcap: pip install mcap') from error
    with path.open('rb') as file:
        yield _Mcap(file)


# --- ROS 1 -----------------------------------------------------------------------------------------------------------


class _Ros1:
    def __init__(self, reader):
        self._reader = reader
        self.channels = {
            c.id: Channel(c.topic, c.msgtype, 'ros1', c.msgdef.data, 'msg', _latching(c), c.msgcount)
            for c in reader.connections
        }

    def messages(self, wanted: set[int]) -> Iterator[tuple[int, int, bytes]]:
        connections = [c for c in self._reader.connections if c.id in wanted]
        for connection, stamp_ns, data in self._reader.messages(connections):
            yield stamp_ns, connection.id, data


def _latching(connection) -> list:
    """Return the quality of service of ROS 2 that is nearest to a connection of ROS 1."""
    durability = 'transient_local' if getattr(connection.ext, 'latching', None) else 'volatile'
    return [{'reliability': 'reliable', 'durability': durability}]


@contextlib.contextmanager
def _ros1(path: Path):
    try:
        from rosbags.rosbag1 import Reader
    except ImportError as error:
        raise MissingDependencyError(f'reading {path} needs the package rosbags: pip install rosbags') from error
    with Reader(path) as reader:
        yield _Ros1(reader)
