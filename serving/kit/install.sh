#!/bin/sh
# Installs this artifact and its server on a board. Run it as root, from where it is:
#
#     sudo sh kit/install.sh
#
# With a folder kit/wheelhouse nothing is downloaded. Variables: PREFIX (default /opt/edgepress), PYTHON (default python3),
# NO_SERVICE=1 (install no service). Running it again updates what is there.
set -eu

kit=$$(cd "$$(dirname "$$0")" && pwd)
artifact=$$(dirname "$$kit")
prefix=$${PREFIX:-/opt/edgepress}
python=$${PYTHON:-python3}
state=/var/lib/edgepress

fail() { echo "Error: $$1" >&2; exit 2; }
say() { echo "$$1" >&2; }

case "$$prefix" in
  [!/]* | *[!A-Za-z0-9/._-]*)
    fail "PREFIX is '$$prefix', which a service cannot name. Give an absolute path of letters, digits, '/', '.', '_' and '-'." ;;
esac
[ "$$(id -u)" = 0 ] || fail "This script creates a user and a service. Run it as root: sudo sh $$0"
command -v "$$python" >/dev/null || fail "There is no $$python. Install Python 3.11 or newer, or set PYTHON."
"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$$python is older than 3.11. Set PYTHON to a newer one."
"$$python" -c 'import ensurepip' 2>/dev/null || fail "$$python cannot create environments. On Debian: apt-get install python3-venv"
if [ -d "$$kit/wheelhouse" ]; then
  version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [ "$$version" = "$python" ] || fail "The kit's wheels are for Python $python, and $$python is $$version. Set PYTHON, or make the kit again with wheels of: edgepress wheelhouse --python $$version"
  machine=$$(uname -m)
  [ "$$machine" = "$machine" ] || fail "The kit's wheels are for $machine, and this machine is $$machine. Make the kit again with wheels of: edgepress wheelhouse --machine $$machine"
fi
command -v sha256sum >/dev/null || fail "There is no sha256sum. Install coreutils."

say "Comparing the kit and the graphs with their hashes"
(cd "$$kit" && sha256sum --check --quiet SHA256SUMS) || fail "A file of the kit is not as it was made. Copy the artifact again."
for part in onnx rknn; do
  [ -d "$$artifact/$$part" ] || continue
  [ -f "$$artifact/$$part/SHA256SUMS" ] || fail "$$part/SHA256SUMS is missing. Export the artifact again."
  (cd "$$artifact/$$part" && sha256sum --check --quiet SHA256SUMS) || fail "A file in $$part is not as it was exported. Copy the artifact again."
done

say "Installing edgepress in $$prefix"
mkdir -p "$$prefix"
"$$python" -m venv "$$prefix/venv"
if [ -d "$$kit/wheelhouse" ]; then
  "$$prefix/venv/bin/pip" install --quiet --no-index --find-links "$$kit/wheelhouse" --upgrade 'edgepress[server]'
else
  "$$prefix/venv/bin/pip" install --quiet --upgrade 'edgepress[server]' ||
    fail "pip found no edgepress. Make the kit again with wheels: edgepress kit --wheelhouse"
fi

if [ -d "$$prefix/artifact" ] && [ "$$(cd "$$prefix/artifact" && pwd -P)" = "$$(cd "$$artifact" && pwd -P)" ]; then
  say "The artifact is in $$prefix/artifact already"
else
  say "Copying the artifact to $$prefix/artifact"
  rm -rf "$$prefix/artifact.new"
  mkdir "$$prefix/artifact.new"
  for name in manifest.json artifact.json README.md sbom.cdx.json SHA256SUMS artifact.sig board.sig onnx rknn; do
    [ ! -e "$$artifact/$$name" ] || cp -R "$$artifact/$$name" "$$prefix/artifact.new/"
  done
  rm -rf "$$prefix/artifact"
  mv "$$prefix/artifact.new" "$$prefix/artifact"
fi
chmod -R a+rX,go-w "$$prefix/artifact"
cp "$$kit/edgepress.env" "$$prefix/edgepress.env.example"
[ -e "$$prefix/edgepress.env" ] || install -m 640 "$$kit/edgepress.env" "$$prefix/edgepress.env"

if ! getent passwd edgepress >/dev/null; then
  useradd --system --home-dir "$$state" --shell /usr/sbin/nologin edgepress
fi
mkdir -p "$$state"
chown edgepress: "$$state"
# Without systemd the server reads it itself. Nobody else may, since it can hold a token.
chown root:edgepress "$$prefix/edgepress.env"
chmod 640 "$$prefix/edgepress.env"
start="set -a; . $$prefix/edgepress.env; exec $$prefix/venv/bin/edgepress serve $$prefix/artifact --state $$state"

if [ -n "$${NO_SERVICE:-}" ]; then
  say "Installed. Start it with:"
  say "  su -s /bin/sh edgepress -c '$$start'"
elif [ -d /run/systemd/system ]; then
  sed "s|@PREFIX@|$$prefix|g" "$$kit/edgepress.service" > /etc/systemd/system/edgepress.service
  systemctl daemon-reload
  systemctl enable --now edgepress.service
  say "Installed. The service is 'edgepress': systemctl status edgepress"
elif [ -d /etc/supervisor/conf.d ]; then
  sed "s|@PREFIX@|$$prefix|g" "$$kit/supervisor.conf" > /etc/supervisor/conf.d/edgepress.conf
  say "Installed for supervisor. Load it with: supervisorctl reread && supervisorctl update"
else
  say "Installed. There is neither systemd nor supervisor. Start it with:"
  say "  su -s /bin/sh edgepress -c '$$start'"
fi
