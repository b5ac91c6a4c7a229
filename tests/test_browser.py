"""Chromium opens JupyterLab as `make lab` serves it, and works through the lessons, two at a time."""
import ast, json, os, re, time
from textwrap import dedent
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import TimeoutError
from conftest import CHROME, LESSONS, ROOT, WIDGETS, nb_id
from processes import course, processes, wait_for

SHOTS = os.environ.get('COURSE_SHOTS', '')  # a folder to keep screenshots in
pytestmark = pytest.mark.skipif(not CHROME, reason='needs Chromium')

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab, started by the command of `make lab`; the address of its start page"
    home = tmp_path_factory.mktemp('lab')
    args = ['--no-browser', '--port=0', '--LabApp.expose_app_in_browser=True', '--IdentityProvider.token=test']
    if hasattr(os, 'geteuid') and os.geteuid() == 0: args.append('--allow-root')
    log = home/'log.txt'
    with processes() as start, open(log, 'w') as f:
        proc = start(course('course-lab', *args), cwd=home, pipes=dict(stdout=f, stderr=f), COURSE_MY=home/'my', IPYTHONDIR=home/'ipython',
                     JUPYTER_CONFIG_DIR=home/'config', JUPYTER_DATA_DIR=home/'data', JUPYTER_RUNTIME_DIR=home/'run',
                     OMP_NUM_THREADS=1)  # two lessons run at a time
        url = wait_for(lambda: re.search(r'(http://(?:127\.0\.0\.1|localhost):\d+/\S*)\?token=', log.read_text()), 'JupyterLab', proc)[1]
        yield f'{url}?token=test', home/'my'
        stop = Request(url.split('/lab')[0]+'/api/shutdown', method='POST', headers={'Authorization': 'token test'})
        urlopen(stop, timeout=20).close()  # the server ends its kernels, then itself, and the command ends with it
        assert proc.wait(30) == 0

@pytest.fixture(scope='module')
def new_page(lab):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROME, args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'])
        def new_page():
            page = browser.new_page(viewport=dict(width=1200, height=1000))
            page.set_default_timeout(60_000)
            return page
        yield new_page
        browser.close()

@pytest.fixture(scope='module')
def run(lab, new_page, request):
    "Run a lesson to its end on a page of its own; the next has begun by then, for one alone leaves a core idle"
    names, pages = [o.name for o in WIDGETS], {}
    wanted = [o for o in names if o == names[0] or any(o in i.name for i in request.session.items)]
    def run(name):
        at = wanted.index(name)
        for o in wanted[at:at+2]:
            if o not in pages:
                pages[o] = new_page()
                open_lesson(pages[o], lab, o)
                pages[o].evaluate("() => { window.jupyterapp.commands.execute('runmenu:run-all') }")  # returns before it ends
        return pages[name], wait_for_all(pages[name], lab[1]/name)
    return run

def shot(page, name):
    if SHOTS: page.screenshot(path=f'{SHOTS}/{name}.png')

def command(page, name):
    "Run one of JupyterLab's commands"
    page.evaluate('name => window.jupyterapp.commands.execute(name)', name)

def open_lesson(page, lab, name):
    "Open a lesson on a page of its own and wait for its kernel"
    page.goto(lab[0].replace('/lab/tree/', '/doc/tree/').replace('index.ipynb', name))
    page.wait_for_selector('.jp-Notebook .jp-Cell')
    page.wait_for_function('''() => {
        const kernel = window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel
        return kernel && kernel.connectionStatus == 'connected' && kernel.status == 'idle' }''')

def wait_for_all(page, path, seconds=180):
    "Save, and wait until each cell has run"
    end = time.monotonic()+seconds
    while time.monotonic() < end:
        time.sleep(1)
        command(page, 'docmanager:save')
        code = [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code' and ''.join(c['source']).strip()]
        if all(c['execution_count'] for c in code): return code
        if any(o['output_type'] == 'error' for c in code for o in c['outputs']): break
    shot(page, 'run-all')
    errors = [o for c in code for o in c['outputs'] if o['output_type'] == 'error']
    pytest.fail(f"cells without a result: {[''.join(c['source'])[:60] for c in code if not c['execution_count']][:3]} {errors[:1]}")

def test_start_page(lab, new_page):
    page = new_page()
    page.goto(lab[0])
    page.wait_for_selector('.jp-RenderedMarkdown:has-text("New here?")')
    assert page.locator('.jp-RenderedMarkdown a', has_text='Baseline').count()
    assert sorted(o.relative_to(lab[1]).as_posix() for o in lab[1].rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts) \
        == sorted(f'{nb_id(o)}.ipynb' for o in LESSONS)
    shot(page, 'start')
    page.close()

def test_first_lesson_leaves_a_record(lab, run):
    code = run(WIDGETS[0].name)[1]
    assert any('as expected' in json.dumps(o) or 'no reference' in json.dumps(o) for c in code for o in c['outputs'])
    assert list((lab[1]/'runs').glob('*.json')), 'the run left no record'

def test_dark_theme(run):
    page, _ = run(WIDGETS[0].name)
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_selector('body[data-jp-theme-light="false"]', state='attached')
    color = page.locator('[role=status]').first.evaluate('o => getComputedStyle(o).color')
    assert min(map(int, re.findall(r'\d+', color)[:3])) > 150, f'text of a result is {color} on a dark page'
    shot(page, 'dark')

AT_LEFT = "o => o.getBoundingClientRect().x - o.closest('.noUi-target').getBoundingClientRect().x < 2"  # a handle at the end of its slider

def move_all(page, name):
    "Move each control of a lesson's widget; returns how many there are"
    box = page.locator('.jp-OutputArea:has(.widget-interact)').first
    box.scroll_into_view_if_needed()
    out = box.locator('.jp-OutputArea').first
    out.locator('img, table').first.wait_for()
    controls = box.locator('.noUi-handle, select, input[type=checkbox]')
    shot(page, f'{name}-widget')
    for i in range(controls.count()):
        control, before = controls.nth(i), out.inner_html()
        control.focus()
        if control.evaluate('o => o.tagName') == 'SELECT': moves = [lambda: control.select_option(index=1)]
        elif control.get_attribute('type') == 'checkbox': moves = [lambda: page.keyboard.press('Space')]
        else:
            keys = ('ArrowRight', 'ArrowLeft') if control.evaluate(AT_LEFT) else ('ArrowLeft', 'ArrowRight')
            moves = [lambda key=key: page.keyboard.press(key) for key in keys]
        for move in moves:
            move()
            try: page.wait_for_function('([o, before]) => o.innerHTML != before && o.querySelector("img, table")',
                                        arg=[out.element_handle(), before], timeout=10_000)
            except TimeoutError: continue
            break
        else: pytest.fail(f'{name}: control {i+1} of the widget changes nothing')
        for img in out.locator('img').all(): assert img.get_attribute('alt'), f'{name}: an image without alt text'
        assert 'Traceback' not in out.inner_text()
    shot(page, f'{name}-moved')
    return controls.count()

def answer(page, old, new):
    "Type an answer into the cell that holds `old`, run it, and return what the check says"
    cell = page.locator('.jp-CodeCell', has=page.locator('.jp-InputArea', has_text=old)).last
    cell.scroll_into_view_if_needed()
    cell.locator('.cm-content').click()
    page.keyboard.press('Control+a')
    page.keyboard.insert_text(new)
    page.keyboard.press('Control+Enter')
    word = new.split('#')[1].strip()
    result = cell.locator('[role=status]', has_text=word)
    result.wait_for()
    return result.inner_text()

def plain(node, env):
    "The value of an expression that needs no more than names in `env`; None for others"
    try: return eval(compile(ast.Expression(node), 'spec', 'eval'), env)
    except Exception: return None

def answers(path):
    "From the specs of a lesson, its first exercise and its first question: cell, wrong answer, what is said to it, right one"
    env, found = {'__builtins__': {}, 'dict': dict}, {}
    cells = [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    for o in [o for c in cells if not re.search(r'^\s*[%!]', c, re.M) for o in ast.parse(c).body if isinstance(o, ast.Assign)]:
        kind, var = getattr(getattr(o.value, 'func', None), 'id', ''), getattr(o.targets[0], 'id', '')
        if kind == 'Exercise':
            func, more = plain(o.value.args[1], env), {k.arg: plain(k.value, env) for k in o.value.keywords}
            wrong, why = (more['wrong'] or [(None, None)])[0]
            if wrong and more['solution']:
                found.setdefault(kind, (f'{var}.check({func})', dedent(wrong).strip(), why, dedent(more['solution']).strip()))
        elif kind == 'Choice':
            right, why = (plain(a, env) for a in o.value.args[3:5])
            letter = next(k for k in why if k != right)
            said = re.split(r'[`*$]', why[letter])[0]  # up to what Markdown would change
            found.setdefault(kind, (f'{var}.check(', f"{var}.check('{letter}')", said, f"{var}.check('{right}')"))
        elif var: env[var] = plain(o.value, env)
    return [*found.values()]

@pytest.mark.parametrize('name', [o.name for o in WIDGETS])
def test_lesson_its_widget_and_exercises(lab, run, name):
    page, code = run(name)
    outs = [o for c in code for o in c['outputs']]
    assert not [o for o in outs if o['output_type'] == 'error' or o.get('name') == 'stderr']
    assert move_all(page, name[:2]) >= 1
    asked = answers(ROOT/'nbs'/name)
    for old, wrong, why, right in asked:
        call = '' if old.endswith('(') else f'\n{old}'
        assert why in answer(page, old, f'{wrong}{call} # Incorrect')
        assert answer(page, old, f'{right}{call} # Correct').startswith('✓')
    if asked:
        saved = json.loads((lab[1]/'progress.json').read_text())['exercises']
        tries = [o['tries'] for k,o in saved.items() if k.startswith(name[:2]) and o['outcome'] == 'correct']
        assert tries == [2]*len(asked)
    command(page, 'kernelmenu:shutdown')
    page.close()
