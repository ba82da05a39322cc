//! The steps of a simulated installation, drawn from the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::driver::{Simulation, okta, origin};
use super::facts::{
    DOMAIN, Mapping, NAMESPACE, Person, Phase, Provider, ROLES, SERVICES, Spec, TEAMS, Target, Team, address,
};
use super::process::Changed;
use crate::api::MappingMode;
use crate::model::{EmailFact, GroupFacts, GroupId, MappingKey, UserFacts, UserId};
use crate::store::{GroupUpdate, MemberChange, NewGroup, NewUser, UserUpdate};
use crate::target::scripted::Fault;

/// Number of addresses.
pub(super) const ADDRESSES: usize = 6;
/// Largest number of people, groups and mappings at a time.
const PEOPLE: usize = 6;
/// The people and groups in a group.
pub(super) type Members = (BTreeSet<UserId>, BTreeSet<GroupId>);

const MAPPINGS: [&str; 3] = ["m0", "m1", "m2"];

impl Simulation {
    /// Makes one step, and lets some time pass.
    pub(super) async fn step(&mut self) {
        match self.chance.below(100) {
            0..40 => self.change_directory().await,
            40..58 => self.change_resources(),
            58..70 => self.edit_by_hand(),
            70..76 => self.change_services(),
            76..86 => self.change_faults(),
            _ => self.change_processes().await,
        }
        self.let_time_pass().await;
    }

    /// Makes one step of those that may happen during an uninstall.
    pub(super) async fn step_while_uninstalling(&mut self) {
        match self.chance.below(6) {
            0 | 1 => self.change_directory().await,
            2 => self.edit_by_hand(),
            3 => self.change_faults(),
            _ => self.change_processes().await,
        }
        self.let_time_pass().await;
    }

    async fn let_time_pass(&mut self) {
        self.note_facts();
        let time = match self.chance.below(20) {
            0..6 => Duration::ZERO,
            6..13 => self.chance.millis(150),
            13..18 => self.chance.millis(2_000),
            18 => self.chance.millis(20_000),
            _ if self.chance.one_in(6) => self.chance.millis(150_000),
            _ => self.chance.millis(5_000),
        };
        self.pass(time).await;
        if self.leader.is_none() && self.chance.one_in(2) {
            self.say("a process starts");
            self.start().await;
            self.noted().await;
        }
    }

    async fn change_directory(&mut self) {
        match self.chance.below(20) {
            0..2 => self.create_person().await,
            2 => self.join_and_leave().await,
            3..6 => self.change_members().await,
            6 if self.chance.one_in(2) => self.hide_group().await,
            6 | 7 => self.change_nested().await,
            8..11 => self.set_active(false).await,
            11..13 => self.set_active(true).await,
            13..15 => self.delete_person().await,
            15..17 => self.change_address().await,
            17 => self.create_team(self.chance.below(TEAMS.len())).await,
            18 => self.rename_team().await,
            _ => self.delete_team().await,
        }
    }

    pub(super) async fn create_person(&mut self) {
        let present = self.facts().people.values().filter(|person| !person.deleted).count();
        if present >= PEOPLE {
            return self.change_members().await;
        }
        let (id, by_email) = (UserId(self.chance.id()), self.facts().setup.by_email);
        let number = self.chance.below(ADDRESSES);
        let taken = |text: &str| {
            self.facts().people.values().any(|person| !person.deleted && person.address.as_deref() == Some(text))
        };
        if !by_email && taken(&address(number)) {
            return;
        }
        let person = Person {
            active: true,
            deleted: false,
            address: Some(address(number)),
            left_at: None,
            was_away: Vec::new(),
        };
        self.say(format!("create p{number} as {}", short(id.0)));
        let (resource, facts) = scim(id, &person, by_email);
        let store = self.idp();
        if self.request(store.create_user(&okta(), &origin(), NewUser { resource, facts })).await {
            self.facts().people.insert(id, person);
        }
    }

    pub(super) fn somebody(&self, is: impl Fn(&Person) -> bool) -> Option<UserId> {
        let of: Vec<UserId> =
            self.facts().people.iter().filter(|(_, person)| !person.deleted && is(person)).map(|(id, _)| *id).collect();
        self.chance.pick(&of)
    }

    pub(super) fn some_team(&self) -> Option<GroupId> {
        let of: Vec<GroupId> = self.facts().teams.iter().filter(|(_, team)| !team.deleted).map(|(id, _)| *id).collect();
        self.chance.pick(&of)
    }

    async fn update(&mut self, id: UserId, change: impl FnOnce(&mut Person)) {
        let by_email = self.facts().setup.by_email;
        let Some(mut person) = self.facts().people.get(&id).cloned() else { return };
        change(&mut person);
        let now = self.now();
        match person.left_at {
            Some(left) if person.active => {
                person.was_away.push((left, now));
                person.left_at = None;
            }
            None if !person.active => person.left_at = Some(now),
            _ => {}
        }
        let (resource, facts) = scim(id, &person, by_email);
        let update = |_: &_| Ok(Some(UserUpdate { resource: resource.clone(), facts: facts.clone() }));
        let store = self.idp();
        if self.request(store.update_user::<()>(&okta(), &origin(), id, update)).await {
            self.facts().people.insert(id, person);
        }
    }

    async fn set_active(&mut self, active: bool) {
        let Some(id) = self.somebody(|person| person.active != active) else { return };
        self.say(format!("{} {}", if active { "activate" } else { "deactivate" }, self.name(id)));
        self.update(id, |person| person.active = active).await;
    }

    /// Deactivates or deletes everybody.
    pub(super) async fn everybody_leaves(&mut self) {
        self.say("everybody leaves");
        let ids: Vec<UserId> =
            self.facts().people.iter().filter(|(_, person)| person.active).map(|(id, _)| *id).collect();
        for id in ids {
            self.update(id, |person| person.active = false).await;
        }
        // Requests that the store refused are repeated by the IdP.
        let is_left = self.facts().people.values().all(|person| person.left_at.is_some());
        if !is_left {
            self.problems.push("a request was refused although the store refuses nothing".to_owned());
        }
    }

    async fn delete_person(&mut self) {
        let Some(id) = self.somebody(|_| true) else { return };
        self.say(format!("delete {}", self.name(id)));
        let now = self.now();
        let store = self.idp();
        if !self.request(store.delete_user(&okta(), &origin(), id, None)).await {
            return;
        }
        let mut facts = self.facts();
        for team in facts.teams.values_mut() {
            team.members.remove(&id);
        }
        if let Some(person) = facts.people.get_mut(&id) {
            (person.deleted, person.active) = (true, false);
            person.left_at.get_or_insert(now);
        }
    }

    async fn change_address(&mut self) {
        let Some(id) = self.somebody(|_| true) else { return };
        let (by_email, number) = (self.facts().setup.by_email, self.chance.below(ADDRESSES));
        let taken = self
            .facts()
            .people
            .values()
            .any(|person| !person.deleted && person.address.as_deref() == Some(&address(number)));
        let new = match self.chance.below(5) {
            0 if by_email => None,
            1 => Some(format!("out{number}-{}@elsewhere.example", short(id.0))),
            _ if !by_email && taken => return,
            _ => Some(address(number)),
        };
        self.say(format!("{} is {new:?} from here on", self.name(id)));
        self.update(id, |person| person.address = new).await;
    }

    pub(super) async fn create_team(&mut self, number: usize) {
        let name = TEAMS[number];
        let id = GroupId(self.chance.id());
        let people: Vec<UserId> =
            self.facts().people.iter().filter(|(_, person)| !person.deleted).map(|(id, _)| *id).collect();
        let members: BTreeSet<UserId> = people.into_iter().filter(|_| self.chance.one_in(2)).collect();
        let nested: BTreeSet<GroupId> =
            self.some_team().into_iter().filter(|_| self.facts().teams.len() > 1 && self.chance.one_in(3)).collect();
        let counts = format!("{} members and {} groups", members.len(), nested.len());
        self.say(format!("create group {name} as {} with {counts}", short(id.0)));
        let facts = GroupFacts { id, display_name: name.to_owned(), external_id: None };
        let group = NewGroup {
            resource: json!({"displayName": name}),
            facts,
            members: vec![MemberChange::Add(ids(&members, &nested))].into(),
        };
        let store = self.idp();
        if self.request(store.create_group(&okta(), &origin(), group)).await {
            self.facts().teams.insert(id, Team { name: name.to_owned(), deleted: false, members, nested });
        }
    }

    async fn rename_team(&mut self) {
        let Some(id) = self.some_team() else { return };
        let name = TEAMS[self.chance.below(TEAMS.len())].to_owned();
        self.say(format!("group {} is {name} from here on", short(id.0)));
        let facts = GroupFacts { id, display_name: name.clone(), external_id: None };
        let update = |_: &_| {
            Ok(GroupUpdate {
                resource: Some(json!({"displayName": name})),
                facts: Some(facts.clone()),
                ..GroupUpdate::default()
            })
        };
        let store = self.idp();
        if self.request(store.update_group::<()>(&okta(), &origin(), id, update)).await
            && let Some(team) = self.facts().teams.get_mut(&id)
        {
            team.name.clone_from(&name);
        }
    }

    async fn delete_team(&mut self) {
        let Some(id) = self.some_team() else { return };
        self.say(format!("delete group {}", short(id.0)));
        let store = self.idp();
        if self.request(store.delete_group(&okta(), &origin(), id, None)).await {
            let mut facts = self.facts();
            for team in facts.teams.values_mut() {
                team.nested.remove(&id);
            }
            if let Some(team) = facts.teams.get_mut(&id) {
                team.deleted = true;
                team.nested.clear();
            }
        }
    }

    /// The people and groups in a group.
    pub(super) fn members(&self, team: GroupId) -> Members {
        let known = self.facts().teams.get(&team).cloned();
        known.map(|team| (team.members, team.nested)).unwrap_or_default()
    }

    async fn change_members(&mut self) {
        let (Some(team), Some(person)) = (self.some_team(), self.somebody(|_| true)) else { return };
        let (members, mut nested) = self.members(team);
        let mut after = members.clone();
        let change = if self.chance.one_in(6) {
            let people: Vec<UserId> =
                self.facts().people.iter().filter(|(_, person)| !person.deleted).map(|(id, _)| *id).collect();
            after = people.into_iter().filter(|_| self.chance.one_in(2)).collect();
            nested.retain(|_| self.chance.one_in(2));
            MemberChange::Replace(ids(&after, &nested))
        } else if members.contains(&person) {
            after.remove(&person);
            MemberChange::Remove(vec![person.0])
        } else {
            after.insert(person);
            MemberChange::Add(vec![person.0])
        };
        self.update_members(team, change, (after, nested)).await;
    }

    /// Changes the members of a group to those of `after`.
    pub(super) async fn update_members(&mut self, team: GroupId, change: MemberChange, after: Members) {
        self.say(format!("members of {}: {change:?}", short(team.0)));
        let store = self.idp();
        if self.request(store.change_members::<()>(&okta(), &origin(), team, vec![change])).await
            && let Some(team) = self.facts().teams.get_mut(&team)
        {
            (team.members, team.nested) = after;
        }
    }

    /// A person joins a group and leaves before the calls that grant them access have arrived: nothing else is changed,
    /// so that only the fence keeps those calls from arriving after the person has left.
    async fn join_and_leave(&mut self) {
        let Some(team) = self.some_team() else { return };
        let (members, nested) = self.members(team);
        let Some(person) = self.somebody(|person| person.active) else { return };
        if members.contains(&person) {
            return;
        }
        for document in self.target.documents() {
            self.target.on_write(&document, Fault::Late(Duration::from_secs(5) + self.chance.millis(60_000)));
        }
        let joined = members.iter().copied().chain([person]).collect();
        self.update_members(team, MemberChange::Add(vec![person.0]), (joined, nested.clone())).await;
        self.pass(self.chance.millis(2_000)).await;
        self.update_members(team, MemberChange::Remove(vec![person.0]), (members, nested)).await;
    }

    fn change_resources(&mut self) {
        match self.chance.below(20) {
            0..7 => self.apply_mapping(self.chance.below(MAPPINGS.len())),
            7 => self.change_mode(),
            8..11 => self.end_mapping(Phase::Terminating),
            11..13 => self.end_mapping(Phase::Missing),
            13 => self.accept_group(),
            14 => self.change_target(0),
            15 => self.change_targets_or_labels(),
            16..18 => self.change_provider(),
            _ => self.ask(),
        }
    }

    fn some_spec(&self) -> Spec {
        let chance = &self.chance;
        let services: Vec<String> = match chance.below(2) {
            0 => vec!["*".to_owned()],
            _ => SERVICES.iter().filter(|_| chance.one_in(2)).map(|service| (*service).to_owned()).collect(),
        };
        let services = if services.is_empty() { vec!["a".to_owned()] } else { services };
        let roles =
            if chance.one_in(3) { ROLES.map(str::to_owned).to_vec() } else { vec![ROLES[chance.below(2)].to_owned()] };
        let mode = match chance.below(16) {
            0 => MappingMode::Suspend,
            1 => MappingMode::Observe,
            _ => MappingMode::Enforce,
        };
        let team = TEAMS[chance.below(if chance.one_in(4) { 3 } else { 2 })].to_owned();
        let target = usize::from(chance.one_in(if self.facts().targets[1].is_some() { 3 } else { 16 }));
        let spec = Spec { team, services, roles, mode, report: chance.one_in(4), orphan: chance.one_in(4), target };
        let live = |mapping: &&Mapping| mapping.phase == Phase::Live;
        let others: Vec<Spec> = self.facts().mappings.values().filter(live).map(|other| other.spec.clone()).collect();
        match chance.pick(&others) {
            // Two mappings often want the same grants.
            Some(other) if chance.one_in(3) => {
                let Spec { team, services, roles, target, .. } = other;
                Spec { team, services, roles, target, ..spec }
            }
            _ => spec,
        }
    }

    /// Changes only the mode of a mapping.
    fn change_mode(&mut self) {
        let Some(key) = self.some_mapping() else { return };
        let modes = [MappingMode::Enforce, MappingMode::Observe, MappingMode::Suspend];
        let Some(mode) = self.chance.pick(&modes) else { return };
        let is_changed = match self.facts().mappings.get_mut(&key) {
            Some(mapping) if mapping.phase == Phase::Live && mapping.spec.mode != mode => {
                (mapping.spec.mode, mapping.generation) = (mode, mapping.generation + 1);
                true
            }
            _ => false,
        };
        if is_changed {
            self.say(format!("{key}: {mode:?}"));
            self.tell(&Changed::Mapping(key));
        }
    }

    /// Creates or edits a mapping.
    pub(super) fn apply_mapping(&mut self, number: usize) {
        let key = key(number);
        let spec = self.some_spec();
        let known = self.facts().mappings.get(&key).cloned();
        let mapping = match known {
            Some(mapping) if mapping.phase == Phase::Terminating => return,
            Some(mapping) if mapping.phase == Phase::Live => {
                Mapping { generation: mapping.generation + i64::from(mapping.spec != spec), spec, ..mapping }
            }
            _ => {
                self.facts().objects += 1;
                let uid = self.facts().objects;
                Mapping { uid, generation: 1, spec, accepted: BTreeSet::new(), asked: 0, phase: Phase::Live }
            }
        };
        self.say(format!("apply {key}: {:?}", mapping.spec));
        self.facts().vanished.remove(&key);
        self.facts().mappings.insert(key.clone(), mapping);
        self.tell(&Changed::Mapping(key));
    }

    /// Deletes the object of a mapping, or makes it disappear without our finalizer.
    fn end_mapping(&mut self, phase: Phase) {
        let live: Vec<MappingKey> = self
            .facts()
            .mappings
            .iter()
            .filter(|(_, mapping)| mapping.phase == Phase::Live)
            .map(|(key, _)| key.clone())
            .collect();
        let Some(key) = self.chance.pick(&live) else { return };
        self.say(format!("{key} is {phase:?}"));
        let orphan = self.facts().mappings.get(&key).is_some_and(|mapping| mapping.spec.orphan);
        if phase == Phase::Terminating && orphan {
            self.memory.leave_behind(&key);
        }
        if let Some(mapping) = self.facts().mappings.get_mut(&key) {
            mapping.phase = phase;
        }
        self.tell(&Changed::Mapping(key));
    }

    fn accept_group(&mut self) {
        let (Some(team), Some(key)) = (self.some_team(), self.some_mapping()) else { return };
        self.say(format!("{key} accepts {}", short(team.0)));
        if let Some(mapping) = self.facts().mappings.get_mut(&key) {
            mapping.accepted.insert(team);
        }
        self.tell(&Changed::Mapping(key));
    }

    fn some_mapping(&self) -> Option<MappingKey> {
        let keys: Vec<MappingKey> = self.facts().mappings.keys().cloned().collect();
        self.chance.pick(&keys)
    }

    fn change_targets_or_labels(&mut self) {
        if self.facts().setup.by_labels && self.chance.one_in(2) {
            let labelled = !self.facts().labelled;
            self.say(format!("the namespace has its label: {labelled}"));
            self.facts().labelled = labelled;
            self.tell(&Changed::Labels);
        } else {
            self.change_target(1);
        }
    }

    /// Creates, changes or removes the target of this index.
    pub(super) fn change_target(&mut self, index: usize) {
        let known = self.facts().targets[index].clone();
        let next = match known {
            Some(_) if self.chance.one_in(3) => None,
            Some(target) => {
                let roles = ROLES.iter().filter(|_| !self.chance.one_in(3)).map(|role| (*role).to_owned()).collect();
                Some(Target { generation: target.generation + 1, roles, ..target })
            }
            None => {
                self.facts().objects += 1;
                let age = i64::try_from(self.facts().objects).unwrap_or(0);
                Some(Target { generation: 1, asked: 0, roles: ROLES.map(str::to_owned).to_vec(), age })
            }
        };
        self.say(format!("target {index}: {next:?}"));
        self.facts().targets[index] = next;
        self.tell(&Changed::Target(index));
    }

    fn change_provider(&mut self) {
        let known = self.facts().provider.clone();
        let next = match known {
            Some(_) if self.chance.one_in(3) => None,
            Some(provider) => Some(Provider { generation: provider.generation + 1, suspended: !provider.suspended }),
            None => Some(Provider { generation: 1, suspended: false }),
        };
        self.say(format!("provider: {next:?}"));
        self.facts().provider = next;
        self.tell(&Changed::Provider);
    }

    /// Requests a reconcile.
    fn ask(&mut self) {
        let Some(key) = self.some_mapping() else { return };
        self.say(format!("reconcile {key}"));
        if let Some(mapping) = self.facts().mappings.get_mut(&key) {
            mapping.asked += 1;
        }
        self.tell(&Changed::Mapping(key));
    }

    async fn change_processes(&mut self) {
        match self.chance.below(10) {
            0..3 if self.leader.is_some() => {
                self.say("the process is killed");
                self.crash().await;
            }
            3 | 4 => {
                let commits = 1 + self.chance.below(12) as u64;
                self.say(format!("the process ends after {commits} more commits"));
                if let Some(process) = &self.leader {
                    process.faults.end_after(Some(commits));
                }
            }
            5 | 6 => {
                self.say("another process takes over");
                self.counts.takeovers += 1;
                self.start().await;
            }
            7 => self.former.clear(),
            8 if self.chance.one_in(2) => {
                let observes = !self.facts().observes;
                self.say(format!("another process starts, which only observes: {observes}"));
                self.facts().observes = observes;
                self.former.clear();
                self.leader = None;
                self.start().await;
            }
            8 => self.accept().await,
            _ => self.release_held().await,
        }
    }

    fn name(&self, id: UserId) -> String {
        let address = self.facts().people.get(&id).and_then(|person| person.address.clone());
        format!("{} ({})", short(id.0), address.as_deref().unwrap_or("-").trim_end_matches(&format!("@{DOMAIN}")))
    }
}

pub(super) fn key(number: usize) -> MappingKey {
    MappingKey::new(NAMESPACE, MAPPINGS[number % MAPPINGS.len()]).expect("a key")
}

/// The ids of people and groups, as members of a group.
fn ids(people: &BTreeSet<UserId>, groups: &BTreeSet<GroupId>) -> Vec<uuid::Uuid> {
    people.iter().map(|id| id.0).chain(groups.iter().map(|id| id.0)).collect()
}

fn short(id: uuid::Uuid) -> String {
    id.to_string().chars().take(6).collect()
}

fn scim(id: UserId, person: &Person, by_email: bool) -> (Value, UserFacts) {
    let user_name = match &person.address {
        Some(address) if !by_email => address.clone(),
        _ => format!("u-{id}"),
    };
    let emails: Vec<EmailFact> = person
        .address
        .iter()
        .filter(|_| by_email)
        .map(|value| EmailFact { value: value.clone(), kind: Some("work".to_owned()), primary: true })
        .collect();
    let values: Vec<Value> = emails.iter().map(|email| json!({"value": email.value, "primary": true})).collect();
    let resource = json!({"userName": user_name, "active": person.active, "emails": values});
    (resource, UserFacts { id, active: person.active, user_name, external_id: None, emails })
}
