"""Settings as ROS parameter files and as the table of docs/parameters.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loftr_ros.config import Config
from loftr_ros.errors import ConfigError
from loftr_ros.settings import flatten, override

ROS_OWN = ('use_sim_time', 'qos_overrides', 'start_type_description_service')
"""First parts of the parameter names that rclpy declares itself."""

NODE_NAME = 'matcher'


def load(path: str | Path, config: Config | None = None, node: str = NODE_NAME) -> Config:
    """Return `config` (default: the defaults) with the values of a ROS parameter file.

    The file has the form that ROS reads: `/**: {ros__parameters: {...}}`, names dotted or nested. Sections of `node`
    in any namespace and of wildcards are applied in the order of the file; other nodes and ROS_OWN names are ignored.

    Raises:
        ConfigError: the file cannot be read, has another form or no section of `node`, or contains an invalid value.
    """
    sections = list(_sections(read_yaml(path), ''))
    if not sections:
        raise ConfigError(f'{path} must contain "/**:" with "ros__parameters:" below it, as ROS parameter files do')
    own = [values for name, values in sections if name.rpartition('/')[2] in (node, '*', '**')]
    if not own:
        names = ', '.join(name for name, _ in sections)
        raise ConfigError(f'{path} has parameters of {names}, but not of {node}; name the section {node} or "/**"')
    config = config or Config()
    for values in own:
        if not isinstance(values, dict):
            raise ConfigError(f'{path} has {values!r} under "ros__parameters:"; needs names and values')
        flat = dict(dotted_items(values))
        try:
            config = override(config, {name: v for name, v in flat.items() if name.split('.')[0] not in ROS_OWN})
        except ConfigError as error:
            raise ConfigError(f'{path}: {error}') from error
    return config


def read_yaml(path: str | Path) -> Any:
    """Return the document of a YAML file; ConfigError if it cannot be read."""
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(f'cannot read the parameter file {path}: {error.strerror}') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f'{path} is not valid YAML: {error}') from error


def _sections(document, name: str) -> Iterator[tuple[str, Any]]:
    """Yield name and parameters of each node of a parameter file; a namespace may be a separate level."""
    for key, value in document.items() if isinstance(document, dict) else ():
        if key == 'ros__parameters':
            yield name, value
        else:
            yield from _sections(value, f'{name}/{key}'.replace('//', '/'))


def dotted_items(values: Mapping, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each entry of nested mappings."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from dotted_items(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def to_yaml(config: Config) -> str:
    """Return a ROS parameter file with every setting, each with its meaning as a comment."""
    lines = [
        '# Generated from loftr_ros/config.py by `make docs`. Copy the settings that you change to another file.',
        '/**:',
        '  ros__parameters:',
    ]
    section: list[str] = []
    for item in flatten(config):
        *path, name = item.name.split('.')
        common = 0
        while common < min(len(path), len(section)) and path[common] == section[common]:
            common += 1
        for depth in range(common, len(path)):
            lines.append(f'{"  " * (depth + 2)}{path[depth]}:')
        section = path
        text = f'{item.meaning}; {item.range}' if item.range else item.meaning
        lines.append(f'{"  " * (len(path) + 2)}{name}: {_yaml_value(item.value)}  # {text}')
    return '\n'.join(lines) + '\n'


def _yaml_value(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return f"'{value}'" if isinstance(value, str) else repr(value)


def to_markdown(config: Config) -> str:
    """Return the table of docs/parameters.md."""
    lines = [
        '# Parameters',
        '',
        'Generated from `loftr_ros/config.py` by `make docs`. The names are the same for ROS parameters, in parameter',
        'files (`--params-file`, `--config`) and on the command line (`--set name=value`). Settings marked *fixed* are',
        'read when the node starts; the others can be changed while it runs (`ros2 param set`).',
        '',
        '| name | type | default | range | meaning |',
        '|---|---|---|---|---|',
    ]
    for item in flatten(config):
        fixed = ' *fixed*' if item.fixed else ''
        choices = item.range.replace('|', '\\|')
        lines.append(
            f'| `{item.name}` | {item.type_name} | `{_yaml_value(item.value)}` | {choices} | {item.meaning}{fixed} |'
        )
    return '\n'.join(lines) + '\n'
