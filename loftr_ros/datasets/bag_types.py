"""Types of the messages of a bag: their definitions, decoding of messages, and the layout of their fields."""

from __future__ import annotations

import logging

from loftr_ros.datasets.bag_storage import Channel
from loftr_ros.errors import InputError, MissingDependencyError

HEADER = 'std_msgs/msg/Header'
logger = logging.getLogger(__name__)


def full_type_name(name: str) -> str:
    """Return 'sensor_msgs/msg/Image' also for 'sensor_msgs/Image', as bags before ROS 2 Dashing have it."""
    package, _, rest = name.partition('/')
    return name if '/' in rest else f'{package}/msg/{rest}'


class MessageTypes:
    """Message types of a bag. Each is parsed when it is needed, so that a broken one does not affect the others."""

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
        except Exception as error:  # the parser raises any exception for a malformed definition
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
