//! Requests of identity providers, replayed as recorded (`tests/fixtures/idp/README.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{OKTA_TOKEN, Reply, Server};
use crate::model::ProviderName;
use crate::scim::Dialect;

pub(super) fn files(idp: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/idp").join(idp);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Replacements of ids in the files of one dialogue.
#[derive(Default)]
pub(super) struct Ids(BTreeMap<String, String>);

impl Ids {
    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, id) in &self.0 {
            text = text.replace(&format!("{{{{{name}}}}}"), id);
        }
        for number in 1..=3 {
            text = text
                .replace(&format!("{{{{unknown:{number}}}}}"), &format!("00000000-0000-4000-8000-00000000000{number}"));
        }
        assert!(!text.contains("{{"), "an id that no file saved: {text}");
        text
    }

    fn filled_json(&self, value: &Value) -> Value {
        serde_json::from_str(&self.filled(&value.to_string())).unwrap()
    }
}

/// The place where `wanted` is not part of `given`: listed members equal, listed elements in any order, an empty list
/// empty.
fn missing(given: &Value, wanted: &Value, at: &str) -> Option<String> {
    match (given, wanted) {
        (Value::Object(given), Value::Object(wanted)) => {
            wanted.iter().find_map(|(name, wanted)| match given.get(name) {
                Some(given) => missing(given, wanted, &format!("{at}/{name}")),
                None => Some(format!("{at}/{name} is missing")),
            })
        }
        (Value::Array(given), Value::Array(wanted)) if wanted.is_empty() => {
            (!given.is_empty()).then(|| format!("{at} is not empty: {given:?}"))
        }
        (Value::Array(given), Value::Array(wanted)) => wanted.iter().find_map(|wanted| {
            let there = given.iter().any(|given| missing(given, wanted, at).is_none());
            (!there).then(|| format!("{at} has no element {wanted}, only {given:?}"))
        }),
        _ => (given != wanted).then(|| format!("{at} is {given}, not {wanted}")),
    }
}

fn absent(body: &Value, pointer: &str) -> bool {
    // A URN in a pointer has no slash, so plain splitting is correct.
    match body.pointer(pointer) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

pub(super) async fn step(server: &Server, ids: &mut Ids, file: &Value) -> Result<(), String> {
    for given in file["given"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if ids.0.contains_key(given) {
            continue;
        }
        let (kind, name) = given.split_once(':').unwrap();
        let id = if kind == "user" { server.user(name).await } else { server.group(name, &[]).await };
        ids.0.insert(given.to_owned(), id);
    }
    let (request, expect) = (&file["request"], &file["expect"]);
    let method = request["method"].as_str().unwrap();
    let path = ids.filled(request["path"].as_str().unwrap());
    let mut headers: BTreeMap<String, Option<String>> =
        BTreeMap::from([("authorization".to_owned(), Some(format!("Bearer {OKTA_TOKEN}")))]);
    if request.get("body").is_some() {
        headers.insert("content-type".to_owned(), Some("application/scim+json".to_owned()));
    }
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        headers.insert(name.to_ascii_lowercase(), value.as_str().map(str::to_owned));
    }
    let headers: Vec<(&str, Option<&str>)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    let body = request.get("body").map(|body| ids.filled_json(body).to_string().into_bytes());
    let reply = server.send("okta", method, &path, &headers, body).await;

    let statuses: Vec<u64> = match &expect["status"] {
        Value::Array(list) => list.iter().filter_map(Value::as_u64).collect(),
        one => vec![one.as_u64().unwrap()],
    };
    if !statuses.contains(&u64::from(reply.status)) {
        return Err(format!("answered {} instead of {statuses:?}: {}", reply.status, reply.text));
    }
    if let Some(saves) = expect["saves"].as_str() {
        ids.0.insert(saves.to_owned(), reply.json()["id"].as_str().unwrap().to_owned());
    }
    well_formed(&reply, method)?;
    // An answer with chosen attributes may lack what a model requires.
    if reply.status != 204 && !path.contains("attributes=") {
        readable_by_others(&reply.json())?;
    }
    let shown = if reply.status == 204 && method != "DELETE" {
        let resource = path.split('?').next().unwrap();
        server.okta("GET", resource, None).await.json()
    } else if reply.text.is_empty() {
        Value::Null
    } else {
        reply.json()
    };
    if let Some(wanted) = expect.get("body_contains")
        && let Some(problem) = missing(&shown, &ids.filled_json(wanted), "")
    {
        return Err(problem);
    }
    for pointer in expect["body_absent"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !absent(&shown, pointer) {
            return Err(format!("{pointer} is there: {shown}"));
        }
    }
    if let Some(members) = expect["members_after"].as_array() {
        let wanted: BTreeSet<String> = members.iter().map(|name| ids.0[name.as_str().unwrap()].clone()).collect();
        let group = match expect["saves"].as_str() {
            Some(saved) => ids.0[saved].clone(),
            None => path.trim_start_matches("/Groups/").split('?').next().unwrap().to_owned(),
        };
        let members = server.members(&group).await;
        if members != wanted {
            return Err(format!("the members are {members:?}, not {wanted:?}"));
        }
    }
    Ok(())
}

/// Checks that hold for every answer, whatever was requested.
fn well_formed(reply: &Reply, method: &str) -> Result<(), String> {
    if reply.status == 204 {
        return if reply.text.is_empty() { Ok(()) } else { Err("204 with a body".into()) };
    }
    if !reply.header("content-type").starts_with("application/") {
        return Err(format!("content type `{}`", reply.header("content-type")));
    }
    if reply.status == 401 && reply.header("www-authenticate") != "Bearer" {
        return Err("401 without WWW-Authenticate".into());
    }
    let body = reply.json();
    if reply.status >= 400 && body["detail"].as_str().is_none_or(str::is_empty) {
        return Err("an error without detail".into());
    }
    if method == "POST" && reply.status == 201 && body["meta"]["location"] != json!(reply.header("location")) {
        return Err(format!("Location `{}` is not {}", reply.header("location"), body["meta"]["location"]));
    }
    Ok(())
}

/// Checks that a SCIM library that shares no code with this one can parse the answer.
fn readable_by_others(body: &Value) -> Result<(), String> {
    let problem = match body["schemas"][0].as_str().unwrap_or_default().rsplit(':').next() {
        Some("User") => serde_json::from_value::<scim_v2::models::user::User>(body.clone()).err(),
        Some("Group") => serde_json::from_value::<scim_v2::models::group::Group>(body.clone()).err(),
        Some("Schema") => serde_json::from_value::<scim_v2::models::scim_schema::Schema>(body.clone()).err(),
        Some("ResourceType") => {
            serde_json::from_value::<scim_v2::models::resource_types::ResourceType>(body.clone()).err()
        }
        Some("ServiceProviderConfig") => {
            let read =
                scim_v2::models::service_provider_config::ServiceProviderConfig::try_from(body.to_string().as_str());
            return read.map(drop).map_err(|error| format!("{error}: {body}"));
        }
        Some("ListResponse") => {
            return body["Resources"].as_array().into_iter().flatten().try_for_each(readable_by_others);
        }
        Some("Error") => None,
        other => return Err(format!("an answer of the schema {other:?}")),
    };
    problem.map_or(Ok(()), |error| Err(format!("{error}: {body}")))
}

async fn replay(idp: &str, dialect: Dialect) {
    let server = Server::start().await;
    let mut ids = Ids::default();
    let files = files(idp);
    assert!(!files.is_empty());
    for path in files {
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if let Err(problem) = step(&server, &mut ids, &file).await {
            panic!("{idp}/{}: {problem}", path.file_name().unwrap().to_string_lossy());
        }
    }
    assert_eq!(server.traffic.of(&ProviderName::new("okta").unwrap()).signs.dialect(), dialect);
}

#[tokio::test]
async fn the_dialogue_of_okta_runs_as_recorded() {
    replay("okta", Dialect::Okta).await;
}

#[tokio::test]
async fn the_dialogue_of_entra_runs_as_recorded() {
    replay("entra", Dialect::Entra).await;
}

#[tokio::test]
async fn the_dialogue_of_authentik_runs_as_recorded() {
    replay("authentik", Dialect::Authentik).await;
}

#[tokio::test]
async fn the_dialogue_of_keycloak_runs_as_recorded() {
    replay("keycloak", Dialect::Keycloak).await;
}

#[tokio::test]
async fn the_dialogue_of_jumpcloud_runs_as_recorded() {
    replay("jumpcloud", Dialect::JumpCloud).await;
}

#[tokio::test]
async fn the_dialogue_of_onelogin_runs_as_recorded() {
    replay("onelogin", Dialect::OneLogin).await;
}

#[tokio::test]
async fn the_dialogue_of_ping_runs_as_recorded() {
    replay("ping", Dialect::Ping).await;
}

#[tokio::test]
async fn the_dialogue_of_google_runs_as_recorded() {
    replay("google", Dialect::Google).await;
}

#[tokio::test]
async fn the_published_test_of_okta_passes_step_by_step() {
    replay("okta-spec-test", Dialect::Okta).await;
}

#[tokio::test]
async fn the_published_validation_of_microsofts_gallery_passes_step_by_step() {
    replay("entra-validation", Dialect::Entra).await;
}

#[tokio::test]
async fn microsofts_scim_validator_passes_step_by_step() {
    replay("entra-scim-validator", Dialect::Entra).await;
}
