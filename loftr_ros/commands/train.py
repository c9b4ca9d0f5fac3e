"""Train a network on photographs, panoramas, rendered scenes or images with depth; run again, it resumes.

The file contains `name`, `network` (`matcher` and arguments of the network's constructor) and settings of
loftr_ros/training/settings.py; config/train/ has examples. Several GPUs:
`torchrun --nproc-per-node N -m loftr_ros.cli train CONFIG -o FOLDER`.
"""

from __future__ import annotations

from pathlib import Path

from loftr_ros.commands.options import add_set_argument
from loftr_ros.errors import ConfigError
from loftr_ros.networks import network_entry
from loftr_ros.parameter_files import dotted_items, read_yaml
from loftr_ros.runtime import prepare_process
from loftr_ros.settings import override, parse


def add_arguments(parser) -> None:
    parser.add_argument('config', type=Path, help='YAML file of the run, for example config/train/efficient_small.yaml')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FOLDER', help='folder of the run')
    add_set_argument(parser, 'data.width=320 steps=20000')
    parser.add_argument('--quiet', action='store_true', help='no progress bar')


def run(options) -> int:
    prepare_process()  # before torch is imported
    from loftr_ros.training.loop import train

    checkpoint, settings = read(options.config, options.assignments)
    path = train(checkpoint, settings, options.output, progress=not options.quiet)
    if path is None:
        print(f'stopped; the same command resumes from {options.output / "last.pt"}')
        return 0
    entry = network_entry(checkpoint.matcher)
    matcher = entry.matcher or checkpoint.matcher
    print(f'wrote {path}; use it with matcher.name={matcher} matcher.{entry.setting}={path}')
    return 0


def read(path: Path, assignments: list[str]):
    """Return the Checkpoint and the TrainingConfig that a file and `--set` describe."""
    from loftr_ros.training.settings import TrainingConfig
    from loftr_ros.weights import Checkpoint

    document = read_yaml(path)
    network = document.get('network') if isinstance(document, dict) else None
    if not isinstance(network, dict) or 'matcher' not in network:
        raise ConfigError(f'{path} needs "network:" with "matcher: efficient_loftr" or "matcher: loftr" inside')
    network = {name: _tuples(value) for name, value in network.items()}
    checkpoint = Checkpoint(
        name=str(document.get('name', path.stem)),
        matcher=network.pop('matcher'),
        network=network,
        licence=str(document.get('licence', 'unknown')),
        note=str(document.get('note', '')),
    )
    about = ('name', 'licence', 'note', 'network', 'versions')
    values = dict(dotted_items({name: value for name, value in document.items() if name not in about}))
    return checkpoint, parse(override(TrainingConfig(), values), assignments)


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
