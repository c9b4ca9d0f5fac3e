"""Metadata in the header of safetensors files of this package, read without torch."""

from __future__ import annotations

import json
from pathlib import Path

from loftr_ros.errors import InputError
from loftr_ros.weights.checkpoints import Checkpoint

MARK = 'loftr_ros'
"""Key of the metadata that marks a file of this package; its value is the version of the format."""

_LONGEST_HEADER = 100_000_000
"""Limit of the safetensors format [bytes]; a larger value is not a header."""


def write_metadata(checkpoint: Checkpoint, source_sha256: str = '') -> dict[str, str]:
    """Return the metadata of a file with the weights of `checkpoint`; `source_sha256`: of the file it was made from."""
    return {
        MARK: '1',
        'name': checkpoint.name,
        'matcher': checkpoint.matcher,
        'network': json.dumps(dict(checkpoint.network)),
        'licence': checkpoint.licence,
        'non_commercial': json.dumps(checkpoint.non_commercial),
        'page': checkpoint.page,
        'note': checkpoint.note,
        'detector': checkpoint.detector,
        'source_sha256': source_sha256,
    }


def read_metadata(path: Path) -> Checkpoint | None:
    """Return the entry in a safetensors file, None if it is not a file of this package."""
    values = raw_metadata(path)
    if MARK not in values:
        return None
    if values[MARK] != '1':
        raise InputError(
            f'{path} has version {values[MARK]} of the format of loftr_ros, this version reads 1; update loftr_ros'
        )
    try:
        network = {key: _tuples(value) for key, value in json.loads(values['network']).items()}
        return Checkpoint(
            name=values['name'],
            matcher=values['matcher'],
            network=network,
            file=path.name,
            page=values['page'],
            licence=values['licence'],
            non_commercial=json.loads(values['non_commercial']),
            note=values['note'],
            detector=values.get('detector', ''),
        )
    except (KeyError, ValueError, AttributeError) as error:
        raise InputError(f'{path} has incomplete metadata ({error!r}); convert the original again') from error


def raw_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, empty for any other file."""
    with open(path, 'rb') as stream:
        length = int.from_bytes(stream.read(8), 'little')
        if not 2 <= length <= min(_LONGEST_HEADER, path.stat().st_size):
            return {}
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return {}
    values = header.get('__metadata__') if isinstance(header, dict) else None
    return values if isinstance(values, dict) else {}


def _tuples(value):
    """Return lists as tuples, at any depth, as in the table of checkpoints."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
