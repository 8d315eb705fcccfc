#!/usr/bin/env bash
# Builds the CPU code with AddressSanitizer and UndefinedBehaviorSanitizer, into build/ and beside the installed
# libraries, and runs something under them. Any finding ends the run with an error.
#
#   plugins/tools/sanitize.sh test [PYTEST ARGUMENT...]   the operators' tests; default: tests/visdeploy_plugins
#   plugins/tools/sanitize.sh fuzz [ARGUMENT...]          the fuzz target: seconds and seed, or libFuzzer's options
#
# CXX names the compiler (`test` needs g++), PYTHON the interpreter with the project's packages, BUILD the build folder.
# QUICK=ON builds the kernels for the baseline instruction set alone, and without optimisation: a third of the time.
set -euo pipefail

root="$(cd "$(dirname "$0")/../.." && pwd)"
what="${1:-}"
shift || true
compiler="${CXX:-g++}"
build="${BUILD:-$root/build/sanitize-$(basename "$compiler")}"
quick="${QUICK:-OFF}"
optimisation=-O1
[ "$quick" = OFF ] || optimisation=-O0
python="${PYTHON:-$root/.venv/bin/python}"
[ -x "$python" ] || python=python3

configure() {
  cmake -S "$root/plugins" -B "$build" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="$optimisation -g1" \
    -DVISDEPLOY_CUDA=OFF -DVISDEPLOY_SANITIZE=address,undefined -DVISDEPLOY_OUTPUT_DIR="$build/libraries" \
    -DVISDEPLOY_BASELINE_ONLY="$quick" "$@" >/dev/null
}

export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
case "$what" in
test)
  configure -DVISDEPLOY_EMULATION=ON -DVISDEPLOY_FUZZ=OFF
  cmake --build "$build"
  [ $# -gt 0 ] || set -- "$root/tests/visdeploy_plugins" -m "not slow and not gpu"
  # The interpreter itself leaks, and other packages' libraries throw before a preloaded runtime knows of them.
  export ASAN_OPTIONS="detect_leaks=0:halt_on_error=1" VISDEPLOY_TEST_LIBRARIES="$build/libraries"
  export LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so) $("$compiler" -print-file-name=libstdc++.so)"
  export PYTHONPATH="$root:$root/training:$root/export:$root/plugins" OMP_NUM_THREADS=1
  cd "$root"
  exec "$python" -m pytest -p no:cacheprovider "$@"
  ;;
fuzz)
  configure -DVISDEPLOY_EMULATION=OFF -DVISDEPLOY_FUZZ=ON
  cmake --build "$build" --target visdeploy_fuzz
  exec "$build/visdeploy_fuzz" "$@"
  ;;
*)
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac
