"""gcloud against the emulator: the commands by which people read a policy, or edit it by hand."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from urllib.parse import urlsplit

import harness

ENDPOINT = sys.argv[1]
PROJECT, REGION = "demo-project", "us-central1"
INVOKER = "roles/run.invoker"
BOB = "user:bob@example.com"


def environment(config, **more):
    base = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDSDK_", "GOOGLE_"))}
    base.update(
        CLOUDSDK_CONFIG=config,
        CLOUDSDK_CORE_DISABLE_PROMPTS="1",
        CLOUDSDK_CORE_PROJECT=PROJECT,
        CLOUDSDK_AUTH_DISABLE_CREDENTIALS="True",
        CLOUDSDK_CORE_DISABLE_USAGE_REPORTING="true",
        CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK="true",
        CLOUDSDK_SURVEY_DISABLE_PROMPTS="true",
        **{
            f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}": ENDPOINT + "/"
            for api in ("RUN", "IAP", "IAM", "CLOUDRESOURCEMANAGER")
        },
    )
    base.update(more)
    return base


CONFIG = tempfile.mkdtemp(prefix="rolecall-gcloud-")


def gcloud(*arguments, fails=False, **more):
    done = subprocess.run(
        ["gcloud", *arguments, "--format=json"],
        env=environment(CONFIG, **more),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if fails:
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
        return done.stderr
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) if done.stdout.strip() else None


def same_etag(one, other):
    """gcloud prints and sends etags in the URL-safe alphabet of base64."""
    return one["etag"].translate(str.maketrans("-_", "+/")) == other["etag"].translate(str.maketrans("-_", "+/"))


def on_service(verb, *arguments, **more):
    where = ("--region", REGION)
    command = f"{verb}-iam-policy" if verb in ("get", "set") else f"{verb}-iam-policy-binding"
    return gcloud("run", "services", command, *arguments, *where, **more)


def case_service_binding_is_added_read_and_removed(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    assert on_service("get", "s") == {"etag": "ACAB"}
    added = on_service("add", "s", "--member=user:Bob@Example.com", f"--role={INVOKER}")
    assert harness.members(added, INVOKER) == [BOB], added
    assert same_etag(emulator.policy(resource), added), added
    sets = [entry["body"] for entry in emulator.journal("path=:setIamPolicy")]
    assert [body["policy"]["etag"] for body in sets] == ["ACAB"], sets
    removed = on_service("remove", "s", f"--member={BOB}", f"--role={INVOKER}")
    assert "bindings" not in removed, removed
    error = on_service("remove", "s", f"--member={BOB}", f"--role={INVOKER}", fails=True)
    assert "Policy binding with the specified principal, role, and condition not found!" in error, error


def case_service_policy_is_set_from_a_file_with_and_without_etag(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    path = os.path.join(CONFIG, "policy.json")

    def policy_file(policy):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(policy, file)
        return path

    bindings = [{"role": INVOKER, "members": [BOB]}]
    first = on_service("set", "s", policy_file({"bindings": bindings, "version": 3}))
    assert emulator.journal("path=:setIamPolicy")[-1]["body"]["updateMask"] == "bindings,version"
    on_service("set", "s", policy_file({"bindings": [], "etag": first["etag"]}))
    assert "bindings" not in emulator.policy(resource)
    error = on_service("set", "s", policy_file({"bindings": bindings, "etag": first["etag"]}), fails=True)
    assert "There were concurrent policy changes" in error, error


def case_service_binding_with_a_condition(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    condition = "--condition=expression=request.time < timestamp('2030-01-01T00:00:00Z'),title=t1"
    on_service("add", "s", f"--member={BOB}", f"--role={INVOKER}", condition)
    policy = emulator.policy(resource)
    assert policy["version"] == 3 and policy["bindings"][0]["condition"]["title"] == "t1", policy


def case_conflict_ends_gcloud_and_an_outage_is_retried(emulator):
    emulator.create(PROJECT, REGION, "services", "s")
    fault = {"match": {"path": ":setIamPolicy", "count": 1}, "action": {"type": "error", "status": 409}}
    emulator.control("POST", "faults", fault)
    error = on_service("add", "s", f"--member={BOB}", f"--role={INVOKER}", fails=True)
    assert "There were concurrent policy changes" in error, error
    fault["action"]["status"] = 503
    emulator.control("PUT", "faults", fault)
    added = on_service("add", "s", f"--member={BOB}", f"--role={INVOKER}")
    assert harness.members(added, INVOKER) == [BOB], added


def case_unknown_member_is_refused_with_its_name(emulator):
    emulator.create(PROJECT, REGION, "services", "s")
    emulator.control("POST", "directory", {"mode": "strict"})
    error = on_service("add", "s", f"--member={BOB}", f"--role={INVOKER}", fails=True)
    assert "INVALID_ARGUMENT" in error and "User bob@example.com does not exist." in error, error


def case_job_binding_is_added_and_removed(emulator):
    resource = emulator.create(PROJECT, REGION, "jobs", "j")
    where = ("j", "--region", REGION, f"--member={BOB}", f"--role={INVOKER}")
    gcloud("run", "jobs", "add-iam-policy-binding", *where)
    assert harness.members(emulator.policy(resource), INVOKER) == [BOB]
    assert harness.members(gcloud("run", "jobs", "get-iam-policy", "j", "--region", REGION), INVOKER) == [BOB]
    gcloud("run", "jobs", "remove-iam-policy-binding", *where)
    assert "bindings" not in emulator.policy(resource)


def case_project_binding_is_added_and_removed(emulator):
    where = (PROJECT, f"--member={BOB}", "--role=roles/run.viewer", "--condition=None")
    gcloud("projects", "add-iam-policy-binding", *where)
    assert harness.members(gcloud("projects", "get-iam-policy", PROJECT), "roles/run.viewer") == [BOB]
    gcloud("projects", "remove-iam-policy-binding", *where)
    assert "bindings" not in emulator.policy(f"projects/{PROJECT}")


def case_iap_binding_lands_under_the_project_number(emulator):
    where = ("--resource-type=cloud-run", "--service=s", f"--region={REGION}")
    role = "roles/iap.httpsResourceAccessor"
    gcloud("beta", "iap", "web", "add-iam-policy-binding", *where, f"--member={BOB}", f"--role={role}")
    policy = emulator.policy(f"projects/{PROJECT}/iap_web/cloud_run-{REGION}/services/s")
    assert harness.members(policy, role) == [BOB], policy
    assert same_etag(gcloud("beta", "iap", "web", "get-iam-policy", *where), policy)


def case_service_account_binding_is_added_and_removed(emulator):
    account = gcloud("iam", "service-accounts", "create", "runner")
    assert account["email"] == f"runner@{PROJECT}.iam.gserviceaccount.com", account
    assert [item["email"] for item in gcloud("iam", "service-accounts", "list")] == [account["email"]]
    role = "roles/iam.serviceAccountUser"
    where = (account["email"], f"--member={BOB}", f"--role={role}", "--condition=None")
    gcloud("iam", "service-accounts", "add-iam-policy-binding", *where)
    assert harness.members(emulator.policy(account["name"]), role) == [BOB]
    assert harness.members(gcloud("iam", "service-accounts", "get-iam-policy", account["email"]), role) == [BOB]
    gcloud("iam", "service-accounts", "remove-iam-policy-binding", *where)
    assert "bindings" not in emulator.policy(account["name"])


def case_regions_are_listed(_):
    assert REGION in [region["locationId"] for region in gcloud("run", "regions", "list")]


def case_services_are_listed_and_described(emulator):
    emulator.create(PROJECT, REGION, "services", "s")
    emulator.create(PROJECT, "europe-west1", "services", "other")
    names = sorted(item["metadata"]["name"] for item in gcloud("run", "services", "list"))
    assert names == ["other", "s"], names
    # With a region gcloud puts it before the host name; the emulator answers as a plain HTTP proxy.
    proxy = {
        "CLOUDSDK_PROXY_TYPE": "http_no_tunnel",
        "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
        "CLOUDSDK_PROXY_PORT": str(urlsplit(ENDPOINT).port),
    }
    listed = gcloud("run", "services", "list", "--region", REGION, **proxy)
    assert [item["metadata"]["name"] for item in listed] == ["s"], listed
    described = gcloud("run", "services", "describe", "s", "--region", REGION, **proxy)
    assert described["metadata"]["name"] == "s", described


def case_roles_are_described_and_found_grantable(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    assert "run.routes.invoke" in gcloud("iam", "roles", "describe", INVOKER)["includedPermissions"]
    roles = gcloud("iam", "list-grantable-roles", f"//run.googleapis.com/{resource}")
    assert INVOKER in [role["name"] for role in roles], roles


if __name__ == "__main__":
    found = shutil.which("gcloud")
    print("gcloud" if found else "gcloud is not on PATH: its cases are skipped", flush=True)
    try:
        harness.main(globals(), None if found else "gcloud is not on PATH")
    finally:
        shutil.rmtree(CONFIG, ignore_errors=True)
