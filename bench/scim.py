"""The SCIM endpoint beside the floor and beside a peer: the PyPI package scim2-server, which keeps all in memory."""

import http.client
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

from floor import user_resource
from load import Connection, run

PEER = "scim2-server==0.8.3"
PATCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
GROUP_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Group"


class Peer:
    """A scim2-server in a process of its own."""

    def __init__(self, folder):
        environment = os.path.join(folder, "peer")
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([f"{environment}/bin/pip", "install", "--quiet", "--disable-pip-version-check", PEER], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.token = secrets.token_urlsafe(32)
        with open(os.path.join(folder, "peer.log"), "wb") as log:
            self.process = subprocess.Popen(
                [f"{environment}/bin/scim2-server", "--port", str(self.port), "--bearer-token", self.token],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 30
        while True:
            try:
                self.prefix = next(prefix for prefix in ("", "/v2", "/scim/v2") if self.ask("GET", f"{prefix}/Users?count=1")[0] == 200)
                return
            except (OSError, StopIteration):
                if time.monotonic() > end:
                    raise RuntimeError("the peer did not answer within 30 s") from None
                time.sleep(0.1)

    def ask(self, method, path, body=None):
        """One request over a connection of its own: status, body, seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        started = time.perf_counter()
        connection.request(method, path, json.dumps(body) if body is not None else None,
                           {"Authorization": f"Bearer {self.token}", "Content-Type": "application/scim+json"})
        answer = connection.getresponse()
        data = answer.read()
        took = time.perf_counter() - started
        connection.close()
        return answer.status, data, took

    def create(self, path, body):
        status, data, _ = self.ask("POST", f"{self.prefix}/{path}", body)
        if status != 201:
            raise RuntimeError(f"the peer answered {status}: {data[:300].decode(errors='replace')}")
        return json.loads(data)["id"]

    def add(self, group, member):
        """PATCH of one member; seconds."""
        status, data, took = self.ask("PATCH", f"{self.prefix}/Groups/{group}", {"schemas": [PATCH_SCHEMA], "Operations": [
            {"op": "add", "path": "members", "value": [{"value": member}]}]})
        if status not in (200, 204):
            raise RuntimeError(f"the peer answered {status}: {data[:300].decode(errors='replace')}")
        return took

    def stop(self):
        self.process.kill()
        self.process.wait()


def lookup(stage, name):
    query = urllib.parse.quote(f'userName eq "{name}@example.com"')
    return stage.scim_request("GET", f"Users?filter={query}", None)


def one_group(stage, floor, peer, sizes, figure, say):
    """16 clients that change one group of 10,000; a PUT of it with one change."""
    members, patches, clients = sizes["members"], sizes["patches"], sizes["clients"]
    say(f"one group of {members:,}: {patches} PATCHes from {clients} clients, the floor from one, the peer a few")
    ids = stage.users([f"one-{index}" for index in range(members + patches)], 64)[0]
    group = stage.group("one group", ids[:members])
    took, _, _ = run(stage.scim, [stage.add(group, [member]) for member in ids[members:]], clients)
    mine = patches / took
    floor_group = floor.create_group("one group", members)
    outsiders = [floor.create_user(f"one-outsider-{index}") for index in range(patches)]
    started = time.perf_counter()
    for outsider in outsiders:
        floor.add_member(floor_group, outsider)
    other = patches / (time.perf_counter() - started)
    what = f"PATCH one member, {clients} clients, one group of {members:,}"
    figure(what, f"{mine:,.0f}/s", "floor, one client", f"{other:,.0f}/s", f"{mine / other:.2f} ×", "≥ 2.5 ×", mine >= 2.5 * other)
    theirs = [peer.create("Users", user_resource(f"one-{index}")) for index in range(5)]
    peer_group = peer.create("Groups", {"schemas": [GROUP_SCHEMA], "displayName": "one group",
                                        "members": [{"value": member} for member in ids[:members]]})
    other = 1 / statistics.median(peer.add(peer_group, member) for member in theirs)
    figure(what, f"{mine:,.0f}/s", "peer, one client", f"{other:,.2f}/s", f"{mine / other:,.0f} ×", "≥ 500 ×", mine >= 500 * other)

    connection, times = Connection(stage.scim), []
    for round_number in range(10):
        list_of = [*ids[:members - 1], ids[members + round_number]]
        status, body, seconds = connection.ask(stage.scim_request("PUT", f"Groups/{group}?excludedAttributes=members", {
            "schemas": [GROUP_SCHEMA], "displayName": "one group", "members": [{"value": member} for member in list_of]}))
        if status != 200:
            raise RuntimeError(f"PUT was answered {status}: {body[:300]}")
        if round_number:  # the first removes those that the PATCHes added
            times.append(seconds)
    middle = statistics.median(times)
    figure(f"PUT of {members:,} members with one change", f"{middle * 1000:.1f} ms", "–", "–", "–", "≤ 50 ms", middle <= 0.050)


def lookups(stage, peer, names, sizes, figure, say):
    """`userName eq` in a full directory, beside the peer with a tenth of it, and while others write."""
    clients, asked = sizes["clients"], sizes["lookups"]
    say(f"userName eq, {asked} times among {len(names):,} users; the peer among {sizes['peer_users']:,}")
    chosen = [names[index * 7919 % len(names)] for index in range(asked)]
    took, _, _ = run(stage.scim, [lookup(stage, name) for name in chosen], clients)
    mine = asked / took
    for index in range(sizes["peer_users"]):
        peer.create("Users", user_resource(f"peer-{index}"))
    path = f"{peer.prefix}/Users?filter=" + urllib.parse.quote(f'userName eq "peer-{sizes["peer_users"] // 2}@example.com"')
    other = 1 / statistics.median(peer.ask("GET", path)[2] for _ in range(10))
    figure(f"userName eq among {len(names):,} users, {clients} clients", f"{mine:,.0f}/s",
           f"peer among {sizes['peer_users']:,}, one client", f"{other:,.2f}/s", f"{mine / other:,.0f} ×", "≥ 20 ×", mine >= 20 * other)

    stop = threading.Event()

    def write():
        connection, number, begin = Connection(stage.scim), 0, time.perf_counter()
        while not stop.is_set():
            connection.ask(stage.scim_request("POST", "Users", user_resource(f"beside-{threading.get_ident()}-{number}")))
            number += 1
            written.append(1)
            time.sleep(max(0.0, begin + number / (sizes["writes"] / clients) - time.perf_counter()))

    written, threads = [], [threading.Thread(target=write) for _ in range(clients)]
    for thread in threads:
        thread.start()
    started, connection, times = time.perf_counter(), Connection(stage.scim), []
    for name in chosen[:1000]:
        times.append(connection.ask(lookup(stage, name))[2])
    rate = len(written) / (time.perf_counter() - started)
    stop.set()
    for thread in threads:
        thread.join()
    p50, p99 = sorted(times)[len(times) // 2], sorted(times)[int(len(times) * 0.99)]
    figure(f"userName eq during {rate:,.0f} writes/s, p99 (p50 {p50 * 1000:.2f} ms)", f"{p99 * 1000:.2f} ms", "–", "–", "–",
           "≤ 5 ms", p99 <= 0.005)


def load(stage, floor, sizes, figure, say):
    """A whole directory over SCIM, its memory, and a restart on it. Returns the names of the users."""
    users, groups, each = sizes["users"], sizes["groups"], sizes["each"]
    say(f"loading {users:,} users, {groups:,} groups and {groups * each:,} memberships over SCIM, then the same rows by the floor")
    names = [f"load-{index}" for index in range(users)]
    started = time.perf_counter()
    ids = []
    for start in range(0, users, 10_000):
        ids += stage.users(names[start:start + 10_000], 64)[0]
    for start in range(0, groups, 500):
        requests = [stage.scim_request("POST", "Groups?excludedAttributes=members", {
            "schemas": [GROUP_SCHEMA], "displayName": f"load-{number}",
            "members": [{"value": ids[(number * each + index) % users]} for index in range(each)]})
            for number in range(start, min(start + 500, groups))]
        run(stage.scim, requests, 64, expect=(201,))
    mine = time.perf_counter() - started
    now, peak = stage.resident("rolecall")
    started = time.perf_counter()
    for name in names:
        floor.create_user(name)
    for number in range(groups):
        floor.create_group(f"load-{number}", each)
    other = time.perf_counter() - started
    what = f"{users:,} users, {groups:,} groups, {groups * each:,} memberships"
    figure(f"{what} loaded", f"{mine:.1f} s", "floor, the same rows", f"{other:.1f} s", f"{mine / other:.2f} ×", "≤ 2 ×", mine <= 2 * other)
    figure(f"{what}, resident", f"{now:.0f} MiB (peak {peak:.0f})", "–", "–", "–", "< 256 MiB", now < 256)
    stage.stop("rolecall")
    started = time.perf_counter()
    stage.start_rolecall()
    took = time.perf_counter() - started
    figure("restart on that directory, ready", f"{took:.2f} s", "–", "–", "–", "≤ 5 s", took <= 5)
    return names


def slow_disk(stage, sizes, figure, say):
    """POST /Users while each sync takes 5 ms longer."""
    say("POST /Users with 5 ms added to every sync")
    library = os.path.join(stage.folder, "slow_sync.so")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slow_sync.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    os.environ["LD_PRELOAD"] = library
    try:
        stage.start_rolecall()
    finally:
        del os.environ["LD_PRELOAD"]
    _, rate, _ = stage.users([f"slow-{index}" for index in range(sizes["slow"])], sizes["clients"])
    figure(f"POST /Users, {sizes['clients']} clients, 5 ms added to every sync", f"{rate:,.0f}/s", "–", "–", "–", "≥ 2,000/s", rate >= 2000)
