//! The condition `Ready` of a mapping, and who has to act when it is false. A chain of checks; the first one that
//! applies decides.
//!
//! The order is: what stops everything, access that should be gone, what the author has to fix, what Google or the IdP
//! lack, what is in progress, and finally the ready states.

use jiff::{SignedDuration, Timestamp};

use crate::api::condition::kind;
use crate::api::{MappingMode, RoleMappingStatus};
use crate::model::{FreezeReason, Reason};

use super::conditions::{arrives_until, earliest, explain, find, later, needs_a_person, plural, with_next_step};
use super::input::{ClaimCounts, DocumentOutcome, Failure, MappingInput, SubjectOutcome};

/// A change that is pending for less than this is normal churn of the directory.
pub(super) const CHURN: SignedDuration = SignedDuration::from_secs(60);
/// How long a group or resource that was not found may still arrive.
pub(super) const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// Reasons that freeze the claims of one subject, starting with those that waiting does not resolve.
const GROUP_FREEZES: [FreezeReason; 4] = [
    FreezeReason::GroupIdentityChanged,
    FreezeReason::GroupAmbiguous,
    FreezeReason::NestingLimitExceeded,
    FreezeReason::GroupNotFound,
];

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Nobody: `Ready`.
    Nobody,
    /// rolecall, or time: `Reconciling`.
    OnSystem,
    /// A person: `Stalled`.
    OnUser,
}

/// The decision about `Ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadyDecision {
    pub(crate) waiting: Waiting,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// Reason and message of `Stalled` when they differ.
    pub(crate) stalled: Option<(Reason, String)>,
    pub(crate) revisit: Option<Timestamp>,
}

impl ReadyDecision {
    fn new(waiting: Waiting, reason: Reason, message: String) -> Self {
        Self { waiting, reason, message, stalled: None, revisit: None }
    }
}

/// The inputs of a check.
pub(super) struct FoldContext<'a> {
    pub(crate) input: &'a MappingInput<'a>,
    pub(crate) total: ClaimCounts,
    /// Sorted by key.
    pub(crate) documents: &'a [&'a DocumentOutcome],
    /// In their natural order.
    pub(crate) subjects: &'a [&'a SubjectOutcome],
    pub(crate) previous: Option<&'a RoleMappingStatus>,
    pub(crate) now: Timestamp,
}

/// Decides about `Ready` for a mapping.
pub(super) fn decide(context: &FoldContext<'_>) -> ReadyDecision {
    let checks: [fn(&FoldContext<'_>) -> Option<ReadyDecision>; 11] = [
        frozen,
        revocation,
        manifest,
        delegation,
        loading,
        refused_by_google,
        groups,
        unlisted_resources,
        resources,
        under_way,
        ending,
    ];
    checks.iter().find_map(|check| check(context)).unwrap_or_else(|| well(context))
}

impl FoldContext<'_> {
    /// The reason that freezes the whole mapping, one of its subjects or one of its resources. Observing does not
    /// count.
    pub(crate) fn freeze(&self) -> Option<(FreezeReason, String)> {
        self.ground_missing().or_else(|| self.unlisted())
    }

    /// The reason that freezes the whole mapping or one of its subjects.
    fn ground_missing(&self) -> Option<(FreezeReason, String)> {
        let whole = self.input.frozen.filter(|why| *why != FreezeReason::Observed);
        let suspended = (self.input.mode == MappingMode::Suspend).then_some(FreezeReason::Suspended);
        if let Some(why) = whole.or(suspended) {
            let message = match self.input.frozen_detail {
                "" => why.message().to_owned(),
                detail => format!("{detail}: {}", why.message()),
            };
            return Some((why, message));
        }
        GROUP_FREEZES.into_iter().find_map(|why| {
            let subject = self.subjects.iter().find(|subject| subject.problem == Some(why.reason()))?;
            Some((why, format!("{}: {}", subject_name(subject), why.message())))
        })
    }

    /// A resource that the list lacks although its policy can be read, once that has lasted for some time.
    fn unlisted(&self) -> Option<(FreezeReason, String)> {
        let lasts = |document: &DocumentOutcome| {
            let since = document.pending_since.unwrap_or(self.now);
            document.unlisted && (!self.was_ready() || later(since, CHURN) <= self.now)
        };
        let lacking: Vec<_> = self.documents.iter().filter(|document| lasts(document)).collect();
        let first = lacking.first()?;
        let more = match lacking.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        Some((FreezeReason::InventoryIncomplete, format!("{}{more}: {}", first.document.resource(), unlisted())))
    }

    /// True when nothing is written.
    pub(crate) fn observes(&self) -> bool {
        self.input.ceiling_observes
            || self.input.mode == MappingMode::Observe
            || self.input.frozen == Some(FreezeReason::Observed)
    }

    /// All failures, by document and reason.
    fn failures(&self) -> Vec<(&DocumentOutcome, &Failure)> {
        let mut failures: Vec<_> = self
            .documents
            .iter()
            .flat_map(|document| document.failures.iter().map(move |failure| (*document, failure)))
            .collect();
        failures.sort_by(|(one, first), (other, second)| (&one.document, first).cmp(&(&other.document, second)));
        failures
    }

    /// The first failure that waiting does not resolve.
    fn lasting_failure(&self) -> Option<(&DocumentOutcome, &Failure)> {
        self.failures().into_iter().find(|(_, failure)| needs_a_person(failure.reason))
    }

    /// The first failure that waiting does not resolve, or else the first of any kind.
    fn worst_failure(&self) -> Option<(&DocumentOutcome, &Failure)> {
        self.lasting_failure().or_else(|| self.failures().into_iter().next())
    }

    /// Since when the object is not ready for this reason; now, if it had another reason before.
    fn since(&self, word: Reason) -> Timestamp {
        self.previous
            .and_then(|previous| find(&previous.conditions, kind::READY))
            .filter(|ready| ready.status == "False" && ready.reason == word)
            .map_or(self.now, |ready| ready.last_transition_time.0)
    }

    /// True when the generation in force was ready at the last folding.
    fn was_ready(&self) -> bool {
        self.previous
            .and_then(|previous| find(&previous.conditions, kind::READY))
            .is_some_and(|ready| ready.status == "True" && ready.observed_generation == Some(self.input.generation))
    }
}

/// Explains that a list lacks a resource whose policy can be read.
pub(super) fn unlisted() -> String {
    "the list of resources lacks it although its policy answers; nothing new is granted there until it is listed, and \
     leavers lose access"
        .to_owned()
}

/// The name of the group as people use it.
pub(super) fn subject_name(subject: &SubjectOutcome) -> String {
    let provider = &subject.identity_provider;
    match (&subject.display_name, &subject.external_id) {
        (Some(name), _) => format!("group `{name}` of {provider}"),
        (None, Some(id)) => format!("group with externalId `{id}` of {provider}"),
        (None, None) => format!("a group of {provider}"),
    }
}

fn frozen(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    let (why, message) = context.ground_missing()?;
    // A group that was never pushed has a check of its own, because it may still arrive.
    if why == FreezeReason::GroupNotFound {
        return None;
    }
    let previous = context.previous.map_or(&[][..], |previous| &previous.conditions);
    let arrives = arrives_until(previous, context.input.generation, why.reason(), context.now);
    let waiting = if arrives.is_some() { Waiting::OnSystem } else { Waiting::OnUser };
    Some(ReadyDecision { revisit: arrives, ..ReadyDecision::new(waiting, why.reason(), message) })
}

fn unlisted_resources(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    let (why, message) = context.unlisted()?;
    let message = format!("{message}; {}", progress(&context.total));
    Some(ReadyDecision::new(Waiting::OnUser, why.reason(), message))
}

fn manifest(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    let problem = context.input.problem?;
    let message =
        with_next_step(&format!("{}; its last valid version stays in force", problem.message), problem.reason);
    Some(ReadyDecision::new(Waiting::OnUser, problem.reason, message))
}

fn loading(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    let target = context.input.loading?;
    let message = format!("the resources of CloudRunTarget {target} are being listed for the first time");
    Some(ReadyDecision::new(Waiting::OnSystem, Reason::Progressing, message))
}

fn delegation(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    if context.input.refused.is_empty() || context.input.admitted > 0 {
        return None;
    }
    let word = super::mapping::refusal(context.input);
    Some(ReadyDecision::new(Waiting::OnUser, word, explain(word)))
}

fn revocation(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    if context.total.revoking == 0 {
        return held_leavers(context);
    }
    let documents =
        context.documents.iter().filter(|document| document.claims.is_some_and(|claims| claims.revoking > 0)).count();
    let oldest = context.total.oldest_revoking_since.map(|since| format!(", the oldest since {since:.0}"));
    let fact = format!(
        "{} that should be gone, in {}, are not acknowledged as removed by Google{}",
        plural(context.total.revoking, "grant", "grants"),
        plural(documents as u64, "policy", "policies"),
        oldest.unwrap_or_default(),
    );
    let (waiting, message, stalled) = match context.worst_failure() {
        Some((document, failure)) => {
            let message = with_next_step(
                &format!("{fact}; {}: {}", document.document.resource(), failure.message),
                failure.reason,
            );
            let stalled = needs_a_person(failure.reason);
            let waiting = if stalled { Waiting::OnUser } else { Waiting::OnSystem };
            (waiting, message.clone(), stalled.then_some((failure.reason, message)))
        }
        None => (Waiting::OnSystem, format!("{fact}; the removal is in progress"), None),
    };
    Some(ReadyDecision { stalled, ..ReadyDecision::new(waiting, Reason::RevocationPending, message) })
}

/// Leavers who keep access until a person releases the plan.
fn held_leavers(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    if context.total.held_leavers == 0 {
        return None;
    }
    let held = context.documents.iter().flat_map(|document| &document.held).filter(|held| held.leavers);
    let hashes: std::collections::BTreeSet<&str> = held.map(|held| held.plan_hash.as_str()).collect();
    let message = format!(
        "{} of leavers: the guard holds the removal, since more people left within an hour than it permits; \
         they keep access until it is released (`rolecall release plan {}`); check the cause first",
        plural(context.total.held_leavers, "grant", "grants"),
        hashes.into_iter().collect::<Vec<_>>().join(","),
    );
    Some(ReadyDecision::new(Waiting::OnSystem, Reason::RevocationPending, message))
}

fn refused_by_google(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    let (document, failure) = context.lasting_failure()?;
    let message = with_next_step(
        &format!("{}: {}; {}", document.document.resource(), failure.message, progress(&context.total)),
        failure.reason,
    );
    Some(ReadyDecision::new(Waiting::OnUser, failure.reason, message))
}

fn groups(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    // What cannot resolve itself is reported first.
    let subject = context
        .subjects
        .iter()
        .find(|subject| subject.problem.is_some_and(|problem| problem != Reason::GroupNotFound))
        .or_else(|| context.subjects.iter().find(|subject| subject.problem.is_some()))?;
    let problem = subject.problem?;
    let message = format!("{}: {}", subject_name(subject), explain(problem));
    Some(if problem == Reason::GroupNotFound {
        patient(context, problem, message)
    } else {
        ReadyDecision::new(Waiting::OnUser, problem, message)
    })
}

fn resources(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    // A pattern without matches is tolerated as long as another one has some; a plain name is not.
    let nothing = context.documents.is_empty();
    let mut missing: Vec<&str> = context
        .input
        .unmatched
        .iter()
        .map(String::as_str)
        .filter(|pattern| nothing || !pattern.contains('*'))
        .collect();
    missing.sort_unstable();
    let first = missing.first()?;
    let more = match missing.len() - 1 {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let message = with_next_step(&format!("no resource is called `{first}`{more}"), Reason::ResourceNotFound);
    Some(patient(context, Reason::ResourceNotFound, message))
}

/// Waits for the system at first, and for a person after some time.
fn patient(context: &FoldContext<'_>, word: Reason, message: String) -> ReadyDecision {
    let until = later(context.since(word), PATIENCE);
    if context.now < until {
        ReadyDecision { revisit: Some(until), ..ReadyDecision::new(Waiting::OnSystem, word, message) }
    } else {
        ReadyDecision::new(Waiting::OnUser, word, message)
    }
}

/// Since when a change is pending; now, if it is not recorded.
fn pending_since(context: &FoldContext<'_>) -> Option<Timestamp> {
    let unread = context.documents.iter().any(|document| document.claims.is_none());
    let waits = context.documents.iter().filter_map(|document| document.pending_since).min();
    let failing_since = context.failures().into_iter().map(|(_, failure)| failure.since).min();
    let any = unread || waits.is_some() || failing_since.is_some() || context.total.is_partial();
    any.then(|| earliest(waits, failing_since).unwrap_or(context.now))
}

/// Until when a pending change counts as churn; none when it does not count, or nothing is pending.
fn churn_until(context: &FoldContext<'_>) -> Option<Timestamp> {
    let until = later(pending_since(context)?, CHURN);
    (context.was_ready() && context.now < until).then_some(until)
}

fn under_way(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    pending_since(context)?;
    if churn_until(context).is_some() {
        return None;
    }
    let (word, fact) = match context.worst_failure() {
        Some((document, failure)) => (failure.reason, format!("{}: {}", document.document.resource(), failure.message)),
        None => (Reason::Progressing, "a change is on its way to Google".to_owned()),
    };
    let message = with_next_step(&format!("{fact}; {}", progress(&context.total)), word);
    Some(ReadyDecision::new(Waiting::OnSystem, word, message))
}

fn ending(context: &FoldContext<'_>) -> Option<ReadyDecision> {
    context.input.phase.is_terminating().then(|| {
        let message = if context.total.held > 0 {
            format!("the mapping was deleted; {}", explain(Reason::MassRemoval))
        } else {
            "the mapping was deleted; its object is removed when the last of its grants is settled".to_owned()
        };
        ReadyDecision::new(Waiting::OnSystem, Reason::Progressing, message)
    })
}

fn well(context: &FoldContext<'_>) -> ReadyDecision {
    let mut parts = Vec::new();
    let word = if context.observes() {
        parts.push(explain(Reason::Observed));
        if context.total.observed > 0 {
            parts.push(format!("{} would be written", plural(context.total.observed, "grant", "grants")));
        }
        Reason::Observed
    } else {
        parts.push(progress(&context.total));
        Reason::Converged
    };
    if context.total.unowned > 0 {
        parts.push(format!(
            "{} there before rolecall, which never removes what it did not grant",
            plural(context.total.unowned, "was", "were"),
        ));
    }
    let ended = context.input.ends.ended;
    if ended > 0 {
        parts.push(format!("the `notAfter` of {} has passed", plural(ended, "grant", "grants")));
    }
    if ended == 0 && context.total.desired == 0 && !context.documents.is_empty() && context.input.refused.is_empty() {
        parts.push("the groups have no active members".to_owned());
    }
    parts.extend(left_out(context));
    let decorative = context.documents.iter().filter(|document| document.invoker_iam_disabled).count() as u64;
    if decorative > 0 {
        parts.push(format!(
            "{} not check roles/run.invoker at all, so that role has no effect there",
            plural(decorative, "service does", "services do"),
        ));
    }
    if context.total.desired > 0 && word == Reason::Converged {
        parts.push("Google may take some minutes to honour the last edit".to_owned());
    }
    ReadyDecision { revisit: churn_until(context), ..ReadyDecision::new(Waiting::Nobody, word, parts.join("; ")) }
}

/// Members who get nothing, by reason.
fn left_out(context: &FoldContext<'_>) -> Vec<String> {
    let mut people = std::collections::BTreeMap::<Reason, u64>::new();
    for subject in context.subjects {
        for (word, n) in &subject.left_out {
            *people.entry(*word).or_default() += n;
        }
    }
    people
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(word, n)| match word {
            Reason::PrincipalMissing => {
                format!("keep what they had: {}; {}", plural(n, "person", "people"), explain(word))
            }
            word => format!("{} nothing: {}", plural(n, "person gets", "people get"), explain(word)),
        })
        .collect()
}

fn progress(total: &ClaimCounts) -> String {
    format!("{} of {} acknowledged by Google", total.acknowledged, plural(total.desired, "grant", "grants"))
}
