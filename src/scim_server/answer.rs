//! Answers: SCIM JSON in all cases, errors included (RFC 7644 §3.1, §3.12).

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, ETAG, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::render::Content;
use crate::scim::{FindingCode, ScimError, etag};

pub(super) const SCIM_JSON: HeaderValue = HeaderValue::from_static("application/scim+json");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a refusal is called and where it is reported, as an extension of its answer.
#[derive(Clone)]
pub(super) struct Refused {
    /// The reason word.
    pub(super) reason: &'static str,
    /// The finding, with the attribute that the refusal is about.
    pub(super) finding: Option<(FindingCode, String)>,
}

/// A successful answer before it is serialized.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    body: Option<Content>,
    version: Option<String>,
    location: Option<String>,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self::with(Content::Value(body))
    }

    pub(super) fn with(body: Content) -> Self {
        Self { status: 200, body: Some(body), version: None, location: None }
    }

    pub(super) fn created(body: Content, location: String) -> Self {
        Self { status: 201, body: Some(body), version: None, location: Some(location) }
    }

    pub(super) fn no_content() -> Self {
        Self { status: 204, body: None, version: None, location: None }
    }

    pub(super) fn not_modified() -> Self {
        Self { status: 304, body: None, version: None, location: None }
    }

    pub(super) fn with_version(self, version: i64) -> Self {
        Self { version: Some(etag(version)), ..self }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn response(status: u16, body: Option<Content>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(body) = body {
        response.headers_mut().insert(CONTENT_TYPE, SCIM_JSON);
        *response.body_mut() = match body {
            Content::Value(value) => Body::from(value.to_string()),
            Content::Text(text) => Body::from(text),
            Content::Stream(body) => body,
        };
    }
    response
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = response(self.status, self.body);
        let headers = response.headers_mut();
        if let Some(version) = &self.version {
            set(headers, ETAG, version);
        }
        if let Some(location) = &self.location {
            set(headers, LOCATION, location);
        }
        response
    }
}

impl IntoResponse for ScimError {
    fn into_response(self) -> Response {
        let mut response = response(self.status(), Some(Content::Value(self.body())));
        let headers = response.headers_mut();
        match &self {
            Self::Unauthorized => set(headers, WWW_AUTHENTICATE, "Bearer"),
            Self::MethodNotAllowed(allowed) => set(headers, ALLOW, allowed),
            // The rest of the request is not read.
            Self::PayloadTooLarge { .. } | Self::RequestTimeout => set(headers, CONNECTION, "close"),
            _ => {}
        }
        if let Some(seconds) = self.retry_after() {
            set(headers, RETRY_AFTER, &seconds.to_string());
        }
        let finding = self.finding().map(|code| (code, self.attribute().unwrap_or_default()));
        response.extensions_mut().insert(Refused { reason: self.reason(), finding });
        response
    }
}
