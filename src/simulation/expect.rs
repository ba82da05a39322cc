//! The reference model: the expected content of the documents when everything is idle, computed from the facts without
//! the catalog and the planner. Where history matters (frozen mappings keep their grants), it defines what is
//! permitted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::facts::{DOMAIN, Facts, Mapping, Phase, Spec};
use crate::api::MappingMode;
use crate::model::{DocumentKey, GrantKey, GroupId, MappingKey, MemberKey, UserId};
use crate::store::UninstallMode;
use crate::target::scripted::{Origin, Rule, Scripted};

/// Grants by document.
pub(super) type Grants = BTreeMap<DocumentKey, BTreeSet<GrantKey>>;

/// The expected content of the documents.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Required grants, whoever made them.
    pub(super) must: Grants,
    /// Further permitted grants of the engine.
    pub(super) may: Grants,
    /// The mappings that nothing blocks.
    pub(super) clear: BTreeSet<MappingKey>,
    /// The mappings because of which nothing is written.
    pub(super) frozen: BTreeSet<MappingKey>,
    /// Required claims for grants that the engine owns.
    pub(super) claims: BTreeSet<ClaimOf>,
    /// Further permitted claims. A member may have either of its spellings.
    pub(super) may_claim: BTreeSet<ClaimOf>,
}

/// A claim of a mapping for a grant of a person.
pub(super) type ClaimOf = (MappingKey, DocumentKey, GrantKey, UserId);

/// Time after which the engine reacts to the cause of a freeze.
pub(super) const SETTLED: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);

/// A grant that a mapping may have made at some time, with its subject.
type Once = (DocumentKey, GrantKey, UserId);

/// The meaning of a group's name for a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Group(GroupId),
    Deleted,
    /// Unknown: existing grants stay.
    Unknown,
}

/// A period in which no claim of a mapping may end.
#[derive(Debug)]
struct Frozen {
    since: Timestamp,
    until: Option<Timestamp>,
    /// The grants of the mapping at the start of the period, as far as known.
    had: BTreeSet<Once>,
}

/// The membership through which a mapping gave a grant. While the person has it, the grant stays, whatever is beyond the bounds of
/// nesting.
#[derive(Debug)]
struct Given {
    root: GroupId,
    /// The nested groups that the person has been a direct member of ever since.
    through: BTreeSet<GroupId>,
}

/// Knowledge of the past, besides the facts.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The version of the facts that was recorded last.
    noted: u64,
    /// The present.
    pub(super) now: Timestamp,
    /// The groups that a mapping has meant, or may have meant.
    meant: BTreeMap<MappingKey, BTreeSet<GroupId>>,
    once: BTreeMap<MappingKey, BTreeSet<Once>>,
    /// Grants left behind by mappings with `deletionPolicy: Orphan`.
    left_behind: BTreeSet<(MappingKey, Once)>,
    /// The last deletion of each resource.
    pub(super) deleted: BTreeMap<DocumentKey, Timestamp>,
    /// The periods in which each mapping was frozen.
    frozen: BTreeMap<MappingKey, Vec<Frozen>>,
    /// The grants of each mapping when everything was last idle, as long as nothing has happened since.
    had: BTreeMap<MappingKey, BTreeSet<Once>>,
    /// What each mapping gave through nested groups when all groups were last known and everything was idle.
    given: BTreeMap<MappingKey, BTreeMap<Once, Given>>,
    /// The group of each pin, according to the store.
    pins: BTreeMap<(MappingKey, String), GroupId>,
}

impl Memory {
    pub(super) fn set_pins(&mut self, pins: Vec<crate::model::Pin>) {
        let pin = |pin: crate::model::Pin| ((pin.mapping, pin.selector), pin.group);
        self.pins = pins.into_iter().map(pin).collect();
    }

    /// Updates the memory with the facts after each step.
    pub(super) fn note(&mut self, facts: &Facts, documents: &[DocumentKey], now: Timestamp) {
        self.now = now;
        if self.noted == facts.version {
            self.had.clear();
            return;
        }
        self.noted = facts.version;
        for (key, mapping) in &facts.mappings {
            let meant = self.meant.entry(key.clone()).or_default();
            let named = facts.teams.iter().filter(|(_, team)| !team.deleted && team.name == mapping.spec.team);
            meant.extend(named.map(|(id, _)| *id));
            let once = self.once.entry(key.clone()).or_default();
            for id in meant.iter().flat_map(|group| facts.people_of(*group)).collect::<BTreeSet<_>>() {
                let Some(address) = facts.people.get(&id).and_then(|person| person.address.as_ref()) else { continue };
                for document in documents.iter().filter(|document| mapping.spec.matches(document)) {
                    for role in &mapping.spec.roles {
                        let sent = mapping.spec.grant(role, address);
                        once.insert((document.clone(), facts.stored(&sent), id));
                        once.insert((document.clone(), sent, id));
                    }
                }
            }
        }
        let mut given = std::mem::take(&mut self.given);
        for (key, of_mapping) in &mut given {
            of_mapping.retain(|once, given| self.still_gives(facts, key, once, given));
        }
        self.given = given;
        let keys: BTreeSet<MappingKey> = self.frozen.keys().chain(facts.mappings.keys()).cloned().collect();
        for key in keys {
            let is_frozen = is_frozen(facts, &key);
            let spans = self.frozen.entry(key.clone()).or_default();
            match (spans.last_mut().filter(|span| span.until.is_none()), is_frozen) {
                (None, true) => {
                    let had = self.had.get(&key).cloned().unwrap_or_default();
                    spans.push(Frozen { since: now, until: None, had });
                }
                (Some(span), false) => span.until = Some(now),
                _ => {}
            }
        }
        self.had.clear();
    }

    /// Updates the memory when everything is idle: the grants that each mapping in force wants and has are its own.
    pub(super) fn at_rest(&mut self, facts: &Facts, target: &Scripted, rules: &[Rule]) {
        for (key, mapping) in facts.mappings.iter().filter(|(_, mapping)| mapping.phase == Phase::Live) {
            let alone = Facts { mappings: BTreeMap::from([(key.clone(), mapping.clone())]), ..facts.clone() };
            let wanted = self.expected(&alone, target, rules).must;
            let once = self.once.get(key).into_iter().flatten();
            let has = |(document, grant, person): &&Once| {
                // The address may be that of another person by now.
                let has_address = facts.people.get(person).is_some_and(|person| person.address.is_some());
                has_address
                    && !facts.has_moved(*person, &grant.member)
                    && wanted.get(document).is_some_and(|grants| grants.contains(grant))
                    && target.origins(document).get(grant) == Some(&Origin::Engine)
            };
            self.had.insert(key.clone(), once.filter(has).cloned().collect());
            if let Meaning::Group(root) = self.meaning(facts, key, mapping)
                && let Some(groups) = facts.nested(root)
            {
                let given = |once: &Once| {
                    let mut given = Given { root, through: groups.clone() };
                    given.through.remove(&root);
                    self.still_gives(facts, key, once, &mut given).then(|| (once.clone(), given))
                };
                let given = self.had[key].iter().filter_map(given).collect();
                self.given.insert(key.clone(), given);
            }
        }
    }

    /// Updates how a mapping gave a grant; false when it may have ended.
    fn still_gives(&self, facts: &Facts, key: &MappingKey, (document, had, id): &Once, given: &mut Given) -> bool {
        let Some(mapping) = facts.mappings.get(key) else { return false };
        let role = had.role.as_str();
        let in_force = mapping.phase == Phase::Live && facts.uninstall.is_none() && !is_frozen(facts, key);
        let covers = mapping.spec.matches(document) && mapping.spec.roles.iter().any(|named| named == role);
        if !in_force || !covers || !facts.delegates(role) || facts.is_over(had, self.now) {
            return false;
        }
        let has = |person: &super::facts::Person| {
            let sent = person.address.as_ref().filter(|address| in_domain(address));
            let sent = sent.map(|address| mapping.spec.grant(role, address));
            person.left_at.is_none() && sent.is_some_and(|sent| sent == *had && facts.stored(&sent) == *had)
        };
        let owners: Vec<&UserId> = facts.people.iter().filter(|(_, person)| has(person)).map(|(id, _)| id).collect();
        if owners != [id] || self.meaning(facts, key, mapping) != Meaning::Group(given.root) {
            return false;
        }
        if let Some(groups) = facts.nested(given.root) {
            given.through.retain(|group| groups.contains(group));
        }
        given
            .through
            .retain(|group| facts.teams.get(group).is_some_and(|team| !team.deleted && team.members.contains(id)));
        !given.through.is_empty()
    }

    /// The mapping that had this grant when it was frozen, if it is still frozen at this moment and none of the
    /// subjects has left.
    pub(super) fn frozen_owner(
        &self,
        facts: &Facts,
        on: &DocumentKey,
        grant: &GrantKey,
        at: Timestamp,
    ) -> Option<&MappingKey> {
        let stays = |person: &UserId| {
            !facts.is_over(grant, at) && facts.people.get(person).is_some_and(|person| !person.was_away(at))
        };
        let owns = |span: &Frozen| {
            span.lasts(at)
                && span.had.iter().any(|(document, had, person)| document == on && had == grant && stays(person))
        };
        self.frozen.iter().find(|(_, spans)| spans.iter().any(owns)).map(|(key, _)| key)
    }

    /// Records that a mapping is deleted and that its grants are to stay.
    pub(super) fn leave_behind(&mut self, key: &MappingKey) {
        let once = self.once.get(key).into_iter().flatten();
        self.left_behind.extend(once.map(|once| (key.clone(), once.clone())));
    }

    /// Records that a resource was deleted: what mappings had there is gone.
    pub(super) fn forget(&mut self, document: &DocumentKey, now: Timestamp) {
        self.deleted.insert(document.clone(), now);
        for given in self.given.values_mut() {
            given.retain(|(on, ..), _| on != document);
        }
        let spans = self.frozen.values_mut().flatten().map(|span| &mut span.had);
        for had in spans.chain(self.had.values_mut()) {
            had.retain(|(on, ..)| on != document);
        }
    }

    /// True when the claims of a mapping had been frozen for some time at this moment.
    pub(super) fn was_frozen(&self, key: &MappingKey, at: Timestamp) -> bool {
        self.frozen.get(key).into_iter().flatten().any(|span| span.lasts(at))
    }

    fn meaning(&self, facts: &Facts, key: &MappingKey, mapping: &Mapping) -> Meaning {
        let name = &mapping.spec.team;
        let named: BTreeSet<GroupId> =
            facts.teams.iter().filter(|(_, team)| !team.deleted && team.name == *name).map(|(id, _)| *id).collect();
        let Some(pinned) = self.pins.get(&(key.clone(), format!("displayName:{name}"))).copied() else {
            return match (named.len(), named.first()) {
                (1, Some(group)) => Meaning::Group(*group),
                _ => Meaning::Unknown,
            };
        };
        let is_deleted = facts.teams.get(&pinned).is_none_or(|team| team.deleted);
        if !is_deleted && (named.is_empty() || named.contains(&pinned)) {
            return Meaning::Group(pinned);
        }
        let accepted = named.iter().find(|group| **group != pinned && mapping.accepted.contains(group));
        match accepted {
            Some(group) => Meaning::Group(*group),
            None if is_deleted => Meaning::Deleted,
            None => Meaning::Unknown,
        }
    }

    /// Computes the expected content. `rules`: the current refusal rules of the target.
    pub(super) fn expected(&self, facts: &Facts, target: &Scripted, rules: &[Rule]) -> Expected {
        let mut expected = Expected::default();
        let in_force = facts.provider.as_ref().is_some_and(|provider| !provider.suspended);
        if let Some(mode) = facts.uninstall {
            self.expect_uninstalled(mode, &mut expected);
            return expected;
        }
        for (key, mapping) in &facts.mappings {
            let suspends = mapping.spec.mode != MappingMode::Enforce || facts.observes;
            let leavers = !in_force || !facts.is_covered() || (suspends && facts.setup.permits_suspend);
            match mapping.phase {
                Phase::Terminating => {}
                Phase::Missing => self.keep(facts, key, leavers, &mut expected),
                Phase::Live if suspends || !in_force || !facts.covers(&mapping.spec) => {
                    self.keep(facts, key, leavers, &mut expected);
                }
                Phase::Live => match self.meaning(facts, key, mapping) {
                    Meaning::Unknown => self.keep(facts, key, false, &mut expected),
                    Meaning::Deleted => {}
                    Meaning::Group(group) => {
                        let wants = Wants { memory: self, facts, target, rules, key, spec: &mapping.spec };
                        wants.add(group, &mut expected);
                    }
                },
            }
        }
        for (key, (document, grant, person)) in &self.left_behind {
            if facts.setup.permits_orphan || !in_force || !self.is_left(facts, grant, *person) {
                expected.permit(key, document, grant, *person);
            }
        }
        expected
    }

    /// Permits what may stay after an uninstall.
    fn expect_uninstalled(&self, mode: UninstallMode, expected: &mut Expected) {
        for (document, grant, _) in self.left_behind.iter().map(|(_, once)| once) {
            expected.may.entry(document.clone()).or_default().insert(grant.clone());
        }
        for (document, grant, _) in self.once.values().flatten().filter(|_| mode == UninstallMode::Orphan) {
            expected.may.entry(document.clone()).or_default().insert(grant.clone());
        }
    }

    /// The claims of mappings that are frozen at present and had a grant when that began.
    pub(super) fn frozen_claims(
        &self,
        facts: &Facts,
        now: Timestamp,
    ) -> Vec<(&MappingKey, &DocumentKey, &GrantKey, UserId)> {
        let mut claims = Vec::new();
        for (key, spans) in &self.frozen {
            let open = spans.iter().filter(|span| span.until.is_none());
            for (document, grant, person) in open.flat_map(|span| &span.had) {
                // Also of a person who was away for a while, the claims may have ended.
                if !facts.is_over(grant, now)
                    && facts
                        .people
                        .get(person)
                        .is_some_and(|person| person.left_at.is_none() && person.was_away.is_empty())
                {
                    claims.push((key, document, grant, *person));
                }
            }
        }
        claims
    }

    /// True when the person has left, or the grant has ended.
    fn is_left(&self, facts: &Facts, grant: &GrantKey, person: UserId) -> bool {
        facts.has_left(person) || facts.is_over(grant, self.now)
    }

    /// Permits the former grants of a mapping to stay.
    fn keep(&self, facts: &Facts, key: &MappingKey, leavers: bool, expected: &mut Expected) {
        expected.frozen.insert(key.clone());
        for (document, grant, person) in self.once.get(key).into_iter().flatten() {
            if leavers || !self.is_left(facts, grant, *person) {
                expected.permit(key, document, grant, *person);
            }
        }
    }
}

impl Expected {
    /// Permits a grant of a mapping to stay.
    fn permit(&mut self, key: &MappingKey, document: &DocumentKey, grant: &GrantKey, person: UserId) {
        self.may.entry(document.clone()).or_default().insert(grant.clone());
        self.may_claim.insert((key.clone(), document.clone(), grant.clone(), person));
    }
}

impl Frozen {
    /// True when the period started some time before, and has not ended.
    fn lasts(&self, at: Timestamp) -> bool {
        at.duration_since(self.since) > SETTLED && self.until.is_none_or(|until| at < until)
    }
}

/// A live mapping that means a group.
struct Wants<'a> {
    memory: &'a Memory,
    facts: &'a Facts,
    target: &'a Scripted,
    rules: &'a [Rule],
    key: &'a MappingKey,
    spec: &'a Spec,
}

impl Wants<'_> {
    fn add(&self, group: GroupId, expected: &mut Expected) {
        let is_whole = self.facts.nested(group).is_some();
        if !is_whole {
            self.keep_members(expected);
        }
        let documents = self.target.documents();
        let is_there = |service: &String| documents.iter().any(|document| service == "*" || service == document.name());
        let delegated = |role: &String| self.facts.delegates(role);
        // A member stored outside the permitted domains is reported to all mappings of the document.
        let mut is_clear =
            is_whole && self.rules.is_empty() && self.facts.aliases.values().all(|primary| in_domain(primary));
        is_clear &= self.spec.services.iter().all(is_there) && self.spec.roles.iter().all(delegated);
        for id in &self.facts.people_of(group) {
            let Some(person) = self.facts.people.get(id).filter(|person| person.left_at.is_none()) else { continue };
            let Some(address) = &person.address else {
                self.keep_of(*id, None, expected);
                is_clear = false;
                continue;
            };
            if !in_domain(address) {
                continue;
            }
            let member = MemberKey::of(&format!("user:{address}"));
            let others = self.facts.people.iter().filter(|(other, person)| *other != id && person.left_at.is_none());
            let same = |address: &String| MemberKey::of(&format!("user:{address}")) == member;
            if others.into_iter().any(|(_, other)| other.address.as_ref().is_some_and(same)) {
                self.keep_of(*id, Some(&member), expected);
                is_clear = false;
                continue;
            }
            is_clear &= self.add_person(*id, address, expected);
        }
        if is_clear {
            expected.clear.insert(self.key.clone());
        }
    }

    /// Returns whether nothing blocks the grant.
    fn add_person(&self, id: UserId, address: &str, expected: &mut Expected) -> bool {
        let mut is_clear = true;
        for role in self.spec.roles.iter().filter(|role| self.facts.delegates(role)) {
            let sent = self.spec.grant(role, address);
            let stored = self.facts.stored(&sent);
            if self.facts.is_over(&sent, self.memory.now) {
                continue;
            }
            if !in_domain(stored.member.as_str()) {
                is_clear = false;
                continue;
            }
            for document in self.target.documents().into_iter().filter(|document| self.spec.matches(document)) {
                // An existing grant that would be refused hides which part of a write is refused.
                let is_misleading = |rule: &Rule| self.target.grants(&document).iter().any(|grant| rule.covers(grant));
                let refuses = |rule: &Rule| rule.covers(&sent) || rule.covers(&stored) || is_misleading(rule);
                let is_refused = self.rules.iter().any(refuses);
                let is_missing = self.spec.report && self.target.taken(&document).contains(&stored);
                is_clear &= !is_missing;
                let claim = (self.key.clone(), document.clone(), sent.clone(), id);
                let (place, claims) = if is_refused || is_missing {
                    (&mut expected.may, &mut expected.may_claim)
                } else {
                    (&mut expected.must, &mut expected.claims)
                };
                claims.insert(claim);
                place.entry(document).or_default().insert(stored.clone());
            }
        }
        is_clear
    }

    /// Permits the former grants of people who are in some group to stay, because not all nested groups are known. Those
    /// of people who are still in the groups that gave them have to.
    fn keep_members(&self, expected: &mut Expected) {
        for (document, grant, person) in self.memory.once.get(self.key).into_iter().flatten() {
            if !self.memory.is_left(self.facts, grant, *person)
                && self.facts.is_in_a_group(*person)
                && !self.facts.has_moved(*person, &grant.member)
            {
                expected.permit(self.key, document, grant, *person);
            }
        }
        for (document, grant, _) in self.memory.given.get(self.key).into_iter().flat_map(BTreeMap::keys) {
            if !self.facts.is_over(grant, self.memory.now) && !self.target.taken(document).contains(grant) {
                expected.must.entry(document.clone()).or_default().insert(grant.clone());
            }
        }
    }

    /// Permits the former grants of a person to stay: all of them, or those of one member.
    fn keep_of(&self, id: UserId, member: Option<&MemberKey>, expected: &mut Expected) {
        for (document, grant, person) in self.memory.once.get(self.key).into_iter().flatten() {
            let is_it = member.is_none_or(|member| {
                *member == grant.member
                    || MemberKey::of(self.facts.aliases.get(member).map_or("", String::as_str)) == grant.member
            });
            if *person == id && is_it && !self.facts.is_over(grant, self.memory.now) {
                expected.permit(self.key, document, grant, id);
            }
        }
    }
}

fn is_frozen(facts: &Facts, key: &MappingKey) -> bool {
    let Some(mapping) = facts.mappings.get(key) else { return false };
    match mapping.phase {
        Phase::Missing => facts.vanished.contains(key) && facts.uninstall.is_none(),
        Phase::Terminating => false,
        Phase::Live if facts.uninstall.is_some() => false,
        Phase::Live => {
            let provider = facts.provider.as_ref().is_none_or(|provider| provider.suspended);
            mapping.spec.mode != MappingMode::Enforce || provider || facts.observes || !facts.covers(&mapping.spec)
        }
    }
}

fn in_domain(address: &str) -> bool {
    address.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(DOMAIN))
}
