//! Detects outdated reads of a policy, and the resource that the policy belongs to.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Inner;
use super::error::EngineError;
use super::pacer::Call;
use crate::model::{DocumentKey, LedgerRow, Live, Revision};
use crate::plan::{Evidence, Plan, ReadAge, age};
use crate::store::DocumentLedger;
use crate::target::{ErrorKind, TargetError};

/// How long a document that was written before may look as if it had never been set, before a write has to prove it.
const NEVER_SET_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// After one of our calls with an unknown outcome and a conflict, a read with the same revision is outdated. Initial
/// time for which that is assumed, doubled each time.
const CONFLICTED: SignedDuration = SignedDuration::from_secs(1);

/// Upper limit of that time: a revision that is still returned then is the current one, and the conflict had another
/// cause.
const CONFLICTED_MAX: SignedDuration = SignedDuration::from_secs(16);

/// How long a version that a write did not prove is not written again only to prove it.
const PROOF: SignedDuration = SignedDuration::from_hours(1);

/// State of the reads of one document beyond the store's content. Nothing in it has to survive a restart.
#[derive(Debug, Default)]
pub(super) struct ReadState {
    /// A revision on which a write met a conflict: until when it counts as outdated, and how often that happened.
    conflicted: Option<(String, Timestamp, u32)>,
    /// The revision of a policy that was written back unchanged without proving the read.
    unproven: Option<(String, Timestamp)>,
    /// Since when the policy looks as if it had never been set, although it was.
    never_set_since: Option<Timestamp>,
}

impl ReadState {
    /// Records that a write conditional on this revision met a conflict. `after_unknown`: an earlier call of ours may
    /// have taken effect, so that the read behind the write was outdated. `only_proof`: the write would have changed
    /// nothing.
    pub(crate) fn conflict(&mut self, revision: &str, after_unknown: bool, only_proof: bool, now: Timestamp) {
        if only_proof {
            self.unproven = Some((revision.to_owned(), now.saturating_add(PROOF).unwrap_or(Timestamp::MAX)));
        }
        if !after_unknown {
            return;
        }
        let times = match &self.conflicted {
            Some((before, _, times)) if before == revision => times.saturating_add(1),
            _ => 0,
        };
        let wait = CONFLICTED.saturating_mul(1 << times.min(8)).min(CONFLICTED_MAX);
        self.conflicted = Some((revision.to_owned(), now.saturating_add(wait).unwrap_or(Timestamp::MAX), times));
    }

    /// How long to wait before a read with this revision can be trusted again; none when it can be now.
    fn conflicted_for(&self, revision: &str, now: Timestamp) -> Option<Duration> {
        let (_, until, _) = self.conflicted.as_ref().filter(|(before, ..)| before == revision)?;
        Duration::try_from(until.duration_since(now)).ok().filter(|left| !left.is_zero())
    }

    fn may_prove(&self, revision: &str, now: Timestamp) -> bool {
        self.unproven.as_ref().is_none_or(|(before, until)| before != revision || *until <= now)
    }
}

/// How far one read can be trusted.
pub(super) struct Read {
    pub(crate) evidence: Evidence,
    /// The uid of the resource, if it had to be read.
    pub(crate) resource_uid: Option<String>,
    /// True when the uid from the list may be outdated.
    asked: bool,
}

impl Read {
    /// The resource does not exist, and therefore no policy.
    pub(crate) const GONE: Self = Self { evidence: Evidence::Current, resource_uid: None, asked: true };

    /// True when this plan depends on the resource of the policy and that resource is not known. A document with the
    /// revision of our own last write belongs to the resource that we wrote, unless the list has another one.
    pub(crate) fn depends_on_the_resource(
        &self,
        plan: &Plan,
        revision: Option<&Revision>,
        rows: &[Arc<LedgerRow>],
    ) -> bool {
        let listed = plan.resource_uid();
        let is_another = listed.is_some_and(|uid| differs(uid, revision, rows.iter().map(AsRef::as_ref)));
        !self.asked
            && self.resource_uid.is_none()
            && (is_another || (self.evidence != Evidence::Current && plan.depends_on_the_resource()))
    }

    /// Sets the resource. Another resource cannot have the revision of our last write: then a write has to prove the
    /// read.
    pub(crate) fn identified(&mut self, uid: Option<String>, revision: Option<&Revision>, rows: &[Arc<LedgerRow>]) {
        let rows = rows.iter().map(AsRef::as_ref);
        let is_another = uid.as_deref().is_some_and(|uid| differs(uid, revision, rows));
        if is_another && self.evidence == Evidence::Current {
            self.evidence = Evidence::Unproven { may_prove: true };
        }
        self.resource_uid = uid;
        self.asked = true;
    }
}

/// Determines how far this read can be trusted.
///
/// # Errors
/// [`EngineError::StaleRead`], when it is outdated.
pub(super) async fn evaluate(
    inner: &Inner,
    document: &DocumentKey,
    ledger: &DocumentLedger,
    live: &Live,
) -> Result<Read, EngineError> {
    let read = live.revision.as_str();
    let now = inner.clock.now();
    let revision = ledger.revision.as_ref();
    let superseded =
        revision.is_some_and(|revision| revision.id != read) && inner.store.is_superseded(document, read, now).await?;
    let mut resource_uid = None;
    let age = match age(read, revision, superseded, &ledger.rows) {
        ReadAge::Stale if live.never_set => {
            let uid = uid(inner, document).await?;
            let is_another = uid.as_deref().is_some_and(|uid| differs(uid, revision, ledger.rows.iter()));
            resource_uid = uid;
            if is_another || inner.state().document(document).reads.never_set(now) {
                ReadAge::Unproven
            } else {
                ReadAge::Stale
            }
        }
        age => {
            inner.state().document(document).reads.never_set_since = None;
            age
        }
    };
    let mut state = inner.state();
    let reads = &mut state.document(document).reads;
    if age == ReadAge::Stale || reads.conflicted_for(read, now).is_some() {
        return Err(EngineError::StaleRead);
    }
    let evidence = match age {
        ReadAge::Current => Evidence::Current,
        ReadAge::Stale | ReadAge::Unproven => Evidence::Unproven { may_prove: reads.may_prove(read, now) },
    };
    Ok(Read { evidence, asked: resource_uid.is_some(), resource_uid })
}

impl ReadState {
    /// True when the policy has looked as if it had never been set for a long time.
    fn never_set(&mut self, now: Timestamp) -> bool {
        now.duration_since(*self.never_set_since.get_or_insert(now)) > NEVER_SET_AGAIN
    }
}

fn differs<'r>(uid: &str, revision: Option<&Revision>, mut rows: impl Iterator<Item = &'r LedgerRow>) -> bool {
    let known = revision.and_then(|revision| revision.resource_uid.as_deref());
    known.is_some_and(|known| known != uid)
        || rows.any(|row| row.resource_uid.as_deref().is_some_and(|known| known != uid))
}

/// Reads which resource the document currently belongs to. None where the permission is missing: then the list has to
/// be sufficient.
///
/// # Errors
/// [`TargetError`].
pub(super) async fn uid(inner: &Inner, document: &DocumentKey) -> Result<Option<String>, TargetError> {
    let answer = inner.call(document, Call::Read, inner.target.resource_uid(document)).await;
    let missing = answer.as_ref().err().and_then(TargetError::missing_permission).map(str::to_owned);
    inner.state().document(document).missing_for_resource = missing;
    match answer {
        Ok(uid) => Ok(Some(uid)),
        Err(error) if matches!(error.kind, ErrorKind::Denied { .. }) => {
            tracing::warn!(
                target.document = %document, reason = %error.reason,
                "cannot read which resource the policy of {document} belongs to; using the last list"
            );
            Ok(None)
        }
        Err(error) => {
            if error.is_not_found() {
                inner.list_again(document);
            }
            Err(error)
        }
    }
}
