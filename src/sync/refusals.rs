//! Refusals of Google over all documents: which grants are left out where, and when they are probed.
//!
//! An addition refused on one document is left out on all documents within the scope of the refusal. A refusal ends
//! when the directory or a spec changes, on request, and by a probe: one write on one of those documents. While one
//! document isolates the refused people, others that would add the same people wait for the result.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::bisect::Isolated;
use crate::model::{
    DirectoryChange, DocumentKey, GrantKey, MappingKey, MemberKey, Reach, Refusal, RefusalKey, Subject, UserId,
    WriteBudget,
};
use crate::plan::Step;
use crate::target::RefusalCause;

/// Time without news after which other documents no longer wait for the one that isolates.
const ISOLATING: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct Entry {
    refusal: Refusal,
    /// Documents on which something has been left out because of it, since the start. The first of them probes.
    documents: BTreeSet<DocumentKey>,
    /// The document with a probe in progress, and until when the others wait for its result. Documents become known one
    /// after the other, and with the first of them the one that probes.
    probing: Option<(DocumentKey, Instant)>,
    /// Mappings that want the left-out grants, with their subjects.
    mappings: BTreeSet<MappingKey>,
    subjects: BTreeSet<Subject>,
}

impl Entry {
    /// The document that probes: the first one whose attempts do not fail.
    fn prober(&self, failing: &BTreeSet<DocumentKey>) -> Option<&DocumentKey> {
        self.documents.iter().find(|document| !failing.contains(*document))
    }

    /// True when another document has started a probe.
    fn is_probed_elsewhere(&self, document: &DocumentKey, failing: &BTreeSet<DocumentKey>) -> bool {
        self.probing.as_ref().is_some_and(|(other, until)| {
            other != document && *until > Instant::now() && self.documents.contains(other) && !failing.contains(other)
        })
    }
}

/// The document that isolates refused people.
#[derive(Debug)]
struct Isolating {
    document: DocumentKey,
    members: BTreeSet<MemberKey>,
    until: Instant,
    waiting: BTreeSet<DocumentKey>,
}

/// Changes that are not stored yet.
#[derive(Debug, Default)]
pub(super) struct Unstored {
    pub(crate) put: BTreeMap<RefusalKey, Refusal>,
    pub(crate) remove: BTreeSet<RefusalKey>,
}

/// All refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    entries: BTreeMap<RefusalKey, Entry>,
    by_member: HashMap<MemberKey, BTreeSet<RefusalKey>>,
    of_roles: BTreeSet<RefusalKey>,
    by_document: HashMap<DocumentKey, BTreeSet<RefusalKey>>,
    isolating: Option<Isolating>,
    /// Documents whose last attempt failed: others probe instead.
    failing: BTreeSet<DocumentKey>,
    unstored: Unstored,
    /// Documents to plan again because a refusal ended.
    lifted: BTreeSet<DocumentKey>,
    pub(crate) budgets: BTreeMap<DocumentKey, WriteBudget>,
}

impl Refusals {
    /// Spends one of the writes that a document may make to isolate what is refused.
    pub(super) fn spend(&mut self, document: &DocumentKey, at: Timestamp) -> WriteBudget {
        let budget = self.budgets.entry(document.clone()).or_insert_with(|| WriteBudget::new(at));
        budget.spend(at);
        *budget
    }

    /// Loads the refusals and budgets from the store.
    pub(crate) fn load(&mut self, refusals: Vec<Refusal>, budgets: BTreeMap<DocumentKey, WriteBudget>) {
        for refusal in refusals {
            self.insert(refusal);
        }
        self.budgets = budgets;
    }

    fn insert(&mut self, refusal: Refusal) {
        let key = refusal.key.clone();
        match &key.member {
            Some(member) => self.by_member.entry(member.clone()).or_default().insert(key.clone()),
            None => self.of_roles.insert(key.clone()),
        };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.refusal = refusal;
        } else {
            let (documents, probing, mappings, subjects) = Default::default();
            self.entries.insert(key, Entry { refusal, documents, probing, mappings, subjects });
        }
    }

    fn remove(&mut self, key: &RefusalKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        if let Some(member) = &key.member
            && let Some(keys) = self.by_member.get_mut(member)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_member.remove(member);
            }
        }
        self.of_roles.remove(key);
        self.lifted.extend(entry.documents);
        self.unstored.put.remove(key);
        self.unstored.remove.insert(key.clone());
    }

    /// Takes the changes to store since the last call.
    pub(crate) fn take_unstored(&mut self) -> Unstored {
        std::mem::take(&mut self.unstored)
    }

    /// Puts changes back that could not be stored.
    pub(crate) fn put_back(&mut self, unstored: Unstored) {
        for (key, refusal) in unstored.put {
            if self.entries.contains_key(&key) {
                self.unstored.put.entry(key).or_insert(refusal);
            }
        }
        let forgotten = unstored.remove.into_iter().filter(|key| !self.entries.contains_key(key));
        self.unstored.remove.extend(forgotten);
    }

    /// Takes the documents to plan again since the last call.
    pub(crate) fn take_lifted(&mut self) -> BTreeSet<DocumentKey> {
        std::mem::take(&mut self.lifted)
    }

    /// Records a refusal of Google.
    pub(crate) fn refuse(&mut self, key: RefusalKey, reason: &str, now: Timestamp) {
        if self.entries.contains_key(&key) {
            return;
        }
        let refusal = Refusal::new(key.clone(), reason, now);
        self.unstored.remove.remove(&key);
        self.unstored.put.insert(key, refusal.clone());
        self.insert(refusal);
    }

    /// Returns a refusal, if it is known.
    pub(crate) fn get(&self, key: &RefusalKey) -> Option<&Refusal> {
        self.entries.get(key).map(|entry| &entry.refusal)
    }

    /// The refused ones of these additions, each with its refusal. Records that exactly these are left out on this
    /// document.
    pub(crate) fn withheld<'s>(
        &mut self,
        document: &DocumentKey,
        steps: impl Iterator<Item = &'s Step>,
    ) -> BTreeMap<GrantKey, RefusalKey> {
        let mut withheld = BTreeMap::new();
        let mut found: BTreeSet<RefusalKey> = BTreeSet::new();
        for step in steps {
            let of_member = self.by_member.get(&step.grant().member).into_iter().flatten();
            let Some(key) = of_member.chain(&self.of_roles).find(|key| key.covers(document, step.grant())) else {
                continue;
            };
            let key = key.clone();
            if let Some(entry) = self.entries.get_mut(&key) {
                for claim in &step.row.claims {
                    entry.subjects.insert(claim.subject);
                    if !entry.mappings.contains(&claim.mapping) {
                        entry.mappings.insert(claim.mapping.clone());
                    }
                }
            }
            found.insert(key.clone());
            withheld.insert(step.grant().clone(), key);
        }
        self.note(document, &found);
        withheld
    }

    /// Records that nothing is left out on this document any more.
    pub(crate) fn forget_document(&mut self, document: &DocumentKey) {
        self.note(document, &BTreeSet::new());
        self.note_failure(document, false);
        self.release(document);
    }

    fn note(&mut self, document: &DocumentKey, found: &BTreeSet<RefusalKey>) {
        let before = if found.is_empty() {
            self.by_document.remove(document)
        } else {
            self.by_document.insert(document.clone(), found.clone())
        };
        let before = before.unwrap_or_default();
        for key in found.difference(&before) {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.documents.insert(document.clone());
            }
        }
        for key in before.difference(found) {
            if let Some(entry) = self.entries.get_mut(key)
                && entry.documents.remove(document)
                && let Some(next) = entry.prober(&self.failing)
            {
                // Another document probes from here on.
                self.lifted.insert(next.clone());
            }
        }
    }

    /// Records whether the last attempt of this document failed.
    pub(crate) fn note_failure(&mut self, document: &DocumentKey, failed: bool) {
        if !failed {
            self.failing.remove(document);
        } else if self.failing.insert(document.clone()) {
            for key in self.by_document.get(document).into_iter().flatten() {
                if let Some(next) = self.entries.get(key).and_then(|entry| entry.prober(&self.failing)) {
                    self.lifted.insert(next.clone());
                }
            }
        }
    }

    /// The refusals that this document has to probe, out of these: those that are due. Also returns when the next one
    /// is.
    pub(crate) fn due<'k>(
        &self,
        document: &DocumentKey,
        keys: impl Iterator<Item = &'k RefusalKey>,
        now: Timestamp,
    ) -> (BTreeSet<RefusalKey>, Option<Timestamp>) {
        let mut due = BTreeSet::new();
        let mut next: Option<Timestamp> = None;
        for key in keys {
            let is_ours = |entry: &&Entry| {
                entry.prober(&self.failing) == Some(document) && !entry.is_probed_elsewhere(document, &self.failing)
            };
            let Some(entry) = self.entries.get(key).filter(is_ours) else {
                continue;
            };
            if entry.refusal.probe_at <= now {
                due.insert(key.clone());
            } else {
                next = [next, Some(entry.refusal.probe_at)].into_iter().flatten().min();
            }
        }
        (due, next)
    }

    /// Records that a document probes these now.
    pub(crate) fn begin_probe(&mut self, document: &DocumentKey, keys: &BTreeSet<RefusalKey>) {
        for key in keys {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.probing = Some((document.clone(), Instant::now() + ISOLATING));
            }
        }
    }

    /// Records that Google refused a probe.
    pub(crate) fn postpone(&mut self, key: &RefusalKey, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.probing = None;
            entry.refusal.postpone(now);
            self.unstored.put.insert(key.clone(), entry.refusal.clone());
        }
    }

    /// Ends refusals, because Google does not refuse the additions any more, or may not.
    pub(crate) fn lift(&mut self, keys: &BTreeSet<RefusalKey>) {
        for key in keys {
            self.remove(key);
        }
    }

    fn lift_where(&mut self, is_it: impl Fn(&RefusalKey, &Entry) -> bool) {
        let keys = self.entries.iter().filter(|(key, entry)| is_it(key, entry)).map(|(key, _)| key.clone()).collect();
        self.lift(&keys);
    }

    /// Handles a change of the directory, which may concern people who are left out.
    pub(crate) fn directory_changed(&mut self, change: &DirectoryChange) {
        if self.entries.is_empty() {
            return;
        }
        match change {
            DirectoryChange::User(facts) => {
                let subject = Subject::User(facts.id);
                self.lift_where(|_, entry| entry.subjects.contains(&subject));
            }
            DirectoryChange::Members { added, .. } => {
                let subjects: BTreeSet<Subject> = added.iter().map(|id| Subject::User(*id)).collect();
                self.lift_where(|key, entry| key.member.is_some() && !entry.subjects.is_disjoint(&subjects));
            }
            // A group that became a member concerns the people in it: see `people_added`.
            DirectoryChange::Nested { .. }
            | DirectoryChange::UserDeleted { .. }
            | DirectoryChange::Group(_)
            | DirectoryChange::GroupDeleted { .. } => {}
        }
    }

    /// Handles groups that became members of a group, with their people.
    pub(crate) fn people_added(&mut self, is_added: impl Fn(UserId) -> bool) {
        let is_added = |subject: &Subject| matches!(subject, Subject::User(person) if is_added(*person));
        self.lift_where(|key, entry| key.member.is_some() && entry.subjects.iter().any(is_added));
    }

    /// True when nothing is refused.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Handles a change of one of these mappings, or a requested reconcile. A refusal that was not used since the start
    /// may concern it.
    pub(crate) fn mappings_changed(&mut self, mappings: &BTreeSet<MappingKey>) {
        self.lift_where(|_, entry| entry.documents.is_empty() || !entry.mappings.is_disjoint(mappings));
    }

    /// Handles a change of the target of a project, or a requested reconcile.
    pub(crate) fn project_changed(&mut self, project: &str) {
        self.lift_where(|key, entry| match &key.reach {
            Reach::Everywhere => entry.documents.iter().any(|document| document.project() == project),
            Reach::Project(of) | Reach::Kind(of, _) => of == project,
            Reach::Document(document) => document.project() == project,
        });
    }

    /// Members refused for this reason on other documents of the project.
    pub(crate) fn hints(&self, document: &DocumentKey, reason: &str) -> BTreeSet<MemberKey> {
        let of_project = |reach: &Reach| matches!(reach, Reach::Document(one) if one.project() == document.project());
        let entries =
            self.entries.iter().filter(|(key, entry)| of_project(&key.reach) && entry.refusal.reason == reason);
        entries.filter_map(|(key, _)| key.member.clone()).collect()
    }

    /// True when another document isolates some of these members. This one is then planned again afterwards.
    pub(crate) fn must_wait(&mut self, document: &DocumentKey, members: &BTreeSet<MemberKey>, now: Instant) -> bool {
        let Some(isolating) = &mut self.isolating else { return false };
        let elsewhere = isolating.document != *document && now < isolating.until;
        if !elsewhere || isolating.members.is_disjoint(members) {
            return false;
        }
        isolating.waiting.insert(document.clone());
        true
    }

    /// Records that this document isolates some of these members, unless another one already does.
    pub(crate) fn isolate(&mut self, document: &DocumentKey, members: BTreeSet<MemberKey>, now: Instant) {
        let until = now + ISOLATING;
        match &mut self.isolating {
            Some(isolating) if isolating.document == *document => {
                isolating.members = members;
                isolating.until = until;
            }
            Some(isolating) if now < isolating.until => {}
            other => {
                let waiting = other.take().map(|before| before.waiting).unwrap_or_default();
                *other = Some(Isolating { document: document.clone(), members, until, waiting });
            }
        }
    }

    /// Records that this document has finished isolating.
    pub(crate) fn release(&mut self, document: &DocumentKey) {
        if let Some(isolating) = self.isolating.take_if(|isolating| isolating.document == *document) {
            self.lifted.extend(isolating.waiting);
        }
    }
}

/// The scope of a member's refusal whose text did not say that the account does not exist.
pub(super) fn reach_of_member(document: &DocumentKey, cause: RefusalCause) -> Reach {
    match cause {
        RefusalCause::DomainRestricted | RefusalCause::OrganizationPolicy => {
            Reach::Project(document.project().to_owned())
        }
        RefusalCause::PrincipalUnknown | RefusalCause::PrincipalType | RefusalCause::PrincipalMalformed => {
            Reach::Everywhere
        }
        RefusalCause::PrincipalRefused
        | RefusalCause::Condition
        | RefusalCause::RoleNotSupported
        | RefusalCause::LimitExceeded
        | RefusalCause::Other => Reach::Document(document.clone()),
    }
}

/// The refusal of what a bisection isolated on a document.
pub(super) fn refusal_key(document: &DocumentKey, cause: RefusalCause, found: &Isolated) -> RefusalKey {
    let reach_of_role = || match cause {
        RefusalCause::RoleNotSupported | RefusalCause::OrganizationPolicy | RefusalCause::Condition => {
            Reach::Kind(document.project().to_owned(), document.kind())
        }
        _ => Reach::Document(document.clone()),
    };
    match found {
        Isolated::Member(member) => {
            let reach = reach_of_member(document, cause);
            RefusalKey { reach, member: Some(member.clone()), role: None, condition: None }
        }
        Isolated::Role(role, condition) => RefusalKey {
            reach: reach_of_role(),
            member: None,
            role: Some(role.clone()),
            condition: Some(condition.clone()).filter(|hash| !hash.as_str().is_empty()),
        },
        Isolated::Grant(grant) => RefusalKey {
            reach: Reach::Document(document.clone()),
            member: Some(grant.member.clone()),
            role: Some(grant.role.clone()),
            condition: Some(grant.condition.clone()).filter(|hash| !hash.as_str().is_empty()),
        },
    }
}

#[cfg(test)]
#[path = "refusals_tests.rs"]
mod tests;
