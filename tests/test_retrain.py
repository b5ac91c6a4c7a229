"""The commands course-retrain and course-label, on folders that a careless person might give them."""
import json, os, shutil, signal, socket, sqlite3, sys, tempfile, urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from course_helpers.cli import course_label
from course_helpers.models.folder import read_model
from course_helpers.models.pretrained import get_base
from course_helpers.models.read import read_image, to_square
from course_helpers.cli import course_retrain
from course_helpers.models.features import Bottlenecks, fill
from course_helpers.models.read import FolderError
from course_helpers.models.classes import percent_of, split_images
from PIL import Image
from processes import course, ended, python, run, wait_for

def paint(path, colour, rng, side=48, **kw):
    "An image of one colour and some noise"
    x = np.clip(np.array(colour) + rng.normal(0, 30, (side, side, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(path, **kw)

@pytest.fixture(scope='module')
def colours(tmp_path_factory):
    "Two classes that a child can tell apart"
    folder, rng = tmp_path_factory.mktemp('images')/'colours', np.random.default_rng(0)
    for name,colour in dict(rot=(200, 40, 40), blau=(40, 40, 200)).items():
        for i in range(60): paint(folder/name/f'{name} {i}.png', colour, rng)
    return folder

@pytest.fixture(scope='module')
def model(colours, tmp_path_factory):
    out = tmp_path_factory.mktemp('model')/'model'
    assert course_retrain([str(o) for o in args(colours, out)]) == 0
    return out

def args(folder, out, *more, rows=None):
    "Rows are kept beside the images: what a test has computed is there for the next"
    return [folder, '--output', out, '--size', 32, '--epochs', 10, '--lr', .03, '--bottlenecks', rows or folder.parent/'rows', *more]

def test_folder_to_model_to_labels(colours, model, capsys):
    net, info = read_model(model)
    assert info.classes == ('blau', 'rot') and info.record['accuracy'] == 1 and info.record['n'] >= 5
    low, high = info.record['interval']
    assert low < 1 <= high+1e-9 and (model/'confusion.png').exists() and not list(model.parent.glob('*.tmp'))
    assert course_label([str(model), str(colours), '--json']) == 0
    lines = [json.loads(o) for o in capsys.readouterr().out.splitlines()]
    assert len(lines) == 120 and all(max(o['classes'], key=o['classes'].get) in o['path'] for o in lines)

def test_labels_from_standard_input_without_fastai(colours, model, tmp_path):
    names = [colours/'rot'/'rot 1.png', colours/'blau'/'blau 2.png']
    if sys.platform == 'linux':  # a name that is no text
        names.append(tmp_path/'odd\udcff.png')
        shutil.copy(colours/'rot'/'rot 1.png', names[-1])
    code = ('import sys, course_helpers.cli as m\n'
            'sys.exit(m.course_label([sys.argv[1], "-", "--top", "1"]) or 2*("fastai" in sys.modules))')
    done = run(python(code, model), input=''.join(f'{o}\n' for o in names))
    said = [o.split(': ')[1].split()[0] for o in done.stdout.splitlines()]
    assert (done.returncode, said) == (0, ['rot', 'blau', 'rot'][:len(names)]), done.stderr

@pytest.mark.parametrize('what, says', [
    ('missing', 'There is no folder'), ('empty', 'has 0 sub-folders'), ('one', 'has 1 sub-folders'), ('few', 'needs about 44 images'),
    ('hollow', 'No images in: empty'), ('case', 'differ only in case'), ('file', 'There is no folder'), ('taken', 'nothing there is overwritten'),
    ('percent', 'leave no room'), ('net', 'Did you mean')])
def test_what_is_refused_and_how(what, says, colours, tmp_path, capsys):
    rng, folder, out, more = np.random.default_rng(0), tmp_path/'in', tmp_path/'out', []
    if what != 'missing': folder.mkdir()
    if what not in ('missing', 'empty', 'file'):
        for k in ('one',) if what == 'one' else ('one', 'two'):
            for i in range(3 if what == 'few' else 60): paint(folder/k/f'{k}{i}.png', (9, 9, 9), rng, side=8)
    if what == 'file': folder.rmdir(); folder.write_text('')
    if what == 'hollow': (folder/'empty').mkdir()
    if what == 'case': paint(folder/'ONE'/'a.png', (9, 9, 9), rng, side=8)
    if what == 'taken': out.mkdir(); (out/'thesis.txt').write_text('mine')
    if what == 'percent': more = ['--testing', '60', '--validation', '40']
    if what == 'net': more = ['--base', 'resnet5O']
    assert course_retrain([str(o) for o in args(folder, out, *more)]) == 1
    assert says in capsys.readouterr().err
    assert sorted(o.name for o in tmp_path.iterdir() if 'rows' not in o.name) == sorted({*(['in'] if what != 'missing' else []), *(['out'] if what == 'taken' else [])})

@pytest.fixture
def nobody():
    "A folder of somebody who is not root, for root may read and write everything"
    with tempfile.TemporaryDirectory() as tmp:
        root = os.geteuid() == 0
        if root: os.chown(tmp, 65534, 65534); os.seteuid(65534)
        yield Path(tmp)
        if root: os.seteuid(0)

@pytest.mark.skipif(not hasattr(os, 'geteuid'), reason='rights are another matter on Windows')
def test_unreadable_and_read_only_folders(nobody, capsys):
    rng, folder, out = np.random.default_rng(0), nobody/'in', nobody/'out'
    for k in 'ab':
        for i in range(60): paint(folder/k/f'{i}.png', (9, 9, 9), rng, side=8)
    def refused(says): assert course_retrain([str(o) for o in args(folder, out)]) == 1 and says in capsys.readouterr().err
    (folder/'a').chmod(0); refused('is not readable'); (folder/'a').chmod(0o755)
    folder.chmod(0); refused('is not readable'); folder.chmod(0o755)
    (nobody/'rows').mkdir(); (nobody/'rows').chmod(0o555); refused("can't be kept")
    assert sorted(o.name for o in nobody.iterdir()) == ['in', 'rows'] and not list((nobody/'rows').iterdir())

def test_a_bottleneck_folder_that_is_a_file_or_full(colours, tmp_path, capsys, monkeypatch):
    (tmp_path/'rows').write_text('')
    assert course_retrain([str(o) for o in args(colours, tmp_path/'out', rows=tmp_path/'rows')]) == 1
    assert 'Name another folder by --bottlenecks' in capsys.readouterr().err
    net, base = get_base(size=32)
    store = Bottlenecks(tmp_path/'full', base)
    store.db.execute('pragma max_page_count=8')  # what a full disk looks like to SQLite
    with pytest.raises(FolderError, match='make room'): fill(store, net, base, colours, [f'rot/rot {i}.png' for i in range(60)])
    store.close()
    again = Bottlenecks(tmp_path/'full', base)
    assert len(again.missing([bytes([i]) for i in range(3)])) == 3

def odd_images(folder):
    "One image of each odd kind, all of them readable"
    folder.mkdir(parents=True)
    x = np.full((40, 60, 3), (200, 40, 40), np.uint8)
    im = Image.fromarray(x)
    im.convert('L').save(folder/'grey.png'); im.convert('CMYK').save(folder/'cmyk.jpg')
    p = im.convert('P'); p.save(folder/'palette.png', transparency=0); p.save(folder/'palette.gif')
    Image.fromarray(np.full((40, 60), 40000, np.uint16)).save(folder/'deep.png')
    exif = Image.Exif(); exif[0x0112] = 6
    im.save(folder/'turned.jpg', exif=exif)
    im.save(folder/'film.gif', save_all=True, append_images=[Image.new('RGB', im.size, 'blue')])
    im.save(folder/'a name with spaces.jpg'); im.save(folder/'фото 写真.jpg'); im.convert('RGBA').save(folder/'clear.png')
    im.convert('1').save(folder/'bits.png'); im.save(folder/'LOUD.JPG')

def test_odd_images_are_read(tmp_path):
    odd_images(tmp_path/'odd')
    for o in sorted((tmp_path/'odd').iterdir()):
        im = read_image(o)
        assert im.mode == 'RGB' and im.size == ((40, 60) if o.stem == 'turned' else (60, 40)), o.name
        assert to_square(im, 32).shape == (32, 32, 3)
        assert read_image(o, 32).mode == 'RGB'
    red = read_image(tmp_path/'odd'/'film.gif').getpixel((0, 0))
    assert red[0] > 150 > red[2], 'the first image of a film counts'
    assert read_image(tmp_path/'odd'/'deep.png').getpixel((0, 0))[0] in (155, 156)

def bomb(path, side=30_000):
    "A PNG of 30,000 x 30,000 points in few bytes: only its header is right"
    import struct, zlib
    def chunk(kind, data): return struct.pack('>I', len(data))+kind+data+struct.pack('>I', zlib.crc32(kind+data))
    path.write_bytes(b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0))+chunk(b'IDAT', zlib.compress(b'\0'*100))+chunk(b'IEND', b''))

def test_broken_images_are_listed_skipped_and_counted(colours, tmp_path, capsys):
    folder = tmp_path/'in'; shutil.copytree(colours, folder)
    whole = tmp_path/'whole.jpg'; Image.effect_noise((200, 200), 50).save(whole)
    (folder/'rot'/'cut.jpg').write_bytes(whole.read_bytes()[:900])
    (folder/'rot'/'empty.jpg').write_bytes(b''); (folder/'blau'/'text.png').write_text('no image'); bomb(folder/'blau'/'huge.png')
    assert course_retrain([str(o) for o in args(folder, tmp_path/'out')]) == 0
    err = capsys.readouterr().err
    assert all(o in err for o in ('cut.jpg', 'empty.jpg', 'text.png', 'huge.png')) and 'more than 100,000,000' in err
    assert read_model(tmp_path/'out')[1].record['broken'] == 4
    assert course_retrain([str(o) for o in args(folder, tmp_path/'none', '--max-broken', 1)]) == 1
    assert '4 of 124 images are broken, more than 1 %' in capsys.readouterr().err and not (tmp_path/'none').exists()

def test_split_is_stable_and_the_same_everywhere():
    assert round(percent_of('cat/a.jpg'), 4) == round(percent_of('other/a.jpg'), 4) == 31.4866
    parts = split_images({k: [f'{k}/{k}{i}.jpg' for i in range(1000)] for k in 'ab'}, 20, 10)
    assert 340 < len(parts['testing']) < 460 and 150 < len(parts['validation']) < 250

def test_a_changed_image_or_net_gets_a_new_row(colours, tmp_path):
    from dataclasses import replace
    folder = tmp_path/'in'; shutil.copytree(colours, folder)
    net, base = get_base(size=32)
    calls = []
    def spy(x): calls.append(len(x)); return net(x)
    store = Bottlenecks(tmp_path/'rows', base)
    files = [f'rot/rot {i}.png' for i in range(10)]
    keys, _ = fill(store, spy, base, folder, files)
    assert sum(calls) == 10
    fill(store, spy, base, folder, files)
    assert sum(calls) == 10
    shutil.copy(folder/'blau'/'blau 1.png', folder/'rot'/'rot 3.png')
    new, _ = fill(store, spy, base, folder, files)
    assert sum(calls) == 11 and new['rot/rot 3.png'] != keys['rot/rot 3.png'] and new['rot/rot 4.png'] == keys['rot/rot 4.png']
    fill(Bottlenecks(tmp_path/'rows', replace(base, size=40)), spy, replace(base, size=40), folder, files)
    assert sum(calls) == 21, 'other sizes have other rows'

def test_two_at_once_and_kill_9(colours, tmp_path, start):
    rows = tmp_path/'rows'
    def begin(out): return start(course('course-retrain', *args(colours, tmp_path/out, rows=rows)))
    first = begin('a')
    def count():
        files = list(rows.glob('*.sqlite'))
        try: return sqlite3.connect(files[0]).execute('select count(*) from rows').fetchone()[0] if files else 0
        except sqlite3.Error: return 0
    wait_for(count, 'the first rows', first)
    first.kill(); first.wait()
    assert not (tmp_path/'a').exists()
    both = [*map(begin, 'bc')]
    for o in map(ended, both): assert o.returncode == 0, o.stderr
    assert count() == 120
    a, b = (read_model(tmp_path/o)[1].record for o in 'bc')
    assert a['table'] == b['table'] and a['accuracy'] == 1

@pytest.fixture
def tensorboard(start):
    "Starts TensorBoard on a folder; gives a function that asks it something until there is an answer"
    def show(logs):
        with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
        proc = start([sys.executable, '-m', 'tensorboard.main', '--logdir', logs, '--host', '127.0.0.1', '--port', port, '--load_fast', 'false'])
        def ask(what):
            try: return json.load(urllib.request.urlopen(f'http://127.0.0.1:{port}/data/plugin/scalars/{what}', timeout=20))
            except OSError: return None
        return lambda what: wait_for(lambda: ask(what), 'an answer of TensorBoard', proc)
    return show

def test_summaries_open_in_tensorboard_and_intermediate_models_are_kept(colours, tmp_path, tensorboard):
    more = ['--summaries', tmp_path/'logs', '--steps', 6, '--every', 2, '--keep-every', 3, '--layer', 'farbe']
    assert course_retrain([str(o) for o in args(colours, tmp_path/'out', *more)]) == 0
    ask = tensorboard(tmp_path/'logs')
    (run, tags), = ask('tags').items()
    assert set(tags) == {'train_loss', 'valid_loss', 'accuracy'}
    assert [step for _,step,_ in ask(f'scalars?run={run}&tag=accuracy')] == [2, 4, 6]
    for step in (3, 6): assert read_model(tmp_path/f'out-step{step}')[1].layer == 'farbe'

def test_distortions_train_without_kept_rows(colours, tmp_path):
    out = tmp_path/'out'
    more = ['--flip', '--crop', 20, '--scale', 10, '--brightness', 20, '--steps', 2]
    assert course_retrain([str(o) for o in args(colours, out, *more)]) == 0
    assert read_model(out)[1].record['options']['flip']

def test_onnx_gives_the_same_probabilities(colours, model, tmp_path):
    import onnxruntime
    from course_helpers.models.folder import run_net
    from course_helpers.models.pretrained import to_batch
    assert course_retrain([str(o) for o in args(colours, tmp_path/'out', '--onnx')]) == 0
    net, info = read_model(tmp_path/'out')
    x = to_batch(np.stack([to_square(read_image(colours/'rot'/f'rot {i}.png'), info.size) for i in range(5)]), info)
    got, = onnxruntime.InferenceSession(str(tmp_path/'out'/'model.onnx')).run(None, {'images': x.numpy()})
    assert np.abs(got-run_net(net, x).numpy()).max() < 1e-4

def tree(folder): return sorted(str(o.relative_to(folder)) for o in folder.rglob('*'))

def test_nothing_of_the_users_is_overwritten(colours, model, tmp_path, capsys):
    from course_helpers.models.folder import write_model
    images = tmp_path/'images'; shutil.copytree(colours, images); shutil.copy(model/'model.json', images)
    mine = tmp_path/'mine'; shutil.copytree(model, mine); (mine/'notes.txt').write_text('mine')
    foreign = tmp_path/'foreign'; foreign.mkdir(); (foreign/'model.json').write_text('{"format": "layers-model"}')
    (tmp_path/'file').write_text('mine')
    before = tree(tmp_path)
    for folder, out, says in [(images, images, 'lies in the other'), (images, images/'out', 'lies in the other'), (images/'rot', images, 'sub-folders'),
                              (colours, mine, 'nothing there is overwritten'), (colours, foreign, 'nothing there is overwritten'),
                              (colours, tmp_path/'file', 'is a file'), (colours, tmp_path/'file'/'out', 'No model can be written'),
                              (colours, tmp_path/('x'*256), 'No model can be written')]:
        assert course_retrain([str(o) for o in [folder, '--output', out, '--bottlenecks', colours.parent/'rows']]) == 1
        assert says in capsys.readouterr().err and tree(tmp_path) == before, out
    step = tmp_path/'out-step3'; step.mkdir(); (step/'thesis.txt').write_text('mine')
    assert course_retrain([str(o) for o in args(colours, tmp_path/'out', '--keep-every', 3)]) == 1
    assert 'out-step3/thesis.txt' in tree(tmp_path) and 'out' not in tree(tmp_path)
    link = tmp_path/'link'; link.symlink_to(model)
    write_model(*read_model(link), link)
    assert link.is_symlink() and read_model(model)[1].classes == ('blau', 'rot') and not list(tmp_path.glob('*.old'))

def test_copies_do_not_test_and_one_image_has_one_class(tmp_path, capsys):
    rng, folder = np.random.default_rng(0), tmp_path/'in'
    for i in range(90):
        paint(folder/'ab'[i % 2]/f'{i}.png', (9, 9, 9), rng, side=8)
        for k in range(3): shutil.copy(folder/'ab'[i % 2]/f'{i}.png', folder/'ab'[i % 2]/f'{i} ({k}).png')
    assert course_retrain([str(o) for o in args(folder, tmp_path/'out', '--testing', 20, '--validation', 20)]) == 0
    assert '270 copies' in capsys.readouterr().err
    record = read_model(tmp_path/'out')[1].record
    assert sum(record['images'].values()) == 90 and record['copies'] == 270
    shutil.copy(folder/'a'/'0.png', folder/'b'/'zero.png')
    assert course_retrain([str(o) for o in args(folder, tmp_path/'other')]) == 1
    assert 'the same image in two classes' in capsys.readouterr().err

def test_odd_folders(colours, tmp_path, capsys):
    folder = tmp_path/'in'; shutil.copytree(colours, folder)
    (folder/'rot'/'._rot 1.png').write_bytes(b'what macOS leaves'); (folder/'rot'/'.hidden').mkdir()
    shutil.copy(folder/'blau'/'blau 1.png', folder/'rot'/'.hidden')
    if hasattr(os, 'mkfifo'): os.mkfifo(folder/'rot'/'pipe.jpg')
    assert course_retrain([str(o) for o in args(folder, tmp_path/'out')]) == 0
    assert ('pipe.jpg is no file' in capsys.readouterr().err) == hasattr(os, 'mkfifo')
    assert course_label([str(tmp_path/'out'), str(folder/'rot')]) == 1
    assert capsys.readouterr().out.count('\n') == 60
    (tmp_path/'none').mkdir()
    assert course_label([str(tmp_path/'out'), str(tmp_path/'none')]) == 1 and 'No images' in capsys.readouterr().err
    (folder/'loop').symlink_to('.')
    assert course_retrain([str(o) for o in args(folder, tmp_path/'other')]) == 1 and 'leads back' in capsys.readouterr().err

def test_a_broken_store_is_named(colours, tmp_path, capsys):
    assert course_retrain([str(o) for o in args(colours, tmp_path/'out', rows=tmp_path/'rows')]) == 0
    store, = (tmp_path/'rows').glob('*.sqlite')
    with closing(sqlite3.connect(store)) as db: db.execute("update rows set row = x'00'"); db.commit()
    assert course_retrain([str(o) for o in args(colours, tmp_path/'out', rows=tmp_path/'rows')]) == 0, 'rows of a wrong length are made again'
    x = bytearray(store.read_bytes()); x[4096:] = os.urandom(len(x)-4096); store.write_bytes(x)
    capsys.readouterr()
    assert course_retrain([str(o) for o in args(colours, tmp_path/'out', rows=tmp_path/'rows')]) == 1
    assert store.name in capsys.readouterr().err

@pytest.mark.parametrize('words, says', [('--lr nan', 'must be a number'), ('--lr 1e300', '10 at most'), ('--size 0', 'between 1 and 4096'), ('--size -5', 'between'),
    ('--crop nan', 'must be a number'), ('--scale inf', 'must be a number'), ('--brightness 100', '99 at most'), ('--testing nan', 'must be a number'),
    ('--testing 1e-15', '.01 or more'), ('--epochs 0', '1 or more'), ('--steps -1', 'must be 0 or more'), ('--layer forward', 'no name for a layer'),
    ('--layer 2nd', 'no name for a layer'), (f'--seed {2**70}', 'fewer digits')])
def test_odd_options(colours, tmp_path, capsys, words, says):
    assert course_retrain([str(o) for o in args(colours, tmp_path/'out', *words.split())]) == 1
    assert says in capsys.readouterr().err and not (tmp_path/'out').exists()

def test_a_reader_that_goes_away(colours, model, tmp_path, start):
    proc = start(course('course-retrain', *args(colours, tmp_path/'out')), PYTHONIOENCODING='ascii')
    proc.stdout.readline(); proc.stdout.close()
    assert proc.wait(200) == 0 and (tmp_path/'out'/'model.json').exists(), proc.stderr.read()
    proc = start(course('course-label', model, colours))
    proc.stdout.readline(); proc.stdout.close()
    proc.wait(200)
    assert proc.stderr.read() == ''

def test_stopped_by_the_user(colours, tmp_path, start):
    proc = start(course('course-retrain', *args(colours, tmp_path/'out', '--epochs', 100_000)))
    proc.stdout.readline(); proc.send_signal(signal.SIGINT)
    err = ended(proc).stderr
    assert proc.returncode == 1 and 'Stopped' in err and 'Traceback' not in err and not (tmp_path/'out').exists()

def test_net_without_network_says_so(tmp_path, colours):
    done = run(course('course-retrain', *args(colours, tmp_path/'out', '--base', 'resnet18')), HF_ENDPOINT='http://127.0.0.1:9', HF_HOME=tmp_path/'hf')
    assert done.returncode == 1 and 'did not arrive' in done.stderr and 'tf_efficientnet_lite0' in done.stderr, done.stderr
