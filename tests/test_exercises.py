"""The exercise kit where no cell can look: a kernel, plain Python, the command, Stop"""
import json, os, signal, sys, threading, time
from pathlib import Path

import pytest
from conftest import NBS, nb_id
from processes import python, run

from course_helpers import cli
from course_helpers.exercises import kit, lab
from course_helpers.exercises.lab import copy_lessons
from course_helpers.cli import course_lab
from course_helpers.core.config import Settings
from course_helpers.exercises.kit import *

@pytest.fixture
def my(tmp_path, monkeypatch):
    monkeypatch.setenv('COURSE_MY', str(tmp_path))
    return tmp_path

def make(check=lambda f: None if f(4) == .25 else 'No.'):
    return Exercise('00_x', 'f', check, 'f = ____', 'def f(n): return 1/n',
                    [('def f(n): return n', 'No')], ['a', 'b'])

class Hostile:
    def __eq__(self, o): raise RuntimeError('eq')
    def __bool__(self): raise RuntimeError('bool')
    def __repr__(self): raise RuntimeError('repr')
    def __getattribute__(self, name): raise RuntimeError('attr')
    __str__ = __hash__ = __len__ = __iter__ = __call__ = __repr__

class Mute(Exception):
    def __str__(self): raise SystemExit('no words')

class HostileList(list):
    def __iter__(self): raise RuntimeError('iter')

def quits(n): raise SystemExit(3)
def breaks(n): raise KeyboardInterrupt
def mute(n): raise Mute
def endless(n): return endless(n)
def surrogate(n): raise ValueError('\ud800' + 'x'*10_000)
def gives_hostile(n): return Hostile()
def closes(n): raise GeneratorExit

FUNCTIONS = quits, breaks, mute, endless, surrogate, gives_hostile, closes
HOSTILE = dict(value=Hostile, type=lambda: Hostile, items=lambda: HostileList([1]),
               nan=lambda: float('nan'), none=lambda: None,
               **{f.__name__: lambda f=f: f for f in FUNCTIONS})

@pytest.mark.parametrize('make_answer', HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize('check', [
    lambda f: None if f(4) == .25 else 'No.', lambda f: f'{f(4)!r}', lambda f: f(4)])
def test_check_never_raises(my, capsys, make_answer, check):
    res = make(check).check(make_answer())
    assert res.outcome in ('error', 'incorrect') and res.message and len(res.message) < 600
    assert capsys.readouterr().out.count(res.message[:20]) == 1 and json.dumps(res._rich())

@pytest.fixture
def interruptible():
    "A background job of a shell ignores Ctrl-C"
    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, was)

def test_a_real_interrupt_goes_through(my, interruptible):
    def busy(n):
        for _ in range(1000): time.sleep(.01)
    threading.Timer(.2, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt): make().check(busy)

@pytest.mark.parametrize('answer', [
    ____, [1, [____]], {'a': ____}, (____,), lambda n: ____, lambda n: [____], lambda n=____: n,
    lambda n: (lambda: ____)()])
def test_placeholder_is_not_an_attempt(my, answer):
    assert make(lambda f: str(f())).check(answer).outcome == 'not attempted'
    assert not (my/'progress.json').exists()

def test_placeholder_from_a_neighbour(my):
    later = [____]
    def f(n): return {'res': later}
    assert make().check(f).outcome == 'not attempted'

def test_placeholder_meets_torch():
    torch = pytest.importorskip('torch')
    x = torch.ones(2)
    for o in (x*____, ____*x, x+____, x-____, x/____, x == ____, ____ @ x): assert o is ____
    assert (torch.ones(2).numpy()*____) is ____

def test_star_import_brings_no_test_names():
    assert '____' in kit.__all__
    assert not [o for o in kit.__all__ if o.startswith('test')]

def test_progress_survives(my, capsys):
    path = my/'progress.json'
    for bad in ('{', '[]', 'null', '\x00'):
        path.write_text(bad, encoding='utf-8')
        assert 'progress.json.bad' in make().check(lambda n: 1/n).note
        assert Path(f'{path}.bad').read_text(encoding='utf-8') == bad
        assert get_progress()['00_x']['outcome'] == 'correct'
    path.write_bytes(b'\xff\xfe')
    assert get_progress() == {} and 'damaged' in save_progress('a', 'correct')
    make().check(quits)
    assert [o.name for o in my.iterdir() if '.json.' in o.name] == ['progress.json.bad']

def test_other_keys_and_odd_records_are_kept_or_ignored(my):
    done = dict(a=3, b={}, c=dict(outcome='correct', tries=2))
    (my/'progress.json').write_text(json.dumps(dict(mine=1, exercises=done)))
    assert 'could not be saved' not in save_progress('b', 'error') + save_progress('c', 'incorrect')
    data = json.loads((my/'progress.json').read_text())
    assert data['mine'] == 1 and data['exercises']['c']['outcome'] == 'correct'

@pytest.mark.parametrize('where', ['file', 'setting', 'readonly'])
def test_result_is_shown_where_nothing_can_be_written(tmp_path, monkeypatch, capsys, where):
    my = tmp_path/'my'
    if where == 'file': my.write_text('a file, not a folder')
    if where == 'setting': monkeypatch.setenv('COURSE_PROFILE', 'nonsense')
    if where == 'readonly':
        if os.name == 'nt' or os.geteuid() == 0: pytest.skip('this user may write anywhere')
        my.mkdir(); my.chmod(0o500)
    monkeypatch.setenv('COURSE_MY', str(my))
    res = make().check(lambda n: 1/n)
    assert res.outcome == 'correct' and 'could not be saved' in res.note
    assert 'Correct' in capsys.readouterr().out

def test_plain_python_prints_once_on_any_terminal(tmp_path):
    code = ("from course_helpers.exercises.kit import *\nimport sys\n"
            "r = Exercise('00_x', 'x', lambda x: 'No.', '', '', [], ['h']).check(1)\n"
            "assert 'IPython' not in sys.modules and 'torch' not in sys.modules")
    got = run(python(code), COURSE_MY=tmp_path, PYTHONIOENCODING='ascii')
    assert got.stdout.split() == ['?', 'Incorrect.', 'No.'] and not got.stderr

CELLS = dict(
    setup="from course_helpers.exercises.kit import *\n"
          "x = Exercise('00_x', 'x', lambda x: 'No.', 'x = ____', 'x = 1', [], ['h1', 'h2'])",
    last='x.check(1)', middle='r = x.check(1)\nn = 1', later='r', semi='x.check(1);',
    loop='for i in 1, 2: x.check(i)', hints='x.hint()\nx.hint()\nx.solution()',
    before_error='x.check(1)\n1/0', nothing='n', blank='____')
SHOWN = dict(setup=0, last=1, middle=1, later=1, semi=1, loop=2, hints=3, before_error=1, nothing=0,
             blank=0)

def rich(outputs):
    return sum(bool({'text/html', 'text/markdown'} & {*o.get('data', {})}) for o in outputs)

def test_shown_once_in_a_kernel(my):
    nbclient, nbformat = pytest.importorskip('nbclient'), pytest.importorskip('nbformat')
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in CELLS.values()])
    nb.metadata.kernelspec = dict(name='python3', display_name='Python 3', language='python')
    nbclient.NotebookClient(nb, timeout=60, allow_errors=True).execute()
    outs = {k: c.outputs for k,c in zip(CELLS, nb.cells)}
    assert {k: rich(v) for k,v in outs.items()} == SHOWN
    kinds = [o.data['text/markdown'].split()[0] for o in outs['hints']]
    assert kinds == ['**Hint', '**Hint', '```python']
    assert outs['blank'][0].data == {'text/plain': '____'}
    assert not [o for v in outs.values() for o in v if o.output_type == 'stream']

def test_shown_once_in_nbdevs_shell(tmp_path):
    code = (f"import json\nfrom execnb.shell import CaptureShell\ns = CaptureShell(mpl_format=None)\n"
            f"print(json.dumps({{k: s.run(v) for k,v in {CELLS!r}.items()}}))")
    outs = json.loads(run(python(code), COURSE_MY=tmp_path).stdout.splitlines()[-1])
    assert {k: rich(v) for k,v in outs.items()} == SHOWN

def test_command_helps_without_torch(tmp_path):
    code = ("import sys\nfrom course_helpers.cli import course_lab\n"
            "try: course_lab(['--help'])\nfinally: print({'torch', 'fastai', 'IPython'} & {*sys.modules})")
    got = run(python(code), COURSE_MY=tmp_path)
    assert 'JupyterLab' in got.stdout and got.stdout.splitlines()[-1] == 'set()'
    assert not list(tmp_path.iterdir())

def notebook(*sources):
    "A notebook whose code has run"
    done = dict(cell_type='code', id='a', metadata={}, execution_count=1, outputs=[dict(output_type='stream', name='stdout', text=['seen'])])
    return json.dumps(dict(cells=[dict(done, source=[o]) for o in sources], metadata={}, nbformat=4, nbformat_minor=5))

@pytest.fixture
def course(tmp_path, monkeypatch):
    nbs = tmp_path/'nbs'
    nbs.mkdir()
    for o in ('index', '01_a'): (nbs/f'{o}.ipynb').write_text(notebook('#| export\nx = 1'), encoding='utf-8')
    return tmp_path

def test_copies_are_never_overwritten(course):
    src, dst = course/'nbs', course/'my'
    assert copy_lessons(src, dst) == (['01_a.ipynb', 'index.ipynb'], [], [], [])
    assert json.loads((dst/'01_a.ipynb').read_text())['cells'][0]['source'] == ['x = 1']
    (dst/'01_a.ipynb').write_text('mine')
    (src/'01_a.ipynb').write_text('changed')
    (src/'index.ipynb').unlink()
    assert copy_lessons(src, dst) == ([], ['01_a.ipynb'], ['01_a.ipynb'], [])
    assert (dst/'01_a.ipynb').read_text() == 'mine' and (dst/'index.ipynb').exists()
    (dst/'01_a.ipynb').rename(dst/'01_a_old.ipynb')
    assert copy_lessons(src, dst) == ([], [], [], ['01_a.ipynb']) and not (dst/'01_a.ipynb').exists()
    (src/'01_a.ipynb').write_text(notebook('x = 2'))
    assert copy_lessons(src, dst).new == ['01_a.ipynb']
    assert (dst/'01_a_old.ipynb').read_text() == 'mine'
    for bad in ('{', '[]'):
        (dst/'.copied.json').write_text(bad)
        assert copy_lessons(src, dst) == ([], ['01_a.ipynb'], [], [])

@pytest.mark.skipif(os.name == 'nt', reason='needs links')
def test_a_link_to_nowhere_is_kept(course):
    (course/'my').mkdir()
    (course/'my'/'01_a.ipynb').symlink_to(course/'disk that is not there.ipynb')
    assert copy_lessons(course/'nbs', course/'my')[:2] == (['index.ipynb'], ['01_a.ipynb'])
    assert (course/'my'/'01_a.ipynb').is_symlink()

@pytest.mark.parametrize('path', NBS, ids=nb_id)
def test_learners_edition_has_the_same_code(path):
    nb = json.loads(path.read_text(encoding='utf-8'))
    new = lab.learners_edition(nb)
    def code(nb): return [o for c in nb['cells'] if c['cell_type'] == 'code' for o in ''.join(c['source']).splitlines() if o]
    assert code(new) == [o for o in code(nb) if not o.startswith('#|')]
    assert not [c for c in new['cells'] if c.get('outputs') or c.get('execution_count')]
    def text(nb): return [c for c in nb['cells'] if c['cell_type'] != 'code']
    assert text(new) == text(nb) and {**new, 'cells': 0} == {**nb, 'cells': 0}
    pytest.importorskip('nbformat').validate(new)

def test_an_old_folder_is_set_aside_whole(course, monkeypatch, capsys):
    my, mine = course/'my', {}
    for o in ('index.ipynb', '01_a.ipynb', '95_results.ipynb', 'notes.txt', 'runs/a.json', 'checkpoints/a.pt', 'progress.json', '.copied.json'):
        (my/o).parent.mkdir(parents=True, exist_ok=True)
        (my/o).write_text(f'my {o}')
        mine[o] = f'my {o}'
    monkeypatch.setattr(lab, '_run', lambda cmd, **kw: 0)
    monkeypatch.setattr(cli, 'get_settings', lambda: Settings(root=str(course), my=str(my)))
    assert course_lab([]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and 'my-old' in said[0] and said[1] == '2 lessons copied, 0 of yours kept.'
    assert {o: (course/'my-old'/o).read_text() for o in mine} == mine
    assert all((my/o).read_text() == mine[o] for o in ('runs/a.json', 'checkpoints/a.pt', 'progress.json'))
    assert not (my/'95_results.ipynb').exists() and not (my/'notes.txt').exists()
    assert course_lab([]) == 0 and capsys.readouterr().out == '0 lessons copied, 2 of yours kept.\n'

def test_a_full_disk_leaves_the_old_folder_where_it_was(course, monkeypatch):
    my = course/'my'
    for o in ('index.ipynb', '95_results.ipynb', 'progress.json'): my.mkdir(exist_ok=True); (my/o).write_text('mine')
    def full(*args, **kw): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(lab.shutil, 'copy2', full)
    with pytest.raises(OSError): lab.set_aside(my)
    assert sorted(o.name for o in course.iterdir()) == ['my', 'nbs'] and len([*my.iterdir()]) == 3

def test_command_hands_on_and_returns_the_code(course, monkeypatch, capsys):
    my, seen = course/'my', []
    class Proc:
        def __init__(self, cmd, cwd, env): seen.append((cmd, cwd, env)); self.left = [KeyboardInterrupt, 7]
        def wait(self):
            if isinstance(o := self.left.pop(0), int): return o
            raise o
    monkeypatch.setattr(lab.subprocess, 'Popen', Proc)
    monkeypatch.setattr(cli, 'get_settings', lambda: Settings(root=str(course), my=str(my)))
    assert course_lab(['--no-browser', '--port', '9999']) == 7
    cmd, cwd, env = seen[0]
    assert 'jupyterlab' in cmd[2] and env['PATH'].startswith(str(Path(sys.executable).parent)) and '--LabApp.default_url=/lab/tree/my/index.ipynb' in cmd
    assert cmd[-3:] == ['--no-browser', '--port', '9999']
    assert cwd == course and f'--ServerApp.root_dir={course}' in cmd
    assert capsys.readouterr().out == '2 lessons copied, 0 of yours kept.\n'

def test_command_without_a_course(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, 'get_settings', lambda: Settings(root='', my=str(tmp_path)))
    assert course_lab([]) == 1 and 'full copy of the course' in capsys.readouterr().err

def test_a_note_is_printed_where_the_output_knows_only_ascii():
    res = run(python("from course_helpers.core.show import Note; Note('✓ Correct: 3 × 3').show()"), PYTHONIOENCODING='ascii')
    assert res.returncode == 0 and res.stdout == '? Correct: 3 ? 3\n', res.stderr
