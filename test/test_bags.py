"""Bags of every storage that this file writes with rosbags, and one real recording with old type names."""

import sqlite3
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from bag_files import image_message

from loftr_ros.datasets.bags import bag_topics, is_bag, open_bag, read_bag
from loftr_ros.errors import InputError, MissingDependencyError

rosbags = pytest.importorskip('rosbags')
pytest.importorskip('mcap')

from rosbags.rosbag1 import Writer as Writer1  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

SAMPLE = Path(__file__).parents[2] / 'shared' / 'data' / 'bags' / 'sample.db3'
STORE = get_typestore(Stores.LATEST)
PIXELS = np.arange(24, dtype=np.uint8)


def image(stamp_ns):
    return image_message(STORE, stamp_ns, PIXELS.reshape(2, 4, 3), 'bgr8', 'camera')


def write_bag(folder, plugin, stamps_ns=(3_000_000_000, 5_000_000_000), store=STORE, extra=None):
    """Two images on /a and one text on /b between them (and a message of a type of our own)."""
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        images = writer.add_connection('/a', 'sensor_msgs/msg/Image', typestore=store)
        texts = writer.add_connection('/b', 'std_msgs/msg/String', typestore=store)
        for stamp_ns in stamps_ns:
            writer.write(images, stamp_ns, store.serialize_cdr(image(stamp_ns), images.msgtype))
        if stamps_ns:
            text = store.types['std_msgs/msg/String'](data='between')
            writer.write(texts, stamps_ns[0] + 1, store.serialize_cdr(text, texts.msgtype))
        if extra is not None:
            own = writer.add_connection('/own', 'test_msgs/msg/Own', typestore=store)
            writer.write(own, 9_000_000_000, store.serialize_cdr(extra, own.msgtype))
    return folder


@pytest.fixture(params=[StoragePlugin.SQLITE3, StoragePlugin.MCAP], ids=['sqlite3', 'mcap'])
def bag(request, tmp_path):
    return write_bag(tmp_path / 'bag', request.param)


def storage_file(folder):
    return next(file for file in folder.iterdir() if file.suffix in ('.db3', '.mcap'))


def check_contents(path):
    assert bag_topics(path) == {'/a': 'sensor_msgs/msg/Image', '/b': 'std_msgs/msg/String'}
    rows = list(read_bag(path))
    assert [(topic, stamp) for topic, _, stamp, _ in rows] == [
        ('/a', 3_000_000_000),
        ('/b', 3_000_000_001),
        ('/a', 5_000_000_000),
    ]
    image = rows[0][3]
    assert (image.width, image.height, image.encoding, image.header.frame_id) == (4, 2, 'bgr8', 'camera')
    assert isinstance(image.data, np.ndarray) and (image.data == PIXELS).all()
    assert rows[1][3].data == 'between'


def test_a_bag_reads_back_in_the_order_of_its_stamps(bag):
    assert is_bag(bag)
    check_contents(bag)


def test_a_bare_file_without_metadata_opens(bag, tmp_path):
    file = storage_file(bag)
    (bag / 'metadata.yaml').unlink()
    assert is_bag(file) and is_bag(bag)
    check_contents(file)
    check_contents(bag)


def test_serialized_messages_are_the_recorded_bytes(bag):
    data = [row[3] for row in read_bag(bag, topics=['/a'], serialized=True)]
    assert data == [bytes(STORE.serialize_cdr(image(s), 'sensor_msgs/msg/Image')) for s in (3 * 10**9, 5 * 10**9)]


def test_only_the_topics_asked_for_come(bag):
    assert {row[0] for row in read_bag(bag, topics=['/b'])} == {'/b'}
    with pytest.raises(InputError, match=r'no topic /c; it has /a, /b'):
        read_bag(bag, topics=['/c'])


def test_a_type_that_the_bag_describes_is_read_without_being_installed(tmp_path):
    store = get_typestore(Stores.LATEST)
    store.register(get_types_from_msg('float32[] values', 'test_msgs/msg/Own'))
    own = store.types['test_msgs/msg/Own'](values=np.array([1.5, -2.0], np.float32))
    bag = write_bag(tmp_path / 'bag', StoragePlugin.MCAP, store=store, extra=own)
    ((topic, name, _, message),) = read_bag(bag, topics=['/own'])
    assert (topic, name) == ('/own', 'test_msgs/msg/Own')
    assert message.values.tolist() == [1.5, -2.0]


def test_a_ros1_bag_opens_and_its_messages_become_cdr(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    with Writer1(tmp_path / 'one.bag') as writer:
        texts = writer.add_connection('/b', 'std_msgs/msg/String', typestore=store)
        text = store.types['std_msgs/msg/String'](data='old')
        writer.write(texts, 7, store.serialize_ros1(text, 'std_msgs/msg/String'))
    ((topic, name, stamp_ns, message),) = read_bag(tmp_path / 'one.bag')
    assert (topic, name, stamp_ns, message.data) == ('/b', 'std_msgs/msg/String', 7, 'old')
    ((*_, data),) = read_bag(tmp_path / 'one.bag', serialized=True)
    assert STORE.deserialize_cdr(data, 'std_msgs/msg/String').data == 'old'


@pytest.mark.skipif(not SAMPLE.is_file(), reason=f'needs {SAMPLE.parent}')
def test_a_recording_with_old_type_names_opens():
    assert bag_topics(SAMPLE)['/image'] == 'sensor_msgs/msg/Image'
    rows = {topic: (name, message) for topic, name, _, message in read_bag(SAMPLE)}
    assert set(rows) == {'/text', '/image', '/image/compressed', '/fix', '/imu'}
    name, image = rows['/image']
    assert name == 'sensor_msgs/msg/Image'
    assert (image.width, image.height, image.encoding) == (640, 480, 'bgr8')
    assert len(image.data) == 640 * 480 * 3
    assert all(isinstance(row[3], bytes) for row in read_bag(SAMPLE, serialized=True))


def test_a_type_that_nothing_describes_can_only_be_read_serialized(tmp_path):
    """The schema of the first rosbag2, which holds no descriptions."""
    with sqlite3.connect(tmp_path / 'old.db3') as database:
        database.execute('CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)')
        database.execute(
            'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)'
        )
        database.execute("INSERT INTO topics VALUES(1, '/x', 'unheard_msgs/Of', 'cdr')")
        database.execute('INSERT INTO messages VALUES(1, 1, 5, ?)', (b'\x00\x01\x00\x00abcd',))
    database.close()
    assert list(read_bag(tmp_path / 'old.db3', serialized=True)) == [
        ('/x', 'unheard_msgs/msg/Of', 5, b'\x00\x01\x00\x00abcd')
    ]
    with pytest.raises(InputError, match='unheard_msgs/msg/Of'):
        list(read_bag(tmp_path / 'old.db3'))


def test_an_empty_bag_says_so(tmp_path):
    bag = write_bag(tmp_path / 'bag', StoragePlugin.SQLITE3, stamps_ns=())
    with pytest.raises(InputError, match='no messages'):
        bag_topics(bag)


def test_an_unknown_storage_says_what_can_be_read(bag):
    metadata = bag / 'metadata.yaml'
    text = metadata.read_text()
    metadata.write_text(text.replace('storage_identifier: sqlite3', 'storage_identifier: rocks').replace(
        'storage_identifier: mcap', 'storage_identifier: rocks'))  # fmt: skip
    assert 'rocks' in metadata.read_text()
    with pytest.raises(InputError, match=r'rocks.*sqlite3 or mcap'):
        bag_topics(bag)


@pytest.mark.parametrize('content', [b'', b'not a database' * 100])
def test_a_broken_file_is_refused_with_the_remedy(tmp_path, content):
    for name, cure in (('broken.db3', 'sqlite3'), ('broken.mcap', 'mcap recover'), ('broken.bag', 'rosbag reindex')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=cure if content else 'is empty'):
            bag_topics(tmp_path / name)


def test_a_path_that_is_not_a_bag_is_recognized(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'')
    for path in (tmp_path, tmp_path / 'a.png', tmp_path / 'absent'):
        assert not is_bag(path)
        with pytest.raises(InputError, match='needs a rosbag'):
            read_bag(path)


def test_without_rosbags_the_error_says_what_to_install(bag, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rosbags', None)
    assert set(bag_topics(bag)) == {'/a', '/b'}
    with pytest.raises(MissingDependencyError, match='pip install rosbags'):
        list(read_bag(bag))


def header_bag(path):
    """A ROS 1 bag with one std_msgs/Header."""
    store = get_typestore(Stores.ROS1_NOETIC)
    time, header = store.types['builtin_interfaces/msg/Time'], store.types['std_msgs/msg/Header']
    with Writer1(path) as writer:
        connection = writer.add_connection('/h', 'std_msgs/msg/Header', typestore=store)
        message = header(seq=7, stamp=time(sec=5, nanosec=6), frame_id='cam')
        writer.write(connection, 5, store.serialize_ros1(message, connection.msgtype))
    return path


def test_only_the_sequence_number_of_a_ros1_header_is_removed(tmp_path):
    path = header_bag(tmp_path / 'one.bag')
    header = next(read_bag(path))[3]
    assert (header.stamp.sec, header.stamp.nanosec, header.frame_id) == (5, 6, 'cam')
    header = STORE.deserialize_cdr(next(read_bag(path, serialized=True))[3], 'std_msgs/msg/Header')
    assert (header.stamp.sec, header.stamp.nanosec, header.frame_id) == (5, 6, 'cam')


PROFILE = (
    '[{history: keep_last, depth: 1, reliability: %s, durability: %s, deadline: {sec: 0, nsec: 0}, '
    'lifespan: {sec: 0, nsec: 0}, liveliness: automatic, liveliness_lease_duration: {sec: 0, nsec: 0}, '
    'avoid_ros_namespace_conventions: false}]'
)


def test_an_edited_quality_of_service_in_the_metadata_is_used(bag):
    with open_bag(bag) as opened:
        assert [(t.is_reliable, t.is_latched) for t in opened.topics.values()] == [(True, False)] * 2
    metadata = bag / 'metadata.yaml'
    edited = PROFILE % ('best_effort', 'transient_local')
    metadata.write_text(metadata.read_text().replace('offered_qos_profiles: []', f'offered_qos_profiles: {edited}'))
    check_contents(bag)
    with open_bag(bag) as opened:
        assert [(t.is_reliable, t.is_latched) for t in opened.topics.values()] == [(False, True)] * 2


@pytest.mark.parametrize('text', ['', 'no: [', 'rosbag2_bagfile_information: 3', 'other: {}'])
def test_unreadable_metadata_are_ignored(bag, text, caplog):
    (bag / 'metadata.yaml').write_text(text)
    check_contents(bag)
    assert 'metadata.yaml is skipped' in caplog.text or text.endswith('3')


def test_compressed_files_are_read_and_missing_files_are_named(bag, caplog):
    zstandard = pytest.importorskip('zstandard')
    file = storage_file(bag)
    compressed = file.with_name(file.name + '.zstd')
    compressed.write_bytes(zstandard.compress(file.read_bytes()))
    file.unlink()
    check_contents(bag)
    assert 'is not there' in caplog.text


def mcap_file(path, stamps, schemas=(('std_msgs/msg/String', 'ros2msg', 'string data\n'),), encoding='cdr'):
    """A file without an index, as some recorders write; every message holds the text x."""
    text = lambda s: struct.pack('<I', len(s)) + s.encode()  # noqa: E731
    record = lambda op, body: bytes([op]) + struct.pack('<Q', len(body)) + body  # noqa: E731
    magic = b'\x89MCAP0\r\n'
    body = magic + record(1, text('ros2') + text('hand'))
    for number, schema in enumerate(schemas, 1):
        body += record(3, struct.pack('<H', number) + b''.join(map(text, schema)))
        body += record(4, struct.pack('<HH', number, number) + text(f'/t{number}') + text(encoding) + text(''))
        for stamp in stamps:
            body += record(5, struct.pack('<HIQQ', number, 0, stamp, stamp) + b'\0\1\0\0\2\0\0\0x\0')
    path.write_bytes(body + record(15, struct.pack('<I', 0)) + record(2, struct.pack('<QQI', 0, 0, 0)) + magic)
    return path


def test_messages_of_a_file_without_an_index_are_sorted(tmp_path):
    rows = list(read_bag(mcap_file(tmp_path / 'a.mcap', [1, 2, 4, 3])))
    assert [row[2] for row in rows] == [1, 2, 3, 4] and rows[0][3].data == 'x'


def test_an_unreadable_definition_does_not_affect_other_topics(tmp_path):
    event = ('example_interfaces/srv/AddTwoInts_Event', 'ros2msg', '=' * 80 + '\nSRV: x\nint64 a\n---\nint64 sum\n')
    path = mcap_file(tmp_path / 'a.mcap', [9], (('std_msgs/msg/String', 'ros2msg', 'string data\n'), event))
    assert [row[3].data for row in read_bag(path, topics=['/t1'])] == ['x']
    assert len(list(read_bag(path, serialized=True))) == 2
    with open_bag(path) as opened:
        assert opened.layout('/t1') == (('data', 'string'),)
        with pytest.raises(InputError, match='definition of example_interfaces/srv/AddTwoInts_Event in the bag cannot'):
            opened.layout('/t2')


@pytest.mark.parametrize('encoding', ['protobuf', 'json'])
def test_messages_of_other_encodings_are_named(tmp_path, encoding):
    path = mcap_file(tmp_path / 'a.mcap', [1], (('foxglove.Log', encoding, '{}'),), encoding)
    with pytest.raises(InputError, match='no messages that can be read'):
        bag_topics(path)


def test_a_partly_broken_file_gives_its_readable_messages_and_then_an_error(tmp_path):
    path = mcap_file(tmp_path / 'a.mcap', [1, 2, 3])
    whole = path.read_bytes()
    path.write_bytes(whole[:-80])
    with pytest.raises(InputError, match='mcap recover'):
        list(read_bag(path))


def test_a_write_ahead_log_that_a_killed_recorder_left_is_read(tmp_path):
    bag = write_bag(tmp_path / 'bag', StoragePlugin.SQLITE3)
    file = storage_file(bag)
    database = sqlite3.connect(file)
    database.execute('PRAGMA journal_mode=WAL')
    database.execute('INSERT INTO messages(topic_id, timestamp, data) SELECT topic_id, 8000000000, data FROM messages')
    database.commit()
    copy = tmp_path / 'copy.db3'
    for suffix in ('', '-wal'):
        copy.with_name(copy.name + suffix).write_bytes(file.with_name(file.name + suffix).read_bytes())
    database.close()
    assert len(list(read_bag(copy, serialized=True))) == 6
