"""Do the committed records hold? One of them is made again by its own command."""
import os, random, shlex, shutil, subprocess, sys

import pytest
from conftest import ROOT
from course_helpers.results import group_runs, load_runs, spread
from PIL import Image

@pytest.mark.photos
def test_a_committed_record_can_be_made_again(photos, tmp_path):
    groups = group_runs(load_runs(profile='cpu', pictures='imagenette2-160'))
    runs = [o for arm in groups if len(arm) >= 5 for o in arm]  # fewer have no spread to go by
    old = min(random.sample(runs, 5), key=lambda o: o.train_seconds)
    arm = next(o for o in groups if old in o)
    args = [*shlex.split(old.command)[1:], '--to', str(tmp_path)]
    code = f'import sys\nfrom course_helpers.runs import course_run\nsys.exit(course_run({args}))'
    env = dict(os.environ, COURSE_MY=str(tmp_path/'my'), COURSE_DATA=str(photos.data_path))
    res = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert res.returncode == 0, f'{old.command}\n{res.stdout}\n{res.stderr}'
    new, = load_runs(tmp_path)
    assert (new.config, new.pictures, new.seed, new.images_seen) == (old.config, old.pictures, old.seed, old.images_seen), old.command
    if new.versions == old.versions: assert new.start == old.start, f'{old.command}: other first weights'
    for k in old.scores:
        mean, sd, n = spread([o.scores[k]['accuracy'] for o in arm])
        assert abs(new.scores[k]['accuracy']-mean) <= 4*sd, f'{old.command}: {k} {new.scores[k]}, mean {mean}, sd {sd}, n {n}'

def test_records_of_an_arm_differ_only_in_their_seed_and_no_seed_is_there_twice():
    for runs in group_runs(load_runs()):
        assert len({o.seed for o in runs}) == len(runs) and len({o.command for o in runs}) == len(runs), runs[0].arm
    arms = {(o[0].arm, o[0].profile, o[0].budget, o[0].pictures['name']) for o in group_runs(load_runs())}
    assert len(arms) == len(group_runs(load_runs())), 'an arm stands there with two configurations: one of them is stale'

@pytest.mark.skipif(not shutil.which('make'), reason='the plan stands in the Makefile')
def test_every_arm_of_the_plan_has_its_seeds():
    lines = subprocess.run(['make', '-n', 'runs'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    plan = [shlex.split(o.replace('@', '')) for o in lines if 'course-run' in o and '--profile cpu' in o]
    assert {(o[o.index('--pictures')+1], o[o.index('--budget')+1]) for o in plan} == {('photos', 'all'), ('photos', 'few'), ('sketches', 'all')}
    for words in plan:
        value = lambda k: words[words.index(k)+1]
        wanted = {int(o) for o in words[words.index('--seeds')+1:words.index('--to')]}
        for arm in words[words.index('--only')+1:]:
            runs = load_runs(arm=arm, profile='cpu', budget=value('--budget'))
            seeds = {o.seed for o in runs if ('sketches' in o.pictures['name']) == (value('--pictures') == 'sketches')}
            once = arm in ('transfer/own/all', 'transfer/features/all') or arm.startswith('search/')  # without chance, or only to choose
            assert seeds >= wanted and (len(wanted) == 5 or once), f'{arm}, budget {value("--budget")}: seeds {seeds}'

def test_table_and_picture_of_the_readme_are_made_of_these_records():
    import evidence
    text = evidence.README.read_text(encoding='utf-8')
    tables = evidence.table(), evidence.picture(), evidence.transfer_table(), evidence.diagnosis_table()
    assert all(o in text for o in tables), 'make export writes them anew'
    assert Image.open(evidence.PICTURE).info['runs'] == evidence.stamp(), 'make export draws it anew'
