//! Answers: SCIM JSON in all cases, errors included (RFC 7644 §3.1, §3.12).

use axum::body::{Body, HttpBody as _};
use axum::http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::Value;

use super::render::Content;
use crate::scim::ScimError;

/// What is answered, before it becomes bytes.
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

/// The weak entity tag of a version.
pub(super) fn etag(version: i64) -> String {
    format!("W/\"{version}\"")
}

/// `application/json` where that is all the client says it takes; otherwise what SCIM is.
fn content_type(request: &HeaderMap) -> HeaderValue {
    let accepts: String = request
        .get_all(axum::http::header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>()
        .join(",")
        .to_ascii_lowercase();
    let plain = accepts.contains("application/json")
        && !["application/scim+json", "*/*", "application/*"].iter().any(|wide| accepts.contains(wide));
    HeaderValue::from_static(if plain { "application/json" } else { "application/scim+json" })
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The answer as it goes out. `request` are the headers of what is answered.
pub(super) fn response(request: &HeaderMap, result: Result<Answer, ScimError>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let (status, body) = match result {
        Ok(answer) => {
            if let Some(version) = &answer.version {
                set(headers, ETAG, version);
            }
            if let Some(location) = &answer.location {
                set(headers, LOCATION, location);
            }
            (answer.status, answer.body)
        }
        Err(error) => {
            match &error {
                ScimError::Unauthorized => set(headers, WWW_AUTHENTICATE, "Bearer"),
                ScimError::MethodNotAllowed(allowed) => set(headers, ALLOW, allowed),
                // What is left of the request on this connection is not read.
                ScimError::PayloadTooLarge { .. } | ScimError::RequestTimeout => set(headers, CONNECTION, "close"),
                _ => {}
            }
            if let Some(seconds) = error.retry_after() {
                set(headers, RETRY_AFTER, &seconds.to_string());
            }
            (error.status(), Some(Content::Value(error.body())))
        }
    };
    if body.is_some() {
        headers.insert(CONTENT_TYPE, content_type(request));
    }
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(body) = body {
        *response.body_mut() = match body {
            Content::Value(value) => Body::from(value.to_string()),
            Content::Text(text) => Body::from(text),
            Content::Stream(body) => body,
        };
    }
    response
}

/// The answer to HEAD: that to GET without its body, with the length that it has (RFC 9110 §9.3.2).
pub(super) fn without_body_for(method: &Method, mut response: Response<Body>) -> Response<Body> {
    if method == Method::HEAD {
        let length = response.body().size_hint().exact();
        *response.body_mut() = Body::empty();
        if let Some(length) = length.filter(|length| *length > 0) {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    response
}
