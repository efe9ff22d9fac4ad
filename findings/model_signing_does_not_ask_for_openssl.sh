#!/usr/bin/env bash
# model-signing 1.1.1, installed by pip with all that it asks for, cannot be imported: it imports OpenSSL, which is in the package
# pyOpenSSL, and neither it nor sigstore 4.5.1 asks for that. With pyOpenSSL beside it, it signs and verifies with keys.
#
# Seen on 2026-11-30: ModuleNotFoundError: No module named 'OpenSSL'; with pyOpenSSL 26.4.0: imported
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet model-signing==1.1.1 sigstore==4.5.1
before=$("$folder/env/bin/python" -c 'import model_signing' 2>&1 | tail -1 || true)
"$folder/env/bin/pip" install --quiet pyOpenSSL==26.4.0
after=$("$folder/env/bin/python" -c 'import model_signing; print("imported")')
echo "model-signing 1.1.1 alone: $before"
echo "with pyOpenSSL 26.4.0: $after"
[[ "$before" == *"No module named 'OpenSSL'"* && "$after" == imported ]]
