"""Print every setting with its default, meaning and range."""

from __future__ import annotations

from loftr_ros.config import Config
from loftr_ros.parameter_files import to_markdown, to_yaml


def add_arguments(parser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--yaml', action='store_true', help='a ROS parameter file (the default)')
    form.add_argument('--markdown', action='store_true', help='a table')


def run(options) -> None:
    print(to_markdown(Config()) if options.markdown else to_yaml(Config()), end='')
