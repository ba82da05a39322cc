"""Runs the functions of a suite whose names begin with `case_`, one by one, each on an empty emulator."""

import json
import sys
import time
import traceback
import urllib.request


class Emulator:
    """The emulator's control API, and plain calls without any Google client."""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.endpoint + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def control(self, method, path, body=None):
        return self.call(method, "/__emulator/" + path, body)

    def reset(self):
        self.control("POST", "reset")

    def create(self, project, region, kind, name):
        parameter = {"services": "serviceId", "jobs": "jobId", "workerPools": "workerPoolId"}[kind]
        parent = f"projects/{project}/locations/{region}"
        self.call("POST", f"/v2/{parent}/{kind}?{parameter}={name}", {})
        return f"{parent}/{kind}/{name}"

    def policy(self, resource):
        return self.control("GET", "policies/" + resource)

    def journal(self, query=""):
        return self.control("GET", "journal?" + query)["entries"]


def members(policy, role):
    """The members of a role's unconditional binding."""
    return [
        member
        for binding in policy.get("bindings", [])
        if binding["role"] == role and "condition" not in binding
        for member in binding["members"]
    ]


def main(cases, skip=None):
    endpoint, counts = sys.argv[1], sys.argv[2]
    emulator = Emulator(endpoint)
    cases = {name: case for name, case in cases.items() if name.startswith("case_") and callable(case)}
    passed = failed = skipped = 0
    for name, case in cases.items():
        title = name.removeprefix("case_").replace("_", " ")
        if skip:
            skipped += 1
            print(f"  skipped: {title} ({skip})", flush=True)
            continue
        emulator.reset()
        began = time.monotonic()
        try:
            case(emulator)
        except Exception:
            failed += 1
            print(f"  FAILED: {title}", flush=True)
            traceback.print_exc(file=sys.stdout)
        else:
            passed += 1
            print(f"  ok: {title} ({time.monotonic() - began:.1f} s)", flush=True)
    with open(counts, "w", encoding="utf-8") as file:
        file.write(f"{passed} {failed} {skipped}\n")
    sys.exit(1 if failed else 0)
