#!/bin/sh
# Installs the browser that tests of the console use, where that needs nobody; else they are skipped.
set -eu
if command -v chromium >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    exit 0
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || { echo "kedge: no chromium; its tests are skipped"; exit 0; }
    sudo="sudo -n"
fi
echo "== set-up: chromium, for tests of the console"
{ $sudo apt-get update -qq && $sudo apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; } \
    >/dev/null 2>&1 || echo "kedge: chromium cannot be installed; its tests are skipped"
