"""Makes some reference runs again by their own commands, and compares: python authors/remake.py --seed 1 --n 12 --to FOLDER"""
import argparse, random, shlex, subprocess, sys
from pathlib import Path

import course_helpers.core.config  # before torch
from course_helpers.records.run import load_runs
from course_helpers.records.stats import spread
from course_helpers.records.tables import group_runs

def draw(seed, n):
    "Records from all families, profiles, budgets and kinds of images, as evenly as `n` allows"
    groups, rng = {}, random.Random(seed)
    for o in load_runs():
        family = o.arm.split('/')[0] if '/' in o.arm else 'recipe'
        groups.setdefault((family, o.profile, o.budget, o.images['name']), []).append(o)
    first = {}  # one of each family, then of the groups that are left
    for k in rng.sample(sorted(groups), len(groups)): first.setdefault(k[0], k)
    order = [*first.values(), *(k for k in sorted(groups) if k not in first.values())]
    return [rng.choice(groups[k]) for k in order[:n]]

def compare(old, new):
    "What is not as it was; of accuracies, what lies more than four spreads from the mean of its arm"
    problems = [k for k in ('config', 'images', 'seed', 'images_seen') if getattr(old, k) != getattr(new, k)]
    if old.versions == new.versions and old.start != new.start: problems.append('start')
    arm = next(o for o in group_runs(load_runs()) if old in o)
    for k in old.scores:
        if k not in new.scores: problems.append(f'{k} is missing'); continue
        mean, sd, n = spread([100*o.scores[k]['accuracy'] for o in arm])
        if n > 2 and abs(100*new.scores[k]['accuracy']-mean) > 4*sd: problems.append(f'{k}: mean {mean:.1f}, sd {sd:.1f}, n {n}')
    return problems

def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name,kind in dict(seed=int, n=int, to=str).items(): p.add_argument(f'--{name}', type=kind, required=True)
    a, bad = p.parse_args(), 0
    course_run = Path(sys.executable).parent/'course-run'
    for old in draw(a.seed, a.n):
        subprocess.run([course_run, *shlex.split(old.command)[1:], '--to', a.to], check=True, stdout=subprocess.DEVNULL)
        new = next(o for o in load_runs(a.to) if (o.arm, o.seed, o.profile, o.budget, o.images) ==
                   (old.arm, old.seed, old.profile, old.budget, old.images))
        same = new.correct == old.correct
        shares = ', '.join(f"{k} {100*old.scores[k]['accuracy']:.2f} then, {100*new.scores[k]['accuracy']:.2f} now" for k in old.scores)
        problems = compare(old, new)
        bad += bool(problems)
        print(f"{'; '.join(problems) or 'as before'}{', each answer too' if same else ''}: {old.command}: {shares}", flush=True)
    print(f'{a.n} runs drawn by seed {a.seed}, {bad} of them differ.')
    return bad > 0

if __name__ == '__main__': sys.exit(main())
