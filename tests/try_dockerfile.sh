#!/bin/sh
# Execute the Dockerfile's steps as far as that goes without a Docker engine: the same files in an empty folder, a
# fresh environment from requirements.txt, the command as the present user, the health check, and then a plan and a
# short run beside it, since TaskIT itself is copied there and not installed.
# Not tried here: the base image, the user and volume of Docker itself, a GPU.
#   tests/try_dockerfile.sh [PYTHON]     (PYTHON: skip the installation and use an environment that is there)
set -eu
cd "$(dirname "$0")/.."
words=$(sed -n 's/^CMD \["python", \(.*\)\]$/\1/p' Dockerfile | tr -d '",')
check=$(sed -n 's/.*"-c", "\(.*\)"\]$/\1/p' Dockerfile | sed 's/7860/7867/')
test -n "$words" && test -n "$check"
work=$(mktemp -d)
pid=
trap 'test -z "$pid" || kill "$pid"; rm -rf "$work"' EXIT
mkdir "$work/app" "$work/runs"
for from in $(sed -n 's/^COPY \(.*\) [^ ]*$/\1/p' Dockerfile); do
    cp -R "$from" "$work/app/"
done
cd "$work/app"
if [ $# -gt 0 ]; then
    python=$1
else
    python3 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install --quiet --constraint constraints.txt torch
    "$python" -m pip install --quiet --constraint constraints.txt --requirement requirements.txt
fi
words=$(echo "$words" | sed "s|/runs|$work/runs|")
unset PYTHONPATH
# shellcheck disable=SC2086
HF_HOME=$work/runs/.cache PYTHONUNBUFFERED=1 "$python" $words --port 7867 &
pid=$!
tries=0
until "$python" -c "$check" 2>/dev/null; do
    kill -0 "$pid"
    tries=$((tries + 1))
    test "$tries" -lt 300 || { echo "not healthy after 300 tries" >&2; exit 1; }
    sleep 1
done
echo "healthy: $(id -un) serves $words"
"$python" -c "from taskit.data import write_digits; write_digits('$work/digits')"
"$python" -m taskit plan "$work/digits" --backbone vit-mini-tiny32 --budget 40% --epochs 1 --out "$work/plan.json"
"$python" -m taskit train "$work/plan.json" --out "$work/run"
test -f "$work/run/adapter/adapter_model.safetensors"
echo "trained: an adapter from the copied files alone"
