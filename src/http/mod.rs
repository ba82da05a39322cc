//! The SCIM 2.0 endpoint over HTTP: `/idp/{identityProvider}/scim/v2`.
//!
//! The way of a request: who calls (token), how often (limit), what is asked (route, query, body), the change as data
//! ([`crate::scim`]), the store. Nothing is answered with 2xx before the store has committed it, and every answer,
//! errors included, is SCIM JSON. Queries, bodies and tokens are never logged.

mod answer;
mod connection;
mod failures;
mod groups;
mod render;
mod request;
mod search;
mod share;
mod token;
mod traffic;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use axum::routing::any;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::model::{Clock, ProviderName};
use crate::scim::{Findings, GroupChange, Projection, ResourceType, ScimError, UserChange, json, schema};
use crate::store::{Origin, Store, StoreError};
use crate::telemetry::{ScimMetrics, code_word};
use answer::Answer;
use failures::FailedAuthentications;
use groups::Reply;
use render::{Content, Document, MAX_PAGE, Part, Render};
use request::{Query, Versions};
use share::{Admitted, BodyMemory, Shares, Slot};
use token::Caller;

pub use connection::Connection;
pub use share::{DEFAULT_REQUESTS_PER_SECOND, Limits};
pub use token::{AcceptedToken, TokenTable};
pub use traffic::{MAX_FINDINGS, ProviderTraffic, Traffic};

/// When a client of a provider that is suspended, or whose directory is a former one's, may ask again, in seconds. Suspending is meant to be short.
const SUSPENDED_RETRY: u64 = 300;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the endpoint is made of.
#[derive(Clone)]
pub struct Scim {
    /// Where the directory is.
    pub store: Store,
    /// Who may speak.
    pub tokens: TokenTable,
    /// Where it is noted who spoke.
    pub traffic: Traffic,
    /// How clients reach this server, such as `https://rolecall.example.com`; the only source of `meta.location`.
    pub external_url: String,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// What one client may use.
    pub limits: Limits,
    /// Where requests are counted.
    pub metrics: ScimMetrics,
}

struct Service {
    scim: Scim,
    shares: Arc<Shares>,
    failures: FailedAuthentications,
}

/// The routes of the SCIM endpoint of all identity providers.
pub fn router(mut scim: Scim) -> Router {
    scim.external_url.truncate(scim.external_url.trim_end_matches('/').len());
    let shares = Shares::new(scim.limits);
    Router::new()
        .route("/idp/{identityProvider}/scim/v2", any(serve))
        .route("/idp/{identityProvider}/scim/v2/", any(serve))
        .route("/idp/{identityProvider}/scim/v2/{*route}", any(serve))
        .fallback(elsewhere)
        .with_state(Arc::new(Service { scim, shares, failures: FailedAuthentications::default() }))
}

async fn elsewhere(request: Request) -> Response<Body> {
    let error = ScimError::NotFound("nothing is served here; the SCIM base URL is `/idp/NAME/scim/v2`".into());
    answer::without_body_for(request.method(), answer::response(request.headers(), Err(error)))
}

/// One authenticated request.
struct Call<'a> {
    scim: &'a Scim,
    caller: &'a Caller,
    request_id: &'a str,
    findings: Findings,
    /// None when it was refused before.
    admitted: Option<Admitted>,
    connection: &'a Connection,
    /// Held from when the request is complete until it is answered.
    slot: Option<Slot>,
    memory: Option<BodyMemory>,
}

impl Call<'_> {
    fn provider(&self) -> &ProviderName {
        &self.caller.provider
    }

    fn origin(&self) -> Origin {
        Origin { token: self.caller.token.clone(), request_id: Some(self.request_id.to_owned()) }
    }

    fn base(&self) -> String {
        format!("{}/idp/{}/scim/v2", self.scim.external_url, self.caller.provider)
    }

    fn location(&self, of: ResourceType, id: &str) -> String {
        format!("{}{}/{id}", self.base(), of.endpoint())
    }

    fn render(&self) -> Render {
        Render { store: self.scim.store.clone(), provider: self.provider().clone(), base: self.base() }
    }

    /// The body of an answer that may be large.
    async fn content(&mut self, document: Document) -> Result<Content, ScimError> {
        self.render().content(document, &mut self.admitted).await
    }

    /// What a list answers: `totalResults` and the resources, as many as one page may have.
    async fn list(&mut self, total: u64, start: u64, mut parts: Vec<Part>) -> Result<Answer, ScimError> {
        let mut left = MAX_PAGE;
        let mut first = true;
        for part in &mut parts {
            part.cut(&mut left, first);
            first &= part.rows.is_empty();
        }
        Ok(Answer::with(self.content(Document::List { total, start, parts }).await?))
    }

    #[expect(clippy::unused_self, reason = "reads as part of the call, beside the other answers about it")]
    fn projection(&self, of: ResourceType, query: &Query) -> Projection {
        Projection::new(of, query.attributes.as_deref(), query.excluded.as_deref())
    }
}

fn store_error(error: &StoreError) -> ScimError {
    match error {
        StoreError::Taken { attribute } => {
            ScimError::Uniqueness(format!("another resource of this identity provider already has this `{attribute}`"))
        }
        StoreError::NoKnownMember { .. } | StoreError::NotAMember => ScimError::InvalidValue(error.to_string()),
        StoreError::QuotaExceeded { .. } => ScimError::QuotaExceeded(error.to_string()),
        StoreError::UnsupportedFilter { .. } => ScimError::InvalidFilter(error.to_string()),
        StoreError::Unavailable { problem } => {
            tracing::error!(reason = error.reason(), problem, "a SCIM request was not stored");
            ScimError::Unavailable { retry_after: 5 }
        }
        other => {
            tracing::error!(reason = other.reason(), problem = %other, "a SCIM request failed");
            ScimError::Internal
        }
    }
}

async fn serve(State(service): State<Arc<Service>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let request_id = request_id(&parts.headers);
    let path = parts.uri.path().strip_prefix("/idp/").unwrap_or_default();
    let (provider, route) = path.split_once('/').unwrap_or((path, ""));
    let provider = percent_decode_str(provider).decode_utf8_lossy();
    let authorization = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let now = service.scim.clock.now();
    let connection = parts.extensions.get::<Connection>().cloned().unwrap_or_default();
    let authenticated = service.scim.tokens.authenticate(&provider, authorization, now);
    connection.set_authenticated(authenticated.is_some());
    let Some(caller) = authenticated else {
        service.scim.traffic.turned_away();
        service.scim.metrics.requests.inc(["unauthorized", code_word(401)]);
        let known = service.scim.tokens.known(&provider);
        service.failures.note(&service.scim.metrics, known.as_ref(), connection.peer(), now);
        let response = answer::response(&parts.headers, Err(ScimError::Unauthorized));
        return with_id(answer::without_body_for(&parts.method, response), &request_id);
    };
    let mut call = Call {
        scim: &service.scim,
        caller: &caller,
        request_id: &request_id,
        findings: Findings::new(),
        admitted: None,
        connection: &connection,
        slot: None,
        memory: None,
    };
    let started = std::time::Instant::now();
    let route = route.strip_prefix("scim/v2").unwrap_or_default().trim_matches('/');
    // HEAD is GET without the body of the answer (RFC 9110 §9.3.2).
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
    let operation = operation(&method, route);
    let result = match service.admit(&caller) {
        Ok(admitted) => {
            call.admitted = Some(admitted);
            call.dispatch(&method, route, parts.uri.query(), &parts.headers, body).await
        }
        Err(error) => Err(error),
    };
    let reason = result.as_ref().err().map(ScimError::reason);
    let response = answer::response(&parts.headers, result);
    let status = response.status().as_u16();
    tracing::debug!(request_id, provider = %caller.provider, token = caller.token, method = %parts.method, status, reason, "SCIM");
    service.scim.metrics.requests.inc([operation, code_word(status)]);
    service.scim.metrics.request_seconds.observe([operation], started.elapsed());
    service.scim.traffic.answered(&caller, now, status, call.findings);
    with_id(answer::without_body_for(&parts.method, response), &request_id)
}

/// What a request is counted as.
fn operation(method: &Method, route: &str) -> &'static str {
    let users = route.starts_with("Users");
    match (method.as_str(), users || route.starts_with("Groups"), route.contains('/')) {
        ("POST", true, true) => "search",
        ("GET", true, false) if users => "users.list",
        ("GET", true, false) => "groups.list",
        ("GET", true, true) if users => "users.get",
        ("GET", true, true) => "groups.get",
        ("POST", true, _) if users => "users.create",
        ("POST", true, _) => "groups.create",
        ("PUT", true, _) if users => "users.replace",
        ("PUT", true, _) => "groups.replace",
        ("PATCH", true, _) if users => "users.patch",
        ("PATCH", true, _) => "groups.patch",
        ("DELETE", true, _) if users => "users.delete",
        ("DELETE", true, _) => "groups.delete",
        ("GET", ..) => "discovery",
        _ => "other",
    }
}

/// The client's own id of the request, where it has a plain form; a new one otherwise.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).map(str::trim);
    let plain = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
    };
    given.filter(plain).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

fn with_id(mut response: Response<Body>, request_id: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

impl Service {
    fn admit(&self, caller: &Caller) -> Result<Admitted, ScimError> {
        if self.scim.tokens.is_held(&caller.provider) {
            return Err(ScimError::FormerDirectory { retry_after: SUSPENDED_RETRY });
        }
        if self.scim.tokens.is_suspended(&caller.provider) {
            return Err(ScimError::Unavailable { retry_after: SUSPENDED_RETRY });
        }
        self.shares.admit(caller, self.scim.tokens.rate(&caller.provider))
    }
}

impl Call<'_> {
    /// Waits for its turn to be worked on. Called when nothing of the request is missing any more.
    async fn take_slot(&mut self) -> Result<(), ScimError> {
        if let Some(admitted) = &self.admitted {
            self.slot = Some(admitted.slot().await?);
        }
        Ok(())
    }

    /// Reads the body, which must be a JSON object, and waits for the request's turn.
    async fn object(&mut self, headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, ScimError> {
        self.connection.set_receiving(true);
        let read = request::body(headers, body, &self.scim.limits, self.admitted.as_ref()).await;
        self.connection.set_receiving(false);
        let read = read?;
        self.memory = read.memory;
        self.take_slot().await?;
        json::object(&read.bytes)
    }

    async fn dispatch(
        &mut self,
        method: &Method,
        route: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Answer, ScimError> {
        let segments: Vec<String> = route
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let if_match = Versions::if_match(headers);
        if matches!(*method, Method::GET | Method::DELETE) {
            self.take_slot().await?;
        }
        match segments.as_slice() {
            ["Users"] => match *method {
                Method::GET => users::list(self, &Query::from_url(query)?).await,
                Method::POST => {
                    let body = self.object(headers, body).await?;
                    users::create(self, body, &Query::from_url(query)?).await
                }
                _ => Err(ScimError::MethodNotAllowed("GET, HEAD, POST")),
            },
            ["Groups"] => match *method {
                Method::GET => groups::list(self, &Query::from_url(query)?).await,
                Method::POST => {
                    let body = self.object(headers, body).await?;
                    groups::create(self, body, &Query::from_url(query)?).await
                }
                _ => Err(ScimError::MethodNotAllowed("GET, HEAD, POST")),
            },
            [kind @ ("Users" | "Groups"), ".search"] => {
                if *method != Method::POST {
                    return Err(ScimError::MethodNotAllowed("POST"));
                }
                let query = Query::from_search(self.object(headers, body).await?)?;
                if *kind == "Users" { users::list(self, &query).await } else { groups::list(self, &query).await }
            }
            ["Users", id] => {
                let query = Query::from_url(query)?;
                match *method {
                    Method::GET => users::get(self, id, &query, Versions::if_none_match(headers)).await,
                    Method::PUT => {
                        let body = self.object(headers, body).await?;
                        users::update(self, id, |id, findings| UserChange::put(id, body, findings), &query, if_match)
                            .await
                    }
                    Method::PATCH => {
                        let body = self.object(headers, body).await?;
                        users::update(self, id, |id, findings| UserChange::patch(id, body, findings), &query, if_match)
                            .await
                    }
                    Method::DELETE => users::delete(self, id, if_match).await,
                    _ => Err(ScimError::MethodNotAllowed("GET, HEAD, PUT, PATCH, DELETE")),
                }
            }
            ["Groups", id] => {
                let query = Query::from_url(query)?;
                match *method {
                    Method::GET => groups::get(self, id, &query, Versions::if_none_match(headers)).await,
                    Method::PUT => {
                        let body = self.object(headers, body).await?;
                        let parse = |id, findings: &mut Findings| GroupChange::put(id, body, findings);
                        groups::update(self, id, parse, Reply::Group, &query, if_match).await
                    }
                    Method::PATCH => {
                        let body = self.object(headers, body).await?;
                        let parse = |id, findings: &mut Findings| GroupChange::patch(id, body, findings);
                        groups::update(self, id, parse, Reply::Nothing, &query, if_match).await
                    }
                    Method::DELETE => groups::delete(self, id, if_match).await,
                    _ => Err(ScimError::MethodNotAllowed("GET, HEAD, PUT, PATCH, DELETE")),
                }
            }
            ["ServiceProviderConfig" | "ResourceTypes" | "Schemas", ..] if segments.len() <= 2 => {
                if *method != Method::GET {
                    return Err(ScimError::MethodNotAllowed("GET, HEAD"));
                }
                self.discovery(&segments, &Query::from_url(query)?)
            }
            ["Me", ..] => Err(ScimError::NotImplemented("`/Me` is not served; use `/Users/ID`".into())),
            ["Bulk"] => Err(ScimError::NotImplemented("bulk requests are not served; send them one by one".into())),
            [".search"] => {
                if *method != Method::POST {
                    return Err(ScimError::MethodNotAllowed("POST"));
                }
                let query = Query::from_search(self.object(headers, body).await?)?;
                self.search_all(&query).await
            }
            _ => Err(ScimError::NotFound(
                "there is no such SCIM endpoint; `/ResourceTypes` lists those there are".into(),
            )),
        }
    }

    /// Users, then groups (RFC 7644 §3.4.3). A filter on what one of the types does not have matches none of it.
    async fn search_all(&mut self, query: &Query) -> Result<Answer, ScimError> {
        let mut unknown = None;
        let (mut total, users) = match users::planned(self, query).await {
            Ok(planned) => planned,
            Err(error @ ScimError::InvalidFilter(_)) => {
                unknown = Some(error);
                let projection = self.projection(ResourceType::User, query);
                (0, Part { of: ResourceType::User, rows: Vec::new(), projection })
            }
            Err(error) => return Err(error),
        };
        let start = query.start_index.unwrap_or(1).max(1);
        let before = i64::try_from(total).unwrap_or(i64::MAX);
        let wanted = query.count.unwrap_or(i64::from(search::MAX_RESULTS)).clamp(0, i64::from(search::MAX_RESULTS));
        let given = i64::try_from(users.rows.len()).unwrap_or(i64::MAX);
        let rest = Query {
            start_index: Some(start.saturating_sub(before).max(1)),
            count: Some(wanted.saturating_sub(given)),
            ..query.clone()
        };
        let mut parts = vec![users];
        match (groups::planned(self, &rest).await, unknown) {
            (Ok((more, groups)), _) => {
                total = total.saturating_add(more);
                parts.push(groups);
            }
            (Err(ScimError::InvalidFilter(_)), None) => {}
            (Err(_), Some(error)) | (Err(error), None) => return Err(error),
        }
        self.list(total, u64::try_from(start).unwrap_or(1), parts).await
    }

    /// Discovery (RFC 7644 §4).
    fn discovery(&self, segments: &[&str], query: &Query) -> Result<Answer, ScimError> {
        if query.filter.is_some() {
            return Err(ScimError::Forbidden("this endpoint cannot be filtered".into()));
        }
        let base = self.base();
        let all = match segments {
            ["ServiceProviderConfig"] => {
                return Ok(Answer::ok(schema::service_provider_config(&base, json::MAX_BODY, search::MAX_RESULTS)));
            }
            ["ResourceTypes", ..] => ResourceType::ALL.iter().map(|of| of.definition(&base)).collect(),
            ["Schemas", ..] => schema::schemas(&base),
            _ => Vec::new(),
        };
        match segments {
            [_] => Ok(Answer::ok(schema::list_response(all.len() as u64, 1, &all))),
            [_, id] => all
                .into_iter()
                .find(|one| one.get("id").and_then(Value::as_str).is_some_and(|known| known.eq_ignore_ascii_case(id)))
                .map(Answer::ok)
                .ok_or_else(|| ScimError::NotFound("there is no such schema or resource type".into())),
            _ => Err(ScimError::NotFound("there is no such SCIM endpoint".into())),
        }
    }
}
