"""Readers of text files that people and other programs write: tables of numbers, stamps, YAML and JSON.

Every error is an InputError with the file, the line, what was found and what is needed. Byte-order marks, line ends of
Windows, commas between numbers, exponents and comments are accepted.
"""

from __future__ import annotations

import dataclasses
import decimal
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from loftr_ros.errors import InputError

LARGEST_NS = 2**63 - 1
UNITS_NS = {'s': 10**9, 'ms': 10**6, 'us': 10**3, 'ns': 1}


def read_text(path) -> str:
    """Return the text of a file in UTF-8 (or UTF-16 with a byte-order mark), with newlines as line ends."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}; needs a text file') from error
    encoding = 'utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f'{path} is not a text file: byte {error.start} is not {encoding}; needs a text file'
        ) from error
    if '\0' in text:
        raise InputError(f'{path} is not a text file: it contains bytes of 0; needs a text file')
    return text.replace('\r\n', '\n').replace('\r', '\n')


# --- numbers and stamps --------------------------------------------------------------------------------------------


def number(value, finite: bool = True) -> float:
    """Return a number or a text as a float; InputError unless it is a number, and if `finite` for nan and inf."""
    try:
        if isinstance(value, bool) or (isinstance(value, str) and '_' in value):
            raise ValueError
        result = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f'{value!r} is not a number') from error
    if finite and not math.isfinite(result):
        raise InputError(f'{value!r} is not finite')
    return result


def whole_number(value) -> int:
    """Return a number without a fraction (640, '640', 640.0) as an int; InputError for anything else."""
    result = number(value)
    if result != int(result):
        raise InputError(f'{value!r} is not a whole number')
    return int(result)


def numbers(values: Iterable, finite: bool = True) -> np.ndarray:
    """Return float64 (N,) of values that `number` accepts."""
    return np.array([number(value, finite) for value in values], np.float64)


def stamps_to_ns(texts: Sequence[str], convention: str) -> np.ndarray:
    """Return stamps (N,) int64 [ns], exactly; the unit of all is recognised by the size of the largest.

    Args:
        convention: 's' or 'ns', the unit of numbers that are too small for times since 1970.
    """
    values = [_decimal(text) for text in texts]
    unit = _unit_of(values, convention)
    return np.array([_to_ns(value, unit) for value in values], np.int64)


def _decimal(text: str) -> decimal.Decimal:
    value = number(text)
    if 'e' in text.lower() and abs(value) < 10**11:
        # A program wrote seconds from a float, with more digits than it has: 1.305031102175303936e+09.
        return decimal.Decimal(repr(value))
    return decimal.Decimal(text.strip())


def _to_ns(value: decimal.Decimal, unit: str) -> int:
    if abs(value) > LARGEST_NS // UNITS_NS[unit]:
        raise InputError(
            f'{value} {unit} is not a stamp; needs at most {LARGEST_NS // UNITS_NS[unit]} {unit} (64 bits)'
        )
    return int((value * UNITS_NS[unit]).to_integral_value())


def _unit_of(values: list[decimal.Decimal], convention: str) -> str:
    """Return the unit in which the largest value is a time since 1970, from 2001 on; else the convention."""
    largest = max((abs(value) for value in values), default=0)
    if largest < 10**11 and any(value != value.to_integral_value() for value in values):
        return 's'  # clocks count whole ns, so a number with a fraction is in seconds
    if largest >= 10**17:
        return 'ns'
    if largest >= 10**15:
        return 'us'
    return 'ms' if largest >= 10**12 and convention == 's' else convention


# --- tables --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """The words of one line of a table."""

    path: Path
    line: int
    words: list[str]

    def error(self, problem) -> InputError:
        return InputError(f'{self.path}:{self.line} {problem}')

    def numbers(self, needed: str, counts: tuple[int, ...], finite: bool = True) -> np.ndarray:
        """Return all words as numbers; their count must be one of `counts`. `needed` describes the row in messages."""
        if len(self.words) not in counts:
            raise self.error(f'has {len(self.words)} fields; needs {needed}')
        try:
            return numbers(self.words, finite)
        except InputError as error:
            raise self.error(f'{error}; needs {needed}') from error


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a file, and the line of words before the first row, which may contain the names of the columns."""

    rows: list[Row]
    header: Row | None
    has_commented_header: bool


def read_table(path, needed: str) -> Table:
    """Return the rows of a file of numbers, separated by blanks, commas or semicolons; # begins a comment.

    Raises:
        InputError: it is not a text file or has no row; `needed` describes a row in the message.
    """
    path, rows, header, commented = Path(path), [], None, False
    for line_number, line in enumerate(read_text(path).split('\n'), 1):
        content, mark, comment = line.partition('#')
        words = _words(content)
        if not rows and words and not _is_number(words[0]):
            if header is not None and not commented:
                raise header.error(f'has no numbers: {" ".join(header.words)[:80]!r}; needs {needed}')
            header, commented = Row(path, line_number, _names(content)), False
        elif words:
            rows.append(Row(path, line_number, words))
        elif mark and not rows and (header is None or commented) and _names(comment):
            header, commented = Row(path, line_number, _names(comment)), True
    if not rows:
        raise InputError(f'{path} has no row of numbers; needs {needed}')
    return Table(rows, header, commented)


def _words(text: str) -> list[str]:
    text = text.strip().rstrip(',;').rstrip()
    return re.split(r'\s*[,;]\s*|\s+', text) if text else []


def _names(text: str) -> list[str]:
    """Return the names of columns, without units in brackets, as in p_x [m]."""
    return _words(re.sub(r'\[[^\]]*\]', '', text))


def _is_number(word: str) -> bool:
    try:
        number(word, finite=False)
    except InputError:
        return False
    return True


def read_stamps(path, convention: str) -> np.ndarray:
    """Return the stamps (N,) int64 [ns] of a file with one in each row, in increasing order."""
    needed = f'one stamp [{convention}] in each row, each later than the one before'
    rows = read_table(path, needed).rows
    for row in rows:
        row.numbers(needed, (1,))
    try:
        stamps_ns = stamps_to_ns([row.words[0] for row in rows], convention)
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    late = np.flatnonzero(np.diff(stamps_ns) <= 0)
    if len(late):
        raise rows[late[0] + 1].error(f'{rows[late[0] + 1].words[0]} follows {rows[late[0]].words[0]}; needs {needed}')
    return stamps_ns


def read_matrix(path, shapes: tuple[tuple[int, int], ...], finite: bool = True) -> np.ndarray:
    """Return the matrix in a file that contains nothing else; it must have one of `shapes`."""
    needed = ' or '.join(f'{rows}x{columns}' for rows, columns in shapes) + ' numbers'
    rows = read_table(path, needed).rows
    values = [row.numbers(needed, tuple(columns for _, columns in shapes), finite) for row in rows]
    if (len(values), len(values[0])) not in shapes or len({len(row) for row in values}) > 1:
        raise InputError(f'{path} has {len(values)} rows of {len(values[0])} numbers; needs {needed}')
    return np.stack(values)


# --- YAML and JSON -------------------------------------------------------------------------------------------------


def read_yaml(path) -> dict:
    """Return the mapping in a YAML file; the output of OpenCV's FileStorage and `ros2 topic echo` is accepted."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads OpenCV's matrices as mappings."""

    Loader.add_constructor('tag:yaml.org,2002:opencv-matrix', yaml.SafeLoader.construct_yaml_map)
    # Files of OpenCV and EuRoC begin with '%YAML:1.0', which is not YAML. An empty line keeps the line numbers right.
    lines = ['' if line.startswith('%') else line for line in read_text(path).split('\n')]
    try:
        documents = [document for document in yaml.load_all('\n'.join(lines), Loader) if document is not None]
    except (yaml.YAMLError, ValueError, TypeError) as error:  # the last two come from constructors of dates and numbers
        mark = getattr(error, 'problem_mark', None)
        where = f'{path}:{mark.line + 1}' if mark else path
        raise InputError(f'{where} is not YAML: {getattr(error, "problem", None) or error}') from error
    except RecursionError as error:
        raise InputError(f'{path} is nested too deeply for YAML') from error
    if not documents or not isinstance(documents[0], dict):
        found = type(documents[0]).__name__ if documents else 'nothing'
        raise InputError(f'{path} contains {found}; needs YAML with names and values')
    return documents[0]


def read_json(path) -> dict:
    """Return the object in a JSON file."""
    try:
        document = json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{path} is not JSON: {error}') from error
    except RecursionError as error:
        raise InputError(f'{path} is nested too deeply for JSON') from error
    if not isinstance(document, dict):
        raise InputError(f'{path} contains {type(document).__name__}; needs a JSON object')
    return document


class Fields:
    """The fields of a mapping, checked as they are read; case and underscores in their names are ignored."""

    def __init__(self, path, mapping: dict, within: str = ''):
        self.path, self.within = Path(path), within
        self._fields = {_plain(str(name)): (str(name), value) for name, value in mapping.items()}

    def __contains__(self, name: str) -> bool:
        return _plain(name) in self._fields

    @property
    def names(self) -> str:
        return ', '.join(name for name, _ in self._fields.values())

    def error(self, problem) -> InputError:
        return InputError(f'{self.path}{f" ({self.within})" if self.within else ""}: {problem}')

    def get(self, *names: str, remedy: str = 'add it'):
        """Return the value of the first of `names` that exists; InputError with `remedy` if there is none."""
        return self._find(names, remedy)[1]

    def numbers(self, *names: str, count: int | None = None, remedy: str = 'add it') -> np.ndarray:
        """Return a list of numbers as (N,); a matrix of one row or one column is accepted."""
        name, value = self._find(names, remedy)
        values = self._array(name, value)
        if max(values.shape, default=0) != values.size or (count is not None and values.size != count):
            raise self._wrong(name, f'{count or ""} numbers in a row'.lstrip(), f'shape {values.shape}')
        return values.ravel()

    def matrix(self, rows: int, columns: int, *names: str, remedy: str = 'add it') -> np.ndarray:
        """Return a (rows, columns) matrix, written with rows, cols and data, as a list of rows or as one list."""
        name, value = self._find(names, remedy)
        values = self._array(name, value)
        is_flat = values.shape == (rows * columns,)
        if values.shape != (rows, columns) and not is_flat:
            raise self._wrong(name, f'a {rows}x{columns} matrix', f'shape {values.shape}')
        return values.reshape(rows, columns)

    def positive_whole_number(self, *names: str, remedy: str = 'add it') -> int:
        name, value = self._find(names, remedy)
        try:
            result = whole_number(value)
        except InputError as error:
            raise self._wrong(name, 'a whole number', str(error)) from error
        if result <= 0:
            raise self._wrong(name, 'a positive number', str(result))
        return result

    def _find(self, names: tuple[str, ...], remedy: str):
        for name in names:
            if name in self:
                return self._fields[_plain(name)]
        raise self.error(f'has no {names[0]}, only {self.names or "nothing"}; needs it: {remedy}')

    def _array(self, name: str, value) -> np.ndarray:
        """Return (N,) or (N, M) of a list, a list of rows, or a mapping with rows, cols and data."""
        shape = None
        if isinstance(value, dict):
            if 'data' not in value:
                raise self._wrong(name, 'numbers', f'the fields {", ".join(map(str, value))} without data')
            sides = [value[side] for side in ('rows', 'cols') if side in value]
            value = value['data']
            try:
                shape = tuple(whole_number(side) for side in sides)
            except InputError as error:
                raise self._wrong(name, 'rows and cols', str(error)) from error
        if not isinstance(value, list):
            raise self._wrong(name, 'a list of numbers', repr(value)[:80])
        try:
            rows = [numbers(row) if isinstance(row, list) else number(row) for row in value]
        except InputError as error:
            raise self._wrong(name, 'numbers', str(error)) from error
        if len({np.shape(row) for row in rows}) > 1:
            raise self._wrong(name, 'rows of one length', 'rows of several')
        values = np.array(rows, np.float64)
        if shape:
            if values.size != math.prod(shape) or (len(shape) == 2 and values.ndim == 2 and values.shape != shape):
                raise self._wrong(name, f'data of the shape {shape} of rows and cols', f'shape {values.shape}')
            values = values.reshape(shape)
        return values

    def _wrong(self, name: str, needed: str, found: str) -> InputError:
        place = self._line_of(name)
        within = f'{self.within}: ' if self.within else ''
        return InputError(f'{self.path}{place} {within}{name} needs {needed}, got {found}')

    def _line_of(self, name: str) -> str:
        """Return ':LINE' of the field if exactly one line begins with its name, else an empty text."""
        pattern = re.compile(rf'\s*["\']?{re.escape(name)}["\']?\s*:')
        lines = [i for i, line in enumerate(read_text(self.path).split('\n'), 1) if pattern.match(line)]
        return f':{lines[0]}' if len(lines) == 1 else ''


def _plain(name: str) -> str:
    return re.sub(r'[_\s-]', '', name).lower()
