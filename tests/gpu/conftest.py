"""Where there is no CUDA device, these tests are not collected: they say nothing about a processor. See CONTRIBUTING.md."""

from __future__ import annotations

import torch

if not torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]
