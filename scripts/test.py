#!/usr/bin/env python3
"""Runs every check of the project: `make test`.

Runs formatting, clippy, the documentation of the code, the dependency rules, all Rust tests (including those of the Helm chart),
conformance, the static binary and the quick start. Prints the table of the named cases and a summary line, `N passed, N failed, N skipped`. The output of each
runner is kept under `<target>/test-logs/`. Standard library only.
"""

import json
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

    def __init__(self, name, command, env=None, timeout=None, cwd=ROOT):
        self.name, self.command, self.timeout, self.cwd = name, command, timeout, cwd
        self.env = {**os.environ, "CARGO_TERM_COLOR": "never", "NO_COLOR": "1", **(env or {})}
        self.lines = []
        self.spoke = time.monotonic()

    def run(self, on_line=lambda line: None):
        """Runs to the end. Returns the exit status."""
        self.say(f"{bold('==')} {bold(self.name)}  {dim(' '.join(self.command))}")
        started = time.monotonic()
        log = os.path.join(LOGS, re.sub(r"\W+", "-", self.name.lower()).strip("-") + ".log")
        process = subprocess.Popen(
            self.command, cwd=self.cwd, env=self.env, stdin=subprocess.DEVNULL, text=True, errors="replace",
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
                texts = (line for line in reversed(self.lines) if line.strip() and not line.startswith("{"))
                last = next(texts, "starting").strip()[:100]
                self.say(f"   {dim(f'{self.name}, {seconds(now - started)}: {last}')}")

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


class Binary:
    """A test binary, as cargo reports it."""

    def __init__(self, artifact):
        self.path, self.folder = artifact["executable"], os.path.dirname(artifact["manifest_path"])
        self.package = "rolecall" if self.folder == ROOT else "rolecall_emulator"
        self.source = os.path.relpath(artifact["target"]["src_path"], self.folder)

    def __str__(self):
        return f"{self.package}, {self.source}"


def build(name, arguments):
    """Builds test binaries. Returns them; none when they do not compile."""
    binaries = []

    def on_line(line):
        if line.startswith("{"):
            message = json.loads(line)
            if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
                binaries.append(Binary(message))

    command = ["cargo", "test", "--locked", "--no-run", "--message-format", "json-render-diagnostics", *arguments]
    step = Step(name, command)
    if step.run(on_line) == 0:
        return binaries
    failed.append(name)
    step.lines = [line for line in step.lines if not line.startswith("{")]
    step.show()
    return None


def record(binary, name, result):
    """Counts one case, and lists it in the table if people look for it there."""
    {"ok": passed, "FAILED": failed, "ignored": skipped}[result].append(f"{binary}: {name}")
    topic, _, words = name.rpartition("::")
    if binary.source.startswith("tests/it/"):
        cases[topic if binary.package == "rolecall" else f"emulator: {topic}", words] = result
    elif binary.source.startswith("tests/chart/"):
        cases[f"chart: {topic}", words] = result
    elif binary.source.startswith("tests/cluster/"):
        cases[f"cluster: {topic}", words] = result
    elif match := OVER_HTTP.search(name):
        cases[": ".join(part for part in match.groups() if part), words] = result
    elif SHOWN_UNITS.search(name):
        cases[f"properties: {topic.split('::')[0]}", words] = result


def run_tests(binary, arguments, env):
    """Runs a test binary and counts its cases, each by the line that libtest prints for it."""
    failures, counts = [], {"ok": 0, "FAILED": 0, "ignored": 0}
    in_failures = False

    def on_line(line):
        nonlocal in_failures
        if match := re.match(r"test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", line):
            counts[match[2]] += 1
            record(binary, match[1], match[2])
        elif line.startswith("measured: "):
            step.say(f"   {line}")
        elif line.startswith("test result:"):
            step.say(f"   {dim(str(binary).ljust(40))} {line.removeprefix('test result: ').split(';  ')[0]}")
            in_failures = False
        elif line == "failures:":
            in_failures = True
        if in_failures:
            failures.append(line)

    step = Step(f"Tests of {binary}", [binary.path, *arguments], cwd=binary.folder,
                env={**env, "CARGO_MANIFEST_DIR": binary.folder})
    if step.run(on_line) == 0 and sum(counts.values()) > 0:
        return
    if counts["FAILED"] == 0 and not re.search(r"src/main\.rs$", binary.source):
        failed.append(f"{binary}: it ended without a result, or has no tests")
        step.show()
    for line in failures[:400]:
        print(f"   | {line}")


def all_tests(tools):
    """Builds and runs all tests. Returns whether they were built, and with them the binaries of the workspace."""
    binaries = build("Build the tests", ["--workspace"])
    if binaries is None:
        return False
    waiting = [binary for binary in binaries if str(binary) == "rolecall, tests/it/main.rs"]
    for binary in binaries:
        if binary not in waiting:
            run_tests(binary, [], tools or {})
    # These wait for processes more than they compute, so they run side by side. At most two control planes run at a
    # time, which is what a small machine with two cores can run.
    together = [(binary, ["--test-threads", "4"]) for binary in waiting]
    if tools:
        together += [(binary, ["--test-threads", "2", "--show-output"])
                     for binary in build("Build the cluster tests", ["--test", "cluster"]) or []]
    threads = [threading.Thread(target=run_tests, args=(binary, arguments, tools or {})) for binary, arguments in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return True


def conformance():
    """Runs third-party clients against the emulator and rolecall: the last line of each runner is its count."""
    script = os.path.join(ROOT, "tests", "conformance", "run.sh")
    binaries = {"ROLECALL_EMULATOR_BIN": "rolecall-emulator", "ROLECALL_BIN": "rolecall"}
    step = Step("Conformance: gcloud and Google's Python clients against the emulator, clients of SCIM against rolecall",
                ["bash", script], timeout=1200,
                env={variable: os.path.join(TARGET, "debug", name) for variable, name in binaries.items()})
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
    if all_tests(tools):
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
