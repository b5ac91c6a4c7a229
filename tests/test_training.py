"""Training that is killed, watched, and asked for wrong things."""
import os, signal

import pytest
from processes import course, python, wait_for

SCRIPT = '''
from course_helpers.core.config import get_settings
from course_helpers.training import get_learner, train
from course_helpers.data.loaders import get_dls
from fastai.callback.mixup import MixUp
s = get_settings(per_class=40, epochs_all=4, my={my!r})
run = train(get_learner(get_dls(s), s, seed=3, cbs=MixUp()))
'''

def run_here(my):
    "Run the script in this process, where fastai is loaded"
    names = {}
    exec(SCRIPT.format(my=str(my)), names)
    return names['run']

def kept(my): return sorted(o.suffix for o in my.rglob('*') if o.is_file())

@pytest.mark.skipif(os.name != 'posix', reason='needs a pseudo-terminal')
def test_killed_training_goes_on_and_ends_like_one_that_was_not(tmp_path, capsys, start):
    import pty
    out, term = pty.openpty()
    proc = start(python(SCRIPT.format(my=str(tmp_path/'killed'))), pipes=dict(stdout=term, stderr=term))
    os.close(term)
    text = ''
    while 'epoch 2 of 4: training loss' not in text: text += os.read(out, 1 << 16).decode()
    proc.kill(); proc.wait(); os.close(out)
    assert '\r' in text and kept(tmp_path/'killed') == ['.pt'], 'progress in a terminal; a checkpoint and no record'

    resumed = run_here(tmp_path/'killed')
    lines = capsys.readouterr().out.splitlines()
    assert 'This training was stopped after epoch 2: going on.' in lines
    assert [o[:7] for o in lines if o.startswith('epoch')] == ['epoch 3', 'epoch 4'], 'plain lines, from the third epoch on'
    whole = run_here(tmp_path/'whole')
    same = 'train_loss', 'valid_loss', 'accuracy', 'images'
    assert [[o[k] for k in same] for o in resumed.curve] == [[o[k] for k in same] for o in whole.curve]
    assert resumed.correct == whole.correct and resumed.loss == whole.loss and resumed.start == whole.start
    assert kept(tmp_path/'killed') == kept(tmp_path/'whole') == ['.json']

def test_stopped_by_hand_goes_on_with_the_same_learner(tmp_path, capsys):
    from fastai.callback.core import Callback
    from course_helpers.training import get_learner, train
    from course_helpers.core.config import get_settings
    from course_helpers.data.loaders import get_dls
    s = get_settings(per_class=40, epochs_all=4, my=str(tmp_path))
    learn = get_learner(get_dls(s), s)
    class Stop(Callback):
        def after_batch(self):
            if self.epoch == 2: raise KeyboardInterrupt
    stop = Stop()
    learn.add_cb(stop)
    with pytest.raises(KeyboardInterrupt): train(learn)
    learn.remove_cb(stop)
    run = train(learn)
    assert 'stopped after epoch 2: going on' in capsys.readouterr().out and len(run.curve) == 4
    with pytest.raises(ValueError, match='trained already'): train(learn)

def test_other_settings_do_not_go_on_from_a_foreign_checkpoint(tmp_path):
    from course_helpers.training import get_learner, train
    from course_helpers.core.config import get_settings
    from course_helpers.data.loaders import get_dls
    s = get_settings(per_class=10, epochs_all=1, my=str(tmp_path))
    a = train(get_learner(get_dls(s), s, seed=0))
    b = train(get_learner(get_dls(s), s, seed=1))
    assert len(a.curve) == len(b.curve) == 1 and a.start != b.start
    assert a.images_seen == 96 and a.scores['val']['n'] == 400

def test_cpu_profile_without_photographs_says_how_to_get_them(tmp_path, monkeypatch, capsys):
    from course_helpers.cli import course_run
    monkeypatch.setenv('COURSE_DATA', str(tmp_path))
    assert course_run(['--profile', 'cpu', '--images', 'auto']) == 1
    assert 'course-data --download 160' in capsys.readouterr().err

def arms(my): return sorted((o.arm, o.seed) for o in load_all(my))
def load_all(my):
    from course_helpers.records.run import load_runs
    return load_runs(my/'runs')

def test_killed_plan_goes_on_and_makes_no_run_twice(tmp_path, monkeypatch, capsys, start):
    from course_helpers.cli import course_run
    args = ['--only', 'normalize+resize', 'mixup', '--seeds', '0']
    proc = start(course('course-run', *args), COURSE_MY=tmp_path/'killed')
    wait_for(lambda: [*tmp_path.glob('killed/runs/*.json')] and [*tmp_path.glob('killed/checkpoints/mixup*.pt')],
             'a record of the first run, and a checkpoint of the second', proc)
    proc.kill(); proc.wait()
    first = next(tmp_path.glob('killed/runs/*.json'))
    before = first.stat().st_mtime_ns

    monkeypatch.setenv('COURSE_MY', str(tmp_path/'killed'))
    assert course_run(args) == 0
    out = capsys.readouterr().out
    assert '2 runs wanted, 1 of them have a record' in out and 'val_tta %' in out
    assert first.stat().st_mtime_ns == before, 'a finished run is kept'
    assert arms(tmp_path/'killed') == [('mixup', 0), ('normalize+resize', 0)]
    assert not list(tmp_path.glob('killed/checkpoints/*'))
    left = tmp_path/'killed'/'checkpoints'/f'{first.stem}.pt'
    left.touch()  # as after a kill between the record and the end of its checkpoint
    assert course_run(args) == 0 and '2 of them have a record' in capsys.readouterr().out and not left.exists()

def test_second_command_at_once_is_refused(tmp_path, monkeypatch, capsys):
    from filelock import FileLock
    from course_helpers.cli import course_run
    monkeypatch.setenv('COURSE_MY', str(tmp_path))
    with FileLock(tmp_path/'course-run.lock'): assert course_run(['--only', 'mixup']) == 1
    assert 'Another course-run is at work' in capsys.readouterr().err and not list(tmp_path.glob('runs/*'))

def test_changed_settings_are_another_run(tmp_path):
    from dataclasses import replace
    from course_helpers.core.config import get_settings
    from course_helpers.data.images import get_images
    from course_helpers.experiments.arm import run_arm
    from course_helpers.experiments.plan import Planned, to_do
    s = get_settings(my=str(tmp_path), per_class=20, epochs_all=1)
    images = get_images(s)
    run = run_arm('baseline', s, images)
    plans = [Planned('baseline', 0, s), Planned('baseline', 1, s), Planned('baseline', 0, replace(s, lr=.1)), Planned('mixup', 0, s)]
    assert to_do(plans, {s.images: images}, [run]) == plans[1:]
    assert set(run.scores) == {'val', 'val_flip', 'val_tta'} and run.module == 'recipe'

def test_classes_of_plain_lists_are_counted():
    import torch
    from fastai.data.core import DataLoader, DataLoaders
    from course_helpers.overfitting import check_classes
    def loaders(labels, vocab):
        rows = [(torch.zeros(2), torch.zeros(2), torch.tensor(o)) for o in labels]
        valid = DataLoader(rows, bs=2)
        valid.vocab = vocab
        return DataLoaders(valid, valid)
    assert check_classes(loaders([0, 1, 1], ['fig', 'pear'])) == {'fig': 1, 'pear': 2}
    with pytest.raises(ValueError, match='none of: plum'): check_classes(loaders([0, 1, 1], ['fig', 'pear', 'plum']))
