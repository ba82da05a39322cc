//! The SCIM 2.0 endpoint over HTTP: `/idp/{identityProvider}/scim/v2`, and the token endpoint of its OAuth 2.0 clients.
//!
//! A request passes the layers of `layers`: normal form of its path, request id, authentication, metrics, admission by rate and fair share.
//! The router chooses the handler, which reads query and body, computes the change as data ([`crate::scim`]) and asks the
//! store. Handlers that Users and Groups share are in `resource`. Nothing is answered with 2xx before
//! the store has committed it, and every answer, errors included, is SCIM JSON. Queries, bodies and tokens are never logged.

mod answer;
mod bulk;
mod call;
mod capture;
mod connection;
mod cursor;
mod discovery;
mod failures;
mod groups;
mod layers;
mod oauth;
mod oidc;
mod render;
mod replay;
mod request;
mod resource;
mod resources;
mod search;
mod share;
#[cfg(test)]
pub(crate) mod tests;
mod token;
mod token_endpoint;
mod traffic;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::any;
use tower::ServiceBuilder;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

use crate::model::Clock;
use crate::scim::{FindingCode, ResourceTypes, ScimError};
use crate::store::{GroupRecord, ScimResource, Store, StoreError, UserRecord};
use crate::telemetry::ScimMetrics;
use call::Call;
use capture::Recording;
use failures::FailedAuthentications;
use share::Shares;
use token_endpoint::TokenRates;

pub(crate) use capture::{Capture, CapturePhase, Captures};
pub(crate) use connection::Connection;
pub(crate) use oauth::{AcceptedClient, ClientKeys};
pub(crate) use oidc::{Issuers, OidcPolicy};
pub(crate) use replay::{Replay, ReplayError, Replayed, replay};
#[cfg(test)]
pub(crate) use share::DEFAULT_REQUESTS_PER_SECOND;
pub(crate) use share::{LEAST_REQUESTS_PER_SECOND, Limits};
pub(crate) use token::{Accepted, AcceptedToken, TokenTable, client_credential};
pub(crate) use traffic::Traffic;

/// The base of the endpoint of one identity provider.
const BASE: &str = "/idp/{identityProvider}/scim/v2";

/// Parts of the SCIM endpoint.
#[derive(Clone)]
pub(crate) struct Scim {
    /// The directory.
    pub(crate) store: Store,
    /// Accepted bearer tokens.
    pub(crate) tokens: TokenTable,
    /// OpenID Connect issuers with their keys.
    pub(crate) issuers: Issuers,
    /// Per-provider request statistics.
    pub(crate) traffic: Traffic,
    /// Captured requests.
    pub(crate) captures: Captures,
    /// URL by which clients reach this server, such as `https://rolecall.example.com`; the only source of `meta.location`.
    pub(crate) external_url: String,
    /// Source of the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The types of resources.
    pub(crate) types: Arc<ResourceTypes>,
    /// Limits of one client.
    pub(crate) limits: Limits,
    /// Request counters.
    pub(crate) metrics: ScimMetrics,
}

struct Service {
    scim: Scim,
    shares: Arc<Shares>,
    failures: FailedAuthentications,
    token_rates: TokenRates,
}

/// The routes of the SCIM endpoint of all identity providers.
pub(crate) fn router(mut scim: Scim) -> Router {
    scim.external_url.truncate(scim.external_url.trim_end_matches('/').len());
    let shares = Shares::new(scim.limits);
    let service = Arc::new(Service {
        scim,
        shares,
        failures: FailedAuthentications::default(),
        token_rates: TokenRates::default(),
    });
    // The layer that is added last is passed first.
    let routes = routes(&service.scim.types).layer(from_fn(layers::admit)).layer(from_fn(layers::record));
    let endpoint = ServiceBuilder::new()
        .map_request(layers::normalize_path)
        .map_request(layers::drop_malformed_request_id)
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(from_fn_with_state(service.clone(), layers::authenticate))
        .service(routes);
    Router::new()
        .nest_service(BASE, endpoint)
        .route(token_endpoint::PATH, any(token_endpoint::token))
        .route(&format!("{}/", token_endpoint::PATH), any(token_endpoint::token))
        .fallback(layers::outside)
        .with_state(service)
        .layer(from_fn(layers::negotiate))
}

/// The routes below [`BASE`].
fn routes(types: &ResourceTypes) -> Router {
    let others = types.others.iter().map(|of| resource::routes::<ScimResource>(*of));
    let others = others.fold(Router::new(), Router::merge);
    Router::new()
        .merge(resource::routes::<UserRecord>(types.user))
        .merge(resource::routes::<GroupRecord>(types.group))
        .merge(others)
        .merge(discovery::routes())
        .route("/.search", any(|| async { ScimError::MethodNotAllowed("POST") }).post(search::all))
        .route("/Bulk", any(|| async { ScimError::MethodNotAllowed("POST") }).post(bulk::bulk))
        .route("/Me", any(me))
        .route("/Me/{*rest}", any(me))
        .fallback(no_such_endpoint)
}

async fn me() -> ScimError {
    ScimError::NotImplemented("`/Me` is not served; use `/Users/ID`".into())
}

async fn no_such_endpoint(call: Call, uri: Uri) -> ScimError {
    let repeated = uri.path().to_ascii_lowercase().contains("scim/v2");
    let code = if repeated { FindingCode::BaseUrlRepeated } else { FindingCode::EndpointUnknown };
    call.findings().note(code, "");
    ScimError::NotFound("there is no such SCIM endpoint; `/ResourceTypes` lists those there are".into())
}

fn store_error(error: &StoreError) -> ScimError {
    match error {
        StoreError::Taken { attribute } => {
            ScimError::Uniqueness(format!("another resource of this identity provider already has this `{attribute}`"))
        }
        StoreError::ValueTaken { .. } => ScimError::Uniqueness(error.to_string()),
        StoreError::NoKnownMember { .. } | StoreError::TooManyPending { .. } | StoreError::NotAMember => {
            ScimError::InvalidValue(error.to_string())
        }
        StoreError::QuotaExceeded { .. } => ScimError::QuotaExceeded(error.to_string()),
        StoreError::UnsupportedFilter { .. } => ScimError::InvalidFilter(error.to_string()),
        StoreError::ListTooLarge { .. } | StoreError::ListTooCostly { .. } | StoreError::TooManyGroups { .. } => {
            ScimError::TooMany(error.to_string())
        }
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
