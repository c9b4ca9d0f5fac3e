"""Bags of every storage that this file writes with rosbags, and one real recording with old type names."""

import sqlite3
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from loftr_ros.errors import InputError, MissingDependencyError
from loftr_ros.evaluation import bag_types
from loftr_ros.evaluation.bag_storage import MCAP_MAGIC
from loftr_ros.evaluation.bags import bag_topics, is_bag, open_bag, read_bag

rosbags = pytest.importorskip('rosbags')

from rosbags.rosbag1 import Writer as Writer1  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

SAMPLE = Path(__file__).parents[2] / 'shared' / 'data' / 'bags' / 'sample.db3'
STORE = get_typestore(Stores.LATEST)
PIXELS = np.arange(24, dtype=np.uint8)


def image_message(stamp_ns):
    header = STORE.types['std_msgs/msg/Header']
    time = STORE.types['builtin_interfaces/msg/Time']
    return STORE.types['sensor_msgs/msg/Image'](
        header=header(stamp=time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id='camera'),
        height=2,
        width=4,
        encoding='bgr8',
        is_bigendian=0,
        step=12,
        data=PIXELS,
    )


def write_bag(folder, plugin, stamps_ns=(3_000_000_000, 5_000_000_000), store=STORE, extra=None):
    """Two images on /a and one text on /b between them (and a message of a type of our own)."""
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        images = writer.add_connection('/a', 'sensor_msgs/msg/Image', typestore=store)
        texts = writer.add_connection('/b', 'std_msgs/msg/String', typestore=store)
        for stamp_ns in stamps_ns:
            writer.write(images, stamp_ns, store.serialize_cdr(image_message(stamp_ns), images.msgtype))
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
    assert data == [
        bytes(STORE.serialize_cdr(image_message(s), 'sensor_msgs/msg/Image')) for s in (3 * 10**9, 5 * 10**9)
    ]


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


def test_a_header_of_ros1_keeps_its_stamp_and_loses_its_number(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    time, header = store.types['builtin_interfaces/msg/Time'], store.types['std_msgs/msg/Header']
    message = header(seq=7, stamp=time(sec=5, nanosec=6), frame_id='cam')
    with Writer1(tmp_path / 'one.bag') as writer:
        connection = writer.add_connection('/h', 'std_msgs/msg/Header', typestore=store)
        writer.write(connection, 5, store.serialize_ros1(message, connection.msgtype))
    ((*_, data),) = read_bag(tmp_path / 'one.bag', serialized=True)
    read = STORE.deserialize_cdr(data, 'std_msgs/msg/Header')
    assert (read.stamp.sec, read.stamp.nanosec, read.frame_id) == (5, 6, 'cam')


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


@pytest.mark.parametrize('content', [b'', b'not a database' * 100])
def test_a_file_that_begins_like_no_bag_says_what_can_be_read(tmp_path, content):
    for name in ('broken.db3', 'broken.mcap', 'broken.bag'):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match='needs rosbag2'):
            bag_topics(tmp_path / name)


@pytest.mark.parametrize(
    'change',
    [
        lambda text: text.replace('offered_qos_profiles: []', 'offered_qos_profiles: [{reliability: best_effort}]'),
        lambda text: text.replace('storage_identifier: ', 'storage_identifier: rocks_'),
        lambda text: text.replace('std_msgs/msg/String', 'std_msgs/msg/Int8'),
        lambda text: text.replace('bag.', 'old_name.'),
        lambda text: 'rosbag2_bagfile_information: [',
        lambda text: '',
    ],
    ids=['qos', 'storage', 'type', 'renamed', 'no yaml', 'empty'],
)
def test_metadata_unlike_the_storage_loses_nothing(bag, change):
    metadata = bag / 'metadata.yaml'
    before = metadata.read_text()
    metadata.write_text(change(before))
    assert metadata.read_text() != before
    check_contents(bag)


def test_profiles_come_from_metadata_where_it_has_them(bag):
    metadata = bag / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace(
        'offered_qos_profiles: []', 'offered_qos_profiles: [{durability: transient_local}]'))  # fmt: skip
    with open_bag(bag) as opened:
        assert [topic.qos for topic in opened.topics.values()] == 2 * [[{'durability': 'transient_local'}]]


def mcap(path, channels, messages, profile='ros2'):
    """An MCAP file without index.

    Args:
        channels: (topic, type, schema, definition, encoding) of each.
        messages: (channel from 1, stamp, data).
    """

    def text(value):
        return struct.pack('<I', len(value)) + value.encode()

    def record(kind, body):
        return bytes([kind]) + struct.pack('<Q', len(body)) + body

    content = MCAP_MAGIC + record(1, text(profile) + text('test'))
    for number, (topic, name, schema, definition, encoding) in enumerate(channels, 1):
        content += record(3, struct.pack('<H', number) + text(name) + text(schema) + text(definition))
        content += record(4, struct.pack('<HH', number, number) + text(topic) + text(encoding) + text(''))
    for channel, stamp_ns, data in messages:
        content += record(5, struct.pack('<HIQQ', channel, 0, stamp_ns, stamp_ns) + data)
    path.write_bytes(content + record(15, bytes(4)) + record(2, bytes(20)) + MCAP_MAGIC)
    return path


TEXT = ('/text', 'std_msgs/msg/String', 'ros2msg', 'string data', 'cdr')
X = b'\0\1\0\0\2\0\0\0x\0'


def test_a_file_without_index_and_out_of_order_is_read_in_the_order_of_its_stamps(tmp_path):
    path = mcap(tmp_path / 'a.mcap', [TEXT], [(1, 1, X), (1, 4, X), (1, 3, X)], profile='')
    assert [(stamp, message.data) for _, _, stamp, message in read_bag(path)] == [(1, 'x'), (3, 'x'), (4, 'x')]


@pytest.mark.parametrize(('schema', 'encoding'), [('protobuf', 'protobuf'), ('jsonschema', 'json'), ('', 'cbor')])
def test_a_topic_that_is_not_of_ros_leaves_the_others(tmp_path, schema, encoding):
    path = mcap(tmp_path / 'a.mcap', [TEXT, ('/p', 'foxglove.Log', schema, '{}', encoding)], [(1, 1, X), (2, 2, b'?')])
    assert [row[0] for row in read_bag(path)] == ['/text']
    with pytest.raises(InputError, match=f'/p cannot be read.*{encoding}'):
        read_bag(path, topics=['/p'])
    with pytest.raises(InputError, match=f'no topic that can be read.*{encoding}'):
        read_bag(mcap(path, [('/p', 'foxglove.Log', schema, '{}', encoding)], [(1, 2, b'?')]))


def test_a_definition_that_cannot_be_read_leaves_the_others(tmp_path):
    event = ('/add', 'a_interfaces/srv/Add_Event', 'ros2msg', '=' * 80 + '\nSRV: a\nint64 a\n---\nint64 sum\n', 'cdr')
    path = mcap(tmp_path / 'a.mcap', [TEXT, event], [(1, 1, X), (2, 2, X)])
    assert [row[3].data for row in read_bag(path, topics=['/text'])] == ['x']
    assert [row[3] for row in read_bag(path, serialized=True)] == [X, X]
    with pytest.raises(InputError, match=r'definition of a_interfaces/srv/Add_Event.*cannot be read'):
        list(read_bag(path, topics=['/add']))


def test_a_second_type_on_a_topic_is_not_read_as_the_first(tmp_path):
    number = ('/text', 'std_msgs/msg/Int8', 'ros2msg', 'int8 data', 'cdr')
    path = mcap(tmp_path / 'a.mcap', [TEXT, number], [(1, 1, X), (2, 2, b'\0\1\0\0\7')])
    assert [(row[1], row[2]) for row in read_bag(path)] == [('std_msgs/msg/String', 1)]
    with open_bag(path) as opened:
        assert 'std_msgs/msg/Int8' in opened.unreadable['/text']


def test_a_damaged_message_is_answered_in_words(tmp_path):
    path = mcap(tmp_path / 'a.mcap', [TEXT], [(1, 1, X[:6])])
    with pytest.raises(InputError, match=r'std_msgs/msg/String is damaged'):
        list(read_bag(path))


@pytest.mark.parametrize('cure', ['mcap recover', 'recover" | sqlite3', 'rosbag reindex'])
def test_a_recording_that_was_cut_short_names_the_cure_of_its_format(tmp_path, cure):
    store = get_typestore(Stores.ROS1_NOETIC if 'rosbag' in cure else Stores.LATEST)
    plugin = StoragePlugin.MCAP if 'mcap' in cure else StoragePlugin.SQLITE3
    path = tmp_path / 'one.bag'
    with Writer1(path) if 'rosbag' in cure else Writer(path, version=9, storage_plugin=plugin) as writer:
        connection = writer.add_connection('/t', 'std_msgs/msg/String', typestore=store)
        serialize = store.serialize_ros1 if 'rosbag' in cure else store.serialize_cdr
        for stamp_ns in range(1, 2001):
            message = store.types['std_msgs/msg/String'](data='x' * 50)
            writer.write(connection, stamp_ns, serialize(message, connection.msgtype))
    file = storage_file(path) if path.is_dir() else path
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 8 // 10])
    with pytest.raises(InputError) as raised:
        list(read_bag(file))
    assert cure in str(raised.value)


def test_what_is_no_bag_is_told_apart(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'')
    for path in (tmp_path, tmp_path / 'a.png', tmp_path / 'absent'):
        assert not is_bag(path)
        with pytest.raises(InputError, match='needs a rosbag'):
            read_bag(path)


def test_without_rosbags_the_remedy_is_named(bag, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rosbags', None)
    bag_types._library.cache_clear()
    with pytest.raises(MissingDependencyError, match='pip install rosbags'):
        list(read_bag(bag))
