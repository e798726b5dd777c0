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
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
    echo "== set-up: packages, with a GPU build of torch (minutes)"
    .venv/bin/python -m pip install -q -e ".[$extras]"
else
    echo "== set-up: packages, torch pinned for a machine without GPU (minutes)"
    .venv/bin/python -m pip install -q -c constraints-cpu.txt -e ".[$extras]"
fi
echo "$wanted" > "$stamp"
