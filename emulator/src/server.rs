//! HTTP server: reads requests, injects faults, writes the journal.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::call::{Call, Reply};
use crate::error::{ApiError, CONFLICT, html_page, status_word};
use crate::fault::Action;
use crate::journal::Entry;
use crate::quota::{Spend, exceeded};
use crate::world::{Trace, World};
use crate::{Handle, caller, control, credentials, routes};

/// Largest request body to an emulated API, in bytes.
const MAX_BODY: usize = 16 << 20;
/// Largest request body to the control API, in bytes.
const MAX_CONTROL_BODY: usize = 256 << 20;

const CONTROL: &str = "/__emulator";

/// Makes hyper close the connection without an answer.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection closed on purpose")
    }
}

impl std::error::Error for Closed {}

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Accepts connections until it is aborted, which closes all of them.
pub(crate) async fn serve(listener: TcpListener, handle: Handle) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                connections.spawn(connection(stream, peer, handle.clone()));
            }
            Err(error) => {
                // Usually out of file descriptors: wait until some are free.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, handle: Handle) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let service = service_fn(move |request| respond(request, peer, handle.clone()));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_mins(5))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn respond(
    request: Request<Incoming>,
    peer: SocketAddr,
    handle: Handle,
) -> Result<Response<Full<Bytes>>, Closed> {
    let is_control = {
        let path = request.uri().path();
        path == CONTROL || path.starts_with("/__emulator/")
    };
    let limit = if is_control { MAX_CONTROL_BODY } else { MAX_BODY };
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, limit).collect().await else {
        return Ok(write(Reply::Html(413)));
    };
    let body = body.to_bytes();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if is_control {
        if !peer.ip().to_canonical().is_loopback() {
            return Ok(write(Reply::Json(403, json!({ "error": "the control API is for loopback clients only" }))));
        }
        return Ok(write(controlled(&handle, parts.method.as_str(), parts.uri.path(), parts.uri.query(), &body)));
    }
    let call = Call {
        method: parts.method.to_string(),
        path: percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        host: parts
            .uri
            .host()
            .or_else(|| header("host").map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host)))
            .unwrap_or_default()
            .to_owned(),
        bearer: header("authorization").and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned),
        metadata_flavor: header("metadata-flavor") == Some("Google"),
        body,
    };
    play(&handle, call).await
}

/// Answers a call, with the fault that applies to it.
async fn play(handle: &Handle, call: Call) -> Result<Response<Full<Bytes>>, Closed> {
    let action = handle.world().faults.hit(&call.method, &call.path, &call.body);
    let Some(action) = action else {
        let mut world = handle.world();
        let (reply, caller) = decide(&mut world, &call);
        record(&mut world, call, caller, Some(reply.status()), None);
        drop(world);
        return Ok(write(reply));
    };
    // In a task of its own: a client that disconnects does not revoke what it sent.
    let handle = handle.clone();
    tokio::spawn(async move { play_fault(&handle, call, action).await }).await.unwrap_or(Err(Closed))
}

async fn play_fault(handle: &Handle, call: Call, action: Action) -> Result<Response<Full<Bytes>>, Closed> {
    if action.latency_ms() > 0 {
        tokio::time::sleep(Duration::from_millis(action.latency_ms())).await;
    }
    let (reply, wait) = {
        let mut world = handle.world();
        let (decided, caller) = if action.commits() {
            decide(&mut world, &call)
        } else {
            let now = world.clock.micros();
            let caller = world.callers.identify(call.bearer.as_deref(), now);
            (Reply::Html(502), caller.unwrap_or_else(|_| "unauthenticated".to_owned()))
        };
        let (reply, wait) = match &action {
            Action::Latency { .. } => (Some(decided), 0),
            Action::Drop { .. } => (None, 0),
            Action::Hang { latency_ms, .. } => (None, *latency_ms),
            Action::Html { status, .. } => (Some(Reply::Html(*status)), 0),
            Action::Malformed { .. } => {
                (Some(Reply::Raw(200, Bytes::from_static(b"{\"version\": 1, \"bindings\": [{\"role\": \"ro"))), 0)
            }
            Action::Error { status, retry_after, quota, message, reason, .. } => {
                let mut error = injected(&mut world, &call, *status, *quota);
                error.retry_after = *retry_after;
                if let Some(message) = message {
                    error.message.clone_from(message);
                }
                let mut body = error.body();
                if let Some(reason) = reason {
                    body["error"]["status"] = json!(reason);
                }
                (Some(Reply::Injected(*status, body, *retry_after)), 0)
            }
        };
        record(&mut world, call, caller, reply.as_ref().map(Reply::status), Some(action.name()));
        (reply, wait)
    };
    if wait > 0 {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    reply.map(write).ok_or(Closed)
}

/// Identifies the caller and computes the answer.
fn decide(world: &mut World, call: &Call) -> (Reply, String) {
    world.trace = Trace::default();
    if credentials::carries_secrets(&call.path) || call.metadata_flavor {
        return (routes::answer(world, call, "anonymous"), "anonymous".to_owned());
    }
    let now = world.clock.micros();
    match world.callers.identify(call.bearer.as_deref(), now) {
        Ok(caller) => (routes::answer(world, call, &caller), caller),
        Err(error) => (Reply::Error(error), "unauthenticated".to_owned()),
    }
}

/// The usual text for an injected status.
fn injected(world: &mut World, call: &Call, status: u16, quota: bool) -> ApiError {
    let resource = call.path.trim_start_matches('/').split_once('/').map_or("", |(_, rest)| rest);
    let name = resource.rsplit_once(':').map_or(resource, |(name, _)| name);
    if status == 429 || quota {
        let segments: Vec<&str> = name.split('/').collect();
        let project = segments.get(1).and_then(|project| world.projects.resolve(project)).unwrap_or(0);
        let region = segments.get(3).copied().unwrap_or("global");
        let (spend, limit) = if call.method == "GET" { (Spend::Read, 600) } else { (Spend::Write, 60) };
        let mut error = exceeded(project, region, spend, limit);
        error.code = status;
        error.status = status_word(status);
        return error;
    }
    match status {
        403 => {
            let verb = if call.method == "GET" { "run.services.getIamPolicy" } else { "run.services.setIamPolicy" };
            caller::denied(verb, name)
        }
        409 => ApiError::new(409, "ABORTED", CONFLICT),
        500 => ApiError::new(500, "INTERNAL", "Internal error encountered."),
        503 => ApiError::new(503, "UNAVAILABLE", "The service is currently unavailable."),
        504 => ApiError::new(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
        other => ApiError::new(other, status_word(other), "Injected fault."),
    }
}

/// Writes the journal entry of a call from its trace.
fn record(world: &mut World, call: Call, caller: String, status: Option<u16>, fault: Option<&'static str>) {
    let trace = std::mem::take(&mut world.trace);
    let body = if credentials::carries_secrets(&call.path) { Bytes::new() } else { call.body };
    let entry = Entry {
        seq: 0,
        time: world.clock.now(),
        method: call.method,
        path: call.path,
        query: call.query,
        caller,
        body,
        status,
        fault,
        committed: trace.committed,
        resource: trace.resource,
        control: false,
        policies: trace.policies,
    };
    let (entries, bytes) = (world.settings.journal_entries, world.settings.journal_bytes);
    world.journal.push(entry, entries, bytes);
}

fn controlled(handle: &Handle, method: &str, path: &str, query: Option<&str>, body: &[u8]) -> Reply {
    let body = if body.iter().all(u8::is_ascii_whitespace) {
        Value::Null
    } else {
        match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(error) => return Reply::Json(400, json!({ "error": format!("the body is not JSON: {error}") })),
        }
    };
    let path = percent_decode_str(path).decode_utf8_lossy();
    let path = path.trim_start_matches(CONTROL).trim_matches('/');
    match control::answer(&mut handle.world(), method, path, query.unwrap_or_default(), &body) {
        Ok(value) => Reply::Json(200, value),
        Err(error) => Reply::Json(error.status, json!({ "error": error.message })),
    }
}

fn write(reply: Reply) -> Response<Full<Bytes>> {
    const JSON: &str = "application/json; charset=UTF-8";
    let (status, content_type, body, retry_after) = match reply {
        Reply::Json(status, value) => (status, JSON, Bytes::from(value.to_string()), None),
        Reply::Error(error) => (error.code, JSON, Bytes::from(error.body().to_string()), error.retry_after),
        Reply::Injected(status, value, retry_after) => (status, JSON, Bytes::from(value.to_string()), retry_after),
        Reply::Html(status) => (status, "text/html; charset=UTF-8", Bytes::from(html_page(status)), None),
        Reply::Text(text) => (200, "application/text", Bytes::from(text), None),
        Reply::Raw(status, body) => (status, JSON, body, None),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
