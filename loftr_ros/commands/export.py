"""Write the parts of a network as ONNX files, for ONNX Runtime, OpenVINO, TensorRT or another engine."""

from __future__ import annotations

from pathlib import Path

from loftr_ros.networks import NETWORKS


def add_arguments(parser) -> None:
    parser.add_argument('--matcher', required=True, metavar='NAME', help=', '.join(NETWORKS))
    parser.add_argument(
        '--weights', default='', help='as the setting matcher.weights; empty: the default of the matcher'
    )
    parser.add_argument('--accept-license', action='store_true', help='also when the licence forbids commercial use')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FOLDER', help='folder for the files')


def run(options) -> None:
    from loftr_ros.errors import ConfigError
    from loftr_ros.matchers.onnx_files import write_onnx
    from loftr_ros.networks import part_classes
    from loftr_ros.weights.convert import load_network

    if options.matcher not in NETWORKS:
        raise ConfigError(f'--matcher is {options.matcher!r}; networks are {", ".join(NETWORKS)}')
    network, checkpoint = load_network(options.matcher, options.weights, options.accept_license)
    network = network.prepare_for_inference(plain=True)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, part_class in part_classes(options.matcher).items():
        path = write_onnx(part_class(network), options.output / f'{checkpoint.name}_{name}.onnx')
        print(f'wrote {path}: {part_class.__doc__.splitlines()[0]}')
