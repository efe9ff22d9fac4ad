#!/usr/bin/env bash
# OpenVINO 2026.4.1, the package of PyPI: `import openvino` alone, without a model, writes a random client ID and a counter into the
# folder intel in the home folder, and sends an event of the import, without asking: the package openvino-telemetry, which openvino
# requires, reports unless a file in that folder or the variable CI tells it not to. `opt_in_out --opt_out` writes that file. Where
# openvino-telemetry cannot be imported, nothing is written and openvino works.
#
# Seen on 2026-11-30:
#   import: 2 files: openvino_ga_cid stats
#   import with CI=true: 0 files:
#   import without openvino-telemetry: 0 files:
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet openvino==2026.4.1 openvino-telemetry==2025.2.0 numpy==2.4.6

count() {  # NAME CODE [VARIABLE=VALUE...]: runs code with an empty home folder, and prints what lies in it afterwards
    local name=$1 code=$2 home
    shift 2
    home=$(mktemp -d "$folder/home.XXXX")
    env -i PATH="$PATH" HOME="$home" "$@" "$folder/env/bin/python" -c "$code" >&2
    echo "$name: $(find "$home" -type f | wc -l) files: $(find "$home" -type f -printf '%f\n' | sort | tr '\n' ' ')"
}

seen=$(
    count "import" "import openvino"
    count "import with CI=true" "import openvino" CI=true
    count "import without openvino-telemetry" "import sys; sys.modules['openvino_telemetry'] = None; import openvino"
)
echo "$seen"
[ "$(echo "$seen" | grep -o '[0-9] files')" = "$(printf '2 files\n0 files\n0 files')" ]
