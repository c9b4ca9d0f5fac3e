"""Tables and files of results, with the date, hardware and versions of a run."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import numpy as np

from loftr_ros.evaluation.results import commit, processor

RESULTS = Path(__file__).parent / 'results'


def circumstances() -> str:
    """Return date, hardware, versions and commit as lines of Markdown."""
    import cv2
    import torch

    return '\n'.join(
        (
            f'* date: {datetime.date.today()}',
            f'* commit: {commit()}',
            f'* machine: {processor()}, {os.cpu_count()} cores, torch with {torch.get_num_threads()} threads',
            f'* versions: Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}, '
            f'OpenCV {cv2.__version__}',
        )
    )


def table(header: list[str], rows: list[list]) -> str:
    """Return a Markdown table; floats with three significant digits."""
    cells = [[f'{cell:.3g}' if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    lines = ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header)]
    return '\n'.join(lines + ['| ' + ' | '.join(row) + ' |' for row in cells])


def write(name: str, text: str) -> Path:
    """Write benchmarks/results/NAME and print it."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(text)
    print(text)
    return RESULTS / name


def write_between(path: Path, name: str, text: str) -> None:
    """Replace the text in a Markdown file between `<!-- NAME begin -->` and `<!-- NAME end -->`."""
    begin, end = (f'<!-- {name} {word} -->' for word in ('begin', 'end'))
    before, has_begin, rest = path.read_text().partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise SystemExit(f'{path} has no lines "{begin}" and "{end}" in this order; put them where the text belongs')
    path.write_text(f'{before}{begin}\n{text}\n{end}{after}')
