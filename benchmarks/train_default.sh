#!/usr/bin/env bash
# Train, bundle and score the default model: benchmarks/train_default.sh DATA
# DATA holds the folders cifar10, tiny_imagenet and cifar10_lossless. Started again, it resumes.
# The committed weights are older: without the second stage, which teaches finer cells, and trained in
# separate steps, not by one run of this script; docs/LOG.md says how.
set -euo pipefail
data=${1:?"usage: benchmarks/train_default.sh DATA"}
cd "$(dirname "$0")/.."
bin=.venv/bin
sets=(--data "$data/cifar10" --data "$data/tiny_imagenet")

$bin/sparsefield train hybrid-mean "${sets[@]}" --run runs/default-mean
$bin/sparsefield train hybrid-scales "${sets[@]}" --run runs/default-scales \
    init=runs/default-mean/latest.safetensors
$bin/sparsefield train hybrid-flow "${sets[@]}" --run runs/default-flow \
    init=runs/default-scales/latest.safetensors
$bin/python benchmarks/bundle_model.py default runs/default-mean runs/default-scales runs/default-flow
$bin/sparsefield evaluate default --data "$data/cifar10_lossless" --split validation \
    --json docs/results/default.json
$bin/sparsefield evaluate default --data "$data/cifar10_lossless" --split validation --limit 500 \
    --samples 19 --floors kriging --json docs/results/default_samples.json \
    --figure docs/results/images/default_calibration.png
$bin/python benchmarks/bundle_model.py default \
    --scores docs/results/default.json docs/results/default_samples.json
$bin/python benchmarks/update_readme.py
