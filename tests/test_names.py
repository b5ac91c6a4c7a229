"""Where every public name, option and settings key went that the first layout of the package had (commit 693653a), or why it is gone."""
import ast, json, re
from functools import cache

import pytest
from conftest import ROOT
from processes import course, run

OLD = json.loads((ROOT/'tests'/'names.json').read_text(encoding='utf-8'))

@cache
def defined(module):
    "Names that a module defines at its top"
    tree = ast.parse((ROOT/'course_helpers'/f"{module.replace('.', '/')}.py").read_text(encoding='utf-8'))
    found = {o.name for o in tree.body if isinstance(o, (ast.FunctionDef, ast.ClassDef))}
    targets = [t for o in tree.body if isinstance(o, ast.Assign) for t in o.targets]
    return found | {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}

@pytest.mark.parametrize('module', OLD['names'])
def test_every_name_has_a_place_or_a_reason(module):
    for name,place in OLD['names'][module].items():
        if not re.fullmatch(r'[\w.]+:\w+', place): assert len(place.split()) > 3, f'{module}.{name}: {place!r} is no reason'
        else:
            new, k = place.split(':')
            assert k in defined(new), f'{module}.{name} is not at {place}'

def test_every_option_is_there():
    for command,options in OLD['options'].items():
        said = run(course(command, '--help')).stdout
        for o in options.values(): assert re.search(rf'{o}\b', said), f'{command} has no {o}'

def test_every_settings_key_is_there():
    from course_helpers.core.config import KEYS
    assert {*OLD['settings'].values()} <= {*KEYS}

def test_what_changes_says_is_there():
    "The names in the last column of the tables of CHANGES.md, but for words of records"
    public = set()
    for path in (ROOT/'course_helpers').rglob('*.py'):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        named = [o for o in tree.body if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '') == '__all__']
        public |= {o for n in named for o in ast.literal_eval(n.value)}
    rows = [o for o in (ROOT/'CHANGES.md').read_text(encoding='utf-8').splitlines() if o.startswith('|')]
    names = {n for o in rows for n in re.findall(r'`(\w+)`', o.split('|')[-2])}
    assert len(names) > 30 and not names - public - {'held_out', 'fixed'}, names - public
