"""Turn any readable weights into a safetensors file that says what it is; make the network that weights fit."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from loftr_ros.errors import ConfigError
from loftr_ros.weights.checkpoints import Checkpoint
from loftr_ros.weights.files import load_into, load_state, save
from loftr_ros.weights.locate import identify, sha256_of

NETWORKS = {
    'loftr': ('loftr_ros.networks.loftr', 'LoFTR'),
    'efficient_loftr': ('loftr_ros.networks.efficient_loftr', 'EfficientLoFTR'),
    'superglue': ('loftr_ros.networks.superglue', 'SuperGlue'),
    'superpoint': ('loftr_ros.networks.superpoint', 'SuperPoint'),
}
"""Module and class of the network of a matcher."""


def build_network(checkpoint: Checkpoint):
    """Return the network (torch.nn.Module, random weights) that an entry belongs to.

    Raises:
        ConfigError: this version has no such network, or it does not know one of the entry's settings.
    """
    if checkpoint.matcher not in NETWORKS:
        raise ConfigError(f'there is no network for {checkpoint.matcher} here; there are {", ".join(NETWORKS)}')
    module, name = NETWORKS[checkpoint.matcher]
    try:
        return getattr(import_module(module), name)(**checkpoint.network)
    except TypeError as error:
        raise ConfigError(
            f'the network of {checkpoint.matcher} does not take the settings of {checkpoint.name} ({error}); '
            'the weights were written by another version of loftr_ros'
        ) from error


def convert(source: str, target: str | Path) -> Checkpoint:
    """Write the weights `source` means (see `find`) to the safetensors file `target`; return their entry.

    Weights that do not fit the network of their entry are refused.
    """
    checkpoint, path = identify(source)
    state = load_state(path)
    if checkpoint.matcher in NETWORKS:
        load_into(build_network(checkpoint), state, path)
    save(target, state, checkpoint, sha256_of(path))
    return checkpoint
