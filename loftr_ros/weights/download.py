"""Download weights over HTTP: pooch checks the hash and moves the complete file; this adds resuming."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from loftr_ros.errors import ConfigError, InputError, LoftrRosError, MissingDependencyError
from loftr_ros.weights.checkpoints import Checkpoint
from loftr_ros.weights.files import looks_like_html, refuse_what_is_no_weights
from loftr_ros.weights.locate import cache_folder, check_hash, how_to_get, sha256_of

_BLOCK = 1 << 16
_TEMPORARY = (408, 416, 425, 429, 500, 502, 503, 504)
"""HTTP status codes after which another try may succeed; after 416 (no such range) the download starts again."""

Progress = Callable[[int, int], None]
"""Called with the received and the total number of bytes (0 if the server does not give it)."""


class DownloadError(LoftrRosError):
    """A file could not be downloaded; the message says how to get it manually."""


def download(
    checkpoint: Checkpoint,
    folder: Path | None = None,
    progress: Progress | None = None,
    timeout_s: float = 30.0,
    attempts: int = 5,
    pause_s: float = 1.0,
) -> Path:
    """Return the file of `checkpoint`, downloaded into `folder` (default: the cache) unless it exists.

    An interrupted download is continued from `<file>.part` if a hash can prove the result. If two processes download
    the same file, the second waits and finds it. The caller checks the licence.

    Args:
        timeout_s: longest silence of the server [s].
        attempts: number of consecutive failures without a received byte before giving up.
        pause_s: wait after the first failure [s], doubled after each further one.

    Raises:
        ConfigError: the entry has no address.
        InputError: the existing or the downloaded file has the wrong hash.
        DownloadError: the server does not send it, or it cannot be written.
        MissingDependencyError: pooch is not installed.
    """
    target = (folder or cache_folder()) / checkpoint.file
    if target.is_file():
        check_hash(target, checkpoint)
        return target
    by_hand = how_to_get(checkpoint, target)
    if not checkpoint.url:
        raise ConfigError(f'{checkpoint.name}: {by_hand}')
    part = target.with_name(target.name + '.part')
    downloader = _ResumingDownloader(part, checkpoint.sha256, by_hand, progress, timeout_s, attempts, pause_s)
    try:
        import pooch
    except ImportError as error:
        raise MissingDependencyError(f'a download needs the package pooch: pip install pooch; or {by_hand}') from error
    pooch.get_logger().setLevel('WARNING')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_process_in(target.parent):
            pooch.retrieve(checkpoint.url, checkpoint.sha256 or None, target.name, target.parent, downloader=downloader)
        return target
    except LoftrRosError:
        raise
    except ValueError as error:
        raise InputError(
            f'{checkpoint.url} gave a file of sha256 other than in the table ({error}): the file on the server was '
            f'changed, or the connection is tampered with. Compare with {checkpoint.page or checkpoint.url}'
        ) from error
    except OSError as error:
        raise DownloadError(f'cannot write {target}: {error}; make room, or set LOFTR_ROS_CACHE to a folder') from error


@contextlib.contextmanager
def _only_process_in(folder: Path):
    """Wait until no other process downloads into `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no locks; there two downloads at the same time are not prevented.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _RefusedError(Exception):
    """A failure after which another try gives the same result."""


@dataclasses.dataclass
class _ResumingDownloader:
    """A downloader for pooch that continues where the last one ended; see `download` for its fields."""

    part: Path
    sha256: str
    by_hand: str
    progress: Progress | None
    timeout_s: float
    attempts: int
    pause_s: float

    def __call__(self, url: str, output_file: str, _pooch) -> None:
        if not self.sha256:
            self.part.unlink(missing_ok=True)
        continued = self.part.exists()
        if not self._is_proven():
            self._fill(url)
        if continued and not self._is_proven():
            self.part.unlink()  # its beginning may be from an older file: start again
            self._fill(url)
        try:
            refuse_what_is_no_weights(self.part)
        except InputError:
            self.part.unlink()
            raise
        os.replace(self.part, output_file)

    def _is_proven(self) -> bool:
        return bool(self.sha256) and self.part.exists() and sha256_of(self.part) == self.sha256

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _fill(self, url: str) -> None:
        """Append to the partial file until it has the length that the server gives, or raise DownloadError."""
        failures = 0
        while True:
            before = self._size()
            try:
                reason = self._append(url)
            except _RefusedError as error:
                raise DownloadError(f'{url}: {error}; {self.by_hand}') from error
            if not reason:
                return
            failures = 1 if self._size() > before else failures + 1
            if failures >= self.attempts:
                raise DownloadError(
                    f'{url}: {reason}, {failures} times in a row; the {self._size()} bytes received are kept, the same '
                    f'command continues. Check the network and the proxy (https_proxy), or: {self.by_hand}'
                )
            time.sleep(self.pause_s * 2 ** (failures - 1))

    def _append(self, url: str) -> str:
        """Append the missing bytes over one connection; return '' if the file is complete, else the reason."""
        import requests  # which pooch requires

        offset = self._size()
        # identity: a Range counts bytes of the file, not of its compressed form.
        headers = {'User-Agent': 'loftr_ros', 'Accept-Encoding': 'identity'}
        if offset:
            headers['Range'] = f'bytes={offset}-'
        try:
            with requests.get(url, headers=headers, timeout=self.timeout_s, stream=True) as response:
                return self._receive(response, offset)
        except requests.RequestException as error:
            cause: BaseException = error
            while cause.__context__ is not None:  # requests wraps it several times
                cause = cause.__context__
            timed_out = isinstance(cause, TimeoutError)
            return 'the server does not respond' if timed_out else f'{type(cause).__name__}: {cause}'

    def _receive(self, response, offset: int) -> str:
        """Write the body of a response to the partial file at `offset`; return '' if complete, else the reason."""
        if not response.ok:
            if response.status_code == 416:
                self.part.unlink(missing_ok=True)  # the partial file is longer than the server's file
            answer = f'the server answers {response.status_code} {response.reason}'
            if response.status_code not in _TEMPORARY:
                raise _RefusedError(answer)
            return answer
        if 'html' in response.headers.get('Content-Type', ''):
            raise _RefusedError('the server gives a web page instead of the file')
        if not response.headers.get('Content-Range', '').startswith(f'bytes {offset}-'):
            offset = 0  # a server that ignores Range sends all of it
        length = response.headers.get('Content-Length', '')
        total = offset + int(length) if length.isdigit() else 0
        with open(self.part, 'ab' if offset else 'wb') as stream:
            response.raw.enforce_content_length = False  # the length is compared below
            for block in response.iter_content(_BLOCK):
                if not stream.tell() and looks_like_html(block):
                    raise _RefusedError('the server gives a web page instead of the file')
                stream.write(block)
                if self.progress:
                    self.progress(stream.tell(), total)
            here = stream.tell()
        return f'the connection ended after {here} of {total} bytes' if here < total else ''
