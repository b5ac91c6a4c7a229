"""Weights from a network: timm's own way, against a local server."""
import http.server, threading
from pathlib import Path

import pytest
from processes import python, run

NAME = 'test_resnet.r160_in1k'

@pytest.fixture
def hub(tmp_path):
    "A server that has one net, as timm asks for it; yields its address and what was asked"
    import timm, torch
    from safetensors.torch import save_file
    torch.manual_seed(1)
    save_file(timm.create_model(NAME).state_dict(), tmp_path/'model.safetensors')
    data, asked = (tmp_path/'model.safetensors').read_bytes(), []
    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self, body=False):
            asked.append(self.path)
            found = self.path == f'/timm/{NAME}/resolve/main/model.safetensors'
            self.send_response(200 if found else 404)
            if found:
                for k,v in {'ETag': '"1"', 'X-Repo-Commit': '0'*40, 'Content-Length': len(data)}.items(): self.send_header(k, str(v))
            self.end_headers()
            if found and body: self.wfile.write(data)
        def do_GET(self): self.do_HEAD(body=True)
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', asked, tmp_path
    server.shutdown()

def get(address, home, name=NAME):
    "Hash of the weights of a net, or the sentence that says why there are none"
    code = ('from course_helpers.models.pretrained import get_base\n'
            f'try: print(get_base({name!r})[1].weights)\nexcept ValueError as e: print(e)')
    res = run(python(code), HF_ENDPOINT=address, HF_HOME=home, HF_HUB_DOWNLOAD_TIMEOUT=5, HF_HUB_ETAG_TIMEOUT=5)
    assert res.returncode == 0, res.stderr
    return res.stdout.strip().splitlines()[-1]

def test_weights_come_from_the_network(hub):
    import timm
    from course_helpers.models.pretrained import net_hash
    from safetensors.torch import load_file
    address, asked, home = hub
    net = timm.create_model(NAME)
    net.load_state_dict(load_file(home/'model.safetensors'))
    net.reset_classifier(0)
    assert get(address, home/'cache') == net_hash(net)
    assert any(o.endswith('model.safetensors') for o in asked)
    n = len(asked)
    assert get('http://127.0.0.1:9', home/'cache') == net_hash(net), 'what has arrived once is kept'
    assert len(asked) == n
