//! Classification of Google's answers: a pure function of status, headers and body. The texts are those that Cloud Run
//! and IAM are known to send. An answer from anything else (a page of a proxy or front end) never counts as theirs.

use std::time::Duration;

use jiff::fmt::rfc2822;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use serde_json::Value;

use super::GoogleError;
use crate::target::RefusalCause;

/// Longest accepted wait: the longest quota window of these APIs is a minute, and there are no daily quotas.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// Google's texts are one or two sentences. Longer ones are cut, so that a status stays readable and bounded.
const MESSAGE_MAX: usize = 1000;

/// Whether a call changes something, which decides what a lost answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A lost answer is harmless: nothing was changed.
    Read,
    /// A lost answer leaves the outcome open.
    Write,
}

impl Call {
    /// The error of a call whose answer never came or has no meaning. Only this makes the outcome of a write uncertain.
    pub(super) fn lost(self, message: String) -> GoogleError {
        match self {
            Self::Read => GoogleError::Unavailable { message },
            Self::Write => GoogleError::Unknown { message },
        }
    }

    /// The error of a 2xx with an unexpected body. A write has been committed in this case.
    pub(super) fn unreadable(self, message: String) -> GoogleError {
        match self {
            Self::Read => GoogleError::Malformed { message },
            Self::Write => GoogleError::Unknown { message },
        }
    }
}

#[derive(Deserialize)]
struct Envelope {
    error: Body,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    message: String,
    status: String,
    details: Vec<Value>,
    errors: Vec<Value>,
}

impl Body {
    /// The first detail of a type, such as `ErrorInfo`.
    fn detail(&self, name: &str) -> Option<&Value> {
        let is_it = |detail: &&Value| {
            let kind = detail.get("@type").and_then(Value::as_str);
            kind.is_some_and(|kind| kind.rsplit('.').next() == Some(name))
        };
        self.details.iter().find(is_it)
    }

    fn info_reason(&self) -> Option<&str> {
        self.detail("ErrorInfo")?.get("reason")?.as_str()
    }

    /// True for a quota error, in any of the forms that Google uses.
    fn is_quota(&self) -> bool {
        let legacy = |error: &Value| {
            let reason = error.get("reason").and_then(Value::as_str);
            matches!(reason, Some("rateLimitExceeded" | "userRateLimitExceeded" | "quotaExceeded"))
        };
        self.status == "RESOURCE_EXHAUSTED"
            || self.info_reason() == Some("RATE_LIMIT_EXCEEDED")
            || (self.message.contains("Quota exceeded for quota metric '") && self.message.contains("' of service '"))
            || self.errors.iter().any(legacy)
    }
}

/// The meaning of an answer that is not 2xx.
#[must_use]
pub(crate) fn classify(call: Call, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> GoogleError {
    let envelope = serde_json::from_slice::<Envelope>(body).map(|envelope| envelope.error);
    let known = envelope.is_ok();
    let error = envelope.unwrap_or_default();
    let message = if error.message.is_empty() {
        format!("HTTP status {} without a message of the API", status.as_u16())
    } else {
        bounded(&error.message)
    };
    match status.as_u16() {
        401 => GoogleError::Unauthenticated { message },
        429 => throttled(headers, &error, message),
        403 if error.is_quota() => throttled(headers, &error, message),
        403 if is_disabled(&error) => GoogleError::ApiDisabled { message },
        403 => GoogleError::Denied { permission: permission(&error), message },
        404 if known && error.status == "NOT_FOUND" => GoogleError::NotFound { message },
        409 if error.status == "ABORTED" => GoogleError::Conflict,
        413 => GoogleError::Refused {
            cause: RefusalCause::LimitExceeded,
            message: if known { message } else { "the request is larger than Google accepts".to_owned() },
            member: None,
            others: Vec::new(),
            role: None,
        },
        // 408 and 499 are canceled calls, which may have been carried out.
        400..=499 if known && !matches!(status.as_u16(), 404 | 408 | 499) => {
            let Named { cause, member, others, role } = refusal(&error);
            GoogleError::Refused { cause, message, member, others, role }
        }
        501 if error.status == "UNIMPLEMENTED" => {
            GoogleError::Refused { cause: RefusalCause::Other, message, member: None, others: Vec::new(), role: None }
        }
        _ => call.lost(message),
    }
}

fn throttled(headers: &HeaderMap, error: &Body, message: String) -> GoogleError {
    GoogleError::Throttled { retry_after: retry_after(headers, error), per_minute: per_minute(error), message }
}

/// The calls per minute that the quota permits, from the metadata of the details.
fn per_minute(error: &Body) -> Option<u32> {
    let metadata = error.detail("ErrorInfo")?.get("metadata")?;
    let is_by_minute = metadata.get("quota_limit")?.as_str()?.contains("PerMinute");
    metadata.get("quota_limit_value")?.as_str()?.parse().ok().filter(|value| is_by_minute && *value > 0)
}

fn is_disabled(error: &Body) -> bool {
    error.info_reason() == Some("SERVICE_DISABLED")
        || (error.message.contains(" API has not been used in project ") && error.message.contains("or it is disabled"))
}

/// The denied permission, from the text `Permission 'run.services.setIamPolicy' denied on resource …` or from the
/// metadata of the details.
fn permission(error: &Body) -> Option<String> {
    let told = between(&error.message, "Permission '", "' denied");
    let detailed = || error.detail("ErrorInfo")?.get("metadata")?.get("permission")?.as_str();
    let permission = told.or_else(detailed)?;
    let is_one = permission.len() <= 100
        && permission.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-'));
    is_one.then(|| permission.to_owned())
}

/// The cause of a refusal, and the members or role that it names.
struct Named {
    cause: RefusalCause,
    member: Option<String>,
    others: Vec<String>,
    role: Option<String>,
}

impl Named {
    fn nobody(cause: RefusalCause) -> Self {
        Self::member(cause, None)
    }

    fn member(cause: RefusalCause, member: Option<String>) -> Self {
        Self { cause, member, others: Vec::new(), role: None }
    }

    fn members(cause: RefusalCause, members: Vec<String>) -> Self {
        let mut members = members.into_iter();
        Self { member: members.next(), others: members.collect(), ..Self::nobody(cause) }
    }
}

fn refusal(error: &Body) -> Named {
    let text = error.message.as_str();
    for (before, kind) in [("Service account ", "serviceAccount"), ("Group ", "group"), ("User ", "user")] {
        if let Some(name) = between(text, before, " does not exist") {
            return Named::member(RefusalCause::PrincipalUnknown, member(kind, name));
        }
    }
    if let Some(name) = between(text, "Member '", "' is not allowed in role '") {
        let role = between(text, "' is not allowed in role '", "'").and_then(role);
        return Named { role, ..Named::member(RefusalCause::PrincipalRefused, Some(bounded(name))) };
    }
    // `Account X is of type "group". Please set the type prefix to be "group:".`
    if text.contains(" is of type \"")
        && let Some(name) = between(text, "Account ", " is of type \"")
    {
        return Named::member(RefusalCause::PrincipalType, member("user", name));
    }
    if let Some(name) = between(text, "Invalid value for member '", "'") {
        return Named::member(RefusalCause::PrincipalMalformed, Some(bounded(name)));
    }
    if let Some(name) = between(text, "The member ", " is of an unknown type") {
        return Named::member(RefusalCause::PrincipalMalformed, Some(bounded(name)));
    }
    // `Email 'X' is not the primary email address for unique ID 'N' of deleted member 'deleted:user:X?uid=N'.`
    if text.contains("is not the primary email address for unique ID") {
        let name = text.split_once("of deleted member ").map(|(_, name)| name.trim_matches(['\'', '"', '.', ' ']));
        return Named::member(RefusalCause::PrincipalMalformed, name.filter(|name| is_deleted(name)).map(bounded));
    }
    if text.contains("do not belong to a permitted customer") {
        return Named::members(RefusalCause::DomainRestricted, violators(error));
    }
    if text.contains("Operation denied by org policy")
        || text.contains("Operation denied by custom org polic")
        || error.info_reason() == Some("CUSTOM_ORG_POLICY_VIOLATION")
    {
        let of_members = text.contains("allowedPolicyMembers") || text.contains("allowedPolicyMemberDomains");
        let cause = if of_members { RefusalCause::DomainRestricted } else { RefusalCause::OrganizationPolicy };
        return Named::members(cause, violators(error));
    }
    if text.contains("Policy members must be of the form") {
        return Named::nobody(RefusalCause::PrincipalMalformed);
    }
    let unsupported = between(text, "Role ", " is not supported for this resource");
    let missing = || between(text, "Role (", ") does not exist in the resource's hierarchy");
    if let Some(name) = unsupported.or_else(missing) {
        return Named { role: role(name), ..Named::nobody(RefusalCause::RoleNotSupported) };
    }
    let limits = [
        "The number of members in the policy (",
        "The number of groups in the policy (",
        "policy is too large",
        "larger than the maximum allowed size",
    ];
    if limits.iter().any(|limit| text.contains(limit)) {
        return Named::nobody(RefusalCause::LimitExceeded);
    }
    if is_about_condition(text) { Named::nobody(RefusalCause::Condition) } else { Named::nobody(RefusalCause::Other) }
}

/// True for a text about the condition of a binding, such as `LintValidationUnits/… Error: …`. How Google refuses each kind
/// of error in an expression is not documented.
fn is_about_condition(text: &str) -> bool {
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric());
    let named =
        || words().any(|word| word.eq_ignore_ascii_case("condition") || word.eq_ignore_ascii_case("conditions"));
    text.contains("LintValidationUnits/") || (!text.starts_with("The number of ") && named())
}

fn is_deleted(name: &str) -> bool {
    name.starts_with("deleted:") && name.len() <= 400 && !name.contains(char::is_whitespace)
}

/// A role in the spelling of policies.
fn role(name: &str) -> Option<String> {
    let plausible =
        !name.is_empty() && name.len() <= 200 && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    plausible.then(|| name.to_owned())
}

/// Largest number of principals that are taken from one answer.
const VIOLATORS: usize = 50;

/// The principals in the details of a domain restriction. Google writes `User` before service accounts, too.
fn violators(error: &Body) -> Vec<String> {
    let violations =
        error.detail("PreconditionFailure").and_then(|detail| detail.get("violations")).and_then(Value::as_array);
    let named = violations.into_iter().flatten().filter_map(|violation| {
        let field = |name: &str| violation.get(name).and_then(Value::as_str).unwrap_or_default();
        let described = between(field("description"), "User ", " is not in permitted organization");
        let name = described.or_else(|| field("subject").split_once("configvalue=").map(|(_, value)| value));
        name.and_then(|name| member("user", name))
    });
    named.take(VIOLATORS).collect()
}

fn member(kind: &str, name: &str) -> Option<String> {
    let plausible = !name.is_empty() && name.len() <= 320 && !name.contains(char::is_whitespace);
    plausible.then(|| format!("{kind}:{name}"))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// `Retry-After` as seconds or as a date (relative to the answer's own `Date`), otherwise the delay of `RetryInfo`.
fn retry_after(headers: &HeaderMap, error: &Body) -> Option<Duration> {
    let header = |name| headers.get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
    let from_header = header(RETRY_AFTER).and_then(|text| {
        if let Ok(seconds) = text.trim().parse() {
            return Some(Duration::from_secs(seconds));
        }
        let at = rfc2822::parse(text).ok()?.timestamp();
        let now = rfc2822::parse(header(DATE)?).ok()?.timestamp();
        Duration::try_from(at.duration_since(now)).ok()
    });
    let from_details = || {
        let delay = error.detail("RetryInfo")?.get("retryDelay")?.as_str()?.strip_suffix('s')?;
        Duration::try_from_secs_f64(delay.parse().ok()?).ok()
    };
    from_header.or_else(from_details).map(|wait| wait.min(RETRY_AFTER_MAX))
}

/// A foreign text made safe for a status: without control characters, and of bounded length.
pub(super) fn bounded(text: &str) -> String {
    let mut clean: String = text.chars().take(MESSAGE_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MESSAGE_MAX).is_some() {
        clean.push('…');
    }
    clean
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
