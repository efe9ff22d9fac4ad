#!/usr/bin/env bash
# ONNX Runtime 1.31.1, the package of PyPI for Linux on x86-64: `import onnxruntime` alone, without a session, writes a random
# device ID and a database of telemetry events that wait to be sent (ProcessInfo, with the distribution's name) into the user's
# cache, and a session ID into the temporary folder (.ses). `import diffusers` imports it. Calling
# `onnxruntime.disable_telemetry_events()` comes too late, since the import has written them. The environment variable
# ORT_DISABLE_TELEMETRY prevents it if it is 1, true or yes when the package is imported; 0 or nothing does not.
#
# Seen on 2026-11-30:
#   import: 2 files: deviceid onnxruntime.db
#   import and disable_telemetry_events(): 2 files: deviceid onnxruntime.db
#   import with ORT_DISABLE_TELEMETRY=1: 0 files:
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime==1.31.1

count() {  # NAME CODE [VARIABLE=VALUE...]: runs code with an empty home folder, and prints what lies in it afterwards
    local name=$1 code=$2 home
    shift 2
    home=$(mktemp -d "$folder/home.XXXX")
    env -i PATH="$PATH" HOME="$home" "$@" "$folder/env/bin/python" -c "$code" >&2
    echo "$name: $(find "$home" -type f | wc -l) files: $(find "$home" -type f -printf '%f\n' | sort | tr '\n' ' ')"
}

seen=$(
    count "import" "import onnxruntime"
    count "import and disable_telemetry_events()" "import onnxruntime; onnxruntime.disable_telemetry_events()"
    count "import with ORT_DISABLE_TELEMETRY=1" "import onnxruntime" ORT_DISABLE_TELEMETRY=1
)
echo "$seen"
[ "$(echo "$seen" | grep -o '[0-9] files')" = "$(printf '2 files\n2 files\n0 files')" ]
