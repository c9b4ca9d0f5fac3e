"""Conversion of weights to safetensors files with metadata, and creation of the network for given weights."""

from __future__ import annotations

from pathlib import Path

from loftr_ros.errors import ConfigError
from loftr_ros.networks import NETWORKS, create_network
from loftr_ros.weights.checkpoints import Checkpoint
from loftr_ros.weights.files import load_into, load_state, save
from loftr_ros.weights.locate import find, identify, sha256_of


def build_network(checkpoint: Checkpoint):
    """Return the network (torch.nn.Module, random weights) of an entry.

    Raises:
        ConfigError: this version does not have the network, or the network does not have one of the settings.
    """
    try:
        return create_network(checkpoint.matcher, checkpoint.network)
    except TypeError as error:
        raise ConfigError(
            f'the network of {checkpoint.matcher} does not take the settings of {checkpoint.name} ({error}); '
            'the weights were written by another version of loftr_ros'
        ) from error


def load_network(name: str, weights: str, accept_license: bool):
    """Return the network `name` with its weights on the CPU, and the entry of the weights (see `find`)."""
    checkpoint, path = find(weights, name, accept_license)
    network = build_network(checkpoint)
    load_into(network, load_state(path), path)
    return network.eval(), checkpoint


def convert(source: str, target: str | Path) -> Checkpoint:
    """Write the weights `source` (a setting, see `find`) to the safetensors file `target`; return their entry.

    Weights that do not fit the network of their entry raise InputError.
    """
    checkpoint, path = identify(source)
    state = load_state(path)
    if checkpoint.matcher in NETWORKS:
        load_into(build_network(checkpoint), state, path)
    save(target, state, checkpoint, sha256_of(path))
    return checkpoint
