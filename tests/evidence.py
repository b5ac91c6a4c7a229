"""Writes the table of the README from the committed records: part of `make export`."""
import sys
from pathlib import Path

import course_helpers.config  # before torch
from course_helpers.config import write_atomic
from course_helpers.results import compare, correct_holm, load_runs

README = Path(__file__).resolve().parent.parent/'README.md'
BEGIN, END = '<!-- table of gains: written by make export -->\n', '<!-- end of the table -->\n'
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
    [('[label smoothing](nbs/06_smoothing.ipynb)', 'baseline', 'smooth', 'loss', 'val')]]

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

def main():
    text = README.read_text(encoding='utf-8')
    before, rest = text.split(BEGIN)
    new = before + BEGIN + table() + END + rest.split(END)[1]
    if new != text: write_atomic(README, new)

if __name__ == '__main__': sys.exit(main())
