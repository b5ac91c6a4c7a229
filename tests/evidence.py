"""Writes the table of the README from the committed records: part of `make export`."""
import sys
from pathlib import Path

import course_helpers.config  # before torch
from course_helpers.config import write_atomic
from course_helpers.results import compare, correct_holm

README = Path(__file__).resolve().parent.parent/'README.md'
BEGIN, END = '<!-- table of gains: written by make export -->\n', '<!-- end of the table -->\n'
BUDGETS = 'all', 'few'

def question(*arms, score='val', budgets=BUDGETS):
    "Gains that are corrected together, by the name of a row and budget: arms are (name, a, b, what differs)"
    keys = [(name, o) for name,*_ in arms for o in budgets]
    return dict(zip(keys, correct_holm([compare(a, b, what, score=score, budget=o) for _,a,b,what in arms for o in budgets])))

def all_gains():
    "Every gain of the table, corrected as in its lesson"
    pairs = ('val', 'val_flip'), ('val', 'val_tta'), ('val_flip', 'val_tta')
    tta = correct_holm([compare('baseline', 'baseline', score=k, budget=o) for k in pairs for o in BUDGETS])
    names = '[test-time augmentation](nbs/04_tta.ipynb): the mirror image', "fastai's `learn.tta`, five views"
    return {**question(('[normalization](nbs/02_normalization.ipynb)', 'baseline', 'normalize', 'stats')),
            **question(('the same in a net without batch norm', 'nobn', 'normalize+nobn', 'stats'), budgets=('all',)),
            **question(('[progressive resizing](nbs/03_resizing.ipynb), equal epochs', 'baseline', 'resize', ('cbs', 'sched')),
                       ('the same at equal time', 'baseline', 'resize+longer', ('cbs', 'sched', 'epochs'))),
            **dict(zip([(name, o) for name in names for o in BUDGETS], tta)),
            **question(('[mixup](nbs/05_mixup.ipynb)', 'baseline', 'mixup', 'cbs'), ('CutMix', 'baseline', 'cutmix', 'cbs'),
                       ('CutMix in place of mixup', 'mixup', 'cutmix', 'cbs')),
            **question(('[label smoothing](nbs/06_smoothing.ipynb)', 'baseline', 'smooth', 'loss'))}

def cell(gain):
    "A gain in words"
    return f'{gain.verdict}, {gain.difference:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})' if gain else 'not measured'

def table():
    "The table as Markdown"
    gains = all_gains()
    rows = [f"| {name} | {' | '.join(cell(gains.get((name, o))) for o in BUDGETS)} |\n" for name in dict.fromkeys(k for k,_ in gains)]
    return ''.join(['| points on val, 95 % interval, n = 5 | all pictures, 4 epochs | 100 of each class, 36 epochs |\n|--|--|--|\n', *rows])

def main():
    text = README.read_text(encoding='utf-8')
    before, rest = text.split(BEGIN)
    new = before + BEGIN + table() + END + rest.split(END)[1]
    if new != text: write_atomic(README, new)

if __name__ == '__main__': sys.exit(main())
