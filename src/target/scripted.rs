//! An in-memory target for tests. It can be scripted to act late, wrongly, or not at all, and keeps a journal.
//!
//! A write is in progress from the call until it arrives, by which time its caller may be gone.

mod chances;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Discovery, Edit, ErrorKind, RefusalCause, Refused, Resource, Snapshot, TargetError};
use crate::model::{Changes, DocumentKey, GrantKey, Live, MemberKey, Randomness, Reason, ResourceKind, Role, Stored};

pub(crate) use chances::Chances;

/// The fault of one call.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The call returns this error and does nothing.
    Error(TargetError),
    /// The write is done, and its answer is lost.
    AnswerLost,
    /// The write is not done, and its answer is lost.
    NeverArrived,
    /// The answer of the write is lost, and the write arrives this long after it was sent.
    Late(Duration),
    /// The call takes this long.
    Slow(Duration),
    /// The read returns the version before the last one.
    Stale,
}

/// The writer of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A write through the port.
    Engine,
    /// Somebody else.
    Foreign,
    /// Somebody else restored a grant of the engine that they had removed before.
    Restored,
}

/// One completed write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) at: Instant,
    pub(crate) document: DocumentKey,
    pub(crate) add: BTreeSet<GrantKey>,
    pub(crate) remove: BTreeSet<GrantKey>,
    /// Removed grants, with their writers.
    pub(crate) gone: Vec<(GrantKey, Origin)>,
    pub(crate) revision_before: String,
    pub(crate) revision_after: String,
}

/// A refusal rule of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The refused member; none: any.
    pub(crate) member: Option<MemberKey>,
    /// The refused role; none: any.
    pub(crate) role: Option<Role>,
    /// The cause in the answer.
    pub(crate) cause: RefusalCause,
    /// True when the answer names member and role.
    pub(crate) named: bool,
    /// True when existing grants are refused too, and with them any write of the document.
    pub(crate) whole: bool,
    /// True when removals are refused instead of additions.
    pub(crate) removals: bool,
}

impl Rule {
    /// True when the rule refuses this grant.
    pub(crate) fn covers(&self, grant: &GrantKey) -> bool {
        self.member.as_ref().is_none_or(|member| *member == grant.member)
            && self.role.as_ref().is_none_or(|role| *role == grant.role)
    }

    fn error(&self) -> TargetError {
        let named = |text: Option<&str>| text.filter(|_| self.named).map(str::to_owned);
        let refused = Refused {
            cause: self.cause,
            member: named(self.member.as_ref().map(MemberKey::as_str)),
            others: Vec::new(),
            role: named(self.role.as_ref().map(Role::as_str)),
            message: "refused".to_owned(),
        };
        error(ErrorKind::Refused(Box::new(refused)), self.cause.reason())
    }
}

#[derive(Debug)]
struct Document {
    uid: String,
    /// All versions, oldest first; the last one is in force.
    versions: Vec<Live>,
    origins: BTreeMap<GrantKey, Origin>,
    /// Grants of the engine that somebody else removed.
    taken: BTreeSet<GrantKey>,
}

/// A sent write.
#[derive(Debug)]
struct Call {
    document: DocumentKey,
    /// The resource that it was sent to: a re-created resource has the same revision while its document was never set.
    uid: Option<String>,
    revision: String,
    changes: Changes,
}

/// A quota of calls per minute: a bucket that is full after a minute without calls.
#[derive(Debug)]
struct Bucket {
    per_minute: u32,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn takes(&mut self, at: Instant) -> bool {
        let most = f64::from(self.per_minute);
        let gained = at.saturating_duration_since(self.at).as_secs_f64() * most / 60.0;
        (self.tokens, self.at) = ((self.tokens + gained).min(most), at);
        let takes = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(takes));
        takes
    }
}

#[derive(Debug, Default)]
struct State {
    documents: BTreeMap<DocumentKey, Document>,
    reads: BTreeMap<DocumentKey, VecDeque<Fault>>,
    writes: BTreeMap<DocumentKey, VecDeque<Fault>>,
    /// Writes in progress, by arrival, then in the order in which they were sent.
    under_way: BTreeMap<(Instant, u64), Call>,
    results: BTreeMap<u64, Result<Live, TargetError>>,
    journal: Vec<Write>,
    made: u64,
    read: u64,
    chances: Option<(Chances, Arc<Randomness>)>,
    rules: Vec<Rule>,
    aliases: BTreeMap<MemberKey, String>,
    denied: BTreeSet<DocumentKey>,
    /// Permissions that the project does not give.
    lacking: BTreeSet<String>,
    /// Permissions that single resources give.
    given: BTreeSet<(DocumentKey, String)>,
    unlisted: BTreeSet<DocumentKey>,
    /// The bucket of writes, as Google has one for each project and region.
    quota: Option<Bucket>,
    trace: Option<Vec<(Instant, String)>>,
}

/// The target. All clones share its state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scripted(Arc<Mutex<State>>);

impl From<Scripted> for super::Target {
    fn from(target: Scripted) -> Self {
        Self::Scripted(target)
    }
}

impl Scripted {
    /// The state, after processing everything that has arrived by now.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.land(Instant::now());
        state
    }

    /// Creates a resource with an empty document.
    pub(crate) fn create(&self, document: &DocumentKey) {
        let mut state = self.state();
        state.made += 1;
        let first = Live { revision: "never-set".to_owned(), never_set: true, ..Live::default() };
        let uid = format!("uid-{}", state.made);
        let made = Document { uid, versions: vec![first], origins: BTreeMap::new(), taken: BTreeSet::new() };
        state.documents.insert(document.clone(), made);
    }

    /// Deletes a resource with its document.
    pub(crate) fn delete(&self, document: &DocumentKey) {
        self.state().documents.remove(document);
    }

    /// Simulates a foreign edit of the document.
    pub(crate) fn edit(&self, document: &DocumentKey, edit: impl FnOnce(&mut BTreeMap<GrantKey, Stored>)) {
        let mut state = self.state();
        let Some((_, changed, gone)) = state.change(document, edit) else { return };
        let Some(document) = state.documents.get_mut(document) else { return };
        for grant in changed {
            let origin = if document.taken.contains(&grant) { Origin::Restored } else { Origin::Foreign };
            document.origins.insert(grant, origin);
        }
        document.taken.extend(gone.into_iter().filter(|(_, by)| *by != Origin::Foreign).map(|(grant, _)| grant));
    }

    /// Sets the fault of the next read of the document that has none yet.
    pub(crate) fn on_read(&self, document: &DocumentKey, fault: Fault) {
        self.state().reads.entry(document.clone()).or_default().push_back(fault);
    }

    /// Sets the fault of the next write of the document that has none yet.
    pub(crate) fn on_write(&self, document: &DocumentKey, fault: Fault) {
        self.state().writes.entry(document.clone()).or_default().push_back(fault);
    }

    /// Makes calls without a set fault fail at random; none: they succeed.
    pub(crate) fn on_chance(&self, chances: Option<(Chances, Arc<Randomness>)>) {
        self.state().chances = chances;
    }

    /// Sets the refusal rules.
    pub(crate) fn refuse(&self, rules: Vec<Rule>) {
        self.state().rules = rules;
    }

    /// Sets members that are stored under another spelling from the next write on.
    pub(crate) fn respell(&self, aliases: BTreeMap<MemberKey, String>) {
        self.state().aliases = aliases;
    }

    /// Sets the documents for which every call is denied.
    pub(crate) fn deny(&self, documents: BTreeSet<DocumentKey>) {
        self.state().denied = documents;
    }

    /// Sets the permissions that the project does not give.
    pub(crate) fn permit_all_but(&self, permissions: &[&str]) {
        self.state().lacking = permissions.iter().map(|one| (*one).to_owned()).collect();
    }

    /// Sets permissions that a resource gives although the project does not.
    pub(crate) fn permit_on(&self, document: &DocumentKey, permissions: &[&str]) {
        let given = permissions.iter().map(|one| (document.clone(), (*one).to_owned()));
        self.state().given.extend(given);
    }

    /// Those of the asked permissions that are held on a resource, or on the project.
    pub(super) fn held(
        &self,
        document: Option<&DocumentKey>,
        asked: &BTreeSet<&'static str>,
    ) -> BTreeSet<&'static str> {
        let state = self.state();
        let given =
            |one: &str| document.is_some_and(|document| state.given.contains(&(document.clone(), one.to_owned())));
        asked.iter().copied().filter(|one| !state.lacking.contains(*one) || given(one)).collect()
    }

    /// Sets existing documents that lists omit.
    pub(crate) fn hide(&self, documents: BTreeSet<DocumentKey>) {
        self.state().unlisted = documents;
    }

    /// Sets the number of writes accepted per minute; none: any number.
    pub(crate) fn allow_writes(&self, per_minute: Option<u32>) {
        let full = |per_minute: u32| Bucket { per_minute, tokens: f64::from(per_minute), at: Instant::now() };
        self.state().quota = per_minute.map(full);
    }

    /// Records every call from now on.
    pub(crate) fn trace(&self) {
        self.state().trace.get_or_insert_default();
    }

    /// The recorded calls, with their answers.
    pub(crate) fn traced(&self) -> Vec<(Instant, String)> {
        self.state().trace.clone().unwrap_or_default()
    }

    /// The existing resources.
    pub(crate) fn documents(&self) -> Vec<DocumentKey> {
        self.state().documents.keys().cloned().collect()
    }

    /// The grants that are in force.
    pub(crate) fn grants(&self, document: &DocumentKey) -> BTreeSet<GrantKey> {
        self.origins(document).into_keys().collect()
    }

    /// The grants that are in force, with their writers.
    pub(crate) fn origins(&self, document: &DocumentKey) -> BTreeMap<GrantKey, Origin> {
        self.state().documents.get(document).map(|document| document.origins.clone()).unwrap_or_default()
    }

    /// The grants of the engine that somebody else removed at least once since the resource was created.
    pub(crate) fn taken(&self, document: &DocumentKey) -> BTreeSet<GrantKey> {
        self.state().documents.get(document).map(|document| document.taken.clone()).unwrap_or_default()
    }

    /// The completed writes, oldest first.
    pub(crate) fn journal(&self) -> Vec<Write> {
        self.state().journal.clone()
    }

    /// Number of completed writes.
    pub(crate) fn writes(&self) -> usize {
        self.state().journal.len()
    }

    /// Number of writes in progress.
    pub(crate) fn under_way(&self) -> usize {
        self.state().under_way.len()
    }

    /// How many reads were answered.
    pub(crate) fn reads(&self) -> u64 {
        self.state().read
    }

    pub(super) async fn discover(&self, project: &str, location: &str) -> Discovery {
        let fault = self.state().draw_list();
        if let Some(time) = fault.time {
            tokio::time::sleep(time).await;
        }
        let mut state = self.state();
        let here = |document: &DocumentKey| {
            document.region() == crate::model::Region::new(project, location)
                && !state.unlisted.contains(document)
                && fault.error.is_none()
                && !fault.partial
        };
        let items = state.documents.iter().filter(|(document, _)| here(document)).map(|(document, made)| Resource {
            document: document.clone(),
            uid: made.uid.clone(),
            labels: BTreeMap::new(),
            invoker_iam_disabled: false,
        });
        let mut found = Discovery { items: items.collect(), ..Discovery::default() };
        if fault.partial {
            found.unreachable.push(location.to_owned());
        }
        found.failed.extend(fault.error.map(|error| (ResourceKind::Service, error)));
        let failed = found.failed.iter().map(|(_, error)| error.reason).collect::<Vec<_>>();
        state.note(|| {
            format!("list: {} resources, unreachable {:?}, failed {failed:?}", found.items.len(), found.unreachable)
        });
        found
    }

    pub(super) async fn read(&self, document: &DocumentKey) -> Result<Snapshot, TargetError> {
        let (fault, time) = self.state().draw_read(document);
        let mut age = 0;
        match fault {
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            _ if !time.is_zero() => tokio::time::sleep(time).await,
            _ => tokio::task::yield_now().await,
        }
        let answer = match fault {
            Some(Fault::Error(error)) => Err(error),
            Some(Fault::AnswerLost | Fault::NeverArrived | Fault::Late(_)) => {
                Err(error(ErrorKind::Unavailable, Reason::GoogleUnavailable))
            }
            Some(Fault::Stale) => {
                age = 1;
                Ok(())
            }
            Some(Fault::Slow(_)) | None => Ok(()),
        };
        let mut state = self.state();
        state.read += u64::from(answer.is_ok());
        let answer = answer.and_then(|()| {
            let versions = &state.documents.get(document).ok_or_else(absent)?.versions;
            versions.iter().rev().nth(age).or(versions.first()).cloned().ok_or_else(absent)
        });
        state.note(|| match &answer {
            Ok(live) => format!("read {}: {} ({} grants)", document.short(), live.revision, live.grants.len()),
            Err(error) => format!("read {}: {}", document.short(), error.reason),
        });
        let live = answer?;
        Ok(Snapshot { live: Arc::new(live), edit: Edit::Scripted })
    }

    pub(super) async fn apply(
        &self,
        document: &DocumentKey,
        read: &Live,
        changes: &Changes,
    ) -> Result<Snapshot, TargetError> {
        let (fault, id, answer_after) = {
            let mut state = self.state();
            let (fault, there, back) = state.draw_write(document);
            let (arrives, answer_after) = match &fault {
                Some(Fault::Error(_) | Fault::NeverArrived) => (None, there + back),
                Some(Fault::Late(delay)) => (Some(*delay), there + back),
                Some(Fault::Slow(time)) => (Some(*time), *time),
                Some(Fault::AnswerLost | Fault::Stale) | None => (Some(there), there + back),
            };
            let id = state.send(document, read, changes, arrives.map(|delay| Instant::now() + delay));
            (fault, id, answer_after)
        };
        if answer_after.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(answer_after).await;
        }
        let mut state = self.state();
        let result = state.results.remove(&id);
        let answer = match fault {
            Some(Fault::Error(error)) => Err(error),
            Some(Fault::AnswerLost | Fault::NeverArrived | Fault::Late(_)) => {
                Err(error(ErrorKind::Unknown, Reason::OutcomeUnknown))
            }
            Some(Fault::Slow(_) | Fault::Stale) | None => {
                result.unwrap_or_else(|| Err(error(ErrorKind::Unknown, Reason::OutcomeUnknown)))
            }
        };
        state.note(|| match &answer {
            Ok(live) => format!("answer {id} {}: {}", document.short(), live.revision),
            Err(error) => format!("answer {id} {}: {}", document.short(), error.reason),
        });
        let live = answer?;
        Ok(Snapshot { live: Arc::new(live), edit: Edit::Scripted })
    }

    pub(super) async fn resource_uid(&self, document: &DocumentKey) -> Result<String, TargetError> {
        let (fault, time) = self.state().draw_read(document);
        if time.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(time).await;
        }
        if let Some(Fault::Error(error)) = fault {
            return Err(error);
        }
        self.state().documents.get(document).map(|document| document.uid.clone()).ok_or_else(absent)
    }
}

impl State {
    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push((Instant::now(), text()));
        }
    }

    /// Sends a write, which arrives at this time, or never.
    fn send(&mut self, document: &DocumentKey, read: &Live, changes: &Changes, arrives: Option<Instant>) -> u64 {
        self.made += 1;
        let id = self.made;
        self.note(|| {
            let add: Vec<String> = changes.add.iter().map(|addition| shown(&addition.grant)).collect();
            let remove: Vec<String> = changes.remove.iter().map(shown).collect();
            format!("send {id} {} on {}: +{add:?} -{remove:?}", document.short(), read.revision)
        });
        let uid = self.documents.get(document).map(|document| document.uid.clone());
        let call = Call { document: document.clone(), uid, revision: read.revision.clone(), changes: changes.clone() };
        if let Some(at) = arrives {
            self.under_way.insert((at, id), call);
        }
        id
    }

    /// Applies the writes that have arrived.
    fn land(&mut self, now: Instant) {
        while let Some(next) = self.under_way.first_entry().filter(|next| next.key().0 <= now) {
            let ((at, id), call) = next.remove_entry();
            let result = self.carry_out(&call, at);
            self.note(|| {
                let text = match &result {
                    Ok(live) => live.revision.clone(),
                    Err(error) => error.reason.to_string(),
                };
                format!("landed {id} {}: {text}", call.document.short())
            });
            self.results.insert(id, result);
        }
    }

    fn carry_out(&mut self, call: &Call, at: Instant) -> Result<Live, TargetError> {
        let Call { document, uid, revision, changes } = call;
        if self.denied.contains(document) {
            return Err(denied());
        }
        let now = self.documents.get(document).and_then(|document| document.versions.last()).ok_or_else(absent)?;
        let other = self.documents.get(document).map(|document| &document.uid) != uid.as_ref();
        if other || now.revision != *revision {
            return Err(error(ErrorKind::Conflict, Reason::EtagConflict));
        }
        let after = now.after(changes).grants;
        let refuses = |rule: &&Rule| {
            let additions = changes.add.iter().map(|addition| &addition.grant);
            if rule.removals {
                changes.remove.iter().any(|grant| rule.covers(grant))
            } else if rule.whole {
                after.keys().any(|grant| rule.covers(grant))
            } else {
                additions.into_iter().any(|grant| rule.covers(grant))
            }
        };
        if let Some(rule) = self.rules.iter().find(refuses) {
            return Err(rule.error());
        }
        if let Some(bucket) = &mut self.quota
            && !bucket.takes(at)
        {
            // Some quotas say what they are, some when to call again.
            let retry_after = (bucket.per_minute % 2 == 0).then(|| Duration::from_secs(10));
            let per_minute = Some(bucket.per_minute).filter(|most| *most > 2);
            return Err(error(ErrorKind::Throttled { retry_after, per_minute }, Reason::QuotaExceeded));
        }
        let (live, new, gone) = self.change(document, |grants| *grants = after).ok_or_else(absent)?;
        if let Some(document) = self.documents.get_mut(document) {
            document.origins.extend(new.into_iter().map(|grant| (grant, Origin::Engine)));
        }
        self.journal.push(Write {
            at,
            document: document.clone(),
            add: changes.add.iter().map(|addition| addition.grant.clone()).collect(),
            remove: changes.remove.clone(),
            gone,
            revision_before: revision.clone(),
            revision_after: live.revision.clone(),
        });
        Ok(live)
    }

    /// Creates a new version. Returns it with the added and the removed grants.
    #[expect(clippy::type_complexity, reason = "taken apart at once, in two places")]
    fn change(
        &mut self,
        document: &DocumentKey,
        edit: impl FnOnce(&mut BTreeMap<GrantKey, Stored>),
    ) -> Option<(Live, Vec<GrantKey>, Vec<(GrantKey, Origin)>)> {
        self.made += 1;
        let revision = format!("r{}", self.made);
        let Document { versions, origins, .. } = self.documents.get_mut(document)?;
        let mut next = Live { revision, never_set: false, ..versions.last()?.clone() };
        edit(&mut next.grants);
        for (alias, primary) in &self.aliases {
            let spelled: Vec<GrantKey> = next.grants.keys().filter(|grant| grant.member == *alias).cloned().collect();
            for grant in spelled {
                let times = next.grants.remove(&grant).map_or(1, |stored| stored.times);
                let stored = Stored { member: primary.clone(), times };
                next.grants.entry(GrantKey { member: MemberKey::of(primary), ..grant }).or_insert(stored);
            }
        }
        let gone: Vec<GrantKey> = origins.keys().filter(|grant| !next.has(grant)).cloned().collect();
        let gone = gone.into_iter().filter_map(|grant| origins.remove_entry(&grant)).collect();
        let new = next.grants.keys().filter(|grant| !origins.contains_key(*grant)).cloned().collect();
        versions.push(next.clone());
        Some((next, new, gone))
    }
}

fn shown(grant: &GrantKey) -> String {
    let role = grant.role.as_str().rsplit('.').next().unwrap_or_default();
    format!("{role}/{}", grant.member.as_str().trim_start_matches("user:"))
}

/// An error without a message.
pub(crate) fn error(kind: ErrorKind, reason: Reason) -> TargetError {
    TargetError { kind, reason, message: reason.to_string() }
}

fn absent() -> TargetError {
    error(ErrorKind::NotFound, Reason::ResourceNotFound)
}

fn denied() -> TargetError {
    error(ErrorKind::Denied { permission: None }, Reason::PermissionDenied)
}
