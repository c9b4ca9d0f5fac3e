"""The command line `loftr_ros`: it selects a command, and reports its errors in one line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib import import_module

from loftr_ros.errors import LoftrRosError

COMMANDS = {
    'match': ('loftr_ros.commands.match', 'match two image files'),
    'play': ('loftr_ros.commands.play', 'publish a folder of images, a data set or a rosbag as a camera driver does'),
    'demo': ('loftr_ros.commands.demo', 'run driver and node over DDS on a sequence and compare with ground truth'),
    'evaluate': ('loftr_ros.commands.evaluate', 'compare matchers with SIFT and ORB on a sequence with true poses'),
    'compare': ('loftr_ros.commands.compare', 'compare odometry runs on the same source'),
    'doctor': ('loftr_ros.commands.doctor', 'list what is installed, what is missing and how to install it'),
    'weights': ('loftr_ros.commands.weights', 'list, download, check and convert the weights of the networks'),
    'export': ('loftr_ros.commands.export', 'write a network as ONNX files for other engines'),
    'train': ('loftr_ros.commands.train', 'train a network on photographs, panoramas and rendered scenes'),
    'parameters': ('loftr_ros.commands.parameters', 'print every setting, as YAML or Markdown'),
}


HINT = '`loftr_ros doctor` lists what is missing and how to install it'


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 success, 1 the command failed, 2 invalid arguments."""
    parser = argparse.ArgumentParser(prog='loftr_ros', description='Learned image matching for ROS 2.')
    parser.add_argument('--verbose', action='store_true', help='show log messages')
    subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    arguments, ros_arguments = split_ros_arguments(sys.argv[1:] if arguments is None else list(arguments))
    chosen = next((argument for argument in arguments if argument in COMMANDS), None)
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary)
        if name == chosen:  # only this one, so that `doctor` runs if a package that other commands import is missing
            try:
                command = import_module(module)
            except ModuleNotFoundError as error:
                print(f'loftr_ros {name}: {error}; {HINT}', file=sys.stderr)
                return 1
            subparser.description = command.__doc__
            command.add_arguments(subparser)
    options = parser.parse_args(arguments)
    if ros_arguments and options.command != 'play':
        parser.error('--ros-args are only for play, which is a ROS node')
    options.ros_arguments = ros_arguments
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format='%(levelname)s %(name)s: %(message)s'
    )
    try:
        status = import_module(COMMANDS[options.command][0]).run(options) or 0
        sys.stdout.flush()  # here, where the error of a full disk is still reported
        return status
    except LoftrRosError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        message = f'{error}; {HINT}'
    except BrokenPipeError:  # of `loftr_ros ... | head`
        _discard_broken_output()
        return 1
    except OSError as error:  # a file or the output that cannot be read or written
        message = f'{error.filename or "a file or the output"}: {error.strerror or error}'
        _discard_broken_output()
    print(f'loftr_ros {options.command}: {message}', file=sys.stderr)
    return 1


def _discard_broken_output() -> None:
    """Discard the buffered text if it cannot be written; otherwise Python would report a second error at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def split_ros_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments of the command, and those from --ros-args to `--` or to the end."""
    if '--ros-args' not in arguments:
        return arguments, []
    start = arguments.index('--ros-args')
    end = arguments.index('--', start) if '--' in arguments[start:] else len(arguments)
    return arguments[:start] + arguments[end + 1 :], arguments[start:end]


if __name__ == '__main__':
    sys.exit(main())
