//! Conditions according to the Kubernetes API conventions: one per type, with times that change only with the status.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::condition::{kind, lookup, reason};

/// Longest message of a condition, in characters.
const MAX_MESSAGE: usize = 2048;

/// The conditions of one object under construction.
pub(super) struct Conditions<'a> {
    previous: &'a [Condition],
    generation: i64,
    now: Timestamp,
    list: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    pub fn new(previous: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self { previous, generation, now, list: Vec::new() }
    }

    /// Sets a condition; `lastTransitionTime` is kept while the status stays the same.
    pub fn set(&mut self, type_: &str, status: bool, reason: &str, message: &str) {
        let status = if status { "True" } else { "False" };
        let since = find(self.previous, type_)
            .filter(|previous| previous.status == status)
            .map_or(Time(self.now), |previous| previous.last_transition_time.clone());
        self.list.push(Condition {
            last_transition_time: since,
            message: clip(message, MAX_MESSAGE),
            observed_generation: Some(self.generation),
            reason: reason.to_owned(),
            status: status.to_owned(),
            type_: type_.to_owned(),
        });
    }

    /// Sets `Ready`. When it is false, also sets who has to act: `Stalled` means a person, `Reconciling` means rolecall
    /// or time. Returns until when a missing object may still arrive.
    pub fn set_ready(&mut self, status: bool, reason: &str, message: &str) -> Option<Timestamp> {
        let arrives = arrives_until(self.previous, self.generation, reason, self.now);
        self.set(kind::READY, status, reason, message);
        if status {
            return None;
        }
        let kind = if needs_a_person(reason) && arrives.is_none() { kind::STALLED } else { kind::RECONCILING };
        self.set(kind, true, reason, message);
        arrives
    }

    /// The conditions that were set, in the order of [`kind::ALL`].
    pub fn finish(mut self) -> Vec<Condition> {
        let place = |condition: &Condition| kind::ALL.iter().position(|type_| *type_ == condition.type_);
        self.list.sort_by(|one, other| match (place(one), place(other)) {
            (Some(one), Some(other)) => one.cmp(&other),
            _ => Ordering::Equal,
        });
        self.list
    }
}

/// The condition of this type.
pub(super) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Time within which an object that a new one refers to may still arrive. Objects that are applied together arrive one
/// by one, and Flux gives up at once when one of them is `Stalled`.
const ARRIVAL: SignedDuration = SignedDuration::from_secs(10);

/// Until when the object whose absence is the reason may still arrive. None for other reasons, after that time, and
/// when this generation was ready or stalled before.
pub(super) fn arrives_until(previous: &[Condition], generation: i64, word: &str, now: Timestamp) -> Option<Timestamp> {
    let names_another =
        matches!(word, reason::IDENTITY_PROVIDER_NOT_FOUND | reason::TARGET_NOT_FOUND | reason::TOKEN_SECRET_NOT_FOUND);
    let ready = find(previous, kind::READY);
    // This generation was ready with the object, or has already waited for it.
    let settled = [kind::READY, kind::STALLED]
        .into_iter()
        .filter_map(|type_| find(previous, type_))
        .any(|condition| condition.status == "True" && condition.observed_generation == Some(generation));
    let since = ready
        .filter(|ready| ready.status == "False" && ready.reason == word)
        .map_or(now, |ready| ready.last_transition_time.0);
    let until = later(since, ARRIVAL);
    (names_another && !settled && now < until).then_some(until)
}

/// True when waiting does not help. Then the object is `Stalled`, otherwise `Reconciling`.
#[must_use]
pub fn needs_a_person(word: &str) -> bool {
    matches!(
        word,
        reason::PERMISSION_DENIED
            | reason::MEMBER_REFUSED
            | reason::FOREIGN_MEMBER_REJECTED
            | reason::POLICY_FULL
            | reason::POLICY_REFUSED
            | reason::POLICY_UNKNOWN_VERSION
            | reason::CONDITIONS_HIDDEN
            | reason::UNAUTHENTICATED
            | reason::API_DISABLED
            | reason::DOMAIN_RESTRICTED
            | reason::ROLE_NOT_SUPPORTED
            | reason::PRINCIPAL_RESPELLED
            | reason::PROJECT_NOT_FOUND
            | reason::GROUP_DELETED
            | reason::GROUP_AMBIGUOUS
            | reason::GROUP_IDENTITY_CHANGED
            | reason::IDENTITY_PROVIDER_NOT_FOUND
            | reason::IDENTITY_PROVIDER_CHANGED
            | reason::TARGET_NOT_FOUND
            | reason::OVERLAPPING_TARGET
            | reason::INVALID_MANIFEST
            | reason::DUPLICATE_OBJECT
            | reason::NOT_DELEGATED
            | reason::REVOCATION_ABANDONED
            | reason::STATUS_REFUSED
            | reason::SUSPENDED
            | reason::MANIFESTS_MISSING
            | reason::STORE_MISMATCH
            | reason::STORE_REWOUND
            | reason::TOKEN_SECRET_NOT_FOUND
            | reason::TOKEN_SECRET_FORBIDDEN
            | reason::TOKEN_KEY_NOT_FOUND
            | reason::TOKEN_INVALID
            | reason::TOKEN_TOO_SHORT
            | reason::TOKEN_EXPIRED
            | reason::TOKEN_SHARED
            | reason::QUOTA_EXCEEDED
    )
}

/// The meaning of a reason and what to do about it, in one sentence.
pub(super) fn explain(word: &str) -> String {
    match lookup(word) {
        Some(entry) if entry.action.is_empty() => entry.meaning.to_owned(),
        Some(entry) => format!("{}; {}", entry.meaning, entry.action),
        None => word.to_owned(),
    }
}

/// What to do about a reason; empty when nothing has to be done.
pub(super) fn next_step(word: &str) -> &'static str {
    lookup(word).map_or("", |entry| entry.action)
}

/// The message, followed by what to do about its reason.
pub(super) fn with_next_step(message: &str, word: &str) -> String {
    match next_step(word) {
        "" => message.to_owned(),
        step => format!("{message}; {step}"),
    }
}

/// A text of at most `limit` characters.
pub(super) fn clip(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A number in the type of Kubernetes objects.
pub(super) fn int(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// `1 grant`, `2 grants`, `1 policy`, `2 policies`.
pub(super) fn plural(n: u64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

/// `at` plus `by`, or the latest representable time.
pub(super) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The earlier of two optional times.
pub(super) fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    [one, other].into_iter().flatten().min()
}
