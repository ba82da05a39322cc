//! Cloud Run resources: the v2 calls, and the Knative view used by gcloud.

use serde_json::{Map, Value, json};

use crate::call::{Call, Reply};
use crate::error::ApiError;
use crate::policy;
use crate::resource::{Kind, Resource, ResourceKey, Target, is_resource_name};
use crate::world::World;

/// Fields that only the server writes.
const OUTPUT_ONLY: &[&str] = &[
    "name",
    "uid",
    "generation",
    "createTime",
    "updateTime",
    "deleteTime",
    "expireTime",
    "creator",
    "lastModifier",
    "observedGeneration",
    "terminalCondition",
    "conditions",
    "uri",
    "urls",
    "etag",
    "reconciling",
    "latestReadyRevision",
    "latestCreatedRevision",
    "latestCreatedExecution",
    "executionCount",
    "trafficStatuses",
    "instanceSplitStatuses",
    "satisfiesPzs",
    "logUri",
    "containerStatuses",
];

/// Largest number of stored operations, newest last.
const MAX_OPERATIONS: usize = 1000;

/// Project and region of a collection.
#[derive(Debug, Clone)]
pub(crate) struct Parent {
    pub(crate) project: u64,
    /// `-` for all regions.
    pub(crate) location: String,
}

impl Parent {
    pub(crate) fn child(&self, kind: Kind, name: &str) -> ResourceKey {
        ResourceKey { project: self.project, location: self.location.clone(), kind, name: name.to_owned() }
    }
}

/// `POST v2/{parent}/services?serviceId=NAME`: returns a finished operation.
pub(crate) fn create(
    world: &mut World,
    call: &Call,
    caller: &str,
    parent: &Parent,
    kind: Kind,
) -> Result<Value, ApiError> {
    let parameter = kind.id_parameter();
    let name = call
        .parameter(parameter)
        .ok_or_else(|| ApiError::invalid(format!("{parameter} is required to create a {}.", kind.message())))?;
    if !is_resource_name(&name) || parent.location == "-" {
        return Err(ApiError::invalid(format!(
            "Invalid {parameter} '{name}': only lower-case letters, digits and hyphens are allowed; it must begin with a letter, must not end with a hyphen and must not be longer than 63 characters."
        )));
    }
    let key = parent.child(kind, &name);
    let full_name = world.projects.name_of(&key);
    world.callers.authorise(caller, &format!("run.{}.create", kind.permission_noun()), &full_name)?;
    let fields = writable(&policy::parse_json(&call.body)?)?;
    if world.resources.contains_key(&key) {
        return Err(ApiError::new(409, "ALREADY_EXISTS", format!("Resource '{name}' already exists.")));
    }
    if call.parameter("validateOnly").as_deref() == Some("true") {
        let preview = new_resource(world, fields);
        let view = view(world, &key, &preview);
        return Ok(operation_for(world, &key, view));
    }
    insert(world, &key, fields);
    world.trace.committed = true;
    let view = get_view(world, &key)?;
    Ok(operation_for(world, &key, view))
}

fn new_resource(world: &World, fields: Map<String, Value>) -> Resource {
    let now = world.clock.now();
    Resource {
        seq: world.last_resource + 1,
        uid: uuid::Uuid::new_v4().to_string(),
        generation: 1,
        created: now,
        updated: now,
        fields,
    }
}

/// Inserts a new resource into the store and removes an old one of that name together with its policy.
pub(crate) fn insert(world: &mut World, key: &ResourceKey, fields: Map<String, Value>) {
    remove(world, key);
    let resource = new_resource(world, fields);
    world.last_resource = resource.seq;
    world
        .order
        .entry((key.project, key.kind, key.location.clone()))
        .or_default()
        .insert(resource.seq, key.name.clone());
    world.resources.insert(key.clone(), resource);
}

/// Removes a resource and its policy from the store.
pub(crate) fn remove(world: &mut World, key: &ResourceKey) -> Option<Resource> {
    let resource = world.resources.remove(key)?;
    if let Some(names) = world.order.get_mut(&(key.project, key.kind, key.location.clone())) {
        names.remove(&resource.seq);
    }
    world.drop_policy(&Target::Run(key.clone()));
    Some(resource)
}

/// The fields of a body that a client may set.
fn writable(body: &Value) -> Result<Map<String, Value>, ApiError> {
    let Value::Object(body) = body else {
        return Err(ApiError::invalid("Invalid JSON payload received. The body must be an object."));
    };
    Ok(body
        .iter()
        .filter(|(name, value)| !OUTPUT_ONLY.contains(&name.as_str()) && !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect())
}

fn get_view(world: &World, key: &ResourceKey) -> Result<Value, ApiError> {
    world.resources.get(key).map(|resource| view(world, key, resource)).ok_or_else(|| world.not_found(key))
}

/// `GET v2/{name}`
pub(crate) fn get(world: &World, caller: &str, key: &ResourceKey) -> Result<Value, ApiError> {
    world.callers.authorise(
        caller,
        &format!("run.{}.get", key.kind.permission_noun()),
        &world.projects.name_of(key),
    )?;
    get_view(world, key)
}

/// `PATCH v2/{name}`: the fields of `updateMask`, or all writable ones without a mask.
pub(crate) fn patch(world: &mut World, call: &Call, caller: &str, key: &ResourceKey) -> Result<Value, ApiError> {
    let name = world.projects.name_of(key);
    world.callers.authorise(caller, &format!("run.{}.update", key.kind.permission_noun()), &name)?;
    let body = policy::parse_json(&call.body)?;
    let fields = writable(&body)?;
    let sent_etag = body["etag"].as_str().unwrap_or_default();
    if !world.resources.contains_key(key) {
        if call.parameter("allowMissing").as_deref() != Some("true") {
            return Err(world.not_found(key));
        }
        insert(world, key, Map::new());
    }
    let now = world.clock.now();
    if let Some(resource) = world.resources.get_mut(key) {
        if !sent_etag.is_empty() && sent_etag != resource_etag(resource) {
            return Err(stale(key));
        }
        match call.parameter("updateMask") {
            Some(mask) if mask != "*" => {
                for path in mask.split(',').map(str::trim) {
                    let top = camel_case(path.split('.').next().unwrap_or(path));
                    match fields.get(&top) {
                        Some(value) => resource.fields.insert(top, value.clone()),
                        None => resource.fields.remove(&top),
                    };
                }
            }
            _ => resource.fields = fields,
        }
        resource.generation += 1;
        resource.updated = now;
    }
    world.trace.committed = true;
    let view = get_view(world, key)?;
    Ok(operation_for(world, key, view))
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}

fn stale(key: &ResourceKey) -> ApiError {
    ApiError::new(
        409,
        "ABORTED",
        format!("Conflict for resource '{}': the etag does not match the current version.", key.name),
    )
}

/// `DELETE v2/{name}`: removes resource and policy at once, and returns a finished operation.
pub(crate) fn delete(world: &mut World, call: &Call, caller: &str, key: &ResourceKey) -> Result<Value, ApiError> {
    let name = world.projects.name_of(key);
    world.callers.authorise(caller, &format!("run.{}.delete", key.kind.permission_noun()), &name)?;
    let mut view = get_view(world, key)?;
    if let Some(sent) = call.parameter("etag")
        && Some(sent.as_str()) != view["etag"].as_str()
    {
        return Err(stale(key));
    }
    if call.parameter("validateOnly").as_deref() != Some("true") {
        remove(world, key);
        view["deleteTime"] = json!(world.clock.now().to_string());
    }
    Ok(operation_for(world, key, view))
}

/// A finished operation, stored so that it can be read later.
fn operation_for(world: &mut World, key: &ResourceKey, mut message: Value) -> Value {
    let name = format!(
        "projects/{}/locations/{}/operations/{}",
        world.projects.id(key.project),
        key.location,
        uuid::Uuid::new_v4()
    );
    if let Value::Object(fields) = &mut message {
        let kind = format!("type.googleapis.com/google.cloud.run.v2.{}", key.kind.message());
        fields.shift_insert(0, "@type".into(), json!(kind));
    }
    let operation = json!({ "name": name, "metadata": message, "done": true, "response": message });
    world.operations.push_back((name, operation.clone()));
    if world.operations.len() > MAX_OPERATIONS {
        world.operations.pop_front();
    }
    operation
}

/// `GET v2/{operation}` and `POST v2/{operation}:wait`
pub(crate) fn operation(world: &mut World, call: &Call, verb: Option<&str>) -> Reply {
    let path = call.path.trim_start_matches('/').trim_start_matches("v2/");
    let name = path.strip_suffix(":wait").unwrap_or(path);
    let id = name.rsplit('/').next().unwrap_or_default();
    match (call.method.as_str(), verb) {
        ("GET", None) | ("POST", Some("wait")) => world
            .operations
            .iter()
            .find(|(known, _)| known.rsplit('/').next() == Some(id))
            .map(|(_, operation)| operation.clone())
            .ok_or_else(|| ApiError::new(404, "NOT_FOUND", format!("Operation '{name}' not found.")))
            .into(),
        _ => Reply::Html(404),
    }
}

/// One page of a collection, newest first, and the token of the next page.
fn page(
    world: &World,
    parent: &Parent,
    kind: Kind,
    size: Option<i64>,
    token: Option<&str>,
) -> Result<(Vec<ResourceKey>, Option<String>), ApiError> {
    let most = world.settings.page_size.max(1);
    let size = match size {
        None | Some(0) => most,
        Some(size) => {
            usize::try_from(size).map_err(|_| ApiError::invalid("The page size must not be negative."))?.min(most)
        }
    };
    // The token is the position of the last item of the page, so that additions and removals do not move other items.
    let before = match token {
        None => u64::MAX,
        Some(token) => u64::from_str_radix(token, 36).map_err(|_| ApiError::invalid("The page token is invalid."))?,
    };
    let key = |location: &str, name: &str| ResourceKey {
        project: parent.project,
        location: location.to_owned(),
        kind,
        name: name.to_owned(),
    };
    let mut found: Vec<(u64, ResourceKey)> = Vec::new();
    for ((_, _, location), names) in world
        .order
        .range((parent.project, kind, String::new())..)
        .take_while(|((project, of_kind, _), _)| (*project, *of_kind) == (parent.project, kind))
        .filter(|((_, _, location), _)| parent.location == "-" || *location == parent.location)
    {
        found.extend(names.range(..before).rev().take(size + 1).map(|(&seq, name)| (seq, key(location, name))));
    }
    found.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
    let more = found.len() > size;
    found.truncate(size);
    let next = found.last().filter(|_| more).map(|(seq, _)| radix36(*seq));
    Ok((found.into_iter().map(|(_, key)| key).collect(), next))
}

fn radix36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(u32::try_from(number % 36).unwrap_or(0), 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// `GET v2/{parent}/services`
pub(crate) fn list(world: &World, call: &Call, caller: &str, parent: &Parent, kind: Kind) -> Result<Value, ApiError> {
    let place = format!("projects/{}/locations/{}", world.projects.id(parent.project), parent.location);
    world.callers.authorise(caller, &format!("run.{}.list", kind.permission_noun()), &place)?;
    if parent.location == "-" && matches!(kind, Kind::Service | Kind::WorkerPool) {
        return Err(ApiError::invalid(format!(
            "Invalid parent '{place}': the location wildcard '-' is not supported for {}.",
            kind.collection()
        )));
    }
    let (keys, next) = page(world, parent, kind, call.number("pageSize")?, call.parameter("pageToken").as_deref())?;
    let items = keys.iter().map(|key| get_view(world, key)).collect::<Result<Vec<_>, _>>()?;
    let mut reply = Map::new();
    if !items.is_empty() {
        reply.insert(kind.collection().into(), Value::Array(items));
    }
    if let Some(next) = next {
        reply.insert("nextPageToken".into(), json!(next));
    }
    Ok(Value::Object(reply))
}

fn resource_etag(resource: &Resource) -> String {
    format!("\"{}{:x}\"", &resource.uid[..8], resource.generation)
}

/// The v2 message. Like in the API, fields with their protobuf default are omitted.
fn view(world: &World, key: &ResourceKey, resource: &Resource) -> Value {
    let mut object = Map::new();
    let project = world.projects.id(key.project);
    object.insert("name".into(), json!(world.projects.name_of(key)));
    object.insert("uid".into(), json!(resource.uid));
    object.insert("generation".into(), json!(resource.generation.to_string()));
    for (name, value) in &resource.fields {
        if !matches!(value, Value::Bool(false)) {
            object.insert(name.clone(), value.clone());
        }
    }
    object.insert("createTime".into(), json!(resource.created.to_string()));
    object.insert("updateTime".into(), json!(resource.updated.to_string()));
    object.entry("launchStage").or_insert_with(|| json!("GA"));
    object.insert("observedGeneration".into(), json!(resource.generation.to_string()));
    object.insert(
        "terminalCondition".into(),
        json!({
            "type": "Ready",
            "state": "CONDITION_SUCCEEDED",
            "lastTransitionTime": resource.updated.to_string(),
        }),
    );
    if key.kind == Kind::Service {
        let uri = format!("https://{}-{}.{}.run.app", key.name, key.project, key.location);
        object.entry("ingress").or_insert_with(|| json!("INGRESS_TRAFFIC_ALL"));
        object.insert("uri".into(), json!(uri));
        object.insert("urls".into(), json!([uri]));
    }
    if matches!(key.kind, Kind::Service | Kind::WorkerPool) {
        let revision = format!(
            "projects/{project}/locations/{}/{}/{}/revisions/{}-{:05}",
            key.location,
            key.kind.collection(),
            key.name,
            key.name,
            resource.generation
        );
        object.insert("latestReadyRevision".into(), json!(revision));
        object.insert("latestCreatedRevision".into(), json!(revision));
    }
    object.insert("etag".into(), json!(resource_etag(resource)));
    Value::Object(object)
}

/// The first resource of that name, in any region if the parent has none.
pub(crate) fn find(world: &World, parent: &Parent, kind: Kind, name: &str) -> Option<ResourceKey> {
    let mut found: Vec<&ResourceKey> = world
        .resources
        .keys()
        .filter(|key| {
            key.project == parent.project
                && key.kind == kind
                && key.name == name
                && (parent.location == "-" || key.location == parent.location)
        })
        .collect();
    found.sort();
    found.first().map(|&key| key.clone())
}

/// The Knative form of a list, paged by `limit` and `continue`.
pub(crate) fn knative_list(
    world: &World,
    call: &Call,
    caller: &str,
    parent: &Parent,
    kind: Kind,
) -> Result<Value, ApiError> {
    let place = format!("projects/{}/locations/{}", world.projects.id(parent.project), parent.location);
    world.callers.authorise(caller, &format!("run.{}.list", kind.permission_noun()), &place)?;
    let (keys, next) = page(world, parent, kind, call.number("limit")?, call.parameter("continue").as_deref())?;
    let items = keys
        .iter()
        .filter_map(|key| world.resources.get(key).map(|resource| knative_view(key, resource)))
        .collect::<Vec<_>>();
    let mut metadata = json!({ "resourceVersion": world.last_resource.to_string() });
    if let Some(next) = next {
        metadata["continue"] = json!(next);
    }
    Ok(json!({
        "apiVersion": api_version(kind),
        "kind": format!("{}List", kind.message()),
        "metadata": metadata,
        "items": items,
    }))
}

/// The Knative form of one resource.
pub(crate) fn knative_get(world: &World, caller: &str, key: &ResourceKey) -> Result<Value, ApiError> {
    let name = world.projects.name_of(key);
    world.callers.authorise(caller, &format!("run.{}.get", key.kind.permission_noun()), &name)?;
    world.resources.get(key).map(|resource| knative_view(key, resource)).ok_or_else(|| world.not_found(key))
}

/// Deletion in the Knative form, which answers with a status.
pub(crate) fn knative_delete(
    world: &mut World,
    call: &Call,
    caller: &str,
    key: &ResourceKey,
) -> Result<Value, ApiError> {
    delete(world, call, caller, key)?;
    Ok(json!({ "status": "Success", "details": { "name": key.name } }))
}

fn api_version(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "serving.knative.dev/v1",
        _ => "run.googleapis.com/v1",
    }
}

fn knative_view(key: &ResourceKey, resource: &Resource) -> Value {
    let mut labels = Map::new();
    if let Some(Value::Object(own)) = resource.fields.get("labels") {
        labels.extend(own.clone());
    }
    labels.insert("cloud.googleapis.com/location".into(), json!(key.location));
    let mut annotations = Map::new();
    if let Some(Value::Object(own)) = resource.fields.get("annotations") {
        annotations.extend(own.clone());
    }
    for (field, annotation) in [
        ("invokerIamDisabled", "run.googleapis.com/invoker-iam-disabled"),
        ("iapEnabled", "run.googleapis.com/iap-enabled"),
    ] {
        if resource.fields.get(field) == Some(&Value::Bool(true)) {
            annotations.insert(annotation.into(), json!("true"));
        }
    }
    let containers = match resource.fields.get("template") {
        Some(template) if template["containers"].is_array() => template["containers"].clone(),
        Some(template) if template["template"]["containers"].is_array() => template["template"]["containers"].clone(),
        _ => json!([{ "image": "us-docker.pkg.dev/cloudrun/container/hello" }]),
    };
    let pod = json!({ "spec": { "containers": containers } });
    let spec = match key.kind {
        Kind::Job => json!({ "template": { "spec": { "template": pod } } }),
        _ => json!({ "template": pod }),
    };
    let mut status = json!({
        "observedGeneration": resource.generation,
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": resource.updated.to_string() }],
    });
    if key.kind == Kind::Service {
        let url = format!("https://{}-{}.{}.run.app", key.name, key.project, key.location);
        status["url"] = json!(url);
        status["address"] = json!({ "url": url });
        status["traffic"] = json!([{ "percent": 100, "latestRevision": true }]);
    }
    json!({
        "apiVersion": api_version(key.kind),
        "kind": key.kind.message(),
        "metadata": {
            "name": key.name,
            "namespace": key.project.to_string(),
            "selfLink": format!("/apis/{}/namespaces/{}/{}/{}", api_version(key.kind), key.project, key.kind.permission_noun(), key.name),
            "uid": resource.uid,
            "resourceVersion": resource_etag(resource).trim_matches('"'),
            "generation": resource.generation,
            "creationTimestamp": resource.created.to_string(),
            "labels": labels,
            "annotations": annotations,
        },
        "spec": spec,
        "status": status,
    })
}
