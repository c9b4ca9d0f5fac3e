"""Runs a node as a process until SIGINT or SIGTERM, and ends it within 4 s of the signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import rclpy
import rclpy.logging
from rcl_interfaces.msg import Log
from rclpy.duration import Duration
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_rosout_default
from rclpy.signals import SignalHandlerOptions

from loftr_ros.errors import LoftrRosError
from loftr_ros.ros.signals import SIGNALS, end_on_signal

THREADS = 3
"""One for each callback group of a node: reception, services and the clock."""

LONGEST_END_S = 4.0
"""Time after the signal in which a pair or a new matcher can be finished: launch kills a process after 5 s."""

ROSOUT_WAIT_S = 5.0
"""Longest time that a node that cannot start waits for a subscriber of /rosout, and then for its acknowledgement.

Longer than 3 s, the period after which Fast DDS repeats an announcement that another process has missed.
"""


def run(create_node: Callable[[], Node], name: str, arguments: list[str] | None = None) -> int:
    """Run the node that `create_node` returns until a signal; return 1 if it cannot start. Later signals do nothing.

    Args:
        name: of the executable, for its messages.
        arguments: of the command line; default: those of this process.
    """
    end_on_signal()
    try:
        # Without rclpy's handlers, because they destroy the context at once, while a pair is still in work.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = create_node()
    except LoftrRosError:
        rclpy.try_shutdown()
        return 1  # the node has logged the reason
    except Exception as error:
        # rclpy has no public class for arguments and parameter files that it cannot read.
        print(f'{name} cannot start: {" ".join(str(error).split())}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    stopped = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: stopped.set())
    executor = _Executor(num_threads=THREADS)
    executor.add_node(node)
    while not stopped.is_set() and rclpy.ok():
        executor.spin_once(timeout_sec=0.2)
    for number in SIGNALS:
        # At exit, Python replaces handlers that are functions by the default action: a late signal would kill it.
        signal.signal(number, signal.SIG_IGN)
    give_up = threading.Timer(LONGEST_END_S, os._exit, (0,))
    give_up.daemon = True
    give_up.start()
    node.finish()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    give_up.cancel()
    return 0


def tell_failure(node: Node, text: str) -> None:
    """Log why the node ends, and publish it on /rosout so that a subscriber has it before the process ends.

    The publisher of the node's logger cannot tell whether its messages have arrived, therefore this uses another one.
    """
    publisher = node.create_publisher(Log, '/rosout', qos_profile_rosout_default)
    rclpy.logging.get_logger(f'{node.get_logger().name}.start').fatal(text)  # a logger without a /rosout publisher
    deadline_s = time.monotonic() + ROSOUT_WAIT_S
    while not publisher.get_subscription_count() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    stamp = node.get_clock().now().to_msg()
    publisher.publish(Log(stamp=stamp, level=Log.FATAL, name=node.get_logger().name, msg=text))
    publisher.wait_for_all_acked(Duration(seconds=ROSOUT_WAIT_S))
    time.sleep(0.1)  # best-effort subscribers do not acknowledge


class _Executor(MultiThreadedExecutor):
    def shutdown(self, *arguments, **keywords) -> bool:
        """Finish the running callbacks first: rclpy's shutdown immediately destroys objects that they still use."""
        self._executor.shutdown(wait=True)
        return super().shutdown(*arguments, **keywords)
