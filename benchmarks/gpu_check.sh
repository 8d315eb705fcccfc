#!/usr/bin/env bash
# Builds the CUDA parts for this machine's GPU and tries them there: kernels against the CPU, compute-sanitizer, TensorRT
# plugins, whole bundles, speed. Prints a table, and writes it to $OUT. README.md beside this file says what it needs.
#
#   [BUNDLES=FOLDER] benchmarks/gpu_check.sh [--only PART[,PART...]] [--limit SECONDS]
#
# Parts: build tests memcheck racecheck tensorrt bundles bench. Without --only all of them run. Exit status: 0 all that
# ran is well, 1 something failed, 2 nothing can run here.
# shellcheck disable=SC2329  # the parts are called by name
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

all_parts=(build tests memcheck racecheck tensorrt bundles bench)
parts=("${all_parts[@]}")
limit=570
python=${PYTHON:-python3}
out=${OUT:-$root/benchmarks/results}
package=$root/plugins/visdeploy_plugins

stop() {
  printf 'gpu_check: %s\n' "$*" >&2
  exit 2
}

while (($#)); do
  case $1 in
    --only) IFS=, read -r -a parts <<<"${2:?--only needs a list of parts}" && shift 2 ;;
    --limit) limit=${2:?--limit needs a number of seconds} && shift 2 ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
    *) stop "unknown argument $1; --help tells what there is" ;;
  esac
done
[[ $limit =~ ^[0-9]+$ ]] || stop "--limit is no number of seconds: $limit"
for part in "${parts[@]}"; do
  [[ " ${all_parts[*]} " == *" $part "* ]] || stop "unknown part $part; there are: ${all_parts[*]}"
done

export PYTHONPATH=$root:$root/training:$root/export:$root/plugins${PYTHONPATH:+:$PYTHONPATH}
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# --- what is here -----------------------------------------------------------------------------------------------------

command -v "$python" >/dev/null || stop "no $python; set PYTHON to a Python that has PyTorch"
probe='
import sys
try:
    import numpy, pytest, torch
except ImportError as error:
    sys.exit(f"{sys.executable} lacks a package: {error}")
if not torch.cuda.is_available():
    sys.exit(f"no CUDA device: PyTorch {torch.__version__} (CUDA {torch.version.cuda}) sees none on this machine")
major, minor = torch.cuda.get_device_capability(0)
print(f"{major}{minor}", torch.cuda.get_device_name(0), sep="\t")
'
found=$("$python" -c "$probe") || stop "nothing was built or run (see above)"
# Warnings may come first.
IFS=$'\t' read -r capability device <<<"${found##*$'\n'}"
where=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Where a CUDA tool is: on PATH, in CUDA's usual place, beside the compiler in use, or in Python wheels.
first_program() {
  local name=$1 folders folder
  if command -v "$name"; then return; fi
  IFS=: read -r -a folders <<<"$PYTHONPATH:$where"
  folders=("${folders[@]/%//nvidia/cu13/bin}")
  for folder in "${CUDA_HOME:-/usr/local/cuda}/bin" "$(dirname "${CUDACXX:-/}")" "${folders[@]}"; do
    if [[ -x $folder/$name ]]; then
      printf '%s\n' "$folder/$name"
      return
    fi
  done
  return 1
}

mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
table=$out/$(date +%F)_gpu_check_${device//[^A-Za-z0-9]/-}.txt
failed=0
built=1

# --- the parts: each prints to its log, leaves a line in $scratch/detail, and returns 0 (well), 1 (wrong) or 77 (not run)

detail() { printf '%s\n' "$*" >"$scratch/detail"; }

within() { # the seconds that a part may take, of what is left
  local left=$((limit - SECONDS))
  timeout --kill-after=10 "$((left < 1 ? 1 : left < $1 ? left : $1))" "${@:2}"
}

part_build() {
  local nvcc toolkit cudart cmake=(cmake) options=()
  nvcc=${CUDACXX:-$(first_program nvcc)} || { detail "no nvcc: put it on PATH, set CUDACXX, or install its wheels" && return 1; }
  command -v cmake >/dev/null || cmake=("$python" -m cmake)
  "${cmake[@]}" --version >/dev/null || { detail "no cmake" && return 1; }
  if command -v ninja >/dev/null; then options=(-G Ninja); fi
  # Wheels keep CUDA's runtime in lib/, where nvcc does not look, under a name that CMake does not look for.
  toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
  for cudart in "$toolkit"/lib/libcudart.so.*; do
    if [[ -e $cudart && ! -e $toolkit/lib64 ]]; then
      options+=("-DCUDA_CUDART=$cudart")
      export LIBRARY_PATH=$toolkit/lib${LIBRARY_PATH:+:$LIBRARY_PATH}
    fi
  done
  CUDACXX=$nvcc within 60 "${cmake[@]}" --fresh -S plugins -B build/gpu_check "${options[@]}" \
    -DVISDEPLOY_CUDA_ARCHITECTURES="$capability" -DVISDEPLOY_TENSORRT_HARNESS=ON -DVISDEPLOY_OUTPUT_DIR="$package" || return 1
  grep -q '^CMAKE_CUDA_COMPILER:' build/gpu_check/CMakeCache.txt || { detail "CMake took no CUDA compiler" && return 1; }
  within 300 "${cmake[@]}" --build build/gpu_check --parallel "$(nproc)" || return 1
  detail "compute capability $capability, $("$nvcc" --version | grep -o 'release [0-9.]*')"
}

part_tests() {
  # Options of this repository's own test environment are left out, and so are fixtures that need all of visdeploy.
  within 300 "$python" -m pytest -m gpu -o addopts= -p no:cacheprovider --confcutdir=tests/visdeploy_plugins \
    -q -rsfE --tb=short tests/visdeploy_plugins/gpu
}

sanitizer() { # tool, seconds
  local program status=0
  program=$(first_program compute-sanitizer) || { detail "there is no compute-sanitizer on this machine" && return 77; }
  # Every tensor gets an allocation of its own, so that one byte too far is seen. The output is read here, so it needs
  # a tee that has ended: the log of the part may not be written yet.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 within "$2" "$program" --tool "$1" --report-api-errors no --error-exitcode 86 \
    "$python" -m tests.visdeploy_plugins.gpu.driver "$1" 2>&1 | tee "$scratch/sanitizer" || status=$?
  if ((status != 0)) && grep -q 'Device not supported' "$scratch/sanitizer"; then
    detail "compute-sanitizer does not support this device here" && return 77
  fi
  ((status != 86)) || detail "compute-sanitizer found errors"
  return $((status != 0))
}

part_memcheck() { sanitizer memcheck 200; }
part_racecheck() { sanitizer racecheck 200; }

part_tensorrt() {
  local harness=$package/visdeploy_tensorrt_harness
  [[ -x $harness ]] || { detail "the build made no TensorRT harness" && return 77; }
  within 60 "$harness" "$package/libvisdeploy_tensorrt.so"
}

part_bundles() {
  local folder=${BUNDLES:-$scratch/bundles} options=() program status=0 reason
  if [[ -z ${BUNDLES:-} ]]; then
    within 240 "$python" benchmarks/gpu_bundles.py make "$folder" || return $?
  fi
  if program=$(first_program compute-sanitizer); then options=(--sanitizer "$program" --seconds 60); fi
  within 300 "$python" benchmarks/gpu_bundles.py check "$folder" --device cuda "${options[@]}" 2>&1 | tee "$scratch/bundles.log" ||
    status=$?
  # The table gets the number of each outcome, and the first thing that failed or else did not run.
  reason=$(grep -m 1 '^FAILED' "$scratch/bundles.log" || grep -m 1 '^NOT RUN' "$scratch/bundles.log" || true)
  detail "$(grep -c '^OK ' "$scratch/bundles.log") OK, $(grep -c '^FAILED' "$scratch/bundles.log") FAILED," \
    "$(grep -c '^NOT RUN' "$scratch/bundles.log") NOT RUN${reason:+: $reason}"
  return "$status"
}

part_bench() {
  [[ -f benchmarks/ops.py ]] || { detail "there is no benchmarks/ops.py" && return 77; }
  within 200 "$python" benchmarks/ops.py --device cuda --targets
}

# --- run, and tell ----------------------------------------------------------------------------------------------------

say() { printf '%s\n' "$*" | tee -a "$table"; }

run_part() {
  local part=$1 begun=$SECONDS status=0 result
  : >"$scratch/detail"
  printf '\n=== %s\n' "$part"
  if ((limit - SECONDS < 5)); then
    status=1 && detail "out of time: $limit seconds are over"
  elif [[ $part != build && $built == 0 ]]; then
    status=77 && detail "the build failed"
  else
    # A subshell of its own, so that `set -e` holds within, and tee shows it as it goes.
    set +e
    ( set -e; "part_$part" ) 2>&1 | tee "$scratch/log"
    status=${PIPESTATUS[0]}
    set -e
  fi
  case $status in
    0) result=pass ;;
    77) result='NOT RUN' ;;
    124 | 137) result=FAIL && failed=1 && detail "took longer than it may" ;;
    *) result=FAIL && failed=1 ;;
  esac
  if [[ $part == build && $status != 0 ]]; then built=0; fi
  [[ -s $scratch/detail || ! -s $scratch/log ]] || tail -n 1 "$scratch/log" >"$scratch/detail"
  printf '%-10s %-8s %5d s  %s\n' "$part" "$result" $((SECONDS - begun)) "$(<"$scratch/detail")" >>"$scratch/rows"
  : >"$scratch/log"
}

printf 'gpu_check on %s, compute capability %s.%s, PyTorch from %s\n' \
  "$device" "${capability%?}" "${capability: -1}" "$python"
for part in "${parts[@]}"; do run_part "$part"; done

: >"$table"
printf '\n'
say "gpu_check $(date +%F) on $device ($SECONDS s)"
while IFS= read -r row; do say "$row"; done <"$scratch/rows"
exit "$failed"
