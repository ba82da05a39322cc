#!/usr/bin/env python3
"""Runs every check of the project: `make test`.

Runs formatting, clippy, the documentation of the code, the dependency rules, all Rust tests (including those of the Helm chart),
conformance, the static binary and the quick start. Prints the table of the named cases and a summary line, `N passed, N failed, N skipped`. The output of each
runner is kept under `<target>/test-logs/`. Standard library only.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time

from terminal import bold, dim, green, red, seconds, target_dir, yellow

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = target_dir(ROOT)
LOGS = os.path.join(TARGET, "test-logs")
CARGO_DENY = "0.20.2"
TOOLS = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "rolecall", "tools")
HEARTBEAT = 20  # seconds without output before a long step reports that it is still running

passed, failed, skipped = [], [], []  # names; conformance and cargo add one entry per case
cases = {}  # (topic, words) -> result: the content of the final table

# Unit tests listed in the table beside the integration cases: properties, and cases that need a store alone.
SHOWN_UNITS = re.compile(r"^simulation::|::(properties|laws|replay)::|^scim::tests::filters::|::a_full_disk_")
# Unit tests over HTTP: the SCIM endpoint by its router, and the client of Google against the emulator.
OVER_HTTP = re.compile(r"^(scim_server)::tests::(\w+)::|^target::(google)::emulator_tests::")


class Step:
    """One command whose output goes to a log, with regular progress lines while it runs."""

    def __init__(self, name, command, env=None, timeout=None):
        self.name, self.command, self.timeout = name, command, timeout
        self.env = {**os.environ, "CARGO_TERM_COLOR": "never", "NO_COLOR": "1", **(env or {})}
        self.lines = []
        self.spoke = time.monotonic()

    def run(self, on_line=lambda line: None):
        """Runs to the end. Returns the exit status."""
        self.say(f"{bold('==')} {bold(self.name)}  {dim(' '.join(self.command))}")
        started = time.monotonic()
        log = os.path.join(LOGS, re.sub(r"\W+", "-", self.name.lower()).strip("-") + ".log")
        process = subprocess.Popen(
            self.command, cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        ended = threading.Event()
        threading.Thread(target=self.watch, args=(process, started, ended), daemon=True).start()
        with open(log, "w", encoding="utf-8") as file:
            for line in process.stdout:
                file.write(line)
                self.lines.append(line.rstrip())
                on_line(self.lines[-1])
        status = process.wait()
        ended.set()
        self.say(f"   {green('done') if status == 0 else f'ended with status {status}'}, {seconds(time.monotonic() - started)}")
        return status

    def watch(self, process, started, ended):
        while not ended.wait(1):
            now = time.monotonic()
            if self.timeout and now - started > self.timeout:
                self.say(f"   {red('stopped')}: it took longer than {seconds(self.timeout)}")
                os.killpg(process.pid, 15)
                return
            if now - self.spoke > HEARTBEAT:
                last = next((line for line in reversed(self.lines) if line.strip()), "starting")
                self.say(f"   {dim(f'still running, {seconds(now - started)}: {last.strip()[:100]}')}")

    def say(self, text):
        self.spoke = time.monotonic()
        print(text, flush=True)

    def show(self, count=150):
        """Prints the end of what the command said, for the person who fixes it."""
        for line in self.lines[-count:]:
            print(f"   | {line}")


def check(name, command, **options):
    """A runner that either passes or fails."""
    step = Step(name, command, **options)
    good = step.run() == 0
    (passed if good else failed).append(name)
    if not good:
        step.show()
        print(f"   {red('failed')}: {name}")
    return good


def prerequisites():
    """Installs what is missing on a bare Debian machine with rustup: the pinned toolchain, and what the steps need."""
    if not shutil.which("cargo"):
        sys.exit("`cargo` was not found: install Rust with rustup (https://rustup.rs), then run `make test` again")
    if shutil.which("rustup"):
        with open(os.path.join(ROOT, "rust-toolchain.toml"), encoding="utf-8") as file:
            channel = re.search(r'channel = "([^"]+)"', file.read()).group(1)
        have = subprocess.run(["rustup", "component", "list", "--installed", "--toolchain", channel],
                              capture_output=True, text=True).stdout
        if not ("clippy" in have and "rustfmt" in have):
            Step(f"Install Rust {channel} with rustfmt and clippy",
                 ["rustup", "toolchain", "install", channel, "--profile", "minimal", "-c", "rustfmt", "-c", "clippy"]).run()
    missing = []
    if not (shutil.which("cc") or shutil.which("gcc")):
        missing += ["gcc", "libc6-dev"]  # SQLite is compiled in
    if subprocess.run(["python3", "-c", "import ensurepip, venv"], capture_output=True).returncode != 0:
        missing += ["python3-venv"]  # conformance installs Google's clients into a virtual environment
    if not shutil.which("lua5.1"):
        missing += ["lua5.1"]  # Argo CD's health checks are written in Lua
    if not shutil.which("musl-gcc"):
        missing += ["musl-tools"]  # the image's binary is linked statically
    if missing:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            sys.exit(f"missing on this machine: install {' '.join(missing)}, then run `make test` again")
        Step(f"Install {' '.join(missing)}",
             ["sh", "-c", f"apt-get update && apt-get install -y --no-install-recommends {' '.join(missing)}"]).run()


def dependency_rules():
    """cargo-deny: bans, licenses and sources pass or fail; advisories need a database from the network."""
    home = os.path.join(TOOLS, f"cargo-deny-{CARGO_DENY}")
    binary = os.path.join(home, "bin", "cargo-deny")
    if not os.path.exists(binary):
        print(f"cargo-deny {CARGO_DENY} is not installed yet: building it once into {home}; this takes some minutes")
        # Little optimization: it is built once and runs for a second.
        fast = {"CARGO_PROFILE_RELEASE_OPT_LEVEL": "1", "CARGO_PROFILE_RELEASE_LTO": "off",
                "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16", "CARGO_PROFILE_RELEASE_DEBUG": "false"}
        step = Step("Install cargo-deny", ["cargo", "install", "cargo-deny", "--version", CARGO_DENY, "--locked",
                                           "--root", home, "--target-dir", os.path.join(TARGET, "tools")], env=fast)
        if step.run() != 0:
            step.show(30)
            failed.append("Dependency rules: cargo-deny could not be installed")
            return
        shutil.rmtree(os.path.join(TARGET, "tools"), ignore_errors=True)
    deny = [binary, "--workspace", "--locked", "check"]
    check("Dependency rules: bans, licenses, sources", [*deny, "bans", "licenses", "sources"])
    advisories = Step("Dependency rules: advisories", [*deny, "advisories"], timeout=120)
    if advisories.run() == 0:
        passed.append(advisories.name)
    elif any("failed to fetch advisory database" in line for line in advisories.lines) or not advisories.lines:
        print(f"   {yellow('skipped')}: the advisory database could not be fetched, so known vulnerabilities were not checked")
        skipped.append(advisories.name)
    else:
        advisories.show()
        failed.append(advisories.name)


def control_plane():
    """The programs that the cluster tests run beside rolecall: NAME -> path, or None when they could not be built."""
    step = Step("Control plane and Flux for the cluster tests (the first time takes 13 minutes)",
                [sys.executable, os.path.join("scripts", "cluster_tools.py")], timeout=3600)
    status = step.run()
    found = dict(re.findall(r"^(ROLECALL_TEST_\w+)=(.+)$", "\n".join(step.lines), re.MULTILINE))
    if status == 0 and found:
        return found
    step.show(40)
    failed.append("Control plane for the cluster tests: it could not be built, so none of them was run")
    return None


def cluster_tests(tools):
    """`tests/cluster`: at most two control planes at a time, which is what a small machine with two cores can run."""
    before = len(cases)
    cargo_tests("Cluster tests", ["--test", "cluster", "--", "--test-threads", "2", "--show-output"], tools)
    if len(cases) == before and not any("Cluster tests" in name for name in failed):
        failed.append("Cluster tests: not one of them was run")


def cargo_tests(name, arguments, env):
    """Runs `cargo test` and counts the cases in its output. Returns whether everything was built."""
    package, binary, failures = "rolecall", "", []
    in_failures = False

    def on_line(line):
        nonlocal package, binary, in_failures
        if match := re.match(r"\s+Running (.+?) \(.*/(\w+)-[0-9a-f]+\)", line):
            binary = match[1]
            package = match[2] if binary == "unittests src/lib.rs" else package
        elif match := re.match(r"\s+(Doc-tests .+)", line):
            binary = match[1]
        elif match := re.match(r"test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", line):
            name, result = match[1], match[2]
            {"ok": passed, "FAILED": failed, "ignored": skipped}[result].append(f"{package}, {binary}: {name}")
            topic, _, words = name.rpartition("::")
            if "tests/it/" in binary:
                cases[topic if package == "rolecall" else f"emulator: {topic}", words] = result
            elif "tests/chart/" in binary:
                cases[f"chart: {topic}", words] = result
            elif "tests/cluster/" in binary:
                cases[f"cluster: {topic}", words] = result
            elif match := OVER_HTTP.search(name):
                cases[": ".join(part for part in match.groups() if part), words] = result
            elif SHOWN_UNITS.search(name):
                cases[f"properties: {topic.split('::')[0]}", words] = result
        elif line.startswith("measured: "):
            step.say(f"   {line}")
        elif line.startswith("test result:"):
            step.say(f"   {dim(binary.ljust(34))} {line.removeprefix('test result: ').split(';  ')[0]}")
            in_failures = False
        elif line == "failures:":
            in_failures = True
        if in_failures:
            failures.append(line)

    # `--no-fail-fast`: one failing binary does not hide the others. Each case is counted by its line of output.
    step = Step(name, ["cargo", "test", "--locked", "--no-fail-fast", *arguments], env=env)
    before = len(failed)
    if step.run(on_line) == 0:
        return True
    if len(failed) == before:  # it did not compile, or a test binary died without a message
        failed.append(f"{name}: cargo test")
        step.show()
        return any(line.startswith("test result:") for line in step.lines)
    for line in failures[:400]:
        print(f"   | {line}")
    return True


def conformance():
    """Runs third-party clients against the emulator: the last line of each runner is its count."""
    script = os.path.join(ROOT, "tests", "conformance", "run.sh")
    step = Step("Conformance: gcloud and Google's Python clients against the emulator", ["bash", script],
                env={"ROLECALL_EMULATOR_BIN": os.path.join(TARGET, "debug", "rolecall-emulator")}, timeout=1200)
    status = step.run()
    counts = [re.fullmatch(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", line.strip()) for line in step.lines]
    counts = [match for match in counts if match]
    for match in counts[-1:]:
        passed.extend(["conformance"] * int(match[1]))
        failed.extend(["conformance"] * int(match[2]))
        skipped.extend(["conformance"] * int(match[3] or 0))
        print(f"   {match[0]}")
    if status != 0 or not counts:
        step.show()
        if not counts or counts[-1][2] == "0":
            failed.append(f"conformance: it ended with status {status} and no failed case of its own")


def table():
    """Prints the cases with their results, one per line."""
    if not cases:
        return
    width = max(len(words) for _, words in cases)
    print(f"\n{bold('Cases')}")
    shown = None
    for topic, words in sorted(cases):
        if topic != shown:
            shown = topic
            print(f"\n  {bold(topic.replace('_', ' ').replace('::', ', '))}")
        result = {"ok": green("ok"), "FAILED": red("FAILED"), "ignored": yellow("ignored")}[cases[topic, words]]
        print(f"    {words.replace('_', ' ').ljust(width)}  {result}")


def main():
    started = time.monotonic()
    os.makedirs(LOGS, exist_ok=True)
    prerequisites()
    check("Formatting", ["cargo", "fmt", "--all", "--check"])
    check("Clippy without warnings", ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
    # `--all-targets` omits targets that `cargo test` does not run by default.
    check("Clippy without warnings: cluster tests", ["cargo", "clippy", "--locked", "--test", "cluster", "--", "-D", "warnings"])
    check("Documentation of the code without warnings", ["cargo", "doc", "--no-deps", "--workspace", "--locked"],
          env={"RUSTDOCFLAGS": "-D warnings"})
    dependency_rules()
    tools = control_plane()
    if cargo_tests("Unit, property and integration tests", ["--workspace"], tools or {}):  # this has built the binaries
        if tools:
            cluster_tests(tools)
        conformance()
        check("Static binary: build and start", [sys.executable, os.path.join("scripts", "static_binary.py")], timeout=3600)
        check("Quick start", [sys.executable, os.path.join("scripts", "quickstart.py")], env={"ONCE": "1"}, timeout=300)
    table()
    if failed:
        print(f"\n{bold('Failed')}")
        for name in failed:
            print(f"  {red(name)}")
    print(f"\n{dim(f'{seconds(time.monotonic() - started)}; full output in {LOGS}')}\n")
    print(f"{len(passed)} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
