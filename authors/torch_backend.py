"""Which build of PyTorch to set up: prints `cpu` or nothing, and why on standard error.

It needs Python and uv, nothing else. Arguments stand in for the options that find CPU builds."""
import os, re, shutil, subprocess, sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent/'requirements.lock'
CPU = ['--torch-backend=cpu']
SECONDS = 8  # a slow line gets as long as this; without a line uv gives up sooner
PATIENCE = dict(UV_HTTP_CONNECT_TIMEOUT='3', UV_HTTP_TIMEOUT='5', UV_HTTP_RETRIES='1')
LOCKED = 'PyTorch is set up as the lock says'
CUDA = f'{LOCKED}, with CUDA, some 3.4 GB in all.'
SMALL = "PyTorch's CPU build is set up, without CUDA."
CHANGE = (' To change that: make clean, then TORCH_BACKEND=auto make lab, or =cpu,'
          ' or =none for what the lock says.')

def works(
    cmd:list,     # program and arguments
    text:str='',  # what it reads on standard input
)->bool:
    "Does the command end well, and soon?"
    try:
        return subprocess.run(cmd, input=text, capture_output=True, text=True, timeout=SECONDS,
                              env={**os.environ, **PATIENCE}).returncode == 0
    except (OSError, subprocess.TimeoutExpired): return False

def has_gpu(
    device:Path=Path('/dev/nvidia0'),  # what the driver makes for the first GPU
)->bool:
    "Is an NVIDIA GPU seen, by its device or by an `nvidia-smi` that works?"
    smi = shutil.which('nvidia-smi')
    return device.exists() or bool(smi and works([smi, '-L']))

def can_reach(
    options:list,  # for uv: where the builds are
)->bool:
    "Does uv find the versions that the lock names? It reads the index, and downloads no build."
    pins = re.findall(r'^torch(?:vision)?==[^\s;]+', LOCK.read_text(encoding='utf-8'), re.M)
    uv = [sys.executable, '-m', 'uv', 'pip', 'compile', '--no-deps', '--python', sys.executable]
    return works([*uv, *options, '-'], '\n'.join(pins))

def choose(
    options:list=CPU,           # for uv: where the CPU builds are
    own:str='',                 # what the user says
    platform:str=sys.platform,  # only Linux has a choice: elsewhere the lock has no CUDA
)->tuple:
    "What uv's `--torch-backend` should be, or nothing, and a line that says why"
    if own: return '' if own == 'none' else own, f'PyTorch is set up as you say: {own}.'
    if platform != 'linux': return '', f'{LOCKED}.'
    if has_gpu(): return '', f'An NVIDIA GPU is seen. {CUDA}{CHANGE}'
    if can_reach(options): return 'cpu', f"No NVIDIA GPU is seen. {SMALL}{CHANGE}"
    return '', f"No NVIDIA GPU is seen, but PyTorch's CPU builds can't be reached. {CUDA}{CHANGE}"

if __name__ == '__main__':
    own = os.environ.get('TORCH_BACKEND') or os.environ.get('UV_TORCH_BACKEND', '')
    backend, why = choose(sys.argv[1:] or CPU, own)
    print(why, file=sys.stderr)
    print(backend)
