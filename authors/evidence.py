"""Writes the tables of the README, data/RESULTS.md and the image of the ladder from plan and records: part of `make export`."""
import hashlib, io, os, sys
from pathlib import Path

import course_helpers.core.config  # before torch
from course_helpers.core.files import write_atomic
from course_helpers.recipe import plot_ladder, get_ladder
from course_helpers.records.answers import answer
from course_helpers.records.questions import get_question, read_plan
from course_helpers.records.run import load_runs
from course_helpers.records.stats import spread
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, PICTURE = ROOT/'README.md', ROOT/'data'/'RESULTS.md', ROOT/'data'/'ladder.png'
BUDGETS = {'all': 'all images', 'few': '100 of each class'}

def points(gain): return f'{gain.difference:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})'

def rows(head, body):
    "A Markdown table"
    lines = [head, ['--']*len(head), *body]
    return ''.join(f"| {' | '.join(map(str, o))} |\n" for o in lines)

# The README: one row for each answer that the plan puts there

def gains_table():
    "Rows of the README, with their verdicts by budget, as Markdown"
    cells, ns = {}, set()
    for q in read_plan().values():
        if q.open or not any(o.readme for o in q.pairs): continue
        found = answer(q)
        ns.add(found.n)
        for pair,gain in zip(found.pairs, found):
            if pair.readme: cells.setdefault(pair.readme, {})[pair.budget] = f'{gain.verdict}, {points(gain)}'
    n, = ns
    head = f'points on val, 95 % interval, n = {n}', *BUDGETS.values()
    return rows(head, [[k, *(v.get(b, '') for b in BUDGETS)] for k,v in cells.items()])

def baseline():
    "What the net of the first lesson scores, in a sentence"
    runs = {b: load_runs(arm='baseline', profile='cpu', budget=b) for b in BUDGETS}
    mean = {b: f"{spread([100*o.scores['val']['accuracy'] for o in v])[0]:.0f} %" for b,v in runs.items()}
    epochs = {b: v[0].config['epochs'] for b,v in runs.items()}
    n, = {len(v) for v in runs.values()}
    images, shown = runs['all'][0].config['n_train'], runs['all'][0].scores['val']['n']
    return (f"On photographs, in profile `cpu`, the net of the first lesson scores {mean['all']} with all {images:,} images in {epochs['all']} epochs, "
            f"and {mean['few']} with 100 images of each class in {epochs['few']} epochs (means of {n} seeds, official val, n = {shown:,}; chance is 10 %).\n")

def accuracies(question, score):
    "Accuracies in % of a question's arms, as {arm: mean ± sd}, and n"
    q, res, ns = get_question(question), {}, set()
    for arm,budget in q.arms:
        runs = [o for o in load_runs(arm=arm, profile=q.profile, budget=budget)
                if o.images['name'].startswith('sketches') == (q.images == 'sketches')]
        mean, sd, n = spread([100*o.scores[score]['accuracy'] for o in runs])
        res[arm], ns = (f'{mean:.1f} ± {sd:.1f}' if n > 1 else f'{mean:.1f}'), ns | {n}
    n, = ns
    return res, n

WAYS = dict(scratch='from random weights', frozen='frozen, a new head', all='all of it trained')

def transfer_table():
    "Accuracy on unseen images by way and images of each class, as Markdown"
    found, n = accuracies('transfer', 'unseen')
    counts = list(dict.fromkeys(o.split('/')[2] for o in found))
    head = f'accuracy in %, mean ± sd, n = {n}', *(f'{o} of each class'.replace('all of each class', 'all images') for o in counts)
    return rows(head, [[name, *(found[f'transfer/{how}/{o}'] for o in counts)] for how,name in WAYS.items()])

# data/RESULTS.md: every question

def answer_table(q):
    "The answers to a question, as Markdown"
    found = answer(q)
    body = [[o.row, o.budget, o.labels[3], g.verdict, points(g), 'below 0.0001' if g.p < .0001 else f'{g.p:.2g}', g.n]
            for o,g in zip(found.pairs, found)]
    sizes = sorted({g.family for g in found})
    said = 'not corrected' if sizes == [1] else f"corrected by Holm for {' or '.join(map(str, sizes))} comparisons"
    return rows(['', 'budget', 'score', 'verdict', 'points, 95 % interval', f'p, {said}', 'n'], body)

def arm_table(q):
    "Accuracies of a question's arms in %, as Markdown"
    runs = {}
    for o in load_runs(profile=q.profile):
        if o.images['name'].startswith('sketches') == (q.images == 'sketches'): runs.setdefault((o.arm, o.budget), []).append(o)
    scores = list(dict.fromkeys(k for o in q.arms for r in runs[o] for k in r.scores))
    def cell(found, k):
        values = [100*o.scores[k]['accuracy'] for o in found if k in o.scores]
        if not values: return ''
        mean, sd, n = spread(values)
        return f'{mean:.1f} ± {sd:.1f}' if n > 1 else f'{mean:.1f}'
    return rows(['arm', 'budget', *scores, 'n'], [[*o, *(cell(runs[o], k) for k in scores), len(runs[o])] for o in q.arms])

def results():
    "The text of data/RESULTS.md"
    parts, lesson = [], ''
    for q in read_plan().values():
        if q.lesson != lesson: parts.append(f'## [{q.lesson}](../nbs/{q.lesson}.ipynb)\n')
        lesson = q.lesson
        what = f'Profile {q.profile}, {q.images}' + (f'. `course-run --plan {q.name}` makes the runs.')
        parts.append(f'### {q.name}: {q.asks}\n\n{what}\n' + (f'\n{answer_table(q)}' if q.pairs and not q.open else ''))
        parts.append('Not answered yet: its runs are still to be made.\n' if q.open else f'Accuracies in %, mean ± sd:\n\n{arm_table(q)}')
    head = ('# Results\n\nEvery question of [`plan.toml`](plan.toml), answered from the records in [`runs/`](runs). This page is written by '
            '`make export`.\n\nA gain is a mean difference of accuracies in percentage points. *Not shown* means that these runs can\'t tell '
            'it from chance,\nafter Holm\'s correction within the question; it does not mean that there is none.\n')
    return '\n'.join([head, *parts])

# The image

def ladder_runs(): return [o for o in load_runs(profile='cpu') if o.arm in [r.name for r in get_ladder()]]

def stamp():
    "Tells from which scores the image was drawn"
    return hashlib.sha256(' '.join(f'{o.file} {o.scores}' for o in ladder_runs()).encode()).hexdigest()[:12]

def draw():
    "Draw the ladder, if its records changed or it is not there; other machines draw other pixels"
    if PICTURE.exists() and Image.open(PICTURE).info.get('runs') == stamp(): return
    info, tmp = PngInfo(), PICTURE.with_suffix('.tmp')
    info.add_text('runs', stamp())
    Image.open(io.BytesIO(plot_ladder(ladder_runs()).png)).save(tmp, 'png', pnginfo=info, optimize=True)
    os.replace(tmp, PICTURE)

def fill(text, name, content):
    "`text` with `content` between the marks of that name"
    begin, end = f'<!-- {name}: written by make export -->\n', f'<!-- end of {name} -->\n'
    before, rest = text.split(begin)
    return before + begin + content + end + rest.split(end)[1]

def image(): "The image as Markdown"; return f'![{plot_ladder(ladder_runs()).alt}](data/ladder.png)\n'

def readme(text):
    "The README with its image and tables written anew"
    parts = {'ladder': image, 'baseline': baseline, 'table of gains': gains_table, 'table of transfer': transfer_table}
    for name,make in parts.items(): text = fill(text, name, make())
    return text

def main():
    draw()
    for path,new in (README, readme(README.read_text(encoding='utf-8'))), (RESULTS, results()):
        if not path.exists() or path.read_text(encoding='utf-8') != new: write_atomic(path, new)

if __name__ == '__main__': sys.exit(main())
