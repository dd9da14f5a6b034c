# SPDX-License-Identifier: Apache-2.0
"""Everything on a GPU in one go: `PYTHONPATH=src:benchmarks python -m gpu --out results.json`.

Ceilings first, then products, convolutions, models; each row has its error against float64 (models: float32 on the CPU), its
times, and its share of what the device was measured to do. `--tiny` runs the same code on the CPU with interpreted kernels
(FASTINFER_CUDA=interpret), to see that it works: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import torch

from gpu import ceilings, convolutions, models, products


def mean(rows: list[dict[str, Any]]) -> float | None:
    ratios = [r["peer / ours"] for r in rows if r.get("peer / ours")]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    parser.add_argument("--only", default="products;convolutions;models", help="sections, with ; between")
    parser.add_argument("--models", default="", help="names of benchmarks/suite, with ; between (default: a selection)")
    parser.add_argument("--batches", default="1;32", help="of the models, with ; between")
    parser.add_argument("--no-tune", action="store_true", help="the shipped table and defaults as they are")
    parser.add_argument("--tiny", action="store_true", help="without a device")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        raise SystemExit("no CUDA device: `--tiny` with FASTINFER_CUDA=interpret runs the code without one")
    tune, only = not options.no_tune, options.only.split(";")
    import triton

    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"none ({platform.processor()})",
    }  # fmt: skip
    roof = ceilings.measure()
    found["ceilings"] = dataclasses.asdict(roof)
    print(found, flush=True)
    if "products" in only:
        found["products"] = products.run(roof, tune)
    if "convolutions" in only:
        found["convolutions"] = convolutions.run(tune)
    if "models" in only:
        batches = [int(b) for b in options.batches.split(";")]
        found["models"] = models.run(tune, options.models.split(";") if options.models else models.names(), batches)
        found["buckets"] = models.buckets()
    found["means"] = {name: mean(rows) for name, rows in found.items() if isinstance(rows, list)}
    print(found["means"])
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
