#!/usr/bin/env python3
"""Builds the static binary of the container image, and starts it in an otherwise empty root folder.

The root folder has the content of the image: the binary, the certificates, an empty /tmp and /var/lib/rolecall, and
the image's user. The dev profile is used, since linking is tested and not speed. Standard library only.
"""

import contextlib
import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from terminal import dim, green, red, seconds, target_dir

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = f"{platform.machine()}-unknown-linux-musl"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
USER = 65532
START = 60  # timeout of becoming ready, in seconds

results = []


def case(name, holds, detail=""):
    """One line of the result."""
    results.append(holds)
    print(f"  {green('ok') if holds else red('FAILED')}  {name}{dim('  ' + detail) if detail else ''}", flush=True)


def prerequisites():
    """The target's standard library, and a C compiler for SQLite and ring."""
    have = subprocess.run(["rustup", "target", "list", "--installed"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if TARGET not in have:
        subprocess.run(["rustup", "target", "add", TARGET], cwd=ROOT, check=True)
    missing = [package for package, there in (("musl-tools", shutil.which("musl-gcc")),
                                              ("ca-certificates", os.path.exists(CERTIFICATES))) if not there]
    if missing:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            sys.exit(f"missing on this machine: install {' '.join(missing)}, then try again")
        subprocess.run(["sh", "-c", f"apt-get update && apt-get install -y --no-install-recommends {' '.join(missing)}"], check=True)


def build_context():
    """Copies what `.dockerignore` includes, always to the same place, so that cargo builds only what changed."""
    folder = os.path.join(target_dir(ROOT), "image-context")
    shutil.rmtree(folder, ignore_errors=True)
    with open(os.path.join(ROOT, ".dockerignore"), encoding="utf-8") as file:
        names = [line.strip()[1:] for line in file if line.startswith("!")]
    for name in names:
        source, copy = os.path.join(ROOT, name), os.path.join(folder, name)
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        if os.path.isdir(source):
            shutil.copytree(source, copy)
        elif os.path.exists(source):
            shutil.copy2(source, copy)
    return folder


def build():
    """Returns the path of the binary."""
    started = time.monotonic()
    # Nothing is optimized: most of the time of this step is the second build of all dependencies.
    quick = ["--config", 'profile.dev.package."*".opt-level=0', "--config", "profile.dev.debug=false"]
    subprocess.run(["cargo", "build", "--locked", "--bin", "rolecall", "--target", TARGET, *quick], cwd=build_context(),
                   check=True, env={**os.environ, "CARGO_TARGET_DIR": target_dir(ROOT)})
    print(f"built for {TARGET} in {seconds(time.monotonic() - started)}", flush=True)
    return os.path.join(target_dir(ROOT), TARGET, "debug", "rolecall")


def linkage(path):
    """(interpreter, needed libraries), from the headers of a 64-bit little-endian ELF file."""
    with open(path, "rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            sys.exit(f"{path} is no 64-bit little-endian ELF file")
        offset, = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        interpreter, needed = None, 0
        for number in range(count):
            file.seek(offset + number * size)
            kind, _, start, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind not in (2, 3):
                continue
            file.seek(start)
            segment = file.read(length)
            if kind == 3:  # PT_INTERP
                interpreter = segment.rstrip(b"\0").decode()
            else:  # PT_DYNAMIC: a position-independent static binary has one, too, but without libraries
                tags = [struct.unpack_from("<QQ", segment, at)[0] for at in range(0, length - 15, 16)]
                needed = (tags[:tags.index(0)] if 0 in tags else tags).count(1)
        return interpreter, needed


def free_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def command(root, *arguments):
    """The command and options of `subprocess` that start the binary with `root` as its whole file system."""
    options = {"env": {}, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if os.geteuid() == 0:
        def enter():
            os.chroot(root)
            os.chdir("/")
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
        return ["/rolecall", *arguments], {**options, "preexec_fn": enter}
    # Without the permission to change the root, use a user namespace.
    return ["unshare", "--user", "--map-user", str(USER), "--map-group", str(USER), "--root", root,
            "/rolecall", *arguments], {**options, "env": {"PATH": os.environ.get("PATH", "")}}


def image_root(folder, binary):
    """Creates the content that the Dockerfile puts into the image, and a folder of manifests."""
    root = os.path.join(folder, "root")
    state = os.path.join(root, "var", "lib", "rolecall")
    for path in (state, os.path.join(root, "tmp"), os.path.join(root, "etc", "ssl", "certs")):
        os.makedirs(path)
    shutil.copy(binary, os.path.join(root, "rolecall"))
    shutil.copy(CERTIFICATES, os.path.join(root, CERTIFICATES.lstrip("/")))
    shutil.copytree(os.path.join(ROOT, "examples", "smallest"), os.path.join(root, "manifests"))
    os.chmod(folder, 0o755)  # the folder is private by default, but the image's user needs access
    if os.geteuid() == 0:
        # A file next to the manifests records the store they were used with.
        for path in (state, os.path.join(root, "tmp"), os.path.join(root, "manifests")):
            os.chown(path, USER, USER)
        os.chown(root, USER, USER)
    return root


def answer(url):
    """The HTTP status, or None while nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def start_and_stop(root, google):
    """Runs the binary until it is ready, sends a SCIM request, and shuts it down."""
    scim, admin = free_port(), free_port()
    arguments, options = command(
        root, "run", "--manifests", "/manifests", "--database", "sqlite:/var/lib/rolecall/rolecall.db", "--mode", "enforce",
        "--listen", f"127.0.0.1:{scim}", "--admin-listen", f"127.0.0.1:{admin}", "--google-endpoint", google,
        "--google-credentials", "none", "--log-format", "json")
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(arguments, **{**options, "stdout": log, "stderr": subprocess.STDOUT})
        try:
            ready = None
            while ready != 200 and process.poll() is None and time.monotonic() - started < START:
                time.sleep(0.05)
                ready = answer(f"http://127.0.0.1:{admin}/readyz")
            scheme = google.partition(":")[0]
            case(f"/readyz answers 200, with Google over {scheme}", ready == 200, f"after {seconds(time.monotonic() - started)}")
            scim_status = answer(f"http://127.0.0.1:{scim}/idp/okta/scim/v2/Users")
            case("SCIM asks for a token", scim_status == 401, f"{scim_status}")
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(30)
            except subprocess.TimeoutExpired:
                status = "none within 30 s"
            case("SIGTERM ends it in order", status == 0, f"exit status {status}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if not all(results):
            log.seek(0)
            print(log.read()[-4000:])


def main():
    if sys.platform != "linux":
        sys.exit("the image is for Linux, and so is this test")
    prerequisites()
    binary = build()
    interpreter, needed = linkage(binary)
    case("the binary asks for no interpreter", interpreter is None, interpreter or "")
    case("the binary needs no library", needed == 0, f"{os.path.getsize(binary) // 2**20} MiB, dev profile")
    with open(os.path.join(ROOT, "Cargo.toml"), encoding="utf-8") as file:
        version = re.search(r'^version = "([^"]+)"', file.read(), re.MULTILINE)[1]
    with tempfile.TemporaryDirectory(prefix="rolecall-image-") as folder:
        root = image_root(folder, binary)
        arguments, options = command(root, "version")
        said = subprocess.run(arguments, **options, timeout=30)
        case("`rolecall version` runs where nothing else is", said.returncode == 0 and version in said.stdout,
             said.stdout.strip() or said.stderr.strip())
        start_and_stop(root, f"http://127.0.0.1:{free_port()}")
        # HTTPS needs the system's certificates, which the image must contain.
        start_and_stop(root, f"https://127.0.0.1:{free_port()}")
    good = sum(results)
    print(f"{good} passed, {len(results) - good} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
