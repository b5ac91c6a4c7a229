"""Helpers of an interactive course on training image classifiers"""
__version__ = "0.1.0"

import os, warnings

# Set before torch is loaded: its threads sleep while they wait
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
# What fastai says when it is loaded
warnings.filterwarnings('ignore', '.*torch.jit.script.* is deprecated', FutureWarning)
