"""JupyterLab as `course-lab` starts it: what its kernels and terminals find, and how it ends."""
import json, os, re, select, signal, sys, threading
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from processes import course, marked, wait_for

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='needs signals and terminals as Unix has them')
NEWS = '@jupyterlab/apputils-extension:announcements'
START = course('course-lab', '--no-browser', '--port=0', '--IdentityProvider.token=test', '--allow-root')

class Lab:
    "JupyterLab on a temporary folder, without the course's commands on PATH"
    def __init__(self, start, home, before=(), **pipes):
        self.run = home/'run'
        self.proc = start([*before, *START], cwd=home, pipes=dict(pipes, start_new_session=True), HOME=home, SHELL='/bin/sh', PATH='/usr/bin:/bin',
                          COURSE_MY=home/'my', JUPYTER_CONFIG_DIR=home/'config', JUPYTER_CONFIG_PATH=home/'more', JUPYTER_DATA_DIR=home/'data',
                          JUPYTER_RUNTIME_DIR=self.run, IPYTHONDIR=home/'ipython')
        wait_for(self.find, 'JupyterLab', self.proc)
    def find(self):
        "The server's version, as soon as it answers"
        for o in self.run.glob('jpserver-*.json'):
            try:
                self.info = json.loads(o.read_text(encoding='utf-8'))
                return self.ask('api')
            except (ValueError, OSError): pass  # it writes the file before it listens
    def ask(self, path, data=None):
        "An answer of the server: JSON, or else text"
        body = None if data is None else json.dumps(data).encode()
        with urlopen(Request(self.info['url']+path, body, {'Authorization': 'token test'}), timeout=90) as f: text = f.read().decode()
        return json.loads(text) if path.startswith('api') else text
    def kernel(self):
        "A client of a new kernel, and a function that runs code there and returns what it prints"
        from jupyter_client import BlockingKernelClient
        name = self.ask('api/kernels', {})['id']
        client = BlockingKernelClient(connection_file=str(self.run/f'kernel-{name}.json'))
        client.load_connection_file(); client.start_channels(hb=False); client.wait_for_ready(timeout=90)  # a busy machine misses heartbeats
        def run(code):
            out = []
            client.execute_interactive(code, timeout=90, output_hook=lambda m: out.append(m['content'].get('text', '')))
            return ''.join(out)
        return client, run
    def in_terminal(self, command, until):
        "What a terminal shows after a command, up to the pattern `until`"
        from tornado.ioloop import IOLoop
        from tornado.websocket import websocket_connect
        name = self.ask('api/terminals', {})['name']
        async def talk():
            ws, seen = await websocket_connect(f"{self.info['url'].replace('http', 'ws', 1)}terminals/websocket/{name}?token=test"), ''
            await ws.write_message(json.dumps(['stdin', f'{command}\r']))
            while not (found := re.search(until, seen)):
                kind, *text = json.loads(await ws.read_message())
                if kind == 'stdout': seen += text[0]
            ws.close()
            return found
        return IOLoop(make_current=False).run_sync(talk, timeout=90)
    def all_gone(self): return not [*marked(self.proc.mark)]

def test_commands_are_found_news_are_off_and_sigterm_ends_all(start, tmp_path):
    (tmp_path/'more'/'labconfig').mkdir(parents=True)
    (tmp_path/'more'/'labconfig'/'page_config.json').write_text('{"disabledExtensions": {"theirs": true}}')
    with open(tmp_path/'log.txt', 'w') as f: lab = Lab(start, tmp_path, stdout=f, stderr=f)
    client, run = lab.kernel()
    folder = str(Path(sys.executable).parent)
    assert run('!command -v course-run').strip() == f'{folder}/course-run'
    assert lab.in_terminal('echo "<$PATH>"', r'<(/[^>]*)>')[1].split(':')[0] == folder
    page = json.loads(re.search(r'id="jupyter-config-data"[^>]*>\s*(\{.*?\})\s*</script>', lab.ask('lab'), re.S)[1])
    assert {NEWS, 'theirs'} <= {*page['disabledExtensions']}
    client.stop_channels()
    lab.proc.send_signal(signal.SIGTERM)
    assert lab.proc.wait(60) == 0
    wait_for(lab.all_gone, 'end of the server, its kernel and its terminal')

class Terminal:
    "A terminal, with somebody before it who can close it"
    own = [sys.executable, '-c', 'import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])']  # makes it the session's own
    def __init__(self):
        self.ours, self.theirs = os.openpty()
        self.seen, self.open = b'', True
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
    def read(self):
        while self.open:
            if select.select([self.ours], [], [], .05)[0]: self.seen += os.read(self.ours, 1000)
    def type(self, text): os.write(self.ours, text)
    def wait_for(self, text): wait_for(lambda: text in self.seen, text)
    def close(self):
        self.open = False
        self.reader.join()
        os.close(self.ours)

def test_ctrl_c_asks_and_a_closed_terminal_ends_all(start, tmp_path):
    term = Terminal()
    try:
        lab = Lab(start, tmp_path, term.own, **dict.fromkeys(['stdin', 'stdout', 'stderr'], term.theirs))
        os.close(term.theirs)
        client, _ = lab.kernel()
        client.stop_channels()
        term.type(b'\x03')
        term.wait_for(b'Shut down this Jupyter server')
        term.type(b'n\n')
        term.wait_for(b'resuming operation')
        assert not lab.all_gone() and lab.ask('api/kernels')
    finally: term.close()
    os.killpg(lab.proc.pid, signal.SIGHUP)  # as a shell says to its jobs
    assert lab.proc.wait(60) == 0
    wait_for(lab.all_gone, 'end of the server, its kernel and its terminal')
