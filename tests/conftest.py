# SPDX-License-Identifier: Apache-2.0
"""Tests import the harness as ``support`` from any folder, and the kernels' samples as ``kernels.<family>.samples``."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
