//! Query, conditional headers and body of a request, each with its bounds.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use futures::StreamExt;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::share::{Admitted, BodyMemory, Limits, SMALL_BODY};
use crate::scim::{Projection, ResourceType, ScimError, etag, json};

/// Bytes of a body that is too large that are read and discarded, so that the client gets to read the answer.
const DISCARDED: usize = 32 * 1024 * 1024;

/// The query parameters of RFC 7644 §3.4.2; others are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) filter: Option<String>,
    /// The filter with each raw `+` inside quotation marks kept, where that makes a difference.
    pub(super) filter_with_plus: Option<String>,
    pub(super) start_index: Option<i64>,
    pub(super) count: Option<i64>,
    pub(super) sort_by: Option<String>,
    pub(super) sort_order: Option<String>,
    /// Empty at the beginning of a list.
    pub(super) cursor: Option<String>,
    pub(super) attributes: Option<String>,
    pub(super) excluded: Option<String>,
}

impl Query {
    /// From the query part of a URL: percent-encoded, with `+` for a space.
    pub(super) fn from_url(query: Option<&str>) -> Result<Self, ScimError> {
        let mut parsed = Self::default();
        let mut count = None;
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = decoded(name) else { continue };
            let known = name.to_ascii_lowercase();
            let slot = match known.as_str() {
                "filter" => &mut parsed.filter,
                "attributes" => &mut parsed.attributes,
                "excludedattributes" => &mut parsed.excluded,
                "sortby" => &mut parsed.sort_by,
                "sortorder" => &mut parsed.sort_order,
                "cursor" => &mut parsed.cursor,
                "startindex" => {
                    parsed.start_index = Some(number("startIndex", &decoded(value).unwrap_or_default())?);
                    continue;
                }
                "count" => {
                    count = decoded(value).or(Some(String::new()));
                    continue;
                }
                _ => continue,
            };
            let text = decoded(value)
                .ok_or_else(|| ScimError::InvalidFilter(format!("the parameter `{name}` is not UTF-8")))?;
            if slot.is_none() {
                *slot = Some(text);
                if known == "filter" {
                    parsed.filter_with_plus = with_plus(value);
                }
            }
        }
        if let Some(text) = count {
            let count = number("count", &text);
            parsed.count =
                Some(if parsed.cursor.is_some() { count.map_err(|_| ScimError::InvalidCount)? } else { count? });
        }
        Ok(parsed)
    }

    /// From the body of a search request (RFC 7644 §3.4.3).
    pub(super) fn from_search(body: Map<String, Value>) -> Result<Self, ScimError> {
        let mut parsed = Self::default();
        let wrong = |name: &str| ScimError::InvalidValue(format!("`{name}` has the wrong type"));
        for (name, value) in body {
            if value.is_null() {
                continue;
            }
            match name.to_ascii_lowercase().as_str() {
                "filter" => parsed.filter = Some(value.as_str().ok_or_else(|| wrong(&name))?.to_owned()),
                "startindex" => parsed.start_index = Some(value.as_i64().ok_or_else(|| wrong(&name))?),
                "count" => parsed.count = Some(value.as_i64().ok_or_else(|| wrong(&name))?),
                "sortby" => parsed.sort_by = Some(value.as_str().ok_or_else(|| wrong(&name))?.to_owned()),
                "sortorder" => parsed.sort_order = Some(value.as_str().ok_or_else(|| wrong(&name))?.to_owned()),
                "cursor" => parsed.cursor = Some(value.as_str().ok_or(ScimError::InvalidCursor)?.to_owned()),
                "attributes" => parsed.attributes = Some(names(&value).ok_or_else(|| wrong(&name))?),
                "excludedattributes" => parsed.excluded = Some(names(&value).ok_or_else(|| wrong(&name))?),
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// The attributes that are asked for.
    pub(super) fn projection(&self, of: ResourceType) -> Projection {
        Projection::new(of, self.attributes.as_deref(), self.excluded.as_deref())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ScimError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ScimError> {
        Self::from_url(parts.uri.query())
    }
}

fn names(value: &Value) -> Option<String> {
    let names: Option<Vec<&str>> = value.as_array()?.iter().map(Value::as_str).collect();
    Some(names?.join(","))
}

fn decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// A filter in which a raw `+` inside quotation marks stands for itself, and elsewhere for a space; none without such.
fn with_plus(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut raw = Vec::new();
    for (index, part) in text.split('+').enumerate() {
        if index > 0 {
            raw.push(bytes.len());
            bytes.push(b' ');
        }
        bytes.extend(percent_decode_str(part));
    }
    let mut raw = raw.into_iter().peekable();
    let (mut quoted, mut escaped, mut kept) = (false, false, false);
    for (index, byte) in bytes.iter_mut().enumerate() {
        if raw.next_if_eq(&index).is_some() && quoted {
            *byte = b'+';
            kept = true;
        }
        match *byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    if kept { String::from_utf8(bytes).ok() } else { None }
}

fn number(name: &str, text: &str) -> Result<i64, ScimError> {
    text.parse().map_err(|_| ScimError::InvalidValue(format!("`{name}` must be a whole number")))
}

/// Value of `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Versions {
    Any,
    /// Entity tags as sent.
    These(Vec<String>),
}

/// Extracts `If-Match`.
pub(super) struct IfMatch(pub(super) Option<Versions>);

/// Extracts `If-None-Match`.
pub(super) struct IfNoneMatch(pub(super) Option<Versions>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(Versions::from_header(&parts.headers, &IF_MATCH)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(Versions::from_header(&parts.headers, &IF_NONE_MATCH)))
    }
}

impl Versions {
    /// From one entity tag.
    pub(super) fn from_text(tag: &str) -> Self {
        if tag.trim() == "*" { Self::Any } else { Self::These(vec![tag.trim().to_owned()]) }
    }

    fn from_header(headers: &HeaderMap, name: &axum::http::HeaderName) -> Option<Self> {
        let mut tags = Vec::new();
        for value in headers.get_all(name) {
            for tag in String::from_utf8_lossy(value.as_bytes()).split(',').take(20) {
                match tag.trim() {
                    "*" => return Some(Self::Any),
                    tag => tags.push(tag.to_owned()),
                }
            }
        }
        if tags.is_empty() { None } else { Some(Self::These(tags)) }
    }

    /// Whether a version is among them. Weak and strong tags compare alike, since versions count changes.
    pub(super) fn contain(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => {
                let weak = etag(version);
                tags.iter().any(|tag| *tag == weak || Some(tag.as_str()) == weak.strip_prefix("W/"))
            }
        }
    }
}

/// A body that was read whole.
pub(super) struct Complete {
    pub(super) bytes: Vec<u8>,
    /// Permit of a large body, held until the request is answered.
    pub(super) memory: Option<BodyMemory>,
}

/// Reads a body whole. Refuses other media types, and bodies that are too large or too slow.
pub(super) async fn body(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    admitted: &Admitted,
) -> Result<Complete, ScimError> {
    if let Some(given) = headers.get(CONTENT_TYPE) {
        let essence = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !["application/scim+json", "application/json"].iter().any(|known| known.eq_ignore_ascii_case(essence)) {
            return Err(ScimError::UnsupportedMediaType);
        }
    }
    let too_large = || ScimError::PayloadTooLarge { limit: json::MAX_BODY };
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > DISCARDED || (length > json::MAX_BODY && headers.contains_key(EXPECT))) {
        return Err(too_large());
    }
    let reading = read(body, announced, limits, admitted);
    tokio::time::timeout(limits.body_timeout, reading)
        .await
        .map_err(|_| ScimError::RequestTimeout)??
        .ok_or_else(too_large)
}

/// The whole body, or none when it is too large. The body has to keep up with the minimum rate.
async fn read(
    body: Body,
    announced: Option<usize>,
    limits: &Limits,
    admitted: &Admitted,
) -> Result<Option<Complete>, ScimError> {
    // All the memory that the body may need is acquired at once. Acquired in parts, it could be held by bodies that each wait for
    // the part of another.
    let mut memory = match announced {
        Some(length) if length > SMALL_BODY => Some(admitted.body_memory(length.min(json::MAX_BODY)).await?),
        _ => None,
    };
    let mut reserved = memory.is_some();
    let mut bytes = Vec::with_capacity(announced.unwrap_or_default().min(json::MAX_BODY));
    let mut total = 0_usize;
    let mut stream = body.into_data_stream();
    let mut begun = Instant::now();
    loop {
        let earned = Duration::from_secs(1)
            .mul_f64(f64::from(u32::try_from(total).unwrap_or(u32::MAX)) / f64::from(limits.body_rate.max(1)));
        let next = tokio::time::timeout_at(begun + limits.body_grace + earned, stream.next()).await;
        let Some(chunk) = next.map_err(|_| ScimError::RequestTimeout)? else { break };
        let chunk = chunk.map_err(|_| ScimError::InvalidSyntax("the body ended before it was complete".into()))?;
        total = total.saturating_add(chunk.len());
        if total > SMALL_BODY && !reserved {
            let waits = Instant::now();
            memory = Some(admitted.body_memory(json::MAX_BODY).await?);
            reserved = true;
            // The time of waiting does not count against the client's rate.
            begun += waits.elapsed();
        }
        if total <= json::MAX_BODY {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
            memory = None;
        }
        if total > DISCARDED {
            break;
        }
    }
    Ok(if total > json::MAX_BODY { None } else { Some(Complete { bytes, memory }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_once_with_plus_as_space_and_odd_ends_are_ignored() {
        let query =
            Query::from_url(Some("filter=userName+eq+%22a%2Bb%40example.com%22&&startIndex=3&aadOptscim062020&"));
        let query = query.unwrap();
        assert_eq!(query.filter.as_deref(), Some("userName eq \"a+b@example.com\""));
        assert_eq!((query.start_index, query.count), (Some(3), None));
    }

    #[test]
    fn a_raw_plus_inside_quotation_marks_is_also_read_as_itself() {
        let kept = |text: &str| Query::from_url(Some(&format!("filter={text}"))).unwrap().filter_with_plus;
        assert_eq!(kept("userName+eq+%22a+b@x%22+and+id+pr").as_deref(), Some("userName eq \"a+b@x\" and id pr"));
        assert_eq!(kept("userName%20eq%20\"a%5C\"+b\"").as_deref(), Some("userName eq \"a\\\"+b\""));
        assert_eq!(kept("userName+eq+%22a%22"), None);
        assert_eq!(kept("userName+eq+%22a%2Bb%22"), None, "it is read as such the first time");
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        assert_eq!(Query::from_url(Some("count=many")).unwrap_err().scim_type(), Some("invalidValue"));
    }

    #[test]
    fn weak_and_strong_tags_name_the_same_version() {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, "W/\"3\", \"4\"".parse().unwrap());
        let versions = Versions::from_header(&headers, &IF_MATCH).unwrap();
        assert!(versions.contain(3) && versions.contain(4) && !versions.contain(34));
        headers.insert(IF_MATCH, "*".parse().unwrap());
        assert!(Versions::from_header(&headers, &IF_MATCH).unwrap().contain(99));
        assert_eq!(Versions::from_header(&headers, &IF_NONE_MATCH), None);
    }
}
