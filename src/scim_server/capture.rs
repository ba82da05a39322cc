//! The last requests of an identity provider with their answers, redacted, while somebody looks for the cause of a problem.
//!
//! `spec.scim.captureUntil` of an `IdentityProvider` begins it, and it ends by itself. What was captured is in memory only: it is
//! gone with the process, with the field, and a day after its end. Only requests with an accepted token are captured.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, USER_AGENT};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TokenTable, Traffic};
use crate::model::{KEY_BYTES, ProviderName};
use crate::scim::{Dialect, Finding, Redactor};

/// Most requests of one provider that are kept: the last ones.
pub(crate) const MAX_REQUESTS: usize = 200;
/// Most bytes of one provider that are kept, as JSON.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Largest body and answer that is kept with its request.
const MAX_BODY: usize = 64 * 1024;
/// How long it is kept after its end.
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
    /// Number of earlier requests that are not kept any more.
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
    /// With their sizes.
    requests: VecDeque<(Exchange, usize)>,
    bytes: usize,
    dropped: u64,
    logged: Option<CapturePhase>,
}

struct State {
    longest: SignedDuration,
    server: String,
    windows: BTreeMap<ProviderName, Window>,
}

/// The captures of all identity providers. Clones share them.
#[derive(Clone)]
pub(crate) struct Captures(Arc<Mutex<State>>);

impl Captures {
    /// None yet. `longest`: how long before its end a capture begins at the earliest. `server`: its URL.
    pub(crate) fn new(longest: SignedDuration, server: &str) -> Self {
        Self(Arc::new(Mutex::new(State { longest, server: server.to_owned(), windows: BTreeMap::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn add(&self, provider: &ProviderName, exchange: Exchange) {
        let size = serde_json::to_vec(&exchange).map_or(0, |bytes| bytes.len());
        let mut state = self.state();
        let Some(window) = state.windows.get_mut(provider) else { return };
        window.bytes += size;
        window.requests.push_back((exchange, size));
        while window.requests.len() > MAX_REQUESTS || window.bytes > MAX_BYTES {
            let Some((_, size)) = window.requests.pop_front() else { break };
            window.bytes -= size;
            window.dropped += 1;
        }
    }

    /// What was captured of a provider. None: nothing is or was to be captured.
    pub(crate) fn read(
        &self,
        provider: &ProviderName,
        tokens: &TokenTable,
        traffic: &Traffic,
        now: Timestamp,
    ) -> Option<Capture> {
        self.phase(provider, now)?;
        let dialect = tokens.dialect(provider).unwrap_or_else(|| traffic.of(provider).signs.dialect());
        let state = self.state();
        let window = state.windows.get(provider)?;
        Some(Capture {
            rolecall_version: env!("CARGO_PKG_VERSION").to_owned(),
            identity_provider: provider.clone(),
            until: window.until,
            strict: tokens.is_strict(provider),
            dialect,
            dropped: window.dropped,
            requests: window.requests.iter().map(|(exchange, _)| exchange.clone()).collect(),
        })
    }
}

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

enum Kept {
    Whole(Vec<u8>),
    TooLarge(usize),
}

impl Recording {
    pub(super) fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, body: OnceLock::new() }
    }

    /// Keeps a body that was read.
    pub(super) fn body(&self, bytes: &[u8]) {
        let kept = if bytes.len() > MAX_BODY { Kept::TooLarge(bytes.len()) } else { Kept::Whole(bytes.to_vec()) };
        // A request has one body.
        drop(self.body.set(kept));
    }

    /// The head of the exchange; it has no answer yet.
    pub(super) fn begin(&self, at: Timestamp, request: &Request) -> Exchange {
        let redactor = &self.redactor;
        let headers = [ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, USER_AGENT].into_iter().filter_map(|name| {
            let value = request.headers().get(&name)?.to_str().ok()?;
            Some((name.to_string(), redactor.header(value)))
        });
        Exchange {
            at,
            method: request.method().to_string(),
            path: redactor.url_path(request.uri().path()),
            query: request.uri().query().map(|query| redactor.query(query)),
            headers: headers.collect(),
            body: Content::None,
            status: 0,
            answer: Content::None,
            findings: Vec::new(),
        }
    }

    /// Completes the exchange by its answer, and keeps it. Returns the answer.
    pub(super) async fn end(
        &self,
        mut exchange: Exchange,
        response: Response,
        findings: &[Finding],
        (captures, provider): (&Captures, &ProviderName),
    ) -> Response {
        exchange.status = response.status().as_u16();
        exchange.body = match self.body.get() {
            None => Content::None,
            Some(Kept::Whole(bytes)) => self.content(bytes),
            Some(Kept::TooLarge(length)) => Content::Omitted(Some(*length as u64)),
        };
        exchange.findings = findings
            .iter()
            .map(|finding| CapturedFinding {
                code: finding.code.as_str().to_owned(),
                pointer: self.redactor.path(&finding.pointer),
            })
            .collect();
        let (head, body) = response.into_parts();
        let size = body.size_hint().exact();
        let body = match size {
            Some(0) => body,
            Some(length) if length <= MAX_BODY as u64 => match to_bytes(body, MAX_BODY).await {
                Ok(bytes) => {
                    exchange.answer = self.content(&bytes);
                    Body::from(bytes)
                }
                // Not possible for an answer whose length is known: it is in memory.
                Err(_) => Body::empty(),
            },
            _ => {
                exchange.answer = Content::Omitted(size);
                body
            }
        };
        captures.add(provider, exchange);
        Response::from_parts(head, body)
    }

    fn content(&self, bytes: &[u8]) -> Content {
        match serde_json::from_slice(bytes) {
            Ok(value) => Content::Json(self.redactor.body(&value)),
            Err(_) => Content::Text(self.redactor.text(&String::from_utf8_lossy(bytes))),
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
        }
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
        captures.add(&okta, exchange(1, Content::None));
        let kept = |hours| captures.read(&okta, &TokenTable::new(), &Traffic::new(), at(hours)).unwrap().requests.len();
        assert_eq!((kept(29), kept(54), kept(55)), (1, 1, 0));
        captures.set(&BTreeMap::new());
        assert_eq!(captures.read(&okta, &TokenTable::new(), &Traffic::new(), at(29)), None);
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
        let read = || captures.read(&okta, &TokenTable::new(), &Traffic::new(), Timestamp::UNIX_EPOCH).unwrap();
        for number in 0..u32::try_from(MAX_REQUESTS).unwrap() + 5 {
            captures.add(&okta, exchange(number, Content::None));
        }
        let kept = read();
        assert_eq!((kept.requests.len(), kept.dropped, kept.requests[0].path.as_str()), (MAX_REQUESTS, 5, "/Users/5"));
        for number in 0..10 {
            captures.add(&okta, exchange(number, Content::Text("x".repeat(MAX_BYTES / 4))));
        }
        let kept = read();
        assert_eq!(kept.requests.len(), 3);
        let text = serde_json::to_string(&kept).unwrap();
        assert!(text.len() < MAX_BYTES + 1000);
        assert_eq!(serde_json::from_str::<Capture>(&text).unwrap(), kept);
    }
}
