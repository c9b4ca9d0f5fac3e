"""Turn any readable weights into a safetensors file that says what it is; make the network that weights fit."""

from __future__ import annotations

from pathlib import Path

from loftr_ros.errors import ConfigError
from loftr_ros.networks import NETWORKS, create_network
from loftr_ros.weights.checkpoints import Checkpoint
from loftr_ros.weights.files import load_into, load_state, save
from loftr_ros.weights.locate import find, identify, sha256_of


def build_network(checkpoint: Checkpoint):
    """Return the network (torch.nn.Module, random weights) that an entry belongs to.

    Raises:
        ConfigError: this version has no such network, or it does not know one of the entry's settings.
    """
    try:
        return create_network(checkpoint.matcher, checkpoint.network)
    except TypeError as error:
        raise ConfigError(
            f'the network of {checkpoint.matcher} does not take the settings of {checkpoint.name} ({error}); '
            'the weights were written by another version of loftr_ros'
        ) from error


def load_network(name: str, weights: str, accept_license: bool):
    """Return the network `name` on the CPU, as it was trained, and the entry of its weights (see `find`)."""
    checkpoint, path = find(weights, name, accept_license)
    network = build_network(checkpoint)
    load_into(network, load_state(path), path)
    return network.eval(), checkpoint


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
