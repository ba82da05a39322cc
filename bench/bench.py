#!/usr/bin/env python3
"""Measures rolecall on this machine and compares it with a bare program that does the same: `make bench`.

Each figure is printed with the reference figure of the same run, the ratio of the two, and the bound that the
project has set, met or missed. The exit status only shows whether everything could be measured. `--quick` uses
small sizes, for trying the script itself. Standard library only.
"""

import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from datetime import datetime

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

import scim  # noqa: E402
from floor import Floor, user_resource  # noqa: E402
from load import Connection, request, run  # noqa: E402
from terminal import bold, dim, green, red, seconds, target_dir  # noqa: E402

QUICK = "--quick" in sys.argv[1:]
GROUPS = [100, 1_000, 10_000] if QUICK else [100, 10_000, 100_000]
PATCHES = 30 if QUICK else 300  # a group
USERS_A_ROUND = 300 if QUICK else 3_000
ROUNDS = 2 if QUICK else 5
CLIENTS = 16
SCIM = {"clients": CLIENTS, "writes": 500, "members": 1_000, "patches": 100, "lookups": 500, "peer_users": 200,
        "users": 2_000, "groups": 100, "each": 50, "slow": 500} if QUICK else {
    "clients": CLIENTS, "writes": 500, "members": 10_000, "patches": 1_000, "lookups": 5_000, "peer_users": 10_000,
    "users": 100_000, "groups": 10_000, "each": 200, "slow": 5_000}
SERVICES = 100 if QUICK else 1_000
PEOPLE = 10  # grants a service
LEAVERS = 10 if QUICK else 200
LEAVER_SERVICES = 50
PROJECT, LOCATION = "shop-dev", "europe-west1"
PATCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
FOLDER = os.path.join(target_dir(ROOT), "bench")

MANIFESTS = """\
apiVersion: v1
kind: Secret
metadata: {{name: okta-scim, namespace: rolecall-system}}
stringData: {{token: {token}}}
---
apiVersion: rolecall.dev/v1alpha1
kind: IdentityProvider
metadata: {{name: okta}}
spec:
  scim: {{tokens: [{{name: a, secretRef: {{name: okta-scim}}}}]}}
  principals:
    allowedDomains: [example.com]
    users: {{googleAccount: {{attribute: userName}}}}
---
apiVersion: rolecall.dev/v1alpha1
kind: CloudRunTarget
metadata: {{name: shop-dev}}
spec:
  project: shop-dev
  locations: [europe-west1]
  allow:
    - namespaces: {{names: [checkout]}}
      identityProviders: [okta]
      resources: ["services/*"]
      roles: [roles/run.invoker]
"""

MAPPING = """\
apiVersion: rolecall.dev/v1alpha1
kind: RoleMapping
metadata: {name: team, namespace: checkout}
spec:
  subjects:
    - identityProvider: okta
      groups: [{displayName: team}]
  grants:
    - target: {name: shop-dev}
      resources: ["services/*"]
      roles: [roles/run.invoker]
"""

figures = []


def figure(what, ours, against, theirs, ratio, bound, met):
    """One line of the closing table."""
    figures.append((what, ours, against, theirs, ratio, bound, met))


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def milliseconds(value):
    return f"{value * 1000:.2f} ms"


def say(text):
    print(dim(f"   {text}"), flush=True)


class Stage:
    """An emulator and a rolecall on a fresh database."""

    def __init__(self, name):
        self.folder = os.path.join(FOLDER, name)
        self.manifests = os.path.join(self.folder, "manifests")
        os.makedirs(self.manifests)
        self.google, self.scim, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.token = secrets.token_urlsafe(32)
        self.processes = {}
        self.write("base.yaml", MANIFESTS.format(token=self.token))
        self.start("rolecall-emulator", "--listen", self.google)
        self.wait(f"http://{self.google}/__emulator/", 30)

    def write(self, name, text):
        path = os.path.join(self.manifests, f".{name}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(path, os.path.join(self.manifests, name))

    def start(self, name, *arguments):
        binary = os.path.join(target_dir(ROOT), "release", name)
        log = open(os.path.join(self.folder, f"{name}.log"), "ab")
        self.processes[name] = subprocess.Popen([binary, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_rolecall(self, ready=True):
        self.start("rolecall", "run", "--mode", "enforce", "--max-rows-per-provider", "5000000", "--listen", self.scim, "--admin-listen", self.admin,
                   "--database", f"sqlite:{self.folder}/rolecall.db", "--manifests", self.manifests,
                   "--google-endpoint", f"http://{self.google}", "--google-credentials", "none", "--drift-interval", "1h",
                   "--guard-removals-per-hour", "1000000", "--guard-leavers-per-hour", "1000000",
                   "--requests-per-second", "100000")
        if ready:
            self.wait(f"http://{self.admin}/readyz", 60)

    def wait(self, url, timeout):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with status {process.returncode}; see {self.folder}/{name}.log")
            try:
                return urllib.request.urlopen(url, timeout=5).read()
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{url} did not answer within {timeout} s")

    def stop(self, name):
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self):
        for name in list(self.processes):
            self.stop(name)

    def resident(self, name):
        """Resident memory in MiB: now, and at its highest."""
        with open(f"/proc/{self.processes[name].pid}/status", encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["VmRSS"].split()[0]) / 1024, int(fields["VmHWM"].split()[0]) / 1024

    # SCIM

    def scim_request(self, method, path, body):
        return request(method, f"/idp/okta/scim/v2/{path}", self.scim, b"" if body is None else json.dumps(body).encode(), self.token)

    def users(self, names, connections=CLIENTS):
        """Creates users; returns their ids, requests per second, and the latencies."""
        requests = [self.scim_request("POST", "Users", user_resource(name)) for name in names]
        took, latencies, bodies = run(self.scim, requests, connections, expect=(201,), keep=True)
        return [json.loads(body)["id"] for body in bodies], len(requests) / took, latencies

    def group(self, name, members):
        connection = Connection(self.scim)
        status, body, _ = connection.ask(self.scim_request("POST", "Groups", {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": name, "members": []}))
        assert status == 201, body
        group = json.loads(body)["id"]
        for start in range(0, len(members), 5000):
            status, body, _ = connection.ask(self.add(group, members[start:start + 5000]))
            assert status in (200, 204), body
        return group

    def add(self, group, members):
        return self.scim_request("PATCH", f"Groups/{group}?excludedAttributes=members", {
            "schemas": [PATCH_SCHEMA],
            "Operations": [{"op": "add", "path": "members", "value": [{"value": member} for member in members]}]})

    # Google

    def google_request(self, method, path, body=None):
        return request(method, path, self.google, json.dumps(body).encode() if body is not None else b"",
                       kind="application/json")

    def create_services(self, project, count):
        parent = f"/v2/projects/{project}/locations/{LOCATION}/services"
        service = {"template": {"containers": [{"image": "gcr.io/cloudrun/hello"}]}}
        run(self.google, [self.google_request("POST", f"{parent}?serviceId=service-{number}", service)
                          for number in range(count)], CLIENTS)
        return [f"{parent}/service-{number}" for number in range(count)]

    def journal(self, since, **query):
        text = "".join(f"&{key}={value}" for key, value in query.items())
        with urllib.request.urlopen(f"http://{self.google}/__emulator/journal?since={since}{text}", timeout=60) as answer:
            return json.load(answer)

    def sets(self, since):
        return self.journal(since, count="true", method="POST", path=":setIamPolicy", status=200)["count"]

    def wait_for_sets(self, since, count, timeout, pause):
        end = time.monotonic() + timeout
        while (seen := self.sets(since)) < count:
            if time.monotonic() > end:
                raise RuntimeError(f"{seen} of {count} policies were written within {timeout} s")
            time.sleep(pause)

    def last_seq(self):
        return self.journal(0, count="true")["lastSeq"]

    def bare_sync(self, services, members):
        """Makes the same reads and writes with a bare client; returns seconds until the first and until the last write."""
        started = time.perf_counter()
        _, _, bodies = run(self.google, [self.google_request("GET", f"{service}:getIamPolicy?options.requestedPolicyVersion=3")
                                         for service in services], CLIENTS, keep=True)
        writes = []
        for service, body in zip(services, bodies):
            policy = {"version": 3, "etag": json.loads(body)["etag"],
                      "bindings": [{"role": "roles/run.invoker", "members": members}]}
            writes.append(self.google_request("POST", f"{service}:setIamPolicy", {"policy": policy}))
        run(self.google, writes, CLIENTS)
        return time.perf_counter() - started


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wall(entry):
    """The time at which the emulator decided a call, in seconds since 1970."""
    whole, _, fraction = entry["time"].rstrip("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")


def sync_cost():
    """The duration of one full sync on this disk: the median of a hundred."""
    path, times = os.path.join(FOLDER, "sync"), []
    with open(path, "wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    os.unlink(path)
    return statistics.median(times)


def directory(stage):
    """POST /Users with 16 clients, PATCH of one member into groups of three sizes, memory."""
    print(bold("\nDirectory"), flush=True)
    floor = Floor(os.path.join(stage.folder, "floor.db"))
    stage.start_rolecall()
    ids, ours, theirs_one, theirs_many, all_latencies = [], [], [], [], []
    for number in range(ROUNDS):
        say(f"POST /Users, round {number + 1} of {ROUNDS}: rolecall with {CLIENTS} clients, floor with 1 and with {CLIENTS}")
        created, rate, latencies = stage.users(f"round{number}-{index}" for index in range(USERS_A_ROUND))
        ids += created
        ours.append(rate)
        all_latencies += latencies
        theirs_one.append(floor.create_users(USERS_A_ROUND, 1, f"one{number}"))
        theirs_many.append(floor.create_users(USERS_A_ROUND // 3, CLIENTS, f"many{number}"))
    rate, one, many = (statistics.median(values) for values in (ours, theirs_one, theirs_many))
    best = max(one, many)
    figure(f"POST /Users, {CLIENTS} clients (p99 {milliseconds(percentile(all_latencies, 0.99))})", f"{rate:,.0f}/s",
           f"floor, the better of 1 client ({one:,.0f}/s) and {CLIENTS} ({many:,.0f}/s)", f"{best:,.0f}/s",
           f"{rate / best:.2f} ×", "≥ 2.5 ×", rate >= 2.5 * best)

    say(f"filling the directory to {max(GROUPS):,} users and groups of {', '.join(f'{size:,}' for size in GROUPS)}")
    missing = max(GROUPS) - len(ids)
    for start in range(0, missing, 10_000):
        ids += stage.users([f"fill-{start + index}" for index in range(min(10_000, missing - start))], 64)[0]
    outsiders = stage.users([f"outsider-{index}" for index in range(PATCHES)])[0]
    groups = {size: stage.group(f"group-{size}", ids[:size]) for size in GROUPS}
    floor_groups = {size: floor.create_group(f"group-{size}", size) for size in GROUPS}
    floor_users = [floor.create_user(f"outsider-{index}") for index in range(PATCHES)]

    say(f"PATCH of one member, {PATCHES} times into each group, in turn with the floor")
    connection = Connection(stage.scim)
    ours, theirs = {size: [] for size in GROUPS}, {size: [] for size in GROUPS}
    for outsider, floor_user in zip(outsiders, floor_users):
        for size in GROUPS:
            status, body, took = connection.ask(stage.add(groups[size], [outsider]))
            assert status in (200, 204), body
            ours[size].append(took)
            started = time.perf_counter()
            floor.add_member(floor_groups[size], floor_user)
            theirs[size].append(time.perf_counter() - started)
    for size in GROUPS:
        mine, other = statistics.median(ours[size]), statistics.median(theirs[size])
        figure(f"PATCH one member, group of {size:,} (p99 {milliseconds(percentile(ours[size], 0.99))})", milliseconds(mine),
               "floor, the same rows", milliseconds(other), f"{other / mine:.2f} ×", "≥ 0.8 ×", other >= 0.8 * mine)
    first, last = (statistics.median(ours[size]) for size in (GROUPS[0], GROUPS[-1]))
    figure(f"PATCH one member, {GROUPS[-1]:,} beside {GROUPS[0]:,}", milliseconds(last), f"group of {GROUPS[0]:,}",
           milliseconds(first), f"{last / first:.2f} ×", "≤ 1.3 ×", last <= 1.3 * first)
    with open("/proc/self/status", encoding="utf-8") as file:
        own = int(next(line for line in file if line.startswith("VmRSS")).split()[1]) / 1024
    now, peak = stage.resident("rolecall")
    users = len(ids) + len(outsiders)
    figure(f"rolecall, resident with {users:,} users and {sum(GROUPS):,} memberships", f"{now:.0f} MiB (peak {peak:.0f})",
           "this bench program", f"{own:.0f} MiB", f"{now / own:.2f} ×", "–", None)


def whole_directory(stage):
    """One large group, a whole directory, and look-ups in it, beside the floor and a peer."""
    print(bold("\nWhole directory"), flush=True)
    floor = Floor(os.path.join(stage.folder, "floor.db"))
    stage.start_rolecall()
    peer = scim.Peer(stage.folder)
    try:
        scim.one_group(stage, floor, peer, SCIM, figure, say)
        names = scim.load(stage, floor, SCIM, figure, say)
        scim.lookups(stage, peer, names, SCIM, figure, say)
    finally:
        peer.stop()


def slow_disk(stage):
    """Writes while every sync takes longer."""
    print(bold("\nSlow disk"), flush=True)
    scim.slow_disk(stage, SCIM, figure, say)


def cold(stage):
    """10,000 grants on 1,000 services by a rolecall that starts without any of them."""
    print(bold("\nCold"), flush=True)
    say(f"{SERVICES:,} services, {PEOPLE} people in the group, no mapping yet")
    services = stage.create_services(PROJECT, SERVICES)
    stage.start_rolecall()
    people = stage.users([f"person-{index}" for index in range(PEOPLE)])[0]
    stage.group("team", people)
    stage.stop("rolecall")
    stage.write("mapping.yaml", MAPPING)
    since = stage.last_seq()
    say("rolecall starts and finds everything to do")
    started = time.time()
    stage.start_rolecall(ready=False)
    stage.wait_for_sets(since, SERVICES, 300, 0.1)
    time.sleep(2)  # calls after the last write are part of the count
    entries = stage.journal(since, brief="true")["entries"]
    writes = [entry for entry in entries if entry["path"].endswith(":setIamPolicy") and entry["status"] == 200]
    reads = [entry for entry in entries if entry["path"].endswith(":getIamPolicy")]
    took = max(wall(entry) for entry in writes) - started
    member_lists = run(stage.google, [stage.google_request("GET", f"{service}:getIamPolicy") for service in services],
                       CLIENTS, keep=True)[2]
    granted = sum(len(binding["members"]) for body in member_lists for binding in json.loads(body).get("bindings", []))
    assert granted == SERVICES * PEOPLE, f"{granted} grants instead of {SERVICES * PEOPLE}"
    say("the same reads and writes by a bare client, on as many other services")
    bare = stage.bare_sync(stage.create_services("shop-floor", SERVICES),
                           [f"user:person-{index}@example.com" for index in range(PEOPLE)])
    figure(f"{granted:,} grants on {SERVICES:,} services, from process start to the last write", seconds(took),
           f"a bare client with {CLIENTS} connections", seconds(bare), f"{took / bare:.2f} ×", "≤ 5 s", took <= 5)
    figure("calls a service, reads + writes", f"{len(reads) / SERVICES:.2f} + {len(writes) / SERVICES:.2f}",
           "one read, one write", "1 + 1", f"{(len(reads) + len(writes)) / (2 * SERVICES):.2f} ×", "1 + 1",
           len(reads) == SERVICES and len(writes) == SERVICES)
    for name in ("rolecall", "rolecall-emulator"):
        now, peak = stage.resident(name)
        figure(f"{name}, resident after {granted:,} grants", f"{now:.0f} MiB (peak {peak:.0f})", "–", "–", "–", "–", None)


def leavers(stage):
    """A deactivated user who is bound on 50 services: from the 2xx to the first write and to the last."""
    print(bold("\nLeavers"), flush=True)
    say(f"{LEAVERS} people bound on {LEAVER_SERVICES} services, deactivated one after the other")
    services = stage.create_services(PROJECT, LEAVER_SERVICES)
    stage.start_rolecall()
    people = stage.users([f"person-{index}" for index in range(LEAVERS)])[0]
    stage.group("team", people)
    since = stage.last_seq()
    stage.write("mapping.yaml", MAPPING)
    stage.wait_for_sets(since, LEAVER_SERVICES, 120, 0.1)
    time.sleep(1)
    connection = Connection(stage.scim)
    firsts, lasts = [], []
    for person in people:
        since = stage.last_seq()
        status, body, _ = connection.ask(stage.scim_request("PATCH", f"Users/{person}", {
            "schemas": [PATCH_SCHEMA], "Operations": [{"op": "replace", "path": "active", "value": False}]}))
        accepted = time.time()
        assert status in (200, 204), body
        stage.wait_for_sets(since, LEAVER_SERVICES, 60, 0.02)
        times = sorted(wall(entry) - accepted for entry in stage.journal(
            since, brief="true", method="POST", path=":setIamPolicy", status=200)["entries"])
        firsts.append(times[0])
        lasts.append(times[LEAVER_SERVICES - 1])
    bare = statistics.median(stage.bare_sync(services[:1], ["user:nobody@example.com"]) for _ in range(20))
    bare_all = statistics.median(stage.bare_sync(services, ["user:nobody@example.com"]) for _ in range(20))
    for what, values, other, bound in (("first write", firsts, bare, 0.020), ("last write", lasts, bare_all, None)):
        p50, p99 = statistics.median(values), percentile(values, 0.99)
        against = "a bare client, " + ("one read and write" if bound else f"{LEAVER_SERVICES} reads and writes")
        figure(f"leaver, 2xx → {what}, p99 (p50 {milliseconds(p50)})", milliseconds(p99), against, milliseconds(other),
               f"{p50 / other:.2f} ×", "p99 ≤ 20 ms" if bound else "–", p99 <= bound if bound else None)


def table():
    heads = ("figure", "rolecall", "measured against", "that", "ratio", "bound")
    widths = [max(len(row[column]) for row in [heads, *figures]) for column in range(6)]
    print("\n" + bold("  ".join(head.ljust(width) for head, width in zip(heads, widths))))
    for row in figures:
        verdict = "" if row[6] is None else green("met") if row[6] else red("missed")
        print("  ".join(cell.ljust(width) for cell, width in zip(row[:6], widths)), verdict)


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown processor")
    print(f"{bold('rolecall bench')}  {dim('quick sizes: for trying the script, not for quoting') if QUICK else ''}")
    say(f"{os.cpu_count()} × {model}; load average {os.getloadavg()[0]:.1f}; one full sync costs {milliseconds(sync_cost())} here")
    say("floor: a bare Python/SQLite program with the same schema, WAL and full sync, a transaction a request, no HTTP")
    broken = []
    for name, part in (("directory", directory), ("whole", whole_directory), ("slow", slow_disk), ("cold", cold), ("leavers", leavers)):
        stage = Stage(name)
        try:
            part(stage)
        except (AssertionError, OSError, RuntimeError) as error:
            broken.append(f"{name}: {error}")
        finally:
            stage.stop_all()
    table()
    print(dim("\nRatios compare two programs in one run on one machine; the figures alone say little about another machine."))
    for text in broken:
        print(red(f"not measured to the end: {text}"))
    if broken:
        print(f"logs: {FOLDER}")
    else:
        shutil.rmtree(FOLDER, ignore_errors=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
