//! The status of a `RoleMapping`.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::condition::kind;
use crate::api::{
    DriftSample, GrantCounts, HeldPlan, HeldStatus, RefusedPath, ResourceStatus, RoleMappingStatus, SubjectStatus,
};
use crate::model::{FreezeReason, MemberKey, Reason};

use super::Folded;
use super::conditions::{Conditions, clip, earliest, explain, int, needs_a_person, plural, with_next_step};
use super::drift::DriftTally;
use super::input::{ClaimCounts, DocumentOutcome, Failure, Lag, MappingInput, SubjectOutcome};
use super::ready::{FoldContext, Waiting, decide, unlisted};
use super::space::set_nearly_full;

/// Largest number of entries of a list in a status; counts are exact.
const LISTED: usize = 50;
/// Largest number of drift samples.
const SAMPLES: usize = 10;
/// Longest sentence about one entry, in characters.
const ENTRY_MESSAGE: usize = 1024;

/// Folds the status of a mapping at `now`, given its previous status.
#[must_use]
pub(crate) fn fold_mapping(
    input: &MappingInput<'_>,
    previous: Option<&RoleMappingStatus>,
    now: Timestamp,
) -> Folded<RoleMappingStatus> {
    let mut documents: Vec<&DocumentOutcome> = input.documents.iter().collect();
    documents.sort_by(|one, other| one.document.cmp(&other.document));
    let mut subjects: Vec<&SubjectOutcome> = input.subjects.iter().collect();
    subjects.sort();

    let total = sum(&documents);
    let context = FoldContext { input, total, documents: &documents, subjects: &subjects, previous, now };
    let decision = decide(&context);
    let held = held(&documents);
    let tally = documents.iter().fold(DriftTally::default(), |mut tally, document| {
        tally.add(&document.drift);
        tally
    });

    let mut conditions = Conditions::new(previous.map_or(&[], |status| &status.conditions), input.generation, now);
    let (accepted, word, message) = accepted(&context);
    conditions.set(kind::ACCEPTED, accepted, word, &message);
    conditions.set(kind::READY, decision.waiting == Waiting::Nobody, decision.reason, &decision.message);
    match decision.waiting {
        Waiting::Nobody => {}
        Waiting::OnSystem => conditions.set(kind::RECONCILING, true, decision.reason, &decision.message),
        Waiting::OnUser => {
            let (word, message) = decision.stalled.unwrap_or((decision.reason, decision.message));
            conditions.set(kind::STALLED, true, word, &message);
        }
    }
    if let Some(held) = &held {
        conditions.set(
            kind::HELD,
            true,
            Reason::MassRemoval,
            &held_message(held, total.held, input.phase.is_terminating()),
        );
    }
    let (drifted, drift_ends) = tally.condition(now);
    if let Some((word, message)) = drifted {
        conditions.set(kind::DRIFTED, true, word, &message);
    }
    if let Some((why, message)) = context.freeze() {
        conditions.set(kind::FROZEN, true, why.reason(), &message);
    }
    let short: Vec<String> = documents.iter().map(|document| document.document.short()).collect();
    let spaces = short.iter().zip(&documents).filter_map(|(name, document)| Some((name.as_str(), document.space?)));
    set_nearly_full(&mut conditions, spaces);
    if let Some((whole, word, message)) = nested_groups(&context) {
        conditions.set(kind::NESTED_GROUPS, whole, word, &message);
    }

    let status = RoleMappingStatus {
        observed_generation: Some(input.generation),
        grants: Some(GrantCounts {
            summary: fraction(&total),
            desired: int(shown_desired(&total)),
            acknowledged: int(total.acknowledged),
            verified: int(total.verified),
            pending: int(total.pending),
            held: int(total.kept_back().saturating_add(total.held)),
            failed: int(total.failed),
            unowned: int(total.unowned),
            revoking: int(total.revoking),
            ended: int(input.ends.ended),
        }),
        next_end: input.ends.next.map(Time),
        oldest_revoking_since: total.oldest_revoking_since.map(Time),
        subjects: subjects.iter().take(LISTED).map(|subject| subject_status(subject)).collect(),
        resources: documents.iter().take(LISTED).map(|document| resource_status(document)).collect(),
        refused: refused(input.refused),
        drift: Some(tally.counts(samples(&documents))),
        held: Some(held.unwrap_or_default()),
        lag: lag(&documents).map(|lag| said(lag.took)).or_else(|| previous.and_then(|status| status.lag.clone())),
        last_handled_reconcile_at: input.last_handled_reconcile_at.map(str::to_owned),
        conditions: conditions.finish(),
    };
    Folded { status, revisit: earliest(decision.revisit, drift_ends) }
}

/// The condition `NestedGroups`: the first thing to report, starting with what keeps people from access.
fn nested_groups(context: &FoldContext<'_>) -> Option<(bool, Reason, String)> {
    [(Reason::NestingLimitExceeded, false), (Reason::NestingIgnored, false), (Reason::NestingCycle, true)]
        .into_iter()
        .find_map(|(word, whole)| {
            let is_it = |subject: &&&SubjectOutcome| subject.nesting.as_ref().is_some_and(|(other, _)| *other == word);
            let subject = context.subjects.iter().find(is_it)?;
            let (_, detail) = subject.nesting.as_ref()?;
            let name = super::ready::subject_name(subject);
            let fact = if detail.is_empty() { name } else { format!("{name}: {detail}") };
            Some((whole, word, format!("{fact}: {}", explain(word))))
        })
}

fn sum(documents: &[&DocumentOutcome]) -> ClaimCounts {
    documents.iter().filter_map(|document| document.claims).fold(ClaimCounts::default(), |sum, claims| ClaimCounts {
        desired: sum.desired.saturating_add(claims.desired),
        acknowledged: sum.acknowledged.saturating_add(claims.acknowledged),
        verified: sum.verified.saturating_add(claims.verified),
        pending: sum.pending.saturating_add(claims.pending),
        failed: sum.failed.saturating_add(claims.failed),
        unowned: sum.unowned.saturating_add(claims.unowned),
        missing: sum.missing.saturating_add(claims.missing),
        observed: sum.observed.saturating_add(claims.observed),
        frozen: sum.frozen.saturating_add(claims.frozen),
        revoking: sum.revoking.saturating_add(claims.revoking),
        held: sum.held.saturating_add(claims.held),
        held_leavers: sum.held_leavers.saturating_add(claims.held_leavers),
        oldest_revoking_since: earliest(sum.oldest_revoking_since, claims.oldest_revoking_since),
    })
}

fn fraction(claims: &ClaimCounts) -> String {
    format!("{}/{}", claims.acknowledged, shown_desired(claims))
}

/// The wanted grants, and those that the guard keeps although they are no longer wanted: they stay until a person
/// releases their removal.
fn shown_desired(claims: &ClaimCounts) -> u64 {
    claims.desired.saturating_add(claims.held)
}

/// The status of a mapping that is not in force, with the reason.
#[must_use]
pub(crate) fn not_taken_in(
    generation: Option<i64>,
    word: Reason,
    message: &str,
    previous: Option<&RoleMappingStatus>,
    now: Timestamp,
) -> RoleMappingStatus {
    let before = previous.map_or(&[][..], |status| &status.conditions);
    let mut conditions = Conditions::new(before, generation.unwrap_or_default(), now);
    let message = with_next_step(message, word);
    if needs_a_person(word) {
        conditions.set(kind::ACCEPTED, false, word, &message);
    }
    conditions.set_ready(false, word, &message);
    RoleMappingStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        ..previous.cloned().unwrap_or_default()
    }
}

/// Decides whether the mapping is valid and whether what it asks for is delegated to it.
fn accepted(context: &FoldContext<'_>) -> (bool, Reason, String) {
    let input = context.input;
    if let Some(problem) = input.problem {
        return (false, problem.reason, with_next_step(&problem.message, problem.reason));
    }
    // A reference to an object that does not exist, or does not count, is for the author to fix, besides freezing
    // existing grants.
    if let Some((
        why @ (FreezeReason::TargetNotFound | FreezeReason::IdentityProviderNotFound | FreezeReason::OverlappingTarget),
        message,
    )) = context.freeze()
    {
        return (false, why.reason(), message);
    }
    if input.refused.is_empty() {
        return (true, Reason::Accepted, explain(Reason::Accepted));
    }
    let word = refusal(input);
    let paths: BTreeSet<String> = input
        .refused
        .iter()
        .map(|refused| format!("{} on {} ({})", refused.role, refused.resource, refused.path))
        .collect();
    let shown: Vec<&str> = paths.iter().map(String::as_str).take(3).collect();
    let more = match paths.len().saturating_sub(shown.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    (false, word, format!("{}{more}: {}", shown.join(", "), explain(word)))
}

/// Why a part of the mapping grants nothing: for want of delegation, or else for the first of its other reasons.
pub(super) fn refusal(input: &MappingInput<'_>) -> Reason {
    let others = input.refused.iter().map(|path| path.reason.as_deref().and_then(Reason::from_word));
    match others.clone().min().flatten() {
        Some(_) => others.flatten().min().unwrap_or(Reason::PartlyDelegated),
        None if input.admitted == 0 => Reason::NotDelegated,
        None => Reason::PartlyDelegated,
    }
}

fn refused(paths: &[RefusedPath]) -> Vec<RefusedPath> {
    let sorted: BTreeSet<&RefusedPath> = paths.iter().collect();
    sorted.into_iter().take(LISTED).cloned().collect()
}

fn held(documents: &[&DocumentOutcome]) -> Option<HeldStatus> {
    let held: Vec<_> =
        documents.iter().flat_map(|document| document.held.iter().map(move |held| (*document, held))).collect();
    let since = held.iter().map(|(_, held)| held.since).min()?;
    let people: BTreeSet<&MemberKey> = held.iter().flat_map(|(_, held)| &held.members).collect();
    let hashes: BTreeSet<&str> = held.iter().map(|(_, held)| held.plan_hash.as_str()).collect();
    Some(HeldStatus {
        people: int(people.len()),
        plan_hash: hashes.into_iter().take(LISTED).collect::<Vec<_>>().join(","),
        since: Some(Time(since)),
        plans: held
            .iter()
            .take(LISTED)
            .map(|(document, held)| HeldPlan {
                resource: document.document.resource(),
                people: int(held.members.len()),
                plan_hash: held.plan_hash.clone(),
                since: Some(Time(held.since)),
            })
            .collect(),
    })
}

fn held_message(held: &HeldStatus, grants: u64, ending: bool) -> String {
    if ending {
        return format!(
            "the mapping was deleted; removing {} would end the access of {} at once, which is more than the guard \
             permits; they stay until `rolecall release plan {}`; check the cause before you release it",
            plural(grants, "grant", "grants"),
            plural(u64::try_from(held.people).unwrap_or(0), "person", "people"),
            held.plan_hash,
        );
    }
    let people = u64::try_from(held.people).unwrap_or(0);
    format!(
        "removing {} would end the access of {} at once, which is more than the guard permits; they stay until \
         the annotation rolecall.dev/release is `{}`; check the cause before you release it",
        plural(grants, "grant", "grants"),
        plural(people, "person", "people"),
        held.plan_hash,
    )
}

fn samples(documents: &[&DocumentOutcome]) -> Vec<DriftSample> {
    let mut samples: Vec<&DriftSample> = documents.iter().flat_map(|document| &document.samples).collect();
    samples.sort_by(|one, other| {
        (one.kind, &one.resource, &one.role, &one.principal).cmp(&(
            other.kind,
            &other.resource,
            &other.role,
            &other.principal,
        ))
    });
    samples.dedup();
    samples.into_iter().take(SAMPLES).cloned().collect()
}

fn subject_status(subject: &SubjectOutcome) -> SubjectStatus {
    let left_out = subject.left_out.iter().find(|(_, n)| **n > 0);
    let (word, message) = match (subject.problem, left_out) {
        (Some(problem), _) => (Some(problem), Some(explain(problem))),
        (None, Some((word, n))) => {
            let message = if *word == Reason::PrincipalMissing {
                format!("keep what they had: {}; {}", plural(*n, "member", "members"), explain(*word))
            } else {
                format!("{} nothing: {}", plural(*n, "member gets", "members get"), explain(*word))
            };
            (Some(*word), Some(message))
        }
        (None, None) => (None, None),
    };
    SubjectStatus {
        identity_provider: subject.identity_provider.clone(),
        display_name: subject.display_name.as_deref().map(|name| clip(name, 256)),
        external_id: subject.external_id.as_deref().map(|id| clip(id, 256)),
        id: subject.id.clone(),
        members: int(subject.members),
        reason: word.map(|word| word.word().to_owned()),
        message: message.map(|message| clip(&message, ENTRY_MESSAGE)),
    }
}

fn resource_status(document: &DocumentOutcome) -> ResourceStatus {
    let mut failures: Vec<&Failure> = document.failures.iter().collect();
    failures.sort();
    let (word, message) = match (failures.first(), &document.claims) {
        (Some(failure), _) => (Some(failure.reason), with_next_step(&failure.message, failure.reason)),
        (None, None) => (Some(Reason::Progressing), "the policy was not read yet".to_owned()),
        (None, Some(_)) if document.unlisted => (Some(Reason::InventoryIncomplete), unlisted()),
        (None, Some(_)) if !document.held.is_empty() => (Some(Reason::MassRemoval), explain(Reason::MassRemoval)),
        (None, Some(claims)) if claims.is_partial() => {
            (Some(Reason::Progressing), format!("{} acknowledged by Google yet", lacking(claims)))
        }
        (None, Some(claims)) if claims.missing > 0 => (Some(Reason::DriftReported), explain(Reason::DriftReported)),
        (None, Some(_)) if document.invoker_iam_disabled => {
            (Some(Reason::InvokerIamDisabled), explain(Reason::InvokerIamDisabled))
        }
        (None, Some(_)) => (None, String::new()),
    };
    ResourceStatus {
        resource: document.document.resource(),
        grants: fraction(&document.claims.unwrap_or_default()),
        reason: word.map(|word| word.word().to_owned()),
        message: word.map(|_| clip(&message, ENTRY_MESSAGE)),
    }
}

/// Describes how much of what is wanted is missing.
fn lacking(claims: &ClaimCounts) -> String {
    let lacking = claims.pending.saturating_add(claims.failed).saturating_add(claims.frozen);
    plural(lacking, "grant is not", "grants are not")
}

/// The change that was acknowledged last; of several at the same time, the slowest.
fn lag(documents: &[&DocumentOutcome]) -> Option<Lag> {
    documents.iter().filter_map(|document| document.lag).max_by_key(|lag| (lag.at, lag.took))
}

/// A duration in readable form: `85ms`, `1.8s`, `42s`, `3m5s`, `2h4m`.
fn said(took: SignedDuration) -> String {
    let millis = took.as_millis().max(0);
    let seconds = millis / 1000;
    match millis {
        0..1000 => format!("{millis}ms"),
        1000..10_000 => format!("{seconds}.{}s", millis % 1000 / 100),
        10_000..60_000 => format!("{seconds}s"),
        60_000..3_600_000 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}
