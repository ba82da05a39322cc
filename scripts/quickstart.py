#!/usr/bin/env python3
"""Turns a SCIM push into a Cloud Run IAM binding on this machine, without configuration: `make quickstart`.

Starts the Google emulator and rolecall in a temporary folder, simulates an identity provider and a person who edits a policy
by hand, and prints after each step the members of the policies and how long the change took. The policies are read from the
emulator with Python's HTTP client, so that the result does not depend on what rolecall reports about itself.

`ONCE=1` exits after the last step, with status 0 only if every step was seen in time. Standard library only.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from terminal import bold, dim, green, red, seconds, target_dir, yellow

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXAMPLE = os.path.join(ROOT, "examples", "smallest", "rolecall.yaml")
PROJECT, LOCATION = "shop-dev", "europe-west1"
MAPPED = ["checkout-api", "checkout-web"]
OUTSIDE = "catalog"
INVOKER = "roles/run.invoker"
DRIFT_INTERVAL = 2.0  # seconds; the default of rolecall is 5 min
DEADLINE = 15.0  # seconds for a step to be seen in the policy
USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


class Failed(Exception):
    """A failure to show to the user."""


def call(method, url, body=None, token=None):
    """One HTTP request with a JSON body. Returns the decoded answer; raises on anything but 2xx."""
    headers = {"Content-Type": "application/scim+json" if token else "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise Failed(f"{method} {url} was answered {error.code}: {error.read()[:500].decode(errors='replace')}") from error
    return json.loads(text) if text else {}


def binary(name):
    path = os.path.join(target_dir(ROOT), "debug", name)
    if not os.path.exists(path):
        raise Failed(f"`{path}` is not built: run `make quickstart`")
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stage:
    """The two processes and their temporary folder."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="rolecall-quickstart-")
        self.manifests = os.path.join(self.folder, "manifests")
        self.token_file = os.path.join(self.folder, "token")
        self.token = secrets.token_urlsafe(32)
        self.google = f"http://127.0.0.1:{free_port()}"
        self.scim_address, self.admin_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.scim = f"http://{self.scim_address}/idp/okta/scim/v2"
        self.processes = {}
        os.mkdir(self.manifests)
        with open(EXAMPLE, encoding="utf-8") as file:
            manifest = file.read()
        self.private(os.path.join(self.manifests, "rolecall.yaml"), manifest.replace("change-me-before-use-openssl-rand-hex-32", self.token))
        self.private(self.token_file, self.token)

    @staticmethod
    def private(path, text):
        """Writes a file that other users cannot read."""
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(text)

    def start(self, name, *arguments):
        log = open(os.path.join(self.folder, f"{name}.log"), "wb")
        self.processes[name] = subprocess.Popen(
            [binary(name), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )

    def start_emulator(self):
        self.start("rolecall-emulator", "--listen", self.google.removeprefix("http://"))
        self.wait_for("rolecall-emulator", f"{self.google}/v2/projects/{PROJECT}/locations/{LOCATION}/services")

    def start_rolecall(self):
        self.start(
            "rolecall", "run", "--mode", "enforce",
            "--listen", self.scim_address, "--admin-listen", self.admin_address,
            "--database", f"sqlite:{os.path.join(self.folder, 'rolecall.db')}",
            "--manifests", self.manifests,
            "--google-endpoint", self.google, "--google-credentials", "none",
            "--drift-interval", f"{DRIFT_INTERVAL:g}s",
        )
        self.wait_for("rolecall", f"http://{self.admin_address}/readyz")

    def wait_for(self, name, url):
        """Waits until the process answers."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.processes[name].poll() is not None:
                raise Failed(f"{name} ended with status {self.processes[name].returncode}")
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except OSError:
                time.sleep(0.05)
        raise Failed(f"{name} did not answer {url} within 30 s")

    def stop(self):
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in reversed(self.processes.values()):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def show_logs(self):
        for name in self.processes:
            print(f"\n{bold(f'The last of {name}.log')}")
            with open(os.path.join(self.folder, f"{name}.log"), encoding="utf-8", errors="replace") as file:
                print("".join(file.readlines()[-25:]), end="")

    # State at Google.

    def service(self, name):
        return f"{self.google}/v2/projects/{PROJECT}/locations/{LOCATION}/services/{name}"

    def create_service(self, name):
        parent, _, service = self.service(name).rpartition("/")
        query = urllib.parse.urlencode({"serviceId": service})
        call("POST", f"{parent}?{query}", {"template": {"containers": [{"image": "gcr.io/cloudrun/hello"}]}})

    def policy(self, name):
        return call("GET", f"{self.service(name)}:getIamPolicy?options.requestedPolicyVersion=3")

    def edit_policy(self, name, change):
        """Edits a policy as a person does in the console: reads, changes, and writes it back with the etag."""
        for _ in range(10):
            policy = self.policy(name)
            policy["version"] = 3
            change(policy.setdefault("bindings", []))
            policy["bindings"] = [binding for binding in policy["bindings"] if binding["members"]]
            try:
                return call("POST", f"{self.service(name)}:setIamPolicy", {"policy": policy})
            except Failed as failure:
                if "409" not in str(failure):
                    raise
        raise Failed(f"the policy of {name} kept changing")

    # Actions of the identity provider.

    def create_user(self, name):
        email = f"{name}@example.com"
        user = {"schemas": [USER_SCHEMA], "userName": email, "externalId": f"00u-{name}", "active": True,
                "name": {"givenName": name.capitalize(), "familyName": "Example"},
                "emails": [{"value": email, "type": "work", "primary": True}]}
        return call("POST", f"{self.scim}/Users", user, self.token)["id"]

    def create_group(self, name, members):
        group = {"schemas": [GROUP_SCHEMA], "displayName": name, "members": [{"value": member} for member in members]}
        return call("POST", f"{self.scim}/Groups", group, self.token)["id"]

    def patch(self, path, operation):
        call("PATCH", f"{self.scim}/{path}", {"schemas": [PATCH_SCHEMA], "Operations": [operation]}, self.token)


def members(policy, role=INVOKER):
    return sorted(member for binding in policy.get("bindings", []) if binding["role"] == role for member in binding["members"])


class Play:
    """The steps, one after the other."""

    def __init__(self, stage):
        self.stage, self.number, self.results = stage, 0, []

    def step(self, title, act, expected, hold=0.0):
        """Acts, then waits until every policy shows exactly `expected`, and keeps showing it for `hold` seconds."""
        self.number += 1
        print(f"\n{bold(f'{self.number}. {title}')}")
        act()
        accepted = time.monotonic()
        seen = self.until(expected, accepted + DEADLINE)
        good = seen is not None
        while good and time.monotonic() < seen + hold:
            time.sleep(0.05)
            good = self.now() == expected
        lag = None if seen is None else seen - accepted
        for service, wanted in expected.items():
            found = self.now()[service]
            print(f"     {service.ljust(13)} {', '.join(found) or dim('nobody')}")
            for member in sorted(set(wanted) - set(found)):
                print(f"       {red('missing')} {member}")
            for member in sorted(set(found) - set(wanted)):
                print(f"       {red('should not be there')} {member}")
        if good:
            text = f"unchanged for {seconds(hold)}" if hold else f"seen {seconds(lag)} after the 2xx"
            print(f"     {green('✓')} {text}")
        else:
            print(f"     {red('✗')} {'it did not stay unchanged' if lag is not None else f'not seen within {seconds(DEADLINE)}'}")
        self.results.append((title, good, None if hold else lag))

    def now(self):
        return {service: members(self.stage.policy(service)) for service in [*MAPPED, OUTSIDE]}

    def until(self, expected, deadline):
        """The time at which the policies were as expected; None if they were not in time."""
        while True:
            if self.now() == expected:
                return time.monotonic()
            if time.monotonic() > deadline:
                return None
            time.sleep(0.005)


def play(stage):
    """Returns the results: title, seen, lag in seconds."""
    show = Play(stage)
    ids = {}

    def everywhere(*names, more=None):
        """Expected members: these people on the mapped services (more on some), and nobody on the service outside."""
        both = {service: [f"user:{name}@example.com" for name in names] for service in MAPPED}
        for service, extra in (more or {}).items():
            both[service].append(extra)
        return {service: sorted(found) for service, found in both.items()} | {OUTSIDE: []}

    def joiners():
        for name in ("alice", "bob", "carol"):
            ids[name] = stage.create_user(name)
        ids["group"] = stage.create_group("team-checkout", [ids["alice"], ids["bob"]])

    show.step("The IdP creates three users and the group team-checkout with alice and bob", joiners, everywhere("alice", "bob"))

    show.step("The IdP adds carol to the group",
              lambda: stage.patch(f"Groups/{ids['group']}", {"op": "add", "path": "members", "value": [{"value": ids["carol"]}]}),
              everywhere("alice", "bob", "carol"))

    show.step("The IdP deactivates bob",
              lambda: stage.patch(f"Users/{ids['bob']}", {"op": "replace", "value": {"active": False}}),
              everywhere("alice", "carol"))

    stranger = "user:stranger@example.net"

    def adds_himself(bindings):
        next(binding for binding in bindings if binding["role"] == INVOKER)["members"].append(stranger)

    show.step("Somebody adds a member to checkout-api by hand: rolecall did not grant it, so it stays",
              lambda: stage.edit_policy("checkout-api", adds_himself),
              everywhere("alice", "carol", more={"checkout-api": stranger}), hold=2 * DRIFT_INTERVAL)

    def removes_alice(bindings):
        for binding in bindings:
            binding["members"] = [member for member in binding["members"] if member != "user:alice@example.com"]

    def removed():
        stage.edit_policy("checkout-api", removes_alice)
        print(f"     {dim('alice is removed; rolecall checks for drift every ' + seconds(DRIFT_INTERVAL) + ' here, every 5 min by default')}")

    show.step("Somebody removes alice by hand: reported as drift and granted again", removed,
              everywhere("alice", "carol", more={"checkout-api": stranger}))

    def check(title, good, found):
        print(f"\n     {green('✓') if good else red('✗')} {title}: {found}")
        show.results.append((title, good, None))

    before_us = members(stage.policy("checkout-api"), "roles/run.admin")
    check("The grant that existed before rolecall is unchanged", before_us == ["group:sre@example.com"],
          f"roles/run.admin on checkout-api for {', '.join(before_us) or 'nobody'}")
    reverted, foreign = reported(stage)
    check("rolecall reports what it granted again and counts the grants of others", (reverted, foreign) == (1, 2),
          f"{reverted} granted again, {foreign} of others")
    return show.results


def reported(stage):
    """The drift counts in the mapping's status, once they are there."""
    end = time.monotonic() + DEADLINE
    while True:
        items = call("GET", f"http://{stage.admin_address}/status")["items"]
        drift = next(item for item in items if item["kind"] == "RoleMapping")["status"].get("drift", {})
        found = drift.get("reverted", 0), drift.get("foreign", 0)
        if all(found) or time.monotonic() > end:
            return found
        time.sleep(0.1)


def show_status(stage):
    """Shows rolecall's own status; everything before was read from the emulator."""
    print(f"\n{bold('What rolecall reports')}  {dim('rolecall status')}\n", flush=True)
    answer = subprocess.run([binary("rolecall"), "status", "--admin", f"http://{stage.admin_address}"], check=False)
    if answer.returncode != 0:
        raise Failed(f"`rolecall status` ended with status {answer.returncode}")


def show_next(stage):
    print(f"""
{bold('rolecall keeps running. Try:')}

  {dim('# the status of rolecall')}
  {os.path.relpath(binary('rolecall'))} status --admin http://{stage.admin_address}
  curl -s http://{stage.admin_address}/metrics

  {dim('# a request of the IdP')}
  export SCIM={stage.scim} TOKEN=$(cat {stage.token_file})
  curl -s -H "Authorization: Bearer $TOKEN" $SCIM/Groups

  {dim('# the policy, with gcloud')}
  export CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN={stage.google}/
  gcloud run services get-iam-policy checkout-api --project {PROJECT} --region {LOCATION}

  {dim('# change the manifests; rolecall watches the folder')}
  $EDITOR {stage.manifests}/rolecall.yaml

Logs and database: {stage.folder}
Ctrl-C stops everything and removes the folder.""", flush=True)


def main():
    once = os.environ.get("ONCE") == "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage, good = Stage(), False
    try:
        print(f"{bold('rolecall quick start')}  {dim('everything runs on this machine and stops with this command')}")
        stage.start_emulator()
        print(f"\n  Google emulator   {stage.google}")
        for service in [*MAPPED, OUTSIDE]:
            stage.create_service(service)
        stage.edit_policy("checkout-api", lambda bindings: bindings.append(
            {"role": "roles/run.admin", "members": ["group:sre@example.com"]}))
        stage.start_rolecall()
        print(f"  rolecall, SCIM    {stage.scim}\n  rolecall, admin   http://{stage.admin_address}\n  manifests         {stage.manifests}")
        print(dim(f"\n  Mapped: group team-checkout → {INVOKER} on services/checkout-*. The service {OUTSIDE} is not mapped."))
        results = play(stage)
        show_status(stage)
        good = all(seen for _, seen, _ in results)
        print(f"\n{bold('Steps')}")
        for title, seen, lag in results:
            print(f"  {green('seen') if seen else red('not seen')}  {(seconds(lag) if lag is not None else '–').rjust(8)}  {title}")
        print(dim("  Lag: from the 2xx (or the manual edit) until a plain HTTP client read it in every policy. Google itself"
                  " then takes minutes to enforce an edit."))
        if not once:
            show_next(stage)
            while all(process.poll() is None for process in stage.processes.values()):
                time.sleep(0.5)
            good = False
            raise Failed("one of the processes exited unexpectedly")
    except Failed as failure:
        good = False
        print(f"\n{red('failed')}: {failure}")
    except KeyboardInterrupt:
        print()
    finally:
        stage.stop()
        if good:
            shutil.rmtree(stage.folder, ignore_errors=True)
        else:
            stage.show_logs()
            print(f"\n{yellow('kept for inspection')}: {stage.folder}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
