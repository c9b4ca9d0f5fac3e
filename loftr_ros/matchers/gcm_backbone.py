"""The backbone of the matcher `gcm`, the source of its coarser feature maps: the setting `matcher.gcm.backbone`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from loftr_ros.config import MatcherConfig
from loftr_ros.errors import ConfigError, InputError, MissingDependencyError, did_you_mean
from loftr_ros.networks.backbones import AveragePooling, Backbone, ImageNetBackbone, MatchingBackbone, fit, normalise
from loftr_ros.networks.imagenet import ARCHITECTURES
from loftr_ros.weights import CHECKPOINTS, load_into, load_state
from loftr_ros.weights.convert import load_network

MATCHING_NETWORKS = ('efficient_loftr', 'loftr')
"""Networks of ours that have a backbone."""

DEFAULT_STRIDES = (2, 4, 8, 16)
"""Of networks with more levels: below 1/16 a VGA image has a few hundred places, too few to begin with."""

PROBE_SIZE = (192, 256)
"""Height and width of the image that tells the strides of an ONNX file [px]."""


def create_backbone(config: MatcherConfig, device: torch.device) -> Backbone:
    """Return the backbone that `config.gcm.backbone` names, with its weights, on `device`.

    Raises:
        ConfigError: nothing has that name, it has no maps of these strides, or the strides do not fit each other.
        InputError: the file of the weights is missing or does not fit.
        MissingDependencyError: timm or onnxruntime is not installed.
    """
    value, levels = config.gcm.backbone, _parse_levels(config.gcm.levels)
    kind = next((kind for kind in SOURCES if re.match(rf'{kind}([:=]|$)', value)), None)
    if kind is not None:
        backbone = SOURCES[kind](value, levels, config)
    elif _is_weights(value):
        backbone = _of_matching_network(value, levels, config)
    else:
        known = [*SOURCES, *(name for name, entry in CHECKPOINTS.items() if entry.matcher in MATCHING_NETWORKS)]
        raise ConfigError(f'matcher.gcm.backbone is {value!r}; {did_you_mean(value, known)}, or a file of weights')
    _check_strides(backbone, config)
    return backbone.to(device).eval().requires_grad_(False)


def _is_weights(value: str) -> bool:
    name = value.partition('=')[0]
    return name in CHECKPOINTS or bool(Path(value).suffix)


def _parse_levels(text: str) -> dict[int, str]:
    """Return the name of the output, '' for any, by stride."""
    levels = {}
    for part in filter(None, (part.strip() for part in text.split(','))):
        name, _, stride = part.rpartition(':')
        if not stride.isdecimal() or int(stride) == 0:
            raise ConfigError(f'matcher.gcm.levels has {part!r}, needed is a stride in pixels such as 8; e.g. 2,4,8')
        levels[int(stride)] = name
    return dict(sorted(levels.items()))


def _check_strides(backbone: Backbone, config: MatcherConfig) -> None:
    """Raise ConfigError unless the places of each level consist of whole places of the next finer one."""
    strides = backbone.strides if config.gcm.descriptor == 'none' else (1, *backbone.strides)
    listed = ', '.join(map(str, strides))
    if len(strides) < 2 or any(b % a or a == b for a, b in itertools.pairwise(strides)):
        raise ConfigError(
            f'the levels of gcm have strides {listed} [px] (a patch descriptor has 1), needed are at least two, each a '
            'multiple of the one before; choose others with matcher.gcm.levels'
        )


def _choose(available: Sequence[int], levels: dict[int, str], config: MatcherConfig) -> tuple[int, ...]:
    """Return the strides to use, in increasing order."""
    missing = [stride for stride in levels if stride not in available]
    if missing:
        raise ConfigError(
            f'matcher.gcm.backbone {config.gcm.backbone} has maps of strides {", ".join(map(str, available))}, '
            f'matcher.gcm.levels wants {missing[0]}'
        )
    if levels:
        return tuple(levels)
    with_descriptor = config.gcm.descriptor != 'none'
    return tuple(s for s in available if s <= DEFAULT_STRIDES[-1] and not (s == 1 and with_descriptor))


def _pool(value: str, levels: dict[int, str], config: MatcherConfig) -> Backbone:
    if config.gcm.descriptor == 'none':
        raise ConfigError('matcher.gcm.backbone pool averages the patch descriptor; set matcher.gcm.descriptor to one')
    return AveragePooling(tuple(levels) or AveragePooling.choices)


def _of_matching_network(value: str, levels: dict[int, str], config: MatcherConfig) -> Backbone:
    """Make the backbone of a network of the package: `value` is its name, or as matcher.weights."""
    if value in MATCHING_NETWORKS:
        matcher, value = value, ''
    else:
        entry = CHECKPOINTS.get(value.partition('=')[0])
        matcher = entry.matcher if entry else MATCHING_NETWORKS[0]
    if matcher not in MATCHING_NETWORKS:
        raise ConfigError(
            f'matcher.gcm.backbone {value} has no backbone; use weights of {" or ".join(MATCHING_NETWORKS)}'
        )
    network, _ = load_network(matcher, value, config.accept_license)
    network = network.prepare_for_inference().backbone
    return MatchingBackbone(network, _choose(MatchingBackbone.choices[type(network)], levels, config))


def _of_torchvision(value: str, levels: dict[int, str], config: MatcherConfig) -> Backbone:
    name, _, path = value.partition('=')
    if not path:
        raise ConfigError(
            f'matcher.gcm.backbone {name} needs weights: {name}=FILE, a state dict of torchvision; it is not downloaded'
        )
    network = ARCHITECTURES[name]()
    state = {key: tensor for key, tensor in load_state(path).items() if not key.startswith(network.head)}
    load_into(network, state, path)
    network = network.to(memory_format=torch.channels_last)
    return ImageNetBackbone(network, _choose(tuple(network.taps), levels, config))


class TimmBackbone(Backbone):
    """A model of timm with `features_only`. Its mean and deviation are those of its pretrained weights.

    Args:
        value: `timm:NAME`, with the weights that timm downloads, or `timm:NAME=FILE`.
    """

    def __init__(self, value: str, levels: dict[int, str], config: MatcherConfig):
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise MissingDependencyError(f'matcher.gcm.backbone {value} needs timm: pip install timm') from error
        name, _, path = value.partition(':')[2].partition('=')
        if not name or not timm.is_model(name.partition('.')[0]):
            raise ConfigError(f'timm has no model {name!r}; needed is timm:NAME, see timm.list_models()')
        if path and not Path(path).is_file():
            raise InputError(f'there is no file {path}')
        own = {'pretrained_cfg_overlay': {'file': path}} if path else {}
        self.network = timm.create_model(name, features_only=True, pretrained=True, **own)
        available = self.network.feature_info.reduction()
        # Where several maps have one stride, the deepest one says the most.
        by_stride = {stride: number for number, stride in enumerate(available)}
        self.strides = _choose(tuple(sorted(by_stride)), levels, config)
        self._numbers = [by_stride[stride] for stride in self.strides]
        settings = self.network.pretrained_cfg
        self.colour = settings['input_size'][0] == 3
        for key in ('mean', 'std'):
            self.register_buffer(key, torch.tensor(settings[key]).view(1, -1, 1, 1))

    def forward(self, image: Tensor, finest: Callable[[], Tensor]) -> list[Tensor]:
        maps = self.network((image - self.mean) / self.std)
        return [fit(maps[number], image, s) for number, s in zip(self._numbers, self.strides, strict=True)]


class OnnxBackbone(Backbone):
    """An ONNX file of one image (1, C, H, W) of any size, run by ONNX Runtime on the CPU.

    With three channels the image is red first and normalised as for ImageNet, with one it is grey in [0, 1]. Outputs
    (1, C, h, w) are maps; their strides are measured.

    Args:
        value: `onnx:FILE`.
    """

    def __init__(self, value: str, levels: dict[int, str], config: MatcherConfig):
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError(
                f'matcher.gcm.backbone {value} needs ONNX Runtime: pip install onnxruntime'
            ) from error
        path = Path(value.partition(':')[2])
        if not path.is_file():
            raise InputError(f'there is no file {path}')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin while they wait block cores that other programs of the robot need (see runtime.py).
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        self._session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        image = self._session.get_inputs()[0]
        if len(self._session.get_inputs()) != 1 or len(image.shape) != 4 or image.shape[1] not in (1, 3):
            raise InputError(f'{path} must have one input (1, 3, H, W) or (1, 1, H, W), got {image.shape}')
        if not isinstance(image.shape[2], str) and image.shape[2] is not None:
            raise InputError(f'{path} takes images of {image.shape[2:]} only; export it with dynamic height and width')
        self._input, self.colour = image.name, image.shape[1] == 3
        named = self._measure(path)
        by_stride = {stride: name for name, stride in named.items()}
        for stride, name in levels.items():
            if name and named.get(name) != stride:
                found = ', '.join(f'{name}:{stride}' for name, stride in named.items())
                raise ConfigError(f'{path} has no map {name}:{stride}; it has {found}')
            by_stride[stride] = name or by_stride.get(stride)
        available = tuple(sorted(stride for stride, name in by_stride.items() if name))
        self.strides = _choose(available, levels, config)
        self._outputs = [by_stride[stride] for stride in self.strides]

    def _measure(self, path: Path) -> dict[str, int]:
        """Return the strides of the outputs that are maps, by name."""
        height, width = PROBE_SIZE
        outputs = [output.name for output in self._session.get_outputs()]
        arrays = self._run(torch.zeros(1, 3 if self.colour else 1, height, width), outputs)
        strides = {}
        for name, array in zip(outputs, arrays, strict=True):
            if array.ndim == 4 and min(array.shape[2:]) > 1:
                strides[name] = round(width / array.shape[3])
        if not strides:
            raise InputError(f'{path} has outputs {", ".join(outputs)}, none of which is a map (1, C, h, w)')
        return strides

    def _run(self, image: Tensor, outputs: list[str]) -> list:
        image = normalise(image) if self.colour else image
        return self._session.run(outputs, {self._input: image.cpu().numpy()})

    def forward(self, image: Tensor, finest: Callable[[], Tensor]) -> list[Tensor]:
        arrays = self._run(image, self._outputs)
        maps = (torch.from_numpy(array).to(image.device) for array in arrays)
        return [fit(m, image, stride) for m, stride in zip(maps, self.strides, strict=True)]


SOURCES = {
    'pool': _pool,
    **dict.fromkeys(ARCHITECTURES, _of_torchvision),
    **dict.fromkeys(MATCHING_NETWORKS, _of_matching_network),
    'timm': TimmBackbone,
    'onnx': OnnxBackbone,
}
"""First word of `matcher.gcm.backbone` -> function of it, the levels and the settings; weights of ours have no word."""
