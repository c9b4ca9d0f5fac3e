"""Settings as fields of dataclasses: each has a default, a meaning, a range and a check of its values.

`loftr_ros.config` and `loftr_ros.training.settings` declare the settings of the package.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from loftr_ros.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: a dotted name and its value, a bool, int, float or str (ROS has no type for None)."""

    name: str
    value: bool | int | float | str
    meaning: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    fixed: bool = False

    @property
    def type_name(self) -> str:
        return type(self.value).__name__

    @property
    def range(self) -> str:
        if self.choices:
            return ' | '.join(self.choices)
        if self.minimum is None and self.maximum is None:
            return ''
        # All digits: 0.9999999 is not 1.
        low = '-inf' if self.minimum is None else f'{self.minimum:.15g}'
        high = 'inf' if self.maximum is None else f'{self.maximum:.15g}'
        return f'{low} .. {high}'

    def check(self, value: Any) -> bool | int | float | str:
        """Return `value` with the type of this setting; raise ConfigError if its type or range is wrong."""
        wanted = type(self.value)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if wanted is float and isinstance(value, str) and re.fullmatch(r'[-+]?\d+e[-+]?\d+', value):
            value = float(value)  # YAML 1.1 reads 1e-3, without a point, as text
        if type(value) is not wanted:
            raise ConfigError(f'{self.name} must be of type {wanted.__name__}, got {value!r} ({type(value).__name__})')
        if self.choices and value not in self.choices:
            raise ConfigError(f'{self.name} must be one of {", ".join(self.choices)}, got {value!r}')
        if wanted is float and not math.isfinite(value):
            raise ConfigError(f'{self.name} must be a finite number, got {value!r}')
        too_low = self.minimum is not None and value < self.minimum
        too_high = self.maximum is not None and value > self.maximum
        if too_low or too_high:
            raise ConfigError(f'{self.name} must be in {self.range}, got {value!r}')
        return value


def setting(default, meaning: str, *, minimum=None, maximum=None, choices=(), fixed=False):
    """Return a field of a dataclass. `fixed` settings cannot change while the node runs."""
    return dataclasses.field(
        default=default,
        metadata={'meaning': meaning, 'minimum': minimum, 'maximum': maximum, 'choices': choices, 'fixed': fixed},
    )


class Checked:
    """Base of a dataclass of settings and of other such classes. Its values are checked when it is created."""

    __slots__ = ()

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, value = f'{type(self).__name__}.{field.name}', getattr(self, field.name)
            if field.metadata:
                value = Setting(name, field.default, **field.metadata).check(value)
                object.__setattr__(self, field.name, value)  # an int may have become a float
            elif not isinstance(value, field.default_factory):
                raise ConfigError(f'{name} must be a {field.default_factory.__name__}, got {value!r}')


Settings = TypeVar('Settings', bound=Checked)


def flatten(config: Checked) -> list[Setting]:
    """Return every setting of `config` with its present value, in the order of declaration."""
    return list(_walk(config, ''))


def _walk(config, prefix: str) -> Iterator[Setting]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f'{prefix}{field.name}.')
        else:
            yield Setting(f'{prefix}{field.name}', value, **field.metadata)


def override(config: Settings, values: Mapping[str, Any]) -> Settings:
    """Return `config` with the settings of `values`, by dotted name, replaced.

    Raises:
        ConfigError: a name is unknown, or a value is of the wrong type or out of range.
    """
    known = {item.name: item for item in flatten(config)}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f'unknown setting {name}; {did_you_mean(name, known)}')
        config = _replace(config, name.split('.'), known[name].check(value))
    return config


def _replace(config, path: list[str], value):
    if len(path) > 1:
        value = _replace(getattr(config, path[0]), path[1:], value)
    return dataclasses.replace(config, **{path[0]: value})


def parse(config: Settings, assignments: list[str]) -> Settings:
    """Return `config` with texts `name=value` applied, with values as in YAML (`--set` of the command line)."""
    import yaml

    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition('=')
        if not equals:
            raise ConfigError(f'{assignment!r} must be name=value, for example matcher.max_matches=500')
        values[name.strip()] = yaml.safe_load(text) if text.strip() else ''
    return override(config, values)
