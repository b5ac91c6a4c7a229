"""Which build of PyTorch is set up: by the GPU, what can be reached, and what the user says."""
import functools, http.server, os, re, shutil, socket, sys, threading, zipfile
from pathlib import Path

import pytest
import torch_backend
from processes import ROOT, run

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='only Linux has a choice to make')
no_gpu = pytest.mark.skipif(Path('/dev/nvidia0').exists(), reason='this machine has a GPU')
PINS = dict(re.findall(r'^(torch(?:vision)?)==(\S+)', (ROOT/'requirements.lock').read_text(), re.M))

PLAIN = {k: None for k in os.environ if re.match(r'UV_|TORCH_|MAKE|MFLAGS|.*_proxy$', k, re.I)}  # what would change an answer

def write_wheel(
    folder:Path,   # where the index has the package
    name:str,      # of the package
    version:str,   # with its local part
):
    "An empty wheel, which says nothing but its name and version"
    folder.mkdir(parents=True)
    info = f'{name}-{version}.dist-info'
    with zipfile.ZipFile(folder/f'{name}-{version}-py3-none-any.whl', 'w') as z:
        z.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}')
        z.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any')
        z.writestr(f'{info}/RECORD', '')

class Quiet(http.server.SimpleHTTPRequestHandler):
    "A folder's list of files is a page of a simple index"
    def log_message(self, *args): pass

@pytest.fixture
def index(tmp_path):
    "Address of an index, served from here, of the CPU builds that the lock names"
    for name,version in PINS.items():
        write_wheel(tmp_path/'index'/name, name, f'{version}+cpu')
    handler = functools.partial(Quiet, directory=tmp_path/'index')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()

@pytest.fixture
def far():
    "Address at which nobody answers"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        yield f'http://127.0.0.1:{s.getsockname()[1]}/'

@pytest.fixture
def ask(tmp_path):
    "Runs the script with an index, and what else the environment says; on PATH is only `bin`"
    (tmp_path/'bin').mkdir()
    plain = PLAIN | dict(PATH=tmp_path/'bin', UV_CACHE_DIR=tmp_path/'cache')
    script = [sys.executable, ROOT/'authors'/'torch_backend.py', '--default-index']
    def ask(address, **env):
        res = run([*script, address], **plain | env)
        assert res.returncode == 0 and res.stderr.count('\n') == 1, res.stderr
        return res.stdout.strip(), res.stderr
    return ask

def write_program(
    path:Path,     # of the program
    *lines:str,    # of a shell script
):
    "A program that stands in for another"
    path.parent.mkdir(exist_ok=True)
    path.write_text('\n'.join(['#!/bin/sh', *lines, '']))
    path.chmod(0o755)
    return path

@no_gpu
def test_without_gpu_the_cpu_build_is_taken(ask, index):
    backend, line = ask(index)
    assert backend == 'cpu' and 'No NVIDIA GPU' in line
    assert 'TORCH_BACKEND=auto make lab' in line and '=none' in line

@no_gpu
def test_what_cannot_be_reached_is_not_taken(ask, far):
    backend, line = ask(far)  # it gives up: `run` would not wait for ever
    assert backend == '' and "can't be reached" in line and 'TORCH_BACKEND=auto make lab' in line

@no_gpu
def test_another_version_is_not_taken(ask, index, tmp_path):
    for o in (tmp_path/'index'/'torch').iterdir(): o.unlink()
    (tmp_path/'index'/'torch').rmdir()
    write_wheel(tmp_path/'index'/'torch', 'torch', '2.6.0+cpu')
    assert ask(index)[0] == ''

def test_an_index_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(torch_backend, 'SECONDS', 1)
    monkeypatch.setattr(torch_backend, 'PATIENCE', dict(UV_HTTP_TIMEOUT='3600', UV_HTTP_READ_TIMEOUT='3600'))  # uv itself would wait
    ended = []
    def spy(*args, run=torch_backend.subprocess.run, **kw):
        try: return run(*args, **kw)
        except torch_backend.subprocess.TimeoutExpired as e: ended.append(e.timeout); raise
    monkeypatch.setattr(torch_backend.subprocess, 'run', spy)
    with socket.create_server(('127.0.0.1', 0)) as s:  # takes the call and says nothing
        address = f'http://127.0.0.1:{s.getsockname()[1]}/'
        assert not torch_backend.can_reach(['--default-index', address])
    assert ended == [1]

def test_with_a_gpu_the_lock_is_followed(ask, index, tmp_path):
    write_program(tmp_path/'bin'/'nvidia-smi', 'echo "GPU 0: a fake"')
    backend, line = ask(index)
    assert backend == '' and 'NVIDIA GPU is seen' in line and 'with CUDA' in line

@no_gpu
def test_an_nvidia_smi_that_fails_is_no_gpu(ask, index, tmp_path):
    write_program(tmp_path/'bin'/'nvidia-smi', 'exit 9')
    assert ask(index)[0] == 'cpu'

def test_the_device_tells_too(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert torch_backend.has_gpu(tmp_path) and not torch_backend.has_gpu(tmp_path/'nvidia0')

@pytest.mark.parametrize('own', ['cpu', 'auto', 'cu128', 'none'])
def test_what_the_user_says_wins(ask, index, far, tmp_path, own):
    backend = '' if own == 'none' else own
    assert ask(index, TORCH_BACKEND=own)[0] == backend
    write_program(tmp_path/'bin'/'nvidia-smi')
    assert ask(far, TORCH_BACKEND=own)[0] == backend

@no_gpu
def test_an_empty_word_says_nothing(ask, index):
    assert ask(index, TORCH_BACKEND='')[0] == 'cpu'

def test_other_systems_have_nothing_to_choose():
    for o in 'darwin', 'win32': assert torch_backend.choose(platform=o)[0] == ''

def test_without_arguments_uv_knows_where_the_builds_are(monkeypatch):
    "Cut off from all networks uv finds none, and the reason is not an option that it lacks"
    monkeypatch.setenv('UV_OFFLINE', '1')
    monkeypatch.setenv('UV_NO_CACHE', '1')
    assert not torch_backend.can_reach(torch_backend.CPU)
    uv = [sys.executable, '-m', 'uv', 'pip', 'install', '--help']
    assert '--torch-backend' in run(uv).stdout

@pytest.mark.skipif(not shutil.which('make'), reason='needs make')
@pytest.mark.parametrize('own,option', [('cpu', '--torch-backend=cpu'), ('none', None)])
def test_make_hands_the_answer_to_uv(tmp_path, own, option):
    "`make`, with a Python that notes what it is told, and runs nothing but the script"
    for o in 'Makefile', 'requirements.lock', 'pyproject.toml': shutil.copy(ROOT/o, tmp_path)
    (tmp_path/'.venv').mkdir()
    fake = write_program(tmp_path/'bin'/'python', f'echo "$@" >> {tmp_path}/told',
                         f'[ "$1" != authors/torch_backend.py ] || exec {sys.executable} {ROOT}/$1')
    make = ['make', '.venv/ready', f'PYTHON={sys.executable}', f'PY={fake}']
    res = run(make, cwd=tmp_path, **PLAIN | dict(TORCH_BACKEND=own))
    assert res.returncode == 0 and f'as you say: {own}' in res.stderr, res.stderr
    told = (tmp_path/'told').read_text().splitlines()
    found, = [o for o in told if '-r requirements.lock' in o]
    assert re.findall(r'--torch-backend\S*', found) == ([option] if option else [])
