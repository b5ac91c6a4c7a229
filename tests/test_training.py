"""Training that is killed, watched, and asked for wrong things."""
import os, signal, subprocess, sys

import pytest
from conftest import ROOT

SCRIPT = '''
from course_helpers.config import get_settings
from course_helpers.baseline import get_learner, train
from course_helpers.loaders import get_dls
s = get_settings(per_class=40, epochs_all=4, my={my!r})
run = train(get_learner(get_dls(s), s, seed=3))
'''

def run_here(my):
    "Run the script in this process, where fastai is loaded"
    names = {}
    exec(SCRIPT.format(my=str(my)), names)
    return names['run']

def kept(my): return sorted(o.suffix for o in my.rglob('*') if o.is_file())

@pytest.mark.skipif(os.name != 'posix', reason='needs a pseudo-terminal')
def test_killed_training_goes_on_and_ends_like_one_that_was_not(tmp_path, capsys):
    import pty
    out, term = pty.openpty()
    proc = subprocess.Popen([sys.executable, '-c', SCRIPT.format(my=str(tmp_path/'killed'))], cwd=ROOT, stdout=term, stderr=term)
    os.close(term)
    text = ''
    while 'epoch 2 of 4: training loss' not in text: text += os.read(out, 1 << 16).decode()
    proc.send_signal(signal.SIGKILL); proc.wait(); os.close(out)
    assert '\r' in text and kept(tmp_path/'killed') == ['.pt'], 'progress in a terminal; a checkpoint and no record'

    resumed = run_here(tmp_path/'killed')
    lines = capsys.readouterr().out.splitlines()
    assert 'This training was stopped after epoch 2: going on.' in lines
    assert [o[:7] for o in lines if o.startswith('epoch')] == ['epoch 3', 'epoch 4'], 'plain lines, from the third epoch on'
    whole = run_here(tmp_path/'whole')
    same = 'train_loss', 'valid_loss', 'accuracy', 'pictures'
    assert [[o[k] for k in same] for o in resumed.curve] == [[o[k] for k in same] for o in whole.curve]
    assert resumed.correct == whole.correct and resumed.loss == whole.loss and resumed.start == whole.start
    assert kept(tmp_path/'killed') == kept(tmp_path/'whole') == ['.json']

def test_other_settings_do_not_go_on_from_a_foreign_checkpoint(tmp_path):
    from course_helpers.baseline import get_learner, train
    from course_helpers.config import get_settings
    from course_helpers.loaders import get_dls
    s = get_settings(per_class=10, epochs_all=1, my=str(tmp_path))
    a = train(get_learner(get_dls(s), s, seed=0))
    b = train(get_learner(get_dls(s), s, seed=1))
    assert len(a.curve) == len(b.curve) == 1 and a.start != b.start
    assert a.images_seen == 96 and a.scores['val']['n'] == 400

def test_cpu_profile_without_photographs_says_how_to_get_them(tmp_path, monkeypatch, capsys):
    from course_helpers.runs import course_run
    monkeypatch.setenv('COURSE_DATA', str(tmp_path))
    assert course_run(['--profile', 'cpu', '--pictures', 'auto']) == 1
    assert 'course-data --download 160' in capsys.readouterr().err

def test_plan_skips_what_is_there(tmp_path):
    from course_helpers.config import get_settings
    from course_helpers.pictures import get_pictures
    from course_helpers.runs import Plan, to_do
    s = get_settings(my=str(tmp_path))
    run = run_here(tmp_path)
    plans = [Plan('baseline', seed, s) for seed in (run.seed, run.seed+1)]
    assert to_do(plans, get_pictures(s), tmp_path/'runs') == plans[1:]
