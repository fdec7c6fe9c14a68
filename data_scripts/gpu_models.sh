#!/bin/sh
# gpu_models.py with ten processes that share a GPU by NVIDIA MPS, for 13 minutes. What lies in runs/gpu-models is not made
# again. What a later run needs comes to $OUT (default: gpu_models), in parts of at most 15 MB:
#
#     sh data_scripts/gpu_models.sh [option of gpu_models.py ...]
#     cat gpu_models/made.tgz.* | tar xzf - -C runs/gpu-models
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
out=${OUT:-gpu_models} folder=${FOLDER:-$here/runs/gpu-models}
mkdir -p "$out" "$folder"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export CUDA_MPS_PIPE_DIRECTORY="${TMPDIR:-/tmp}/mps" CUDA_MPS_LOG_DIRECTORY="${TMPDIR:-/tmp}/mps"

if command -v nvidia-cuda-mps-control >/dev/null; then
    mkdir -p "$CUDA_MPS_PIPE_DIRECTORY"
    nvidia-cuda-mps-control -d
fi
"${PYTHON:-python3}" "$here/data_scripts/gpu_models.py" --out "$folder" --jobs 10 --limit 13 "$@" >"$out/log.txt" 2>&1
status=$?
command -v nvidia-cuda-mps-control >/dev/null && echo quit | nvidia-cuda-mps-control
first=work/teacher/first.safetensors # half a teacher
[ -e "$folder/$first" ] && [ ! -e "$folder/made/tiny_teacher.safetensors" ] || first=
rm -f "$out"/made.tgz.*
tar czf - -C "$folder" made work/logs $first | split -b 15m - "$out/made.tgz."
tail -n 60 "$out/log.txt"
exit $status
