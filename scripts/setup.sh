#!/bin/sh
# Makes .venv and installs the project with everything; a second run does nothing.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp=.venv/.installed

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || {
    echo "kedge: $python is missing or older than 3.10; install Python 3.10 or newer, or set PYTHON" >&2
    exit 2
}

wanted=$(cat pyproject.toml constraints-cpu.txt scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    echo "== set-up: python3-venv is missing, installing it"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq && $sudo apt-get install -qq -y python3-venv || {
        echo "kedge: python cannot make virtual environments; apt-get install python3-venv" >&2
        exit 2
    }
fi

echo "== set-up: virtual environment"
[ -x .venv/bin/python ] || "$python" -m venv .venv

extras=agent,onnxruntime,openvino,video,operator,server,builder,docs,dev
# TensorRT for RTX compiles without a GPU, on x86-64 alone.
[ "$(uname -sm)" != "Linux x86_64" ] || extras=$extras,tensorrt-rtx
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
    echo "== set-up: packages, with a GPU build of torch (minutes)"
    .venv/bin/python -m pip install -q --no-compile -e ".[$extras]"
else
    echo "== set-up: packages, torch pinned for a machine without GPU (minutes)"
    .venv/bin/python -m pip install -q --no-compile -c constraints-cpu.txt -e ".[$extras]"
fi
# pip compiles one file after the other. What cannot be compiled (templates, other Pythons' code)
# is nobody's to import.
.venv/bin/python -W ignore -m compileall -qq -j 0 .venv/lib || true
# Classic TensorRT is not to be had as a package; its bindings are, and tests hold our calls against
# them (1.3 MB each). Where an index lacks one, that test has one release less to look at.
if [ "$(uname -sm)" = "Linux x86_64" ]; then
    for bindings in tensorrt_cu12_bindings==10.3.0 tensorrt_cu12_bindings==10.16.1.11 \
        tensorrt_cu13_bindings==11.4.0.106; do
        .venv/bin/python -m pip download -q --no-deps -d .venv/tensorrt-bindings "$bindings" \
            2>/dev/null || echo "== set-up: no $bindings for this Python, its calls stay unchecked"
    done
fi
echo "$wanted" > "$stamp"
