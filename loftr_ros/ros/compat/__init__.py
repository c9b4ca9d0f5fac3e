"""Choice between installed message_filters and cv_bridge and their stand-ins.

A package is used if it can be imported and, for cv_bridge, if it converts a pixel correctly: one that was built for
NumPy 1 can be imported with NumPy 2 but then fails or crashes, and other packages have the same name. `describe`
returns which one was chosen and why. `make_synchronizer` creates a synchronizer that works the same with either.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np

from loftr_ros.ros.compat import bridge, filters, probe
from loftr_ros.ros.compat.guard import GuardedSynchronizer

__all__ = [
    'CvBridge',
    'GuardedSynchronizer',
    'Subscriber',
    'choose_bridge',
    'choose_filters',
    'describe',
    'make_synchronizer',
]

_FILTER_NAMES = ('Subscriber', 'TimeSynchronizer', 'ApproximateTimeSynchronizer')


def choose_bridge() -> tuple[ModuleType, str]:
    """Return the module that provides CvBridge, and the reason."""
    if importlib.util.find_spec('cv_bridge') is None:
        return bridge, 'cv_bridge: own stand-in, cv_bridge is not installed'
    try:
        if int(np.__version__.split('.')[0]) >= 2:
            probe.try_in_child()
        module = probe.load_cv_bridge()
    except Exception as error:  # a broken installation may raise anything
        return bridge, f'cv_bridge: own stand-in, the installed one does not work: {_brief(error)}'
    return module, f'cv_bridge: installed one, {module.__file__}'


def choose_filters() -> tuple[ModuleType, str]:
    """Return the module that provides the filters, and the reason."""
    if importlib.util.find_spec('message_filters') is None:
        return filters, 'message_filters: own stand-in, message_filters is not installed'
    try:
        module = importlib.import_module('message_filters')
        missing = [name for name in _FILTER_NAMES if not hasattr(module, name)]
        if missing:
            raise ImportError(f'{module.__file__} has no {", ".join(missing)}')
    except Exception as error:  # as above; the module of ROS 1, if it is on the path, fails during its import
        return filters, f'message_filters: own stand-in, the installed one does not work: {_brief(error)}'
    return module, f'message_filters: installed one, {module.__file__}'


def _brief(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.splitlines()[0]


_bridge, _bridge_reason = choose_bridge()
_filters, _filters_reason = choose_filters()
CvBridge = _bridge.CvBridge
Subscriber = _filters.Subscriber


def describe() -> list[str]:
    """Return which message_filters and cv_bridge were chosen and why, one line each."""
    return [_filters_reason, _bridge_reason]


def make_synchronizer(
    inputs: Sequence,
    queue_size: int,
    callback: Callable,
    *,
    slop: float | None = None,
    on_error: Callable | None = None,
    module: ModuleType = _filters,
) -> GuardedSynchronizer:
    """Call `callback(message of each input)` for sets whose stamps are equal, or differ by at most `slop` [s].

    Args:
        inputs: Subscribers or other filters.
        queue_size: messages of each input that wait for their partners.
        slop: None and 0 pair equal stamps only.
        on_error: takes an exception of the callback; default: it is logged.
        module: provides the synchronizers; tests select one.
    """

    def create(sources):
        if slop is None:
            return module.TimeSynchronizer(sources, queue_size)
        # Upstream accepts differences below slop; stamps are whole nanoseconds, and Duration truncates the half one.
        inclusive = slop if module is filters else slop + 1.5e-9
        return module.ApproximateTimeSynchronizer(sources, queue_size, inclusive)

    return GuardedSynchronizer(inputs, create, callback, on_error)
