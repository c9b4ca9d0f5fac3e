"""Tables and progress bars of the commands."""

from __future__ import annotations

import contextlib


def print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print('  '.join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


@contextlib.contextmanager
def progress_bar(text: str, total: int | None):
    """Show a progress bar and return a function to call with the number done. The total is None if it is unknown."""
    from tqdm import tqdm

    with tqdm(total=total, desc=text, unit='frame', disable=None) as bar:  # None: no bar without a terminal
        yield lambda done: bar.update(done - bar.n)
