"""Installed message types, and a check that they have the fields of a bag's messages: ROS publishes bytes unchecked."""

from __future__ import annotations

from importlib import import_module

from loftr_ros.errors import InputError


def message_class(message_type: str):
    """Return the class of 'package/msg/Name'.

    Raises:
        InputError: it is not installed or is not the type of a topic.
    """
    try:
        package, kind, name = message_type.split('/')
        if kind == 'msg':
            return getattr(import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f'message type {message_type} is not installed') from error
    raise InputError(f'message type {message_type} is not installed as a message')


def layout_of(cls) -> tuple:
    """Return the fields of a message class, nested, as `bags.Bag.layout` does."""
    return tuple((name.lower(), _layout(kind)) for name, kind in cls.get_fields_and_field_types().items())


def _layout(kind: str):
    if kind.startswith('sequence<'):
        inside = kind.removeprefix('sequence<').removesuffix('>')
        return ('sequence', _layout(inside.rpartition(', ')[0] or inside))  # a bound follows the comma
    if kind.endswith(']'):
        element, _, size = kind[:-1].rpartition('[')
        return ('array', int(size), _layout(element))
    if '/' in kind:
        package, _, name = kind.partition('/')
        return layout_of(message_class(f'{package}/msg/{name}'))
    name = kind.partition('<')[0]
    return 'uint8' if name == 'char' else name


def difference(recorded: tuple, installed: tuple, path: str = '') -> str:
    """Return a description of the first field that differs; empty if none does."""
    for (name, kind), (other, other_kind) in zip(recorded, installed, strict=False):
        if name != other:
            return f'{path}{name} in place of {other}'
        if kind != other_kind:
            if _is_message(kind) and _is_message(other_kind):
                return difference(kind, other_kind, f'{path}{name}.')
            return f'{path}{name} is {_brief(kind)} in place of {_brief(other_kind)}'
    if len(recorded) != len(installed):
        return f'{len(recorded)} fields in place of {len(installed)}' + f' in {path[:-1]}' * bool(path)
    return ''


def _is_message(kind) -> bool:
    return isinstance(kind, tuple) and (not kind or isinstance(kind[0], tuple))


def _brief(kind) -> str:
    return kind if isinstance(kind, str) else 'a message' if _is_message(kind) else kind[0]
