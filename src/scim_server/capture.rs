//! The last requests of an identity provider with their answers, redacted, while somebody looks for the cause of a problem.
//!
//! `spec.scim.captureUntil` of an `IdentityProvider` begins it, and it ends by itself. What was captured is in memory only: it is
//! gone with the process, with the field, and a day after its end. Only requests with an accepted token are captured.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, USER_AGENT};
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{Method, Uri};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{Scim, TokenTable, Traffic};
use crate::model::{KEY_BYTES, ProviderName};
use crate::scim::{Dialect, Finding, Redactor, ResourceTypes};

/// Most requests of one provider that are kept: the last ones.
pub(crate) const MAX_REQUESTS: usize = 200;
/// Most bytes of one provider that are kept, as JSON.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Requests that may wait to be redacted; further ones are not kept.
const MAX_WAITING: usize = 16;
/// Largest body and answer that is kept with its request.
const MAX_BODY: usize = 64 * 1024;
/// Time after its end for which a capture is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// What was captured of one identity provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Capture {
    /// The version of rolecall.
    pub(crate) rolecall_version: String,
    /// The identity provider.
    pub(crate) identity_provider: ProviderName,
    /// End of the capture.
    pub(crate) until: Timestamp,
    /// True when the provider's deviations are refused.
    pub(crate) strict: bool,
    /// The dialect of the provider's requests.
    pub(crate) dialect: Dialect,
    /// True when schemas and resource types from a file were in force.
    #[serde(default)]
    pub(crate) schemas_from_file: bool,
    /// Number of requests that are not kept: earlier ones, and those that came too fast to be redacted.
    pub(crate) dropped: u64,
    /// The requests in the order of their answers.
    pub(crate) requests: Vec<Exchange>,
}

/// A request with its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exchange {
    /// Time of the request.
    pub(crate) at: Timestamp,
    /// The method.
    pub(crate) method: String,
    /// Path below the SCIM base URL.
    pub(crate) path: String,
    /// The query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) query: Option<String>,
    /// Headers that matter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default, skip_serializing_if = "Content::is_none")]
    pub(crate) body: Content,
    /// Status of the answer.
    pub(crate) status: u16,
    /// Body of the answer.
    #[serde(default, skip_serializing_if = "Content::is_none")]
    pub(crate) answer: Content,
    /// Findings of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<CapturedFinding>,
    /// True when the answer depends on schemas from a file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) needs_schemas_from_file: bool,
}

/// A body, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Content {
    /// No body.
    #[default]
    None,
    /// JSON.
    Json(Value),
    /// Something else.
    Text(String),
    /// Too large to be kept, or streamed: its bytes, where they are known.
    Omitted(Option<u64>),
}

impl Content {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// A finding of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CapturedFinding {
    /// The stable word.
    pub(crate) code: String,
    /// The place, as an attribute path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) pointer: String,
}

/// Where the capture of a provider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CapturePhase {
    /// It begins later: its end is too far ahead.
    Waiting {
        /// Time of the beginning.
        from: Timestamp,
    },
    /// Requests are captured.
    Running,
    /// It has ended.
    Ended,
}

struct Window {
    until: Timestamp,
    redactor: Arc<Redactor>,
    /// As JSON.
    requests: VecDeque<Arc<[u8]>>,
    bytes: usize,
    dropped: u64,
    schemas_from_file: bool,
    logged: Option<CapturePhase>,
}

struct State {
    longest: SignedDuration,
    server: String,
    windows: BTreeMap<ProviderName, Window>,
}

/// The captures of all identity providers. Clones share them.
#[derive(Clone)]
pub(crate) struct Captures {
    state: Arc<Mutex<State>>,
    /// Places of requests that wait to be redacted.
    waiting: Arc<Semaphore>,
    /// Held while one is redacted: it takes the time of no other request but captured ones.
    redacting: Arc<Semaphore>,
}

impl Captures {
    /// None yet. `longest`: how long before its end a capture begins at the earliest. `server`: its URL.
    pub(crate) fn new(longest: SignedDuration, server: &str) -> Self {
        let state = State { longest, server: server.to_owned(), windows: BTreeMap::new() };
        Self {
            state: Arc::new(Mutex::new(state)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            redacting: Arc::new(Semaphore::new(1)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whose requests are captured, and until when. What was captured of others is dropped.
    pub(crate) fn set(&self, ends: &BTreeMap<ProviderName, Timestamp>) {
        let mut state = self.state();
        state.windows.retain(|provider, _| ends.contains_key(provider));
        for (provider, until) in ends {
            let server = state.server.clone();
            let window = state.windows.entry(provider.clone()).or_insert_with(|| Window {
                until: *until,
                // The key is nowhere else, so that nobody can test names against what was captured.
                redactor: Arc::new(Redactor::new(&rand::random::<[u8; KEY_BYTES]>(), &server, provider)),
                requests: VecDeque::new(),
                bytes: 0,
                dropped: 0,
                schemas_from_file: false,
                logged: None,
            });
            window.until = *until;
        }
    }

    /// The end of a provider's capture and where it is. Logs when it began and ended.
    pub(crate) fn phase(&self, provider: &ProviderName, now: Timestamp) -> Option<(Timestamp, CapturePhase)> {
        let mut state = self.state();
        let longest = state.longest;
        let window = state.windows.get_mut(provider)?;
        let phase = window.phase(longest, now);
        if window.logged != Some(phase) {
            window.logged = Some(phase);
            let (until, requests) = (window.until, window.requests.len());
            match phase {
                CapturePhase::Waiting { from } => tracing::warn!(
                    %provider, %until, "requests of {provider} are captured from {from} on: `captureUntil` is further ahead than --max-capture"
                ),
                CapturePhase::Running => {
                    tracing::info!(%provider, %until, "requests of {provider} are captured, redacted, until {until}");
                }
                CapturePhase::Ended => {
                    tracing::info!(%provider, %until, requests, "the capture of requests of {provider} has ended");
                }
            }
        }
        if phase == CapturePhase::Ended && now.duration_since(window.until) > KEPT {
            (window.requests, window.bytes) = (VecDeque::new(), 0);
        }
        Some((window.until, phase))
    }

    /// What replaces names while requests of a provider are captured.
    pub(super) fn redactor(&self, provider: &ProviderName, now: Timestamp) -> Option<Arc<Redactor>> {
        let state = self.state();
        let window = state.windows.get(provider)?;
        (window.phase(state.longest, now) == CapturePhase::Running).then(|| window.redactor.clone())
    }

    /// Keeps a request, unless the capture that it was redacted for is gone.
    fn add(&self, provider: &ProviderName, redactor: &Arc<Redactor>, exchange: &Exchange, schemas_from_file: bool) {
        let json = serde_json::to_vec(exchange).ok().map(Arc::<[u8]>::from);
        let mut state = self.state();
        let window = state.windows.get_mut(provider).filter(|window| Arc::ptr_eq(&window.redactor, redactor));
        let Some(window) = window else { return };
        window.schemas_from_file |= schemas_from_file;
        let Some(json) = json else { return window.dropped += 1 };
        window.bytes += json.len();
        window.requests.push_back(json);
        while window.requests.len() > MAX_REQUESTS || window.bytes > MAX_BYTES {
            let Some(json) = window.requests.pop_front() else { break };
            window.bytes -= json.len();
            window.dropped += 1;
        }
    }

    /// Counts a request that is not kept.
    fn drop_one(&self, provider: &ProviderName) {
        if let Some(window) = self.state().windows.get_mut(provider) {
            window.dropped += 1;
        }
    }

    /// What was captured of a provider, a [`Capture`] as JSON. None: nothing is or was to be captured.
    pub(crate) fn read(
        &self,
        provider: &ProviderName,
        tokens: &TokenTable,
        traffic: &Traffic,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        self.phase(provider, now)?;
        let dialect = tokens.dialect(provider).unwrap_or_else(|| traffic.of(provider).signs.dialect());
        let (empty, requests) = {
            let state = self.state();
            let window = state.windows.get(provider)?;
            let empty = Capture {
                rolecall_version: env!("CARGO_PKG_VERSION").to_owned(),
                identity_provider: provider.clone(),
                until: window.until,
                strict: tokens.is_strict(provider),
                dialect,
                schemas_from_file: window.schemas_from_file,
                dropped: window.dropped,
                requests: Vec::new(),
            };
            (empty, window.requests.iter().cloned().collect::<Vec<_>>())
        };
        let mut json = serde_json::to_vec(&empty).ok()?;
        // The list of requests is the last member.
        json.truncate(json.len().checked_sub(END.len())?);
        json.reserve(requests.iter().map(|request| request.len() + 1).sum::<usize>() + END.len());
        for (index, request) in requests.iter().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            json.extend_from_slice(request);
        }
        json.extend_from_slice(END);
        Some(json)
    }
}

/// The last bytes of the JSON of a [`Capture`].
const END: &[u8] = b"]}";

impl Window {
    fn phase(&self, longest: SignedDuration, now: Timestamp) -> CapturePhase {
        let from = self.until.checked_sub(longest).unwrap_or(Timestamp::MIN);
        if now >= self.until {
            CapturePhase::Ended
        } else if now < from {
            CapturePhase::Waiting { from }
        } else {
            CapturePhase::Running
        }
    }
}

/// A request that is being captured.
pub(super) struct Recording {
    redactor: Arc<Redactor>,
    /// The body, once it was read whole.
    body: OnceLock<Kept>,
}

/// A body that is not yet redacted.
#[derive(Clone)]
enum Kept {
    None,
    Whole(Bytes),
    Omitted(Option<u64>),
}

/// The head of a request. Nothing of it is redacted yet, since the request may be refused.
pub(super) struct Head {
    at: Timestamp,
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The route is one of a resource type from a file.
    is_registered: bool,
}

impl Head {
    pub(super) fn new(at: Timestamp, request: &Request, is_registered: bool) -> Self {
        let headers = [ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, USER_AGENT]
            .into_iter()
            .filter_map(|name| Some((name.clone(), request.headers().get(name)?.clone())));
        Self {
            at,
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: headers.collect(),
            is_registered,
        }
    }
}

impl Recording {
    pub(super) fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, body: OnceLock::new() }
    }

    /// Keeps a body that was read.
    pub(super) fn body(&self, bytes: &[u8]) {
        let too_large = || Kept::Omitted(Some(bytes.len() as u64));
        let kept = if bytes.len() > MAX_BODY { too_large() } else { Kept::Whole(Bytes::copy_from_slice(bytes)) };
        // A request has one body.
        drop(self.body.set(kept));
    }

    /// Keeps the request with its answer, and returns the answer. Redacts it on a thread for blocking work, one request at a time.
    pub(super) async fn end(
        &self,
        head: Head,
        response: Response,
        findings: &[Finding],
        (scim, provider): (&Scim, &ProviderName),
    ) -> Response {
        let captures = scim.captures.clone();
        let Ok(place) = captures.waiting.clone().try_acquire_owned() else {
            captures.drop_one(provider);
            return response;
        };
        let (answer, response) = read_answer(response).await;
        let raw = Raw {
            head,
            body: self.body.get().cloned().unwrap_or(Kept::None),
            status: response.status().as_u16(),
            answer,
            findings: findings.to_vec(),
            types: scim.types.clone(),
        };
        let Ok(turn) = captures.redacting.clone().acquire_owned().await else { return response };
        let (redactor, of) = (self.redactor.clone(), provider.clone());
        let redacting = tokio::task::spawn_blocking(move || {
            captures.add(&of, &redactor, &raw.redacted(&redactor), raw.types.has_more());
            drop((place, turn));
        });
        if redacting.await.is_err() {
            scim.captures.drop_one(provider);
        }
        response
    }
}

/// The body of an answer, as far as it is kept, and the answer.
async fn read_answer(response: Response) -> (Kept, Response) {
    let (head, body) = response.into_parts();
    let (kept, body) = match body.size_hint().exact() {
        Some(0) => (Kept::None, body),
        Some(length) if length <= MAX_BODY as u64 => match to_bytes(body, MAX_BODY).await {
            Ok(bytes) => (Kept::Whole(bytes.clone()), Body::from(bytes)),
            // Not possible for an answer whose length is known: it is in memory.
            Err(_) => (Kept::None, Body::empty()),
        },
        size => (Kept::Omitted(size), body),
    };
    (kept, Response::from_parts(head, body))
}

/// A request with its answer that is not yet redacted.
struct Raw {
    head: Head,
    body: Kept,
    status: u16,
    answer: Kept,
    findings: Vec<Finding>,
    types: Arc<ResourceTypes>,
}

impl Raw {
    fn redacted(&self, redactor: &Redactor) -> Exchange {
        let headers = self.head.headers.iter().filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.to_string(), redactor.header(value)))
        });
        let finding = |finding: &Finding| CapturedFinding {
            code: finding.code.as_str().to_owned(),
            pointer: redactor.path(&finding.pointer),
        };
        Exchange {
            at: self.head.at,
            method: self.head.method.to_string(),
            path: redactor.url_path(self.head.uri.path()),
            query: self.head.uri.query().map(|query| redactor.query(query)),
            headers: headers.collect(),
            body: self.body.redacted(redactor),
            status: self.status,
            answer: self.answer.redacted(redactor),
            findings: self.findings.iter().map(finding).collect(),
            needs_schemas_from_file: self.needs_schemas_from_file(),
        }
    }

    /// True when the request is for a resource type from a file, lists types or schemas, or names such a type or schema.
    fn needs_schemas_from_file(&self) -> bool {
        if !self.types.has_more() {
            return false;
        }
        let first = self.head.uri.path().trim_matches('/').split('/').next().unwrap_or_default();
        if self.head.is_registered || ["", ".search", "Schemas", "ResourceTypes"].contains(&first) {
            return true;
        }
        let body = if let Kept::Whole(bytes) = &self.body { String::from_utf8_lossy(bytes) } else { "".into() };
        let query = percent_decode_str(self.head.uri.query().unwrap_or_default()).decode_utf8_lossy();
        let text = format!("{query} {body}").to_lowercase();
        let schemas = self.types.schemas.iter().map(|schema| schema.urn.to_lowercase());
        let endpoints = self.types.others.iter().map(|of| format!("\"{}", of.endpoint().to_lowercase()));
        schemas.chain(endpoints).any(|name| text.contains(&name))
    }
}

impl Kept {
    fn redacted(&self, redactor: &Redactor) -> Content {
        match self {
            Self::None => Content::None,
            Self::Omitted(length) => Content::Omitted(*length),
            Self::Whole(bytes) => match serde_json::from_slice(bytes) {
                Ok(value) => Content::Json(redactor.body(&value)),
                Err(_) => Content::Text(redactor.text(&String::from_utf8_lossy(bytes))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(number: u32, body: Content) -> Exchange {
        Exchange {
            at: Timestamp::UNIX_EPOCH,
            method: "GET".into(),
            path: format!("/Users/{number}"),
            query: None,
            headers: BTreeMap::new(),
            body,
            status: 200,
            answer: Content::None,
            findings: Vec::new(),
            needs_schemas_from_file: false,
        }
    }

    fn add(captures: &Captures, provider: &ProviderName, exchange: &Exchange) {
        let redactor = captures.state().windows[provider].redactor.clone();
        captures.add(provider, &redactor, exchange, false);
    }

    fn read(captures: &Captures, provider: &ProviderName, now: Timestamp) -> Option<Capture> {
        let json = captures.read(provider, &TokenTable::new(), &Traffic::new(), now)?;
        Some(serde_json::from_slice(&json).unwrap())
    }

    #[test]
    fn a_capture_begins_at_most_its_longest_time_before_its_end_and_is_dropped_a_day_after() {
        let okta: ProviderName = "okta".parse().unwrap();
        let at = |hours: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        let captures = Captures::new(SignedDuration::from_hours(24), "https://x.example");
        assert_eq!(captures.phase(&okta, at(0)), None, "off by default");
        assert!(captures.redactor(&okta, at(0)).is_none());
        captures.set(&BTreeMap::from([(okta.clone(), at(30))]));
        let phase = |hours| captures.phase(&okta, at(hours)).unwrap().1;
        assert_eq!(phase(0), CapturePhase::Waiting { from: at(6) });
        assert_eq!(
            (phase(6), phase(29), phase(30)),
            (CapturePhase::Running, CapturePhase::Running, CapturePhase::Ended)
        );
        for (hours, captured) in [(5, false), (6, true), (29, true), (30, false)] {
            assert_eq!(captures.redactor(&okta, at(hours)).is_some(), captured, "{hours}");
        }
        add(&captures, &okta, &exchange(1, Content::None));
        let kept = |hours| read(&captures, &okta, at(hours)).unwrap().requests.len();
        assert_eq!((kept(29), kept(54), kept(55)), (1, 1, 0));
        captures.set(&BTreeMap::new());
        assert_eq!(read(&captures, &okta, at(29)), None);
    }

    #[test]
    fn a_capture_of_no_time_captures_nothing() {
        let okta: ProviderName = "okta".parse().unwrap();
        let captures = Captures::new(SignedDuration::ZERO, "");
        captures.set(&BTreeMap::from([(okta.clone(), Timestamp::UNIX_EPOCH)]));
        for second in [-1, 0, 1] {
            assert!(captures.redactor(&okta, Timestamp::from_second(second).unwrap()).is_none());
        }
    }

    #[test]
    fn the_last_requests_are_kept_within_their_number_and_bytes() {
        let okta: ProviderName = "okta".parse().unwrap();
        let captures = Captures::new(SignedDuration::from_hours(1), "");
        captures.set(&BTreeMap::from([(okta.clone(), Timestamp::UNIX_EPOCH)]));
        let read = || read(&captures, &okta, Timestamp::UNIX_EPOCH).unwrap();
        let held = || captures.state().windows[&okta].requests.iter().map(|json| json.len()).sum::<usize>();
        for number in 0..u32::try_from(MAX_REQUESTS).unwrap() + 5 {
            add(&captures, &okta, &exchange(number, Content::None));
        }
        let kept = read();
        assert_eq!((kept.requests.len(), kept.dropped, kept.requests[0].path.as_str()), (MAX_REQUESTS, 5, "/Users/5"));
        // As JSON that takes much more memory once it is read.
        let wide = Content::Json(vec![serde_json::json!({"a": []}); MAX_BYTES / 40].into());
        for number in 0..10 {
            add(&captures, &okta, &exchange(number, wide.clone()));
            assert!(held() <= MAX_BYTES, "{}", held());
        }
        let kept = read();
        assert_eq!(kept.requests.len(), 4);
        let json = captures.read(&okta, &TokenTable::new(), &Traffic::new(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(json.len() < MAX_BYTES + 1000);
        assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&kept).unwrap());
    }

    #[test]
    fn a_request_that_was_redacted_for_an_earlier_capture_is_not_kept() {
        let okta: ProviderName = "okta".parse().unwrap();
        let captures = Captures::new(SignedDuration::from_hours(1), "");
        let ends = BTreeMap::from([(okta.clone(), Timestamp::UNIX_EPOCH)]);
        captures.set(&ends);
        let redactor = captures.state().windows[&okta].redactor.clone();
        captures.set(&BTreeMap::new());
        captures.set(&ends);
        captures.add(&okta, &redactor, &exchange(1, Content::None), false);
        assert_eq!(read(&captures, &okta, Timestamp::UNIX_EPOCH).unwrap().requests, []);
    }
}
