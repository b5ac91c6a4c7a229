"""Take out of saved outputs what changes from run to run or from machine to machine."""
import json, sys
from pathlib import Path

WIDGET = 'application/vnd.jupyter.widget-view+json'

def is_widget(out): "Is it the view of a widget?"; return WIDGET in out.get('data', {})

def keep(out): "Is this output fit to be committed?"; return out.get('name') != 'stderr' and not is_widget(out)

def words(out): return ''.join(out['data'].get('text/plain', [])) if '<img' in ''.join(out.get('data', {}).get('text/html', [])) else ''

def last_states(outs):
    "Of a plot that grew in place only the last state: each repeats the words of the one before"
    return [o for o,after in zip(outs, [*outs[1:], {}]) if not (words(o) and o['output_type'] == after.get('output_type') == 'display_data'
                                                               and words(after).startswith(words(o)) and words(after) != words(o))]

def strip(path):
    "Remove stderr, widget views and run times from the notebook at `path`"
    text = path.read_text(encoding='utf-8')
    nb = json.loads(text)
    for cell in nb['cells']:
        cell['metadata'].pop('execution', None)
        if cell['cell_type'] != 'code': continue
        if any(map(is_widget, cell['outputs'])): cell['outputs'] = []  # what it shows belongs to the widget
        cell['outputs'] = last_states([o for o in cell['outputs'] if keep(o)])
    nb['metadata'].pop('widgets', None)
    new = json.dumps(nb, indent=1, sort_keys=True, ensure_ascii=False) + '\n'
    if new != text: path.write_text(new, encoding='utf-8')

if __name__ == '__main__':
    for path in sorted(Path(sys.argv[1]).rglob('*.ipynb')): strip(path)
