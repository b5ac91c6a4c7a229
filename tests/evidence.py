"""Writes table and picture of the README from the committed records: part of `make export`."""
import hashlib, io, os, sys
from pathlib import Path

import course_helpers.config  # before torch
from course_helpers.config import write_atomic
from course_helpers.recipe import draw_ladder, get_ladder
from course_helpers.results import compare, correct_holm, load_runs, spread
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parent.parent
README, PICTURE = ROOT/'README.md', ROOT/'data'/'ladder.png'
BUDGETS = 'all', 'few'

RESIZE = ('cbs', 'sched')
QUESTIONS = [  # rows that are corrected together, as in their lesson: name, arm without, arm with, what differs, score
    [('[normalization](nbs/02_normalization.ipynb)', 'baseline', 'normalize', 'stats', 'val')],
    [('the same in a net without batch norm', 'nobn', 'normalize+nobn', 'stats', 'val')],
    [('[progressive resizing](nbs/03_resizing.ipynb), equal epochs', 'baseline', 'resize', RESIZE, 'val'),
     ('the same at equal time', 'baseline', 'resize+longer', (*RESIZE, 'epochs'), 'val')],
    [('[test-time augmentation](nbs/04_tta.ipynb): the mirror image', 'baseline', 'baseline', '', ('val', 'val_flip')),
     ("fastai's `learn.tta`, five views", 'baseline', 'baseline', '', ('val', 'val_tta')),
     ('five views in place of the mirror image', 'baseline', 'baseline', '', ('val_flip', 'val_tta'))],
    [('[mixup](nbs/05_mixup.ipynb)', 'baseline', 'mixup', 'cbs', 'val'), ('CutMix', 'baseline', 'cutmix', 'cbs', 'val'),
     ('CutMix in place of mixup', 'mixup', 'cutmix', 'cbs', 'val')],
    [('[label smoothing](nbs/06_smoothing.ipynb)', 'baseline', 'smooth', 'loss', 'val')],
    [(f'{name}, {n} % of the training labels wrong', f'noise{n}', f'{arm}+noise{n}', what, 'val') for n in (5, 50)
     for name,arm,what in (('mixup', 'mixup', 'cbs'), ('CutMix', 'cutmix', 'cbs'), ('label smoothing', 'smooth', 'loss'))],
    [('[the whole recipe](nbs/07_recipe.ipynb): normalization, resizing, mixup, smoothing', 'baseline',
      get_ladder()[-1].name, ('stats', 'cbs', 'sched', 'loss'), 'val')]]

SEEN = 'held', 'doubled', 'augment', 'p', 'n_train', 'epochs'  # how training pictures are shown
def way(how, n): return 'baseline' if (how, n) == ('full', 'all') else f'augment/{how}/{n}'
DIAGNOSES = [  # the same for lessons 10 to 13: name, pictures of each class, arm without, arm with, what differs, score
    [(f'[learning rate](nbs/10_lr_finder.ipynb) {lr} in place of 0.01', 'all', 'baseline', f'rate/{lr}', 'lr', 'val')
     for lr in ('0.0003', '0.001', '0.003', '0.03', '0.1', '0.3')],
    [('the best of a search on `dev`: rate 0.003, batches of 32', 'all', 'baseline', 'found/0.003x32x4', ('lr', 'bs'), 'val')],
    [(f'{name}, against none', n, way('none', n), way(how, n), SEEN, 'val') for name,how in
     (('[mirror images](nbs/11_augmentation.ipynb) by chance', 'flip'), ('crops, mirror images, light', 'full')) for n in (20, 100, 'all')],
    [('a set doubled by mirror images, against mirroring by chance', 100, way('flip', 100), way('doubled', 100), SEEN, 'val'),
     ('quarter turns, upside down, negatives on top', 100, way('full', 100), way('hurt', 100), SEEN, 'val')],
    [(f'five of ten classes with a tenth of their pictures: weighted {name}', '100 or 10', 'imbalance/nothing', f'imbalance/{o}', what, 'val')
     for name,o,what in (('sampling', 'sampling', 'sampling'), ('loss', 'loss', ('loss', 'class_weights')))],
    [(f'{name} in place of sharp val pictures', 100, way('full', 100), way('full', 100), '', ('val', f'val_{name}')) for name in ('blurred', 'dark', 'small')] +
    [(f'trained with blur, darkness and few pixels too: {name}', 100, way('full', 100), way('elsewhere', 100), SEEN, score)
     for name,score in (('pictures as they are', 'val'), *((f'{o} pictures', f'val_{o}') for o in ('blurred', 'dark', 'small')))],
    [(f'[a plain net](nbs/12_overfitting.ipynb): {name}', 100, 'overfit/plain', f'overfit/{o}', what, 'val') for name,o,what in
     (('dropout', 'dropout', 'change'), ('batch norm', 'norm', 'change'), ('half the channels', 'half', 'change'), ('weight decay 2', 'decay', 'wd'),
      ('crops and mirror images', 'crops', SEEN), ('all of these', 'all', ('change', 'wd', *SEEN)))],
    *[[(f'the plain net: weights of the {best} on `dev`, not the last{noise}', 100, f'overfit/{arm}', f'overfit/{arm}', '', ('val_last', 'val_best'))
       for arm,noise in ((f'watch{o}', ''), (f'watch+noise50{o}', '; half of the labels wrong'))]
      for o,best in (('', 'lowest loss'), ('+accuracy', 'highest accuracy'))],
    [(f'[a net for larger pictures](nbs/13_architecture.ipynb): {name}', 100, 'baseline', f'arch/{o}', what, 'val') for name,o,what in
     (('a stride less in the stem', 'stem', 'change'), ('a stride less in the last stage', 'stage', 'change'),
      ('the first, for equal work', 'stem-thin', 'change'), ('the second, for equal work', 'stage-thin', 'change'), ('32 px', '32px', 'size'))]]

def diagnosis_table():
    "What was found in lessons 10 to 13, as Markdown"
    rows, ns = [], set()
    for question in DIAGNOSES:
        gains = correct_holm([compare(a, b, what, score=score, budget='all' if n == 'all' else 'few') for _,n,a,b,what,score in question])
        rows += [f'| {name} | {n} | {cell(gain)} |\n' for (name,n,*_),gain in zip(question, gains)]
        ns |= {o.n for o in gains}
    n, = ns
    return f'| what was tried | pictures of each class | points on val, 95 % interval, n = {n} |\n|--|--|--|\n' + ''.join(rows)

def answer(question):
    "Gains by row and budget, corrected together; a budget in which an arm has no runs is left out"
    asked = [(row, o) for row in question for o in BUDGETS if load_runs(arm=row[2], profile='cpu', budget=o)]
    gains = correct_holm([compare(a, b, what, score=score, budget=o) for (_,a,b,what,score),o in asked])
    return {(row[0], o): gain for (row,o),gain in zip(asked, gains)}

def all_gains(): "Every gain of the table"; return {k: o for question in QUESTIONS for k,o in answer(question).items()}

def cell(gain):
    "A gain in words"
    return f'{gain.verdict}, {gain.difference:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})' if gain else 'not measured'

def table():
    "The table as Markdown"
    gains = all_gains()
    rows = [f"| {name} | {' | '.join(cell(gains.get((name, o))) for o in BUDGETS)} |\n" for name in dict.fromkeys(k for k,_ in gains)]
    n, = {o.n for o in gains.values()}
    epochs = [load_runs(arm='baseline', profile='cpu', budget=o)[0].config['epochs'] for o in BUDGETS]
    head = f'| points on val, 95 % interval, n = {n} | all pictures, {epochs[0]} epochs | 100 of each class, {epochs[1]} epochs |\n|--|--|--|\n'
    return ''.join([head, *rows])

WAYS = {'from random weights': 'scratch', 'frozen, a new head': 'frozen', 'all of it trained': 'all'}
TARGETS = {'val': ('photos', 'val'), 'unseen': ('photos', 'unseen'), 'sketches': ('sketches', 'val')}

def transfers(how, target, n):
    "Accuracies in % of a way to carry a net over, by seed"
    kind, score = TARGETS[target]
    runs = load_runs(arm=f'transfer/{how}/{n}', profile='cpu')
    return [100*o.scores[score]['accuracy'] for o in runs if ('sketches' in o.pictures['name']) == (kind == 'sketches')]

def transfer_table():
    "Accuracy by way, target and pictures of each class, as Markdown"
    counts, ns, rows = (5, 20, 100, 'all'), set(), []
    for target in TARGETS:
        for name,how in WAYS.items():
            arms = [transfers(how, target, n) for n in counts]
            ns |= {len(o) for o in arms if o}
            cells = ['{:.1f} ± {:.1f}'.format(*spread(o)[:2]) if o else '' for o in arms]
            rows.append(f"| {target}: {name} | {' | '.join(cells)} |\n")
    n, = ns
    head = f"| accuracy in %, mean ± sd, n = {n} | {' | '.join(f'{o} of each class' for o in counts)} |\n|--|--|--|--|--|\n"
    return ''.join([head.replace('all of each class', 'all pictures'), *rows])

def ladder_runs(): return [o for o in load_runs(profile='cpu') if o.arm in [r.name for r in get_ladder()]]

def stamp():
    "Tells from which scores the picture was drawn"
    return hashlib.sha256(' '.join(f'{o.file} {o.scores}' for o in ladder_runs()).encode()).hexdigest()[:12]

def draw():
    "Draw the ladder, if its records changed or it is not there; other machines draw other pixels"
    if PICTURE.exists() and Image.open(PICTURE).info.get('runs') == stamp(): return
    info, tmp = PngInfo(), PICTURE.with_suffix('.tmp')
    info.add_text('runs', stamp())
    Image.open(io.BytesIO(draw_ladder(ladder_runs()).png)).save(tmp, 'png', pnginfo=info, optimize=True)
    os.replace(tmp, PICTURE)

def fill(text, name, content):
    "`text` with `content` between the marks of that name"
    begin, end = f'<!-- {name}: written by make export -->\n', f'<!-- end of {name} -->\n'
    before, rest = text.split(begin)
    return before + begin + content + end + rest.split(end)[1]

def picture(): "The picture as Markdown"; return f'![{draw_ladder(ladder_runs()).alt}](data/ladder.png)\n'

def main():
    draw()
    text = README.read_text(encoding='utf-8')
    new = fill(fill(text, 'ladder', picture()), 'table of gains', table())
    new = fill(fill(new, 'table of transfer', transfer_table()), 'table of diagnosis', diagnosis_table())
    if new != text: write_atomic(README, new)

if __name__ == '__main__': sys.exit(main())
