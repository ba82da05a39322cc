//! What has to change in one policy document, and what the ledger and the audit say about it: pure arithmetic.
//!
//! ```text
//! add    = desired − live              lost   = (owned ∩ desired) − live   (drift; granted again)
//! remove = (owned − desired) ∩ live    unowned = (desired ∩ live) − owned  (somebody else's; never removed)
//!                                      foreign = live − owned − desired    (kept byte for byte)
//! ```
//!
//! One pass over a document: [`plan`] → [`Plan::intend`] (recorded before the call) → the call with [`Plan::changes`] →
//! [`Plan::settle`] (recorded after it). A pass without a call records [`Plan::ledger`] and [`Plan::audit`] instead.
//!
//! A row keeps the claims that ended until its removal is settled, so that every later pass can tell again whose
//! access is taken and why, and so that a mapping is not done with while a grant of it is still there.

mod counts;
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
    Addition, AuditEntry, Changes, Desired, DocumentKey, GrantKey, GrantState, IntentAction, LedgerChange, LedgerRow,
    Live, MappingKey, Removal, Revision, Subject,
};

pub use counts::ClaimCounts;
pub use evidence::{Evidence, ReadAge, age};
pub use guard::held_hash;
pub use settle::{CallOutcome, Settlement};

use planner::Pass;

/// How long a call whose outcome is unknown is remembered when the resource is gone: one of that name may be back by the
/// time it lands. Where there is a policy, it is fenced off by a write instead.
pub const INTENT_FENCE: Duration = Duration::from_mins(10);

/// What one pass over a document is planned from: data alone, so that a pass can be written down and planned again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inputs {
    /// Which document.
    pub document: DocumentKey,
    /// What the mappings want there.
    pub desired: Desired,
    /// What the ledger holds about it; one row a grant, in any order.
    pub ledger: Vec<LedgerRow>,
    /// The document as just read. The read began after the last settlement of this document. The default: the target says that
    /// the resource is not there.
    pub live: Arc<Live>,
    /// What the read is worth.
    pub evidence: Evidence,
    /// The last acknowledged write of this document, as far as it is remembered.
    pub revision: Option<Revision>,
    /// The uid of the resource, read after the policy; none when it was not asked for.
    pub resource_uid: Option<String>,
    /// When the plan is made.
    pub now: Timestamp,
    /// The removals that the guard holds. A plan that asks about some ([`Plan::asks`]) is made again with the answer.
    pub held: BTreeSet<Removal>,
    /// Those with claims in the ledger of whom the IdP said that they are inactive or deleted.
    pub leavers: BTreeSet<Subject>,
}

/// Google keeps a member under another spelling than it was sent.
pub const PRINCIPAL_RESPELLED: &str = "PrincipalRespelled";

/// Why a step is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A mapping wants the grant.
    Wanted,
    /// Our grant was taken away by somebody else, and is granted again.
    Missing,
    /// Everybody the grant was for is inactive or deleted.
    Leaver,
    /// The mappings that wanted it were deleted.
    MappingDeleted,
    /// No mapping wants it any more: a membership, a spec or a delegation changed.
    NotWanted,
    /// Google keeps the member under a spelling that `allowedDomains` does not permit.
    SpellingForbidden,
    /// Another spelling of the grant goes with that of somebody who leaves, so the member is written again.
    Respelled,
}

impl Cause {
    /// The stable word, as in the audit.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Wanted => "Wanted",
            Self::Missing => "Missing",
            Self::Leaver => "Leaver",
            Self::MappingDeleted => "MappingDeleted",
            Self::NotWanted => "NotWanted",
            Self::SpellingForbidden | Self::Respelled => PRINCIPAL_RESPELLED,
        }
    }
}

/// One member put into, or taken out of, the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// In or out.
    pub action: IntentAction,
    /// Why.
    pub cause: Cause,
    /// The ledger row as it stands before the call. It carries an intent only if an earlier call for it may still land.
    pub row: LedgerRow,
    /// The row as it is put back when the call surely did nothing: without what only the read says.
    pub restore: LedgerRow,
    /// The members that go: all spellings of the grant, and what Google leaves of an account that was deleted. Of an
    /// addition there are none.
    pub out: BTreeSet<GrantKey>,
}

impl Step {
    /// Which grant.
    #[must_use]
    pub fn grant(&self) -> &GrantKey {
        &self.row.grant
    }
}

/// A grant of ours that somebody else took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostGrant {
    /// Which.
    pub grant: GrantKey,
    /// Seen for the first time in this pass.
    pub first_seen: bool,
    /// Is it granted again (`onMissing: Revert`)?
    pub regranted: bool,
}

/// What the guard keeps from being removed in one document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// By mapping and kind, in that order.
    pub parts: Vec<HeldPart>,
}

/// What is held for one mapping in one document: leavers, or people who have not left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPart {
    /// The mapping whose claims ended.
    pub mapping: MappingKey,
    /// Everybody concerned is inactive or deleted.
    pub leavers: bool,
    /// The removals, by grant.
    pub removals: Vec<Removal>,
    /// Over the removals; see [`held_hash`].
    pub digest: [u8; 32],
}

/// Additions that would take the policy over Google's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitExceeded {
    /// How many appearances of principals the policy would have.
    pub appearances: usize,
    /// How many it may have.
    pub limit: usize,
    /// The additions that are not written.
    pub withheld: Vec<GrantKey>,
}

impl Held {
    /// The audit reason.
    pub const REASON: &'static str = "MassRemoval";

    /// Nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The grants that stay for now; of leavers only, if asked so.
    #[must_use]
    pub fn grants(&self, leavers_only: bool) -> BTreeSet<&GrantKey> {
        let parts = self.parts.iter().filter(|part| part.leavers || !leavers_only);
        parts.flat_map(|part| &part.removals).map(|removal| &removal.grant).collect()
    }
}

impl LimitExceeded {
    /// The condition reason.
    pub const REASON: &'static str = "PolicyFull";
}

/// What `Observe` keeps from being done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Would be granted.
    pub add: Vec<GrantKey>,
    /// Would be removed.
    pub remove: Vec<GrantKey>,
}

/// What one pass does and reports.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Names this plan in the audit: 16 hex digits over document, additions, removals and what is held.
    pub hash: String,
    /// Members to put in, sorted by grant.
    pub add: Vec<Step>,
    /// Members to take out, sorted by grant.
    pub remove: Vec<Step>,
    /// What the guard withholds.
    pub held: Held,
    /// The removals that the guard has to decide about before this plan is carried out.
    pub asks: Vec<Removal>,
    /// The guard has to hear of this plan, although it may ask about nothing: something of the document was held before.
    pub guarded: bool,
    /// Drift: grants of ours that are missing.
    pub lost: Vec<LostGrant>,
    /// How many members (per role and condition) are somebody else's business.
    pub foreign: usize,
    /// Wanted, there, and not ours.
    pub unowned: Vec<GrantKey>,
    /// No longer wanted, still there, not ours: forgotten from here on (`GrantRemains`).
    pub remains: Vec<(GrantKey, BTreeSet<MappingKey>)>,
    /// Left in the policy and forgotten because of `deletionPolicy: Orphan`.
    pub orphaned: Vec<GrantKey>,
    /// What observe mode keeps from being done.
    pub observed: Observed,
    /// Wanted and not sent: Google would keep the member under a spelling that `allowedDomains` does not permit.
    pub forbidden: Vec<GrantKey>,
    /// What to record if no call is made: claims, verifications, resolved intents, forgotten rows.
    pub ledger: Vec<LedgerChange>,
    /// What to append if no call is made.
    pub audit: Vec<AuditEntry>,
    /// What to write upon the revision that was read; none when there is nothing to write. Without additions and removals it
    /// is a fence: the document as it is, so that an earlier call whose outcome is unknown finds its revision gone.
    pub changes: Option<Changes>,
    /// Set when not all additions fit.
    pub limit: Option<LimitExceeded>,
    /// A complete list lacks the resource although its policy answers: nothing new is granted there.
    pub unlisted: bool,
    /// Look again then: the unknown outcome of a call on a resource that is gone will be settled by time.
    pub recheck_at: Option<Timestamp>,
    context: settle::Context,
    live: Arc<Live>,
    /// The last acknowledged write before this pass.
    superseded: Option<String>,
    /// What follows from the read once a write of ours has proven it.
    concluded: settle::Conclusions,
    /// Grants of ours as they stand after the pass, for the comparison with Google's answer.
    staying: Vec<LedgerRow>,
    /// Members of deleted accounts that were ours, and that go with whatever is written.
    sweep: BTreeSet<GrantKey>,
    unsettled: Vec<settle::Unsettled>,
    fence: bool,
    lines: Vec<counts::CountedGrant>,
    /// For whom the grants of `remains` were claimed.
    remained_for: BTreeMap<GrantKey, Subject>,
}

impl Plan {
    /// The same pass with only some of its additions. None when nothing of it is left.
    #[cfg(test)]
    fn with_additions(&self, wanted: impl Fn(&Step) -> bool) -> Option<Self> {
        let (now, left): (Vec<&Step>, Vec<&Step>) = self.add.iter().partition(|step| wanted(step));
        let grants = |steps: Vec<&Step>| steps.into_iter().map(|step| step.grant().clone()).collect();
        Some(self.restricted(&grants(now), &grants(left))).filter(|plan| plan.changes.is_some())
    }

    /// The uid of the resource that the plan goes by.
    #[must_use]
    pub fn resource_uid(&self) -> Option<&str> {
        self.context.resource_uid.as_deref()
    }

    /// Does the pass take anything back, grant anything again, or conclude anything? Then it has to be sure which resource
    /// the policy belongs to.
    #[must_use]
    pub fn depends_on_the_resource(&self) -> bool {
        let again = self.add.iter().any(|step| step.row.state != GrantState::Wanted);
        again || !self.remove.is_empty() || !self.held.parts.is_empty() || !self.concluded.is_empty()
    }

    /// True when the policy must be written although no member is added or removed: to prove a read, to fence off an earlier
    /// call, or to sweep out what is left of a deleted account.
    #[must_use]
    pub fn writes_besides_steps(&self) -> bool {
        self.fence || !self.sweep.is_empty()
    }

    /// The removals alone, if there are any beside additions: what to try after a mixed write was refused.
    #[cfg(test)]
    fn removals_only(&self) -> Option<Self> {
        if self.add.is_empty() { None } else { self.with_additions(|_| false) }
    }
}

/// What these steps change in the document, and who is swept out with them. None, where that is nothing and no fence either: a
/// write moves the revision, and an earlier call upon the old one is refused from then on.
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

/// Plans one pass. Total: every input has a plan, and the order of ledger rows and claims does not matter.
#[must_use]
pub fn plan(inputs: &Inputs) -> Plan {
    Pass::new(inputs).run()
}
