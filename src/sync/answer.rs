//! What Google's answer to a write shows about the additions of the document, and what follows for the attempt.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Inner;
use super::additions::Additions;
use super::bisect::Bisection;
use super::choice::{CHUNK, Choice, PROBE_PACE, What};
use super::lanes::Lane;
use super::refusals::{Refusals, reach_of_member};
use super::state::{DocumentState, State};
use crate::model::{DocumentKey, GrantKey, MemberKey, Reach, Reason, RefusalKey};
use crate::plan::{Plan, Step};
use crate::target::{ErrorKind, RefusalCause, Refused, TargetError};

/// The answer of Google to a write.
pub(super) enum Answer<'a> {
    Acknowledged,
    Failed(&'a TargetError),
}

/// The consequence for the attempt.
pub(super) enum Follows {
    /// The attempt ends according to the answer.
    Done,
    /// Another attempt is due in this lane and will handle the refusal.
    Again(Lane),
    /// A foreign member is the cause; with Google's reason word.
    Foreign(Reason),
}

/// Records what the answer shows about additions.
pub(super) fn learn(
    inner: &Inner,
    document: &DocumentKey,
    choice: &Choice,
    carried_out: &Plan,
    answer: &Answer<'_>,
) -> Follows {
    let (now, at) = (Instant::now(), inner.clock.now());
    let mut state = inner.state();
    state.document(document);
    let State { refusals, documents, .. } = &mut *state;
    let Some(memory) = documents.get_mut(document) else { return Follows::Done };
    let DocumentState { additions, removals, .. } = memory;
    let removed = || carried_out.remove.iter().map(|step| step.grant().clone()).collect::<BTreeSet<_>>();
    match answer {
        Answer::Acknowledged => {
            removals.accept(&removed());
            acknowledged(additions, refusals, document, choice)
        }
        Answer::Failed(error) => match &error.kind {
            ErrorKind::Refused(what)
                if what.cause == RefusalCause::OrganizationPolicy
                    && carried_out.add.is_empty()
                    && !carried_out.remove.is_empty() =>
            {
                let reason = what.cause.reason();
                removals.refuse(&removed(), (reason, &what.message), (now, at, inner.random.fraction()));
                refusals.release(document);
                tracing::warn!(
                    target.document = %document, %reason, plan.remove = carried_out.remove.len(),
                    "google refuses removals from {document}: {error}; retrying"
                );
                inner.metrics.syncs.inc([reason.word()]);
                Follows::Again(Lane::Removal)
            }
            ErrorKind::Refused(what) if carried_out.add.is_empty() || is_foreign(what, carried_out) => {
                let reason = what.cause.reason();
                additions.foreign(carried_out, what, now, at);
                refusals.release(document);
                Follows::Foreign(reason)
            }
            ErrorKind::Refused(what) => refused(additions, refusals, document, choice, carried_out, what, (now, at)),
            ErrorKind::Throttled { .. } => Follows::Done,
            _ => {
                refusals.release(document);
                Follows::Done
            }
        },
    }
}

fn acknowledged(
    additions: &mut Additions,
    refusals: &mut Refusals,
    document: &DocumentKey,
    choice: &Choice,
) -> Follows {
    let again = Follows::Again(Lane::Addition);
    match &choice.what {
        What::Removals | What::Proof => {
            additions.foreign = None;
            additions.left_behind.clear();
            if let Some(bisection) = &mut additions.bisection {
                bisection.proven();
            }
            again
        }
        What::Besides => {
            additions.foreign = None;
            Follows::Done
        }
        What::Test => {
            if let Some(bisection) = &mut additions.bisection {
                bisection.answer(true);
            }
            again
        }
        What::Probe(keys) => {
            refusals.lift(keys);
            // Accounts that were pushed together often appear together.
            additions.probe_batch = None;
            again
        }
        What::AsPlanned | What::Additions => {
            additions.foreign = None;
            additions.chunk = additions.chunk.map(|chunk| chunk.saturating_mul(2)).filter(|chunk| *chunk < 1024);
            if choice.now.len() < choice.addable.len() || !choice.refused.is_empty() {
                return again;
            }
            if additions.bisection.is_none() {
                additions.settled();
            }
            refusals.release(document);
            Follows::Done
        }
        What::Nothing => Follows::Done,
    }
}

/// True when every member that the target names is in the document as it was read, and none is added.
fn is_foreign(what: &Refused, carried_out: &Plan) -> bool {
    let named: BTreeSet<MemberKey> = what.members().map(MemberKey::of).collect();
    let (_, present) = carried_out.present();
    let is_added = |step: &Step| named.contains(&step.grant().member);
    !named.is_empty() && named.is_subset(&present) && !carried_out.add.iter().any(is_added)
}

/// The refusal of the addition named by the target.
fn named(what: &Refused, document: &DocumentKey, carried_out: &Plan) -> Option<RefusalKey> {
    let (member, role) = (what.member.as_deref().map(MemberKey::of), what.role.as_deref());
    let is_it = |grant: &GrantKey| match (&member, role) {
        (Some(member), None) => grant.member == *member,
        (Some(member), Some(role)) => grant.member == *member && grant.role.as_str() == role,
        (None, Some(role)) => grant.role.as_str() == role,
        (None, None) => false,
    };
    let kind = || Reach::Kind(document.project().to_owned(), document.kind());
    if what.cause == RefusalCause::Condition {
        // Google does not name it; if there is only one, that is it.
        let added = carried_out.add.iter().map(|step| &step.grant().condition);
        let conditions: BTreeSet<_> = added.filter(|hash| !hash.as_str().is_empty()).collect();
        let [condition] = conditions.into_iter().collect::<Vec<_>>()[..] else { return None };
        return Some(RefusalKey { reach: kind(), member: None, role: None, condition: Some(condition.clone()) });
    }
    let grant = carried_out.add.iter().map(Step::grant).find(|grant| is_it(grant))?;
    Some(match (member, role) {
        (Some(member), Some(_)) => {
            RefusalKey { reach: kind(), member: Some(member), role: Some(grant.role.clone()), condition: None }
        }
        (None, _) => RefusalKey { reach: kind(), member: None, role: Some(grant.role.clone()), condition: None },
        (Some(member), None) => {
            let everywhere = matches!(
                what.cause,
                RefusalCause::PrincipalUnknown
                    | RefusalCause::PrincipalMalformed
                    | RefusalCause::PrincipalRefused
                    | RefusalCause::PrincipalType
            );
            let reach = if everywhere { Reach::Everywhere } else { reach_of_member(document, what.cause) };
            RefusalKey { reach, member: Some(member), role: None, condition: None }
        }
    })
}

fn refused(
    additions: &mut Additions,
    refusals: &mut Refusals,
    document: &DocumentKey,
    choice: &Choice,
    carried_out: &Plan,
    what: &Refused,
    (now, at): (Instant, Timestamp),
) -> Follows {
    additions.apart = true;
    additions.texts.insert(what.cause.reason(), what.message.clone());
    let again = Follows::Again(if carried_out.remove.is_empty() { Lane::Addition } else { Lane::Removal });
    let tried = || carried_out.add.iter().map(|step| step.grant().clone());
    if choice.what == What::Removals {
        additions.left_behind.extend(tried());
    }
    let named = named(what, document, carried_out);
    if let What::Probe(keys) = &choice.what {
        match named.filter(|key| keys.contains(key)) {
            Some(key) => refusals.postpone(&key, at),
            None if keys.len() == 1 => keys.iter().for_each(|key| refusals.postpone(key, at)),
            None => {}
        }
        additions.probe_batch = Some(1);
        additions.probe_after = Some(now + PROBE_PACE);
        return again;
    }
    let members = choice.addable.iter().map(|grant| grant.member.clone()).collect();
    refusals.isolate(document, members, now);
    if let Some(key) = named {
        refusals.refuse(key, what.cause.reason().word(), at);
        let most = carried_out.add.len();
        additions.chunk = Some((additions.chunk.unwrap_or(most).min(most) / 2).max(CHUNK));
        return again;
    }
    if what.cause == RefusalCause::LimitExceeded {
        // No single addition is at fault: there are too many. What fits is found by halves.
        let sent = carried_out.add.len();
        additions.chunk = Some((sent / 2).max(1));
        if sent > 1 {
            return again;
        }
        refusals.release(document);
        return Follows::Done;
    }
    match (&mut additions.bisection, &choice.what) {
        (Some(bisection), What::Test) => bisection.answer(false),
        (Some(bisection), _) => {
            bisection.suspect(tried());
            let _ = refusals.spend(document, at);
        }
        (none, _) => {
            let _ = refusals.spend(document, at);
            let (roles, members) = carried_out.present();
            let hints = refusals.hints(document, what.cause.reason().word());
            *none = Some(Bisection::new(what.cause, tried().collect(), roles, members, hints));
        }
    }
    again
}
