"""Search of the entry and the file for the setting `matcher.weights`."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from loftr_ros.errors import ConfigError, InputError, did_you_mean
from loftr_ros.weights.checkpoints import CHECKPOINTS, Checkpoint
from loftr_ros.weights.metadata import read_metadata

SHIPPED = Path(__file__).parent / 'data'
"""Weights that come with the package."""

_BLOCK = 1 << 20


def cache_folder() -> Path:
    """Return the folder of downloaded weights: $LOFTR_ROS_CACHE, else loftr_ros in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get('LOFTR_ROS_CACHE')
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'loftr_ros'


def file_of(checkpoint: Checkpoint) -> Path:
    """Return the file of an entry: the shipped one, else the path in the cache, even if it does not exist."""
    shipped = SHIPPED / checkpoint.file
    return shipped if shipped.is_file() else cache_folder() / checkpoint.file


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_hash(path: Path, checkpoint: Checkpoint) -> None:
    """Raise InputError if the entry has a hash and the file has a different one."""
    found = sha256_of(path) if checkpoint.sha256 else ''
    if found != checkpoint.sha256:
        raise InputError(
            f'{path} has sha256 {found}, {checkpoint.name} has {checkpoint.sha256}: it is damaged or another file; '
            f'delete it and get it again, or say that it is your own with {checkpoint.name}={path}'
        )


def find(name_or_path: str, matcher: str, accept_license: bool = False) -> tuple[Checkpoint, Path]:
    """Return the entry and the file of a value of `matcher.weights`.

    `name_or_path` is one of
    * '': the matcher's default, its first entry in the table;
    * a name of the table: its file, shipped or in the cache, which must have the right hash;
    * `name=path`: your own file for the network of that entry, with any hash;
    * a path: a safetensors file written by `save` or `loftr_ros weights convert`, which contains its entry, or a file
      whose hash is in the table.

    Nothing is downloaded: a robot must not depend on a server when it starts.

    Raises:
        ConfigError: unknown name, weights of another matcher, or a licence that was not accepted.
        InputError: the file is missing, has the wrong hash, or its network is unknown.
    """
    checkpoint, path = identify(name_or_path or _default_of(matcher))
    if checkpoint.matcher != matcher:
        fitting = [entry.name for entry in CHECKPOINTS.values() if entry.matcher == matcher]
        raise ConfigError(
            f'weights {name_or_path!r} are for the matcher {checkpoint.matcher}, not for {matcher}; set matcher.name: '
            f'{checkpoint.matcher}, or matcher.weights to {_choice(fitting)}'
        )
    check_license(checkpoint, accept_license)
    return checkpoint, path


def check_license(checkpoint: Checkpoint, accept_license: bool) -> None:
    if checkpoint.non_commercial and not accept_license:
        raise ConfigError(
            f'the licence of {checkpoint.name} forbids commercial use ({checkpoint.licence}; {checkpoint.page}); '
            'if your use is allowed, set matcher.accept_license: true (--accept-license of loftr_ros weights)'
        )


def identify(name_or_path: str) -> tuple[Checkpoint, Path]:
    """Return entry and file as `find`, for any matcher and licence."""
    name, equals, own = name_or_path.partition('=')
    if equals and not Path(name_or_path).expanduser().is_file():
        return entry_named(name), _existing(Path(own).expanduser())
    if name_or_path in CHECKPOINTS:
        checkpoint = CHECKPOINTS[name_or_path]
        path = file_of(checkpoint)
        if not path.is_file():
            raise InputError(f'the weights {checkpoint.name} are not at {path}; {how_to_get(checkpoint, path)}')
        check_hash(path, checkpoint)
        return checkpoint, path
    path = Path(name_or_path).expanduser()
    if not path.is_file() and not _looks_like_path(name_or_path):
        raise _unknown(name_or_path)
    return _entry_of_file(_existing(path)), path


def entry_named(name: str) -> Checkpoint:
    """Return the entry of the table, or raise ConfigError with the nearest name."""
    if name not in CHECKPOINTS:
        raise _unknown(name)
    return CHECKPOINTS[name]


def how_to_get(checkpoint: Checkpoint, path: Path) -> str:
    by_hand = f'{checkpoint.page or checkpoint.url} has the file; save it as {path}'
    if not checkpoint.url:
        return f'no program can download them: {by_hand}'
    flag = ' --accept-license' if checkpoint.non_commercial else ''
    return f'run `loftr_ros weights get {checkpoint.name}{flag}`, or manually: {by_hand}'


def _entry_of_file(path: Path) -> Checkpoint:
    checkpoint = read_metadata(path)
    if checkpoint is not None:
        return checkpoint
    digest = sha256_of(path)
    for entry in CHECKPOINTS.values():
        if entry.sha256 == digest:
            return dataclasses.replace(entry, file=path.name)
    raise InputError(
        f'{path} does not say for which network it is (sha256 {digest} is not in the table); write NAME={path} with '
        f'the NAME of an entry whose network it fits ({", ".join(CHECKPOINTS)}), or convert it once: '
        f'loftr_ros weights convert NAME={path} OUT.safetensors'
    )


def _unknown(name: str) -> ConfigError:
    return ConfigError(f'unknown weights {name!r}; {did_you_mean(name, CHECKPOINTS)}, or a path')


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f'there is no file {path}; matcher.weights takes a name of `loftr_ros weights list` or a path')
    return path


def _default_of(matcher: str) -> str:
    for entry in CHECKPOINTS.values():
        if entry.matcher == matcher:
            return entry.name
    raise ConfigError(f'there are no weights for the matcher {matcher!r} in the table; set matcher.weights to a file')


def _choice(names: list[str]) -> str:
    return ' or '.join(names) if names else 'a file'


def _looks_like_path(text: str) -> bool:
    return os.sep in text or Path(text).suffix in ('.safetensors', '.ckpt', '.pth', '.pt', '.bin')
