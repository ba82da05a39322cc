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
use super::bisect::{Bisection, Isolated, Next};
use super::lanes::Lane;
use super::refusals::Refusals;
use super::state::State;
use crate::catalog::Ceiling;
use crate::model::{DocumentKey, GrantKey, MappingKey, MemberKey, Reach, Reason, RefusalKey, Subject, WriteBudget};
use crate::plan::{Cause, Plan, Step};
use crate::target::{ErrorKind, RefusalCause, Refused, TargetError};

/// Smallest number of additions per write while Google refuses members one after the other: each refused write repeats
/// the others.
const CHUNK: usize = 8;
/// Shortest time between two probes of one document.
const PROBE_PACE: Duration = Duration::from_secs(2);
/// Number of refused grants of one document that are kept for the statuses.
const REPORTED: usize = 200;
/// Time until an unchanged policy that is refused because of a foreign member is retried; doubles up to an hour.
const FOREIGN: Duration = Duration::from_mins(5);
const FOREIGN_MAX: Duration = Duration::from_hours(1);
/// Longest time that a document waits for another one before it is planned again.
const WAITING: Duration = Duration::from_secs(30);

/// A refusal of the policy even without the additions of rolecall.
#[derive(Debug)]
pub(super) struct Foreign {
    revision: String,
    until: Instant,
    tries: u32,
    /// Time of the first such refusal.
    pub(crate) since: Timestamp,
    /// Google's reason word.
    pub(crate) reason: Reason,
    /// Google's message. It may name people.
    pub(crate) message: String,
}

/// A grant that is left out because Google refuses it.
#[derive(Debug, Clone)]
pub(super) struct RefusedGrant {
    pub(crate) mappings: BTreeSet<MappingKey>,
    pub(crate) subject: Option<Subject>,
    pub(crate) role: String,
    /// True when the refusal concerns the role, whoever the member is.
    pub(crate) of_role: bool,
    pub(crate) reason: Reason,
    pub(crate) since: Timestamp,
}

/// Additions of which one is refused, while the writes for finding out which are used up.
#[derive(Debug, Clone)]
pub(super) struct Unresolved {
    pub(crate) reason: Reason,
    /// Number of additions by mapping.
    pub(crate) mappings: BTreeMap<MappingKey, usize>,
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

/// State of the additions of one document.
#[derive(Debug, Default)]
pub(super) struct Additions {
    /// True when additions were refused, or throttled: removals are written alone.
    apart: bool,
    /// Largest number of additions per write; none: all.
    chunk: Option<usize>,
    bisection: Option<Bisection>,
    exhausted: bool,
    probe_batch: Option<usize>,
    probe_after: Option<Instant>,
    /// Members that share a spelling with a leaver and were refused in the call that removed the leaver. The next
    /// removal leaves them out.
    left_behind: BTreeSet<GrantKey>,
    pub(crate) foreign: Option<Foreign>,
    pub(crate) refused: Vec<RefusedGrant>,
    pub(crate) unresolved: Option<Unresolved>,
}

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
    /// Additions that are left out because Google refuses them.
    pub(crate) refused: BTreeSet<GrantKey>,
    /// Additions that are not suspected.
    addable: BTreeSet<GrantKey>,
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
            refused: BTreeSet::new(),
            addable: BTreeSet::new(),
            wait: None,
            again: None,
            waits: false,
            spent: None,
        }
    }

    fn is_whole(&self) -> bool {
        self.what == What::AsPlanned
    }

    /// The plan to execute; none: nothing is written.
    pub(crate) fn carried_out(&self, plan: &Arc<Plan>) -> Option<Arc<Plan>> {
        match self.what {
            What::AsPlanned => Some(plan.clone()),
            What::Proof => Some(Arc::new(plan.unchanged(&self.refused))),
            What::Nothing => None,
            What::Removals | What::Test | What::Additions | What::Probe(_) | What::Besides => {
                let mut refused = self.refused.clone();
                refused.retain(|grant| !self.now.contains(grant));
                Some(Arc::new(plan.restricted(&self.now, &refused)))
            }
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

/// Chooses the write of this attempt.
pub(super) fn choose(inner: &Inner, document: &DocumentKey, plan: &Plan) -> Choice {
    if inner.config.ceiling == Ceiling::Observe {
        // Nothing is written at all, not even to prove a read or to fence off an earlier call.
        return Choice::nothing();
    }
    let now = Instant::now();
    let (open, removals_open) = {
        let queue = inner.queue();
        (queue.additions_open(document, now), queue.write_opens(&document.region(), Lane::Removal, now).is_none())
    };
    let at = inner.clock.now();
    let mut state = inner.state();
    // Each round isolates something more; the number of rounds is bounded by the additions.
    loop {
        if let Some(choice) = choose_once(&mut state, document, plan, Moment { now, at, open, removals_open }) {
            return choice;
        }
    }
}

#[derive(Clone, Copy)]
struct Moment {
    now: Instant,
    at: Timestamp,
    open: bool,
    removals_open: bool,
}

/// None: something was isolated, so that the choice has to be made again.
fn choose_once(state: &mut State, document: &DocumentKey, plan: &Plan, moment: Moment) -> Option<Choice> {
    let Moment { now, open, removals_open, .. } = moment;
    state.document(document);
    let State { refusals, documents, .. } = state;
    let additions = &mut documents.get_mut(document)?.additions;
    let withheld = refusals.withheld(document, plan.add.iter());
    additions.report(refusals, plan, &withheld);
    let addable: BTreeSet<GrantKey> =
        plan.add.iter().map(Step::grant).filter(|grant| !withheld.contains_key(*grant)).cloned().collect();
    let members = addable.iter().map(|grant| grant.member.clone()).collect();
    let waits = refusals.must_wait(document, &members, now);
    let foreign =
        additions.foreign.as_ref().filter(|foreign| foreign.revision == plan.read().revision && now < foreign.until);
    let blocked =
        !open || waits || !withheld.is_empty() || additions.apart || additions.bisection.is_some() || foreign.is_some();
    let mut choice = Choice { refused: withheld.keys().cloned().collect(), addable, waits, ..Choice::nothing() };
    if !plan.remove.is_empty() {
        if !removals_open {
            choice.again = Some(Lane::Removal);
        } else if blocked && !plan.add.is_empty() {
            choice.what = What::Removals;
            // A member that shares a spelling with a leaver is written again in the same call.
            let again = plan.add.iter().filter(|step| step.cause == Cause::Respelled).map(Step::grant);
            let may = |grant: &&GrantKey| choice.addable.contains(*grant) && !additions.left_behind.contains(*grant);
            choice.now = again.filter(may).cloned().collect();
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
        choice.what = What::AsPlanned;
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
        choice.write_besides(plan);
        return Some(choice);
    }
    choice.what = if blocked { What::Additions } else { What::AsPlanned };
    let most = additions.chunk.unwrap_or(usize::MAX);
    choice.now = choice.addable.iter().take(most).cloned().collect();
    if choice.now.len() < choice.addable.len() {
        choice.what = What::Additions;
    }
    Some(choice)
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
    choice.spent = Some(spend(refusals, document, at));
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
    let Some(additions) = documents.get_mut(document).map(|memory| &mut memory.additions) else { return Follows::Done };
    match answer {
        Answer::Acknowledged => acknowledged(additions, refusals, document, choice),
        Answer::Failed(error) => match &error.kind {
            ErrorKind::Refused(what) if carried_out.add.is_empty() => {
                let reason = what.cause.reason();
                additions.foreign(carried_out, (reason, &what.message), now, at);
                refusals.release(document);
                Follows::Foreign(reason)
            }
            ErrorKind::Refused(what) => refused(additions, refusals, document, choice, carried_out, what, (now, at)),
            ErrorKind::Throttled { .. } => {
                additions.apart |= !carried_out.add.is_empty();
                Follows::Done
            }
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

/// The refusal of the addition named by the target.
fn named(what: &Refused, document: &DocumentKey, carried_out: &Plan) -> Option<RefusalKey> {
    let (member, role) = (what.member.as_deref().map(MemberKey::of), what.role.as_deref());
    let is_it = |grant: &GrantKey| match (&member, role) {
        (Some(member), None) => grant.member == *member,
        (Some(member), Some(role)) => grant.member == *member && grant.role.as_str() == role,
        (None, Some(role)) => grant.role.as_str() == role,
        (None, None) => false,
    };
    let grant = carried_out.add.iter().map(Step::grant).find(|grant| is_it(grant))?;
    let kind = || Reach::Kind(document.project().to_owned(), document.kind());
    Some(match (member, role) {
        (Some(member), Some(_)) => RefusalKey { reach: kind(), member: Some(member), role: Some(grant.role.clone()) },
        (None, _) => RefusalKey { reach: kind(), member: None, role: Some(grant.role.clone()) },
        (Some(member), None) => {
            let everywhere = matches!(
                what.cause,
                RefusalCause::PrincipalUnknown | RefusalCause::PrincipalMalformed | RefusalCause::PrincipalRefused
            );
            let reach = if everywhere { Reach::Everywhere } else { reach_of_member(document, what.cause) };
            RefusalKey { reach, member: Some(member), role: None }
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
        // No single addition is at fault: there are too many.
        refusals.release(document);
        return Follows::Done;
    }
    match (&mut additions.bisection, &choice.what) {
        (Some(bisection), What::Test) => bisection.answer(false),
        (Some(bisection), _) => {
            bisection.suspect(tried());
            let _ = spend(refusals, document, at);
        }
        (none, _) => {
            let _ = spend(refusals, document, at);
            let (roles, members) = carried_out.present();
            let hints = refusals.hints(document, what.cause.reason().word());
            *none = Some(Bisection::new(what.cause, tried().collect(), roles, members, hints));
        }
    }
    again
}

fn spend(refusals: &mut Refusals, document: &DocumentKey, at: Timestamp) -> WriteBudget {
    let budget = refusals.budgets.entry(document.clone()).or_insert_with(|| WriteBudget::new(at));
    budget.spend(at);
    *budget
}

/// The scope of a member's refusal whose text did not say that the account does not exist.
fn reach_of_member(document: &DocumentKey, cause: RefusalCause) -> Reach {
    match cause {
        RefusalCause::DomainRestricted | RefusalCause::OrganizationPolicy => {
            Reach::Project(document.project().to_owned())
        }
        RefusalCause::PrincipalUnknown | RefusalCause::PrincipalMalformed => Reach::Everywhere,
        RefusalCause::PrincipalRefused
        | RefusalCause::RoleNotSupported
        | RefusalCause::LimitExceeded
        | RefusalCause::Other => Reach::Document(document.clone()),
    }
}

fn refusal_key(document: &DocumentKey, cause: RefusalCause, found: &Isolated) -> RefusalKey {
    let reach_of_role = || match cause {
        RefusalCause::RoleNotSupported | RefusalCause::OrganizationPolicy => {
            Reach::Kind(document.project().to_owned(), document.kind())
        }
        _ => Reach::Document(document.clone()),
    };
    match found {
        Isolated::Member(member) => {
            RefusalKey { reach: reach_of_member(document, cause), member: Some(member.clone()), role: None }
        }
        Isolated::Role(role) => RefusalKey { reach: reach_of_role(), member: None, role: Some(role.clone()) },
        Isolated::Grant(grant) => RefusalKey {
            reach: Reach::Document(document.clone()),
            member: Some(grant.member.clone()),
            role: Some(grant.role.clone()),
        },
    }
}

impl Additions {
    /// Records that everything that is not suspected has been written.
    fn settled(&mut self) {
        self.apart = false;
        self.chunk = None;
        self.bisection = None;
        self.exhausted = false;
        self.unresolved = None;
    }

    fn foreign(&mut self, carried_out: &Plan, (reason, message): (Reason, &str), now: Instant, at: Timestamp) {
        let revision = carried_out.read().revision.clone();
        let before = self.foreign.take();
        // Refusals with another cause give no information.
        if let Some(bisection) = &mut self.bisection {
            bisection.start_over();
        }
        let tries = before.as_ref().filter(|before| before.revision == revision).map_or(0, |before| before.tries + 1);
        let until = now + FOREIGN.saturating_mul(1 << tries.min(10)).min(FOREIGN_MAX);
        let since = before.map_or(at, |before| before.since);
        self.foreign = Some(Foreign { revision, until, tries, since, reason, message: message.to_owned() });
    }

    /// Records the left-out grants for the statuses.
    fn report(&mut self, refusals: &Refusals, plan: &Plan, withheld: &BTreeMap<GrantKey, RefusalKey>) {
        self.refused.clear();
        for step in &plan.add {
            if self.refused.len() == REPORTED {
                break;
            }
            let Some(key) = withheld.get(step.grant()) else { continue };
            let Some(refusal) = refusals.get(key) else { continue };
            self.refused.push(RefusedGrant {
                mappings: step.row.claims.iter().map(|claim| claim.mapping.clone()).collect(),
                subject: step.row.claims.first().map(|claim| claim.subject),
                role: step.grant().role.to_string(),
                of_role: key.member.is_none(),
                reason: RefusalCause::known_reason(&refusal.reason).unwrap_or(Reason::PolicyRefused),
                since: refusal.since,
            });
        }
    }

    /// Makes the policy due for another try at once, because a person requested it or an input changed.
    pub(crate) fn retry(&mut self) {
        if let Some(foreign) = &mut self.foreign {
            foreign.until = Instant::now();
        }
    }

    fn unresolved(&self, budget: WriteBudget, plan: &Plan) -> Option<Unresolved> {
        let bisection = self.bisection.as_ref()?;
        let open: BTreeSet<&GrantKey> = bisection.open().collect();
        let mut mappings: BTreeMap<MappingKey, usize> = BTreeMap::new();
        for step in plan.add.iter().filter(|step| open.contains(step.grant())) {
            let claimants: BTreeSet<&MappingKey> = step.row.claims.iter().map(|claim| &claim.mapping).collect();
            for mapping in claimants {
                *mappings.entry(mapping.clone()).or_default() += 1;
            }
        }
        let until = budget.since.saturating_add(WriteBudget::WINDOW).unwrap_or(Timestamp::MAX);
        Some(Unresolved { reason: bisection.cause.reason(), mappings, since: budget.since, until })
    }
}
