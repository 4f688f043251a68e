#!/usr/bin/env bash
# Installs what runners need from Debian and cannot bring themselves: a browser, and an SSH server for the tests.
# Does nothing where all is there; says what to do where it cannot install.
set -euo pipefail
missing=()
command -v chromium > /dev/null || command -v chromium-headless-shell > /dev/null || command -v google-chrome > /dev/null \
    || missing+=(chromium)
command -v ssh > /dev/null || missing+=(openssh-client)
{ command -v sshd || [ -x /usr/sbin/sshd ]; } > /dev/null || missing+=(openssh-server)
command -v cc > /dev/null || missing+=(gcc libc6-dev)
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
    echo "Not installed here (needs root and apt-get): ${missing[*]}. Tests of what needs them are skipped with the reason."
    exit 0
fi
echo "Installing ${missing[*]} ..."
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1 \
    || { tail -5 "$log" >&2; exit 1; }
