"""The training loop of every network, for one process or several, on CPU and GPU.

All random choices are functions of (seed, step): the pairs, their order, the sampled points. Therefore a run that
continues from last.pt takes the same steps as without the interruption.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from loftr_ros.errors import ConfigError, TrainingError
from loftr_ros.networks.device import choose_device
from loftr_ros.training.adaptation import label_photographs
from loftr_ros.training.batch import PairBatch, collate
from loftr_ros.training.data import HELD_BACK, PairDataset, photographs_of
from loftr_ros.training.distributed import Processes, join_batch_norms
from loftr_ros.training.loading import Batches, load, worker_death_as_error
from loftr_ros.training.runs import RunFolder
from loftr_ros.training.settings import OptimizerConfig, TrainingConfig
from loftr_ros.training.step import MatchCount, StepOutput
from loftr_ros.training.steps import make_step
from loftr_ros.weights import Checkpoint, find, load_into, load_state
from loftr_ros.weights.convert import build_network

LOG = logging.getLogger(__name__)


def train(
    checkpoint: Checkpoint, config: TrainingConfig, folder: str | Path, dataset=None, validation=None, progress=True
) -> Path | None:
    """Train until `config.steps`, or until SIGTERM or SIGINT; continue from last.pt of the folder.

    Args:
        checkpoint: the network's entry; its `network` are arguments of the constructor.
        folder: of the run, see RunFolder.
        dataset, validation: Pairs by index; None: from `config.data`.

    Returns:
        The exported weights, None when the run was stopped before its end.
    """
    trainer = Trainer(checkpoint, config, Path(folder), dataset, validation, progress)
    try:
        return trainer.run()
    finally:
        trainer.processes.leave()


class Trainer:
    """State of a run: network, optimizer, step, best validation."""

    def __init__(
        self, checkpoint: Checkpoint, config: TrainingConfig, folder: Path, dataset=None, validation=None, progress=True
    ):
        self.config, self.progress = config, progress
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = choose_device(config.device, 'device')
        self.processes = Processes.join(self.device.type)
        if self.device.type == 'cuda' and self.processes.size > 1:
            self.device = torch.device('cuda', self.processes.local_rank)
        if config.batch % self.processes.size:
            raise ConfigError(
                f'batch is {config.batch}, not a multiple of the {self.processes.size} processes; change one of them'
            )
        checkpoint = dataclasses.replace(checkpoint, detector=config.detector)  # SuperGlue's weights need it again
        self.run_folder = RunFolder(folder, checkpoint, writes=self.processes.rank == 0)
        self.step, self.best = 0, -1.0
        torch.manual_seed(config.seed)
        self.network = self._make_network(checkpoint)
        self.optimizer = _optimizer(self.network, config.optimizer)
        self._resume()
        self.module = make_step(self.network, config).to(self.device)
        self.forward = self._wrap()
        count = config.steps * config.batch
        labels = self._label_photographs() if dataset is None else None
        self.dataset = PairDataset(config.data, config.seed, count, labels=labels) if dataset is None else dataset
        if validation is None and dataset is None:
            validation = PairDataset(config.data, config.seed, config.validation_pairs, held_back=True, labels=labels)
        if isinstance(validation, PairDataset) and validation.is_empty:
            LOG.warning(
                'no image is held back for validation (one in %d is, by a hash of its name): training without; the '
                'weights will be those of the last step',
                HELD_BACK,
            )
            validation = None
        self.validation = validation
        self.left_out: set[str] = set()
        self.stopped = False

    def _make_network(self, checkpoint: Checkpoint) -> nn.Module:
        network = build_network(checkpoint)
        if self.config.initial_weights:
            _entry, path = find(self.config.initial_weights, checkpoint.matcher)
            load_into(network, load_state(path), path)
        if self.processes.size > 1:
            join_batch_norms(network)
        return network.to(self.device, memory_format=torch.channels_last)

    def _label_photographs(self) -> Path | None:
        """Return the folder with keypoints of the photographs, made by all processes; None if none is configured."""
        if not self.config.data.labels.detector:
            return None
        folder = self.run_folder.folder / 'labels'
        own = photographs_of(self.config.data)[self.processes.rank :: self.processes.size]
        label_photographs(own, folder, self.config.data.labels, self.device, self.progress)
        self.processes.mean(torch.zeros(1, dtype=torch.float64), self.device)  # wait for the others
        return folder

    def _wrap(self):
        if self.processes.size == 1:
            return self.module
        devices = [self.device.index] if self.device.type == 'cuda' else None
        # Running statistics are already equal in all processes, see JoinedBatchNorm.
        return nn.parallel.DistributedDataParallel(self.module, devices, broadcast_buffers=False)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> Path | None:
        """Take the steps; see `train`."""
        self.run_folder.open(self.config, self.step)
        saved = time.monotonic()
        bar = tqdm(
            total=self.config.steps, initial=self.step, unit='step', smoothing=0.05,
            disable=not self.progress or self.processes.rank != 0,
        )  # fmt: skip
        with worker_death_as_error(), _stop_on_signals(self), bar, contextlib.closing(self._batches()) as batches:
            for batch in batches:
                if self._take_step(batch, bar):
                    break
                if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                    self._validate(bar)
                if time.monotonic() - saved >= 60 * self.config.checkpoint_minutes:
                    self._save()
                    saved = time.monotonic()
        if self.left_out:
            LOG.warning('images that could not be read and were left out: %d', len(self.left_out))
        self._save()
        self.run_folder.close()
        return self._export() if self.step == self.config.steps else None

    def _take_step(self, batch: PairBatch, bar: tqdm) -> bool:
        """Take one step; return True without a step if one of the processes got a stop signal."""
        truth = self.module.truth(batch, self._pair_seeds(len(batch)))
        stop = truth.counts.new_tensor([float(self.stopped)])
        shared = self.processes.mean(torch.cat([truth.counts, stop]), self.device)
        if shared[-1] > 0:
            return True
        rate = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group['lr'] = rate
        self.network.train()
        half = self.device.type == 'cuda' or self.config.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            output = self.forward(batch, truth, shared[:-1])
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm)
        if not norm.isfinite():  # the same in all processes; a step would set every weight to NaN
            raise TrainingError(
                f'the gradient of step {self.step + 1} is {float(norm)}: the training diverged; the files in '
                f'{self.run_folder.folder} are from before; lower optimizer.learning_rate'
            )
        self.optimizer.step()
        self.step += 1
        self._report(output, rate, float(norm), bar)
        return False

    def _report(self, output: StepOutput, rate: float, norm: float, bar: tqdm) -> None:
        # Losses of the processes are sums over a common count: their mean is the loss of the joint batch.
        own = [output.loss.detach(), output.found, output.right, *output.terms.values()]
        values = self.processes.mean(torch.tensor([float(value) for value in own], dtype=torch.float64), self.device)
        loss, found, right, *terms = values.tolist()
        precision = right / found if found else 0.0
        self.run_folder.log(
            self.step, loss=loss, **dict(zip(output.terms, terms, strict=True)), precision=precision,
            learning_rate=rate, gradient_norm=norm,
        )  # fmt: skip
        bar.update()
        bar.set_postfix(loss=f'{loss:.3f}', precision=f'{precision:.2f}', best=f'{max(self.best, 0):.3f}')

    # --- data -------------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[PairBatch]:
        """Yield the part of this process of every batch from the current step on. Close this generator."""
        own = self.config.batch // self.processes.size
        first = self.step * self.config.batch + self.processes.rank * own
        batches = Batches(self.dataset, first, self.config.batch, own, self.config.steps - self.step)
        with contextlib.closing(load(batches, self.config.data.workers, self.device.type == 'cuda')) as loading:
            for loaded in loading:
                self._note_left_out(loaded.left_out)
                yield loaded.batch.to(self.device, non_blocking=True)

    def _note_left_out(self, files: Mapping[str, str]) -> None:
        for file, reason in files.items():
            if not self.left_out:
                LOG.warning('left out, as others that cannot be read will be: %s', reason)
            self.left_out.add(str(file))

    def _indices(self, step: int) -> list[int]:
        own = self.config.batch // self.processes.size
        first = step * self.config.batch + self.processes.rank * own
        return list(range(first, first + own))

    def _pair_seeds(self, count: int) -> list[int]:
        return [self.config.seed * 1_000_003 + index for index in self._indices(self.step)[:count]]

    # --- validation and checkpoints ---------------------------------------------------------------------------------

    def _validate(self, bar: tqdm) -> None:
        """Match the held-back pairs; save the weights if they are the best so far."""
        if self.validation is None:
            return
        self.network.eval()
        rank, size = self.processes.rank, self.processes.size
        loader = DataLoader(
            self.validation, batch_sampler=[[i] for i in range(rank, len(self.validation), size)], collate_fn=collate
        )
        total = MatchCount(0, 0, 0, 0)
        for batch in loader:
            total = total.plus(self.module.count_matches(batch.to(self.device)))
        self._note_left_out(getattr(self.validation, 'left_out', {}))
        mean = self.processes.mean(torch.tensor(total, dtype=torch.float64), self.device)
        total = MatchCount(*(mean * size).round().long().tolist())
        self.run_folder.log_validation(
            self.step, score=total.score, precision_1px=total.precision_1px, precision_3px=total.precision_3px,
            matches_per_pair=total.found / len(self.validation),
        )  # fmt: skip
        if self.progress and rank == 0:
            bar.write(
                f'step {self.step}: score {total.score:.3f}, {total.found / len(self.validation):.0f} matches a pair, '
                f'right within 1 px {total.precision_1px:.2f}, 3 px {total.precision_3px:.2f}'
            )
        if total.score > self.best:
            self.best = total.score
            self.run_folder.save_best(self.network.state_dict())

    def _save(self) -> None:
        state = {
            'step': self.step,
            'best': self.best,
            'network': self.network.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'random': torch.get_rng_state(),
            'network_signature': self.run_folder.network_signature(),
        }
        self.run_folder.save_state(state)

    def _resume(self) -> None:
        state = self.run_folder.load_state(self.device)
        if state is None:
            return
        self.network.load_state_dict(state['network'])
        self.optimizer.load_state_dict(state['optimizer'])
        torch.set_rng_state(state['random'].cpu())
        self.step, self.best = state['step'], state['best']
        LOG.info('going on at step %d of %d', self.step, self.config.steps)

    def _export(self) -> Path:
        """Write the weights of the best validation, or without validation those of the last step."""
        best = self.run_folder.best
        # Only rank 0 reads: it wrote them.
        weights = load_state(best) if self.run_folder.writes and best.exists() else self.network.state_dict()
        return self.run_folder.export(weights)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the rate of `step` (from 0): linear up to the largest, then half a cosine down to `final_rate`."""
    settings = config.optimizer
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(config.steps - settings.warmup_steps, 1)
    fall = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return settings.learning_rate * (settings.final_rate + (1 - settings.final_rate) * fall)


def _optimizer(network: nn.Module, settings: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW; weight decay only for matrices and kernels, not for scales and biases."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {'params': [p for p in parameters if p.dim() > 1], 'weight_decay': settings.weight_decay},
        {'params': [p for p in parameters if p.dim() <= 1], 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


@contextlib.contextmanager
def _stop_on_signals(trainer: Trainer):
    """Let SIGTERM and SIGINT end the loop after the current step."""

    def stop(_number, _frame):
        trainer.stopped = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
