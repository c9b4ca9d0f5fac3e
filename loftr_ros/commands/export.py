"""Write the parts of a network as ONNX files, for ONNX Runtime, OpenVINO, TensorRT or another engine."""

from __future__ import annotations

from pathlib import Path


def add_arguments(parser) -> None:
    parser.add_argument('--matcher', required=True, metavar='NAME', help='loftr or efficient_loftr')
    parser.add_argument(
        '--weights', default='', help='as the setting matcher.weights; empty: the default of the matcher'
    )
    parser.add_argument('--accept-license', action='store_true', help='also when the licence forbids commercial use')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FOLDER', help='folder for the files')


def run(options) -> None:
    from loftr_ros.errors import ConfigError
    from loftr_ros.matchers.detector_free import load_network
    from loftr_ros.matchers.graphs import PARTS, write_onnx

    if options.matcher not in PARTS:
        raise ConfigError(f'--matcher is {options.matcher!r}; networks are {", ".join(PARTS)}')
    network, checkpoint = load_network(options.matcher, options.weights, options.accept_license)
    network = network.fuse() if options.matcher == 'loftr' else network.reparameterize()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, part_class in PARTS[options.matcher].items():
        path = write_onnx(part_class(network), options.output / f'{checkpoint.name}_{name}.onnx')
        print(f'wrote {path}: {part_class.__doc__.splitlines()[0]}')
