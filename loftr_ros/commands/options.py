"""Options that several commands share."""

from __future__ import annotations

from loftr_ros import config
from loftr_ros.config import Config


def add_config_arguments(parser) -> None:
    parser.add_argument('--config', metavar='FILE', help='ROS parameter file, as `ros2 run ... --params-file` takes it')
    parser.add_argument(
        '--set',
        dest='assignments',
        metavar='NAME=VALUE',
        nargs='+',
        action='extend',
        default=[],
        help='change settings, for example matcher.max_matches=500 (docs/parameters.md lists them)',
    )


def read_config(options) -> Config:
    """Return the defaults with --config, then --set applied."""
    settings = config.load(options.config) if options.config else Config()
    return config.parse(settings, options.assignments)
