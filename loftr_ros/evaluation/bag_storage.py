"""The files of rosbag2, sqlite3 and MCAP: channels and messages as bytes.

Read here rather than by a library, since one schema that is not ROS's, a lost index or messages out of order are no
reasons to lose the rest of a recording.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import sqlite3
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

from loftr_ros.errors import InputError, MissingDependencyError

SQLITE_MAGIC = b'SQLite format 3\0'
MCAP_MAGIC = b'\x89MCAP0\r\n'
ROS1_MAGIC = b'#ROSBAG V'
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'


@dataclass
class Channel:
    """Where the messages of one publisher, or of several with one type, come from.

    Args:
        encoding: of the messages: 'cdr', 'ros1', or what no ROS reads.
        schema: kind of the definition: 'ros2msg', 'ros2idl', 'ros1msg', another, or '' without one.
        qos: YAML of the offered profiles, '' where none was recorded.
    """

    id: int
    topic: str
    type: str
    encoding: str = 'cdr'
    schema: str = ''
    definition: str = ''
    qos: str | list = ''


def cut_short(path: Path, cure: str) -> InputError:
    return InputError(f'{path} is damaged or was cut short: {cure} repairs what is there')


def zstd():
    """Return a module with `open` and `decompress` of zstandard."""
    for name in ('compression.zstd', 'backports.zstd', 'zstandard'):
        with contextlib.suppress(ImportError):
            return import_module(name)
    raise MissingDependencyError(
        'this bag is compressed; reading it needs the package zstandard: pip install zstandard'
    )


class SqliteFile:
    """A .db3 file of any version of rosbag2."""

    def __init__(self, path: Path):
        self.path = path
        # What a recorder that was killed wrote last is in the write-ahead log, which only a changing database reads.
        ahead = Path(f'{path}-wal')
        mode = 'mode=ro' if ahead.is_file() and ahead.stat().st_size else 'mode=ro&immutable=1'
        self._database = sqlite3.connect(f'file:{quote(str(path.absolute()))}?{mode}', uri=True)
        self._database.row_factory = sqlite3.Row
        with self._in_words():
            tables = {
                row['name'] for row in self._database.execute("SELECT name FROM sqlite_master WHERE type='table'")
            }
            if not {'topics', 'messages'} <= tables:
                raise InputError(f'{path} is a database without the tables topics and messages; needs a bag of rosbag2')
            definitions = {}
            if 'message_definitions' in tables:
                for row in self._database.execute('SELECT * FROM message_definitions'):
                    definitions[row['topic_type']] = (row['encoding'], row['encoded_message_definition'])
            self.channels = []
            for row in self._database.execute('SELECT * FROM topics ORDER BY id'):
                schema, definition = definitions.get(row['type'], ('', ''))
                qos = row['offered_qos_profiles'] if 'offered_qos_profiles' in row.keys() else ''  # noqa: SIM118
                self.channels.append(
                    Channel(
                        row['id'], row['name'], row['type'], row['serialization_format'], schema, definition, qos or ''
                    )
                )
            self.is_empty = self._database.execute('SELECT 1 FROM messages LIMIT 1').fetchone() is None

    @contextlib.contextmanager
    def _in_words(self):
        try:
            yield
        except sqlite3.Error as error:
            cure = f'`sqlite3 {self.path.name} ".recover" | sqlite3 repaired.db3`'
            raise InputError(f'{cut_short(self.path, cure)} ({error})') from error

    def messages(self, ids: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield (id of the channel, stamp [ns], data) in the order of the stamps."""
        marks = ','.join('?' * len(ids))
        with self._in_words():
            yield from (
                tuple(row)
                for row in self._database.execute(
                    f'SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) '
                    'ORDER BY timestamp, id',
                    list(ids),
                )
            )

    def close(self) -> None:
        self._database.close()


@dataclass
class _Fields:
    """Reads the fields of one record after another."""

    data: bytes
    at: int = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from('<' + form, self.data, self.at)
        self.at += struct.calcsize('<' + form)
        return value

    def bytes(self) -> bytes:
        size = self.number('I')
        if self.at + size > len(self.data):
            raise ValueError('a field is longer than its record')
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self) -> str:
        return self.bytes().decode(errors='replace')


@dataclass(order=True)
class _Block:
    """A chunk, or a message outside of chunks: what is read at once.

    Args:
        begin_ns: the first stamp in it.
        at: where the content of its record is in the file.
    """

    begin_ns: int
    at: int
    size: int = field(compare=False)
    is_chunk: bool = field(compare=False)


class McapFile:
    """An MCAP file, with or without an index."""

    SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS, FOOTER = 3, 4, 5, 6, 11, 2

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open('rb')
        self._schemas, self._channels, self._blocks = {}, {}, []
        self.is_empty = False
        with self._in_words():
            self._walk()
            if not self._channels:
                # No summary repeats them.
                for block in self._blocks:
                    if block.is_chunk:
                        for kind, data in self._chunk(block):
                            self._note(kind, data)
        self._blocks.sort()
        self.is_empty |= not self._blocks
        self.channels = list(self._channels.values())

    @contextlib.contextmanager
    def _in_words(self):
        try:
            yield
        except (struct.error, ValueError, EOFError, OSError, RuntimeError, zlib.error) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f'{self._cut_short()} ({error})') from error

    def _cut_short(self) -> InputError:
        return cut_short(self.path, f'`mcap recover {self.path.name} -o repaired.mcap`')

    def _walk(self) -> None:
        """Note channels and blocks; chunks are not unpacked."""
        end = os.fstat(self._file.fileno()).st_size
        at = len(MCAP_MAGIC)
        while True:
            self._file.seek(at)
            head = self._file.read(9)
            kind, size = struct.unpack('<BQ', head) if len(head) == 9 else (0, end)
            at += 9
            if at + size > end:
                raise self._cut_short()
            if kind == self.FOOTER:
                return
            if kind == self.CHUNK:
                self._blocks.append(_Block(*struct.unpack('<Q', self._file.read(8)), at, size, True))
            elif kind == self.MESSAGE:
                self._blocks.append(_Block(struct.unpack_from('<Q', self._file.read(14), 6)[0], at, size, False))
            elif kind in (self.SCHEMA, self.CHANNEL, self.STATISTICS):
                self._note(kind, self._file.read(size))
            at += size

    def _note(self, kind: int, data: bytes) -> None:
        fields = _Fields(data)
        if kind == self.SCHEMA:
            number = fields.number('H')
            self._schemas[number] = (fields.text(), fields.text(), fields.text())
        elif kind == self.CHANNEL:
            number, schema = fields.number('H'), fields.number('H')
            name, schema_kind, definition = self._schemas.get(schema, ('', '', ''))
            topic, encoding, pairs = fields.text(), fields.text(), _Fields(fields.bytes())
            metadata = {}
            while pairs.at < len(pairs.data):
                key = pairs.text()
                metadata[key] = pairs.text()
            qos = metadata.get('offered_qos_profiles', '')
            if encoding == 'ros1' and metadata.get('latching') in ('1', 'true'):
                qos = [{'durability': 'transient_local', 'reliability': 'reliable'}]
            self._channels[number] = Channel(number, topic, name, encoding, schema_kind, definition, qos)
        elif kind == self.STATISTICS:
            self.is_empty = fields.number('Q') == 0

    def _chunk(self, block: _Block) -> Iterator[tuple[int, bytes]]:
        """Yield the records in a chunk."""
        self._file.seek(block.at)
        fields = _Fields(self._file.read(block.size), 16)
        size, checksum, compression = fields.number('Q'), fields.number('I'), fields.text()
        packed = fields.data[fields.at + 8 : fields.at + 8 + fields.number('Q')]
        data = self._unpacked(packed, compression)
        if len(data) != size or (checksum and zlib.crc32(data) != checksum):
            raise ValueError(f'the chunk at byte {block.at} is not what its checksum says')
        at = 0
        while at < size:
            kind, length = struct.unpack_from('<BQ', data, at)
            yield kind, data[at + 9 : at + 9 + length]
            at += 9 + length

    def _unpacked(self, packed: bytes, compression: str) -> bytes:
        if not compression:
            return packed
        if compression not in ('zstd', 'lz4'):
            raise InputError(f'{self.path} has chunks packed by {compression}; needs lz4, zstd or none')
        try:
            unpack = zstd().decompress if compression == 'zstd' else import_module('lz4.frame').decompress
        except ImportError as error:
            raise MissingDependencyError(f'reading {self.path} needs the package lz4: pip install lz4') from error
        try:
            return unpack(packed)
        except Exception as error:  # each library raises a class of its own
            raise ValueError(f'a chunk cannot be unpacked by {compression}: {error}') from error

    def _load(self, block: _Block) -> Iterator[tuple[int, int, bytes]]:
        if block.is_chunk:
            records = self._chunk(block)
        else:
            self._file.seek(block.at)
            records = [(self.MESSAGE, self._file.read(block.size))]
        for kind, data in records:
            if kind == self.MESSAGE:
                channel, _, stamp_ns, _ = struct.unpack_from('<HIQQ', data)
                yield channel, stamp_ns, data[22:]

    def messages(self, ids: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield (id of the channel, stamp [ns], data) in the order of the stamps."""
        ids, waiting, number = set(ids), [], 0
        with self._in_words():
            for block in self._blocks:
                while waiting and waiting[0][0] < block.begin_ns:
                    stamp_ns, _, channel, data = heapq.heappop(waiting)
                    yield channel, stamp_ns, data
                for channel, stamp_ns, data in self._load(block):
                    if channel in ids:
                        number += 1
                        heapq.heappush(waiting, (stamp_ns, number, channel, data))
            while waiting:
                stamp_ns, _, channel, data = heapq.heappop(waiting)
                yield channel, stamp_ns, data

    def close(self) -> None:
        self._file.close()
