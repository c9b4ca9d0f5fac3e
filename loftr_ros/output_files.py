"""Write files: whole or not at all, and a file that was not written is an error."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from loftr_ros.errors import OutputError


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Give the block an empty file to write; it becomes `path` when the block ends without an exception.

    It has the suffix of `path`. Folders above `path` are made. A device or pipe, as /dev/stdout, is given as it is.

    Raises:
        OutputError: for every OSError of the block, too.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
            return
        target = Path(os.path.realpath(path))  # a link stays
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f'.{target.stem}.', suffix=target.suffix)
        os.close(handle)
        try:
            yield Path(name)
            # mkstemp made it private; it is to be read like any file that the user writes.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(name, 0o666 & ~mask)
            os.replace(name, target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f'cannot write {path}: {reason}; make room or choose another place') from error


def write_link(path: Path, target: str) -> None:
    """Make `path` a link to `target`, which is relative to the folder of `path`; a link that is there is replaced.

    Raises:
        OutputError: `path` is something else, or the file system has no links.
    """
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        unfinished.symlink_to(target)
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise OutputError(f'cannot make {path} a link: {reason}; remove it or choose another folder') from error


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 (H, W) or (H, W, 3), blue first, in the format of the suffix.

    Raises:
        OutputError: the file cannot be written, or OpenCV does not know the format.
    """
    import cv2

    path = Path(path)
    try:
        done, data = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise OutputError(f'cannot write {path}: {error.err}; let its name end in .png or .jpg') from error
    if not done:
        raise OutputError(f'cannot write {path}: OpenCV cannot encode {image.dtype} {image.shape} as {path.suffix}')
    with writing(path) as file:
        file.write_bytes(data.tobytes())
