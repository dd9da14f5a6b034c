# SPDX-License-Identifier: Apache-2.0
"""Everything on a GPU in one go: `PYTHONPATH=src:benchmarks python -m gpu --out results.json`.

Ceilings first, then products, convolutions, models; each row has its error against float64 (models: float32 on the CPU), its
times, and its share of what the device was measured to do (models: none). The file is written after each row; a row that fails
is named under "failed", and the others are made. `--tiny` runs the same code on the CPU with interpreted kernels
(FASTINFER_CUDA=interpret), to see that it works: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from gpu import ceilings, convolutions, models, products, ragged
from gpu.timing import Job


def mean(rows: list[dict[str, Any]]) -> float | None:
    ratios = [r["peer / ours"] for r in rows if r.get("peer / ours")]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def rows_of(section: str, jobs: Iterable[Job], found: dict[str, Any], save: Callable[[], None]) -> None:
    rows = found.setdefault(section, [])
    for name, make in jobs:
        try:
            rows.append(make())
        except Exception as e:  # the others' figures are not lost to one row
            traceback.print_exc()
            found["failed"][name] = f"{type(e).__name__}: {str(e)[:400]}"
        found["means"][section] = mean(rows)
        save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    parser.add_argument("--only", default="products;convolutions;models;ragged", help="sections, with ; between")
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
        "tuned": tune, "means": {}, "failed": {},
    }  # fmt: skip

    def save() -> None:
        if options.out:
            options.out.write_text(json.dumps(found, indent=1))

    roof = ceilings.measure()
    found["ceilings"] = dataclasses.asdict(roof)
    print(found, flush=True)
    chosen, batches = options.models.split(";") if options.models else models.names(), options.batches.split(";")
    sections = {
        "products": lambda: products.jobs(roof, tune), "convolutions": lambda: convolutions.jobs(roof, tune),
        "models": lambda: models.jobs(tune, chosen, [int(b) for b in batches]), "ragged": ragged.jobs,
    }  # fmt: skip
    if "ragged" in only:
        found["buckets"] = models.buckets()
    for name in only:
        rows_of(name, sections[name](), found, save)
    print({k: found[k] for k in ("buckets", "means", "failed") if k in found})
    if found["failed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
