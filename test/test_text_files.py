"""Text files are read correctly, or refused with file, line, found and needed text."""

import json

import numpy as np
import pytest

from loftr_ros.datasets.text_files import (
    Fields,
    number,
    read_json,
    read_matrix,
    read_stamps,
    read_table,
    read_text,
    read_yaml,
    stamps_to_ns,
    whole_number,
)
from loftr_ros.errors import InputError


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('1.305031102175304e+09', 1305031102175304000),
        ('1.305031102175303936e+09', 1305031102175304000),  # np.savetxt, of the same float
        ('1305031102.175304', 1305031102175304000),
        ('1403636579.763555584', 1403636579763555584),
        ('-0.5', -500_000_000),
        ('-.5e0', -500_000_000),
        ('+2.', 2_000_000_000),
        ('1E-9', 1),
        ('0.0000000006', 1),  # rounded, not cut off
        ('0', 0),
    ],
)
def test_seconds_become_nanoseconds_without_the_rounding_of_a_float(text, expected):
    assert stamps_to_ns([text], 's').tolist() == [expected]


@pytest.mark.parametrize('text', ['', 'abc', '1.2.3', 'nan', 'inf', '1e400', '1e300', '1_000', '0x10', '1,5'])
def test_a_text_that_is_not_a_time_is_refused(text):
    with pytest.raises(InputError, match=r'is not a number|is not finite|is not a stamp'):
        stamps_to_ns([text], 's')


@pytest.mark.parametrize(
    ('texts', 'convention', 'expected'),
    [
        (['1305031102.175304', '1305031102.25'], 's', [1305031102175304000, 1305031102250000000]),
        (['1305031102175304000'], 's', [1305031102175304000]),
        (['1305031102175304'], 's', [1305031102175304000]),
        (['1305031102175'], 's', [1305031102175000000]),
        (['1305031102', '7'], 's', [1305031102000000000, 7000000000]),
        (['1403636579763555584'], 'ns', [1403636579763555584]),
        (['1.403636579763555584e+18'], 'ns', [1403636579763555584]),
        (['1403636579763555584.0'], 'ns', [1403636579763555584]),
        (['1403636579763555'], 'ns', [1403636579763555000]),
        (['1403636579.763555584'], 'ns', [1403636579763555584]),
        (['50000000', '100000000'], 'ns', [50000000, 100000000]),
        (['-0.5', '0.5'], 'ns', [-500000000, 500000000]),
    ],
)
def test_the_unit_of_stamps_follows_from_their_size_or_the_convention(texts, convention, expected):
    assert stamps_to_ns(texts, convention).tolist() == expected


@pytest.mark.parametrize('value', [True, None, [1], 'x', 'nan', float('inf'), '1_0'])
def test_a_text_that_is_not_a_finite_number_is_refused(value):
    with pytest.raises(InputError, match=r'is not a number|is not finite'):
        number(value)


def test_a_whole_number_may_have_a_point_but_no_fraction():
    assert whole_number('640.0') == whole_number(640) == 640
    with pytest.raises(InputError, match=r"'640\.5' is not a whole number"):
        whole_number('640.5')


@pytest.mark.parametrize(
    'data',
    [
        b'1 2 3\n4 5 6\n',
        b'\xef\xbb\xbf1 2 3\n4 5 6\n',
        b'1, 2,3\r\n4;5; 6\r\n',
        b'# a remark\n\n1\t2  3 # and another\n  +4. 5e0 0.6E+1,',
        '1 2 3\n4 5 6'.encode('utf-16'),
    ],
    ids=['plain', 'byte-order mark', 'commas of Windows', 'comments', 'utf-16'],
)
def test_a_table_is_read_however_it_is_written(tmp_path, data):
    (tmp_path / 'table.txt').write_bytes(data)
    rows = read_table(tmp_path / 'table.txt', 'three numbers').rows
    assert [row.numbers('three numbers', (3,)).tolist() for row in rows] == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('1 2\n1 2 3\n', r'table\.txt:2 has 3 fields; needs two numbers'),
        ('1 2\n\n1 x\n', r"table\.txt:3 'x' is not a number; needs two numbers"),
        ('1 2\n1 nan\n', r"table\.txt:2 'nan' is not finite; needs two numbers"),
        ('1 2\n1,,2\n', r'table\.txt:2 has 3 fields'),
        ('\n# 1 2\n', r'table\.txt has no row of numbers; needs two numbers'),
        ('a b\nc d\n1 2\n', r"table\.txt:1 has no numbers: 'a b'; needs two numbers"),
    ],
)
def test_a_row_that_is_wrong_is_named_by_its_line(tmp_path, text, words):
    (tmp_path / 'table.txt').write_text(text)
    with pytest.raises(InputError, match=words):
        for row in read_table(tmp_path / 'table.txt', 'two numbers').rows:
            row.numbers('two numbers', (2,))


@pytest.mark.parametrize('kind', ['folder', 'absent', 'binary', 'latin'])
def test_a_file_that_is_not_text_is_refused(tmp_path, kind):
    path = tmp_path / 'file'
    if kind == 'folder':
        path.mkdir()
    elif kind != 'absent':
        path.write_bytes({'binary': b'abc\0def', 'latin': 'Größe'.encode('latin-1')}[kind])
    with pytest.raises(InputError, match=r'file (cannot be read|is not a text file).*needs a text file'):
        read_text(path)


def test_stamps_must_increase(tmp_path):
    (tmp_path / 'times.txt').write_text('0.0\n1.0e-1\n0.1\n')
    with pytest.raises(InputError, match=r'times\.txt:3 0\.1 follows 1\.0e-1; needs .* later than the one before'):
        read_stamps(tmp_path / 'times.txt', 's')
    (tmp_path / 'times.txt').write_text('0.0\n1.0e-1\n0.25\n')
    assert read_stamps(tmp_path / 'times.txt', 's').tolist() == [0, 100_000_000, 250_000_000]


def test_a_file_that_is_a_matrix_must_have_its_shape(tmp_path):
    np.savetxt(tmp_path / 'k.txt', np.arange(9).reshape(3, 3))
    assert read_matrix(tmp_path / 'k.txt', ((4, 4), (3, 3)))[1].tolist() == [3, 4, 5]
    np.savetxt(tmp_path / 'k.txt', np.arange(12).reshape(4, 3))
    with pytest.raises(InputError, match='has 4 rows of 3 numbers; needs 4x4 or 3x3 numbers'):
        read_matrix(tmp_path / 'k.txt', ((4, 4), (3, 3)))


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('a: [1, 2\nb: 3\n', r'file:\d is not YAML'),
        ('just words', 'contains str; needs YAML with names'),
        ('', 'contains nothing'),
        ('a: 2021-99-99', 'is not YAML'),
        ('%YAML:1.0\na: !!python/object:os.system {}', 'is not YAML'),
        ('[' * 3000, 'is not YAML|nested'),
    ],
)
def test_invalid_yaml_is_refused(tmp_path, text, words):
    (tmp_path / 'file').write_text(text)
    with pytest.raises(InputError, match=words):
        read_yaml(tmp_path / 'file')


@pytest.mark.parametrize('text', ['', '{', '[1]', '[' * 100_000])
def test_json_that_is_not_an_object_is_refused(tmp_path, text):
    (tmp_path / 'file').write_text(text)
    with pytest.raises(InputError, match=r'is not JSON|contains list|nested'):
        read_json(tmp_path / 'file')
    (tmp_path / 'file').write_text(json.dumps({'a': 1}))
    assert read_json(tmp_path / 'file') == {'a': 1}


@pytest.mark.parametrize(
    'value',
    [
        [1, 2, 3, 4],
        [[1, 2], [3, 4]],
        {'rows': 2, 'cols': 2, 'data': [1, 2, 3, 4]},
        {'data': [[1, '2e0'], [3, 4]]},
    ],
)
def test_a_matrix_is_read_in_each_of_its_forms(tmp_path, value):
    assert Fields(tmp_path, {'Some_Matrix': value}).matrix(2, 2, 'somematrix').tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ({'rows': 1, 'cols': 4, 'data': [1, 2, 3, 4]}, r'm needs a 2x2 matrix, got shape \(1, 4\)'),
        ({'rows': 2, 'cols': 3, 'data': [1, 2, 3, 4]}, r'm needs data of the shape \(2, 3\) of rows and cols'),
        ({'rows': 2, 'cols': 'two', 'data': [1, 2, 3, 4]}, 'm needs rows and cols'),
        ({'rows': 2, 'cols': 2}, 'without data'),
        ([[1, 2], [3]], 'rows of one length'),
        ([1, 2, 3], r'a 2x2 matrix, got shape \(3,\)'),
        ([1, 2, 3, None], 'None is not a number'),
        ([1, 2, 3, float('nan')], 'nan is not finite'),
        (None, 'a list of numbers, got None'),
        ({'rows': 2, 'cols': 2, 'data': 7}, 'a list of numbers, got 7'),
    ],
)
def test_a_matrix_of_another_shape_is_refused(tmp_path, value, words):
    (tmp_path / 'f').write_text('m:')
    with pytest.raises(InputError, match=words):
        Fields(tmp_path / 'f', {'m': value}).matrix(2, 2, 'm')
