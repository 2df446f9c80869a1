#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# make test-arm: the C core for AArch64, run here under qemu. Its kernels against the oracle in
# double, its sigmoid and tanh over a stride of all floats, its digest against this machine's own.
# Installs a cross compiler and qemu where it may. Exit status 77: not run, tools are missing.
set -euo pipefail
cd "$(dirname "$0")/../.."

CC=aarch64-linux-gnu-gcc
missing() { ! command -v $CC >/dev/null || ! command -v qemu-aarch64-static >/dev/null; }
if missing && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    apt-get install -y -qq $CC libc6-dev-arm64-cross qemu-user-static >/dev/null || true
fi
if missing; then
    echo "test-arm: not run, needs $CC and qemu-aarch64-static" >&2
    exit 77
fi
PYTHON=${PYTHON:-python3}
[ -x .venv/bin/python ] && PYTHON=.venv/bin/python

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
CORE=(csrc/src/*.c csrc/src/kernels/*.c)

build() { # NAME CC FLAGS...: compiles the core once for each compiler, then its programs
    local name=$1 cc=$2
    shift 2
    mkdir -p "$folder/$name"
    printf '%s\n' "${CORE[@]}" tests/c/{check_kernels,check_cells,oracle,oracle_cells,check,digest,drive,modes,sweep_activations}.c |
        xargs -P "$(nproc)" -I{} sh -c '
            file=$1 out=$2/$(echo "$1" | tr / -).o; shift 2
            "$@" -Icsrc/include -c "$file" -o "$out"' _ {} "$folder/$name" "$cc" "$@"
    local core=("$folder/$name"/csrc-*.o) c="$folder/$name/tests-c-"
    link() { "$cc" "${flags[@]}" "${core[@]}" "${@:2}" -lm -o "$folder/$name/$1" 2>"$folder/warnings" ||
        { cat "$folder/warnings"; return 1; }; } # a static dlopen warns: no BLAS is opened here
    local flags=("$@")
    link check_kernels "${c}"{check_kernels,check_cells,oracle,oracle_cells,check}.c.o
    link digest "${c}digest.c.o" "${c}drive.c.o" "${c}check.c.o"
    link modes "${c}modes.c.o" "${c}drive.c.o" "${c}check.c.o"
    link sweep "${c}sweep_activations.c.o"
}

build arm $CC -O2 -static
build here cc -O2
qemu() { qemu-aarch64-static "$folder/arm/$1" "${@:2}"; }

echo "=== kernels against the oracle"
qemu check_kernels
echo "=== sigmoid and tanh, every 257th and every 1031st float"
qemu sweep neon 257
qemu sweep scalar 1031
echo "=== same bits of 1024 LSTM models, and of every cell and option"
PYTHONPATH=tests:tests/native "$PYTHON" -c "
import cell_models, models
models.write_pack('$folder/pack', models.images(1024))
models.write_pack('$folder/cells', cell_models.images(cell_models.N_MODELS))"
for pack in pack cells; do
    qemu digest "$folder/$pack" 50000 | tee "$folder/arm.txt"
    "$folder/here/digest" "$folder/$pack" 50000 | tee "$folder/here.txt"
    [ "$(grep ^digest\  "$folder/arm.txt")" = "$(grep ^digest\  "$folder/here.txt")" ]
done
echo "=== control bits of the caller"
qemu modes "$folder/pack" 30
qemu modes "$folder/cells" 30
echo "test-arm: passed"
