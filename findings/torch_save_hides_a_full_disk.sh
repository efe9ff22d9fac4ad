#!/usr/bin/env bash
# torch 2.13.0: torch.save to a path that cannot grow, as on a full disk, raises a RuntimeError about positions in the file, which
# holds no errno, no path and no word of the disk. With a file of Python in place of the path the OSError comes through where the
# file is full at its begin or its end, and is hidden by the same RuntimeError where it is full between. So `except OSError` does
# not see a full disk, and a program that saves what lasts hours must remember the error of its own file.
#
# Seen on 2026-12-01, with a limit of the size of files in place of the disk:
#   path: RuntimeError RuntimeError RuntimeError
#   file: OSError RuntimeError OSError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/save.py" <<'PYTHON'
"""Saves three tensors where a file may have 0 bytes, a quarter of what it needs, and all but some of them."""
import resource
import signal
import sys

import torch

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
content, file = [torch.zeros(1_000_000) for _ in range(3)], sys.argv[1]


def save_to_path():
    torch.save(content, file)


def save_to_file():
    with open(file, "wb") as stream:
        torch.save(content, stream)


for name, save in (("path", save_to_path), ("file", save_to_file)):
    raised = []
    for limit in (0, 3_000_000, 12_000_600):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            save()
            raised.append("nothing")
        except Exception as error:
            raised.append(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(f"{name}: {' '.join(raised)}")
PYTHON
output=$("$folder/env/bin/python" -W ignore "$folder/save.py" "$folder/tensors.pt")
echo "$output"
[ "$output" = "path: RuntimeError RuntimeError RuntimeError
file: OSError RuntimeError OSError" ]
