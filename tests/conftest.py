# SPDX-License-Identifier: Apache-2.0
"""Tests import the harness as ``support`` from any folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
