//! One authenticated request as its handler sees it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::HeaderValue;
use axum::http::request::Parts;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::share::{Admitted, BodyMemory, Slot};
use super::token::Caller;
use super::{Connection, Scim, Service, request};
use crate::model::ProviderName;
use crate::scim::{Findings, ResourceType, ScimError, json};
use crate::store::{Origin, Store};

/// `Retry-After` of a provider that is suspended, or whose directory is a former one's, in seconds. Suspending is meant to be short.
const SUSPENDED_RETRY: u64 = 300;

/// One authenticated request. Clones are of the same request, which counts as admitted until the last of them is dropped.
#[derive(Clone)]
pub(super) struct Call(Arc<Context>);

struct Context {
    service: Arc<Service>,
    caller: Caller,
    request_id: Option<HeaderValue>,
    received_at: Timestamp,
    connection: Connection,
    findings: Mutex<Findings>,
    /// None until it is admitted.
    admitted: OnceLock<Admitted>,
}

impl Call {
    pub(super) fn new(
        service: Arc<Service>,
        caller: Caller,
        request_id: Option<HeaderValue>,
        received_at: Timestamp,
        connection: Connection,
    ) -> Self {
        let (findings, admitted) = (Mutex::default(), OnceLock::new());
        Self(Arc::new(Context { service, caller, request_id, received_at, connection, findings, admitted }))
    }

    pub(super) fn scim(&self) -> &Scim {
        &self.0.service.scim
    }

    pub(super) fn store(&self) -> &Store {
        &self.scim().store
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.0.caller
    }

    pub(super) fn provider(&self) -> &ProviderName {
        &self.0.caller.provider
    }

    pub(super) fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_ref().and_then(|id| id.to_str().ok())
    }

    pub(super) fn received_at(&self) -> Timestamp {
        self.0.received_at
    }

    pub(super) fn origin(&self) -> Origin {
        Origin { token: self.0.caller.token.clone(), request_id: self.request_id().map(str::to_owned) }
    }

    /// The provider's SCIM base URL.
    pub(super) fn base(&self) -> String {
        format!("{}/idp/{}/scim/v2", self.scim().external_url, self.provider())
    }

    /// Deviations that were accepted. Not to be held while anything is waited for.
    pub(super) fn findings(&self) -> MutexGuard<'_, Findings> {
        self.0.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_findings(&self) -> Findings {
        std::mem::take(&mut self.findings())
    }

    /// Counts the request among those of its provider and token, or says when to come again.
    pub(super) fn admit(&self) -> Result<(), ScimError> {
        let Service { scim, shares, .. } = &*self.0.service;
        let caller = self.caller();
        if scim.tokens.is_held(&caller.provider) {
            return Err(ScimError::FormerDirectory { retry_after: SUSPENDED_RETRY });
        }
        if scim.tokens.is_suspended(&caller.provider) {
            return Err(ScimError::Unavailable { retry_after: SUSPENDED_RETRY });
        }
        let admitted = shares.admit(caller, scim.tokens.rate(&caller.provider))?;
        self.0.admitted.set(admitted).map_err(|_twice| ScimError::Internal)
    }

    fn admitted(&self) -> Result<&Admitted, ScimError> {
        self.0.admitted.get().ok_or(ScimError::Internal)
    }

    /// Waits for its turn to be worked on.
    pub(super) async fn slot(&self) -> Result<Slot, ScimError> {
        self.admitted()?.slot().await
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = ScimError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ScimError> {
        parts.extensions.get::<Self>().cloned().ok_or(ScimError::Internal)
    }
}

/// A body that is a JSON object, read whole. What the request holds while it is worked on is held until this is dropped.
pub(super) struct Object {
    pub(super) members: Map<String, Value>,
    _slot: Slot,
    _memory: Option<BodyMemory>,
}

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = ScimError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ScimError> {
        let (mut parts, body) = request.into_parts();
        let call = Call::from_request_parts(&mut parts, state).await?;
        call.0.connection.set_receiving(true);
        let read = request::body(&parts.headers, body, &call.scim().limits, call.admitted()?).await;
        call.0.connection.set_receiving(false);
        let read = read?;
        let slot = call.slot().await?;
        Ok(Self { members: json::object(&read.bytes)?, _slot: slot, _memory: read.memory })
    }
}

/// The id at the end of a path.
pub(super) struct Id(pub(super) String);

impl Id {
    /// The refusal of an id that names nothing.
    pub(super) fn not_found(&self, of: ResourceType) -> ScimError {
        let id: String = self.0.chars().take(60).collect();
        ScimError::NotFound(format!("there is no {} with the id `{id}`", of.name().to_ascii_lowercase()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        // What is not UTF-8 is the id of nothing.
        Ok(Self(path.map_or_else(|_| char::REPLACEMENT_CHARACTER.to_string(), |Path((_, id))| id)))
    }
}
