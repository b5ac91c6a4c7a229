"""How fast the course is, side by side with what others use: `make bench`. Needs the photographs."""
import argparse, json, os, statistics, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT/'data'/'bench.json'
SIZES = 64, 128

def settings(**kw):
    from course_helpers.core.config import get_settings
    return get_settings(profile='cpu', images='photos', budget='all', **kw)

def our_loader(size, workers=0):
    from fastai.vision.all import imagenet_stats
    from course_helpers.data.loaders import get_dls
    s = settings(jitter=0) if size <= 80 else settings(jitter=0, size=size, side=160)
    return get_dls(s, stats=imagenet_stats, size=size).train

def fastai_dls(size, workers, min_scale=.35):
    from fastai.vision.all import (CategoryBlock, DataBlock, GrandparentSplitter, ImageBlock, Normalize, Resize, aug_transforms,
                                   get_image_files, imagenet_stats, parent_label)
    from course_helpers.data.images import get_images
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, splitter=GrandparentSplitter(valid_name='val'),
                      get_y=parent_label, item_tfms=Resize(160),
                      batch_tfms=[*aug_transforms(size=size, min_scale=min_scale), Normalize.from_stats(*imagenet_stats)])
    return block.dataloaders(get_images(settings()).folder, bs=64, num_workers=workers)

def fastai_loader(size, workers=0): return fastai_dls(size, workers).train

def torchvision_loader(size, workers=0):
    import torch
    from fastai.vision.all import imagenet_stats
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2
    from course_helpers.data.images import get_images
    tfms = v2.Compose([v2.PILToTensor(), v2.RandomResizedCrop(size, scale=(.35, 1), antialias=True), v2.RandomHorizontalFlip(),
                       v2.ToDtype(torch.float32, scale=True), v2.Normalize(*imagenet_stats)])
    folder = ImageFolder(get_images(settings()).folder/'train', tfms)
    return torch.utils.data.DataLoader(folder, bs := 64, shuffle=True, num_workers=workers, drop_last=True)

LOADERS = dict(course=our_loader, fastai=fastai_loader, torchvision=torchvision_loader)

def cpu_seconds():
    "Seconds of CPU of this process and of its workers that have ended"
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system

def one_round(dl, images):
    "CPU milliseconds an image, and images a second, over about `images` images"
    wall, cpu, n = time.perf_counter(), cpu_seconds(), 0
    it = iter(dl)
    for xb, _ in it:
        n += len(xb)
        if n >= images: break
    seconds = time.perf_counter()-wall
    del it
    return (cpu_seconds()-cpu)/n*1e3, n/seconds

def loaders(rounds=5, images=1280):
    "Loaders, without workers: CPU time an image, at two sizes"
    rows = []
    for size in SIZES:
        dls = {k: f(size) for k,f in LOADERS.items()}
        for dl in dls.values(): one_round(dl, 128)
        found = {k: [] for k in dls}
        for _ in range(rounds):
            for k,dl in dls.items(): found[k].append(one_round(dl, images)[0])
        for k,goal in ('fastai', 10), ('torchvision', 3):
            rows.append(row(f'CPU ms an image, {size} px', k, found['course'], found[k], 'ms', goal, [b/a for a,b in zip(found['course'], found[k])]))
    return rows

def throughput(rounds=5, images=1280):
    "Images a second: ours without workers, the others with 0 or 2, whichever is faster"
    rows = []
    for size in SIZES:
        found = {(k, w): [] for k in LOADERS for w in ((0,) if k == 'course' else (0, 2))}
        dls = {o: LOADERS[o[0]](size, o[1]) for o in found}
        one_round(dls['course', 0], 128)
        for _ in range(rounds):
            for o,dl in dls.items(): found[o].append(one_round(dl, images)[1])
        for k,goal in ('fastai', 6), ('torchvision', 2):
            best = max((found[k, w] for w in (0, 2)), key=statistics.mean)
            rows.append(row(f'Images a second, {size} px', k, found['course', 0], best, '/s', goal, [a/b for a,b in zip(found['course', 0], best)]))
    return rows

def row(what, against, ours, theirs, unit, goal, ratios, **more):
    "A line of the table: means, and the ratio with its spread"
    sd = statistics.stdev(ratios) if len(ratios) > 1 else None
    return dict(what=what, against=against, unit=unit, course=statistics.mean(ours), other=statistics.mean(theirs),
                ratio=statistics.mean(ratios), sd=sd, n=len(ratios), goal=goal, met=goal is None or statistics.mean(ratios) >= goal, **more)

EPOCH = '''
import course_helpers.core.config, json, os, sys, time
sys.path.insert(0, {here!r})
import bench
from fastai.vision.all import *
from course_helpers.baseline import get_net
from course_helpers.training import get_learner, get_probs
from course_helpers.data.loaders import get_dls
who, seed, images = {who!r}, {seed}, {images}
s = bench.settings()
if who == 'course': learn = get_learner(get_dls(s, stats=imagenet_stats), s, seed)
else:
    dls = bench.fastai_dls(s.size, 2, s.min_scale)
    set_seed(seed)
    learn = Learner(dls, get_net(s.net), loss_func=CrossEntropyLossFlat(), metrics=accuracy, wd=s.wd)
class Stop(Callback):
    def after_batch(self):
        if self.training and images and (self.iter+1)*s.bs >= images: raise CancelTrainException()
valid, learn.dls = learn.dls, DataLoaders(learn.dls.train, [])
wall, cpu = time.perf_counter(), bench.cpu_seconds()
with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, s.lr, cbs=[Stop()])
wall, cpu = time.perf_counter()-wall, bench.cpu_seconds()-cpu
memory = bench.anonymous()
learn.dls = valid
right = None
if not images:
    with learn.no_bar(): probs, targs = get_probs(learn)
    right = (probs.argmax(1) == targs).float().mean().item()
print(json.dumps(dict(wall=wall, cpu=cpu, memory=memory, accuracy=right)))
'''

def anonymous():
    "Anonymous memory of this process and its children at its highest, in MB; 0 where the system doesn't say"
    total = 0
    for o in Path('/proc').glob('[0-9]*/status'):
        try: vals = dict(line.split(':', 1) for line in o.read_text().splitlines() if ':' in line)
        except OSError: continue
        if int(vals['Pid']) == os.getpid() or int(vals['PPid']) == os.getpid(): total += int(vals.get('RssAnon', '0').split()[0])
    return total/1024

def run(code):
    "Run code in a fresh process; returns what it printed last"
    res = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=ROOT, capture_output=True, text=True)
    if res.returncode: sys.exit(res.stderr)
    return res.stdout.strip().splitlines()[-1]

def not_worse(ours, theirs):
    "Whether the 95 % interval of the difference reaches 0 or more"
    from scipy.stats import ttest_ind
    ci = ttest_ind(ours, theirs, equal_var=False).confidence_interval(.95)
    return dict(points=[round(float(o), 2) for o in ci], met=bool(ci.high >= 0))

def epoch(rounds=5):
    "A training epoch: same net, size, batch and images"
    found = dict(course=[], fastai=[])
    for seed in range(rounds):
        for who in found:
            found[who].append(json.loads(run(EPOCH.format(here=str(Path(__file__).parent), who=who, seed=seed, images=0))))
            print(f'  {who}, seed {seed}: {found[who][-1]}', flush=True)
    get = lambda who, k: [o[k] for o in found[who]]
    ours, theirs = get('course', 'wall'), get('fastai', 'wall')
    acc = {k: [100*o for o in get(k, 'accuracy')] for k in found}
    mem = get('course', 'memory'), get('fastai', 'memory')
    return [row('Training epoch, whole', 'fastai', ours, theirs, 's', 1.5, [b/a for a,b in zip(ours, theirs)]),
            row('CPU time of that epoch', 'fastai', get('course', 'cpu'), get('fastai', 'cpu'), 's', 1.5,
                [b/a for a,b in zip(get('course', 'cpu'), get('fastai', 'cpu'))]),
            dict(row('Accuracy after it, official val', 'fastai', acc['course'], acc['fastai'], '%', 1,
                     [a/b for a,b in zip(acc['course'], acc['fastai'])]), **not_worse(acc['course'], acc['fastai'])),
            row('Anonymous memory', 'fastai', *mem, 'MB', 1, [b/a for a,b in zip(*mem)])]

PICTURE = '''
import json, time
from jupyter_client.manager import start_new_kernel
nb = json.load(open('nbs/tools/data/images.ipynb', encoding='utf-8'))
start = time.perf_counter()
kernel, client = start_new_kernel(extra_arguments=['--log-level=50'], cwd='nbs/tools/data')
seen = []
def hook(msg):
    data = msg['content'].get('data', {})
    if 'image/png' in data or '<img' in data.get('text/html', ''): seen.append(time.perf_counter()-start)
for c in nb['cells']:
    if c['cell_type'] == 'code' and not seen:
        client.execute_interactive(''.join(c['source']), output_hook=hook)
client.stop_channels(); kernel.shutdown_kernel(now=True)
print(seen[0])
'''
IMPORT = 'import time; t = time.perf_counter()\nfrom fastai.vision.all import *\nprint(time.perf_counter()-t)'

def first_image(rounds=5):
    "Kernel start to the first image of the page on image sets"
    ours, theirs = [], []
    for _ in range(rounds): ours.append(float(run(PICTURE))); theirs.append(float(run(IMPORT)))
    return [row('Kernel start to first image', 'import of fastai', ours, theirs, 's', 2, [b/a for a,b in zip(ours, theirs)])]

def lessons(rounds=1):
    "All lessons in one process, and each in a fresh one"
    names = sorted(o.relative_to(ROOT/'nbs').with_suffix('').as_posix() for o in (ROOT/'nbs').rglob('*.ipynb'))
    env = dict(os.environ, COURSE_PROFILE='quick', COURSE_IMAGES='sketches', COURSE_BUDGET='all')
    def timed(what='tests/test_lessons.py'):
        start = time.perf_counter()
        subprocess.run([sys.executable, '-W', 'ignore', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', what],
                       cwd=ROOT, env=env, check=True, capture_output=True)
        return time.perf_counter()-start
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(timed())
        theirs.append(sum(timed(f'tests/test_lessons.py::test_lesson[{o}]') for o in names))
    return [row('All lessons in one process', 'one process each', ours, theirs, 's', 3, [b/a for a,b in zip(ours, theirs)])]

def technique_learners():
    "A learner of profile `cpu` for the baseline and for each technique; `small`: the baseline on small images"
    from course_helpers.training import get_learner
    from course_helpers.data.loaders import get_dls
    from course_helpers.experiments.arm import build_arm
    s = settings()
    made = {k: build_arm(k, s).learn for k in ('baseline', 'normalize', 'mixup', 'cutmix', 'smooth')}
    return dict(made, small=get_learner(get_dls(s, size=s.small), s))

def step_time(learn, steps):
    "CPU seconds of a training step"
    from fastai.vision.all import Callback, CancelFitException
    class Clock(Callback):
        def before_batch(self):
            if self.iter == 2: self.learn.started = cpu_seconds()
            if self.iter == steps+2: raise CancelFitException()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[Clock()])
    return (cpu_seconds()-learn.started)/steps

def techniques(rounds=8, steps=20):
    "CPU time of a training step with each technique, beside the baseline's"
    learners = technique_learners()
    found = {k: [] for k in learners}
    for _ in range(rounds):
        for k,learn in learners.items(): found[k].append(step_time(learn, steps))
    return [row('CPU time of a training step', k, found['baseline'], found[k], 's', None, [b/a for a,b in zip(found['baseline'], found[k])])
            for k in learners if k != 'baseline']

# Memory of a process at its highest, in KB, as its last word on stderr; getrusage would count that of its parent too
PEAK = '''import sys
print(next(o for o in open('/proc/self/status') if o.startswith('VmHWM')).split()[1], file=sys.stderr)'''

def command(name, args, out=os.devnull):
    "Seconds of a command in a process of its own, and its memory at its highest in MB"
    code = f'from course_helpers.cli import {name}\ncode = {name}({[str(o) for o in args]})\n{PEAK}\nraise SystemExit(code)'
    start = time.perf_counter()
    with open(out, 'w') as f: res = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=ROOT, stdout=f, stderr=subprocess.PIPE, text=True)
    if res.returncode: sys.exit(f'{name} failed: {res.stderr}')
    return time.perf_counter()-start, int(res.stderr.split()[-1])/2**10

def by_class(target, files):
    "A folder with links to `files`, a sub-folder for each class"
    for o in files:
        link = target/o.parent.name/o.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(o)
    return target

def tiny(target, n):
    "A folder with `n` small images that differ, in two classes"
    import numpy as np
    from PIL import Image
    for i in range(n):
        path = target/'ab'[i % 2]/f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return target

def kept_rows(tmp, files, rounds):
    "Rows from the net as `course-retrain` calls it and as timm makes it; an epoch with kept rows and without"
    from course_helpers.models.pretrained import get_base, fuse_batchnorm
    from course_helpers.models.features import Bottlenecks, fill
    from course_helpers.models.options import Options
    from course_helpers.models.retrain import Rows, fit
    net, base = get_base(size=160)
    nets, found = dict(course=fuse_batchnorm(net), timm=net), dict(course=[], timm=[], kept=[], anew=[])
    folder, names = files[0].parents[2], [o.relative_to(files[0].parents[2]).as_posix() for o in files]
    place = {o: i for i,o in enumerate(sorted({o.parent.name for o in files}))}
    pairs = [(o, o.split('/')[-2]) for o in names]
    def timed(f): start = time.perf_counter(); res = f(); return res, time.perf_counter()-start
    for i in range(rounds):
        for who,o in nets.items():
            store = Bottlenecks(tmp/f'{who}{i}', base)
            (keys, _), seconds = timed(lambda: fill(store, o, base, folder, names))
            found[who].append(len(names)/seconds)
        for what,flip in ('kept', False), ('anew', True):
            rows = Rows(store, keys, place, folder, nets['course'], base)
            parts = dict(training=pairs, validation=pairs[:64])
            found[what].append(timed(lambda: fit(rows, parts, Options(epochs=1, flip=flip)))[1])
        store.close()
    return found

def run_retrain(tmp, folder, size):
    "Seconds and memory of `course-retrain` on a folder"
    return command('course_retrain', [folder, '--output', tmp/'model', '--size', size, '--bottlenecks', tmp/folder.name/'rows'])

def memory():
    "Memory of course-retrain with few images and with many"
    import tempfile
    with tempfile.TemporaryDirectory() as tmp:
        small, large = (run_retrain(Path(tmp), tiny(Path(tmp)/f'tiny{n}', n), 32)[1] for n in (1_000, 100_000))
    return [row('Memory, 100,000 small ones', '1,000', [large], [small], 'MB', .9, [small/large])]

def retraining(rounds=3):
    "course-retrain and course-label on the photographs"
    import tempfile
    from scipy.stats import binomtest
    from course_helpers.data.images import get_images, is_unseen
    images = get_images(settings())
    known, unseen = ([images.folder/o for o in images.files if is_unseen(o) == k] for k in (False, True))
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        seconds, most = run_retrain(tmp, by_class(tmp/'known', known), 160)
        more, _ = command('course_label', [tmp/'model', by_class(tmp/'unseen', unseen), '--json'], tmp/'found')
        labels = [json.loads(o) for o in (tmp/'found').read_text().splitlines()]
        right = sum(max(o['classes'], key=o['classes'].get) == Path(o['path']).parent.name for o in labels)
        ci = binomtest(right, len(labels)).proportion_ci(.95, 'wilson')
        _, least = run_retrain(tmp, by_class(tmp/'tenth', known[::10]), 160)
        found = kept_rows(tmp, known[::8], rounds)
    share = 100*right/len(labels)
    return [row('Images a second into rows', "timm's net", found['course'], found['timm'], '/s', 1, [a/b for a,b in zip(found['course'], found['timm'])]),
            row('The same', '60 a second', found['course'], [60], '/s', 1, [o/60 for o in found['course']]),
            row('Epoch with kept rows', 'without', found['kept'], found['anew'], 's', 30, [b/a for a,b in zip(found['kept'], found['anew'])]),
            row(f'{len(known):,} learned, {len(unseen)} named', '5 minutes', [seconds+more], [300], 's', 1, [300/(seconds+more)]),
            row('Right of those unseen', '96 %', [share], [96], '%', 1, [share/96], interval=[100*ci.low, 100*ci.high]),
            row('Memory, all photographs', 'a tenth', [most], [least], 'MB', .9, [least/most])]

def images_a_second(learn, batches=12):
    "Images a second that a learner trains on, loading and augmentation included"
    from fastai.vision.all import Callback, CancelFitException
    class Clock(Callback):
        def before_batch(self):
            if self.iter == 2: self.learn.begun = time.perf_counter()
            if self.iter == batches+2: raise CancelFitException()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[Clock()])
    return batches*learn.dls.train.bs/(time.perf_counter()-learn.begun)

def speed_trial(changes='', budget='10'):
    "A training of the speedrun that is ready to start"
    from course_helpers.core.config import get_settings
    from course_helpers.experiments.arm import build_arm
    return build_arm(f'speedrun/{changes}' if changes else 'speedrun', get_settings(profile='speedrun', images='photos', budget=budget))

def calibrate():
    "Images a second of a training, beside lesson 08's `RATES`"
    from course_helpers.core.precision import fastest_mode, running_in
    from course_helpers.speedrun import RATES
    rows = []
    for (net, precision), rates in RATES.items():
        for size,known in rates.items():
            learn = speed_trial(f'net={net}+precision={precision}+sizes={size}').learn
            mode = fastest_mode(learn.model, size) if precision == 'auto' else precision
            with running_in(learn.model, mode): rate = images_a_second(learn)
            rows.append(row(f'{net}, {precision} ({mode}), {size} px', 'RATES', [rate], [known], '/s', None, [rate/known]))
    return rows

def score_by_time(learn, epochs, sched, minutes, mode='float32'):
    "Train; seconds of training and accuracy on all of val in %, after each epoch, for at most so many minutes"
    from fastai.vision.all import Callback, CancelFitException, DataLoaders, ParamScheduler, noop
    from course_helpers.core.precision import running_in
    from course_helpers.tta import tta_probs
    val, found, spent = learn.dls.valid, [], []
    class Clock(Callback):
        def before_train(self): self.begun = time.perf_counter()
        def after_train(self):
            spent.append(time.perf_counter()-self.begun)
            probs, targs = tta_probs(learn, val, [noop])
            found.append((sum(spent), 100*(probs.argmax(1) == targs).float().mean().item()))
            print(f'    {found[-1][0]:.0f} s: {found[-1][1]:.2f} %', flush=True)
            if sum(spent) > 60*minutes: raise CancelFitException()
    learn.dls = DataLoaders(learn.dls.train, [])
    with learn.no_bar(), learn.no_logging(), running_in(learn.model, mode): learn.fit(epochs, cbs=[ParamScheduler(sched), Clock()])
    return found

def plain_fastai(net, minutes):
    "Seconds and accuracies of a net with fastai's own loaders, augmentation and one-cycle, planned for so many minutes"
    from fastai.vision.all import CrossEntropyLossFlat, Learner, accuracy, set_seed
    from course_helpers.baseline import one_cycle
    def make(): set_seed(0); return Learner(fastai_dls(128, 2), net(n_out=10), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    probe, learn = make(), make()
    epochs = max(1, int(60*minutes*images_a_second(probe)/len(learn.dls.train_ds)))
    return score_by_time(learn, epochs, one_cycle(3e-3), minutes)

def rivals(minutes=45):
    "Clock time to 80 and 87.5 % of val, one training each: the speedrun (20 minutes), and plain fastai"
    from fastai.vision.all import xresnet50
    from course_helpers.baseline import one_cycle
    from course_helpers.core.precision import fastest_mode
    from course_helpers.speedrun import Spine
    trial = speed_trial(budget='20')
    learn, epochs = trial.learn, sum(n for _,n in trial.learn.stages_cb.stages)
    print('  the speedrun', flush=True)
    ours = score_by_time(learn, epochs, one_cycle(learn.lr), minutes, fastest_mode(learn.model, 128))
    rows = []
    for name,net in ("the book's xresnet50", xresnet50), ('our net', Spine()):
        print(f'  fastai, {name}', flush=True)
        theirs = plain_fastai(net, minutes)
        for goal in 80, 87.5:
            mine, other = (next((s for s,a in o if a >= goal), None) for o in (ours, theirs))
            known = [o or 60*minutes for o in (mine, other)]  # not reached: longer than that
            rows.append(row(f'Seconds to {goal} %', f'fastai, {name}', known[:1], known[1:], 's', None, [known[1]/known[0]],
                            reached=[mine is not None, other is not None]))
    return rows

PARTS = dict(loaders=loaders, throughput=throughput, epoch=epoch, techniques=techniques, first_image=first_image, lessons=lessons,
             retraining=retraining, memory=memory, calibrate=calibrate, rivals=rivals)

def show(rows):
    "The table"
    print(f"{'what':34} {'against':18} {'course':>9} {'other':>9}       {'ratio':>14}  n  goal")
    for o in rows:
        ratio = f"{o['ratio']:.2f}" + (f" ± {o['sd']:.2f}" if o['sd'] is not None else '')
        print(f"{o['what']:34} {o['against']:18} {o['course']:9.2f} {o['other']:9.2f} {o['unit']:3} {ratio:>14}  {o['n']}  "
              + ('' if o['goal'] is None else f"{o['goal']:g} {'met' if o['met'] else 'NOT met'}") + (' (95 %: {:+.1f} to {:+.1f} points)'.format(*o['points']) if 'points' in o else '')
              + (' (95 %: {:.1f} to {:.1f} %)'.format(*o['interval']) if 'interval' in o else ''))

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('parts', nargs='*', choices=[*PARTS, []], help='default: all but calibrate and rivals')
    a = p.parse_args()
    import course_helpers.core.config  # before torch
    from course_helpers.core.files import write_atomic
    from course_helpers.records.run import get_machine, get_versions
    old = json.loads(OUT.read_text())['parts'] if OUT.exists() else {}
    for k in a.parts or [o for o in PARTS if o not in ('calibrate', 'rivals')]:  # these two when asked: hours, and another quiet machine
        print(PARTS[k].__doc__, flush=True)
        old[k] = PARTS[k]()
        write_atomic(OUT, json.dumps(dict(machine=get_machine(), versions=get_versions(), parts={k: old[k] for k in PARTS if k in old}), indent=1)+'\n')
    show([o for k in PARTS for o in old.get(k, [])])

if __name__ == '__main__': main()
