"""Weights of the networks: which there are, where they lie, and how they get into a network, exactly or not at all.

A matcher uses it in this order: `find` says which entry and file a setting means, the network is made with the entry's
settings, `load_state` reads the file without running what may be in it, `load_into` fills the network strictly.
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
