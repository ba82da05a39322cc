//! Routing of requests to the emulated APIs. Paths of the different APIs do not overlap, so one host serves all of
//! them.

use serde_json::{Value, json};

use crate::call::{Call, Reply};
use crate::error::ApiError;
use crate::policy;
use crate::quota::Spend;
use crate::resource::{Kind, Target};
use crate::roles;
use crate::run::Parent;
use crate::world::World;
use crate::{account, credentials, run};

/// The verbs that follow a colon in the last path segment.
const VERBS: &[&str] = &[
    "getIamPolicy",
    "setIamPolicy",
    "testIamPermissions",
    "queryGrantableRoles",
    "queryTestablePermissions",
    "generateAccessToken",
    "wait",
];

/// Answers one request. Its effect on a policy is recorded in `world.trace`.
pub(crate) fn answer(world: &mut World, call: &Call, caller: &str) -> Reply {
    let (path, verb) = split_verb(&call.path);
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let method = call.method.as_str();
    match (method, segments.as_slice(), verb) {
        (_, ["v1" | "v2", "projects", project, "locations", location, rest @ ..], verb)
            if !matches!(rest, ["workforcePools" | "workloadIdentityPools", ..]) =>
        {
            let version = segments[0];
            cloud_run(world, call, caller, version, (project, location), rest, verb)
        }
        (
            _,
            ["apis", "serving.knative.dev" | "run.googleapis.com", "v1", "namespaces", project, collection, name @ ..],
            None,
        ) if name.len() <= 1 => match Kind::from_collection(collection) {
            Some(kind) => knative(world, call, caller, project, kind, name.first().copied()),
            None => Reply::Html(404),
        },
        ("POST", ["v1", "projects", project, rest @ ..], Some(verb))
            if matches!(rest, ["iap_web" | "iap_tunnel", ..]) =>
        {
            let name = format!("projects/{project}/{}", rest.join("/"));
            match world.projects.target(&name) {
                Some(target) => on_policy(world, call, caller, &target, verb, Style::IAP).into(),
                None => Reply::Error(ApiError::invalid(format!("Invalid resource name '{name}'."))),
            }
        }
        ("POST", ["v1" | "v3", "projects", project], Some(verb)) => match world.projects.resolve(project) {
            Some(number) => on_policy(world, call, caller, &Target::Project(number), verb, Style::PROJECT).into(),
            None => Reply::Error(no_project(project)),
        },
        ("GET", [version @ ("v1" | "v3"), "projects", project], None) => {
            project_view(world, version, project, caller).into()
        }
        ("GET", ["v1", "projects", project, "locations"], None) => locations(world, project, caller).into(),
        (_, ["v1", "projects", project, "serviceAccounts", name @ ..], verb)
            if name.len() <= 1 && verb != Some("generateAccessToken") =>
        {
            service_accounts(world, call, caller, project, name.first().copied(), verb)
        }
        ("GET", ["v1", "roles"], None) => roles_list(call).into(),
        ("GET", ["v1", "roles", name], None) => role(&format!("roles/{name}")).into(),
        ("GET", ["v1", "projects" | "organizations", _, "roles", _], None) => role(&segments[1..].join("/")).into(),
        ("POST", ["v1", "roles"], Some("queryGrantableRoles")) => grantable_roles(world, call).into(),
        ("POST", ["v1", "permissions"], Some("queryTestablePermissions")) => testable_permissions(world, call).into(),
        _ => credentials::answer(world, call, &segments, verb).unwrap_or(Reply::Html(404)),
    }
}

fn split_verb(path: &str) -> (&str, Option<&str>) {
    match path.rsplit_once(':') {
        Some((rest, verb)) if VERBS.contains(&verb) => (rest, Some(verb)),
        _ => (path, None),
    }
}

/// Differences between the policy calls of the APIs.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// True when set accepts an `updateMask`.
    mask: bool,
    permission: &'static str,
}

impl Style {
    const IAP: Self = Self { mask: false, permission: "iap.webServices" };
    const PROJECT: Self = Self { mask: true, permission: "resourcemanager.projects" };
    const ACCOUNT: Self = Self { mask: true, permission: "iam.serviceAccounts" };
}

/// `getIamPolicy` by POST, `setIamPolicy`, `testIamPermissions`: IAP and Resource Manager.
fn on_policy(
    world: &mut World,
    call: &Call,
    caller: &str,
    target: &Target,
    verb: &str,
    style: Style,
) -> Result<Value, ApiError> {
    let name = world.projects.target_name(target);
    match verb {
        "getIamPolicy" => {
            world.callers.authorise(caller, &format!("{}.getIamPolicy", style.permission), &name)?;
            let body = policy::parse_json(&call.body)?;
            world.get_policy(target, requested_version(&body["options"]["requestedPolicyVersion"])?)
        }
        "setIamPolicy" => {
            world.callers.authorise(caller, &format!("{}.setIamPolicy", style.permission), &name)?;
            let request = policy::parse_set(&call.body, style.mask)?;
            world.set_policy(target, request)
        }
        "testIamPermissions" => test_permissions(world, call, caller, target),
        _ => Err(ApiError::new(404, "NOT_FOUND", "Method not found.")),
    }
}

/// Service accounts: `getIamPolicy` is a POST with the version in the query.
fn service_accounts(
    world: &mut World,
    call: &Call,
    caller: &str,
    project: &str,
    name: Option<&str>,
    verb: Option<&str>,
) -> Reply {
    let own = if project == "-" { None } else { world.projects.resolve(project) };
    let target = name.and_then(|name| account::find(world, project, name));
    match (call.method.as_str(), name, verb) {
        (_, None, None) if own.is_none() => Reply::Error(no_project(project)),
        ("GET", None, None) => account::list(world, call, caller, own.unwrap_or_default()).into(),
        ("POST", None, None) => account::create(world, call, caller, own.unwrap_or_default()).into(),
        ("GET", Some(_), None) => account::get(world, caller, target.as_ref()).into(),
        ("DELETE", Some(_), None) => account::delete(world, caller, target.as_ref()).into(),
        ("POST", Some(_), Some(verb)) => {
            let Some(target) = target else { return Reply::Error(account::unknown()) };
            account_policy(world, call, caller, &target, verb).into()
        }
        _ => Reply::Html(404),
    }
}

fn account_policy(
    world: &mut World,
    call: &Call,
    caller: &str,
    target: &Target,
    verb: &str,
) -> Result<Value, ApiError> {
    match verb {
        "getIamPolicy" => {
            account::authorise(world, caller, verb)?;
            policy::parse_empty(&call.body)?;
            world.get_policy(target, call.number("options.requestedPolicyVersion")?.unwrap_or(0))
        }
        "setIamPolicy" => {
            account::authorise(world, caller, verb)?;
            let request = policy::parse_set(&call.body, Style::ACCOUNT.mask)?;
            world.set_policy(target, request)
        }
        _ => on_policy(world, call, caller, target, verb, Style::ACCOUNT),
    }
}

/// The regions of Cloud Run.
const REGIONS: &str = "africa-south1 asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1 \
    asia-south2 asia-southeast1 asia-southeast2 australia-southeast1 australia-southeast2 europe-central2 europe-north1 \
    europe-southwest1 europe-west1 europe-west10 europe-west12 europe-west2 europe-west3 europe-west4 europe-west6 \
    europe-west8 europe-west9 me-central1 me-central2 me-west1 northamerica-northeast1 northamerica-northeast2 \
    southamerica-east1 southamerica-west1 us-central1 us-east1 us-east4 us-east5 us-south1 us-west1 us-west2 us-west3 us-west4";

/// `GET v1/projects/{p}/locations`
fn locations(world: &mut World, project: &str, caller: &str) -> Result<Value, ApiError> {
    let number = world.projects.resolve(project).ok_or_else(|| no_project(project))?;
    let id = world.projects.id(number);
    world.callers.authorise(caller, "run.locations.list", &format!("projects/{id}"))?;
    let view = |region: &str| json!({ "name": format!("projects/{id}/locations/{region}"), "locationId": region, "displayName": region });
    Ok(json!({ "locations": REGIONS.split_whitespace().map(view).collect::<Vec<_>>() }))
}

fn requested_version(value: &Value) -> Result<i64, ApiError> {
    match value {
        Value::Null => Ok(0),
        Value::Number(number) => number.as_i64().ok_or(()),
        Value::String(text) => text.parse().map_err(|_| ()),
        _ => Err(()),
    }
    .map_err(|()| {
        ApiError::invalid(format!("Invalid value at 'options.requested_policy_version' (TYPE_INT32), {value}"))
    })
}

fn cloud_run(
    world: &mut World,
    call: &Call,
    caller: &str,
    version: &str,
    (project, location): (&str, &str),
    rest: &[&str],
    verb: Option<&str>,
) -> Reply {
    let Some(number) = world.projects.resolve(project) else { return Reply::Error(no_project(project)) };
    if !crate::resource::is_location(location) {
        return Reply::Error(ApiError::invalid(format!("Location '{location}' is not valid.")));
    }
    let parent = Parent { project: number, location: location.to_owned() };
    let now = world.clock.micros();
    let spend = if call.method == "GET" || verb == Some("testIamPermissions") { Spend::Read } else { Spend::Write };
    if let Err(error) = world.quota.spend(number, location, spend, now) {
        return Reply::Error(error);
    }
    match (version, rest) {
        ("v2", ["operations", ..]) => run::operation(world, call, verb),
        (_, [collection]) if verb.is_none() => match (Kind::from_collection(collection), call.method.as_str()) {
            (Some(kind), "GET") if version == "v2" => run::list(world, call, caller, &parent, kind).into(),
            (Some(kind), "GET") => run::knative_list(world, call, caller, &parent, kind).into(),
            (Some(kind), "POST") if version == "v2" => run::create(world, call, caller, &parent, kind).into(),
            _ => Reply::Html(404),
        },
        (_, [collection, name]) => {
            let Some(kind) = Kind::from_collection(collection) else { return Reply::Html(404) };
            let key = parent.child(kind, name);
            match (call.method.as_str(), verb) {
                ("GET", Some("getIamPolicy")) => run_policy(world, call, caller, &Target::Run(key), false).into(),
                ("POST", Some("setIamPolicy")) => run_policy(world, call, caller, &Target::Run(key), true).into(),
                ("POST", Some("testIamPermissions")) => test_permissions(world, call, caller, &Target::Run(key)).into(),
                ("GET", None) if version == "v2" => run::get(world, caller, &key).into(),
                ("GET", None) => run::knative_get(world, caller, &key).into(),
                ("PATCH", None) if version == "v2" => run::patch(world, call, caller, &key).into(),
                ("DELETE", None) if version == "v2" => run::delete(world, call, caller, &key).into(),
                _ => Reply::Html(404),
            }
        }
        _ => Reply::Html(404),
    }
}

/// Policy calls of Cloud Run, which reads by GET with the version in the query.
fn run_policy(world: &mut World, call: &Call, caller: &str, target: &Target, set: bool) -> Result<Value, ApiError> {
    let name = world.projects.target_name(target);
    let Target::Run(key) = target else { return Err(ApiError::new(404, "NOT_FOUND", "Method not found.")) };
    let noun = key.kind.permission_noun();
    if set {
        world.callers.authorise(caller, &format!("run.{noun}.setIamPolicy"), &name)?;
        let request = policy::parse_set(&call.body, true)?;
        world.set_policy(target, request)
    } else {
        world.callers.authorise(caller, &format!("run.{noun}.getIamPolicy"), &name)?;
        let version = call.number("options.requestedPolicyVersion")?.unwrap_or(0);
        world.get_policy(target, version)
    }
}

/// The requested permissions that the caller has. The call itself needs no permission and does not reveal which
/// resources exist.
fn test_permissions(world: &mut World, call: &Call, caller: &str, target: &Target) -> Result<Value, ApiError> {
    let body = policy::parse_json(&call.body)?;
    let asked: Vec<&str> =
        body["permissions"].as_array().map(|all| all.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
    if let Some(wildcard) = asked.iter().find(|permission| permission.contains('*')) {
        return Err(ApiError::invalid(format!("Permission {wildcard} is not valid for this resource.")));
    }
    if world.must_exist(target).is_err() {
        return Ok(json!({}));
    }
    let held: Vec<&str> = asked.into_iter().filter(|permission| holds(world, caller, permission, target)).collect();
    Ok(if held.is_empty() { json!({}) } else { json!({ "permissions": held }) })
}

/// True when the caller has the permission: by the list of callers, or by the bindings on the resource and its project.
/// Without a list, `anonymous` has every permission, because no token is required then.
fn holds(world: &World, caller: &str, permission: &str, target: &Target) -> bool {
    if let Some(true) = world.callers.holds(caller, permission) {
        return true;
    }
    if caller == "anonymous" && !world.callers.permissions.contains_key(caller) {
        return true;
    }
    let bound = |target: &Target| {
        world.effective(target).is_some_and(|policy| {
            policy.bindings.iter().filter(|binding| binding.condition.is_none()).any(|binding| {
                roles::find(&binding.role).is_some_and(|role| role.includes(permission))
                    && binding.members.iter().any(|name| {
                        name == "allUsers"
                            || (name == "allAuthenticatedUsers" && caller != "anonymous")
                            || name == caller
                            || world
                                .directory
                                .memberships
                                .get(name)
                                .is_some_and(|in_group| in_group.iter().any(|member| member == caller))
                    })
            })
        })
    };
    bound(target) || bound(&Target::Project(target.project()))
}

fn knative(world: &mut World, call: &Call, caller: &str, project: &str, kind: Kind, name: Option<&str>) -> Reply {
    let Some(number) = world.projects.resolve(project) else { return Reply::Error(no_project(project)) };
    let location = region_of_host(&call.host).unwrap_or("-").to_owned();
    let parent = Parent { project: number, location };
    let spend = if call.method == "GET" { Spend::Read } else { Spend::Write };
    let now = world.clock.micros();
    if let Err(error) = world.quota.spend(number, &parent.location, spend, now) {
        return Reply::Error(error);
    }
    match (call.method.as_str(), name) {
        ("GET", None) => run::knative_list(world, call, caller, &parent, kind).into(),
        (method @ ("GET" | "DELETE"), Some(name)) => {
            let key = run::find(world, &parent, kind, name).unwrap_or_else(|| parent.child(kind, name));
            if method == "GET" {
                run::knative_get(world, caller, &key).into()
            } else {
                run::knative_delete(world, call, caller, &key).into()
            }
        }
        _ => Reply::Html(404),
    }
}

/// `us-central1-run.googleapis.com`, or `us-central1-127.0.0.1` when an endpoint is overridden.
fn region_of_host(host: &str) -> Option<&str> {
    ["-run.googleapis.com", "-127.0.0.1", "-localhost", "-run.mtls.googleapis.com"]
        .iter()
        .find_map(|suffix| host.strip_suffix(suffix))
        .filter(|region| crate::resource::is_location(region) && region.contains('-'))
}

fn no_project(name: &str) -> ApiError {
    ApiError::new(404, "NOT_FOUND", format!("Project '{name}' not found or deleted."))
}

fn project_view(world: &mut World, version: &str, name: &str, caller: &str) -> Result<Value, ApiError> {
    let number = world.projects.resolve(name).ok_or_else(|| no_project(name))?;
    world.callers.authorise(caller, "resourcemanager.projects.get", &format!("projects/{name}"))?;
    let id = world.projects.id(number);
    Ok(if version == "v1" {
        json!({ "projectNumber": number.to_string(), "projectId": id, "name": id, "lifecycleState": "ACTIVE", "createTime": "2026-01-01T00:00:00Z" })
    } else {
        json!({ "name": format!("projects/{number}"), "projectId": id, "displayName": id, "state": "ACTIVE", "createTime": "2026-01-01T00:00:00Z" })
    })
}

fn role(name: &str) -> Result<Value, ApiError> {
    match roles::find(name) {
        Some(role) => Ok(role.to_json(true)),
        None => Err(ApiError::new(404, "NOT_FOUND", format!("The role named {name} was not found."))),
    }
}

fn roles_list(call: &Call) -> Result<Value, ApiError> {
    let full = call.parameter("view").is_some_and(|view| view == "FULL" || view == "1");
    page_of_roles(roles::TABLE.iter().collect(), call.number("pageSize")?, call.parameter("pageToken").as_deref(), full)
}

fn page_of_roles(
    roles: Vec<&roles::Role>,
    size: Option<i64>,
    token: Option<&str>,
    full: bool,
) -> Result<Value, ApiError> {
    let size = match size {
        None | Some(0) => 300,
        Some(size) => {
            usize::try_from(size).map_err(|_| ApiError::invalid("The page size must not be negative."))?.min(3000)
        }
    };
    let start: usize = match token {
        None | Some("") => 0,
        Some(token) => token.parse().map_err(|_| ApiError::invalid("The page token is invalid."))?,
    };
    let total = roles.len();
    let page: Vec<Value> = roles.into_iter().skip(start).take(size).map(|role| role.to_json(full)).collect();
    let mut reply = json!({ "roles": page });
    if start + size < total {
        reply["nextPageToken"] = json!((start + size).to_string());
    }
    Ok(reply)
}

/// The resource with this full resource name: `//run.googleapis.com/projects/…`.
fn full_resource(world: &mut World, body: &Value) -> Result<Target, ApiError> {
    let name = body["fullResourceName"].as_str().unwrap_or_default();
    name.strip_prefix("//")
        .and_then(|rest| rest.split_once('/'))
        .filter(|(host, _)| {
            ["run", "iap", "cloudresourcemanager", "iam"]
                .iter()
                .any(|api| host.strip_prefix(api) == Some(".googleapis.com"))
        })
        .and_then(|(_, rest)| world.projects.target(rest))
        .ok_or_else(|| ApiError::invalid(format!("Invalid full resource name '{name}'.")))
}

fn grantable_roles(world: &mut World, call: &Call) -> Result<Value, ApiError> {
    let body = policy::parse_json(&call.body)?;
    let kind = crate::world::grant_kind(&full_resource(world, &body)?);
    let full = body["view"] == "FULL" || body["view"] == 1;
    let roles = roles::TABLE.iter().filter(|role| role.grantable_on(kind)).collect();
    page_of_roles(roles, body["pageSize"].as_i64(), body["pageToken"].as_str(), full)
}

fn testable_permissions(world: &mut World, call: &Call) -> Result<Value, ApiError> {
    let body = policy::parse_json(&call.body)?;
    let kind = crate::world::grant_kind(&full_resource(world, &body)?);
    let mut names: Vec<&str> = roles::TABLE
        .iter()
        .filter(|role| role.grantable_on(kind))
        .flat_map(|role| role.permissions)
        .copied()
        .filter(|permission| !permission.contains('*'))
        .collect();
    names.sort_unstable();
    names.dedup();
    let permissions: Vec<Value> = names.into_iter().map(|name| json!({ "name": name, "stage": "GA" })).collect();
    Ok(json!({ "permissions": permissions }))
}
