//! An authenticated request, and the extractors of its parts.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::HeaderValue;
use axum::http::request::Parts;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::share::{Admitted, BodyMemory, Slot};
use super::token::Caller;
use super::{Connection, Recording, Scim, Service, request};
use crate::model::ProviderName;
use crate::scim::{Dialect, Findings, ResourceType, ScimError, Signs, json};
use crate::store::{Origin, Store};

/// `Retry-After` of a provider that is suspended, or whose directory is a former one's, in seconds. Suspending is meant to be short.
pub(super) const SUSPENDED_RETRY: u64 = 300;

/// An authenticated request. Clones share it; it counts as admitted until the last of them is dropped.
#[derive(Clone)]
pub(super) struct Call(Arc<Context>);

struct Context {
    service: Arc<Service>,
    caller: Caller,
    request_id: Option<HeaderValue>,
    received_at: Timestamp,
    connection: Connection,
    findings: Mutex<Findings>,
    signs: Mutex<Signs>,
    /// None: the request is not captured.
    recording: Option<Recording>,
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
        let findings =
            if service.scim.tokens.is_strict(&caller.provider) { Findings::strict() } else { Findings::new() };
        let (findings, signs, admitted) = (Mutex::new(findings), Mutex::default(), OnceLock::new());
        let recording = service.scim.captures.redactor(&caller.provider, received_at).map(Recording::new);
        let context =
            Context { service, caller, request_id, received_at, connection, findings, signs, recording, admitted };
        Self(Arc::new(context))
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

    /// Accepted deviations. The guard must not be held across an await.
    pub(super) fn findings(&self) -> MutexGuard<'_, Findings> {
        self.0.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the findings of a part of the request; returns those so far.
    pub(super) fn begin_findings(&self) -> Findings {
        let mut findings = self.findings();
        let empty = findings.another();
        std::mem::replace(&mut findings, empty)
    }

    /// Puts the findings of a part after the earlier ones.
    pub(super) fn end_findings(&self, mut earlier: Findings) {
        let mut findings = self.findings();
        earlier.extend(std::mem::take(&mut findings));
        *findings = earlier;
    }

    pub(super) fn take_findings(&self) -> Findings {
        std::mem::take(&mut self.findings())
    }

    /// Signs of the IdP in this request. The guard must not be held across an await.
    pub(super) fn signs(&self) -> MutexGuard<'_, Signs> {
        self.0.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the request is captured, if it is.
    pub(super) fn recording(&self) -> Option<&Recording> {
        self.0.recording.as_ref()
    }

    /// The dialect that the provider is configured for, or that its requests look like.
    pub(super) fn dialect(&self) -> Dialect {
        let provider = self.provider();
        self.scim().tokens.dialect(provider).unwrap_or_else(|| self.scim().traffic.dialect(provider, &self.signs()))
    }

    /// Admits the request by the state, rate and share of its provider and token.
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

    /// True once it was admitted.
    pub(super) fn is_admitted(&self) -> bool {
        self.0.admitted.get().is_some()
    }

    fn admitted(&self) -> Result<&Admitted, ScimError> {
        self.0.admitted.get().ok_or(ScimError::Internal)
    }

    /// Waits for a slot.
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

/// A body that is a JSON object, read whole. Holds the slot and the memory of the request.
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
        if let Some(recording) = call.recording() {
            recording.body(&read.bytes);
        }
        let slot = call.slot().await?;
        let members = json::object(&read.bytes, &mut call.findings())?;
        call.signs().body(&members);
        Ok(Self { members, _slot: slot, _memory: read.memory })
    }
}

/// The id at the end of a path.
pub(super) struct Id(pub(super) String);

impl Id {
    /// The 404 of this id.
    pub(super) fn not_found(&self, of: ResourceType) -> ScimError {
        let id: String = self.0.chars().take(60).collect();
        ScimError::NotFound(format!("there is no {} with the id `{id}`", of.name().to_ascii_lowercase()))
    }
}

fn lossy(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        Ok(Self(match path {
            Ok(Path((_, id))) => id,
            // Not UTF-8: the id of nothing, for the text of the refusal.
            Err(_) => lossy(parts.uri.path().rsplit('/').next().unwrap_or_default()),
        }))
    }
}
