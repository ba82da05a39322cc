"""google-cloud-run and google-api-python-client against the emulator.

The second one checks paths, parameters and bodies against Google's discovery documents, which it contains.
"""

import sys

import googleapiclient.discovery
import googleapiclient.errors
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2, options_pb2, policy_pb2
from google.type import expr_pb2

import harness

ENDPOINT = sys.argv[1]
PROJECT, REGION = "demo-project", "us-central1"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
INVOKER = "roles/run.invoker"


def client(kind):
    options = ClientOptions(api_endpoint=ENDPOINT)
    return kind(credentials=AnonymousCredentials(), client_options=options, transport="rest")


def discovery(name, version):
    return googleapiclient.discovery.build(
        name,
        version,
        static_discovery=True,
        credentials=AnonymousCredentials(),
        client_options=ClientOptions(api_endpoint=ENDPOINT),
    )


def read(run, resource, version=3):
    request = iam_policy_pb2.GetIamPolicyRequest(
        resource=resource, options=options_pb2.GetPolicyOptions(requested_policy_version=version)
    )
    return run.get_iam_policy(request=request)


def write(run, resource, policy):
    return run.set_iam_policy(request=iam_policy_pb2.SetIamPolicyRequest(resource=resource, policy=policy))


def template():
    return run_v2.RevisionTemplate(containers=[run_v2.Container(image="us-docker.pkg.dev/cloudrun/container/hello")])


def case_service_is_created_read_listed_and_deleted(_):
    run = client(run_v2.ServicesClient)
    service = run_v2.Service(template=template(), labels={"team": "checkout"})
    created = run.create_service(parent=PARENT, service=service, service_id="one").result(timeout=10)
    assert created.name == f"{PARENT}/services/one", created.name
    assert created.labels["team"] == "checkout"
    assert run.get_service(name=created.name).uid == created.uid
    run.create_service(parent=PARENT, service=service, service_id="two").result(timeout=10)
    assert [s.name.rsplit("/", 1)[1] for s in run.list_services(parent=PARENT)] == ["two", "one"]
    run.delete_service(name=created.name).result(timeout=10)
    try:
        run.get_service(name=created.name)
    except exceptions.NotFound as error:
        assert "Resource 'one' of kind 'SERVICE' in region 'us-central1'" in error.message, error.message
    else:
        raise AssertionError("the service is still there")


def case_list_is_paged(emulator):
    for index in range(7):
        emulator.create(PROJECT, REGION, "services", f"s{index}")
    run = client(run_v2.ServicesClient)
    request = run_v2.ListServicesRequest(parent=PARENT, page_size=3)
    pages = [len(page.services) for page in run.list_services(request=request).pages]
    assert pages == [3, 3, 1], pages


def case_never_set_policy_has_the_acab_etag(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    policy = read(client(run_v2.ServicesClient), resource)
    assert policy.etag == b"\x00\x20\x01" and policy.version == 0 and not policy.bindings


def case_policy_round_trip_and_conflict(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    run = client(run_v2.ServicesClient)
    policy = read(run, resource)
    policy.version = 3
    policy.bindings.add(role=INVOKER, members=["user:Bob@Example.com"])
    stored = write(run, resource, policy)
    assert stored.version == 1 and stored.bindings[0].members[0] == "user:bob@example.com", stored
    assert read(run, resource) == stored
    try:
        write(run, resource, policy)
    except exceptions.Conflict as error:
        assert "concurrent policy changes" in error.message, error.message
        assert "did not match the current policy's ETag" in error.message, error.message
    else:
        raise AssertionError("a stale etag was accepted")
    assert read(run, resource) == stored


def case_condition_is_hidden_below_version_3(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    run = client(run_v2.ServicesClient)
    condition = expr_pb2.Expr(title="t1", expression="request.time < timestamp('2030-01-01T00:00:00Z')")
    policy = policy_pb2.Policy(version=3)
    policy.bindings.add(role=INVOKER, members=["user:bob@example.com"], condition=condition)
    assert write(run, resource, policy).version == 3
    assert read(run, resource, 3).bindings[0].condition.title == "t1"
    low = read(run, resource, 1)
    assert low.version == 1 and not low.bindings[0].condition.title
    assert low.bindings[0].role.startswith(INVOKER + "_withcond_"), low.bindings[0].role


def case_jobs_and_worker_pools_have_policies(emulator):
    jobs, pools = client(run_v2.JobsClient), client(run_v2.WorkerPoolsClient)
    job = jobs.create_job(
        parent=PARENT,
        job_id="j",
        job=run_v2.Job(
            template=run_v2.ExecutionTemplate(
                template=run_v2.TaskTemplate(containers=[run_v2.Container(image="example")])
            )
        ),
    ).result(timeout=10)
    pool = pools.create_worker_pool(
        parent=PARENT,
        worker_pool_id="w",
        worker_pool=run_v2.WorkerPool(
            template=run_v2.WorkerPoolRevisionTemplate(containers=[run_v2.Container(image="example")])
        ),
    ).result(timeout=10)
    for api, resource in ((jobs, job.name), (pools, pool.name)):
        policy = policy_pb2.Policy(version=1)
        policy.bindings.add(role="roles/run.viewer", members=["group:ops@example.com"])
        assert write(api, resource, policy).bindings[0].members == ["group:ops@example.com"]
    assert [item.name for item in jobs.list_jobs(parent=PARENT)] == [job.name]
    assert [item.name for item in pools.list_worker_pools(parent=PARENT)] == [pool.name]


def case_test_iam_permissions_gives_the_subset_held(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    emulator.control("PUT", "callers", {"permissions": {"anonymous": ["run.services.get"]}})
    request = iam_policy_pb2.TestIamPermissionsRequest(
        resource=resource, permissions=["run.services.get", "run.services.setIamPolicy"]
    )
    held = client(run_v2.ServicesClient).test_iam_permissions(request=request)
    assert list(held.permissions) == ["run.services.get"], held


def case_missing_permission_is_forbidden(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    emulator.control("PUT", "callers", {"permissions": {"anonymous": ["run.services.getIamPolicy"]}})
    run = client(run_v2.ServicesClient)
    policy = read(run, resource)
    try:
        write(run, resource, policy)
    except exceptions.Forbidden as error:
        wanted = f"Permission 'run.services.setIamPolicy' denied on resource '{resource}' (or resource may not exist)."
        assert wanted in error.message, error.message
    else:
        raise AssertionError("the write was accepted")


def case_unknown_user_refuses_the_whole_policy(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    emulator.control("POST", "directory", {"mode": "strict", "users": ["known@example.com"]})
    policy = policy_pb2.Policy(version=3)
    policy.bindings.add(role=INVOKER, members=["user:known@example.com", "user:gone@example.com"])
    try:
        write(client(run_v2.ServicesClient), resource, policy)
    except exceptions.BadRequest as error:
        assert "User gone@example.com does not exist." in error.message, error.message
    else:
        raise AssertionError("an unknown user was accepted")
    assert emulator.policy(resource) == {"etag": "ACAB"}


def case_discovery_v1_and_v2_see_one_policy(emulator):
    resource = emulator.create(PROJECT, REGION, "services", "s")
    v1 = discovery("run", "v1").projects().locations().services()
    v2 = discovery("run", "v2").projects().locations().services()
    bindings = [{"role": INVOKER, "members": ["user:bob@example.com"]}]
    set_body = {"policy": {"version": 3, "etag": "ACAB", "bindings": bindings}, "updateMask": "bindings,etag"}
    stored = v1.setIamPolicy(resource=resource, body=set_body).execute()
    read_back = v2.getIamPolicy(resource=resource, options_requestedPolicyVersion=3).execute()
    assert stored == read_back and read_back["bindings"] == bindings, (stored, read_back)
    assert v1.getIamPolicy(resource=resource).execute() == stored


def case_discovery_worker_pools_in_v1_spelling(emulator):
    emulator.create(PROJECT, REGION, "workerPools", "w")
    pools = discovery("run", "v1").projects().locations().workerpools()
    resource = f"{PARENT}/workerpools/w"
    body = {"policy": {"bindings": [{"role": "roles/run.developer", "members": ["user:bob@example.com"]}]}}
    pools.setIamPolicy(resource=resource, body=body).execute()
    v2 = discovery("run", "v2").projects().locations().workerPools()
    policy = v2.getIamPolicy(resource=f"{PARENT}/workerPools/w").execute()
    assert harness.members(policy, "roles/run.developer") == ["user:bob@example.com"], policy


def case_discovery_v1_lists_in_knative_form(emulator):
    emulator.create(PROJECT, REGION, "services", "s")
    api = discovery("run", "v1")
    listed = api.projects().locations().services().list(parent=f"projects/{PROJECT}/locations/-").execute()
    assert listed["kind"] == "ServiceList" and listed["items"][0]["metadata"]["name"] == "s", listed
    listed = api.namespaces().services().list(parent=f"namespaces/{PROJECT}").execute()
    assert [item["metadata"]["name"] for item in listed["items"]] == ["s"], listed


def case_discovery_project_policy(_):
    projects = discovery("cloudresourcemanager", "v3").projects()
    name = f"projects/{PROJECT}"
    policy = projects.getIamPolicy(resource=name, body={"options": {"requestedPolicyVersion": 3}}).execute()
    policy["bindings"] = [{"role": "roles/run.viewer", "members": ["user:bob@example.com"]}]
    policy["version"] = 3
    stored = projects.setIamPolicy(resource=name, body={"policy": policy}).execute()
    project = projects.get(name=name).execute()
    by_number = projects.getIamPolicy(resource=project["name"], body={}).execute()
    assert by_number == stored and project["projectId"] == PROJECT, (by_number, stored)
    policy["bindings"][0]["members"].append("allUsers")
    policy["etag"] = stored["etag"]
    try:
        projects.setIamPolicy(resource=name, body={"policy": policy}).execute()
    except googleapiclient.errors.HttpError as error:
        assert error.status_code == 400, error
    else:
        raise AssertionError("allUsers was accepted on a project")


def case_discovery_iap_policy_by_id_and_number(_):
    iap = discovery("iap", "v1").v1()
    number = discovery("cloudresourcemanager", "v1").projects().get(projectId=PROJECT).execute()["projectNumber"]
    tail = "iap_web/cloud_run-us-central1/services/s"
    bindings = [{"role": "roles/iap.httpsResourceAccessor", "members": ["group:staff@example.com"]}]
    stored = iap.setIamPolicy(resource=f"projects/{number}/{tail}", body={"policy": {"bindings": bindings}}).execute()
    body = {"options": {"requestedPolicyVersion": 3}}
    assert iap.getIamPolicy(resource=f"projects/{PROJECT}/{tail}", body=body).execute() == stored


def case_discovery_iap_has_no_mask_and_keeps_conditions(_):
    iap = discovery("iap", "v1").v1()
    resource = f"projects/{PROJECT}/iap_web/cloud_run-us-central1/services/s"
    condition = {"title": "t1", "expression": "request.time < timestamp('2030-01-01T00:00:00Z')"}
    binding = {"role": "roles/iap.httpsResourceAccessor", "members": ["user:bob@example.com"], "condition": condition}
    policy = {"version": 3, "etag": "ACAB", "bindings": [binding]}
    stored = iap.setIamPolicy(resource=resource, body={"policy": policy}).execute()
    assert stored["version"] == 3 and stored["bindings"] == [binding], stored
    low = iap.getIamPolicy(resource=resource, body={}).execute()
    assert low["bindings"][0]["role"].startswith("roles/iap.httpsResourceAccessor_withcond_"), low
    for body in ({"policy": policy}, {"policy": stored, "updateMask": "bindings"}):
        try:
            iap.setIamPolicy(resource=resource, body=body).execute()
        except googleapiclient.errors.HttpError as error:
            assert error.status_code in (409, 400), error
        else:
            raise AssertionError("a stale etag or a mask was accepted")


def case_discovery_project_policy_keeps_what_no_mask_names(emulator):
    projects = discovery("cloudresourcemanager", "v3").projects()
    name = f"projects/{PROJECT}"
    audit = [{"service": "allServices", "auditLogConfigs": [{"logType": "DATA_READ"}]}]
    bindings = [{"role": "roles/owner", "members": ["user:boss@example.com"]}]
    emulator.control("PUT", f"policies/{name}", {"bindings": bindings, "auditConfigs": audit})
    policy = projects.getIamPolicy(resource=name, body={"options": {"requestedPolicyVersion": 3}}).execute()
    policy["bindings"].append({"role": "roles/run.viewer", "members": ["user:bob@example.com"]})
    del policy["auditConfigs"]
    stored = projects.setIamPolicy(resource=name, body={"policy": policy}).execute()
    assert stored["auditConfigs"] == audit and len(stored["bindings"]) == 2, stored
    emulator.control("PATCH", "settings", {"emptyProjectPolicy": "refuse"})
    try:
        projects.setIamPolicy(resource=name, body={"policy": {"etag": stored["etag"]}}).execute()
    except googleapiclient.errors.HttpError as error:
        assert error.status_code == 400, error
    else:
        raise AssertionError("an empty policy was accepted on a project")


def case_discovery_service_account_and_its_policy(_):
    accounts = discovery("iam", "v1").projects().serviceAccounts()
    body = {"accountId": "runner", "serviceAccount": {"displayName": "Runner"}}
    account = accounts.create(name=f"projects/{PROJECT}", body=body).execute()
    assert account["email"] == f"runner@{PROJECT}.iam.gserviceaccount.com", account
    listed = accounts.list(name=f"projects/{PROJECT}", pageSize=100).execute()
    assert listed["accounts"] == [account] and "nextPageToken" not in listed, listed
    name = account["name"]
    assert accounts.get(name=f"projects/-/serviceAccounts/{account['uniqueId']}").execute() == account
    policy = accounts.getIamPolicy(resource=name, options_requestedPolicyVersion=3).execute()
    assert policy == {"etag": "ACAB"}, policy
    policy["version"] = 3
    policy["bindings"] = [{"role": "roles/iam.serviceAccountUser", "members": ["user:Bob@Example.com"]}]
    stored = accounts.setIamPolicy(resource=name, body={"policy": policy}).execute()
    assert harness.members(stored, "roles/iam.serviceAccountUser") == ["user:bob@example.com"], stored
    try:
        accounts.setIamPolicy(resource=name, body={"policy": policy}).execute()
    except googleapiclient.errors.HttpError as error:
        assert error.status_code == 409 and "concurrent policy changes" in str(error), error
    else:
        raise AssertionError("a stale etag was accepted")
    accounts.delete(name=name).execute()
    again = accounts.create(name=f"projects/{PROJECT}", body=body).execute()
    assert again["uniqueId"] != account["uniqueId"], again
    assert accounts.getIamPolicy(resource=name).execute() == {"etag": "ACAB"}


def case_discovery_regions_are_listed(_):
    locations = discovery("run", "v1").projects().locations().list(name=f"projects/{PROJECT}").execute()
    assert REGION in [location["locationId"] for location in locations["locations"]], locations


def case_discovery_roles_fit_their_kind(_):
    roles = discovery("iam", "v1").roles()
    accounts = f"//iam.googleapis.com/projects/{PROJECT}/serviceAccounts/runner@{PROJECT}.iam.gserviceaccount.com"
    for resource, wanted, other in (
        (accounts, "roles/iam.serviceAccountUser", INVOKER),
        (f"//cloudresourcemanager.googleapis.com/projects/{PROJECT}", INVOKER, "roles/nothing"),
        (f"//iap.googleapis.com/projects/{PROJECT}/iap_web/x", "roles/iap.httpsResourceAccessor", INVOKER),
    ):
        body = {"fullResourceName": resource}
        names = [role["name"] for role in roles.queryGrantableRoles(body=body).execute()["roles"]]
        assert wanted in names and other not in names, (resource, names)


def case_discovery_roles(emulator):
    roles = discovery("iam", "v1").roles()
    assert "run.routes.invoke" in roles.get(name=INVOKER).execute()["includedPermissions"]
    resource = emulator.create(PROJECT, REGION, "services", "s")
    body = {"fullResourceName": f"//run.googleapis.com/{resource}", "pageSize": 300}
    names = [role["name"] for role in roles.queryGrantableRoles(body=body).execute()["roles"]]
    assert INVOKER in names and "roles/iap.httpsResourceAccessor" not in names, names


def case_discovery_impersonation(_):
    credentials = discovery("iamcredentials", "v1").projects().serviceAccounts()
    name = "projects/-/serviceAccounts/rolecall@demo-project.iam.gserviceaccount.com"
    body = {"scope": ["https://www.googleapis.com/auth/cloud-platform"]}
    token = credentials.generateAccessToken(name=name, body=body).execute()
    assert token["accessToken"] and token["expireTime"].endswith("Z"), token


if __name__ == "__main__":
    print("Google's Python clients", flush=True)
    harness.main(globals())
