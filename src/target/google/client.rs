//! Cloud Run's Admin API v2 over HTTP.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, Request, StatusCode, Url, redirect};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::debug;

use super::classify::bounded;
use super::endpoint::may_carry_token;
use super::{Call, Credentials, Endpoint, GoogleError, Policy, TokenSource, classify};
use crate::model::{DocumentKey, MemberKey, ResourceKind};
use crate::target::{Discovery, Resource};
use crate::telemetry::{GoogleMetrics, field};

/// A TCP and TLS handshake with Google takes well under a second. Five seconds tolerate a lost packet or two and still
/// report a dead network soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A policy call takes tens to hundreds of milliseconds. A call that has not been answered after thirty seconds will
/// not be, and a waiting write blocks its document.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for a read, which can be repeated safely: calls that wait behind a hanging read are retried sooner.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Google's front end closes idle connections after a few minutes; closing them earlier avoids dead connections.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// A policy has some tens of kilobytes; a page of a hundred services with all their settings may have megabytes.
pub(super) const BODY_MAX: usize = 16 * 1024 * 1024;

/// Resources per page.
const PAGE_SIZE: u32 = 100;

/// Largest number of pages of one list: 20,000 resources, far above what one region of one project may have.
const PAGES_MAX: usize = 200;

/// The only policy version in which conditions can be read and written.
const POLICY_VERSION: i32 = 3;

/// The services of one project and region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Services {
    /// The listed services.
    pub(crate) items: Vec<Resource>,
    /// Regions that could not be reached: absences prove nothing.
    pub(crate) unreachable: Vec<String>,
}

/// The resources of all kinds in one project and region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resources {
    /// The listed resources.
    pub(crate) items: Vec<Resource>,
    /// Regions that could not be reached.
    pub(crate) unreachable: Vec<String>,
    /// Kinds whose list failed.
    pub(crate) failed: Vec<(ResourceKind, GoogleError)>,
}

#[cfg(test)]
impl Resources {
    /// True when a resource that is absent from `items` does not exist.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.unreachable.is_empty() && self.failed.is_empty()
    }
}

impl From<Resources> for Discovery {
    fn from(found: Resources) -> Self {
        let failed = found.failed.into_iter().map(|(kind, error)| (kind, error.into())).collect();
        Self { items: found.items, unreachable: found.unreachable, failed }
    }
}

/// A client of Cloud Run's Admin API. Clones share one connection pool and one token cache.
#[derive(Clone)]
pub(crate) struct CloudRun {
    http: reqwest::Client,
    endpoint: Endpoint,
    tokens: Arc<dyn TokenSource>,
    metrics: Option<GoogleMetrics>,
    read_timeout: Duration,
}

impl fmt::Debug for CloudRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudRun").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Makes ring the TLS cryptography provider of this process. [`CloudRun::new`] calls it; code that opens another TLS
/// connection earlier has to call it first. Repeated calls, and a provider that is already installed, are harmless.
pub(crate) fn install_crypto_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An error means that a provider is already installed, which is fine.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

/// The kind of a call to Google.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    List,
    Get,
    GetPolicy,
    SetPolicy,
    TestPermissions,
}

impl Operation {
    fn call(self) -> Call {
        match self {
            Self::List | Self::Get | Self::GetPolicy | Self::TestPermissions => Call::Read,
            Self::SetPolicy => Call::Write,
        }
    }

    /// The word in metrics and log lines.
    fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Get => "get",
            Self::GetPolicy => "getIamPolicy",
            Self::SetPolicy => "setIamPolicy",
            Self::TestPermissions => "testIamPermissions",
        }
    }
}

struct Page {
    items: Vec<Item>,
    next: String,
    unreachable: Vec<String>,
}

impl Page {
    /// Reads a page. An empty object is an empty page. An object without any field of a page is an error: treating it
    /// as an empty list would mean that no resource exists.
    fn read(mut object: Map<String, Value>, kind: ResourceKind) -> Result<Self, GoogleError> {
        fn field<T: DeserializeOwned + Default>(value: Option<Value>) -> Result<T, GoogleError> {
            let Some(value) = value else { return Ok(T::default()) };
            serde_json::from_value(value).map_err(|error| malformed(&bounded(&format!("unexpected field: {error}"))))
        }
        let empty = object.is_empty();
        let (items, next) = (object.remove(kind.collection()), object.remove("nextPageToken"));
        let unreachable = object.remove("unreachable");
        if !empty && items.is_none() && next.is_none() && unreachable.is_none() {
            return Err(malformed(&format!("the answer is no list of {}", kind.collection())));
        }
        Ok(Self { items: field(items)?, next: field(next)?, unreachable: field(unreachable)? })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    name: String,
    uid: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    invoker_iam_disabled: bool,
}

#[derive(Deserialize)]
struct Identified {
    #[serde(default)]
    uid: String,
}

/// The parts of every answer that are checked before it is parsed: it must be an object, and not an error.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Serialize)]
struct SetPolicy<'a> {
    policy: &'a Policy,
}

impl CloudRun {
    /// Creates a client with the named credentials. No connection is opened and no credentials are loaded yet.
    ///
    /// # Errors
    /// [`GoogleError::Unauthenticated`] when the credentials must not be sent to this endpoint;
    /// [`GoogleError::Unavailable`] when the system's certificates cannot be read.
    pub(crate) fn new(endpoint: Endpoint, credentials: Credentials) -> Result<Self, GoogleError> {
        Self::with_source(endpoint, credentials.source())
    }

    /// Creates a client with any source of tokens.
    ///
    /// # Errors
    /// As [`CloudRun::new`].
    pub(crate) fn with_source(endpoint: Endpoint, tokens: Arc<dyn TokenSource>) -> Result<Self, GoogleError> {
        Self::with_timeout(endpoint, tokens, TOTAL_TIMEOUT)
    }

    pub(super) fn with_timeout(
        endpoint: Endpoint,
        tokens: Arc<dyn TokenSource>,
        total: Duration,
    ) -> Result<Self, GoogleError> {
        install_crypto_provider();
        if tokens.has_tokens() && !Url::parse(endpoint.cloud_run()).is_ok_and(|url| may_carry_token(&url)) {
            return Err(token_refused());
        }
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("rolecall/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(total)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(redirect::Policy::none())
            .referer(false);
        if endpoint.is_plain_loopback() {
            // Requests that stay on this machine need neither a proxy nor the system's certificates.
            http = http.no_proxy().tls_certs_only([]);
        }
        let http = http.build().map_err(|error| GoogleError::Unavailable { message: describe(error) })?;
        Ok(Self { http, endpoint, tokens, metrics: None, read_timeout: READ_TIMEOUT.min(total) })
    }

    /// The same client, with metrics of its calls.
    #[must_use]
    pub(crate) fn with_metrics(mut self, metrics: GoogleMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// The time that a read may take.
    pub(super) fn read_timeout(&self) -> Duration {
        self.read_timeout
    }

    /// The bases of the APIs.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Lists the services of a project and region, all pages.
    ///
    /// # Errors
    /// [`GoogleError`]; a list that cannot be read to its end is an error, never a short list.
    #[cfg(test)]
    pub(crate) async fn services(&self, project: &str, location: &str) -> Result<Services, GoogleError> {
        self.list(project, location, ResourceKind::Service).await
    }

    /// Lists the services, jobs and worker pools of a project and region. The kinds are listed concurrently; one that
    /// fails is reported together with the others.
    pub(crate) async fn resources(&self, project: &str, location: &str) -> Resources {
        let list = async |kind| (kind, self.list(project, location, kind).await);
        let (services, jobs, pools) =
            futures::join!(list(ResourceKind::Service), list(ResourceKind::Job), list(ResourceKind::WorkerPool));
        let mut all = Resources::default();
        for (kind, outcome) in [services, jobs, pools] {
            match outcome {
                Ok(mut found) => {
                    all.items.append(&mut found.items);
                    all.unreachable.append(&mut found.unreachable);
                }
                Err(error) => all.failed.push((kind, error)),
            }
        }
        all.unreachable.sort_unstable();
        all.unreachable.dedup();
        all
    }

    /// The uid of the resource that a document belongs to. It distinguishes a resource from one of the same name that
    /// was created after it was deleted.
    ///
    /// # Errors
    /// [`GoogleError`].
    pub(crate) async fn resource_uid(&self, document: &DocumentKey) -> Result<String, GoogleError> {
        let url = self.url(&format!("v2/{}", document.resource()))?;
        let resource: Identified = self.call(Operation::Get, Request::new(Method::GET, url)).await?;
        if resource.uid.is_empty() { Err(malformed("the resource has no uid")) } else { Ok(resource.uid) }
    }

    /// Reads the policy of a document, in version 3.
    ///
    /// # Errors
    /// [`GoogleError`]; also when the policy could not be written back safely.
    pub(crate) async fn policy(&self, document: &DocumentKey) -> Result<Policy, GoogleError> {
        let mut url = self.url(&format!("v2/{}:getIamPolicy", document.resource()))?;
        url.query_pairs_mut().append_pair("options.requestedPolicyVersion", "3");
        let mut request = Request::new(Method::GET, url);
        *request.timeout_mut() = Some(self.read_timeout);
        let policy: Policy = self.call(Operation::GetPolicy, request).await?;
        writable(&policy)?;
        Ok(policy)
    }

    /// Replaces the policy of a document if it still has the etag of `policy`. Sent in version 3. Returns the policy
    /// that Google now has.
    ///
    /// # Errors
    /// [`GoogleError::EtagMissing`], and nothing is sent, when `policy` has no etag. [`GoogleError::Unknown`] when the
    /// policy may have been written; with any other error it certainly was not.
    pub(crate) async fn set_policy(&self, document: &DocumentKey, policy: &Policy) -> Result<Policy, GoogleError> {
        writable(policy)?;
        let mut sent = policy.clone();
        sent.version = POLICY_VERSION;
        let url = self.url(&format!("v2/{}:setIamPolicy", document.resource()))?;
        let request = post(url, &SetPolicy { policy: &sent })?;
        let written: Policy =
            self.call(Operation::SetPolicy, request).await.map_err(|error| pointed_at(error, &sent))?;
        if written.etag.is_empty() {
            return Err(Call::Write.unreadable("the answer has no etag".to_owned()));
        }
        Ok(written)
    }

    async fn list(&self, project: &str, location: &str, kind: ResourceKind) -> Result<Services, GoogleError> {
        // The key type validates the characters of project and region.
        let probe = DocumentKey::cloud_run(project, location, kind, "x")
            .map_err(|error| GoogleError::Malformed { message: error.to_string() })?;
        let resource = probe.resource();
        let parent = resource.strip_suffix("/x").unwrap_or(&resource);
        let mut found = Services::default();
        let mut token = String::new();
        for _ in 0..PAGES_MAX {
            let mut url = self.url(&format!("v2/{parent}"))?;
            url.query_pairs_mut().append_pair("pageSize", &PAGE_SIZE.to_string());
            if !token.is_empty() {
                url.query_pairs_mut().append_pair("pageToken", &token);
            }
            let page = Page::read(self.call(Operation::List, Request::new(Method::GET, url)).await?, kind)?;
            found.unreachable.extend(page.unreachable.iter().map(|region| bounded(region)));
            for item in page.items {
                found.items.push(listed(item, project, location, kind)?);
            }
            if page.next.is_empty() {
                return Ok(found);
            }
            if page.next == token {
                return Err(malformed("the list repeats its page token"));
            }
            token = page.next;
        }
        Err(malformed("the list has more pages than any region can have"))
    }

    /// An absolute URL below the endpoint whose path is exactly the intended one: a name such as `..` would change it.
    fn url(&self, path: &str) -> Result<Url, GoogleError> {
        Self::url_below(self.endpoint.cloud_run(), path)
    }

    /// Like [`CloudRun::url`], below the base of another API.
    pub(super) fn url_below(base: &str, path: &str) -> Result<Url, GoogleError> {
        let text = format!("{base}{path}");
        let url = Url::parse(&text).map_err(|_| malformed("the resource name makes no URL"))?;
        if url.as_str() == text { Ok(url) } else { Err(malformed("the resource name is not a plain name")) }
    }

    /// Makes one call, counted and timed.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        operation: Operation,
        request: Request,
    ) -> Result<T, GoogleError> {
        let path = request.url().path().to_owned();
        let begun = Instant::now();
        let answer = self.answer(operation.call(), request).await;
        let took = begun.elapsed();
        let outcome = answer.as_ref().map_or_else(|error| error.reason().word(), |_| "ok");
        if let Some(metrics) = &self.metrics {
            metrics.requests.inc([operation.word(), outcome]);
            metrics.request_seconds.observe([operation.word()], took);
        }
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        debug!(
            operation = operation.word(),
            path,
            { field::REASON } = outcome,
            { field::DURATION_MS } = duration_ms,
            "called google"
        );
        answer
    }

    async fn answer<T: DeserializeOwned>(&self, call: Call, mut request: Request) -> Result<T, GoogleError> {
        self.authorize(&mut request).await?;
        let (status, headers, body) = self.exchange(call, request).await?;
        if !status.is_success() {
            return Err(classify(call, status, &headers, &body));
        }
        // Parsed from the text, not through a tree of values, which would round large numbers in foreign parts of a
        // policy.
        let outline: Outline = match serde_json::from_slice(&body) {
            Ok(outline) => outline,
            Err(error) if error.is_data() => {
                return Err(call.unreadable("the answer is no object of the API".to_owned()));
            }
            Err(error) => return Err(call.unreadable(format!("the answer is not JSON: {error}"))),
        };
        if outline.error.is_some() {
            return Err(call.unreadable("the answer is no object of the API".to_owned()));
        }
        serde_json::from_slice(&body).map_err(|error| call.unreadable(bounded(&format!("unexpected field: {error}"))))
    }

    /// Adds the token to a request whose URL may carry it. No request that needs a token is sent without one.
    pub(super) async fn authorize(&self, request: &mut Request) -> Result<(), GoogleError> {
        if !self.tokens.has_tokens() {
            return Ok(());
        }
        if !may_carry_token(request.url()) {
            return Err(token_refused());
        }
        if let Some(bearer) = self.tokens.token().await? {
            request.headers_mut().insert(AUTHORIZATION, bearer.into_header());
        }
        Ok(())
    }

    async fn exchange(&self, call: Call, request: Request) -> Result<(StatusCode, HeaderMap, Vec<u8>), GoogleError> {
        let mut response = self.http.execute(request).await.map_err(|error| {
            // Before the connection is open, nothing can have been sent. Anything later may have arrived.
            let sent = !(error.is_connect() || error.is_builder());
            let message = describe(error);
            if sent { call.lost(message) } else { GoogleError::Unavailable { message } }
        })?;
        let status = response.status();
        // A refusal is recognized by its status even when its body is lost.
        let lost = |message: String| {
            if status.is_success() { call.unreadable(message) } else { classify(call, status, &HeaderMap::new(), &[]) }
        };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| lost(describe(error)))? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(lost(format!("the answer has more than {BODY_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, response.headers().clone(), body))
    }
}

/// A request with a JSON body.
pub(super) fn post(url: Url, body: &impl Serialize) -> Result<Request, GoogleError> {
    let body = serde_json::to_vec(body)
        .map_err(|error| GoogleError::Malformed { message: format!("cannot write the request as JSON: {error}") })?;
    let mut request = Request::new(Method::POST, url);
    request
        .headers_mut()
        .insert(reqwest::header::CONTENT_TYPE, reqwest::header::HeaderValue::from_static("application/json"));
    *request.body_mut() = Some(body.into());
    Ok(request)
}

fn malformed(message: &str) -> GoogleError {
    GoogleError::Malformed { message: message.to_owned() }
}

fn token_refused() -> GoogleError {
    GoogleError::Unauthenticated {
        message:
            "credentials are sent to https://*.googleapis.com only: use the credentials `none` for another endpoint"
                .to_owned(),
    }
}

/// The chain of causes, without the URL.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    bounded(&text)
}

/// Checks that a policy can be written back without losing content.
fn writable(policy: &Policy) -> Result<(), GoogleError> {
    if !matches!(policy.version, 0 | 1 | 3) {
        return Err(GoogleError::PolicyUnknownVersion { version: policy.version });
    }
    if let Some(binding) = policy.bindings.iter().find(|binding| hides_condition(&binding.role)) {
        return Err(GoogleError::ConditionsHidden { role: bounded(&binding.role) });
    }
    if policy.etag.is_empty() { Err(GoogleError::EtagMissing) } else { Ok(()) }
}

/// True for a role name that replaces a role with a condition in an answer below version 3.
fn hides_condition(role: &str) -> bool {
    role.rsplit_once("_withcond_")
        .is_some_and(|(_, hash)| hash.len() == 20 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn listed(item: Item, project: &str, location: &str, kind: ResourceKind) -> Result<Resource, GoogleError> {
    let wrong = || malformed(&format!("the list of {} has an item it should not have", kind.collection()));
    // The project is not compared: it may be requested by id and answered by number.
    let name = match item.name.split('/').collect::<Vec<_>>().as_slice() {
        ["projects", _, "locations", region, collection, name]
            if *region == location && *collection == kind.collection() =>
        {
            *name
        }
        _ => return Err(wrong()),
    };
    let document = DocumentKey::cloud_run(project, location, kind, name).map_err(|_| wrong())?;
    if item.uid.is_empty() {
        return Err(wrong());
    }
    Ok(Resource { document, uid: item.uid, labels: item.labels, invoker_iam_disabled: item.invoker_iam_disabled })
}

/// Replaces the members that a refusal names by their spelling in the written policy, so that they can be found there.
/// A name that is not in the policy is dropped.
fn pointed_at(error: GoogleError, policy: &Policy) -> GoogleError {
    let GoogleError::Refused { cause, message, member: Some(named), others, role } = error else { return error };
    let members = || policy.bindings.iter().flat_map(|binding| &binding.members);
    let value = |member: &str| member.split_once(':').map(|(_, value)| value.to_ascii_lowercase());
    let spelled = |named: &String| {
        let key = MemberKey::of(named);
        members()
            .find(|member| MemberKey::of(member) == key)
            .or_else(|| members().find(|member| value(member).is_some() && value(member) == value(named)))
            .cloned()
    };
    let mut found = [named].iter().chain(&others).filter_map(spelled).collect::<Vec<_>>().into_iter();
    GoogleError::Refused { cause, message, member: found.next(), others: found.collect(), role }
}
