"""Starts the real rolecall with its real store, in front of the emulator, for clients of SCIM."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager

import httpx2

PROJECT, REGION, SERVICE = "shop-dev", "europe-west1", "checkout-api"
INVOKER = "roles/run.invoker"
TOKEN = "scim-token-of-conformance-0123456789abcdef"
GROUP = "team-checkout"
DEADLINE = 30  # seconds for a start, and for a change to be seen in a policy

MANIFESTS = f"""
apiVersion: v1
kind: Secret
metadata: {{name: ci-scim, namespace: rolecall-system}}
stringData: {{token: {TOKEN}}}
---
apiVersion: rolecall.dev/v1alpha1
kind: IdentityProvider
metadata: {{name: ci}}
spec:
  scim:
    strictness: STRICTNESS
    tokens: [{{name: a, secretRef: {{name: ci-scim}}}}]
  principals:
    allowedDomains: [example.com]
    users: {{googleAccount: {{attribute: userName}}}}
---
apiVersion: rolecall.dev/v1alpha1
kind: CloudRunTarget
metadata: {{name: shop-dev}}
spec:
  project: {PROJECT}
  locations: [{REGION}]
  discoveryInterval: 1s
  allow:
    - namespaces: {{names: [checkout]}}
      identityProviders: [ci]
      resources: ["services/{SERVICE}"]
      roles: [{INVOKER}]
---
apiVersion: rolecall.dev/v1alpha1
kind: RoleMapping
metadata: {{name: team, namespace: checkout}}
spec:
  subjects:
    - identityProvider: ci
      groups: [{{displayName: {GROUP}}}]
  grants:
    - target: {{name: shop-dev}}
      resources: ["services/{SERVICE}"]
      roles: [{INVOKER}]
"""


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def wait_for(process, url):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        assert process.poll() is None, f"rolecall ended with status {process.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"rolecall did not answer {url} within {DEADLINE} s")


@contextmanager
def running(emulator, strictness, schemas=None):
    """Runs rolecall in a folder of its own; yields an HTTP client with the base URL of its provider `ci`.

    `schemas`: a file of further SCIM schemas and resource types.
    """
    emulator.create(PROJECT, REGION, "services", SERVICE)
    folder = tempfile.mkdtemp(prefix="rolecall-conformance-")
    manifests = os.path.join(folder, "manifests")
    os.mkdir(manifests)
    with open(os.path.join(manifests, "all.yaml"), "w", encoding="utf-8") as file:
        file.write(MANIFESTS.replace("STRICTNESS", strictness))
    listen, admin = free_address(), free_address()
    log_path = os.path.join(folder, "rolecall.log")
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [
                os.environ["ROLECALL_BIN"], "run", "--mode", "enforce", "--listen", listen, "--admin-listen", admin,
                "--database", f"sqlite:{os.path.join(folder, 'rolecall.db')}", "--manifests", manifests,
                "--google-endpoint", emulator.endpoint, "--google-credentials", "none", "--drift-interval", "2s",
                *(["--scim-schemas", schemas] if schemas else []),
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )
    try:
        wait_for(process, f"http://{admin}/readyz")
        with httpx2.Client(
            base_url=f"http://{listen}/idp/ci/scim/v2", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
        ) as client:
            yield client
        assert process.poll() is None, f"rolecall ended with status {process.returncode}"
    except BaseException:
        with open(log_path, encoding="utf-8", errors="replace") as log:
            print("".join(log.readlines()[-40:]), flush=True)
        raise
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
