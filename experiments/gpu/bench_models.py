"""Measure presets: python experiments/gpu/bench_models.py OUT [DEVICE [PRESET ...]]."""

import json
import math
import sys
from pathlib import Path

from sparsefield.profiling.models import measure_models


def main() -> None:
    out, device, *presets = [*sys.argv[1:], "cuda"] if len(sys.argv) == 2 else sys.argv[1:]
    report = measure_models(presets, (), 64, "auto", device, (5, math.inf), print)
    Path(out, "models.json").write_text(json.dumps(report, indent=2) + "\n")
    for row in report["rows"]:
        rate = row["training"]["images_per_second"]
        print(f"{row['preset']}: {1e3 * row['forward_32']['seconds']:.1f} ms, {rate:.1f} images/s")


if __name__ == "__main__":
    main()
