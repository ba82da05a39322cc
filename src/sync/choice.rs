//! Chooses the part of a plan that one attempt writes, and draws the consequences of Google's answer for the additions
//! of the document.
//!
//! Removals are written alone whenever additions of the document are refused, are being bisected, or have to wait. An
//! attempt makes at most one write; the rest is left for another attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Inner;
use super::additions::Additions;
use super::bisect::{Bisection, Next};
use super::contests::Contests;
use super::lanes::Lane;
use super::refusals::{Refusals, refusal_key};
use super::state::{DocumentState, State};
use crate::catalog::Ceiling;
use crate::model::{DocumentKey, GrantKey, RefusalKey, WriteBudget};
use crate::plan::{Cause, Plan, Step};

/// Smallest number of additions per write while Google refuses members one after the other: each refused write repeats
/// the others.
pub(super) const CHUNK: usize = 8;
/// Shortest time between two probes of one document.
pub(super) const PROBE_PACE: Duration = Duration::from_secs(2);
/// Longest time that a document waits for another one before it is planned again.
const WAITING: Duration = Duration::from_secs(30);

/// The kind of write that an attempt makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// The whole plan.
    AsPlanned,
    /// The removals alone.
    Removals,
    /// The policy as it was read.
    Proof,
    /// A part of the additions, to find out which of them are refused.
    Test,
    /// The additions that are not suspected, or some of them.
    Additions,
    /// Refused additions, as a probe.
    Probe(BTreeSet<RefusalKey>),
    /// No addition: the write proves a read, fences off an earlier call, or removes tombstones of deleted accounts.
    Besides,
    /// No write now.
    Nothing,
}

/// The choice for one attempt.
#[derive(Debug)]
pub(super) struct Choice {
    pub(crate) what: What,
    /// The additions to write.
    pub(crate) now: BTreeSet<GrantKey>,
    /// The removals to write; none: all.
    pub(crate) removals: Option<BTreeSet<GrantKey>>,
    /// Time after which to try refused removals again.
    pub(crate) removals_wait: Option<Duration>,
    /// Additions that are left out because Google refuses them, or because somebody else keeps taking them away.
    pub(crate) refused: BTreeSet<GrantKey>,
    /// Additions that are not suspected.
    pub(super) addable: BTreeSet<GrantKey>,
    /// Time after which to try again, if only time helps.
    pub(crate) wait: Option<Duration>,
    /// A lane to enqueue again, which waits for quota.
    pub(crate) again: Option<Lane>,
    /// True when additions wait for the results of another document.
    pub(crate) waits: bool,
    /// The used budget, to be stored before the write.
    pub(crate) spent: Option<WriteBudget>,
}

impl Choice {
    /// No write.
    fn nothing() -> Self {
        Self {
            what: What::Nothing,
            now: BTreeSet::new(),
            removals: None,
            removals_wait: None,
            refused: BTreeSet::new(),
            addable: BTreeSet::new(),
            wait: None,
            again: None,
            waits: false,
            spent: None,
        }
    }

    /// True when the whole plan is written.
    pub(crate) fn is_whole(&self) -> bool {
        self.what == What::AsPlanned && self.removals.is_none()
    }

    /// The plan to execute; none: nothing is written.
    pub(crate) fn carried_out(&self, plan: &Arc<Plan>) -> Option<Arc<Plan>> {
        let restricted = || {
            let mut refused = self.refused.clone();
            refused.retain(|grant| !self.now.contains(grant));
            plan.restricted(&self.now, &refused)
        };
        match (&self.what, &self.removals) {
            (What::AsPlanned, None) => Some(plan.clone()),
            (What::Proof, None) => Some(Arc::new(plan.unchanged(&self.refused))),
            (What::Proof, Some(removals)) => Some(Arc::new(plan.removing(removals).unchanged(&self.refused))),
            (What::Nothing, _) => None,
            (What::Removals | What::Test | What::Additions | What::Probe(_) | What::Besides, None) => {
                Some(Arc::new(restricted()))
            }
            (_, Some(removals)) => Some(Arc::new(restricted().removing(removals))),
        }
        .filter(|plan| plan.changes.is_some())
    }

    /// Writes the policy without additions when a read must be proven or an earlier call fenced off.
    fn write_besides(&mut self, plan: &Plan) {
        // The additions that are left out may have been sent before, with an unknown outcome.
        if self.what == What::Nothing && (plan.writes_besides_steps() || plan.follows_unknown()) {
            self.what = What::Besides;
        }
    }

    /// The plan to report when nothing is written.
    pub(crate) fn reported(&self, plan: &Arc<Plan>) -> Arc<Plan> {
        if self.is_whole() { plan.clone() } else { Arc::new(plan.restricted(&BTreeSet::new(), &self.refused)) }
    }
}

/// Chooses the write of this attempt. `admitted`: the quota of the region permits one.
pub(super) fn choose(inner: &Inner, document: &DocumentKey, plan: &Plan, admitted: bool) -> Choice {
    if inner.config.ceiling == Ceiling::Observe {
        // Nothing is written at all, not even to prove a read or to fence off an earlier call.
        return Choice::nothing();
    }
    let now = Instant::now();
    let open = admitted && inner.queue().additions_open(document, now);
    let at = inner.clock.now();
    let mut state = inner.state();
    // Each round isolates something more; the number of rounds is bounded by the additions.
    loop {
        if let Some(mut choice) = choose_once(&mut state, document, plan, Moment { now, at, open, admitted }) {
            let contests = &state.document(document).contests;
            let held = plan.add.iter().filter_map(|step| contests.held(step, at)).min();
            let wait = held.and_then(|until| Duration::try_from(until.duration_since(at)).ok());
            choice.wait = [choice.wait, wait].into_iter().flatten().min();
            return choice;
        }
    }
}

#[derive(Clone, Copy)]
struct Moment {
    now: Instant,
    at: Timestamp,
    /// True when additions may be written.
    open: bool,
    /// True when a write may be sent.
    admitted: bool,
}

/// None: something was isolated, so that the choice has to be made again.
fn choose_once(state: &mut State, document: &DocumentKey, plan: &Plan, moment: Moment) -> Option<Choice> {
    let Moment { now, open, admitted, .. } = moment;
    state.document(document);
    let State { refusals, documents, .. } = state;
    let DocumentState { additions, contests, removals, .. } = documents.get_mut(document)?;
    let due = removals.due(plan, now);
    let withheld = refusals.withheld(document, plan.add.iter());
    additions.report(refusals, plan, &withheld);
    let (contested, addable) = addable(plan, &withheld, contests, moment.at);
    let members = addable.iter().map(|grant| grant.member.clone()).collect();
    let waits = refusals.must_wait(document, &members, now);
    let foreign =
        additions.foreign.as_ref().filter(|foreign| foreign.revision == plan.read().revision && now < foreign.until);
    let left_out = !withheld.is_empty() || !contested.is_empty();
    let blocked = !open || waits || left_out || additions.apart || additions.bisection.is_some() || foreign.is_some();
    let refused = withheld.keys().chain(&contested).cloned().collect();
    let mut choice = Choice { refused, addable, waits, removals_wait: due.wait, ..Choice::nothing() };
    let partly = due.grants.len() < plan.remove.len();
    choice.removals = partly.then(|| due.grants.clone());
    let removed = || plan.remove.iter().filter(|step| due.grants.contains(step.grant()));
    let together =
        together(plan, removed(), |grant| choice.addable.contains(grant) && !additions.left_behind.contains(grant));
    let blocked = blocked && !plan.add.is_empty();
    let alone = partly || blocked;
    if removed().any(|step| !alone || !step.waits_for_others(&together)) {
        if !admitted {
            choice.again = Some(Lane::Removal);
        } else if alone {
            choice.what = What::Removals;
            choice.now = together;
        } else {
            choice.what = What::AsPlanned;
            choice.now.clone_from(&choice.addable);
        }
        return Some(choice);
    }
    if !open && plan.changes.is_some() {
        choice.again = Some(Lane::Addition);
        return Some(choice);
    }
    if plan.add.is_empty() {
        if plan.changes.is_none() {
            // No additions are left that it could block.
            additions.foreign = None;
        }
        additions.settled();
        refusals.release(document);
        if partly {
            choice.write_besides(plan);
        } else {
            choice.what = What::AsPlanned;
        }
        return Some(choice);
    }
    if let Some(foreign) = foreign {
        choice.wait = Some(foreign.until - now);
        refusals.release(document);
        return Some(choice);
    }
    if waits {
        choice.wait = Some(WAITING);
        return Some(choice);
    }
    if additions.bisection.is_some() {
        return bisect(additions, refusals, document, (plan, &withheld), choice, moment);
    }
    if choice.addable.is_empty() {
        additions.settled();
        refusals.release(document);
        probe(additions, refusals, document, &withheld, &mut choice, moment);
        // A grant that was taken away again is not worth a write that only proves it.
        if contested.is_empty() || plan.follows_unknown() {
            choice.write_besides(plan);
        }
        return Some(choice);
    }
    choice.what = if blocked || partly { What::Additions } else { What::AsPlanned };
    let most = additions.chunk.unwrap_or(usize::MAX);
    choice.now = choice.addable.iter().take(most).cloned().collect();
    if choice.now.len() < choice.addable.len() {
        choice.what = What::Additions;
    }
    Some(choice)
}

/// The additions that are written with removals also where other additions are not: a member that shares a spelling with a
/// leaver, and what takes the place of a removed grant.
fn together<'p>(
    plan: &Plan,
    removed: impl Iterator<Item = &'p Step>,
    may: impl Fn(&GrantKey) -> bool,
) -> BTreeSet<GrantKey> {
    let instead: BTreeSet<&GrantKey> = removed.flat_map(|step| &step.replaced_by).collect();
    let again = plan.add.iter().filter(|step| step.cause == Cause::Respelled || instead.contains(step.grant()));
    again.map(Step::grant).filter(|grant| may(grant)).cloned().collect()
}

/// The additions that somebody else keeps taking away, and those that nothing keeps from being written.
fn addable(
    plan: &Plan,
    withheld: &BTreeMap<GrantKey, RefusalKey>,
    contests: &Contests,
    at: Timestamp,
) -> (BTreeSet<GrantKey>, BTreeSet<GrantKey>) {
    let (contested, others): (Vec<&Step>, Vec<&Step>) =
        plan.add.iter().partition(|step| contests.held(step, at).is_some());
    let contested = contested.into_iter().map(|step| step.grant().clone()).collect();
    let others = others.into_iter().map(Step::grant).filter(|grant| !withheld.contains_key(*grant)).cloned();
    (contested, others.collect())
}

/// The next write of a bisection, unless the budget of this hour is used up.
fn bisect(
    additions: &mut Additions,
    refusals: &mut Refusals,
    document: &DocumentKey,
    (plan, withheld): (&Plan, &BTreeMap<GrantKey, RefusalKey>),
    mut choice: Choice,
    moment: Moment,
) -> Option<Choice> {
    let at = moment.at;
    let spent = *refusals.budgets.entry(document.clone()).or_insert_with(|| WriteBudget::new(at));
    if let Some(until) = spent.exhausted_until(at) {
        additions.exhausted = true;
        additions.unresolved = additions.unresolved(spent, plan);
        refusals.release(document);
        // People who were added since are not part of it.
        let open: BTreeSet<&GrantKey> = additions.bisection.iter().flat_map(Bisection::open).collect();
        choice.now = choice.addable.iter().filter(|grant| !open.contains(grant)).cloned().collect();
        if choice.now.is_empty() {
            probe(additions, refusals, document, withheld, &mut choice, moment);
            let renewed = Duration::try_from(until.duration_since(at)).ok();
            choice.wait = [choice.wait, renewed].into_iter().flatten().min();
            choice.write_besides(plan);
        } else {
            choice.what = What::Additions;
        }
        return Some(choice);
    }
    let bisection = additions.bisection.as_mut()?;
    additions.unresolved = None;
    if std::mem::take(&mut additions.exhausted) {
        bisection.start_over();
    }
    let (next, isolated) = bisection.next(&choice.addable);
    if !isolated.is_empty() {
        for found in &isolated {
            let key = refusal_key(document, bisection.cause, found);
            refusals.refuse(key, bisection.cause.reason().word(), at);
        }
        return None;
    }
    match next {
        Next::Prove => choice.what = What::Proof,
        Next::Test(grants) => {
            choice.what = What::Test;
            choice.now = grants;
        }
        Next::Done => {
            additions.bisection = None;
            return None;
        }
    }
    choice.spent = Some(refusals.spend(document, at));
    Some(choice)
}

/// Probes the refusals that are due.
fn probe(
    additions: &mut Additions,
    refusals: &mut Refusals,
    document: &DocumentKey,
    withheld: &BTreeMap<GrantKey, RefusalKey>,
    choice: &mut Choice,
    Moment { now, at, .. }: Moment,
) {
    let (mut due, next) = refusals.due(document, withheld.values(), at);
    choice.wait = next.and_then(|next| Duration::try_from(next.duration_since(at)).ok());
    if due.is_empty() {
        return;
    }
    if let Some(after) = additions.probe_after.filter(|after| *after > now) {
        let pause = after - now;
        choice.wait = Some(choice.wait.map_or(pause, |wait| wait.min(pause)));
        return;
    }
    if let Some(batch) = additions.probe_batch {
        due = due.into_iter().take(batch).collect();
    }
    let mut roles: BTreeMap<&RefusalKey, Vec<&GrantKey>> = BTreeMap::new();
    for (grant, key) in withheld.iter().filter(|(_, key)| due.contains(*key)) {
        if key.member.is_some() {
            choice.now.insert(grant.clone());
        } else {
            roles.entry(key).or_default().push(grant);
        }
    }
    for (key, grants) in roles {
        // One member is enough to find out whether a role is accepted; a different one each time, since the member
        // itself may be refused.
        let probes = refusals.get(key).map_or(0, |refusal| refusal.probes as usize);
        choice.now.extend(grants.get(probes % grants.len()).map(|grant| (*grant).clone()));
    }
    refusals.begin_probe(document, &due);
    choice.what = What::Probe(due);
}
