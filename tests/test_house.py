"""The layout of the project, the arrows between modules, and what may stand in a committed file."""
import ast, json, re, sys, tomllib

import pytest
from conftest import NBS, ROOT, WIDGETS, nb_id
from processes import python, run
from strip_outputs import keep, strip

LESSONS = [o for o in NBS if o.stem != 'index']
def module_name(path):
    "Dotted name of a module inside the package"
    return '.'.join(path.relative_to(ROOT/'course_helpers').with_suffix('').parts)
MODULES = {module_name(o): o for o in sorted((ROOT/'course_helpers').rglob('*.py')) if not o.stem.startswith('_')}

# Which way things flow. A wing may import itself and the wings below it; here is each module's own list.
CORE = {'core.config', 'core.files', 'core.nets', 'core.precision', 'core.show'}
TECHNIQUES = 'normalization', 'resizing', 'tta', 'mixup', 'smoothing', 'lr_finder', 'augmentation', 'overfitting', 'architecture'
ARROWS = {
    'core.config': set(), 'core.files': set(), 'core.nets': set(), 'core.precision': {'core.nets'}, 'core.show': set(),
    **dict.fromkeys(TECHNIQUES, set()), 'resizing': {'core.nets'}, 'tta': {'core.nets'}, 'architecture': {'core.nets'}, 'transfer': {'core.nets'},
    'overfitting': {'core.files'},
    'data.sketches': set(), 'data.archive': {'core.files', 'core.config', 'data.sketches'},
    'data.images': {'core.config', 'core.files', 'data.archive', 'data.sketches'},
    'data.cache': {'core.files', 'data.archive', 'data.images'},
    'data.loaders': {'core.config', 'data.cache', 'data.images', 'data.sketches'},
    'records.run': {'core.config', 'core.files'}, 'records.stats': {'records.run'},
    'records.tables': {'core.show', 'records.run', 'records.stats'}, 'records.questions': {'core.config'},
    'records.answers': {'records.questions', 'records.run', 'records.stats', 'records.tables'},
    'exercises.kit': {'core.config', 'core.files', 'core.show'}, 'exercises.lab': {'core.files'},
    'models.read': set(), 'models.options': {'models.read'}, 'models.classes': {'models.read'}, 'models.pretrained': {'models.read'},
    'models.folder': {'core.files', 'models.pretrained', 'models.read'}, 'models.features': {'models.pretrained', 'models.read', 'core.files'},
    'models.retrain': {'models.classes', 'models.features', 'models.folder', 'models.options', 'models.pretrained', 'models.read', 'records.tables', 'core.files'},
    'baseline': set(), 'training': {'core.config', 'core.files', 'core.precision', 'core.show', 'records.run', 'baseline'},
    'experiments.arm': {'core.config', 'data.images', 'training'},
    'speedrun': {'resizing'},
    'experiments.speed': {'experiments.arm', 'data.loaders', 'data.sketches', 'training', 'baseline', 'core.nets', 'normalization', 'resizing', 'tta',
                          'mixup', 'smoothing', 'speedrun'},
    'experiments.leak': {'experiments.arm', 'data.images', 'data.loaders', 'training', 'resizing'},
    'experiments.transfer': {'experiments.arm', 'core.config', 'data.images', 'data.loaders', 'data.sketches', 'models.pretrained', 'training',
                             'resizing', 'transfer'},
    'experiments.diagnosis': {'experiments.arm', 'data.images', 'data.loaders', 'data.sketches', 'training', 'normalization', 'lr_finder',
                              'augmentation', 'overfitting', 'architecture'},
    'recipe': {'core.nets', 'core.show', 'data.loaders', 'data.sketches', 'records.stats', 'baseline', 'training', 'experiments.arm', 'normalization', 'resizing',
               'tta', 'mixup', 'smoothing'},
    'experiments.plan': {'core.config', 'data.images', 'records.questions', 'records.run', 'experiments.arm', 'recipe', 'core.files'},
    'cli': {'core.config', 'data.archive', 'data.images', 'exercises.lab', 'models.folder', 'models.options', 'models.pretrained', 'models.read', 'models.retrain', 'records.run', 'recipe', 'experiments.plan', 'core.files'}}
NO_TORCH = ('core.config', 'core.files', 'core.show', 'data.sketches', 'data.archive', 'data.images', 'data.cache', 'records.run', 'records.stats',
            'records.tables', 'records.questions', 'records.answers', 'exercises.kit', 'exercises.lab', 'models.read', 'models.options', 'models.classes', 'cli')
NO_MODULE = {'index', '21_retrain'}  # pages that export nothing

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])
def tracked():
    "Files that git knows, or all where there is no git"
    return [ROOT/o for o in run(['git', 'ls-files', '-z']).stdout.split('\0') if o and (ROOT/o).is_file()]

def test_top_level():
    for o in ('settings.ini', 'pyproject.toml', 'setup.py', 'requirements.lock', 'Makefile', 'README.md', 'LICENSE',
              '.ci/run', 'nbs/index.ipynb', 'data/README.md', 'data/runs'): assert (ROOT/o).exists(), f'{o} is missing'
    assert len((ROOT/'setup.py').read_text().splitlines()) == 2

def test_readme_is_finished():
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    assert not re.search(r'[A-Z]{3,}_[A-Z]{3,}(?![A-Z]*=)', text.replace('TORCH_BACKEND', ''))
    for o in re.findall(r'\]\(([\w./-]+)\)', text): assert (ROOT/o).exists(), f'README.md links to {o}'

def test_every_lesson_is_the_source_of_one_module_and_of_no_other():
    made = {}
    for o in LESSONS:
        if o.stem in NO_MODULE: continue
        found = [m for c in cells(o) for m in re.findall(r'^#\| *default_exp (\S+)', source(c), re.M)]
        page = o.relative_to(ROOT/'nbs')  # a page of the tools mirrors the path of its module
        own = page.stem.split('_', 1)[1] if page.parts[0] != 'tools' else '.'.join(page.with_suffix('').parts[1:])
        assert found == [own], f'{o.name} exports to {found}'
        made[found[0]] = o.name
    assert sorted(made) == sorted(MODULES), 'a module without a lesson, or a lesson without a module'

def imports(path, name=''):
    "Our own modules that a module imports, anywhere in it"
    package = ['course_helpers', *(name or module_name(path)).split('.')[:-1]]
    res = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        names = []
        if isinstance(node, ast.Import): names = [o.name for o in node.names]
        if isinstance(node, ast.ImportFrom):
            base = '.'.join([*package[:len(package)+1-node.level], *filter(None, [node.module])]) if node.level else node.module
            names = [base, *(f'{base}.{o.name}' for o in node.names)]
        res |= {o.removeprefix('course_helpers.') for o in names}
    return res & {*MODULES}

@pytest.mark.parametrize('name', MODULES)
def test_arrows(name):
    found = imports(MODULES[name])
    assert found == ARROWS[name], f'{name} imports {found-ARROWS[name]}, and no longer {ARROWS[name]-found}'

def test_a_forbidden_arrow_is_seen(tmp_path):
    path = tmp_path/'a.py'
    for line in ('from course_helpers.mixup import MixupCB', 'from .mixup import MixupCB', 'from . import mixup',
                 'from course_helpers import mixup', 'import course_helpers.mixup as m'):
        path.write_text(f'def f():\n    {line}\n')
        assert imports(path, 'tta') == {'mixup'}, line
    for line in 'from ..mixup import MixupCB', 'from .. import mixup':
        path.write_text(line)
        assert imports(path, 'experiments.arm') == {'mixup'}, line
    path.write_text('from .plan import to_do')
    assert imports(path, 'experiments.arm') == {'experiments.plan'} and not imports(path, 'tta')

def test_no_circles():
    "Modules can be put in an order in which each imports only those before it"
    import graphlib
    order = [*graphlib.TopologicalSorter({k: imports(o) for k,o in MODULES.items()}).static_order()]
    assert {*order} == {*MODULES}

def test_imports_inside_functions_are_few():
    found = set()
    for name,path in MODULES.items():
        if name == 'cli': continue  # it loads what a command needs after its options are read
        for f in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(f, ast.FunctionDef): found |= {(name, o.lineno) for o in ast.walk(f) if isinstance(o, (ast.Import, ast.ImportFrom))}
    assert len(found) <= 10, sorted(found)

def test_modules_stay_small():
    def count(path): return sum(not o.startswith('# %%') for o in path.read_text(encoding='utf-8').splitlines())  # without nbdev's marks
    long = {k: n for k,o in MODULES.items() if (n := count(o)) > 350}
    assert not long, long

def test_light_modules_load_no_torch():
    code = f"import sys, {', '.join(f'course_helpers.{o}' for o in NO_TORCH)}; print('torch' in sys.modules)"
    assert run(python(code)).stdout.strip() == 'False'

@pytest.mark.parametrize('path', NBS, ids=nb_id)
def test_saved_outputs_are_clean(path):
    for i,c in enumerate(cells(path)):
        for out in c.get('outputs', []):
            assert keep(out), f'cell {i}: stderr or a widget view'
            assert 'interact(' not in source(c), f'cell {i}: a widget is saved without output'
            assert out['output_type'] != 'error', f'cell {i}: an error was saved'
            text = json.dumps(out)
            for alt in re.findall(r'alt=\\"(.*?)\\"', text): assert len(alt) < 250 and '. ' not in alt, f'cell {i}: an alt text is a sentence, not {alt!r}'
            assert not re.search(r'/(home|root|tmp|work|Users)/\w|[A-Z]:\\\\\\\\', text), f'cell {i}: a path of a machine'
        assert set(c['metadata']) <= {'jupyter'}, f"cell {i}: metadata {set(c['metadata'])}"

@pytest.mark.parametrize('path', LESSONS, ids=nb_id)
def test_lessons_have_run_and_end_well(path):
    code = [c for c in cells(path) if c['cell_type'] == 'code']
    assert any(c['outputs'] for c in code), 'the lesson was committed without outputs'
    assert not any('nbdev_export()' in source(c) for c in code)
    long = [max(map(len, source(c).splitlines())) for c in code if source(c)]
    assert max(long) <= 100 and max(source(c).count('\n')+1 for c in code) <= 20

def test_strip_removes_what_changes(tmp_path):
    nb = dict(cells=[dict(cell_type='code', metadata=dict(execution={}, jupyter=dict(source_hidden=True)), source=[],
              outputs=[dict(output_type='stream', name='stderr', text=['x']), dict(output_type='stream', name='stdout', text=['y']),
                       *[dict(output_type='display_data', data={'text/html': ['<img>'], 'text/plain': [o]}) for o in ('loss 3', 'loss 3, 2', 'other')]])],
              metadata={})
    path = tmp_path/'a.ipynb'
    path.write_text(json.dumps(nb))
    strip(path)
    cell = cells(path)[0]
    assert [o.get('name') or o['data']['text/plain'] for o in cell['outputs']] == ['stdout', ['loss 3, 2'], ['other']] and cell['metadata'] == {'jupyter': {'source_hidden': True}}

def test_no_index_address_and_no_photograph_is_committed():
    for o in tracked():
        assert not re.search(r'(n\d{8}|ILSVRC2012_val)_\d+\.JPEG$', o.name), o
        if o.suffix in ('.png', '.jpg') or o == ROOT/'tests'/'test_house.py': continue
        assert not re.search(r'pypi' r'\.org|pythonhosted' r'|npmjs', o.read_text(encoding='utf-8')), f'{o.name} names a package index'

def test_settings_file_says_what_the_package_says():
    if run(['git', 'diff', '--quiet', 'HEAD', '--', 'settings.ini']).returncode:
        pytest.skip('settings.ini was changed: it is yours')
    from course_helpers.core.config import PROFILES, Settings, read_ini
    for profile, values in PROFILES.items():
        ini = read_ini(ROOT/'settings.ini', profile)
        assert {k: ini[k] for k in values} == values
        rest = {k: v for k,v in ini.items() if k not in values and k not in ('profile', 'device')}
        assert rest == {k: getattr(Settings(), k) for k in rest}

def test_a_foreign_settings_file_is_not_read(tmp_path):
    (tmp_path/'settings.ini').write_text('[DEFAULT]\nlib_name = other\n')
    res = run(python('from course_helpers.core.config import *; print(get_settings().profile)'), cwd=tmp_path)
    assert res.stdout.strip() == 'quick', res.stderr

COMMANDS = list(tomllib.loads((ROOT/'pyproject.toml').read_text())['project']['scripts'])

@pytest.mark.parametrize('name', COMMANDS)
def test_help_loads_neither_torch_nor_fastai(name):
    module, func = tomllib.loads((ROOT/'pyproject.toml').read_text())['project']['scripts'][name].split(':')
    code = (f"import sys; sys.argv = [{name!r}, '--help']\nfrom {module} import {func}\n"
            f"try: {func}()\nexcept SystemExit as e: print(e.code, [o for o in ('torch', 'fastai', 'pandas', 'matplotlib') if o in sys.modules])")
    res = run(python(code))
    assert res.stdout.splitlines()[-1] == '0 []' and 'usage' in res.stdout, res.stdout + res.stderr

def test_the_start_page_lists_every_lesson_and_exercise():
    text = '\n'.join(source(c) for c in cells(ROOT/'nbs'/'index.ipynb'))
    for o in LESSONS: assert f'({nb_id(o)}.ipynb)' in text, f'{o.name} is not on the start page'
    for o in LESSONS:
        if not o.stem[0] in '012': continue
        for name in re.findall(r"(?:Exercise|Choice)\('(\w+)'", '\n'.join(source(c) for c in cells(o))):
            assert f"{name!r}" in text, f'exercise {name} is not on the start page'

def reckon_minutes(path):
    "130 words a minute, 45 seconds for a cell of code that is shown, five minutes an exercise"
    words = shown = exercises = 0
    for c in cells(path):
        text = source(c)
        if c['cell_type'] == 'markdown': words += len(re.findall(r"\w[\w'.,-]*", re.sub(r'\]\([^)]*\)', '', text)))
        elif 'source_hidden' in c['metadata'].get('jupyter', {}): exercises += len(re.findall(r' = (?:Exercise|Choice)\(', text))
        elif '.check(' not in text:  # imports and comments take no time
            shown += bool(re.search(r'^(?!from |import |#|\s|\)|$)', text, re.M))
    return words/130 + .75*shown + 5*exercises

@pytest.mark.parametrize('path', WIDGETS, ids=nb_id)
def test_minutes(path):
    "Each lesson says at its top how long it takes, at most an hour, and so does the start page"
    top, reckoned = source(cells(path)[0]), reckon_minutes(path)
    minutes, waits = [int(o[1]) if (o := re.search(rf'{word} (\d+)', top)) else 0 for word in ('About', 'another')]
    assert 0 < minutes <= 60 and abs(reckoned-minutes-waits) < 5, f'{minutes}+{waits}, not {reckoned:.0f}'
    start = (path.parent/'index.ipynb').read_text(encoding='utf-8')
    assert re.search(rf'\({path.name}\) \| {minutes} \|', start), 'the start page says another time'

@pytest.mark.parametrize('path', LESSONS, ids=nb_id)
def test_course_comes_before_torch(path):
    "The package tells torch's threads to sleep while they wait, and they only listen when torch is loaded"
    lines = [line for c in cells(path) if c['cell_type'] == 'code' for line in source(c).splitlines()]
    def first(names): return next((i for i,o in enumerate(lines) if re.match(rf'(from|import) ({names})', o)), len(lines))
    assert first('course_helpers') <= first('torch|fastai|sklearn|scipy'), f'{path.name} loads torch before course_helpers'

@pytest.mark.parametrize('path', LESSONS, ids=nb_id)
def test_links_lead_somewhere(path):
    for c in cells(path):
        if c['cell_type'] == 'markdown':
            for o in re.findall(r'\]\((?!http)([\w./-]+)\)', source(c)): assert (path.parent/o).exists(), f'{path.name} links to {o}'

FIGURE = re.compile(r'(?<![\w.])(\d[\d,]*(?:\.\d+)?|\.\d+)\s?(?:%|points?\b|times\b)')
OTHERS = re.compile(r'fastbook|write-up|leaderboard|\([^()]*[a-z]{3}[^()]*, (?:19|20)\d\d')  # whom a figure is quoted from

def figures(text):
    "Figures of a text, paragraph by paragraph, but for those that are quoted from others"
    for part in re.split(r'\n\s*\n', text):
        part = re.sub(r'95 %', '', ' '.join(part.split()))  # the level of every interval
        if not OTHERS.search(part): yield from FIGURE.findall(part)

def stands_in(figure, code):
    "Does a number stand in the code, as it is or as a fraction?"
    ways = {figure, figure.replace(',', ''), figure.replace(',', '_'), figure.lstrip('0'),
            f'{float(figure.replace(",", ""))/100:g}'.lstrip('0')}
    return any(re.search(rf'(?<![\d.]){re.escape(o)}(?!\.?\d)', code) for o in ways if o)

def checks(path):
    "Source of the cells that check something"
    found = [source(c) for c in cells(path) if c['cell_type'] == 'code']
    return '\n'.join(o for o in found if re.search(r'\b(test_\w+|assert\w*)\b', o))

CODE = {nb_id(o): checks(o) for o in NBS}

@pytest.mark.parametrize('path', LESSONS, ids=nb_id)
def test_figures_in_the_text_stand_in_the_code_of_the_lesson(path):
    text = '\n\n'.join(source(c) for c in cells(path) if c['cell_type'] == 'markdown')
    missing = [o for o in figures(text) if not stands_in(o, CODE[nb_id(path)])]
    assert not missing, f'{path.name} states {missing}, and no cell checks them'

def test_no_figure_of_the_readme_is_typed_by_hand():
    "What `make export` writes between its marks is checked in test_records"
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    text = re.sub(r'<!-- ([\w ]+): written by make export -->.*?<!-- end of \1 -->', '', text, flags=re.S)
    assert not [*figures(re.sub(r'```.*?```', '', text, flags=re.S))]

def test_figure_finder():
    assert list(figures('It gains 1.2 points.\n\nIn 1,000 times 5 % of it.\n\nThe write-up says 9 %.')) == ['1.2', '1,000', '5']
    assert stands_in('73', 'round(x) == 73)') and stands_in('5', 'eps=.05') and not stands_in('3', '73, .3')
    assert not stands_in('0', 'x = y') and not stands_in('5', '5.2')

def test_the_wheel_holds_every_module(tmp_path):
    "Built, installed elsewhere without dependencies, and every module imported from there"
    wheels, place = tmp_path/'wheels', tmp_path/'place'
    uv = [sys.executable, '-m', 'uv']
    res = run([*uv, 'build', '--wheel', '--no-build-isolation', '-q', '--out-dir', wheels, ROOT])
    assert res.returncode == 0, res.stderr
    res = run([*uv, 'pip', 'install', '-q', '--no-deps', '--target', place, *wheels.glob('*.whl')])
    assert res.returncode == 0, res.stderr
    names = [f'course_helpers.{o}' for o in MODULES]
    code = f"import sys; sys.path.insert(0, {str(place)!r})\nimport importlib\nfor o in {names}: print(importlib.import_module(o).__file__)"
    res = run(python(code), cwd=tmp_path)
    assert res.stdout.count(str(place)) == len(names), res.stderr

def test_no_cell_stands_twice_and_no_line_of_the_package_is_long():
    for path in sorted((ROOT/'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in path.parts: continue
        found = [o for o in (''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells']) if len(o) > 80]
        assert len(found) == len(set(found)), f'{path.name} has a cell twice'
    for path in (ROOT/'course_helpers').rglob('*.py'):
        if path.name == '_modidx.py': continue
        lines = path.read_text(encoding='utf-8').splitlines()
        own = [o for i,o in enumerate(lines) if not o.startswith('__all__') and not (i and lines[i-1].startswith('__all__'))]
        assert not [o for o in own if len(o) > 100], path.name
