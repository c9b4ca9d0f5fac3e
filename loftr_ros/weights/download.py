"""Download weights over HTTP: resumed, verified, and in place only when whole."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from loftr_ros.errors import ConfigError, InputError, LoftrRosError
from loftr_ros.weights.checkpoints import Checkpoint
from loftr_ros.weights.files import looks_like_html, refuse_what_is_no_weights
from loftr_ros.weights.locate import cache_folder, check_hash, how_to_get, sha256_of

_BLOCK = 1 << 16
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""HTTP states that pass."""

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes in all (0 when the server does not say)."""


class DownloadError(LoftrRosError):
    """A file could not be downloaded; the message says how to get it by hand."""


@dataclasses.dataclass(frozen=True)
class _Connection:
    """How to ask: see `download`."""

    progress: Progress | None
    timeout_s: float
    attempts: int
    pause_s: float


def download(
    checkpoint: Checkpoint,
    folder: Path | None = None,
    progress: Progress | None = None,
    timeout_s: float = 30.0,
    attempts: int = 5,
    pause_s: float = 1.0,
) -> Path:
    """Return the file of `checkpoint`, downloaded into `folder` (default: the cache) unless it lies there already.

    What an interrupted call left in `<file>.part` is continued where a hash can prove the result. Of two processes the
    second waits and finds the file. The licence is the caller's business.

    Args:
        timeout_s: longest silence of the server [s].
        attempts: failures in a row, without a byte gained, before giving up.
        pause_s: wait after the first failure [s], doubled after each further one.

    Raises:
        ConfigError: the entry has no address.
        InputError: the file there or the downloaded one is not the right one.
        DownloadError: the server does not give it, or it cannot be written.
    """
    target = (folder or cache_folder()) / checkpoint.file
    try:
        if not target.is_file() and not checkpoint.url:
            raise ConfigError(f'{checkpoint.name}: {how_to_get(checkpoint, target)}')
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(target.parent):
            if target.is_file():
                check_hash(target, checkpoint)
            else:
                _complete(checkpoint, target, _Connection(progress, timeout_s, attempts, pause_s))
        return target
    except OSError as error:
        raise DownloadError(f'cannot write {target}: {error}; make room, or set LOFTR_ROS_CACHE to a folder') from error


@contextlib.contextmanager
def _alone_in(folder: Path):
    """Wait until no other process downloads into `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # A file system without locks (some network ones) leaves it to the user not to download twice at once.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _complete(checkpoint: Checkpoint, target: Path, connection: _Connection) -> None:
    part = target.with_name(target.name + '.part')
    if not checkpoint.sha256:
        part.unlink(missing_ok=True)
    continued = part.exists()
    if not _proven(part, checkpoint):
        _fetch(checkpoint, part, target, connection)
    if continued and not _proven(part, checkpoint):
        # The beginning may be of an older file: once more from the start.
        part.unlink()
        _fetch(checkpoint, part, target, connection)
    _check(checkpoint, part)
    os.replace(part, target)


def _proven(part: Path, checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.sha256) and part.exists() and sha256_of(part) == checkpoint.sha256


def _check(checkpoint: Checkpoint, part: Path) -> None:
    """Raise InputError and remove the file unless it is what the entry says."""
    try:
        refuse_what_is_no_weights(part)
        found = sha256_of(part)
        if checkpoint.sha256 and found != checkpoint.sha256:
            raise InputError(
                f'{checkpoint.url} gave a file of sha256 {found}, {checkpoint.name} has {checkpoint.sha256}: the file '
                f'on the server was changed, or the connection is tampered with; it was deleted. Compare with '
                f'{checkpoint.page or checkpoint.url}'
            )
    except InputError:
        part.unlink(missing_ok=True)
        raise


def _fetch(checkpoint: Checkpoint, part: Path, target: Path, connection: _Connection) -> None:
    """Fill `part` until it is as long as the server says."""
    failures = 0
    while True:
        before = _size(part)
        try:
            reason = _continue(checkpoint.url, part, connection)
        except _RefusedError as error:
            raise DownloadError(f'{checkpoint.url}: {error}; {how_to_get(checkpoint, target)}') from error
        if not reason:
            return
        failures = 1 if _size(part) > before else failures + 1
        if failures >= connection.attempts:
            raise DownloadError(
                f'{checkpoint.url}: {reason}, {failures} times in a row; what came ({_size(part)} bytes) is kept, the '
                f'same command continues. Check the network and the proxy (https_proxy), or: '
                f'{how_to_get(checkpoint, target)}'
            )
        time.sleep(connection.pause_s * 2 ** (failures - 1))


class _RefusedError(Exception):
    """The server's answer will not change by asking again."""


def _continue(url: str, part: Path, connection: _Connection) -> str:
    """Append what is missing to `part` over one connection; return '' when it is whole, else why it is not."""
    offset = _size(part)
    # identity: a Range counts bytes of the file, not of its compressed form.
    headers = {'User-Agent': 'loftr_ros', 'Accept-Encoding': 'identity'}
    if offset:
        headers['Range'] = f'bytes={offset}-'
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=connection.timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            part.unlink(missing_ok=True)
            return 'the server has fewer bytes than were here already'
        if error.code in _TRY_AGAIN:
            return f'the server answers {error.code} {error.reason}'
        raise _RefusedError(f'the server answers {error.code} {error.reason}') from error
    except (OSError, http.client.HTTPException) as error:
        return _reason(error)
    with response:
        if 'html' in response.headers.get('Content-Type', ''):
            raise _RefusedError('the server gives a web page instead of the file')
        if offset and not _continues_at(response, offset):
            offset = 0  # a server that ignores Range sends all of it
        return _receive(response, part, offset, connection.progress)


def _receive(response, part: Path, offset: int, progress: Progress | None) -> str:
    """Write the body into `part` from `offset` on; return '' when all of it came, else why not."""
    length = response.headers.get('Content-Length')
    total = offset + int(length) if length and length.isdigit() else 0
    here = offset
    with open(part, 'ab' if offset else 'wb') as stream:
        while True:
            try:
                block = response.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                return _reason(error)
            if not block:
                break
            if not here and looks_like_html(block):
                raise _RefusedError('the server gives a web page instead of the file')
            stream.write(block)
            here += len(block)
            if progress:
                progress(here, total)
    return f'the connection ended after {here} of {total} bytes' if here < total else ''


def _continues_at(response, offset: int) -> bool:
    return response.status == 206 and response.headers.get('Content-Range', '').startswith(f'bytes {offset}-')


def _reason(error: Exception) -> str:
    reason = getattr(error, 'reason', error)
    if isinstance(reason, TimeoutError):
        return 'the server is silent'
    return f'{type(reason).__name__}: {reason}'


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
