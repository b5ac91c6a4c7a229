"""Every lesson, from top to bottom, in one process: fastai is loaded once."""
import os, time

import pytest
from conftest import ROOT

LESSONS = sorted((ROOT/'nbs').glob('*.ipynb'))

@pytest.fixture(scope='module', autouse=True)
def loaded():
    "Pay for the slow imports once, and draw the sketches"
    import fastai.vision.all, matplotlib.pyplot, pandas, sklearn, scipy.stats
    from course_helpers.pictures import get_pictures
    get_pictures()

@pytest.mark.parametrize('path', LESSONS, ids=lambda o: o.stem)
def test_lesson(path):
    from nbdev.test import test_nb as run_lesson
    env, start = dict(os.environ), time.perf_counter()
    try: ok, _ = run_lesson(path, do_print=False)
    finally: os.environ.clear(); os.environ.update(env)
    seconds = time.perf_counter()-start
    assert ok, f'{path.name} failed: see the traceback above'
    assert seconds < 20, f'{path.name} took {seconds:.0f} s in profile quick; 20 s are allowed'
