"""Processes of the tests: one way to start them, to wait for what they do, and to end them and all that they started."""
import os, subprocess, sys, time, uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil, pytest

ROOT = Path(__file__).resolve().parent.parent

def python(code, *args): return [sys.executable, '-W', 'ignore', '-c', code, *args]

def course(name, *args):
    "A command of the course, which need not be on PATH"
    func = name.replace('-', '_')
    return python(f'import sys\nfrom course_helpers.cli import {func}\nsys.exit({func}(sys.argv[1:]))', *args)

def marked(mark):
    "Living processes that were started with a mark in their environment, and what they started in turn"
    for o in psutil.process_iter():
        with suppress(psutil.Error):
            if o.environ().get('COURSE_TEST') == mark and o.status() != psutil.STATUS_ZOMBIE: yield o

@contextmanager
def processes():
    "Gives a `start` that is `Popen` with the environment of the tests; at the end all are ended, and all that these started"
    procs = []
    def start(command, cwd=ROOT, pipes={}, **env):
        "Run in the background; a word of the environment that is None is taken away"
        env = {**os.environ, 'PYTHONPATH': ROOT, **env, 'COURSE_TEST': uuid.uuid4().hex}
        pipes = {**dict.fromkeys(['stdin', 'stdout', 'stderr'], subprocess.PIPE), **pipes}
        procs.append(proc := subprocess.Popen([*map(str, command)], cwd=cwd, encoding='utf-8', errors='surrogateescape',
                                              env={k: str(v) for k,v in env.items() if v is not None}, **pipes))
        proc.mark = env['COURSE_TEST']
        return proc
    try: yield start
    finally:
        for proc in procs:
            for o in marked(proc.mark): o.kill()
            proc.wait(60)
            for o in filter(None, (proc.stdin, proc.stdout, proc.stderr)):
                with suppress(OSError): o.close()

def ended(proc, timeout=300, input=None):
    "Wait for the end of a process; gives it with its code, and what it said"
    try: out, err = proc.communicate(input, timeout)
    except subprocess.TimeoutExpired as e: pytest.fail(f'{proc.args} did not end within {timeout} s. It said: {e.stdout} {e.stderr}')
    return subprocess.CompletedProcess(proc.args, proc.returncode, out, err)

def run(command, timeout=300, input=None, **kw):
    "Run to the end; the result has `returncode`, `stdout` and `stderr`"
    with processes() as start: return ended(start(command, **kw), timeout, input)

def wait_for(found, what, proc=None, seconds=120):
    "The first true value of `found()`; fails where it takes too long, or where `proc` ends before"
    end = time.monotonic()+seconds
    while True:
        if res := found(): return res
        if proc and proc.poll() is not None: pytest.fail(f'{what}: the process ended before, with code {proc.returncode}')
        if time.monotonic() > end: pytest.fail(f'{what}: not within {seconds} s')
        time.sleep(.02)
