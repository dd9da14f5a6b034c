# SPDX-License-Identifier: Apache-2.0
"""`python -m suite NAME…` exports the named models: a process of its own keeps torch out of the one that measures."""

import sys

from suite.export import export
from suite.models import DYNAMIC, MODELS, QUANTIZED

for name in sys.argv[1:]:
    print(name, export({**MODELS, **DYNAMIC, **QUANTIZED}[name]), flush=True)
