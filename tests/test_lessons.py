"""Every lesson from top to bottom, in one process: fastai is loaded once. Those that the browser test runs too, run there alone."""
import os, time, warnings

import pytest
from conftest import CHROME, LESSONS, WIDGETS, nb_id

GOAL = 40  # CPU seconds: 20 on the clock of two quiet cores; more is told, and no failure, for machines differ

@pytest.fixture(scope='module', autouse=True)
def loaded():
    "Pay for the slow imports once, and draw the sketches"
    import fastai.vision.all, matplotlib.pyplot, pandas, sklearn, scipy.stats
    from course_helpers.data.images import get_images
    get_images()

@pytest.fixture(autouse=True)
def forgotten_return(monkeypatch):
    "Every exercise that asks for a function is also proved with one that returns nothing"
    from course_helpers.exercises.kit import Exercise
    prove = Exercise.prove
    def forgot(*args, **kwargs): pass
    def prove_more(self):
        if self.codes[0].startswith('def '): assert 'returns nothing' in self.judge(forgot).message, self.name
        return prove(self)
    monkeypatch.setattr(Exercise, 'prove', prove_more)

def run_lesson(path):
    "Run a lesson; returns whether it passed and its CPU seconds"
    from nbdev.test import test_nb
    env, start = dict(os.environ), time.process_time()
    try: ok, _ = test_nb(path, do_print=False)
    finally: os.environ.clear(); os.environ.update(env)
    return ok, time.process_time()-start

@pytest.mark.parametrize('path', LESSONS, ids=nb_id)
def test_lesson(path, request):
    if CHROME and path in WIDGETS and any(path.name in o.name for o in request.session.items): pytest.skip('runs in the browser')
    ok, seconds = run_lesson(path)
    assert ok, f'{path.name} failed: see the traceback above'
    if seconds > GOAL: warnings.warn(f'{path.name} took {seconds:.0f} CPU seconds; the goal is {GOAL}')

@pytest.mark.photos
@pytest.mark.parametrize('path', [o for o in LESSONS if o.stem[:2] in '01 02 03 04 05 06 07 10 11 12 13 20'.split() or o.stem == 'loaders' or 'experiments' in o.parts], ids=nb_id)
def test_lesson_on_photographs(path, photos, monkeypatch):
    monkeypatch.setenv('COURSE_IMAGES', 'photos')
    assert run_lesson(path)[0], f'{path.name} failed on photographs: see the traceback above'
