"""Bundle a run as era5-t2m-uk, or write its page and figure from evaluations.

python experiments/era5.py bundle RUN
python experiments/era5.py report FILE.nc OUT.json [OUT.json ...]
"""

import argparse
import json
import runpy
from pathlib import Path
from typing import Any

import torch
from pages import score

from sparsefield.core.files import write_text
from sparsefield.core.words import counted
from sparsefield.inference.checkpoint import (
    BUNDLED,
    load_checkpoint,
    resolve,
    save_checkpoint,
    write_sums,
)

NAME = "era5-t2m-uk"
PAGE = Path("docs/results/era5.md")
FIGURE = Path("docs/results/images/era5.png")
COLUMNS = ("rmse", "mae", "crps", "coverage50", "coverage90")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["bundle", "report"])
    parser.add_argument("paths", nargs="+", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "bundle":
        bundle(arguments.paths[0])
    else:
        report(arguments.paths[0], arguments.paths[1:])


def bundle(run: Path) -> None:
    flow, spec = load_checkpoint(resolve(run))
    target = BUNDLED / f"{NAME}.safetensors"
    save_checkpoint(target, spec, flow.backbone.state_dict(), torch.float16)
    write_sums()
    facts = "\n".join(f"- {key}: {value}" for key, value in spec.card.items() if key != "frame")
    text = (
        f"# Model card: {NAME}\n\n"
        "2 m temperature over the British Isles in March, in K, from scattered measurements: "
        "optimal interpolation with the climatology and the covariance of 16 days. It knows that "
        "region and season alone. Generated using Copernicus Climate Change Service information; "
        "contains modified ERA5 data. Scores: docs/results/era5.md. Made by "
        f"`experiments/era5.py`.\n\n{facts}\n- rank: {spec.settings['rank']}\n"
    )
    write_text(target.with_suffix(".md"), text)


def report(data: Path, paths: list[Path]) -> None:
    results = [json.loads(path.read_text()) for path in paths]
    lines = [
        "# ERA5 2 m temperature: a model of one's own",
        "",
        "`era5-t2m-uk` has learnt the mean and the covariance of 384 hours, the first 16 days of "
        "March 2019, in closed form. It is scored on other days. *anomaly_kriging* krigs what "
        "the climatology of the same 16 days, of each cell and hour of the day, leaves; "
        "*standardised_anomaly_kriging* does so in standard deviations of each cell. All "
        "numbers are in K, on the cells that were not observed. The 95 % intervals resample whole "
        "days: hours are not independent.",
        "",
        "```",
        "sparsefield train optimal_interpolation --data FILE.nc \\",
        '    \'data.period=["2019-03-01","2019-03-16"]\' data.validation=72 --run RUN',
        f"sparsefield evaluate {NAME} --data FILE.nc --period 2019-03-18 2019-03-21 \\",
        "    --density 0.03 --samples 16 --json OUT.json",
        "python experiments/era5.py report FILE.nc OUT.json ...",
        "```",
    ]
    for found in results:
        lines += [
            "",
            *section("moving", found, found),
            "",
            *section("fixed", found["fixed"], found),
        ]
    lines += [
        "",
        f"![stations, mean, standard deviation, truth and error](images/{FIGURE.name})",
        "",
        "What the figure shows: one hour of a day that was not trained on, from 3 % of the cells. "
        "Errors are largest where the standard deviation is.",
        "",
    ]
    write_text(PAGE, "\n".join(lines))
    draw(data)


def section(kind: str, found: dict[str, Any], head: dict[str, Any]) -> list[str]:
    lines = [
        f"## {head['density']:.0%} of the cells, {kind} stations",
        "",
        f"{counted(head['n'], 'field')} of {head['data']} on {counted(head['days'], 'day')}, "
        f"seed {head['seed']}, {head['device']}, commit {head['commit']}.",
        "",
        "| method | RMSE | MAE | CRPS | 50 % coverage | 90 % coverage | model's RMSE less its "
        "| model's CRPS less its |",
        "|---" * 8 + "|",
    ]
    rows = {NAME: found["mean"] | found["predictive"]} | found["baselines"]
    for name, row in rows.items():
        less = found["differences"].get(name, {})
        cells = [score(row, key, ".3f") for key in COLUMNS]
        cells += [score(less, key, ".3f") for key in ("rmse", "crps")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def draw(data: Path) -> None:
    runpy.run_path("examples/era5_t2m.py")["main"](["--data", str(data), "--out", str(FIGURE)])


if __name__ == "__main__":
    main()
