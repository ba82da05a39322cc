//! Planning: computes the changes of one policy document and the matching ledger changes and audit rows. Pure
//! functions.
//!
//! ```text
//! add    = desired − live              lost   = (owned ∩ desired) − live   (drift; granted again)
//! remove = (owned − desired) ∩ live    unowned = (desired ∩ live) − owned  (somebody else's; never removed)
//!                                      foreign = live − owned − desired    (kept byte for byte)
//! ```
//!
//! One reconcile of a document: [`plan`] → [`Plan::intend`] (recorded before the call) → the call with
//! [`Plan::changes`] → [`Plan::settle`] (recorded after the call). A reconcile without a call records [`Plan::ledger`]
//! and [`Plan::audit`] instead.
//!
//! A row keeps its ended claims until its removal is settled. Every later reconcile can therefore tell whose access is
//! removed and why, and a mapping does not finish terminating while one of its grants is still in the policy.

mod counts;
mod drift;
mod evidence;
mod grounds;
mod guard;
mod planner;
mod settle;
mod spelling;
mod withhold;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod guard_tests;
#[cfg(test)]
mod lagging;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    Addition, AuditEntry, Capacity, Changes, Claim, Concerns, Desired, DocumentKey, GrantKey, GrantState, IntentAction,
    LedgerChange, LedgerRow, Live, MappingKey, MemberKey, Reason, Removal, Revision, Subject, is_group,
};

pub(crate) use counts::ClaimCounts;
pub(crate) use evidence::{Evidence, ReadAge, age};
pub(crate) use guard::held_hash;
pub(crate) use settle::{CallOutcome, Settlement};

use planner::Planner;
#[cfg(test)]
pub(crate) use planner::RESOURCE_RECREATED;

/// How long a call with an unknown outcome is remembered when the resource is gone: a resource of that name may exist
/// again when the call arrives. Where there is a policy, a write fences the call off instead.
pub(crate) const INTENT_FENCE: Duration = Duration::from_mins(10);

/// The inputs for planning one reconcile. Plain data, so that a reconcile can be recorded and planned again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inputs {
    /// The document.
    pub(crate) document: DocumentKey,
    /// The grants that the mappings want.
    pub(crate) desired: Desired,
    /// The ledger rows of the document, one for each grant, in any order.
    pub(crate) ledger: Vec<Arc<LedgerRow>>,
    /// The document as just read. The read began after the last settlement of this document. The default means that the
    /// resource does not exist according to the target.
    pub(crate) live: Arc<Live>,
    /// How far the read can be trusted.
    pub(crate) evidence: Evidence,
    /// The last acknowledged write of this document, if it is still recorded.
    pub(crate) revision: Option<Revision>,
    /// The uid of the resource, read after the policy; none when it was not read.
    pub(crate) resource_uid: Option<String>,
    /// Time of planning.
    pub(crate) now: Timestamp,
    /// The removals that the guard holds. A plan that needs decisions ([`Plan::asks`]) is made again with the answer.
    pub(crate) held: BTreeSet<Removal>,
    /// Subjects with claims in the ledger whom the IdP reports inactive or deleted.
    pub(crate) leavers: BTreeSet<Subject>,
    /// Claims for a member that end although their mapping knows only a part of its groups: the person left the groups
    /// that gave the claim, or has another principal.
    #[serde(default)]
    pub(crate) lapsed: BTreeSet<(MemberKey, Claim)>,
}

/// Reason: Google stores a member under another spelling than it was sent.
pub(crate) const PRINCIPAL_RESPELLED: &str = Reason::PrincipalRespelled.word();

/// Why a step is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// A mapping wants the grant.
    Wanted,
    /// A grant made by rolecall was removed by somebody else, and is granted again.
    Missing,
    /// Every subject of the grant is inactive or deleted.
    Leaver,
    /// The `notAfter` of every claim has passed, or its subject has left.
    Expired,
    /// Every claim goes on under another condition, which the same write adds or which is in the policy already.
    Moved,
    /// The mappings that wanted it were deleted.
    MappingDeleted,
    /// No mapping wants it any more: a membership, a spec or a delegation changed.
    NotWanted,
    /// Google stores the member under a spelling that `allowedDomains` does not permit.
    SpellingForbidden,
    /// Another spelling of the grant is removed with that of a leaver, so the member is written again.
    Respelled,
}

impl Cause {
    /// The stable word used in the audit.
    #[must_use]
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Wanted => "Wanted",
            Self::Missing => "Missing",
            Self::Leaver => "Leaver",
            Self::Expired => "Expired",
            Self::Moved => "Moved",
            Self::MappingDeleted => "MappingDeleted",
            Self::NotWanted => "NotWanted",
            Self::SpellingForbidden | Self::Respelled => PRINCIPAL_RESPELLED,
        }
    }
}

/// One member added to or removed from the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The direction of the change.
    pub(crate) action: IntentAction,
    /// The cause.
    pub(crate) cause: Cause,
    /// The ledger row before the call. It carries an intent only if an earlier call for it may still take effect.
    pub(crate) row: LedgerRow,
    /// The row that is restored when the call certainly did nothing. It lacks everything that only the read shows.
    pub(crate) restore: LedgerRow,
    /// The members to remove: all spellings of the grant, and the tombstone that Google leaves of a deleted account.
    /// Empty for an addition.
    pub(crate) out: BTreeSet<GrantKey>,
    /// The additions of this plan by which claims of a removed grant go on: under another condition, or with another
    /// principal of the same subject. They are written together with the removal.
    pub(crate) replaced_by: BTreeSet<GrantKey>,
    /// The claims of a removed grant that go on under another condition.
    pub(crate) continued: BTreeSet<Claim>,
}

impl Step {
    /// Creates a step without anything that takes its place.
    #[must_use]
    pub(crate) fn new(
        action: IntentAction,
        cause: Cause,
        row: LedgerRow,
        restore: LedgerRow,
        out: BTreeSet<GrantKey>,
    ) -> Self {
        Self { action, cause, row, restore, out, replaced_by: BTreeSet::new(), continued: BTreeSet::new() }
    }

    /// The grant.
    #[must_use]
    pub(crate) fn grant(&self) -> &GrantKey {
        &self.row.grant
    }

    /// True when this removal has to wait, because an addition in its place is not among those that are written now:
    /// nobody may lose access for a while because a condition changed.
    #[must_use]
    pub(crate) fn waits_for_others(&self, now: &BTreeSet<GrantKey>) -> bool {
        self.cause == Cause::Moved && !self.replaced_by.is_subset(now)
    }
}

/// A grant made by rolecall that somebody else removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LostGrant {
    /// The grant.
    pub(crate) grant: GrantKey,
    /// True when this reconcile is the first to observe it.
    pub(crate) first_seen: bool,
    /// Whether it is granted again (`onMissing: Revert`).
    pub(crate) regranted: bool,
}

/// The removals of one document that the guard holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Held {
    /// The parts, sorted by mapping and kind.
    pub(crate) parts: Vec<HeldPart>,
}

/// The removals held for one mapping in one document: either of leavers, or of people who have not left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldPart {
    /// The mapping whose claims ended.
    pub(crate) mapping: MappingKey,
    /// True when every subject is inactive or deleted.
    pub(crate) leavers: bool,
    /// The removals, by grant.
    pub(crate) removals: Vec<Removal>,
    /// Digest over the removals; see [`held_hash`].
    pub(crate) digest: [u8; 32],
}

/// Additions that would make the policy exceed Google's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitExceeded {
    /// True when the limit is that on groups and domains, not that on all principals.
    pub(crate) of_groups: bool,
    /// Number of appearances of principals, or of groups and domains, that the policy would have.
    pub(crate) appearances: usize,
    /// Largest permitted number.
    pub(crate) limit: usize,
    /// The additions that are not written.
    pub(crate) withheld: Vec<GrantKey>,
    /// Their number, by the mapping that wants them.
    pub(crate) withheld_of: BTreeMap<MappingKey, usize>,
}

impl Held {
    /// The audit reason.
    pub(crate) const REASON: Reason = Reason::MassRemoval;

    /// True when nothing is held.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The grants that stay because they are held; with `leavers_only`, those of leavers only.
    #[must_use]
    pub(crate) fn grants(&self, leavers_only: bool) -> BTreeSet<&GrantKey> {
        let parts = self.parts.iter().filter(|part| part.leavers || !leavers_only);
        parts.flat_map(|part| &part.removals).map(|removal| &removal.grant).collect()
    }
}

impl LimitExceeded {
    /// The condition reason.
    pub(crate) const REASON: Reason = Reason::PolicyFull;
}

/// Changes that are not made because of `Observe`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Observed {
    /// Would be granted.
    pub(crate) add: Vec<GrantKey>,
    /// Would be removed.
    pub(crate) remove: Vec<GrantKey>,
}

/// The actions and the report of one reconcile.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Identifies this plan in the audit: 16 hex digits over document, additions, removals and held removals.
    pub(crate) hash: String,
    /// Members to add, sorted by grant.
    pub(crate) add: Vec<Step>,
    /// Members to remove, sorted by grant.
    pub(crate) remove: Vec<Step>,
    /// Removals that the guard withholds.
    pub(crate) held: Held,
    /// The removals that the guard has to decide about before this plan is executed.
    pub(crate) asks: Vec<Removal>,
    /// True when the guard must receive this plan even if it needs no decision, because some removal of the document
    /// was held before.
    pub(crate) guarded: bool,
    /// Drift: grants made by rolecall that are missing.
    pub(crate) lost: Vec<LostGrant>,
    /// Number of members (per role and condition) that are foreign.
    pub(crate) foreign: usize,
    /// Grants that are wanted and in the policy, but not made by rolecall.
    pub(crate) unowned: Vec<GrantKey>,
    /// Grants that are no longer wanted and still in the policy, but not made by rolecall. The ledger forgets them
    /// (`GrantRemains`).
    pub(crate) remains: Vec<(GrantKey, BTreeSet<MappingKey>)>,
    /// Grants in the policy that rolecall did not make and that were wanted for people who have all left, with whom they
    /// concern. The ledger keeps them as long as they are there (`LeaverHasForeignGrant`).
    pub(crate) left: BTreeMap<GrantKey, Concerns>,
    /// Grants that stay in the policy and that the ledger forgets because of `deletionPolicy: Orphan`.
    pub(crate) orphaned: Vec<GrantKey>,
    /// Changes that observe mode prevents.
    pub(crate) observed: Observed,
    /// Grants that are wanted but not sent, because Google would store the member under a spelling that
    /// `allowedDomains` does not permit.
    pub(crate) forbidden: Vec<GrantKey>,
    /// Ledger changes to record if no call is made: claims, verifications, resolved intents, forgotten rows.
    pub(crate) ledger: Vec<LedgerChange>,
    /// Audit rows to append if no call is made.
    pub(crate) audit: Vec<AuditEntry>,
    /// The write to make, conditional on the revision that was read; none when there is nothing to write. Without
    /// additions and removals the write is a fence: it writes the document back as it is, so that an earlier call with
    /// an unknown outcome fails on its revision.
    pub(crate) changes: Option<Changes>,
    /// Set when not all additions fit.
    pub(crate) limit: Option<LimitExceeded>,
    /// True when a complete list lacks the resource although its policy can be read: nothing new is granted there.
    pub(crate) unlisted: bool,
    /// Time of a further reconcile, at which a call with an unknown outcome on a missing resource can no longer take
    /// effect.
    pub(crate) recheck_at: Option<Timestamp>,
    context: settle::Context,
    live: Arc<Live>,
    /// Grants in the document that rolecall made, under the spellings of the target, and those that it wants.
    ours: BTreeSet<GrantKey>,
    /// Grants of a former resource of the same name, which the ledger forgot: the resource was created again.
    pub(crate) recreated: usize,
    /// The revision of the last acknowledged write before this reconcile.
    superseded: Option<String>,
    /// Conclusions from the read, recorded once one of our writes has proven it.
    concluded: settle::Conclusions,
    /// Grants made by rolecall as they are after the reconcile, for the comparison with Google's answer.
    staying: Vec<Arc<LedgerRow>>,
    /// Tombstones of deleted accounts whose grants rolecall had made; they are removed with the next write.
    sweep: BTreeSet<GrantKey>,
    unsettled: Vec<settle::Unsettled>,
    fence: bool,
    lines: Vec<counts::CountedGrant>,
    /// The mappings that only observe.
    observers: BTreeSet<MappingKey>,
    /// The subjects for whom the grants of `remains` were claimed.
    remained_for: BTreeMap<GrantKey, Subject>,
}

impl Plan {
    /// The same plan with only some of its additions; none when nothing of it is left.
    #[cfg(test)]
    fn with_additions(&self, wanted: impl Fn(&Step) -> bool) -> Option<Self> {
        let (now, left): (Vec<&Step>, Vec<&Step>) = self.add.iter().partition(|step| wanted(step));
        let grants = |steps: Vec<&Step>| steps.into_iter().map(|step| step.grant().clone()).collect();
        Some(self.restricted(&grants(now), &grants(left))).filter(|plan| plan.changes.is_some())
    }

    /// The uid of the resource that the plan relies on.
    #[must_use]
    pub(crate) fn resource_uid(&self) -> Option<&str> {
        self.context.resource_uid.as_deref()
    }

    /// The size of the document after this plan, if its call was acknowledged, or as it was read.
    #[must_use]
    pub(crate) fn space(&self, acknowledged: bool) -> Option<Capacity> {
        let read = self.live.capacity?;
        if !acknowledged {
            return Some(read);
        }
        let gone = self.remove.iter().flat_map(|step| &step.out).chain(&self.sweep).collect::<BTreeSet<_>>();
        let room = self.live.room_without(gone.into_iter())?;
        let groups = self.add.iter().filter(|step| is_group(&step.row.member)).count();
        Some(Capacity { used: room.kept + self.add.len(), groups: room.kept_groups + groups, ..read })
    }

    /// True when the plan removes a grant, grants one again, or draws a conclusion. It then has to be certain which
    /// resource the policy belongs to.
    #[must_use]
    pub(crate) fn depends_on_the_resource(&self) -> bool {
        let again = self.add.iter().any(|step| step.row.state != GrantState::Wanted);
        again || !self.remove.is_empty() || !self.held.parts.is_empty() || !self.concluded.is_empty()
    }

    /// True when the policy must be written although no member is added or removed: to prove a read, to fence off an
    /// earlier call, or to remove tombstones of deleted accounts.
    #[must_use]
    pub(crate) fn writes_besides_steps(&self) -> bool {
        self.fence || !self.sweep.is_empty()
    }

    /// The removals alone, if there are additions too: the plan to try after a mixed write was refused.
    #[cfg(test)]
    fn removals_only(&self) -> Option<Self> {
        if self.add.is_empty() { None } else { self.with_additions(|_| false) }
    }
}

/// The changes of the document made by these steps and by removing these tombstones. None where that is nothing and no
/// fence is needed. A fence moves the revision, so that an earlier call conditional on the old one is refused.
fn changes(add: &[Step], remove: &[Step], sweep: &BTreeSet<GrantKey>, fence: bool) -> Option<Changes> {
    if add.is_empty() && remove.is_empty() && sweep.is_empty() && !fence {
        return None;
    }
    let addition = |step: &Step| Addition {
        grant: step.grant().clone(),
        member: step.row.member.clone(),
        condition: step.row.condition.clone(),
    };
    Some(Changes {
        add: add.iter().map(addition).collect(),
        remove: remove.iter().flat_map(|step| &step.out).chain(sweep).cloned().collect(),
    })
}

fn plan_hash(document: &DocumentKey, add: &[Step], remove: &[Step], held: &Held) -> String {
    let steps = add.iter().map(|step| ("+", step.grant())).chain(remove.iter().map(|step| ("-", step.grant())));
    guard::digest(document, steps.chain(held.grants(false).into_iter().map(|grant| ("=", grant))))
}

/// Plans one reconcile. Total: every input has a plan, and the order of ledger rows and claims does not matter.
#[must_use]
pub(crate) fn plan(inputs: &Inputs) -> Plan {
    Planner::new(inputs).run()
}
