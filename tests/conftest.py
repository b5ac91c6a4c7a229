"""All tests run in profile `quick` on sketches, and never touch the learner's own folder."""
import os, shutil, sys, tempfile
from pathlib import Path

import pytest
from processes import ROOT, processes

sys.path.append(str(ROOT/'authors'))  # what make and CI use is tested too
HOME = Path(tempfile.mkdtemp(prefix='course-test-'))
ARCHIVE = os.environ.get('COURSE_ARCHIVE', '')
CHROME = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
NBS = sorted(o for o in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts)
def nb_id(path): return path.relative_to(ROOT/'nbs').with_suffix('').as_posix()
LESSONS = NBS
WIDGETS = [o for o in LESSONS if o.parent.name == 'nbs' and o.stem < '3']  # lessons with widgets and exercises; behind them come the pages for the curious

# A value, not a `setdefault`: what the learner's shell or settings.ini says must not matter here.
os.environ.update(COURSE_PROFILE='quick', COURSE_IMAGES='sketches', COURSE_BUDGET='all',
                  COURSE_MY=str(HOME/'my'), COURSE_ARCHIVE='')
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ['OMP_NUM_THREADS'] = '1'  # two processes share two cores
import course_helpers.core.config  # before torch is loaded: it tells its threads to sleep while they wait

def pytest_unconfigure(): shutil.rmtree(HOME, ignore_errors=True)

def pytest_runtest_setup(item):
    if item.get_closest_marker('photos') and not ARCHIVE:
        pytest.skip('needs the photographs: set COURSE_ARCHIVE to imagenette2-160.tgz')

@pytest.fixture
def root(): return ROOT

@pytest.fixture(scope='session')
def archive(): return Path(ARCHIVE)

@pytest.fixture(scope='session')
def photos(archive):
    "Settings with the photographs unpacked and verified"
    from course_helpers.core.config import get_settings
    from course_helpers.data.images import get_images
    s = get_settings(images='photos', archive=str(archive))
    get_images(s)
    return s

@pytest.fixture
def start():
    "Starts processes in the background; they end with the test"
    with processes() as start: yield start
