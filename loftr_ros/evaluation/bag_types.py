"""Definitions of message types as bags hold them, parsed by rosbags when they are needed."""

from __future__ import annotations

import functools

from loftr_ros.errors import InputError, MissingDependencyError

HEADER = 'std_msgs/msg/Header'
PADDING = 'structure_needs_at_least_one_member'
"""What IDL puts into a type without fields."""


@functools.cache
def _library():
    """Return rosbags.typesys, and a store of the standard types of ROS 2."""
    try:
        from rosbags import typesys
    except ImportError as error:
        raise MissingDependencyError('reading the messages of a bag needs rosbags: pip install rosbags') from error
    return typesys, typesys.get_typestore(typesys.Stores.LATEST)


class Definition:
    """How a type is laid out, by the text in a bag, or as ROS 2 has it where the bag has none.

    Args:
        schema: kind of the text: 'ros2msg', 'ros2idl', 'ros1msg', or '' without one.
    """

    def __init__(self, type_name: str, schema: str, text: str):
        self.type = type_name
        self._schema, self._text = schema, text

    @functools.cached_property
    def _store(self):
        """A store that has the type.

        Raises:
            InputError: the text cannot be read, or there is none and the type is no standard one.
        """
        typesys, standard = _library()
        if not self.is_described and self.type in standard.fielddefs:
            return standard
        if not self.is_described and not self._schema:
            raise InputError(
                f'the bag does not describe {self.type} and it is no standard type; read other topics, or serialized'
            )
        try:
            types = self._parse(typesys)
            # The sequence number of a ROS 1 header is left out by the conversion, so that it must not be counted here.
            types[HEADER] = standard.fielddefs[HEADER]
            for name in ('builtin_interfaces/msg/Time', 'builtin_interfaces/msg/Duration'):
                types.setdefault(name, standard.fielddefs[name])
            store = typesys.get_typestore(typesys.Stores.EMPTY)
            store.register(types)
            store.get_msgdef(self.type)
            return store
        except Exception as error:  # the parser raises classes of several packages
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f'its definition of {self.type} in the bag cannot be read: {reason}') from error

    def _parse(self, typesys) -> dict:
        if self._schema not in ('ros2idl', 'omgidl'):
            return dict(typesys.get_types_from_msg(self._text, self.type))
        separator = '=' * 80 + '\n'
        parts = self._text.split(separator) if self._text.startswith(separator) else [self._text]
        types = {}
        for part in parts:
            if part.strip():
                types.update(typesys.get_types_from_idl(part.split('\n', 1)[1] if part.startswith('IDL: ') else part))
        return types

    @property
    def is_described(self) -> bool:
        """Whether the bag holds a text."""
        return bool(self._text.strip())

    def message(self, cdr: bytes):
        """Return a message as a dataclass."""
        return self._convert('deserialize_cdr', cdr)

    def cdr_from_ros1(self, data: bytes) -> bytes:
        return bytes(self._convert('ros1_to_cdr', data))

    def _convert(self, function: str, data: bytes):
        store = self._store
        try:
            return getattr(store, function)(data, self.type)
        except Exception as error:  # damaged bytes raise anything
            raise InputError(f'a message of {self.type} is damaged, or not what the bag describes: {error}') from error

    def layout(self):
        """Return the fields as ((name, layout), ...), nested; a base type as its name in IDL."""
        return _fields(self._store, self.type)


IDL_NAMES = {'float64': 'double', 'float32': 'float', 'bool': 'boolean', 'byte': 'octet', 'char': 'uint8'}


def _fields(store, name: str) -> tuple:
    return tuple((field, _layout(store, kind)) for field, kind in store.fielddefs[name][1] if field != PADDING)


def _layout(store, kind):
    node, value = int(kind[0]), kind[1]
    if node == 1:
        return IDL_NAMES.get(value[0], value[0])
    if node == 2:
        return 'wstring' if value.endswith('/wstring') else _fields(store, value)
    element, size = value
    return ('array', size, _layout(store, element)) if node == 3 else ('sequence', _layout(store, element))
