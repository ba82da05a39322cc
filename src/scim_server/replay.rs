//! Captured requests, sent again to the endpoint with an empty directory.
//!
//! Ids and cursors of the captured answers are replaced by those that the endpoint gives now. What existed before the capture
//! began, as its answers show, is created first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use jiff::Timestamp;
use regex::{Captures as Found, Regex};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use super::capture::{Capture, CapturedFinding, Captures, Content, Exchange};
use super::{Accepted, AcceptedToken, Issuers, Limits, Scim, TokenTable, Traffic, layers, router};
use crate::model::{Clock, ProviderName};
use crate::scim::{FindingCode, REDACTED_SERVER, issued_id};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// The bearer token of the replay.
const TOKEN: &str = "the-token-of-a-replay-0123456789abcdef";
/// Why a request is skipped.
const NEEDS_SCHEMAS: &str = "it needs the schemas of --scim-schemas, which a capture does not have";
/// Largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A captured request, and what it came to when it was sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replayed {
    /// The method.
    pub(crate) method: String,
    /// Path and query, as captured.
    pub(crate) request: String,
    /// Captured status.
    pub(crate) captured: u16,
    /// Status of the replay; none when the request was skipped, or its body was not kept, so that it was not sent.
    #[serde(rename = "replayed")]
    pub(crate) answered: Option<u16>,
    /// Why it was skipped, so that nothing is compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<&'static str>,
    /// What is different.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) differences: Vec<String>,
    /// Findings of the replay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<CapturedFinding>,
    /// Text of the refusal at the replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

/// The outcome of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replay {
    /// Resources that existed before the capture and were created first.
    pub(crate) existed_before: usize,
    /// The requests.
    pub(crate) requests: Vec<Replayed>,
}

impl Replay {
    /// True when each request was sent and answered as before, or skipped.
    pub(crate) fn is_same(&self) -> bool {
        self.requests.iter().all(|one| one.skipped.is_some() || (one.answered.is_some() && one.differences.is_empty()))
    }

    /// Number of skipped requests.
    pub(crate) fn skipped(&self) -> usize {
        self.requests.iter().filter(|one| one.skipped.is_some()).count()
    }
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The directory cannot be created.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client for OpenID Connect issuers, which is not used, cannot be set up.
    #[error("cannot set up the endpoint: {0}")]
    Issuers(#[from] reqwest::Error),
    /// A request of the file cannot be sent.
    #[error("request {number} of the capture is no request: {problem}")]
    Request {
        /// Its number, from 1.
        number: usize,
        /// The problem.
        problem: String,
    },
}

/// Shows the time of the request that is being sent.
struct ReplayClock(Mutex<Timestamp>);

impl ReplayClock {
    fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Clock for ReplayClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Player {
    router: Router,
    provider: ProviderName,
    clock: Arc<ReplayClock>,
    /// Ids and cursors as captured, and as given now.
    given: BTreeMap<String, String>,
}

struct Answer {
    status: u16,
    body: Value,
    findings: Vec<CapturedFinding>,
}

/// Sends the requests of a capture to an endpoint with an empty directory in `folder`.
pub(crate) async fn replay(capture: &Capture, folder: &Path) -> Result<Replay, ReplayError> {
    let begin = capture.requests.first().map_or(Timestamp::UNIX_EPOCH, |first| first.at);
    let clock = Arc::new(ReplayClock(Mutex::new(begin)));
    let store = Store::open(&format!("sqlite:{}", folder.join("replay.db").display()), clock.clone()).await?;
    let tokens = TokenTable::new();
    let provider = capture.identity_provider.clone();
    let token = AcceptedToken { name: "replay".into(), sha256: Sha256::digest(TOKEN).into(), not_after: None };
    tokens.replace(BTreeMap::from([(provider.clone(), Accepted { tokens: vec![token], ..Accepted::default() })]));
    tokens.set_dialects(BTreeMap::from([(provider.clone(), capture.dialect)]));
    tokens.set_strict(capture.strict.then(|| provider.clone()).into_iter().collect());
    let router = router(Scim {
        store,
        tokens,
        issuers: Issuers::new(false, Vec::new())?,
        traffic: Traffic::new(),
        captures: Captures::new(jiff::SignedDuration::ZERO, ""),
        external_url: REDACTED_SERVER.to_owned(),
        clock: clock.clone(),
        types: Arc::default(),
        limits: Limits { requests_per_second: None, ..Limits::default() },
        metrics: Metrics::new().scim.clone(),
    });
    let mut player = Player { router, provider, clock, given: BTreeMap::new() };
    let existed_before = player.create_existing(capture, begin).await;
    let mut requests = Vec::with_capacity(capture.requests.len());
    for (index, exchange) in capture.requests.iter().enumerate() {
        let sent = player.play(exchange).await;
        requests.push(sent.map_err(|problem| ReplayError::Request { number: index + 1, problem })?);
    }
    Ok(Replay { existed_before, requests })
}

impl Player {
    /// Sends a request. Its texts are of the capture.
    async fn send(
        &self,
        (method, target): (&str, &str),
        headers: &BTreeMap<String, String>,
        body: Option<String>,
    ) -> Result<Answer, String> {
        let uri = format!("/idp/{}/scim/v2{}", self.provider, self.now(target));
        let mut request = Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {TOKEN}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(self.now(&body)));
        let request = request.body(body).map_err(|error| error.to_string())?;
        let answered = self.router.clone().oneshot(request).await;
        let response = answered.unwrap_or_else(|never| match never {});
        let status = response.status().as_u16();
        let findings = response.extensions().get::<layers::Noted>().map(|noted| noted.0.clone()).unwrap_or_default();
        let bytes = to_bytes(response.into_body(), MAX_ANSWER).await.map_err(|error| error.to_string())?;
        let findings = findings
            .into_iter()
            .map(|finding| CapturedFinding { code: finding.code.as_str().to_owned(), pointer: finding.pointer });
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), findings: findings.collect() })
    }

    /// A text with the ids and cursors that were given now.
    fn now(&self, text: &str) -> String {
        static GIVEN: LazyLock<Option<Regex>> = LazyLock::new(|| {
            Regex::new(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[\w-]{34}(?:[^\w-]|$)").ok()
        });
        let Some(pattern) = &*GIVEN else { return text.to_owned() };
        let replaced = pattern.replace_all(text, |found: &Found<'_>| {
            let word = &found[0];
            let end = word.find(|one: char| one != '-' && one != '_' && !one.is_alphanumeric()).unwrap_or(word.len());
            let known = self.given.get(&word[..end]).map_or(&word[..end], String::as_str);
            format!("{known}{}", &word[end..])
        });
        replaced.into_owned()
    }

    /// Creates what existed before the capture. Returns how many resources that were.
    async fn create_existing(&mut self, capture: &Capture, begin: Timestamp) -> usize {
        let existing = Existing::of(&capture.requests);
        self.clock.set(begin.checked_sub(Duration::from_secs(1)).unwrap_or(begin));
        let json = BTreeMap::from([("content-type".to_owned(), "application/scim+json".to_owned())]);
        for endpoint in ["/Users", "/Groups"] {
            for (id, shown) in existing.shown.iter().filter(|(id, _)| existing.endpoints.get(*id) == Some(&endpoint)) {
                let name = if endpoint == "/Users" { "userName" } else { "displayName" };
                let unnamed = Map::from_iter([(name.to_owned(), Value::from(format!("existed before {id}")))]);
                for body in [shown.clone().unwrap_or_else(|| unnamed.clone()), unnamed] {
                    let body = Value::Object(body).to_string();
                    if let Ok(answer) = self.send(("POST", endpoint), &json, Some(body)).await
                        && let Some(given) = answer.body["id"].as_str()
                    {
                        self.given.insert(id.clone(), given.to_owned());
                        break;
                    }
                }
            }
        }
        existing.shown.len()
    }

    async fn play(&mut self, exchange: &Exchange) -> Result<Replayed, String> {
        let query = exchange.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
        let mut played = Replayed {
            method: exchange.method.clone(),
            request: format!("{}{query}", exchange.path),
            captured: exchange.status,
            answered: None,
            skipped: exchange.needs_schemas_from_file.then_some(NEEDS_SCHEMAS),
            differences: Vec::new(),
            findings: Vec::new(),
            detail: None,
        };
        let body = match &exchange.body {
            Content::None => None,
            Content::Json(value) => Some(value.to_string()),
            Content::Text(text) => Some(text.clone()),
            Content::Omitted(_) if played.skipped.is_some() => return Ok(played),
            Content::Omitted(_) => {
                played.differences.push("not sent: its body was too large to be kept".to_owned());
                return Ok(played);
            }
        };
        self.clock.set(exchange.at);
        let answer = self.send((&exchange.method, &played.request), &exchange.headers, body).await?;
        self.learn(exchange, &answer.body);
        if played.skipped.is_some() {
            // It was sent nevertheless: later requests may be about users and groups that it made.
            return Ok(played);
        }
        played.answered = Some(answer.status);
        played.detail = answer.body["detail"].as_str().map(str::to_owned);
        played.differences = differences(exchange, &answer);
        played.findings = answer.findings;
        Ok(played)
    }

    /// Notes the ids and cursors that stand at the same places of both answers.
    fn learn(&mut self, exchange: &Exchange, answer: &Value) {
        let Content::Json(captured) = &exchange.answer else { return };
        let mut note = |before: &Value, now: &Value| {
            if let (Some(before), Some(now)) = (before.as_str(), now.as_str()) {
                self.given.insert(before.to_owned(), now.to_owned());
            }
        };
        if exchange.status == 201 {
            note(&captured["id"], &answer["id"]);
        }
        note(&captured["nextCursor"], &answer["nextCursor"]);
        let operations = |body: &Value| body["Operations"].as_array().cloned().unwrap_or_default();
        let id = |operation: &Value| {
            operation["location"]
                .as_str()
                .and_then(|location| location.rsplit('/').next())
                .map_or(Value::Null, Value::from)
        };
        for (before, now) in operations(captured).iter().zip(&operations(answer)) {
            if before["status"] == "201" {
                note(&id(before), &id(now));
            }
        }
    }
}

/// What is different between two answers.
fn differences(exchange: &Exchange, answer: &Answer) -> Vec<String> {
    let mut differences = Vec::new();
    if exchange.status != answer.status {
        differences.push(format!("status {} instead of {}", answer.status, exchange.status));
    }
    if let Content::Json(captured) = &exchange.answer {
        for name in ["scimType", "totalResults"] {
            if captured[name] != answer.body[name] {
                differences.push(format!("{name} {} instead of {}", answer.body[name], captured[name]));
            }
        }
        let statuses = |body: &Value| -> Vec<Value> {
            body["Operations"].as_array().into_iter().flatten().map(|done| done["status"].clone()).collect()
        };
        if statuses(captured) != statuses(&answer.body) {
            differences.push("other statuses of operations".to_owned());
        }
    }
    let set = |findings: &[CapturedFinding]| -> BTreeSet<String> {
        findings.iter().map(|finding| finding.code.clone()).collect()
    };
    let (before, now) = (set(&exchange.findings), set(&answer.findings));
    differences.extend(now.difference(&before).map(|code| format!("new finding {code}")));
    differences.extend(before.difference(&now).map(|code| format!("no finding {code}")));
    differences
}

/// What existed before a capture, by its id.
#[derive(Default)]
struct Existing {
    endpoints: BTreeMap<String, &'static str>,
    /// What the first answer shows of it; none: nothing.
    shown: BTreeMap<String, Option<Map<String, Value>>>,
}

impl Existing {
    fn of(requests: &[Exchange]) -> Self {
        let (mut existing, mut created) = (Self::default(), BTreeSet::new());
        for exchange in requests.iter().filter(|exchange| (200..300).contains(&exchange.status)) {
            let answer = match &exchange.answer {
                Content::Json(answer) => answer,
                Content::None | Content::Text(_) | Content::Omitted(_) => &Value::Null,
            };
            let done = answer["Operations"].as_array().into_iter().flatten();
            for location in done.filter(|one| one["status"] == "201").filter_map(|one| one["location"].as_str()) {
                created.extend(location.rsplit('/').next().map(str::to_owned));
            }
            if exchange.status == 201 {
                created.extend(answer["id"].as_str().map(str::to_owned));
                continue;
            }
            for resource in answer["Resources"].as_array().into_iter().flatten().chain([answer]) {
                existing.resource(resource, &created);
            }
            if exchange.findings.iter().all(|finding| finding.code != FindingCode::MemberUnknown.as_str()) {
                let mut members = BTreeSet::new();
                if let Content::Json(body) = &exchange.body {
                    member_ids(body, false, &mut members);
                }
                // A request that names a member says not what it is: a user, in nearly all cases.
                for id in members.into_iter().filter(|id| !created.contains(id)) {
                    existing.endpoints.entry(id.clone()).or_insert("/Users");
                    existing.shown.entry(id).or_insert(None);
                }
            }
            // An answer without a body.
            let mut segments = exchange.path.trim_matches('/').split('/');
            if let (Some(endpoint), Some(id), None) =
                (segments.next().and_then(endpoint), segments.next(), segments.next())
                && !created.contains(id)
                && id != ".search"
            {
                existing.endpoints.entry(id.to_owned()).or_insert(endpoint);
                existing.shown.entry(id.to_owned()).or_insert(None);
            }
        }
        existing
    }

    fn resource(&mut self, resource: &Value, created: &BTreeSet<String>) {
        let Some(id) = resource["id"].as_str().filter(|id| !created.contains(*id)) else { return };
        let named = resource["meta"]["resourceType"].as_str();
        let Some(endpoint) = named.and_then(|name| endpoint(&format!("{name}s"))) else { return };
        let mut body = resource.as_object().cloned().unwrap_or_default();
        for computed in ["id", "meta", "groups"] {
            body.remove(computed);
        }
        let shown = self.shown.entry(id.to_owned()).or_default();
        if shown.is_none() {
            self.endpoints.insert(id.to_owned(), endpoint);
            *shown = Some(body);
        }
    }
}

/// The ids among the members that a body names.
fn member_ids(value: &Value, inside: bool, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let path = fields.get("path").and_then(Value::as_str).unwrap_or_default();
            let of_members = |name: &str| name.to_ascii_lowercase().contains("members");
            for (name, value) in fields {
                member_ids(value, inside || of_members(name) || of_members(path), found);
            }
        }
        Value::Array(list) => list.iter().for_each(|item| member_ids(item, inside, found)),
        Value::String(text) if inside && issued_id(text).is_some() => drop(found.insert(text.clone())),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The endpoint of resources with this name in a path.
fn endpoint(name: &str) -> Option<&'static str> {
    ["/Users", "/Groups"].into_iter().find(|endpoint| endpoint[1..].eq_ignore_ascii_case(name))
}
