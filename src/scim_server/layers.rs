//! Tower layers that requests pass on the way to their handler, and answers on the way back.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::PathRejection;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;

use super::answer::{JSON, Refused, SCIM_JSON};
use super::call::Call;
use super::capture::Head;
use super::oidc::is_signed_token;
use super::token::{Caller, Denied, bearer, subject_credential};
use super::{BASE, Connection, Service};
use crate::scim::{Finding, FindingCode, JwtProblem, ScimError};
use crate::telemetry::{code_word, field};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Sets the media type of the answer: `application/json` for clients that accept it and not `application/scim+json`.
pub(super) async fn negotiate(request: Request, next: Next) -> Response {
    let plain = accepts_only_json(request.headers());
    let mut response = next.run(request).await;
    if plain && response.headers().get(CONTENT_TYPE).is_some_and(|given| given == SCIM_JSON) {
        response.headers_mut().insert(CONTENT_TYPE, JSON);
    }
    response
}

fn accepts_only_json(headers: &HeaderMap) -> bool {
    let accepts = |wanted: &str| {
        let values = headers.get_all(axum::http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut parts = values.flat_map(|value| value.as_bytes().windows(wanted.len()));
        parts.any(|part| part.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    accepts("application/json") && !["application/scim+json", "*/*", "application/*"].into_iter().any(accepts)
}

/// Puts the path into the normal form that the router matches: no empty segments and no needless percent-encoding
/// (RFC 3986 §6.2.2.2).
pub(super) fn normalize_path(mut request: Request) -> Request {
    if let Some(uri) = normal_uri(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// None when the path is in normal form already.
fn normal_uri(uri: &Uri) -> Option<Uri> {
    let path = normal_path(uri.path())?;
    let path_and_query = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.ok()?);
    Uri::from_parts(parts).ok()
}

/// The endpoints of SCIM, as they are spelled (RFC 7644 §3.2).
const ENDPOINTS: [&str; 8] =
    ["Users", "Groups", "ServiceProviderConfig", "ResourceTypes", "Schemas", "Bulk", "Me", ".search"];

/// The spelling of an endpoint that stands in another case.
fn respelled(segment: &str) -> Option<&'static str> {
    ENDPOINTS.into_iter().find(|known| known.eq_ignore_ascii_case(segment) && *known != segment)
}

/// None when the path is in normal form already.
fn normal_path(path: &str) -> Option<String> {
    let respells = path.split('/').any(|segment| respelled(segment).is_some());
    if !respells && !path.contains('%') && !path.contains("//") && !path.ends_with('/') {
        return None;
    }
    let mut normal = String::with_capacity(path.len());
    for mut rest in path.split('/').filter(|segment| !segment.is_empty()) {
        normal.push('/');
        rest = respelled(rest).unwrap_or(rest);
        while let Some((before, after)) = rest.split_once('%') {
            normal.push_str(before);
            let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            if let Some(byte) = byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
                normal.push(char::from(byte));
                rest = &after[2..];
            } else {
                normal.push('%');
                rest = after;
            }
        }
        normal.push_str(rest);
    }
    if normal.is_empty() {
        normal.push('/');
    }
    Some(normal)
}

/// Removes a request id of the client that is too long or has other characters than ids have; another one is then generated.
pub(super) fn drop_malformed_request_id(mut request: Request) -> Request {
    if request.headers().get(&REQUEST_ID).is_some_and(|id| !is_plain(id)) {
        request.headers_mut().remove(&REQUEST_ID);
    }
    request
}

fn is_plain(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len())
        && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte))
}

/// Passes requests with an accepted token on, as a [`Call`]; answers others with 401.
pub(super) async fn authenticate(
    State(service): State<Arc<Service>>,
    provider: Result<Path<String>, PathRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    // A name that is not UTF-8 belongs to no provider.
    let provider = provider.map(|Path(provider)| provider).unwrap_or_default();
    let now = service.scim.clock.now();
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
    let authenticated = identify(&service, &provider, authorization, now).await;
    connection.set_authenticated(authenticated.is_ok());
    let caller = match authenticated {
        Ok(caller) => caller,
        Err(denied) => {
            let unavailable = denied == Denied::Jwt(JwtProblem::IssuerUnavailable);
            service.scim.metrics.requests.inc(["unauthorized", code_word(if unavailable { 503 } else { 401 })]);
            let known = service.scim.tokens.known(&provider);
            // The token tells whose client it is that has a wrong name in its URL.
            let sender = if known.is_none() { service.scim.tokens.owner(authorization, now) } else { None };
            let (whose, code) = match &sender {
                Some(sender) => (Some(sender), FindingCode::BaseUrlWrong),
                None => (known.as_ref(), denied.finding()),
            };
            service.scim.traffic.record_unauthorized(whose, code, now);
            service.failures.record(&service.scim.metrics, known.as_ref(), denied, connection.peer(), now);
            return match denied {
                // The same request may be sent again, and is not lost.
                Denied::Jwt(JwtProblem::IssuerUnavailable) => ScimError::Unavailable { retry_after: 60 },
                _ => ScimError::Unauthorized,
            }
            .into_response();
        }
    };
    let request_id = request.headers().get(&REQUEST_ID).cloned();
    let plain = came_by_http(request.headers()) && service.scim.external_url.starts_with("https:");
    let call = Call::new(service, caller, request_id, now, connection);
    if plain {
        call.findings().note(FindingCode::PlainHttp, "");
    }
    request.extensions_mut().insert(call);
    next.run(request).await
}

/// The caller by the credential in the `Authorization` header: one of the table, or a token of the provider's issuer.
async fn identify(
    service: &Service,
    provider: &str,
    authorization: Option<&[u8]>,
    now: Timestamp,
) -> Result<Caller, Denied> {
    let tokens = &service.scim.tokens;
    let denied = match tokens.authenticate(provider, authorization, now) {
        Err(Denied::Unknown) => Denied::Unknown,
        decided => return decided,
    };
    let signed = authorization.and_then(bearer).filter(|token| is_signed_token(token));
    let (Some(token), Some((name, policy))) = (signed, tokens.oidc(provider)) else { return Err(denied) };
    match service.scim.issuers.verify(&policy, token, now).await {
        Ok(subject) => Ok(Caller { provider: name, token: subject_credential(&subject) }),
        Err(problem) => Err(Denied::Jwt(problem)),
    }
}

/// Whether the proxy in front says that the client spoke `http`.
pub(super) fn came_by_http(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().trim_ascii().eq_ignore_ascii_case(b"http"))
}

/// A request outside all base URLs: a finding of the provider that it was meant for, by the name in its path or by its token.
pub(super) async fn outside(State(service): State<Arc<Service>>, request: Request) -> ScimError {
    let now = service.scim.clock.now();
    let mut segments = request.uri().path().split('/').filter(|segment| !segment.is_empty());
    let named = match (segments.next(), segments.next()) {
        (Some("idp"), Some(name)) => service.scim.tokens.known(name),
        _ => None,
    };
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let owner = service.scim.tokens.owner(authorization, now);
    if let Some(provider) = owner.or(named) {
        service.scim.traffic.note(&provider, FindingCode::BaseUrlWrong, now);
    }
    ScimError::NotFound("nothing is served here; the SCIM base URL is `/idp/NAME/scim/v2`".into())
}

/// The findings of a request, as an extension of its answer.
#[derive(Clone)]
pub(super) struct Noted(pub(super) Vec<Finding>);

/// Records the answer: metrics, statistics and findings of the provider. The first finding of a kind is logged, other requests at
/// debug level.
pub(super) async fn record(call: Call, matched: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = matched.as_ref().and_then(|path| path.as_str().strip_prefix(BASE));
    let operation = match route {
        Some(route) if is_registered(route) => "resources",
        route => operation(&method, route.unwrap_or(request.uri().path())),
    };
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let is_registered = route.is_some_and(is_registered);
    let recorded =
        call.recording().map(|recording| (recording, Head::new(call.received_at(), &request, is_registered)));
    call.signs().head(request.uri().path_and_query().map_or("", |target| target.as_str()), agent);
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let refused = response.extensions().get::<Refused>();
    let reason = refused.map(|refused| refused.reason);
    if let Some((code, attribute)) = refused.and_then(|refused| refused.finding.as_ref()) {
        call.findings().note(*code, attribute);
    }
    let (caller, scim) = (call.caller(), call.scim());
    tracing::debug!(
        request_id = call.request_id(), provider = %caller.provider, token = caller.token, %method, status, reason, "SCIM"
    );
    scim.metrics.requests.inc([operation, code_word(status)]);
    scim.metrics.request_seconds.observe([operation], started.elapsed());
    let (signs, findings) = (call.signs().clone(), call.take_findings());
    // Of what is refused for its number, nothing is kept: that would be more work than the request itself.
    let kept = recorded.filter(|_| call.is_admitted() && response.status() != StatusCode::TOO_MANY_REQUESTS);
    if let Some((recording, head)) = kept {
        response = recording.end(head, response, findings.as_slice(), (scim, &caller.provider)).await;
    }
    if !findings.as_slice().is_empty() {
        response.extensions_mut().insert(Noted(findings.as_slice().to_vec()));
    }
    for finding in scim.traffic.record(caller, call.received_at(), status, &signs, findings) {
        tracing::info!(
            { field::IDENTITY_PROVIDER } = %caller.provider, code = finding.code.as_str(), pointer = finding.json_pointer(),
            request_id = call.request_id(), operation, status, "{}", finding.hint()
        );
    }
    response
}

/// True for the route of a resource type from a file.
fn is_registered(route: &str) -> bool {
    let endpoint = route.trim_start_matches('/').split('/').next().unwrap_or_default();
    !endpoint.is_empty() && !endpoint.starts_with('{') && !ENDPOINTS.contains(&endpoint)
}

/// Operation label of a request. `route` is the path of the matched route, or of the request when none matched.
fn operation(method: &Method, route: &str) -> &'static str {
    let route = route.trim_matches('/');
    let users = route.starts_with("Users");
    match (method.as_str(), users || route.starts_with("Groups"), route.contains('/')) {
        ("POST", true, true) => "search",
        ("GET" | "HEAD", true, false) if users => "users.list",
        ("GET" | "HEAD", true, false) => "groups.list",
        ("GET" | "HEAD", true, true) if users => "users.get",
        ("GET" | "HEAD", true, true) => "groups.get",
        ("POST", true, _) if users => "users.create",
        ("POST", true, _) => "groups.create",
        ("PUT", true, _) if users => "users.replace",
        ("PUT", true, _) => "groups.replace",
        ("PATCH", true, _) if users => "users.patch",
        ("PATCH", true, _) => "groups.patch",
        ("DELETE", true, _) if users => "users.delete",
        ("DELETE", true, _) => "groups.delete",
        ("POST", false, false) if route.eq_ignore_ascii_case("Bulk") => "bulk",
        ("GET" | "HEAD", ..) => "discovery",
        _ => "other",
    }
}

/// Passes requests on that provider and token may make now. Requests without a body acquire their slot here, others when their
/// body is complete.
pub(super) async fn admit(call: Call, request: Request, next: Next) -> Result<Response, ScimError> {
    call.admit()?;
    let slot = match *request.method() {
        Method::GET | Method::HEAD | Method::DELETE => Some(call.slot().await?),
        _ => None,
    };
    let response = next.run(request).await;
    drop(slot);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_another_form_names_the_same_route_and_no_other_segment() {
        for (path, normal) in [
            ("/Users", None),
            ("/", Some("/")),
            ("//", Some("/")),
            ("/Users/", Some("/Users")),
            ("//Users//x//", Some("/Users/x")),
            ("/%55sers/%2esearch", Some("/Users/.search")),
            ("/Users/a%2Fb", Some("/Users/a%2Fb")),
            ("/Users/%2541", Some("/Users/%2541")),
            ("/Users/%25%34", Some("/Users/%254")),
            ("/Users/%", Some("/Users/%")),
            ("/Users/%4", Some("/Users/%4")),
            ("/Users/%+A%FF", Some("/Users/%+A%FF")),
        ] {
            assert_eq!(normal_path(path).as_deref(), normal, "{path}");
        }
        let uri: Uri = "/Users/?a=%55&b=//".parse().unwrap();
        assert_eq!(normal_uri(&uri).unwrap(), "/Users?a=%55&b=//", "the query stays as it is");
    }

    #[test]
    fn media_types_are_looked_for_in_all_headers_and_in_any_case() {
        let only_json = |values: &[&str]| {
            let values = values.iter().map(|value| (axum::http::header::ACCEPT, value.parse().unwrap()));
            accepts_only_json(&values.collect())
        };
        assert!(only_json(&["text/html", "Application/JSON;q=0.9"]));
        for other in
            [&["application/json", "*/*"][..], &["application/json, application/SCIM+json"], &["text/html"], &[]]
        {
            assert!(!only_json(other), "{other:?}");
        }
    }
}
