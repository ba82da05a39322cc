//! Conditions according to the Kubernetes API conventions: one per type, with times that change only with the status.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::condition::kind;
use crate::model::Reason;

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
    pub(crate) fn new(previous: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self { previous, generation, now, list: Vec::new() }
    }

    /// Sets a condition; `lastTransitionTime` is kept while the status stays the same.
    pub(crate) fn set(&mut self, type_: &str, status: bool, reason: Reason, message: &str) {
        let status = if status { "True" } else { "False" };
        let since = find(self.previous, type_)
            .filter(|previous| previous.status == status)
            .map_or(Time(self.now), |previous| previous.last_transition_time.clone());
        self.list.push(Condition {
            last_transition_time: since,
            message: clip(message, MAX_MESSAGE),
            observed_generation: Some(self.generation),
            reason: reason.word().to_owned(),
            status: status.to_owned(),
            type_: type_.to_owned(),
        });
    }

    /// Sets `Ready`. When it is false, also sets who has to act: `Stalled` means a person, `Reconciling` means rolecall
    /// or time. Returns until when a missing object may still arrive.
    pub(crate) fn set_ready(&mut self, status: bool, reason: Reason, message: &str) -> Option<Timestamp> {
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
    pub(crate) fn finish(mut self) -> Vec<Condition> {
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
pub(super) fn arrives_until(
    previous: &[Condition],
    generation: i64,
    word: Reason,
    now: Timestamp,
) -> Option<Timestamp> {
    let names_another =
        matches!(word, Reason::IdentityProviderNotFound | Reason::TargetNotFound | Reason::TokenSecretNotFound);
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
pub(crate) fn needs_a_person(word: Reason) -> bool {
    matches!(
        word,
        Reason::PermissionDenied
            | Reason::MemberRefused
            | Reason::ForeignMemberRejected
            | Reason::PolicyFull
            | Reason::Contested
            | Reason::PolicyRefused
            | Reason::PrincipalTypeMismatch
            | Reason::DeniedByOrgPolicy
            | Reason::ConditionRefused
            | Reason::ConditionInvalid
            | Reason::ConditionNotSupported
            | Reason::PolicyUnknownVersion
            | Reason::ConditionsHidden
            | Reason::Unauthenticated
            | Reason::ApiDisabled
            | Reason::DomainRestricted
            | Reason::RoleNotSupported
            | Reason::PrincipalRespelled
            | Reason::ProjectNotFound
            | Reason::GroupDeleted
            | Reason::GroupAmbiguous
            | Reason::GroupIdentityChanged
            | Reason::NestingLimitExceeded
            | Reason::IdentityProviderNotFound
            | Reason::IdentityProviderChanged
            | Reason::TargetNotFound
            | Reason::OverlappingTarget
            | Reason::InvalidManifest
            | Reason::DuplicateObject
            | Reason::NotDelegated
            | Reason::RevocationDeferred
            | Reason::StatusRefused
            | Reason::Suspended
            | Reason::ManifestsMissing
            | Reason::StoreMismatch
            | Reason::StoreRewound
            | Reason::TokenSecretNotFound
            | Reason::TokenSecretForbidden
            | Reason::TokenKeyNotFound
            | Reason::TokenInvalid
            | Reason::TokenWeak
            | Reason::TokenExpired
            | Reason::TokenShared
            | Reason::QuotaExceeded
    )
}

/// What a reason means and what to do about it, in one sentence.
pub(super) fn explain(reason: Reason) -> String {
    if reason.action().is_empty() {
        return reason.meaning().to_owned();
    }
    format!("{}; {}", reason.meaning(), reason.action())
}

/// The message, followed by what to do about its reason.
pub(super) fn with_next_step(message: &str, word: Reason) -> String {
    match word.action() {
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
