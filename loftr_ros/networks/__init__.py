"""Torch modules: tensors in, named tuples of tensors out. No files, no numpy, no configuration.

`NETWORKS` is the table of all networks. Weights, matchers, export and training use it. A new network is added here
only. torch is imported only when a network is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from loftr_ros.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class NetworkEntry:
    """One network.

    Args:
        network: 'module:class' of a torch module. Without a detector: a MatchingNetwork (base.py).
        mark: name of a tensor that only the weights of this network have.
        parts: name -> 'module:class' of the parts for other engines and ONNX files (parts.py).
        matcher: `matcher.name` that uses its weights, if it differs from the name of the network.
        setting: name of the setting of MatcherConfig that selects its weights.
    """

    network: str
    mark: str
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    matcher: str = ''
    setting: str = 'weights'


NETWORKS = {
    'loftr': NetworkEntry(
        network='loftr_ros.networks.loftr:LoFTR',
        mark='fine_preprocess.down_proj.weight',
        parts={
            'extract': 'loftr_ros.networks.parts:LoftrExtract',
            'transform': 'loftr_ros.networks.parts:LoftrTransform',
        },
    ),
    'efficient_loftr': NetworkEntry(
        network='loftr_ros.networks.efficient_loftr:EfficientLoFTR',
        mark='loftr_coarse.layers.0.aggregate.weight',
        parts={
            'extract': 'loftr_ros.networks.parts:EfficientLoftrExtract',
            'transform': 'loftr_ros.networks.parts:EfficientLoftrTransform',
        },
    ),
    'superglue': NetworkEntry(
        network='loftr_ros.networks.superglue:SuperGlue',
        mark='gnn.layers.0.attn.merge.weight',
    ),
    'superpoint': NetworkEntry(
        network='loftr_ros.networks.superpoint:SuperPoint',
        mark='convPa.weight',
        parts={'extract': 'loftr_ros.networks.parts:SuperPointExtract'},
        matcher='superpoint_nn',
    ),
    'patch_descriptor': NetworkEntry(
        network='loftr_ros.networks.patch_descriptor:PatchDescriptor',
        mark='ops.0.weight',
        matcher='gcm',
        setting='gcm.descriptor',
    ),
}
"""Keys are the names in `weights.Checkpoint.matcher`."""


def network_entry(name: str) -> NetworkEntry:
    """Return the entry of a network, or raise ConfigError with all names."""
    if name not in NETWORKS:
        raise ConfigError(f'there is no network {name!r}; networks are {", ".join(NETWORKS)}')
    return NETWORKS[name]


def create_network(name: str, settings: Mapping) -> nn.Module:
    """Return the network `name` with random weights; `settings` are arguments of its constructor.

    Raises:
        ConfigError: no network has that name.
        TypeError: the constructor does not have one of the settings.
    """
    return _load(network_entry(name).network)(**settings)


def part_classes(name: str) -> dict[str, type]:
    """Return the parts of the network `name` by name; each class is made from the network."""
    return {part: _load(place) for part, place in network_entry(name).parts.items()}


def _load(place: str) -> type:
    module, _, name = place.partition(':')
    return getattr(import_module(module), name)
