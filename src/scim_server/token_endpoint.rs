//! The token endpoint of OAuth 2.0 clients, `/idp/{identityProvider}/oauth2/token`: the grant `client_credentials` of RFC 6749 §4.4,
//! with the client's id and secret in the `Authorization` header or in the body (§2.3.1).

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use serde_json::json;

use super::call::SUSPENDED_RETRY;
use super::layers::came_by_http;
use super::token::Denied;
use super::{Connection, Scim, Service, oauth};
use crate::model::ProviderName;
use crate::scim::FindingCode;
use crate::telemetry::code_word;

/// The path below the server's URL.
pub(super) const PATH: &str = "/idp/{identityProvider}/oauth2/token";

/// Largest body, in bytes.
const MAX_BODY: usize = 8 * 1024;

/// Most parameters that are read.
const MAX_PARAMETERS: usize = 16;

/// The only scope there is.
const SCOPE: &str = "scim";

/// Access tokens a second that one client gets, and failures a second of one provider that are answered with their cause.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(25).unwrap();

/// Most limiters that are kept; names of clients change with each rotation.
const MAX_LIMITERS: usize = 1024;

/// Rates of tokens by client, and of failures by provider. Failures are counted apart, so that they never keep a client with the
/// right secret from its token.
#[derive(Default)]
pub(super) struct TokenRates(Mutex<HashMap<(String, Option<String>), DefaultDirectRateLimiter>>);

impl TokenRates {
    /// Counts a token of a client, or a failure when no client is named. Returns the seconds to wait when it is one too many.
    fn check(&self, provider: &str, client: Option<&str>) -> Result<(), u64> {
        let mut limiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (provider.to_owned(), client.map(str::to_owned));
        if limiters.len() >= MAX_LIMITERS && !limiters.contains_key(&key) {
            limiters.clear();
        }
        let limiter = limiters.entry(key).or_insert_with(|| RateLimiter::direct(Quota::per_second(PER_SECOND)));
        limiter.check().map_err(|until| until.wait_time_from(DefaultClock::default().now()).as_secs().saturating_add(1))
    }
}

/// A refusal, as RFC 6749 §5.2 has it; the last three are of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    InvalidRequest(&'static str),
    InvalidClient,
    UnsupportedGrantType,
    InvalidScope,
    MethodNotAllowed,
    TooManyRequests { retry_after: u64 },
    Unavailable { retry_after: u64 },
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest(_) | Self::UnsupportedGrantType | Self::InvalidScope => StatusCode::BAD_REQUEST,
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest(_) | Self::MethodNotAllowed => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::TooManyRequests { .. } | Self::Unavailable { .. } => "temporarily_unavailable",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::InvalidRequest(why) => why,
            Self::InvalidClient => "the client id or secret is missing or not accepted here",
            Self::UnsupportedGrantType => "the grant type must be client_credentials",
            Self::InvalidScope => "the scope is malformed; leave it out",
            Self::MethodNotAllowed => "the method must be POST",
            Self::TooManyRequests { .. } => "too many requests for a token",
            Self::Unavailable { .. } => "this identity provider is suspended here",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response =
            answer(self.status(), &json!({"error": self.code(), "error_description": self.description()}));
        let headers = response.headers_mut();
        match self {
            Self::InvalidClient => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"rolecall\""));
            }
            Self::MethodNotAllowed => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
            Self::TooManyRequests { retry_after } | Self::Unavailable { retry_after } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_after));
            }
            Self::InvalidRequest(_) | Self::UnsupportedGrantType | Self::InvalidScope => {}
        }
        response
    }
}

/// An answer that no cache may keep.
fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// Answers a request for an access token.
pub(super) async fn token(
    State(service): State<Arc<Service>>,
    provider: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    // A name that is not UTF-8 belongs to no provider.
    let provider = provider.map(|Path(provider)| provider).unwrap_or_default();
    let response = match issue(&service, &provider, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    service.scim.metrics.requests.inc(["token", code_word(response.status().as_u16())]);
    response
}

async fn issue(service: &Service, provider: &str, request: Request) -> Result<Response, Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::MethodNotAllowed);
    }
    let scim = &service.scim;
    let now = scim.clock.now();
    let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
    let (parts, body) = request.into_parts();
    let form = read(scim, &connection, &parts, body).await?;
    let parameters = Parameters::parse(&form)?;
    let authorization = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let pairs = parameters.credentials(authorization)?;
    let accepted = scim.tokens.client(provider, &pairs, now);
    connection.set_authenticated(accepted.is_ok());
    let (name, client, pair) = match accepted {
        Ok(accepted) => accepted,
        Err(denied) => return Err(refuse(service, provider, denied, &connection, now)),
    };
    if came_by_http(&parts.headers) && scim.external_url.starts_with("https:") {
        scim.traffic.note(&name, FindingCode::PlainHttp, now);
    }
    if scim.tokens.is_held(&name) || scim.tokens.is_suspended(&name) {
        return Err(Refusal::Unavailable { retry_after: SUSPENDED_RETRY });
    }
    let scope = parameters.grant()?;
    let rate = service.token_rates.check(name.as_str(), Some(&client.name));
    rate.map_err(|retry_after| Refusal::TooManyRequests { retry_after })?;
    let Some((token, validity)) = oauth::issue(&name, &client, (&pair.0, &pair.1), now) else {
        tracing::error!(provider = %name, client = client.name, "an access token cannot be signed");
        return Err(Refusal::Unavailable { retry_after: 5 });
    };
    tracing::debug!(provider = %name, client = client.name, "an access token was issued");
    let mut body = json!({"access_token": token, "token_type": "Bearer", "expires_in": validity.as_secs()});
    if scope {
        body["scope"] = json!(SCOPE);
    }
    Ok(answer(StatusCode::OK, &body))
}

/// Counts a failed authentication, and reports it like those of SCIM requests.
fn refuse(service: &Service, provider: &str, denied: Denied, connection: &Connection, now: Timestamp) -> Refusal {
    let known: Option<ProviderName> = service.scim.tokens.known(provider);
    service.scim.traffic.record_unauthorized(known.as_ref(), denied.finding(), now);
    service.failures.record(&service.scim.metrics, known.as_ref(), denied, connection.peer(), now);
    // Names that belong to no provider share one limiter, since anybody can invent any number.
    match service.token_rates.check(known.as_ref().map_or("", ProviderName::as_str), None) {
        Ok(()) => Refusal::InvalidClient,
        Err(retry_after) => Refusal::TooManyRequests { retry_after },
    }
}

/// Reads the form.
async fn read(
    scim: &Scim,
    connection: &Connection,
    parts: &axum::http::request::Parts,
    body: Body,
) -> Result<Vec<u8>, Refusal> {
    let given = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Refusal::InvalidRequest("the content type must be application/x-www-form-urlencoded"));
    }
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(Refusal::InvalidRequest("the parameters must be in the body, not in the URL"));
    }
    connection.set_receiving(true);
    let read = tokio::time::timeout(scim.limits.body_grace, to_bytes(body, MAX_BODY)).await;
    connection.set_receiving(false);
    match read {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(_)) => Err(Refusal::InvalidRequest("the body is too large or was not complete")),
        Err(_) => Err(Refusal::InvalidRequest("the body did not arrive in time")),
    }
}

/// Parameters of a form, each given once. A parameter without a value counts as omitted (RFC 6749 §3.2).
struct Parameters(BTreeMap<String, String>);

/// An id with a secret, as presented.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

impl Parameters {
    fn parse(form: &[u8]) -> Result<Self, Refusal> {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(form) {
            if parameters.len() == MAX_PARAMETERS {
                return Err(Refusal::InvalidRequest("there are too many parameters"));
            }
            if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Refusal::InvalidRequest("a parameter is repeated"));
            }
        }
        parameters.retain(|_, value| !value.is_empty());
        Ok(Self(parameters))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The readings of the client's id and secret: several for a header, whose parts are form-encoded by RFC 6749 §2.3.1 and by many
    /// clients are not. Empty when there is none.
    fn credentials(&self, authorization: Option<&[u8]>) -> Result<Vec<Pair>, Refusal> {
        let (id, secret) = (self.get("client_id"), self.get("client_secret"));
        let Some(header) = authorization else {
            let pair = id.zip(secret).map(|(id, secret)| (id.as_bytes().to_vec(), secret.as_bytes().to_vec()));
            return Ok(pair.into_iter().collect());
        };
        if secret.is_some() {
            return Err(Refusal::InvalidRequest("the client authenticates in two ways; use one"));
        }
        let Some((raw_id, raw_secret)) = basic(header) else { return Ok(Vec::new()) };
        let decoded = (form_decoded(&raw_id), form_decoded(&raw_secret));
        if id.is_some_and(|id| id.as_bytes() != raw_id && id.as_bytes() != decoded.0) {
            return Err(Refusal::InvalidRequest("client_id is another one than in the Authorization header"));
        }
        Ok(vec![decoded, (raw_id, raw_secret)])
    }

    /// Checks what is asked for. Returns whether a scope is.
    fn grant(&self) -> Result<bool, Refusal> {
        match self.get("grant_type") {
            Some("client_credentials") => {}
            Some(_) => return Err(Refusal::UnsupportedGrantType),
            None => return Err(Refusal::InvalidRequest("grant_type is missing; it must be client_credentials")),
        }
        let is_scope = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        match self.get("scope") {
            Some(scope) if !scope.bytes().all(is_scope) => Err(Refusal::InvalidScope),
            scope => Ok(scope.is_some()),
        }
    }
}

/// The two parts of a `Basic` header (RFC 7617).
fn basic(header: &[u8]) -> Option<Pair> {
    let (scheme, encoded) = header.trim_ascii().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some((decoded[..colon].to_vec(), decoded[colon + 1..].to_vec()))
}

fn form_decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_encoding::percent_decode(&spaced).collect()
}
