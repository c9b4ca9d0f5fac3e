"""Every setting of the package, once: its default, meaning, unit and range.

ROS parameters and their descriptors, `--config` and `--set` of the command line, config/default.yaml and
docs/parameters.md are all made from these fields.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loftr_ros.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Setting:
    """One flat setting: `name` is dotted, `value` a bool, int, float or str (ROS cannot type None or a list)."""

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
        """Return `value` in this setting's type, or raise ConfigError."""
        wanted = type(self.value)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if wanted is float and isinstance(value, str) and re.fullmatch(r'[-+]?\d+e[-+]?\d+', value):
            value = float(value)  # YAML 1.1 takes 1e-3, without a point, for a word
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
    """Declare a field. `fixed` settings cannot change while the node runs."""
    return dataclasses.field(
        default=default,
        metadata={'meaning': meaning, 'minimum': minimum, 'maximum': maximum, 'choices': choices, 'fixed': fixed},
    )


class Checked:
    """Base of a dataclass of settings and of other such classes: whoever makes it, its values are checked."""

    __slots__ = ()

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, value = f'{type(self).__name__}.{field.name}', getattr(self, field.name)
            if field.metadata:
                value = Setting(name, field.default, **field.metadata).check(value)
                object.__setattr__(self, field.name, value)  # an int given for a float
            elif not isinstance(value, field.default_factory):
                raise ConfigError(f'{name} must be a {field.default_factory.__name__}, got {value!r}')


@dataclasses.dataclass(frozen=True, slots=True)
class GcmConfig(Checked):
    """Parts and switches of the matcher `gcm` (Generalized Correspondence Matching)."""

    backbone: str = setting(
        'pool', 'source of the feature maps F_1..F_k: pool averages the patch descriptor', choices=('pool',)
    )
    descriptor: str = setting(
        'gradient',
        'patch descriptor F_0 at full resolution: gradient needs no weights; or as matcher.weights, a patch descriptor',
    )
    align: bool = setting(True, 'warp image 1 by a homography before refinement (step 1 of the paper)')


@dataclasses.dataclass(frozen=True, slots=True)
class KeypointConfig(Checked):
    """Keypoints of the matchers `superglue` and `superpoint_nn`."""

    max_keypoints: int = setting(
        0, 'most keypoints of an image, the best are kept; 0: 2048 for superpoint_nn, 1024 for superglue', minimum=0
    )
    threshold: float = setting(0.001, 'least score of a keypoint', minimum=0, maximum=1)
    nms_radius_px: int = setting(
        4, 'of keypoints so near to each other in x and in y only the best stays [px of the resized image]', minimum=0
    )
    border_px: int = setting(4, 'width of the margin without keypoints [px of the resized image]', minimum=0)
    subpixel: bool = setting(True, 'place keypoints between pixels, by the mean of the scores around them')
    max_ratio: float = setting(
        1.0,
        'superpoint_nn: largest ratio of the distances to the nearest and to the second descriptor; 1 = no test',
        minimum=0,
        maximum=1,
    )
    min_cosine: float = setting(
        -1.0, 'superpoint_nn: least cosine of two descriptors that match; -1 = no test', minimum=-1, maximum=1
    )


@dataclasses.dataclass(frozen=True, slots=True)
class SuperGlueConfig(Checked):
    """Parts of the matcher `superglue`."""

    detector: str = setting('', 'as matcher.weights: the SuperPoint; empty: that of the training of matcher.weights')
    sinkhorn_iterations: int = setting(0, 'iterations of the optimal transport; 0: as trained', minimum=0)


@dataclasses.dataclass(frozen=True, slots=True)
class MatcherConfig(Checked):
    """Which matcher runs, and how."""

    name: str = setting(
        'default', 'matcher; `loftr_ros match --help` lists them; default is the one that is shipped with weights'
    )
    weights: str = setting(
        '', 'name of `loftr_ros weights list`, a path, or NAME=path of your own file; empty: the default of the matcher'
    )
    accept_license: bool = setting(False, 'true: weights whose licence forbids commercial use may be loaded')
    device: str = setting('auto', 'auto, cpu, cuda or cuda:N; auto takes a GPU where there is one')
    precision: str = setting(
        'auto',
        'arithmetic of the networks; auto takes bf16 on a CPU with units for it, otherwise fp32',
        choices=('auto', 'fp32', 'fp16', 'bf16'),
    )
    engine: str = setting(
        'torch',
        'what computes the features of an image in the networks; all but torch take some seconds to start',
        choices=('torch', 'compile', 'onnxruntime', 'openvino'),
    )
    resize_max: int = setting(
        1024, 'longer side to which a larger image is reduced [px], 0 = as it is', minimum=0, maximum=16384
    )
    match_threshold: float = setting(0.2, 'matches with a lower confidence are dropped', minimum=0, maximum=1)
    max_matches: int = setting(2048, 'keep at most so many matches, the most confident; 0 = all', minimum=0)
    subpixel: str = setting(
        'lucas_kanade',
        'how the points of image 1 are refined at last: lucas_kanade compares the grey values around both points of a '
        'match; none leaves them as the matcher gives them',
        choices=('lucas_kanade', 'none'),
    )
    keep_memory: bool = setting(
        True, 'let glibc keep freed memory: networks on a CPU run up to 1.3 times as fast', fixed=True
    )
    gcm: GcmConfig = dataclasses.field(default_factory=GcmConfig)
    keypoints: KeypointConfig = dataclasses.field(default_factory=KeypointConfig)
    superglue: SuperGlueConfig = dataclasses.field(default_factory=SuperGlueConfig)


@dataclasses.dataclass(frozen=True, slots=True)
class PoseConfig(Checked):
    """How matches become a relative pose."""

    estimator: str = setting(
        'poselib', 'robust estimator; opencv needs no poselib and is less accurate', choices=('poselib', 'opencv')
    )
    max_epipolar_error_px: float = setting(
        2.0, 'Sampson error up to which a match is an inlier [px]', minimum=0.01, maximum=100
    )
    confidence: float = setting(
        0.9999, 'probability to have found the best model when the search stops', minimum=0.5, maximum=0.9999999
    )
    min_inliers: int = setting(20, 'with fewer inliers there is no pose', minimum=6)
    max_log10_false_alarms: float = setting(
        -3.0,
        'a pose is accepted when wrong matches alone would support at most 10 to this power motions as well; lower '
        'is stricter',
        maximum=100,
    )
    min_parallax_deg: float = setting(
        0.2, 'median parallax of the inliers below which the status is LOW_PARALLAX [deg]', minimum=0, maximum=90
    )
    seed: int = setting(0, 'seed of the random search; the same seed and matches give the same pose', minimum=0)


@dataclasses.dataclass(frozen=True, slots=True)
class SyncConfig(Checked):
    """How images and camera_info are put together."""

    approximate_sync: bool = setting(False, 'pair messages of nearly equal stamps instead of equal ones', fixed=True)
    approximate_sync_tolerance_seconds: float = setting(
        0.01,
        'largest difference of the stamps of one set under approximate_sync [s]',
        minimum=0,
        maximum=10,
        fixed=True,
    )
    queue_size: int = setting(
        5, 'messages of each topic that wait for their partners', minimum=1, maximum=1000, fixed=True
    )


@dataclasses.dataclass(frozen=True, slots=True)
class InputConfig(Checked):
    """What the node subscribes to."""

    pairing: str = setting(
        'temporal',
        'stereo: left with right; temporal: keyframe with current frame of one camera',
        choices=('stereo', 'temporal'),
        fixed=True,
    )
    image_transport: str = setting(
        'raw',
        'raw: sensor_msgs/Image; compressed: CompressedImage on <topic>/compressed',
        choices=('raw', 'compressed'),
        fixed=True,
    )
    image_qos: str = setting(
        'SENSOR_DATA',
        'quality of service of the subscriptions; SENSOR_DATA also receives from reliable publishers',
        choices=('SENSOR_DATA', 'SYSTEM_DEFAULT', 'DEFAULT', 'RELIABLE'),
        fixed=True,
    )
    rectified: bool = setting(
        True, 'true: images are rectified, P of camera_info holds; false: raw images, K and D hold'
    )
    process_every_frame: bool = setting(
        False, 'true: queue frames while the worker is busy (replay); false: newest frame wins'
    )


@dataclasses.dataclass(frozen=True, slots=True)
class KeyframeConfig(Checked):
    """When pairing temporal replaces image 0."""

    max_frames: int = setting(
        10, 'moving frames after which the current frame becomes the keyframe; standing still does not count', minimum=1
    )
    max_failures: int = setting(
        2, 'frames in a row without a pose that a proven keyframe survives (a covered lens, a blurred frame)', minimum=0
    )
    min_inlier_ratio: float = setting(
        0.5,
        'inliers, as a share of the first pair with this keyframe, below which it is replaced',
        minimum=0,
        maximum=1,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class OutputConfig(Checked):
    """What the node publishes."""

    queue_size: int = setting(10, 'depth of the publishers of arrays and poses', minimum=1, maximum=1000, fixed=True)
    image_max_width: int = setting(
        1280, 'width to which the picture on ~/matches_image is reduced [px]', minimum=64, maximum=16384
    )
    diagnostics_period_s: float = setting(
        1.0, 'time between two messages on /diagnostics [s]', minimum=0.1, maximum=60, fixed=True
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Config(Checked):
    """All settings."""

    matcher: MatcherConfig = dataclasses.field(default_factory=MatcherConfig)
    pose: PoseConfig = dataclasses.field(default_factory=PoseConfig)
    sync: SyncConfig = dataclasses.field(default_factory=SyncConfig)
    input: InputConfig = dataclasses.field(default_factory=InputConfig)
    keyframe: KeyframeConfig = dataclasses.field(default_factory=KeyframeConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)


def flatten(config) -> list[Setting]:
    """Return every setting of `config` with its present value, in the order of declaration."""
    return list(_walk(config, ''))


def _walk(config, prefix: str) -> Iterator[Setting]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f'{prefix}{field.name}.')
        else:
            yield Setting(f'{prefix}{field.name}', value, **field.metadata)


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """Return `config` with the dotted names of `values` replaced.

    Raises:
        ConfigError: a name is unknown, or a value is of the wrong type or out of range; nothing is changed then.
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


def parse(config: Config, assignments: list[str]) -> Config:
    """Return `config` with `name=value` texts applied, values written as in YAML (`--set` of the command line)."""
    import yaml

    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition('=')
        if not equals:
            raise ConfigError(f'{assignment!r} must be name=value, for example matcher.max_matches=500')
        values[name.strip()] = yaml.safe_load(text) if text.strip() else ''
    return override(config, values)


ROS_OWN = ('use_sim_time', 'qos_overrides', 'start_type_description_service')
"""First parts of the parameter names that rclpy declares itself."""

NODE_NAME = 'matcher'


def load(path: str | Path, config: Config | None = None, node: str = NODE_NAME) -> Config:
    """Return `config` (default: the defaults) with the values of a ROS parameter file.

    The file has the form that ROS reads: `/**: {ros__parameters: {...}}`, names dotted or nested. Sections of `node`
    in whichever namespace and of wildcards apply in the order of the file; those of other nodes and ROS_OWN names are
    passed over.

    Raises:
        ConfigError: the file cannot be read, has another form, no section that applies, or a value that is refused.
    """
    sections = list(_sections(read_yaml(path), ''))
    if not sections:
        raise ConfigError(f'{path} must hold "/**:" with "ros__parameters:" inside, as ROS parameter files do')
    own = [values for name, values in sections if name.rpartition('/')[2] in (node, '*', '**')]
    if not own:
        names = ', '.join(name for name, _ in sections)
        raise ConfigError(f'{path} has parameters of {names}, none of {node}; name the section {node} or "/**"')
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
    """Yield name and parameters of each node of a parameter file; a namespace may be a level of its own."""
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
    lines = ['# Generated from loftr_ros/config.py by `make docs`; copy what you change.', '/**:', '  ros__parameters:']
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
        'Generated from `loftr_ros/config.py` by `make docs`. The same names serve as ROS parameters, in parameter',
        'files (`--params-file`, `--config`) and on the command line (`--set name=value`). Settings marked *fixed* are',
        'read when the node starts; the others can change while it runs (`ros2 param set`).',
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
