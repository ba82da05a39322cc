//! Export of the store as one JSON document, and its import.

use serde_json::{Map, Value, json};

use crate::account::Account;
use crate::etag;
use crate::policy::{self, Policy};
use crate::resource::{Projects, Resource, ResourceKey, Target};
use crate::world::World;

/// Projects, resources, service accounts and policies.
pub(crate) fn take(world: &World) -> Value {
    let projects: Vec<Value> = world
        .projects
        .all()
        .into_iter()
        .map(|project| json!({ "projectId": project.id, "projectNumber": project.number.to_string() }))
        .collect();
    let mut resources: Vec<(&ResourceKey, &Resource)> = world.resources.iter().collect();
    resources.sort_by_key(|(_, resource)| resource.seq);
    let resources: Vec<Value> = resources
        .into_iter()
        .map(|(key, resource)| {
            json!({
                "name": world.projects.name_of(key),
                "uid": resource.uid,
                "generation": resource.generation,
                "createTime": resource.created.to_string(),
                "updateTime": resource.updated.to_string(),
                "fields": resource.fields,
            })
        })
        .collect();
    let mut targets: Vec<&Target> = world.policies.keys().collect();
    targets.sort();
    let policies: Map<String, Value> = targets
        .into_iter()
        .filter_map(|target| {
            let current = world.current(target)?;
            Some((world.projects.target_name(target), policy::render(Some(&current), 3)))
        })
        .collect();
    let accounts: Vec<Value> = world
        .accounts
        .iter()
        .map(|((project, email), account)| {
            json!({
                "name": format!("projects/{}/serviceAccounts/{email}", world.projects.id(*project)),
                "uniqueId": account.unique_id,
                "displayName": account.display_name,
            })
        })
        .collect();
    json!({ "projects": projects, "resources": resources, "serviceAccounts": accounts, "policies": policies })
}

/// Replaces projects, resources, service accounts and policies by a document of [`take`]; on an error nothing is changed.
pub(crate) fn restore(world: &mut World, document: &Value) -> Result<(), String> {
    let mut fresh = World::default();
    for (index, project) in items(document, "projects")?.iter().enumerate() {
        let id = project["projectId"].as_str().ok_or_else(|| format!("projects[{index}].projectId is missing"))?;
        let number =
            number(&project["projectNumber"]).ok_or_else(|| format!("projects[{index}].projectNumber is missing"))?;
        fresh.projects.declare(id, number)?;
    }
    for (index, resource) in items(document, "resources")?.iter().enumerate() {
        let at = format!("resources[{index}]");
        let key = key(&mut fresh.projects, &resource["name"]).map_err(|error| format!("{at}.name: {error}"))?;
        let time = |field: &str| -> Result<jiff::Timestamp, String> {
            resource[field]
                .as_str()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| format!("{at}.{field} is not a timestamp"))
        };
        let seq = u64::try_from(index).unwrap_or(0) + 1;
        let restored = Resource {
            seq,
            uid: resource["uid"]
                .as_str()
                .filter(|uid| uid.len() >= 8 && uid.is_ascii())
                .ok_or_else(|| format!("{at}.uid is missing"))?
                .to_owned(),
            generation: number(&resource["generation"]).unwrap_or(1),
            created: time("createTime")?,
            updated: time("updateTime")?,
            fields: resource["fields"].as_object().cloned().unwrap_or_default(),
        };
        fresh.order.entry((key.project, key.kind, key.location.clone())).or_default().insert(seq, key.name.clone());
        fresh.resources.insert(key, restored);
        fresh.last_resource = seq;
    }
    for (index, account) in items(document, "serviceAccounts")?.iter().enumerate() {
        let at = format!("serviceAccounts[{index}]");
        let text = |field: &str| account[field].as_str().ok_or_else(|| format!("{at}.{field} is missing"));
        let Some(Target::ServiceAccount { project, email }) = fresh.projects.target(text("name")?) else {
            return Err(format!("{at}.name is not of the form projects/P/serviceAccounts/EMAIL"));
        };
        let (unique_id, display_name) = (text("uniqueId")?.to_owned(), text("displayName")?.to_owned());
        fresh.accounts.insert((project, email), Account { unique_id, display_name });
    }
    let empty = Map::new();
    for (name, policy) in document["policies"].as_object().unwrap_or(&empty) {
        let target = fresh.projects.target(name).ok_or_else(|| format!("policies: `{name}` is no resource"))?;
        let etag = policy["etag"]
            .as_str()
            .and_then(etag::decode)
            .and_then(|bytes| <[u8; 8]>::try_from(bytes).ok())
            .map(|mut bytes| {
                bytes[0] = 0;
                u64::from_be_bytes(bytes)
            })
            .ok_or_else(|| format!("policies[{name}].etag is not an etag"))?;
        let (bindings, audit_configs) = raw(policy)?;
        fresh.last_etag = fresh.last_etag.max(etag);
        fresh.place(&target, Policy { etag, bindings, audit_configs });
    }
    world.projects = fresh.projects;
    world.resources = fresh.resources;
    world.order = fresh.order;
    world.accounts = fresh.accounts;
    world.policies = fresh.policies;
    world.last_resource = world.last_resource.max(fresh.last_resource);
    world.last_etag = world.last_etag.max(fresh.last_etag);
    Ok(())
}

/// Parses bindings and audit configs without the checks of a client's write.
pub(crate) fn raw(policy: &Value) -> Result<(Vec<policy::Binding>, Vec<Value>), String> {
    let bindings = items(policy, "bindings")?
        .iter()
        .enumerate()
        .map(|(index, binding)| {
            policy::parse_binding(binding, &format!("bindings[{index}]")).map_err(|error| error.message)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((bindings, items(policy, "auditConfigs")?.to_vec()))
}

/// The Cloud Run resource with a v2 name.
pub(crate) fn key(projects: &mut Projects, name: &Value) -> Result<ResourceKey, String> {
    match name.as_str().and_then(|name| projects.target(name)) {
        Some(Target::Run(key)) if key.location != "-" && crate::resource::is_resource_name(&key.name) => Ok(key),
        _ => {
            Err(format!("{name} is not of the form projects/P/locations/L/(services|jobs|workerPools|instances)/NAME"))
        }
    }
}

fn items<'a>(object: &'a Value, field: &str) -> Result<&'a [Value], String> {
    match &object[field] {
        Value::Null => Ok(&[]),
        Value::Array(items) => Ok(items),
        _ => Err(format!("{field} is not a list")),
    }
}

/// A number, or a string with a number.
pub(crate) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
