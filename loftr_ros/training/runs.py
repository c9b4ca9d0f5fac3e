"""The folder of a training run: settings, log, state for resuming, weights."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from loftr_ros.errors import ConfigError, InputError
from loftr_ros.output_files import writing
from loftr_ros.training.settings import TrainingConfig
from loftr_ros.weights import Checkpoint, refuse_what_is_not_finite, save

LOG = logging.getLogger(__name__)
STATE = ('step', 'best', 'network', 'optimizer', 'random', 'network_signature')
"""Content of last.pt."""


class RunFolder:
    """Files of one run.

    run.yaml: network, settings and versions. log.csv: a row for every step. validation.csv.
    last.pt: the state for resuming. best.safetensors: the weights of the best validation.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, writes: bool):
        self.folder, self.checkpoint, self.writes = folder, checkpoint, writes
        self.board = None

    @property
    def last(self) -> Path:
        return self.folder / 'last.pt'

    @property
    def best(self) -> Path:
        return self.folder / 'best.safetensors'

    @property
    def exported(self) -> Path:
        return self.folder / f'{self.checkpoint.name}.safetensors'

    def open(self, config: TrainingConfig, step: int) -> None:
        """Write the settings, and remove the rows of the log from `step` on, which will be written again."""
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {
            'name': self.checkpoint.name,
            'network': self.network_signature(),
            **dataclasses.asdict(config),
            'versions': versions(),
        }
        with writing(self.folder / 'run.yaml') as file:
            file.write_text(yaml.safe_dump(document, sort_keys=False))
        for name in ('log.csv', 'validation.csv'):
            _keep_rows_up_to(self.folder / name, step)
        self.board = _tensorboard(self.folder)

    def log(self, step: int, **values: float) -> None:
        """Append a row to log.csv and TensorBoard."""
        self._append('log.csv', ('step', *values), {'step': step, **values})

    def log_validation(self, step: int, **values: float) -> None:
        self._append('validation.csv', ('step', *values), {'step': step, **values})

    def _append(self, file: str, fields, row: Mapping[str, float]) -> None:
        if not self.writes:
            return
        path = self.folder / file
        new = not path.exists()
        with open(path, 'a', newline='') as stream:
            writer = csv.DictWriter(stream, fields)
            if new:
                writer.writeheader()
            writer.writerow({name: f'{value:.6g}' if name != 'step' else value for name, value in row.items()})
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(f'{Path(file).stem}/{name}', value, row['step'])

    def save_state(self, state: dict[str, Any]) -> None:
        """Write last.pt completely, or keep the old one."""
        if self.writes:
            # In memory first, because the error of torch.save on a full disk does not say why.
            data = io.BytesIO()
            torch.save(state, data)
            with writing(self.last) as file:
                file.write_bytes(data.getbuffer())

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        """Return what `save_state` wrote, None for a new run.

        Raises:
            ConfigError: the folder contains a run of another network.
            InputError: the file is not the state of a run, or its weights are not all finite.
        """
        if not self.last.exists():
            return None
        try:
            state = torch.load(self.last, map_location=device, weights_only=True)
        except Exception as error:  # torch raises any exception of pickle and zip
            raise InputError(f'{self.last} cannot be read ({error}); remove it to start again') from error
        missing = [name for name in STATE if name not in state] if isinstance(state, dict) else STATE
        if missing:
            raise InputError(
                f'{self.last} has no {", ".join(missing)}: it is not the state of a run; remove it to start again'
            )
        refuse_what_is_not_finite(state['network'], self.last)
        ours = self.network_signature()
        if state['network_signature'] != ours:
            raise ConfigError(
                f'{self.folder} contains a run of {state["network_signature"]}, this is {ours}; choose another --output'
            )
        return state

    def network_signature(self) -> dict[str, Any]:
        """Return the network's name and settings, which a resumed run must share."""
        return {'matcher': self.checkpoint.matcher, **_plain(self.checkpoint.network)}

    def save_best(self, weights: Mapping[str, torch.Tensor]) -> None:
        if self.writes:
            save(self.best, weights, self.checkpoint)

    def export(self, weights: Mapping[str, torch.Tensor]) -> Path:
        """Write the weights for use under the name of the run."""
        if self.writes:
            save(self.exported, weights, self.checkpoint)
        return self.exported

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def versions() -> dict[str, str]:
    """Return the versions of the package, the source (git) and torch."""
    root = Path(__file__).resolve().parents[2]
    return {'git': _git(root), 'torch': str(torch.__version__)}


def _git(root: Path) -> str:
    """Return the commit of a checkout, with '-dirty' if files differ from it; '' without a checkout."""
    command = ['git', '-C', str(root), 'describe', '--always', '--abbrev=40', '--dirty', '--exclude=*']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        LOG.info('no TensorBoard: pip install tensorboard; log.csv has the same figures')
        return None
    return SummaryWriter(str(folder / 'tensorboard'))


def _keep_rows_up_to(path: Path, step: int) -> None:
    if not path.exists():
        return
    header, *rows = path.read_text().splitlines(keepends=True)
    path.write_text(header + ''.join(row for row in rows if int(row.split(',')[0]) <= step))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with lists instead of tuples, for YAML and a safe torch.load."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
