"""Helpers of an interactive course on training image classifiers"""
__version__ = "0.1.0"

import os, warnings

os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # before torch: its threads sleep while they wait
warnings.filterwarnings('ignore', '.*torch.jit.script.* is deprecated', FutureWarning)  # fastai's, when it is loaded
