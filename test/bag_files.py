"""Bags with given messages, also in forms that no recorder writes."""

import struct

import numpy as np


def header(store, stamp_ns, frame_id='cam'):
    """A Header of a type store of rosbags."""
    stamp = store.types['builtin_interfaces/msg/Time'](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    header_type = store.types['std_msgs/msg/Header']
    seq = {'seq': 0} if 'seq' in header_type.__dataclass_fields__ else {}  # as in ROS 1
    return header_type(**seq, stamp=stamp, frame_id=frame_id)


def image_message(store, stamp_ns, pixels, encoding, frame_id='cam'):
    """An Image of `pixels`, uint8 (H, W) or (H, W, channels)."""
    return store.types['sensor_msgs/msg/Image'](
        header=header(store, stamp_ns, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // len(pixels),
        data=np.ascontiguousarray(pixels).ravel(),
    )


MCAP_MAGIC = b'\x89MCAP0\r\n'


def mcap(path, channels, messages, profile='ros2', qos=None):
    """An MCAP file without index.

    Args:
        channels: (topic, type, schema, definition, encoding) of each.
        messages: (channel from 1, stamp, data).
        qos: the profiles of each channel as YAML.
    """

    def text(value):
        return struct.pack('<I', len(value)) + value.encode()

    def record(kind, body):
        return bytes([kind]) + struct.pack('<Q', len(body)) + body

    content = MCAP_MAGIC + record(1, text(profile) + text('test'))
    for number, (topic, name, schema, definition, encoding) in enumerate(channels, 1):
        content += record(3, struct.pack('<H', number) + text(name) + text(schema) + text(definition))
        metadata = text('offered_qos_profiles') + text(qos[number - 1]) if qos else b''
        metadata = struct.pack('<I', len(metadata)) + metadata
        content += record(4, struct.pack('<HH', number, number) + text(topic) + text(encoding) + metadata)
    for channel, stamp_ns, data in messages:
        content += record(5, struct.pack('<HIQQ', channel, 0, stamp_ns, stamp_ns) + data)
    path.write_bytes(content + record(15, bytes(4)) + record(2, bytes(20)) + MCAP_MAGIC)
    return path


TEXT = ('/text', 'std_msgs/msg/String', 'ros2msg', 'string data', 'cdr')
X = b'\0\1\0\0\2\0\0\0x\0'
"""CDR of a String x."""
