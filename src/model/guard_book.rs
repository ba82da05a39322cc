//! An in-memory guard book for tests: the rules that the store implements in SQL, repeated in plain code.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    DocumentKey, GUARD_WINDOW, GuardDecision, ProviderName, Removal, RemovalLimits, RemovalScope, ScopeCounts, Subject,
};

/// A removal that is held or was released.
#[derive(Debug, Clone)]
struct Entry {
    scope: RemovalScope,
    at: Timestamp,
    released: bool,
}

/// Removals that passed, with their time, and removals that are held.
#[derive(Debug, Clone, Default)]
pub(crate) struct GuardBook {
    passed: BTreeMap<(RemovalScope, Subject), Timestamp>,
    held: BTreeMap<(DocumentKey, Removal), Entry>,
}

/// Facts about the directory that the guard book depends on.
pub(crate) struct Facts<'a> {
    pub(crate) limits: RemovalLimits,
    pub(crate) now: Timestamp,
    pub(crate) provider: &'a dyn Fn(&Subject) -> Option<ProviderName>,
    /// People of the scope with grants that were acknowledged before this time.
    pub(crate) people: &'a dyn Fn(&RemovalScope, Timestamp) -> BTreeSet<Subject>,
}

impl GuardBook {
    /// Decides about the removals of one document and returns those that are held.
    pub(crate) fn decide(&mut self, document: &DocumentKey, asks: &[Removal], facts: &Facts<'_>) -> BTreeSet<Removal> {
        let mut scopes: BTreeMap<RemovalScope, Vec<&Removal>> = BTreeMap::new();
        for ask in asks {
            let scope = if ask.leaver {
                RemovalScope::Leavers((facts.provider)(&ask.claim.subject))
            } else {
                RemovalScope::Mapping(ask.claim.mapping.clone())
            };
            scopes.entry(scope).or_default().push(ask);
        }
        let mut now_held = BTreeSet::new();
        let mut entries = BTreeMap::new();
        for (scope, asks) in scopes {
            let here = |ask: &Removal| self.held.get(&(document.clone(), ask.clone()));
            let (released, open): (Vec<&Removal>, Vec<&Removal>) =
                asks.into_iter().partition(|ask| here(ask).is_some_and(|entry| entry.released && entry.scope == scope));
            for ask in released {
                entries.insert((document.clone(), ask.clone()), here(ask).unwrap().clone());
            }
            let people: BTreeSet<Subject> = open.iter().map(|ask| ask.claim.subject).collect();
            let kept = self.held_in_scope(&scope, &people, facts);
            for ask in open {
                if let Some(at) = kept.get(&ask.claim.subject) {
                    now_held.insert(ask.clone());
                    let entry = Entry { scope: scope.clone(), at: *at, released: false };
                    entries.insert((document.clone(), ask.clone()), entry);
                }
            }
        }
        self.held.retain(|(on, _), _| on != document);
        self.held.extend(entries);
        now_held
    }

    /// Computes, for each person who must not lose access, since when the removal is held.
    fn held_in_scope(
        &mut self,
        scope: &RemovalScope,
        people: &BTreeSet<Subject>,
        facts: &Facts<'_>,
    ) -> BTreeMap<Subject, Timestamp> {
        let recent = |at: Timestamp| at > facts.now - GUARD_WINDOW;
        let mut latched: BTreeMap<Subject, Timestamp> = BTreeMap::new();
        for ((_, removal), entry) in self.held.iter().filter(|(_, entry)| entry.scope == *scope && !entry.released) {
            let at = latched.entry(removal.claim.subject).or_insert(entry.at);
            *at = (*at).min(entry.at);
        }
        let passed: BTreeMap<Subject, Timestamp> = self
            .passed
            .iter()
            .filter(|((of, _), at)| of == scope && recent(**at))
            .map(|((_, subject), at)| (*subject, *at))
            .collect();
        let new: BTreeSet<Subject> = people
            .iter()
            .filter(|person| !latched.contains_key(*person) && !passed.contains_key(*person))
            .copied()
            .collect();
        let mut kept: BTreeMap<Subject, Timestamp> =
            latched.iter().filter(|(person, _)| people.contains(*person)).map(|(one, at)| (*one, *at)).collect();
        if new.is_empty() {
            return kept;
        }
        let held: BTreeMap<Subject, Timestamp> =
            latched.into_iter().filter(|(person, at)| recent(*at) && !passed.contains_key(person)).collect();
        let counts = ScopeCounts { passed: passed.len() as u64, held: held.len() as u64, new: new.len() as u64 };
        let stopped = match facts.limits.of(scope).decide(counts) {
            GuardDecision::Pass => false,
            GuardDecision::Hold => true,
            GuardDecision::HoldUnlessMore(than) => {
                let since = passed.values().chain(held.values()).min().copied().unwrap_or(facts.now);
                let mut rest = (facts.people)(scope, since);
                rest.retain(|one| !new.contains(one) && !passed.contains_key(one) && !held.contains_key(one));
                rest.len() as u64 <= than
            }
        };
        for person in new {
            if stopped {
                kept.insert(person, facts.now);
            } else {
                self.passed.insert((scope.clone(), person), facts.now);
            }
        }
        kept
    }

    /// Releases these removals.
    pub(crate) fn release(&mut self, document: &DocumentKey, removals: &[Removal]) {
        for removal in removals {
            if let Some(entry) = self.held.get_mut(&(document.clone(), removal.clone())) {
                entry.released = true;
            }
        }
    }
}
