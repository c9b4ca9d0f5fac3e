"""Weights of the networks: the table of known weights, their files, and strict loading into a network.

A matcher loads weights in these steps: `find` returns the entry and the file of a setting; the network is made with the
settings of the entry; `load_state` reads the file without running code in it; `load_into` fills the network.
"""

from loftr_ros.weights.checkpoints import CHECKPOINTS, Checkpoint
from loftr_ros.weights.download import DownloadError, download
from loftr_ros.weights.files import load_into, load_state, refuse_what_is_not_finite, save
from loftr_ros.weights.locate import cache_folder, file_of, find

__all__ = [
    'CHECKPOINTS',
    'Checkpoint',
    'DownloadError',
    'cache_folder',
    'download',
    'file_of',
    'find',
    'load_into',
    'load_state',
    'refuse_what_is_not_finite',
    'save',
]
