"""Every lesson from top to bottom, in one process: fastai is loaded once. Those that the browser test runs too, run there alone."""
import os, time, warnings

import pytest
from conftest import CHROME, LESSONS, WIDGETS, nb_id

GOAL, SWING = 20, 2.4  # seconds on two quiet cores; how much the clock of a shared machine was seen to swing (50 to 125 s for like runs)

@pytest.fixture(scope='module', autouse=True)
def loaded():
    "Pay for the slow imports once, and draw the sketches"
    import fastai.vision.all, matplotlib.pyplot, pandas, sklearn, scipy.stats
    from course_helpers.data.images import get_pictures
    get_pictures()

def run_lesson(path):
    "Run a lesson; returns whether it passed and its seconds"
    from nbdev.test import test_nb
    env, start = dict(os.environ), time.perf_counter()
    try: ok, _ = test_nb(path, do_print=False)
    finally: os.environ.clear(); os.environ.update(env)
    return ok, time.perf_counter()-start

@pytest.mark.parametrize('path', LESSONS, ids=nb_id)
def test_lesson(path, request):
    if CHROME and path in WIDGETS and any(path.name in o.name for o in request.session.items): pytest.skip('runs in the browser')
    ok, seconds = run_lesson(path)
    assert ok, f'{path.name} failed: see the traceback above'
    if seconds > GOAL: warnings.warn(f'{path.name} took {seconds:.0f} s; the goal on quiet cores is {GOAL} s')
    assert seconds < GOAL*SWING, f'{path.name} took {seconds:.0f} s; {GOAL} s are the goal on two quiet cores'

@pytest.mark.photos
@pytest.mark.parametrize('path', [o for o in LESSONS if o.stem[:2] in '01 02 03 04 05 06 07 10 11 12 13 20 94'.split() or 'experiments' in o.parts], ids=nb_id)
def test_lesson_on_photographs(path, photos, monkeypatch):
    monkeypatch.setenv('COURSE_PICTURES', 'photos')
    assert run_lesson(path)[0], f'{path.name} failed on photographs: see the traceback above'
