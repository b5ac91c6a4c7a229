"Records on disk: crashes, damage, and several writers at once"
import math
from dataclasses import replace

import pytest
from course_helpers.records.run import load_runs, save_run
from processes import python, run

MAKE = '''
import sys
from course_helpers.records.run import Run, save_run
def make(seed=0, accuracy=.5):
    return Run('test', 'baseline', 'quick', 'all', dict(name='made-up', fingerprint='none'),
               dict(lr=.01), 'none', seed, scores=dict(val=dict(accuracy=accuracy, n=100)))
'''
exec(MAKE)  # the same maker here and in the processes

def test_crash_before_move_keeps_old_record(tmp_path):
    save_run(make(), tmp_path)
    code = 'import os\nos.replace = lambda *a: os._exit(9)\nsave_run(make(accuracy=.9), sys.argv[1])'
    assert run(python(MAKE+code, tmp_path)).returncode == 9
    assert len([*tmp_path.glob('*.tmp')]) == 1
    assert [o.scores['val']['accuracy'] for o in load_runs(tmp_path)] == [.5]

def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*a): raise OSError('disk full')
    monkeypatch.setattr('course_helpers.core.files.os.replace', fail)
    with pytest.raises(OSError, match='disk full'): save_run(make(), tmp_path)
    assert not [*tmp_path.iterdir()]

@pytest.mark.parametrize('damage', [
    lambda s: s[:len(s)//2], lambda s: '', lambda s: '[]', lambda s: '[1]', lambda s: 'null', lambda s: '3',
    lambda s: s.replace('"seed"', '"sed"'), lambda s: s.replace('0.01', '0.02'),
    lambda s: s.replace('0.5', '50'), lambda s: s.replace('0.5', 'NaN'), lambda s: s.replace('0.5', '"x"'),
    lambda s: s.replace('"accuracy"', '"acc"'), lambda s: s.replace('made-up', '\udcff')])
def test_damaged_record_is_named(tmp_path, monkeypatch, damage):
    path = save_run(make(), tmp_path/'runs')
    text = damage(path.read_text(encoding='utf-8'))
    path.write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(ValueError, match=path.name): load_runs(tmp_path/'runs')

def test_own_damaged_records_are_skipped_and_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('COURSE_MY', str(tmp_path))
    save_run(make(), tmp_path/'runs')
    (tmp_path/'runs'/'bad.json').write_text('{', encoding='utf-8')
    assert len(load_runs(tmp_path/'runs')) == 1
    assert "1 that can't be read (bad.json)" in capsys.readouterr().out

@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_not_finite_is_refused(tmp_path, bad):
    for field in (dict(loss=dict(val=bad)), dict(curve=[dict(epoch=0, train_loss=bad)]), dict(train_seconds=bad)):
        with pytest.raises(ValueError, match='finite'): save_run(replace(make(), **field), tmp_path)
    with pytest.raises(ValueError): make(accuracy=bad)
    assert not [*tmp_path.iterdir()]

def test_two_processes_save_at_once(tmp_path, start):
    code = 'o = make()\nfor i in range(300): save_run(o, sys.argv[1])'
    procs = [start(python(MAKE+code, tmp_path)) for _ in range(2)]
    while any(o.poll() is None for o in procs): assert len(load_runs(tmp_path)) <= 1
    assert [o.returncode for o in procs] == [0, 0]
    assert len([*tmp_path.iterdir()]) == 1

def test_names_do_not_collide(tmp_path):
    run = make()
    runs = [run, make(seed=1), replace(run, arm='a/b'), replace(run, arm='a_b'), replace(run, budget='few'),
            replace(run, config=dict(lr=.02)), replace(run, images=dict(name='made-up', fingerprint='other'))]
    assert len({save_run(o, tmp_path).name.lower() for o in runs}) == len(runs) == len(load_runs(tmp_path))

def test_import_is_light():
    code = ("import sys, course_helpers.records.run\n"
            "print([o for o in ('torch', 'fastai', 'pandas', 'scipy', 'matplotlib') if o in sys.modules])")
    assert run(python(code)).stdout.strip() == '[]'
