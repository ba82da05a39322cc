use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::fixtures::*;
use super::*;
use crate::api::glob::ResourcePattern;
use crate::catalog::tenant::UserState;
use crate::model::{Enforcement, GroupFacts, Keep, Principal, Subject, UserFacts, UserId};

const PEOPLE: u128 = 7;
const GROUPS: u128 = 4;
const SERVICES: [&str; 4] = ["a", "ab", "b", "c"];

/// A directory as a store keeps it, which emits only changes that it accepted.
#[derive(Debug, Default)]
struct Store {
    users: BTreeMap<u128, UserFacts>,
    groups: BTreeMap<u128, GroupFacts>,
    tombstones: BTreeSet<u128>,
    members: BTreeSet<(u128, u128)>,
    nested: BTreeSet<(u128, u128)>,
    log: Vec<DirectoryChange>,
}

#[derive(Debug, Clone)]
enum Push {
    User { person: u128, active: bool, address: u8 },
    DeleteUser(u128),
    Group { group: u128, name: u128 },
    DeleteGroup(u128),
    Members { group: u128, people: Vec<u128>, add: bool },
    Nest { group: u128, nested: u128, add: bool },
}

fn any_push() -> impl Strategy<Value = Push> {
    let group = || 1..=GROUPS;
    let people = prop::collection::vec(1..=PEOPLE, 1..4);
    prop_oneof![
        4 => (1..=PEOPLE, prop::bool::weighted(0.8), 0..9_u8)
            .prop_map(|(person, active, address)| Push::User { person, active, address }),
        1 => (1..=PEOPLE).prop_map(Push::DeleteUser),
        3 => (group(), 1..=GROUPS + 1).prop_map(|(group, name)| Push::Group { group, name }),
        1 => group().prop_map(Push::DeleteGroup),
        6 => (group(), people, prop::bool::weighted(0.7))
            .prop_map(|(group, people, add)| Push::Members { group, people, add }),
        4 => (group(), group(), prop::bool::weighted(0.6))
            .prop_map(|(group, nested, add)| Push::Nest { group, nested, add }),
    ]
}

impl Store {
    fn push(&mut self, push: &Push) {
        match push {
            Push::User { person: n, active, address } if !self.tombstones.contains(n) => {
                let address = match address {
                    // Two people may end up with the same one of these; the last is not an address.
                    0..=2 => format!("P{address}@corp.example"),
                    3 => "nobody".to_owned(),
                    _ => format!("p{n}@corp.example"),
                };
                let facts = UserFacts { user_name: address, ..facts(*n, *active) };
                self.users.insert(*n, facts.clone());
                self.log.push(DirectoryChange::User(facts));
            }
            Push::DeleteUser(n) if self.users.remove(n).is_some() => {
                self.members.retain(|(_, member)| member != n);
                self.tombstones.insert(*n);
                self.log.push(DirectoryChange::UserDeleted { id: user(*n) });
            }
            Push::Group { group: n, name } if !self.tombstones.contains(&(100 + n)) => {
                let taken =
                    self.groups.iter().any(|(other, facts)| other != n && facts.display_name == format!("g{name}"));
                if !taken {
                    let external_id = Some(format!("x{n}"));
                    let facts = GroupFacts { id: group(*n), display_name: format!("g{name}"), external_id };
                    self.groups.insert(*n, facts.clone());
                    self.log.push(DirectoryChange::Group(facts));
                }
            }
            Push::DeleteGroup(n) if self.groups.remove(n).is_some() => {
                self.members.retain(|(group, _)| group != n);
                self.nested.retain(|(group, nested)| group != n && nested != n);
                self.tombstones.insert(100 + n);
                self.log.push(deleted(*n));
            }
            Push::Members { group: n, people, add } if self.groups.contains_key(n) => {
                let people: Vec<u128> =
                    people.iter().copied().filter(|person| self.users.contains_key(person)).collect();
                for person in &people {
                    if *add {
                        self.members.insert((*n, *person))
                    } else {
                        self.members.remove(&(*n, *person))
                    };
                }
                self.log.push(if *add { joined(*n, &people) } else { left(*n, &people) });
            }
            Push::Nest { group: n, nested, add } if self.groups.contains_key(n) && self.groups.contains_key(nested) => {
                let ids = |yes: bool| if yes == *add { vec![group(*nested)] } else { vec![] };
                if *add {
                    self.nested.insert((*n, *nested))
                } else {
                    self.nested.remove(&(*n, *nested))
                };
                self.log.push(DirectoryChange::Nested { group: group(*n), added: ids(true), removed: ids(false) });
            }
            _ => {}
        }
    }

    /// The changes that loading the directory emits.
    fn snapshot(&self) -> Vec<DirectoryChange> {
        let gone = self.tombstones.iter().filter(|n| **n > 100).map(|n| deleted(n - 100));
        let users = self.users.values().cloned().map(DirectoryChange::User);
        let groups = self.groups.values().cloned().map(DirectoryChange::Group);
        let members = self.members.iter().map(|(group, person)| joined(*group, &[*person]));
        let nested = self.nested.iter().map(|(outer, inner)| DirectoryChange::Nested {
            group: group(*outer),
            added: vec![group(*inner)],
            removed: vec![],
        });
        gone.chain(users).chain(groups).chain(members).chain(nested).collect()
    }

    /// The pairs of a group and a person who is in it, or in a group nested in it.
    fn closure(&self) -> BTreeSet<(u128, u128)> {
        let mut all = self.members.clone();
        loop {
            let inner = |(outer, inner): &(u128, u128)| {
                all.iter().filter(|(group, _)| group == inner).map(|(_, person)| (*outer, *person)).collect::<Vec<_>>()
            };
            let more: BTreeSet<(u128, u128)> =
                self.nested.iter().flat_map(inner).filter(|pair| !all.contains(pair)).collect();
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    }
}

#[derive(Debug, Clone)]
struct Mapped {
    groups: Vec<u128>,
    by_name: bool,
    resources: Vec<&'static str>,
    roles: Vec<&'static str>,
}

impl Mapped {
    fn spec(&self) -> RoleMappingSpec {
        let selector = |n: &u128| {
            if self.by_name { json!({"displayName": format!("g{n}")}) } else { json!({"externalId": format!("x{n}")}) }
        };
        let groups: Vec<_> = self.groups.iter().map(selector).collect();
        let mut value = serde_json::to_value(spec(&[], &self.resources, &self.roles)).unwrap();
        value["subjects"][0]["groups"] = json!(groups);
        serde_json::from_value(value).unwrap()
    }
}

fn any_mapped(by_name: impl Strategy<Value = bool>) -> impl Strategy<Value = Mapped> {
    let some = |of: &'static [&'static str]| prop::sample::subsequence(of.to_vec(), 1..=of.len());
    let groups = prop::sample::subsequence((1..=GROUPS).collect::<Vec<_>>(), 1..=2);
    (groups, by_name, some(&["services/a*", "services/b", "services/*"]), some(&[INVOKER, VIEWER]))
        .prop_map(|(groups, by_name, resources, roles)| Mapped { groups, by_name, resources, roles })
}

fn any_allowed() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    prop::collection::vec(
        (
            prop_oneof![Just("services/a"), Just("services/*"), Just("services/*b")],
            prop_oneof![Just(INVOKER), Just(VIEWER)],
        ),
        0..4,
    )
}

fn targeted(index: &mut Catalog, allowed: &[(&str, &str)]) {
    let entries: Vec<_> = allowed.iter().map(|(pattern, role)| allow(&["okta"], &[pattern], &[role])).collect();
    index.apply_target(target("t"), target_spec(&["l"], &json!(entries)), Timestamp::UNIX_EPOCH);
    index.apply_inventory(&target("t"), inventory(&SERVICES));
}

/// The definition of the wanted grants without any optimization: `service role address mapping person`.
fn reference(store: &Store, allowed: &[(&str, &str)], mappings: &[Mapped]) -> BTreeSet<String> {
    let address = |facts: &UserFacts| {
        let domains = ["corp.example".to_owned()];
        Principal::google_account(&facts.user_name, &domains).ok().filter(|_| facts.active)
    };
    let admits = |pattern: &str, service: &str| {
        let document = document(service);
        ResourcePattern::parse(pattern).unwrap().matches(document.kind(), document.name())
    };
    let mut lines = BTreeSet::new();
    for (at, mapping) in mappings.iter().enumerate() {
        for service in SERVICES {
            for role in &mapping.roles {
                let selected = mapping.resources.iter().any(|pattern| admits(pattern, service));
                let delegated = allowed.iter().any(|(pattern, allowed)| allowed == role && admits(pattern, service));
                for (group, person) in &store.closure() {
                    let mapped = mapping.groups.iter().any(|wanted| {
                        let name = format!("g{wanted}");
                        if mapping.by_name { store.groups[group].display_name == name } else { wanted == group }
                    });
                    let Some(found) = address(&store.users[person]) else { continue };
                    let sharing = store.users.values().filter_map(address).filter(|other| other.key() == found.key());
                    if selected && delegated && mapped && sharing.count() == 1 {
                        lines.insert(format!("{service} {role} {found} {at} {person}"));
                    }
                }
            }
        }
    }
    lines
}

fn wanted(index: &Catalog) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for service in SERVICES {
        for (grant, wanted) in index.desired(&document(service), &BTreeSet::new()).grants {
            for claim in wanted.claims.keys() {
                let Subject::User(person) = claim.subject else { panic!("no groups yet") };
                let at = claim.mapping.name();
                lines.insert(format!("{service} {} {} {at} {}", grant.role, wanted.member, person.0.as_u128()));
            }
        }
    }
    lines
}

fn lines(index: &Catalog) -> Vec<String> {
    let mut lines = Vec::new();
    index.lines(&mut |line| lines.push(line.to_owned()));
    lines
}

fn unclear_members_are_those_without_a_principal_of_their_own(index: &Catalog) -> Result<(), TestCaseError> {
    let tenant = &index.tenants[&okta()];
    for group in tenant.groups() {
        let active = tenant.members(group).filter(|user| user.state == UserState::Active);
        let expected: BTreeSet<UserId> =
            active.filter(|user| user.key.is_none() || tenant.collides(user)).map(|user| user.id).collect();
        prop_assert_eq!(tenant.unclear(group).map(|user| user.id).collect::<BTreeSet<_>>(), expected);
    }
    Ok(())
}

fn keep_pins(pins: &mut BTreeMap<(MappingKey, String), Pin>, effects: Effects) {
    pins.extend(effects.pins.into_iter().map(|pin| ((pin.mapping.clone(), pin.selector.clone()), pin)));
}

proptest! {
    #[test]
    fn the_wanted_grants_are_those_of_the_definition(
        pushes in prop::collection::vec(any_push(), 0..40),
        allowed in any_allowed(),
        mappings in prop::collection::vec(any_mapped(any::<bool>()), 0..4),
    ) {
        let mut store = Store::default();
        for push in &pushes {
            store.push(push);
        }
        let mut index = Catalog::new(Ceiling::Enforce);
        index.apply_provider(okta(), provider_spec("userName", &["corp.example"]));
        targeted(&mut index, &allowed);
        for (at, change) in store.log.iter().enumerate() {
            drop(index.change(change));
            if at == store.log.len() / 2 {
                let elsewhere = provider_spec("emails[type eq \"work\"].value", &["corp.example"]);
                index.apply_provider(okta(), elsewhere);
                unclear_members_are_those_without_a_principal_of_their_own(&index)?;
                index.apply_provider(okta(), provider_spec("userName", &["corp.example"]));
            }
            unclear_members_are_those_without_a_principal_of_their_own(&index)?;
        }
        for (at, mapped) in mappings.iter().enumerate() {
            index.map(&at.to_string(), mapped.spec());
        }
        index.put_freeze(None);
        prop_assert_eq!(wanted(&index), reference(&store, &allowed, &mappings));
    }

    #[test]
    fn a_document_is_dirty_whenever_what_is_wanted_on_it_changes(
        before in prop::collection::vec(any_push(), 20..40),
        after in prop::collection::vec(any_push(), 1..12),
        mappings in prop::collection::vec(any_mapped(any::<bool>()), 1..4),
    ) {
        let mut store = Store::default();
        for push in &before {
            store.push(push);
        }
        let mut index = index();
        targeted(&mut index, &[("services/a*", INVOKER), ("services/*", VIEWER)]);
        store.log.drain(..).for_each(|change| drop(index.change(&change)));
        for (at, mapped) in mappings.iter().enumerate() {
            index.map(&at.to_string(), mapped.spec());
        }
        for push in &after {
            store.push(push);
        }
        for change in &store.log {
            // Another spelling of the same principal is not a change.
            let look = |index: &Catalog, service: &str| {
                let desired = index.desired(&document(service), &BTreeSet::new());
                let claims = desired.grants.into_iter().map(|(grant, wanted)| (grant, wanted.claims));
                (claims.collect::<BTreeMap<_, _>>(), desired.enforcements)
            };
            let old = SERVICES.map(|service| look(&index, service));
            let effects = index.change(change);
            for (service, old) in SERVICES.into_iter().zip(old) {
                let new = look(&index, service);
                if new == old {
                    continue;
                }
                let urgency = effects.dirty.get(&document(service)).copied();
                prop_assert!(urgency.is_some(), "{service} {change:?}");
                let lost = old.0.iter().any(|(grant, claims)| {
                    claims.keys().any(|claim| !new.0.get(grant).is_some_and(|claims| claims.contains_key(claim)))
                });
                // What a collision takes from the wanted grants stays in the policy, so it is not urgent.
                let kept = new.1.values().any(|enforcement| *enforcement != Enforcement::Live { keep: Keep::Nothing });
                prop_assert!(!lost || kept || urgency == Some(Urgency::Revocation), "{service} {change:?}");
            }
        }
    }

    #[test]
    fn replaying_the_log_gives_the_same_index_as_loading_the_snapshot(
        pushes in prop::collection::vec(any_push(), 0..60),
        mappings in prop::collection::vec(any_mapped(any::<bool>()), 0..4),
    ) {
        let mut store = Store::default();
        for push in &pushes {
            store.push(push);
        }
        let start = || {
            let mut index = Catalog::new(Ceiling::Enforce);
            index.apply_provider(okta(), provider_spec("userName", &["corp.example"]));
            targeted(&mut index, &[("services/*", INVOKER)]);
            index
        };
        let mut live = start();
        let mut pins = BTreeMap::new();
        keep_pins(&mut pins, live.put_freeze(None));
        for (at, mapped) in mappings.iter().enumerate() {
            keep_pins(&mut pins, live.map(&at.to_string(), mapped.spec()));
        }
        for change in &store.log {
            keep_pins(&mut pins, live.change(change));
        }
        for changes in [store.log.clone(), store.snapshot()] {
            let mut loaded = start();
            pins.values().cloned().for_each(|pin| loaded.apply_pin(pin));
            for (at, mapped) in mappings.iter().enumerate() {
                loaded.map(&at.to_string(), mapped.spec());
            }
            for change in &changes {
                drop(loaded.change(change));
            }
            loaded.put_freeze(None);
            prop_assert_eq!(lines(&loaded), lines(&live));
            prop_assert_eq!(loaded.digest(), live.digest());
        }
    }

    #[test]
    fn the_order_of_mappings_targets_and_events_does_not_matter(
        (calls, shuffled) in (
            prop::collection::vec(any_push(), 0..40),
            any_allowed(),
            prop::collection::vec(any_mapped(any::<bool>()), 0..4),
        ).prop_flat_map(|(pushes, allowed, mappings)| {
            let mut store = Store::default();
            for push in &pushes {
                store.push(push);
            }
            let mut calls: Vec<Call> = store.snapshot().into_iter().map(Call::Tell).collect();
            calls.extend(mappings.into_iter().enumerate().map(|(at, mapped)| Call::Map(at, mapped)));
            calls.push(Call::Target(allowed));
            calls.push(Call::Provider);
            (Just(calls.clone()), Just(calls).prop_shuffle())
        }),
    ) {
        let run = |calls: &[Call]| {
            let mut index = Catalog::new(Ceiling::Enforce);
            for call in calls {
                match call {
                    Call::Tell(change) => drop(index.change(change)),
                    Call::Map(at, mapped) => drop(index.map(&at.to_string(), mapped.spec())),
                    Call::Target(allowed) => targeted(&mut index, allowed),
                    Call::Provider => drop(index.apply_provider(okta(), provider_spec("userName", &["corp.example"]))),
                }
            }
            index.put_freeze(None);
            index
        };
        prop_assert_eq!(lines(&run(&calls)), lines(&run(&shuffled)));
    }
}

#[derive(Debug, Clone)]
enum Call {
    Tell(DirectoryChange),
    Map(usize, Mapped),
    Target(Vec<(&'static str, &'static str)>),
    Provider,
}
