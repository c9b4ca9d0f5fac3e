"""Selection of the device on which torch computes."""

from __future__ import annotations

import torch

from loftr_ros.errors import ConfigError


def choose_device(name: str, setting: str = 'matcher.device') -> torch.device:
    """Return the device that `setting` names: auto (a GPU where there is one), cpu, cuda or cuda:N.

    Raises:
        ConfigError: the name is of another form, or there is no such GPU.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    kind, _, number = name.partition(':')
    if kind not in ('cpu', 'cuda') or (':' in name and not (kind == 'cuda' and number.isdigit())):
        raise ConfigError(f'{setting} must be auto, cpu, cuda or cuda:N, got {name!r}')
    if kind == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            raise ConfigError(
                f'{setting} is {name!r} but torch {torch.__version__} sees {count} CUDA devices; '
                'use auto or cpu, or install a CUDA build of torch and the driver'
            )
    return torch.device(name)
