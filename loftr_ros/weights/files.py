"""Reading weights without running code in their files, strict loading into a network, writing safetensors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loftr_ros.errors import InputError, MissingDependencyError
from loftr_ros.output_files import writing
from loftr_ros.weights.checkpoints import Checkpoint
from loftr_ros.weights.layouts import matcher_of, to_official
from loftr_ros.weights.metadata import write_metadata

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIXES = ('matcher.', 'module.', '_orig_mod.')
"""Prefixes of names by PyTorch Lightning (the authors' class), DataParallel and torch.compile."""

BOOKKEEPING = ('pytorch_lightning.', 'lightning.', 'yacs.config.', 'numpy.')
"""Modules whose objects are stored with the weights in training checkpoints. They are not imported but replaced by
empty classes that do nothing. Every other global raises an error, so that code in a file is detected."""

_MOST_STAND_INS = 20


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU, in the authors' layout.

    Reads safetensors files, and PyTorch files only with `weights_only=True`. The state_dict of a training checkpoint is
    extracted, prefixes of all names are removed, names of the package transformers are converted.

    Raises:
        InputError: the file is missing, empty, truncated, does not contain weights, or contains code, NaN or infinity.
    """
    path = Path(path)
    head = refuse_what_is_no_weights(path)
    state = _read_torch(path) if head[:2] in (b'PK', b'\x80\x02') else _read_safetensors(path)
    state = to_official(_strip(_unwrap(path, state)))
    refuse_what_is_not_finite(state, path)
    return state


def refuse_what_is_not_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise InputError with the first tensor and the number of tensors if `state` contains NaN or infinity."""
    # As float32, as in the networks: some types do not support `isfinite`, and a float64 may overflow.
    bad = [name for name, tensor in state.items() if not tensor.float().isfinite().all()]
    if bad:
        raise InputError(
            f'{source} contains NaN or infinity in {len(bad)} of {len(state)} tensors, first {bad[0]}; the training '
            'diverged: use weights from before that, or train again with a lower learning rate'
        )


def refuse_what_is_no_weights(path: Path) -> bytes:
    """Return the first bytes of a file, or raise InputError if they are those of another kind of file."""
    if not path.is_file():
        raise InputError(f'there is no file {path}')
    with open(path, 'rb') as stream:
        head = stream.read(512)
    if not head:
        raise InputError(f'{path} is empty: a download was interrupted; delete the file and download it again')
    if looks_like_html(head):
        raise InputError(
            f'{path} is a web page, not weights: a login, a virus warning or a viewer was saved instead; open the page '
            'in a browser, use its download button, or run `loftr_ros weights get`'
        )
    if head.startswith(b'version https://git-lfs'):
        raise InputError(f'{path} is a Git LFS pointer, not weights; run `git lfs pull` in its checkout')
    return head


def looks_like_html(head: bytes) -> bool:
    return head.lstrip(b'\xef\xbb\xbf \t\r\n').lower().startswith((b'<!doctype', b'<html', b'<head', b'<?xml'))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    safetensors = _safetensors()
    try:
        return safetensors.torch.load_file(path, device='cpu')
    except safetensors.SafetensorError as error:
        raise InputError(
            f'{path} is neither a PyTorch file nor a whole safetensors file ({error}); get or convert it again'
        ) from error


def _safetensors():
    """Return the package safetensors with its part for torch."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingDependencyError(
            'weights are read and written by the package safetensors: pip install -r requirements.txt'
        ) from error
    return safetensors


def _read_torch(path: Path) -> Any:
    """Return the result of `torch.load` with `weights_only=True`; objects of trainers are empty."""
    import torch

    stand_ins: dict[str, type] = {}
    while True:
        try:
            with _allow(stand_ins.values()):
                return torch.load(path, map_location='cpu', weights_only=True)
        except Exception as error:
            # A damaged pickle raises any exception, and the error for a refused global changed between PyTorch 2.1 and
            # 2.13; all versions of its text contain the name.
            found = re.search(r'(?:GLOBAL|class|function) ([A-Za-z_][\w.]*\.\w+)', str(error))
            if found is None:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise InputError(
                    f'{path} is damaged, truncated or no PyTorch weights ({reason[:200]}); get it again, and compare '
                    'its sha256 with `loftr_ros weights check`'
                ) from error
            name = found[1]
            can_stand_in = hasattr(torch.serialization, 'safe_globals') and name.startswith(BOOKKEEPING)
            if not can_stand_in or name in stand_ins or len(stand_ins) == _MOST_STAND_INS:
                raise InputError(
                    f'{path} contains more than numbers: loading it would run {name}; refused, because this code '
                    'could do anything. If you trust its source, write its state_dict with the program that made it: '
                    "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW)"
                    + ('' if hasattr(torch.serialization, 'safe_globals') else ' (or use PyTorch 2.5 or later)')
                ) from error
            stand_ins[name] = _stand_in(name)


def _allow(classes):
    import torch

    classes = list(classes)
    return torch.serialization.safe_globals(classes) if classes else contextlib.nullcontext()


def _stand_in(name: str) -> type:
    """Return an empty class that pickle uses in place of the class `name`."""
    module, _, own_name = name.rpartition('.')
    ignore = {'__module__': module, '__qualname__': own_name, '__setstate__': lambda self, state: None}
    return type(own_name, (dict,), ignore | {'__init__': lambda self, *args, **kwargs: None})


def _unwrap(path: Path, state: Any) -> dict[str, Tensor]:
    import torch

    while isinstance(state, Mapping) and isinstance(state.get('state_dict'), Mapping):
        state = state['state_dict']
    if not isinstance(state, Mapping) or not state:
        raise InputError(f'{path} contains {_describe(state)}, needed are named tensors or a dict with a state_dict')
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
            raise InputError(
                f'{path} contains {_describe(value)} at {name!r}, needed are tensors only; save model.state_dict()'
            )
    return dict(state)


def _describe(value: Any) -> str:
    return f'an empty {type(value).__name__}' if value == {} else f'a {type(value).__name__}'


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that every name has."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in state):
                state = {name[len(prefix) :]: tensor for name, tensor in state.items()}
                stripped = True
    return state


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: str | Path = 'the weights') -> None:
    """Fill `network` with `state`; all tensors and counters must agree in name and shape.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape. The message has the first one, the number and
            the likely cause. The network is unchanged.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    misshaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or unexpected or misshaped:
        problems = []
        if missing:
            problems.append(f'{len(missing)} missing, first {missing[0]}')
        if unexpected:
            problems.append(f'{len(unexpected)} unexpected, first {unexpected[0]}')
        if misshaped:
            name = misshaped[0]
            shapes = f'{tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the network'
            problems.append(f'{len(misshaped)} of another shape, first {name}: {shapes}')
        raise InputError(
            f'{source} does not fit the network of {len(own)} tensors: {"; ".join(problems)}; '
            f'{_likely_cause(own, state, missing, unexpected)}'
        )
    network.load_state_dict(dict(state), strict=True)


def _likely_cause(own, state, missing: list[str], unexpected: list[str]) -> str:
    theirs, ours = matcher_of(state), matcher_of(own)
    if theirs and ours and theirs != ours:
        return f'these are weights of {theirs}, the network is {ours}: set matcher.name or matcher.weights'
    if any('rbr_reparam' in name for name in missing):
        return 'the network was fused for inference already: load the weights before `prepare_for_inference`'
    if any('rbr_reparam' in name for name in unexpected):
        return 'the weights were fused for inference: take the file from before that'
    if any(name.endswith('bin_score') for name in missing + unexpected):
        return 'only weights of optimal transport have a dustbin score: choose the entry of the right kind (_ot or _ds)'
    if len(missing) == len(own):
        return 'not one name is known: the file is of another network'
    return 'the network was made with other settings (widths, depth): choose the entry that the weights belong to'


def save(path: str | Path, state: Mapping[str, Tensor], checkpoint: Checkpoint, source_sha256: str = '') -> None:
    """Write `state` as a complete safetensors file with the metadata that `find` needs, or no file.

    Args:
        path: ends in .safetensors.
        checkpoint: entry with the settings of the network that the state belongs to.
        source_sha256: of the file that the weights came from.

    Raises:
        InputError: the name has another ending, or the weights are not all finite.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    refuse_what_is_not_finite(state, f'what is to be {path}')
    if path.suffix != '.safetensors':
        raise InputError(f'weights are written as safetensors, got {path}; let its name end in .safetensors')
    # A copy of each tensor, because safetensors refuses tensors that share memory.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    data = _safetensors().torch.save(tensors, metadata=write_metadata(checkpoint, source_sha256))
    with writing(path) as file:
        file.write_bytes(data)
