"""Do the committed records hold? Each is what the plan asks, and is made of what its arm and settings give today."""
import random, re, shlex, tomllib
from dataclasses import replace

import pytest
from conftest import ROOT
from processes import course, run
from course_helpers.core.config import get_settings
from course_helpers.data.images import ImageSet, get_images
from course_helpers.records.answers import answer
from course_helpers.records.questions import get_question, read_plan
from course_helpers.records.run import load_runs, read_run
from course_helpers.records.stats import find_differences, spread
from course_helpers.records.tables import group_runs
from PIL import Image

PHOTOS = 'imagenette2-160'
def drawn(run): return run.images['name'].startswith('sketches')

def known_sets():
    "The image sets that records are of; the photographs only by their fingerprint"
    mark, = {o.images['fingerprint'] for o in load_runs() if o.images['name'] == PHOTOS}
    return dict(photos=ImageSet(PHOTOS, ROOT, mark, ()), sketches=get_images(get_settings(images='sketches')))

def planned_of(run):
    "The run that a record says it is, to be made today"
    from course_helpers.experiments.plan import Planned
    kind = 'sketches' if drawn(run) else 'photos'
    return Planned(run.arm, run.seed, get_settings(profile=run.profile, budget=run.budget, images=kind))

def test_name_hash_and_content_of_a_record_agree():
    paths = sorted((ROOT/'data'/'runs').glob('*.json'))
    for path in paths:
        run = read_run(path)  # refuses a config that does not have its hash
        assert path.stem == run.file and set(shlex.split(run.command)) >= {run.arm, run.profile, run.budget, str(run.seed)}, path.name
    assert len(paths) == len(load_runs())

def test_every_record_is_what_its_arm_and_settings_give_today():
    from course_helpers.experiments.plan import to_do
    runs = load_runs()
    stale = to_do([planned_of(o) for o in runs], known_sets(), runs)
    assert len(runs) > 600 and not stale, [o.command for o in stale]

def test_plan_and_records_are_each_other():
    from course_helpers.experiments.plan import plan_questions, to_do
    plans, runs = plan_questions([*read_plan()]), load_runs()
    asked = plan_questions([k for k,q in read_plan().items() if not q.open])
    assert not to_do(asked, known_sets(), runs), 'make runs makes them'
    wanted = {(o.arm, o.seed, o.s.profile, o.s.budget, o.s.images) for o in plans}
    there = {(o.arm, o.seed, o.profile, o.budget, 'sketches' if drawn(o) else 'photos') for o in runs}
    assert there <= wanted, f'no question asks for {there-wanted}'
    for k,q in read_plan().items(): assert not q.open or to_do(plan_questions([k]), known_sets(), runs), f'{k} is open, and all its runs are there'

def test_a_record_made_of_other_settings_is_to_do_again():
    "As when settings were fit to an arm twice, and SGD trained with a ten-thousandth of the weight decay"
    from course_helpers.experiments.plan import to_do
    run = load_runs(arm='transfer/all+sgd/20', seed=0)[0]
    plan, sets = planned_of(run), known_sets()
    assert run.config['wd'] == pytest.approx(plan.s.wd/100) and to_do([plan], sets, [run]) == []
    for change in dict(wd=run.config['wd']/100), dict(lr=.02), dict(bs=64), dict(epochs=2):
        assert to_do([plan], sets, [replace(run, config={**run.config, **change})]) == [plan], change

@pytest.mark.photos
def test_every_config_is_what_its_arm_builds_today(photos):
    "Everything that a record keeps of how it was made, and its first weights; one seed of each arm"
    from course_helpers.experiments.arm import build_arm, get_config, parse_arm
    from course_helpers.records.run import get_versions
    sets = dict(photos=get_images(photos), sketches=get_images(get_settings(images='sketches')))
    for runs in group_runs(load_runs()):
        old, arm = min(runs, key=lambda o: o.seed), parse_arm(runs[0].arm)
        s = replace(planned_of(old).s, data=photos.data)
        trial = build_arm(arm, s, sets[s.images], old.seed)
        assert get_config(arm, trial) == old.config, old.command
        if old.versions == get_versions(): assert trial.learn.start == old.start, f'{old.command}: other first weights'
        assert arm.module == old.module

@pytest.mark.photos
def test_a_committed_record_can_be_made_again(photos, tmp_path):
    seed = random.randrange(10**6)
    print(f'drawn by seed {seed}')
    groups = group_runs(load_runs(profile='cpu', images=PHOTOS))
    runs = [o for arm in groups if len(arm) >= 5 for o in arm]  # fewer have no spread to go by
    old = min(random.Random(seed).sample(runs, 5), key=lambda o: o.train_seconds)
    arm = next(o for o in groups if old in o)
    res = run(course(*shlex.split(old.command), '--to', tmp_path), timeout=600, COURSE_MY=tmp_path/'my', COURSE_DATA=photos.data_path)
    assert res.returncode == 0, f'{old.command}\n{res.stdout}\n{res.stderr}'
    new, = load_runs(tmp_path)
    assert (new.config, new.images, new.seed, new.images_seen) == (old.config, old.images, old.seed, old.images_seen), old.command
    if new.versions == old.versions: assert new.start == old.start, f'{old.command}: other first weights'
    for k in old.scores:
        mean, sd, n = spread([o.scores[k]['accuracy'] for o in arm])
        assert abs(new.scores[k]['accuracy']-mean) <= 4*sd, f'{old.command}: {k} {new.scores[k]}, mean {mean}, sd {sd}, n {n}'

def test_records_of_an_arm_differ_only_in_their_seed_and_no_seed_is_there_twice():
    for runs in group_runs(load_runs()):
        assert len({o.seed for o in runs}) == len(runs) and len({o.command for o in runs}) == len(runs), runs[0].arm
    arms = {(o[0].arm, o[0].profile, o[0].budget, o[0].images['name']) for o in group_runs(load_runs())}
    assert len(arms) == len(group_runs(load_runs())), 'an arm stands there with two configurations: one of them is stale'

@pytest.mark.parametrize('q', read_plan().values(), ids=lambda o: o.name)
def test_a_question_names_its_lesson_and_only_what_differs(q):
    assert (ROOT/'nbs'/f'{q.lesson}.ipynb').exists()
    runs = {(o.arm, o.budget): o for o in load_runs(profile=q.profile) if drawn(o) == (q.images == 'sketches')}
    for p in () if q.open else q.pairs:
        assert {*p.differs} == {*find_differences(runs[p.without, p.budget], runs[p.with_, p.budget])} or p.without == p.with_, p.row

def test_every_question_of_the_plan_is_answered_in_its_lesson():
    for q in read_plan().values():
        if not q.pairs or q.open: continue
        text = (ROOT/'nbs'/f'{q.lesson}.ipynb').read_text(encoding='utf-8')
        assert f"'{q.name}'" in text, f'{q.lesson} does not ask {q.name!r}'
        assert answer(q).n == q.seeds

def test_lessons_list_no_comparisons():
    for o in (ROOT/'nbs').glob('*.ipynb'):
        if o.stem[:2] != '95': assert not re.search(r'\b(compare|correct_holm)\(', o.read_text(encoding='utf-8')), f'{o.name}: the plan says what is compared'

def test_tables_and_image_are_made_of_these_records():
    import evidence
    text = evidence.README.read_text(encoding='utf-8')
    assert evidence.readme(text) == text and evidence.RESULTS.read_text(encoding='utf-8') == evidence.results(), 'make export writes them anew'
    assert Image.open(evidence.PICTURE).info['runs'] == evidence.stamp(), 'make export draws it anew'

FAMILY = '''
from dataclasses import dataclass
from course_helpers.training import get_learner
from course_helpers.experiments.arm import Arm, Trial
from course_helpers.data.loaders import get_dls

@dataclass(frozen=True)
class Decay(Arm):
    "Another weight decay"
    wd:float # Weight decay
    module, prefix, example = 'decay', 'decay', 'decay/0.1'
    def settings(self, s): return dict(wd=self.wd, per_class=20, epochs_all=1)
    def build(self, s, images, seed, dev=False): return Trial(get_learner(get_dls(s, images, dev=dev), s, seed))
'''
QUESTION = '''
[decay]
lesson = "12_overfitting"
asks = "Does weight decay help?"
profile = "quick"
seeds = 2
differs = ["wd"]
answers = [{ row = "decay 1", without = "decay/0.01", with = "decay/1.0" }]
'''

def test_a_new_experiment_takes_one_class_and_one_table(tmp_path, monkeypatch, capsys):
    from course_helpers.cli import course_run
    from course_helpers.experiments import arm, plan
    (tmp_path/'made_up_family.py').write_text(FAMILY, encoding='utf-8')
    (tmp_path/'plan.toml').write_text(QUESTION, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(arm.FAMILIES, 'decay', 'made_up_family:Decay')
    monkeypatch.setenv('COURSE_MY', str(tmp_path/'my'))
    q = read_plan(tmp_path/'plan.toml')['decay']
    monkeypatch.setattr(plan, 'get_question', {'decay': q}.__getitem__)
    monkeypatch.setattr(plan, 'get_images', lambda s: replace(get_images(get_settings(images='sketches')), name='made-up'))
    args = ['--plan', 'decay', '--to', str(tmp_path/'runs')]
    assert course_run([*args, '--dry-run']) == 0 and '4 runs wanted, 0 of them' in capsys.readouterr().out
    assert course_run(args) == 0 and course_run([*args, '--dry-run']) == 0
    assert '4 runs wanted, 4 of them' in capsys.readouterr().out
    assert answer(q, tmp_path/'runs').n == 2
    runs = load_runs(tmp_path/'runs')
    assert {(o.arm, o.seed, o.config['wd']) for o in runs} == {(f'decay/{wd}', seed, wd) for wd in (.01, 1.) for seed in (0, 1)}
