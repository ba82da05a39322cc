//! The control API under `/__emulator/`, by which tests set up and inspect the emulator.

mod directory;

use bytes::Bytes;
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::ControlError;
use crate::call::form_value;
use crate::caller::Token;
use crate::journal::Entry;
use crate::policy::{self, Binding};
use crate::quota::Limits;
use crate::resource::Target;
use crate::snapshot::{self, key, number};
use crate::world::{Trace, World};
use crate::{account, fault, run};

/// The switches that are fields of a control call, by topic: [`fields`] accepts no others.
const LAG: [&str; 2] = ["readMs", "effectMs"];
const QUOTA: [&str; 4] = ["reads", "writes", "status", "retryAfter"];
const CLOCK: [&str; 2] = ["advanceMs", "set"];
const CALLERS: [&str; 3] = ["requireToken", "tokens", "permissions"];
const POLICIES: [&str; 2] = ["add", "remove"];

/// All switches of the control API by topic. `settings` are limits; `GET settings` lists them.
fn switches() -> Value {
    let directory = [&directory::FIELDS[..], &directory::ACTIONS[..]].concat();
    json!({
        "lag": LAG,
        "quota": QUOTA,
        "clock": CLOCK,
        "callers": CALLERS,
        "policies": POLICIES,
        "directory": directory,
        "faults": fault::ACTIONS,
        "resources": ["recreate"],
        "settings": [],
    })
}

impl From<String> for ControlError {
    fn from(message: String) -> Self {
        Self { status: 400, message }
    }
}

fn wrong(message: impl Into<String>) -> ControlError {
    ControlError::from(message.into())
}

fn missing(message: impl Into<String>) -> ControlError {
    ControlError { status: 404, message: message.into() }
}

/// Answers one control call, which takes effect as a whole or not at all.
pub(crate) fn answer(
    world: &mut World,
    method: &str,
    path: &str,
    query: &str,
    body: &Value,
) -> Result<Value, ControlError> {
    let (topic, rest) = path.split_once('/').unwrap_or((path, ""));
    match (method, topic, rest) {
        ("GET", "", "") => Ok(json!({ "status": "ok", "lastSeq": world.journal.last_seq(), "switches": switches() })),
        ("POST", "reset", "") => {
            world.reset();
            Ok(json!({}))
        }
        ("GET", "journal", "") => journal(world, query),
        ("DELETE", "journal", "") => {
            world.journal.clear();
            Ok(json!({}))
        }
        ("GET", "faults", "") => Ok(world.faults.to_json()),
        ("POST" | "PUT", "faults", "") => add_faults(world, method == "PUT", body),
        ("DELETE", "faults", "") => {
            world.faults.clear();
            Ok(json!({}))
        }
        (_, "policies", name) => policies(world, method, name, body),
        (_, "resources", name) => resources(world, method, name, body),
        (_, "directory", action) => directory::answer(world, method, action, body),
        (_, "quota", "") => quota(world, method, body),
        (_, "lag", "") => lag(world, method, body),
        (_, "clock", "") => clock(world, method, body),
        (_, "callers", "") => callers(world, method, body),
        (_, "projects", "") => projects(world, method, body),
        ("GET", "settings", "") => settings(world),
        ("POST" | "PUT" | "PATCH", "settings", "") => {
            world.settings = world.settings.with(body)?;
            settings(world)
        }
        ("GET", "snapshot", "") => Ok(snapshot::take(world)),
        ("POST" | "PUT", "restore", "") => {
            snapshot::restore(world, body)?;
            Ok(json!({}))
        }
        (
            _,
            "reset" | "journal" | "faults" | "quota" | "lag" | "clock" | "callers" | "projects" | "settings"
            | "snapshot" | "restore",
            _,
        ) => Err(ControlError { status: 405, message: format!("`{method}` is not possible on `{path}`") }),
        _ => Err(missing(format!("there is no `{path}` in the control API"))),
    }
}

/// Refuses unknown fields, which would have no effect.
fn fields<'a>(body: &'a Value, known: &[&str]) -> Result<&'a Map<String, Value>, ControlError> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    let object = match body {
        Value::Null => &*EMPTY,
        Value::Object(object) => object,
        _ => return Err(wrong("the body must be a JSON object")),
    };
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(wrong(format!("unknown field `{key}`; known are {}", known.join(", ")))),
        None => Ok(object),
    }
}

fn strings(value: &Value, at: &str) -> Result<Vec<String>, ControlError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong(format!("`{at}` must hold strings"))))
            .collect(),
        _ => Err(wrong(format!("`{at}` must be a list of strings"))),
    }
}

fn optional_number(object: &Map<String, Value>, name: &str) -> Result<Option<u64>, ControlError> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => number(value).map(Some).ok_or_else(|| wrong(format!("`{name}` must be a whole number"))),
    }
}

fn journal(world: &World, query: &str) -> Result<Value, ControlError> {
    let parameter = |name: &str| form_value(query, name);
    let whole = |name: &str| -> Result<Option<u64>, ControlError> {
        parameter(name)
            .map(|text| text.parse().map_err(|_| wrong(format!("`{name}` must be a whole number, not `{text}`"))))
            .transpose()
    };
    let regex = parameter("pathRegex")
        .map(|pattern| Regex::new(&pattern).map_err(|error| wrong(format!("`pathRegex`: {error}"))))
        .transpose()?;
    let (method, path, caller, resource) =
        (parameter("method"), parameter("path"), parameter("caller"), parameter("resource"));
    let (status, since, limit) = (whole("status")?, whole("since")?, whole("limit")?);
    let committed = parameter("committed").map(|text| text == "true");
    let fault = parameter("fault");
    let control = parameter("control").as_deref() == Some("true");
    let hits = world.journal.entries().filter(|entry| {
        (control || !entry.control)
            && method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&entry.method))
            && path.as_ref().is_none_or(|part| entry.path.contains(part.as_str()))
            && regex.as_ref().is_none_or(|regex| regex.is_match(&entry.path))
            && caller.as_ref().is_none_or(|wanted| *wanted == entry.caller)
            && resource.as_ref().is_none_or(|wanted| Some(wanted) == entry.resource.as_ref())
            && status.is_none_or(|wanted| entry.status.map(u64::from) == Some(wanted))
            && since.is_none_or(|seq| entry.seq > seq)
            && committed.is_none_or(|wanted| entry.committed == wanted)
            && fault.as_ref().is_none_or(|wanted| entry.fault == Some(wanted))
    });
    let summary = |count: usize| json!({ "count": count, "lastSeq": world.journal.last_seq(), "dropped": world.journal.dropped() });
    if parameter("count").as_deref() == Some("true") {
        return Ok(summary(hits.count()));
    }
    let brief = parameter("brief").as_deref() == Some("true");
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let entries: Vec<Value> = hits.take(limit).map(|entry| entry.to_json(!brief)).collect();
    let mut reply = summary(entries.len());
    reply["entries"] = Value::Array(entries);
    Ok(reply)
}

fn add_faults(world: &mut World, replace: bool, body: &Value) -> Result<Value, ControlError> {
    let (list, seed) = match body {
        Value::Array(list) => (list.clone(), None),
        Value::Object(object) if object.contains_key("faults") => {
            let object = fields(&Value::Object(object.clone()), &["faults", "seed"])?.clone();
            let Some(Value::Array(list)) = object.get("faults") else { return Err(wrong("`faults` must be a list")) };
            (list.clone(), optional_number(&object, "seed")?)
        }
        Value::Object(_) => (vec![body.clone()], None),
        _ => return Err(wrong("the body must be a fault, a list of faults or an object with `faults`")),
    };
    let specs = list
        .into_iter()
        .enumerate()
        .map(|(index, spec)| serde_json::from_value(spec).map_err(|error| wrong(format!("faults[{index}]: {error}"))))
        .collect::<Result<Vec<fault::FaultSpec>, _>>()?;
    let mut fresh = fault::Faults::default();
    fresh.add(specs.clone())?;
    if replace {
        world.faults = fresh;
    } else {
        world.faults.add(specs)?;
    }
    if let Some(seed) = seed {
        world.faults.seed(seed);
    }
    Ok(world.faults.to_json())
}

fn target(world: &mut World, name: &str) -> Result<Target, ControlError> {
    let found = world.projects.target(name).ok_or_else(|| {
        wrong(format!(
            "`{name}` is not of the form projects/P, projects/P/locations/L/services/NAME, projects/P/serviceAccounts/EMAIL or \
             projects/P/iap_web/…"
        ))
    })?;
    world.must_exist(&found).map_err(|error| missing(error.message))?;
    Ok(found)
}

fn policies(world: &mut World, method: &str, name: &str, body: &Value) -> Result<Value, ControlError> {
    if name.is_empty() {
        return match method {
            "GET" => Ok(json!({ "policies": snapshot::take(world)["policies"] })),
            _ => Err(ControlError { status: 405, message: "name the resource: policies/projects/…".into() }),
        };
    }
    let target = target(world, name)?;
    let current = world.current(&target);
    let audit_configs = current.as_ref().map(|policy| policy.audit_configs.clone()).unwrap_or_default();
    match method {
        "GET" => return Ok(policy::render(current.as_deref(), 3)),
        "PUT" => {
            fields(body, &["bindings", "auditConfigs", "version", "etag"])?;
            let (bindings, audit_configs) = snapshot::raw(body)?;
            world.commit(&target, bindings, audit_configs);
        }
        "POST" => {
            let object = fields(body, &POLICIES)?;
            let mut bindings = current.as_ref().map(|policy| policy.bindings.clone()).unwrap_or_default();
            for binding in edits(object, "remove")? {
                for old in &mut bindings {
                    if old.role == binding.role && old.condition == binding.condition {
                        old.members.retain(|name| !binding.members.contains(name));
                    }
                }
            }
            bindings.extend(edits(object, "add")?);
            world.commit(&target, policy::merge(bindings), audit_configs);
        }
        "DELETE" => world.drop_policy(&target),
        _ => return Err(ControlError { status: 405, message: format!("`{method}` is not possible on a policy") }),
    }
    record(world, method, name, body);
    let after = world.current(&target);
    Ok(policy::render(after.as_deref(), 3))
}

/// The bindings of `add` or `remove`; `member` may replace `members` with one entry.
fn edits(object: &Map<String, Value>, name: &str) -> Result<Vec<Binding>, ControlError> {
    let list = match object.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.clone(),
        Some(one @ Value::Object(_)) => vec![one.clone()],
        Some(_) => return Err(wrong(format!("`{name}` must be a list of bindings"))),
    };
    list.into_iter()
        .enumerate()
        .map(|(index, mut binding)| {
            if let Some(member) = binding.as_object_mut().and_then(|binding| binding.shift_remove("member")) {
                binding["members"] = json!([member]);
            }
            policy::parse_binding(&binding, &format!("{name}[{index}]")).map_err(|error| wrong(error.message))
        })
        .collect()
}

/// Records edits of policies in the journal, marked `control`.
fn record(world: &mut World, method: &str, name: &str, body: &Value) {
    let Trace { resource, policies, committed } = std::mem::take(&mut world.trace);
    let entry = Entry {
        seq: 0,
        time: world.clock.now(),
        method: method.to_owned(),
        path: format!("/__emulator/policies/{name}"),
        query: String::new(),
        caller: "control".to_owned(),
        body: if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) },
        status: Some(200),
        fault: None,
        committed,
        resource,
        control: true,
        policies,
    };
    let (entries, bytes) = (world.settings.journal_entries, world.settings.journal_bytes);
    world.journal.push(entry, entries, bytes);
}

/// `resources/projects/P/serviceAccounts/EMAIL`: `POST` creates the account, or replaces it by another one of that name
/// with `:recreate`; `DELETE` deletes it.
fn account(world: &mut World, method: &str, name: &str, body: &Value) -> Result<Value, ControlError> {
    let (name, recreate) = name.strip_suffix(":recreate").map_or((name, false), |name| (name, true));
    let Some(Target::ServiceAccount { project, email }) = world.projects.target(name) else {
        return Err(wrong(format!("`{name}` is not of the form projects/P/serviceAccounts/EMAIL")));
    };
    let display_name = fields(body, &["displayName"])?.get("displayName").and_then(Value::as_str).unwrap_or_default();
    let exists = world.accounts.contains_key(&(project, email.clone()));
    match (method, exists) {
        ("POST", true) if !recreate => Err(ControlError { status: 409, message: format!("{name} exists already") }),
        ("POST", false) if recreate => Err(missing(format!("{name} does not exist"))),
        ("POST", _) => {
            account::insert(world, project, &email, display_name.to_owned());
            Ok(json!({ "uniqueId": world.accounts[&(project, email)].unique_id }))
        }
        ("GET" | "DELETE", false) => Err(missing(format!("{name} does not exist"))),
        ("GET", true) => Ok(json!({ "uniqueId": world.accounts[&(project, email)].unique_id })),
        ("DELETE", true) => {
            account::remove(world, project, &email);
            Ok(json!({}))
        }
        _ => Err(ControlError { status: 405, message: format!("`{method}` is not possible on `{name}`") }),
    }
}

fn resources(world: &mut World, method: &str, name: &str, body: &Value) -> Result<Value, ControlError> {
    if name.contains("/serviceAccounts/") {
        return account(world, method, name, body);
    }
    match (method, name) {
        ("GET", "") => Ok(json!({ "resources": snapshot::take(world)["resources"] })),
        ("POST", "") => {
            let list = match body {
                Value::Object(object) if object.contains_key("resources") => match &object["resources"] {
                    Value::Array(list) => list.clone(),
                    _ => return Err(wrong("`resources` must be a list")),
                },
                Value::Object(_) => vec![body.clone()],
                Value::Array(list) => list.clone(),
                _ => return Err(wrong("the body must be a resource or a list of them")),
            };
            let mut fresh = Vec::with_capacity(list.len());
            for (index, resource) in list.into_iter().enumerate() {
                let Value::Object(mut own) = resource else {
                    return Err(wrong(format!("resources[{index}] must be an object")));
                };
                let name = own.shift_remove("name").unwrap_or_default();
                let key = key(&mut world.projects, &name)
                    .map_err(|error| wrong(format!("resources[{index}].name: {error}")))?;
                if world.resources.contains_key(&key) {
                    return Err(ControlError {
                        status: 409,
                        message: format!("resources[{index}]: {name} exists already"),
                    });
                }
                fresh.push((key, own));
            }
            let count = fresh.len();
            for (key, own) in fresh {
                run::insert(world, &key, own);
            }
            Ok(json!({ "created": count }))
        }
        (_, "") => Err(ControlError { status: 405, message: format!("`{method}` is not possible on `resources`") }),
        (method, name) => {
            let (name, recreate) = match name.strip_suffix(":recreate") {
                Some(name) => (name, true),
                None => (name, false),
            };
            let key = key(&mut world.projects, &json!(name))?;
            let Some(resource) = world.resources.get_mut(&key) else {
                return Err(missing(world.not_found(&key).message));
            };
            match (method, recreate) {
                ("POST", true) => {
                    let own = resource.fields.clone();
                    run::insert(world, &key, own);
                }
                ("PATCH", false) => {
                    let Value::Object(change) = body else { return Err(wrong("the body must be a JSON object")) };
                    for (field, value) in change {
                        match value {
                            Value::Null => resource.fields.shift_remove(field),
                            value => resource.fields.insert(field.clone(), value.clone()),
                        };
                    }
                    resource.generation += 1;
                    resource.updated = world.clock.now();
                }
                ("DELETE", false) => {
                    run::remove(world, &key);
                    return Ok(json!({}));
                }
                ("GET", false) => {}
                _ => {
                    return Err(ControlError {
                        status: 405,
                        message: format!("`{method}` is not possible on `{name}`"),
                    });
                }
            }
            run::get(world, "control", &key).map_err(|error| wrong(error.message))
        }
    }
}

fn quota(world: &mut World, method: &str, body: &Value) -> Result<Value, ControlError> {
    match method {
        "GET" => {}
        "DELETE" => world.quota.set(None),
        "POST" | "PUT" => {
            let object = fields(body, &QUOTA)?;
            let per_minute = |name: &str, default: u32| -> Result<u32, ControlError> {
                optional_number(object, name)?.map_or(Ok(default), |value| {
                    u32::try_from(value).map_err(|_| wrong(format!("`{name}` is too large")))
                })
            };
            let limits = Limits {
                reads: per_minute("reads", 600)?,
                writes: per_minute("writes", 60)?,
                as_forbidden: match optional_number(object, "status")? {
                    None | Some(429) => false,
                    Some(403) => true,
                    Some(other) => return Err(wrong(format!("`status` must be 429 or 403, not {other}"))),
                },
                retry_after: optional_number(object, "retryAfter")?,
            };
            world.quota.set(Some(limits));
        }
        _ => return Err(ControlError { status: 405, message: format!("`{method}` is not possible on `quota`") }),
    }
    Ok(match world.quota.limits {
        None => json!({ "enabled": false }),
        Some(limits) => json!({
            "enabled": true,
            "reads": limits.reads,
            "writes": limits.writes,
            "status": if limits.as_forbidden { 403 } else { 429 },
            "retryAfter": limits.retry_after,
        }),
    })
}

fn lag(world: &mut World, method: &str, body: &Value) -> Result<Value, ControlError> {
    match method {
        "GET" => {}
        "DELETE" => world.lag = crate::world::Lag::default(),
        "POST" | "PUT" => {
            let object = fields(body, &LAG)?;
            if let Some(milliseconds) = optional_number(object, "readMs")? {
                world.lag.read = milliseconds.saturating_mul(1000);
            }
            if let Some(milliseconds) = optional_number(object, "effectMs")? {
                world.lag.effect = milliseconds.saturating_mul(1000);
            }
        }
        _ => return Err(ControlError { status: 405, message: format!("`{method}` is not possible on `lag`") }),
    }
    Ok(json!({ "readMs": world.lag.read / 1000, "effectMs": world.lag.effect / 1000 }))
}

fn clock(world: &mut World, method: &str, body: &Value) -> Result<Value, ControlError> {
    match method {
        "GET" => {}
        "DELETE" => world.clock.offset_micros = 0,
        "POST" | "PUT" => {
            let object = fields(body, &CLOCK)?;
            if let Some(milliseconds) = optional_number(object, "advanceMs")? {
                let micros =
                    i64::try_from(milliseconds.saturating_mul(1000)).map_err(|_| wrong("`advanceMs` is too large"))?;
                world.clock.offset_micros = world.clock.offset_micros.saturating_add(micros);
            }
            if let Some(set) = object.get("set") {
                let wanted: jiff::Timestamp = set
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| wrong("`set` must be an RFC 3339 time"))?;
                world.clock.offset_micros += wanted.as_microsecond().saturating_sub(world.clock.now().as_microsecond());
            }
        }
        _ => return Err(ControlError { status: 405, message: format!("`{method}` is not possible on `clock`") }),
    }
    Ok(json!({ "now": world.clock.now().to_string() }))
}

fn callers(world: &mut World, method: &str, body: &Value) -> Result<Value, ControlError> {
    match method {
        "GET" => {}
        "DELETE" => world.callers = crate::caller::Callers::default(),
        "POST" | "PUT" => {
            let object = fields(body, &CALLERS)?;
            let map = |name: &str| match object.get(name) {
                None => Ok(Map::new()),
                Some(Value::Object(map)) => Ok(map.clone()),
                Some(_) => Err(wrong(format!("`{name}` must be an object"))),
            };
            let mut tokens = Vec::new();
            for (token, principal) in map("tokens")? {
                let principal = principal.as_str().ok_or_else(|| wrong("`tokens` must map tokens to principals"))?;
                tokens.push((token, Token { principal: principal.to_owned(), expires: None }));
            }
            let mut permissions = Vec::new();
            for (principal, held) in map("permissions")? {
                permissions.push((principal, if held.is_null() { None } else { Some(strings(&held, "permissions")?) }));
            }
            if let Some(required) = object.get("requireToken") {
                world.callers.require_token =
                    required.as_bool().ok_or_else(|| wrong("`requireToken` must be true or false"))?;
            }
            world.callers.tokens.extend(tokens);
            for (principal, held) in permissions {
                match held {
                    Some(held) => world.callers.permissions.insert(principal, held),
                    None => world.callers.permissions.remove(&principal),
                };
            }
        }
        _ => return Err(ControlError { status: 405, message: format!("`{method}` is not possible on `callers`") }),
    }
    Ok(json!({
        "requireToken": world.callers.require_token,
        "tokens": world.callers.tokens.len(),
        "permissions": world.callers.permissions,
    }))
}

fn projects(world: &mut World, method: &str, body: &Value) -> Result<Value, ControlError> {
    match method {
        "GET" => {}
        "POST" | "PUT" => {
            let object = fields(body, &["projectId", "projectNumber"])?;
            let id = object.get("projectId").and_then(Value::as_str).ok_or_else(|| wrong("`projectId` is missing"))?;
            match optional_number(object, "projectNumber")? {
                Some(number) => world.projects.declare(id, number)?,
                None => {
                    world.projects.resolve(id).ok_or_else(|| wrong(format!("`{id}` is not a project id")))?;
                }
            }
        }
        _ => return Err(ControlError { status: 405, message: format!("`{method}` is not possible on `projects`") }),
    }
    Ok(json!({ "projects": snapshot::take(world)["projects"] }))
}

fn settings(world: &World) -> Result<Value, ControlError> {
    serde_json::to_value(&world.settings).map_err(|error| ControlError { status: 500, message: error.to_string() })
}
