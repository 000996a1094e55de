#!/usr/bin/env bash
# Train, bundle and score the bundled models: experiments/train_default.sh DATA
# DATA holds the folders cifar10, tiny_imagenet and cifar10_lossless. Started again, it resumes.
# The committed weights were trained in separate steps, not by one run of this script; docs/LOG.md
# says how.
set -euo pipefail
data=${1:?"usage: experiments/train_default.sh DATA"}
cd "$(dirname "$0")/.."
bin=.venv/bin
sets=(--data "$data/cifar10" --data "$data/tiny_imagenet")

$bin/sparsefield train hybrid-mean "${sets[@]}" --run runs/default-mean
$bin/sparsefield train hybrid-scales "${sets[@]}" --run runs/default-scales \
    init=runs/default-mean/latest.safetensors
$bin/sparsefield train hybrid-flow "${sets[@]}" --run runs/default-flow \
    init=runs/default-scales/latest.safetensors
# The same without the second stage knows no cells but those of 32 x 32.
$bin/sparsefield train hybrid-flow "${sets[@]}" --run runs/default-32-flow \
    init=runs/default-mean/latest.safetensors model.cells=false data.fine=[] data.scales=[1]

$bin/python experiments/bundle_model.py default runs/default-mean runs/default-scales runs/default-flow
$bin/python experiments/bundle_model.py default-32 runs/default-mean runs/default-32-flow
for model in default default-32; do
    results="results/$model.json" samples="results/${model}_samples.json"
    $bin/sparsefield evaluate $model --data "$data/cifar10_lossless" --split validation \
        --json "$results"
    $bin/sparsefield evaluate $model --data "$data/cifar10_lossless" --split validation --limit 500 \
        --samples 19 --baselines kriging --json "$samples" \
        --figure "docs/results/images/${model}_calibration.png"
    $bin/python experiments/bundle_model.py $model --scores "$results" "$samples"
done
$bin/sparsefield superres default --data "$data/tiny_imagenet" --sizes 64 \
    --json results/superres_tiny_imagenet.json
$bin/python experiments/update_readme.py
