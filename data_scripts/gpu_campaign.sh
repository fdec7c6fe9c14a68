#!/bin/sh
# What a GPU does with a step of distillation: tests, benchmarks and profiles, the most important first. With "quick" the
# parts are stopped after 12 minutes altogether, else after 36. Tables are files in $OUT (default: gpu_tables); a part
# that fails or hangs leaves the others alone.
#
#     sh data_scripts/gpu_campaign.sh [quick] [part ...]
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
out=${OUT:-gpu_tables}
mkdir -p "$out"
quick=
[ "${1:-}" = quick ] && { quick=--quick; shift; }
scale=1
[ -n "$quick" ] || scale=3
export TQDM_DISABLE=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=8
parts=${*:-curve tests profile many tiny kernels training bench}

part() { # name, seconds, command ...
    name=$1 limit=$(($2 * scale)); shift 2
    began=$(date +%s)
    timeout "$limit" "$@" >"$out/$name.txt" 2>&1
    echo "$name: status $?, $(($(date +%s) - began)) s"
}

campaign() { # name, seconds
    part "$1" "$2" python3 "$here/data_scripts/gpu_campaign.py" "$1" $quick --folder "${TMPDIR:-/tmp}/gpu_campaign"
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm --format=csv
for one in $parts; do
    case $one in
    tests) part tests 180 python3 -m pytest -q -p no:cacheprovider "$here/tests/test_gpu.py" ;;
    bench) part bench 60 python3 -m kdkit bench distill --size full --batch-seconds 150 --rounds 3 ;;
    many | tiny) campaign "$one" 120 ;;
    *) campaign "$one" 60 ;;
    esac
done
