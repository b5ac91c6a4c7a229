"""`pytest --halves`: two processes share the tests, for two cores. One goes from the first group on, one from the last, until they meet."""
import os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

import pytest

def pytest_addoption(parser):
    parser.addoption('--halves', action='store_true', help='share the tests between two processes')
    parser.addoption('--claims', help='for the second of the two: the folder in which both note what they took')

class Half:
    "What one of the two does; the first starts the second, shows what it said, and fails if it did"
    def __init__(self, config):
        self.folder = Path(config.option.claims or tempfile.mkdtemp(prefix='course-halves-'))
        self.other, self.taken = None, {}
        os.environ['OMP_NUM_THREADS'] = '1'  # before torch is loaded
        if config.option.claims: return
        self.said = open(self.folder/'said.txt', 'w+', encoding='utf-8')
        args = [*config.invocation_params.args, f'--claims={self.folder}', '-pno:cacheprovider', f'--color={"yes" if sys.stdout.isatty() else "no"}']
        self.other = subprocess.Popen([sys.executable, '-m', 'pytest', *args], cwd=config.invocation_params.dir,
                                      stdout=self.said, stderr=subprocess.STDOUT)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        if not self.other: items[:] = [o for k in reversed(dict.fromkeys(map(group, items))) for o in items if group(o) == k]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        "A true answer says that the test is cared for, by the other half"
        if (k := group(item)) not in self.taken:
            try: (self.folder/re.sub(r'\W', ' ', k)).touch(exist_ok=False)
            except FileExistsError: self.taken[k] = False
            else: self.taken[k] = True
        return None if self.taken[k] else True

    def pytest_sessionfinish(self, session, exitstatus):
        if not self.other: return
        if exitstatus == pytest.ExitCode.INTERRUPTED: self.other.terminate()
        code = self.other.wait()
        if code and not exitstatus: session.exitstatus = code

    def pytest_terminal_summary(self, terminalreporter):
        if not self.other: return
        terminalreporter.section('the other half')
        self.said.seek(0)
        terminalreporter.write(self.said.read())
        self.said.close()
        shutil.rmtree(self.folder, ignore_errors=True)

def group(item):
    "Tests that stay together, for they share what is slow to make: those of a file, but for the lessons, which share nothing"
    return item.nodeid if item.path.name == 'test_lessons.py' else item.path.name

def pytest_configure(config):
    if config.option.halves: config.pluginmanager.register(Half(config), 'half')
