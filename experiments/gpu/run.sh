#!/usr/bin/env bash
# Everything that wants a GPU, in one command on a CUDA machine without internet:
#
#   experiments/gpu/run.sh OUT DATA [DATA ...]
#
# checks the kernels, runs the benchmarks and trains the full-size presets for MINUTES (8), or goes
# on with them where the last call ended. Results, logs and weights in parts below 16 MiB are in
# OUT. PARTS ("check bench train") chooses; PRESETS, SETTINGS and DEVICE replace what is trained,
# how and where; WHEELS is a folder of wheels to install first.
set -euo pipefail
[ $# -ge 2 ] || { sed -n 2,9p "$0"; exit 2; }
out=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
mkdir -p "$out"
if [ -n "${WHEELS:-}" ]; then
  "$python" -m pip install -q --no-index --find-links "$WHEELS" --no-deps "$WHEELS"/*.whl
fi
for part in ${PARTS:-check bench train}; do
  case $part in
    check) "$python" "$root/experiments/gpu/check_scan.py" "$out" ;;
    bench) "$python" "$root/experiments/gpu/bench_models.py" "$out" "$device" ;;
    train)
      # shellcheck disable=SC2086
      "$python" "$root/experiments/gpu/train_slice.py" "$out" \
        ${PRESETS:-v1 v2 ginr local perceiver_io transformer} ${SETTINGS:-} "device=$device" \
        --minutes "${MINUTES:-8}" --data "$@"
      ;;
    *) echo "unknown part '$part'; use check, bench, train" >&2; exit 2 ;;
  esac
done
