"""Downloads from a server with failures: the file is complete and right, or missing."""

import dataclasses
import hashlib
import http.server
import threading
import time

import pytest

from loftr_ros.cli import main
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.weights import CHECKPOINTS, Checkpoint, DownloadError, download

CONTENT = b'PK\x03\x04' + bytes(range(256)) * 1024
"""262,148 bytes: several blocks of the reader, so that a break in the middle leaves a part."""

HALF = len(CONTENT) // 2
PAGE = b'<!DOCTYPE html><html><title>Sign in</title></html>'


class Server(http.server.ThreadingHTTPServer):
    """Answers the n-th request with the n-th of `answers`, the last for all further ones."""

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.answers = [whole]
        self.ranges = []

    @property
    def url(self):
        return f'http://127.0.0.1:{self.server_port}/weights.ckpt'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answers = self.server.answers
        answer = answers[min(len(self.server.ranges), len(answers) - 1)]
        self.server.ranges.append(self.headers.get('Range'))
        answer(self)

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, length=None, **headers):
        self.send_response(status)
        for name, value in {'Content-Length': len(body) if length is None else length, **headers}.items():
            self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        self.wfile.write(body)

    @property
    def offset(self):
        return int(self.headers.get('Range', 'bytes=0-').removeprefix('bytes=').removesuffix('-'))


def whole(handler):
    """An honest server that understands Range."""
    start = handler.offset
    if start >= len(CONTENT):
        handler.reply(b'', 416)
    elif start:
        place = f'bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}'
        handler.reply(CONTENT[start:], 206, Content_Range=place)
    else:
        handler.reply(CONTENT)


def ignores_range(handler):
    handler.reply(CONTENT)


def truncates(handler):
    handler.reply(CONTENT[:HALF], length=len(CONTENT))


def stalls(handler):
    handler.send_response(200)
    handler.send_header('Content-Length', str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:HALF])
    handler.wfile.flush()
    time.sleep(1.0)


def page(handler):
    handler.reply(PAGE, Content_Type='text/html; charset=utf-8')


def page_in_disguise(handler):
    handler.reply(PAGE, Content_Type='application/octet-stream')


def other_content(handler):
    handler.reply(CONTENT[::-1])


def status(code):
    return lambda handler: handler.reply(b'no', code)


def without_length(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(CONTENT)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('LOFTR_ROS_CACHE', str(tmp_path))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def entry(server):
    digest = hashlib.sha256(CONTENT).hexdigest()
    return Checkpoint('mine', 'loftr', {}, 'mine.ckpt', server.url, 'https://example.org/page', digest, 'MIT')


def get(entry, **options):
    return download(entry, **{'timeout_s': 5.0, 'attempts': 3, 'pause_s': 0.0, **options})


def files(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_a_download_is_the_file_and_nothing_else(server, entry, tmp_path):
    seen = []
    path = get(entry, progress=lambda here, total: seen.append((here, total)))
    assert path.read_bytes() == CONTENT and files(tmp_path) == ['mine.ckpt']
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)


def test_an_existing_file_is_not_downloaded_again(server, entry):
    assert get(entry) == get(entry)
    assert len(server.ranges) == 1


@pytest.mark.parametrize('interruption', [truncates, stalls])
def test_an_interrupted_download_continues_where_it_broke_off(server, entry, interruption):
    server.answers = [interruption, whole]
    assert get(entry, timeout_s=0.3).read_bytes() == CONTENT
    assert server.ranges[0] is None and 0 < int(server.ranges[1][6:-1]) <= HALF


def test_the_next_call_continues_the_partial_file(server, entry, tmp_path):
    (tmp_path / 'mine.ckpt.part').write_bytes(CONTENT[:1000])
    assert get(entry).read_bytes() == CONTENT
    assert server.ranges == ['bytes=1000-']


def test_a_complete_partial_file_is_used(server, entry, tmp_path):
    (tmp_path / 'mine.ckpt.part').write_bytes(CONTENT)
    assert get(entry).read_bytes() == CONTENT
    assert server.ranges == []


@pytest.mark.parametrize('left', [b'of an older file', CONTENT + b'longer than the file'])
def test_a_partial_file_of_another_file_is_discarded(server, entry, tmp_path, left):
    (tmp_path / 'mine.ckpt.part').write_bytes(left)
    assert get(entry).read_bytes() == CONTENT
    assert server.ranges[-1] is None


def test_without_a_known_hash_an_old_part_is_not_trusted(server, entry, tmp_path):
    (tmp_path / 'mine.ckpt.part').write_bytes(b'of an older file')
    assert get(dataclasses.replace(entry, sha256='')).read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_server_that_ignores_range_is_read_from_the_start(server, entry):
    server.answers = [truncates, ignores_range]
    assert get(entry).read_bytes() == CONTENT


def test_a_download_without_a_length_is_accepted_if_the_hash_agrees(server, entry):
    server.answers = [without_length]
    assert get(entry).read_bytes() == CONTENT


@pytest.mark.parametrize('code', [429, 503])
def test_a_busy_server_is_asked_again(server, entry, code):
    server.answers = [status(code), whole]
    assert get(entry).read_bytes() == CONTENT


def test_a_server_that_never_completes_gives_an_error_and_keeps_the_partial_file(server, entry, tmp_path):
    server.answers = [truncates]
    with pytest.raises(DownloadError, match=r'ended after \d+ of 262148 bytes.*same command continues.*example.org'):
        get(entry)
    assert files(tmp_path) == ['mine.ckpt.part']


def test_a_wrong_hash_is_refused_and_nothing_stays(server, entry, tmp_path):
    server.answers = [other_content]
    with pytest.raises(InputError, match=r'gave a file of sha256 .*tampered'):
        get(entry)
    assert files(tmp_path) == []


@pytest.mark.parametrize('answer', [page, page_in_disguise])
@pytest.mark.parametrize('hashed', [True, False])
def test_a_web_page_is_refused_at_once(server, entry, tmp_path, answer, hashed):
    server.answers = [answer]
    with pytest.raises(DownloadError, match=r'web page.*manually: https://example.org/page.*save it as .*mine.ckpt'):
        get(entry if hashed else dataclasses.replace(entry, sha256=''))
    assert len(server.ranges) == 1 and 'mine.ckpt' not in files(tmp_path)


def test_a_pointer_instead_of_the_file_is_refused(server, entry, tmp_path):
    server.answers = [lambda handler: handler.reply(b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n')]
    with pytest.raises(InputError, match='Git LFS pointer'):
        get(dataclasses.replace(entry, sha256=''))
    assert files(tmp_path) == []


@pytest.mark.parametrize('code', [401, 403, 404])
def test_a_refusal_is_not_retried_and_the_error_says_how_to_get_the_file(server, entry, code):
    server.answers = [status(code)]
    with pytest.raises(DownloadError, match=f'answers {code}.*manually: https://example.org/page'):
        get(entry)
    assert len(server.ranges) == 1


def test_no_connection_says_how_to_get_it_by_hand(server, entry):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=r'refused.*3 times.*https_proxy.*manually'):
        get(entry)


def test_an_entry_without_an_address_says_where_the_file_is(entry):
    with pytest.raises(ConfigError, match=r'no program can download them: https://example.org/page'):
        get(dataclasses.replace(entry, url=''))


def test_a_folder_that_cannot_be_written_is_named(entry, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(DownloadError, match=r'cannot write .*LOFTR_ROS_CACHE'):
        get(entry, folder=tmp_path / 'file' / 'folder')


def test_two_downloads_at_once_ask_the_server_once(server, entry):
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(get(entry))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 2 and paths[0].read_bytes() == CONTENT and len(server.ranges) == 1


def test_get_prints_the_licence_and_the_place(server, entry, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(CHECKPOINTS, 'mine', entry)
    assert main(['weights', 'get', 'mine', '--folder', str(tmp_path / 'there')]) == 0
    printed = capsys.readouterr().out
    assert 'licence MIT' in printed and str(tmp_path / 'there' / 'mine.ckpt') in printed
