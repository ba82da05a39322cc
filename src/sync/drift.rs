//! The drift of one document: differences with the time of their first observation, and grants that were made again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::model::{
    Concerns, Difference, Differences, DriftChanges, DriftKey, DriftKind, GrantKey, Live, MappingKey, Subject,
};
use crate::plan::{CallOutcome, Plan};
use crate::status::{DriftTally, Reversions, SHOWN};

/// Largest number of grants of one document that are remembered as made again.
const REVERTED: usize = 1000;

/// A grant that somebody else removed and that was made again.
#[derive(Debug, Clone)]
struct Reverted {
    mappings: BTreeSet<MappingKey>,
    subject: Option<Subject>,
    times: u64,
    last: Timestamp,
}

/// The drift of one document.
#[derive(Debug, Default)]
pub(super) struct Drift {
    pub(crate) current: BTreeMap<DriftKey, Difference>,
    reverted: BTreeMap<GrantKey, Reverted>,
    /// Counts the changes, so that statuses notice them.
    pub(crate) version: u64,
    /// Changes that are not stored.
    unstored: DriftChanges,
}

impl Drift {
    /// Updates the differences after a reconcile with this plan.
    pub(super) fn update(
        &mut self,
        plan: &Plan,
        outcome: Option<&CallOutcome>,
        unchecked_invoker: bool,
        known: &BTreeMap<DriftKey, Difference>,
        now: Timestamp,
    ) {
        let remained = self.remained(plan);
        let mut found = Differences::new();
        for (mut key, mut concerns) in plan.differences() {
            if key.kind == DriftKind::GrantUnexpected {
                let remains = DriftKey { kind: DriftKind::GrantRemains, ..key.clone() };
                if let Some(of) = remained.get(&remains) {
                    (key, concerns) = (remains, of.clone());
                }
            }
            found.insert(key, concerns);
        }
        if unchecked_invoker {
            found.insert(DriftKey::of_resource(DriftKind::InvokerCheckDisabled), Concerns::default());
        }
        let recreated = DriftKey::of_resource(DriftKind::TargetRecreated);
        if plan.recreated > 0 {
            self.current.remove(&recreated);
            found.insert(recreated, Concerns::default());
        } else if self
            .current
            .get(&recreated)
            .is_some_and(|seen| now < seen.first_seen.saturating_add(SHOWN).unwrap_or(now))
        {
            found.insert(recreated, Concerns::default());
        }
        let current: BTreeMap<DriftKey, Difference> = found
            .into_iter()
            .map(|(key, concerns)| {
                let before = self.current.get(&key).or_else(|| known.get(&key));
                let first_seen = before.map_or(now, |before| before.first_seen);
                (key, Difference { first_seen, concerns })
            })
            .collect();
        // What a former process knew and this one does not find is over.
        let over = self.current.keys().chain(known.keys()).filter(|key| !current.contains_key(*key));
        let remove = over.cloned().collect();
        let is_stored =
            |key: &DriftKey, new: &Difference| self.current.get(key).or_else(|| known.get(key)) == Some(new);
        let put = current.iter().filter(|(key, new)| !is_stored(key, new));
        let put = put.map(|(key, new)| (key.clone(), new.clone())).collect();
        self.replace(current, DriftChanges { put, remove });
        for (grant, mappings) in plan.reverted(outcome) {
            let subject = plan.subject_of(&grant);
            self.version += 1;
            if self.reverted.len() < REVERTED || self.reverted.contains_key(&grant) {
                let reverted = self.reverted.entry(grant).or_insert(Reverted {
                    mappings: BTreeSet::new(),
                    subject,
                    times: 0,
                    last: now,
                });
                reverted.mappings.extend(mappings);
                (reverted.times, reverted.last) = (reverted.times.saturating_add(1), now);
            }
        }
    }

    /// The grants that remain although they are no longer wanted, of this plan and of earlier ones.
    fn remained(&self, plan: &Plan) -> Differences {
        let earlier = self.current.iter().filter(|(key, _)| key.kind == DriftKind::GrantRemains);
        let mut remained: Differences =
            earlier.map(|(key, difference)| (key.clone(), difference.concerns.clone())).collect();
        for (grant, mappings) in &plan.remains {
            let key = DriftKey {
                kind: DriftKind::GrantRemains,
                role: grant.role.to_string(),
                condition: grant.condition.clone(),
                member: Some(grant.member.clone()),
            };
            let concerns = remained.entry(key).or_default();
            concerns.mappings.extend(mappings.iter().cloned());
            concerns.subject = concerns.subject.or_else(|| plan.subject_of(grant));
        }
        remained
    }

    fn replace(&mut self, current: BTreeMap<DriftKey, Difference>, changes: DriftChanges) {
        if current != self.current {
            self.current = current;
            self.version += 1;
        }
        self.unstored = std::mem::take(&mut self.unstored).followed_by(changes);
    }

    /// Takes the changes to store since the last call.
    pub(super) fn take_unstored(&mut self) -> DriftChanges {
        std::mem::take(&mut self.unstored)
    }

    /// Restores the grants that remain, which no reconcile may find again.
    pub(super) fn restore(&mut self, known: &BTreeMap<DriftKey, Difference>) {
        let remains = known.iter().filter(|(key, _)| key.kind == DriftKind::GrantRemains);
        self.current.extend(remains.map(|(key, difference)| (key.clone(), difference.clone())));
    }

    /// Forgets all but the grants that remain, because nothing else concerns the document any more. `live`: the document,
    /// if it was read; grants that are no longer there do not remain.
    pub(super) fn idle(&mut self, live: Option<&Live>) {
        let there = |key: &DriftKey| {
            live.is_none_or(|live| {
                live.grants.keys().any(|grant| {
                    grant.role.as_str() == key.role
                        && grant.condition == key.condition
                        && key.member.as_ref() == Some(&grant.member)
                })
            })
        };
        let mut current = self.current.clone();
        current.retain(|key, _| key.kind == DriftKind::GrantRemains && there(key));
        let remove = self.current.keys().filter(|key| !current.contains_key(*key)).cloned().collect();
        self.reverted.clear();
        self.replace(current, DriftChanges { put: BTreeMap::new(), remove });
    }

    /// The subject for whom a grant that was made again is claimed.
    pub(super) fn subject_of(&self, grant: &GrantKey) -> Option<Subject> {
        self.reverted.get(grant)?.subject
    }

    /// The grants that were made again within the last hour: the grant, the mappings, how often, and the last time.
    pub(super) fn made_again(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (&GrantKey, &BTreeSet<MappingKey>, u64, Timestamp)> {
        let shown = move |last: Timestamp| now < last.saturating_add(SHOWN).unwrap_or(now);
        let recent = self.reverted.iter().filter(move |(_, reverted)| shown(reverted.last));
        recent.map(|(grant, reverted)| (grant, &reverted.mappings, reverted.times, reverted.last))
    }

    /// True when grants remain.
    pub(super) fn has_remains(&self) -> bool {
        self.current.keys().any(|key| key.kind == DriftKind::GrantRemains)
    }

    /// The mappings whose grants remain.
    pub(super) fn remained_of(&self) -> impl Iterator<Item = &MappingKey> {
        let remains = self.current.iter().filter(|(key, _)| key.kind == DriftKind::GrantRemains);
        remains.flat_map(|(_, difference)| &difference.concerns.mappings)
    }

    /// The differences that concern a mapping, or all of them, as far as `reported` admits them.
    pub(super) fn of<'a, 'r>(
        &'a self,
        mapping: Option<&'r MappingKey>,
        reported: &'r dyn Fn(&DriftKey) -> bool,
    ) -> impl Iterator<Item = (&'a DriftKey, &'a Difference)> + use<'a, 'r> {
        self.current.iter().filter(move |(key, difference)| {
            let of = &difference.concerns.mappings;
            let concerns = |mapping: &MappingKey| of.is_empty() || of.contains(mapping);
            mapping.is_none_or(concerns) && reported(key)
        })
    }

    /// The same, counted, with the grants that were made again.
    pub(super) fn tally(
        &self,
        mapping: Option<&MappingKey>,
        reported: &dyn Fn(&DriftKey) -> bool,
        now: Timestamp,
    ) -> DriftTally {
        let mut tally = DriftTally::default();
        for (key, difference) in self.of(mapping, reported) {
            *tally.kinds.entry(key.kind).or_default() += 1;
            if key.kind == DriftKind::TargetRecreated {
                tally.recreated_at = Some(difference.first_seen);
            }
        }
        for reverted in self.reverted.values() {
            if !mapping.is_none_or(|mapping| reverted.mappings.contains(mapping)) {
                continue;
            }
            tally.reverted += 1;
            if now < reverted.last.saturating_add(SHOWN).unwrap_or(now) {
                let Reversions { grants, times, last } = &mut tally.recently;
                (*grants, *times, *last) = (*grants + 1, *times + reverted.times, (*last).max(Some(reverted.last)));
            }
        }
        tally
    }
}
