"""Bad lines, bad archives, killed processes: each made for real."""
import io, tarfile, threading, time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from course_helpers.data import archive as archives, cache as caches
from course_helpers.core.config import get_settings
from course_helpers.cli import course_data
from course_helpers.core.files import file_md5
from course_helpers.data.archive import (MARKER, ImageSetError, Source, SOURCES, add_archive,
                                         download, fingerprint, get_photos, list_files)
from course_helpers.data.cache import decode, get_cache
from course_helpers.data.images import get_images, is_unseen, load_images, split_files
from course_helpers.data.sketches import make_sketches
from processes import course, ended, python, run, wait_for

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A small image set, its archive, and its source"
    home = tmp_path_factory.mktemp('small')
    folder = make_sketches(home/'small', 12, 5)
    archive = home/'small.tgz'
    with tarfile.open(archive, 'w:gz', compresslevel=1) as tar: tar.add(folder, 'small')
    return archive, Source('small', 96, (), archive.stat().st_size, file_md5(archive), 120, 50,
                           fingerprint(folder, False), fingerprint(folder))

class Server:
    "A server on this machine; `slow` sends in drips, `stall` falls silent, `ranges` goes on from a place"
    def __init__(self, body, ranges=True, slow=0., stall=0):
        self.asked, server = [], self
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                start = int(self.headers['Range'][6:-1]) if ranges and 'Range' in self.headers else 0
                server.asked.append(start)
                self.send_response(206 if start else 200)
                self.send_header('Content-Length', len(body)-start)
                if start: self.send_header('Content-Range', f'bytes {start}-{len(body)-1}/{len(body)}')
                self.end_headers()
                try:
                    for i in range(start, len(body), 1 << 16):
                        if stall and i >= stall and len(server.asked) == 1: time.sleep(5); return
                        self.wfile.write(body[i:i+(1 << 16)]); time.sleep(slow)
                except OSError: pass
            def log_message(self, *args): pass
        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.http.server_port}/small.tgz'
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
    def __enter__(self): return self
    def __exit__(self, *args): self.http.shutdown(); self.http.server_close()

def test_server_without_range_sends_everything_again(small, tmp_path):
    archive, source = small
    (tmp_path/'a.tgz.part').write_bytes(archive.read_bytes()[:70_000])
    with Server(archive.read_bytes(), ranges=False) as srv:
        got = download(replace(source, urls=(srv.url,)), tmp_path/'a.tgz')
    assert got.read_bytes() == archive.read_bytes() and srv.asked == [0]

def test_server_that_falls_silent_is_left_and_the_rest_fetched(small, tmp_path):
    archive, source = small
    with Server(archive.read_bytes(), stall=1 << 17) as srv:
        got = download(replace(source, urls=(srv.url,)), tmp_path/'a.tgz', timeout=.5)
    assert got.read_bytes() == archive.read_bytes()
    assert len(srv.asked) == 2 and srv.asked[1] >= 1 << 17

def test_a_wrong_part_is_thrown_away_and_fetched_anew(small, tmp_path):
    archive, source = small
    (tmp_path/'a.tgz.part').write_bytes(b'x'*70_000)
    with Server(archive.read_bytes()) as srv:
        got = download(replace(source, urls=(srv.url,)), tmp_path/'a.tgz')
    assert got.read_bytes() == archive.read_bytes() and srv.asked == [70_000, 0]

def test_second_address_is_tried(small, tmp_path):
    archive, source = small
    with Server(archive.read_bytes()) as srv:
        download(replace(source, urls=('http://127.0.0.1:1/small.tgz', srv.url)), tmp_path/'a.tgz')
    assert (tmp_path/'a.tgz').exists()

def test_no_network_says_what_to_do(small, tmp_path):
    with pytest.raises(ImageSetError, match='no server answered.*course-data --archive FILE'):
        download(replace(small[1], urls=('http://127.0.0.1:1/small.tgz',)), tmp_path/'a.tgz')

CHILD = '''
from course_helpers.data import archive as archives, cache as caches
from course_helpers.data.archive import *
from course_helpers.data.cache import *
from course_helpers.data.images import *
from pathlib import Path
source = Source('small', 96, ({url!r},), {size}, {md5!r}, 120, 50, {names!r}, {contents!r})
{patch}
if {url!r}: download(source, Path({home!r})/'small.tgz')
add_archive(Path({home!r})/'small.tgz', Path({home!r}), (source,))
'''

def child(small, url, home, patch='', more=''):
    "Download from `url`, or take the archive that is there, and unpack"
    s = small[1]
    return python(CHILD.format(url=url, size=s.size, md5=s.md5, names=s.names, contents=s.contents, home=str(home), patch=patch)+more)

def test_killed_while_downloading_goes_on_from_what_has_arrived(small, tmp_path, start):
    archive, _ = small
    part = tmp_path/'small.tgz.part'
    with Server(archive.read_bytes(), slow=.2) as srv:
        first = start(child(small, srv.url, tmp_path))
        wait_for(lambda: part.exists() and part.stat().st_size > 1 << 16, 'a first part', first)
        first.kill(); first.wait()
        have = part.stat().st_size
        assert 0 < have < small[1].size and not (tmp_path/'small').exists()
        second = run(child(small, srv.url, tmp_path))
        assert second.returncode == 0, second.stderr
    assert srv.asked == [0, have] and load_images(tmp_path/'small').fingerprint == small[1].contents

def test_killed_while_unpacking_leaves_nothing_that_looks_ready(small, tmp_path, start):
    archive, _ = small
    slow = 'import time, shutil; copy = shutil.copyfileobj\ndef slowly(*a): time.sleep(.05); copy(*a)\nshutil.copyfileobj = slowly'
    with Server(archive.read_bytes()) as srv:
        first = start(child(small, srv.url, tmp_path, slow))
        wait_for(lambda: len([*tmp_path.glob('unpacking.part/**/*.JPEG')]) > 5, 'the first images', first)
        first.kill(); first.wait()
        assert not (tmp_path/'small').exists()
        second = run(child(small, srv.url, tmp_path))
    assert second.returncode == 0, second.stderr
    assert sorted(o.name for o in tmp_path.iterdir() if o.name != '.lock') == ['small', 'small.tgz']

def test_two_processes_prepare_the_same_images(small, tmp_path, start):
    (tmp_path/'small.tgz').write_bytes(small[0].read_bytes())
    home = f'Path({str(tmp_path)!r})'
    more = f"p = load_images({home}/'small')\nprint(len(get_cache(p, 32, list(p.files), {home})))"
    both = [start(child(small, '', tmp_path, more=more)) for _ in range(2)]
    outs = [ended(o) for o in both]
    assert [o.stdout.splitlines()[-1] for o in outs] == ['170', '170'], outs
    assert not list(tmp_path.rglob('*.part'))

def test_killed_while_decoding_goes_on(small, tmp_path, start):
    folder = add_archive(small[0], tmp_path, (small[1],))
    images = load_images(folder)
    code = f'''
import time
from pathlib import Path
from course_helpers.data import archive as archives, cache as caches
from course_helpers.data.archive import *
from course_helpers.data.cache import *
from course_helpers.data.images import *
once = caches.decode
def slowly(*a): time.sleep(.02); return once(*a)
caches.decode = slowly
write = caches._write_blocks
caches._write_blocks = lambda *a: write(*a, block=20)
p = load_images(Path({str(folder)!r}))
get_cache(p, 32, list(p.files), Path({str(tmp_path)!r}))
'''
    first = start(python(code))
    def blocks():
        found = list(tmp_path.glob('cache/*.part/index.jsonl'))
        return len(found[0].read_text().splitlines()) if found else 0
    wait_for(lambda: blocks() >= 3, 'three blocks', first)
    first.kill(); first.wait()
    seen = []
    real, caches.decode = caches.decode, lambda path, side: (seen.append(path), decode(path, side))[1]
    try: cache = get_cache(images, 32, list(images.files), tmp_path)
    finally: caches.decode = real
    assert len(cache) == 170 and len(seen) <= 110, 'it decoded again what was there'
    for i in (0, 60, 169): assert (cache[i] == decode(folder/images.files[i], 32)).all()

def bad_archive(path, name, kind=tarfile.REGTYPE):
    "An archive with one entry that does not belong"
    with tarfile.open(path, 'w') as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, '/etc/passwd', 1 if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(b'x') if info.size else None)
    return path

@pytest.mark.parametrize('name,kind,says', [
    ('../evil', tarfile.REGTYPE, 'leads out'), ('/evil', tarfile.REGTYPE, 'leads out'),
    ('small/a/../../../evil', tarfile.REGTYPE, 'leads out'),
    ('small/link', tarfile.SYMTYPE, 'a link'), ('small/link', tarfile.LNKTYPE, 'a link'), ('small/fifo', tarfile.FIFOTYPE, 'a link')])
def test_an_archive_that_reaches_out_is_refused(tmp_path, small, name, kind, says):
    data = tmp_path/'inner'/'data'
    with pytest.raises(ImageSetError, match=says): add_archive(bad_archive(tmp_path/'bad.tar', name, kind), data, (small[1],))
    assert not list(tmp_path.rglob('*evil*')) and sorted(o.name for o in data.iterdir()) == ['.lock']

def test_archive_cut_short(tmp_path, small):
    for n in (0, 10, 5000, small[1].size//2):
        (tmp_path/'cut.tgz').write_bytes(small[0].read_bytes()[:n])
        with pytest.raises(ImageSetError, match='cut short'): add_archive(tmp_path/'cut.tgz', tmp_path/'data', (small[1],))
    assert [o.name for o in (tmp_path/'data').iterdir()] == ['.lock']

def test_a_image_that_vanished_later_is_noticed(tmp_path, small):
    folder = add_archive(small[0], tmp_path, (small[1],))
    (folder/list_files(folder)[0]).unlink()
    with pytest.raises(ImageSetError, match='held 170 images and now holds 169'): load_images(folder)

def test_download_by_edition(tmp_path, small, monkeypatch):
    archive, source = small
    with Server(archive.read_bytes()) as srv:
        monkeypatch.setitem(SOURCES, '160', replace(source, urls=(srv.url,)))
        s = get_settings(data=tmp_path)
        assert get_photos('160', s) == tmp_path/'small' == get_photos('160', s)
        images = get_images(replace(s, images='auto'))
    assert len(images.files) == 170 and srv.asked == [0] and not list(tmp_path.glob('*.tgz'))

def test_command_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('COURSE_DATA', str(tmp_path))
    assert course_data(['--archive', str(tmp_path/'none.tgz')]) == 1
    assert 'There is no archive' in capsys.readouterr().err
    monkeypatch.setenv('COURSE_IMAGES', 'paintings')
    assert course_data([]) == 1 and 'Choose one of' in capsys.readouterr().err

def test_status_of_an_empty_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('COURSE_DATA', str(tmp_path))
    assert course_data([]) == 0 and 'course-data --download 160: 99 MB' in capsys.readouterr().out

@pytest.mark.photos
def test_the_photographs_are_those_of_imagenette(photos):
    images = get_images(photos)
    assert (len(images.train), len(images.val)) == (9469, 3925) and images.fingerprint == SOURCES['160'].contents
    unseen = [o for o in images.files if is_unseen(o)]
    assert (len(unseen), sum(o.startswith('train/') for o in unseen)) == (500, 366)

@pytest.mark.photos
def test_splits_of_the_photographs(photos):
    images = get_images(photos)
    s = get_settings(profile='cpu', images='photos')
    train, val = split_files(images, s)
    part, dev = split_files(images, s, dev=True)
    assert len(train) == 9469 and sorted(part+dev) == train and 900 < len(dev) < 1000
    assert not set(dev) & set(val) and len(split_files(images, replace(s, budget='few'))[0]) == 1000

@pytest.mark.photos
def test_verify_finds_one_changed_byte(archive, tmp_path):
    folder = add_archive(archive, tmp_path)
    path = folder/list_files(folder)[5000]
    data = bytearray(path.read_bytes()); data[-5] ^= 1; path.write_bytes(data)
    with pytest.raises(ImageSetError, match='changed or renamed'): archives.verify(folder, SOURCES['160'])

@pytest.mark.photos
def test_quick_on_photographs(photos):
    res = run(course('course-run', '--images', 'photos', '--seeds', 0), COURSE_IMAGES='photos')
    assert res.returncode == 0 and 'imagenette2-160, seed 0' in res.stdout, res.stderr
