"""Options that several commands share."""

from __future__ import annotations

from loftr_ros import parameter_files
from loftr_ros.config import Config
from loftr_ros.settings import parse


def add_config_arguments(parser) -> None:
    parser.add_argument('--config', metavar='FILE', help='ROS parameter file, as `ros2 run ... --params-file` takes it')
    add_set_argument(parser, 'matcher.max_matches=500 (docs/parameters.md lists them)')


def add_set_argument(parser, example: str) -> None:
    parser.add_argument(
        '--set',
        dest='assignments',
        metavar='NAME=VALUE',
        nargs='+',
        action='extend',
        default=[],
        help=f'change settings, for example {example}',
    )


def read_config(options) -> Config:
    """Return the defaults with --config, then --set applied."""
    config = parameter_files.load(options.config) if options.config else Config()
    return parse(config, options.assignments)
