//! The steps of a simulated installation, drawn from the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::driver::{Simulation, okta, origin};
use super::facts::{Mapping, NAMESPACE, Phase, Provider, ROLES, SERVICES, Spec, TEAMS, Target, Team};
use super::names::naming;
use super::process::Changed;
use crate::api::MappingMode;
use crate::model::{Clock as _, GroupFacts, GroupId, MappingKey, UserId};
use crate::scim::member_id;
use crate::store::{GroupUpdate, MemberChange, MemberChanges, NewGroup, StoreError};
use crate::target::scripted::Fault;

/// Number of addresses.
pub(super) const ADDRESSES: usize = 6;
const MAPPINGS: [&str; 3] = ["m0", "m1", "m2"];

impl Simulation {
    /// Makes one step, and lets some time pass.
    pub(super) async fn step(&mut self) {
        match self.chance.below(100) {
            0..40 => self.change_directory().await,
            40..58 => self.change_resources(),
            58..68 => self.edit_by_hand(),
            68..70 => self.take_away_again_and_again().await,
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
        match self.chance.below(25) {
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
            19 => self.delete_team().await,
            20..22 => self.change_named_members().await,
            22 => self.change_external_id().await,
            _ => self.look_up_and_change().await,
        }
    }

    pub(super) fn some_team(&self) -> Option<GroupId> {
        let of: Vec<GroupId> = self.facts().teams.iter().filter(|(_, team)| !team.deleted).map(|(id, _)| *id).collect();
        self.chance.pick(&of)
    }

    pub(super) async fn create_team(&mut self, number: usize) {
        let name = TEAMS[number];
        let id = GroupId(self.chance.id());
        let people: Vec<UserId> =
            self.facts().people.iter().filter(|(_, person)| !person.deleted).map(|(id, _)| *id).collect();
        let members: BTreeSet<UserId> = people.into_iter().filter(|_| self.chance.one_in(2)).collect();
        let nested: BTreeSet<GroupId> =
            self.some_team().into_iter().filter(|_| self.facts().teams.len() > 1 && self.chance.one_in(3)).collect();
        let external_id = self.some_external_id(4);
        let own = external_id.as_deref().map(member_id);
        let named = self.some_external_id(4).filter(|text| own != Some(member_id(text)));
        let counts = format!("{} members and {} groups", members.len(), nested.len());
        let called = format!("{name} as {}, externalId {external_id:?}", short(id.0));
        self.say(format!("create group {called}, with {counts}, and {named:?}"));
        let facts = GroupFacts { id, display_name: name.to_owned(), external_id: external_id.clone() };
        let named: Vec<&str> = named.as_deref().into_iter().collect();
        let all = ids(&members, &nested).into_iter().chain(named.iter().map(|text| member_id(text))).collect();
        let changes = naming(vec![MemberChange::Add(all)], &named);
        let group = NewGroup { resource: json!({"displayName": name}), facts, members: changes.clone() };
        let store = self.idp();
        if self.request(id.0, store.create_group(&okta(), &origin(), group)).await {
            let team = Team { name: name.to_owned(), external_id, ..Team::default() };
            self.facts().put_team(id, team, &changes);
        }
    }

    async fn rename_team(&mut self) {
        let Some(id) = self.some_team() else { return };
        let name = TEAMS[self.chance.below(TEAMS.len())].to_owned();
        self.say(format!("group {} is {name} from here on", short(id.0)));
        let external_id = self.facts().teams.get(&id).and_then(|team| team.external_id.clone());
        let facts = GroupFacts { id, display_name: name.clone(), external_id };
        let update = |_: &_| {
            Ok(GroupUpdate {
                resource: Some(json!({"displayName": name})),
                facts: Some(facts.clone()),
                ..GroupUpdate::default()
            })
        };
        let store = self.idp();
        if self.request(id.0, store.update_group::<()>(&okta(), &origin(), id, update)).await
            && let Some(team) = self.facts().teams.get_mut(&id)
        {
            team.name.clone_from(&name);
        }
    }

    async fn delete_team(&mut self) {
        let Some(id) = self.some_team() else { return };
        self.say(format!("delete group {}", short(id.0)));
        let store = self.idp();
        if self.request(id.0, store.delete_group(&okta(), &origin(), id, None)).await {
            self.facts().delete_team(id);
        }
    }

    pub(super) async fn change_members(&mut self) {
        let (Some(team), Some(person)) = (self.some_team(), self.somebody(|_| true)) else { return };
        let change = if self.chance.one_in(6) {
            MemberChange::Replace(self.some_members(team))
        } else if self.facts().teams[&team].members.contains(&person) {
            MemberChange::Remove(vec![person.0])
        } else {
            MemberChange::Add(vec![person.0])
        };
        self.update_members(team, vec![change].into()).await;
    }

    /// Some people, and some of the groups in a group.
    fn some_members(&self, team: GroupId) -> Vec<uuid::Uuid> {
        let mut nested = self.facts().teams[&team].nested.clone();
        let people: Vec<UserId> =
            self.facts().people.iter().filter(|(_, person)| !person.deleted).map(|(id, _)| *id).collect();
        let members = people.into_iter().filter(|_| self.chance.one_in(2)).collect();
        nested.retain(|_| self.chance.one_in(2));
        ids(&members, &nested)
    }

    /// Changes members that are named by an `externalId`, whether nobody has it, one or several.
    async fn change_named_members(&mut self) {
        let Some(team) = self.some_team() else { return };
        let Some(text) = self.some_external_id(1) else { return };
        let mut texts = vec![text];
        let mut list = if self.chance.one_in(8) {
            let mut members = self.some_members(team);
            members.push(member_id(&texts[0]));
            vec![MemberChange::Replace(members)]
        } else {
            vec![self.some_named_change(team, &texts[0])]
        };
        if self.chance.one_in(6) {
            texts.extend(self.some_external_id(1));
            list.push(self.some_named_change(team, &texts[1]));
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.update_members(team, naming(list, &texts)).await;
    }

    /// Mostly a removal of a member that waits or has this name, and the addition of any other.
    fn some_named_change(&self, team: GroupId, text: &str) -> MemberChange {
        let remove = MemberChange::Remove(vec![member_id(text)]);
        let is_there = {
            let facts = self.facts();
            let known = &facts.teams[&team];
            facts.changed(known, &naming(vec![remove.clone()], &[text])).is_some_and(|without| without != *known)
        };
        if is_there == self.chance.one_in(6) { MemberChange::Add(vec![member_id(text)]) } else { remove }
    }

    /// Changes the members of a group.
    pub(super) async fn update_members(&mut self, team: GroupId, changes: MemberChanges) {
        self.say(format!("members of {}: {changes:?}", short(team.0)));
        let after = {
            let facts = self.facts();
            facts.changed(&facts.teams[&team], &changes)
        };
        let store = self.idp();
        let answer = self.answered(team.0, store.change_members::<()>(&okta(), &origin(), team, changes)).await;
        match (answer, after) {
            (Ok(true), Some(after)) => drop(self.facts().teams.insert(team, after)),
            (Ok(false) | Err(StoreError::Unavailable { .. }), _)
            | (Err(StoreError::NotAMember | StoreError::NoKnownMember { .. }), None) => {}
            (Ok(true), None) => self.problems.push("a change of members was stored that had to be refused".to_owned()),
            (Err(error), _) => self.problems.push(format!("a change of members was refused: {error}")),
        }
    }

    /// A person joins a group and leaves before the calls that grant them access have arrived: nothing else is changed,
    /// so that only the fence keeps those calls from arriving after the person has left.
    async fn join_and_leave(&mut self) {
        let Some(team) = self.some_team() else { return };
        let Some(person) = self.somebody(|person| person.active) else { return };
        if self.facts().teams[&team].members.contains(&person) {
            return;
        }
        for document in self.target.documents() {
            self.target.on_write(&document, Fault::Late(Duration::from_secs(5) + self.chance.millis(60_000)));
        }
        self.update_members(team, vec![MemberChange::Add(vec![person.0])].into()).await;
        self.pass(self.chance.millis(2_000)).await;
        self.update_members(team, vec![MemberChange::Remove(vec![person.0])].into()).await;
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
        let (report, orphan, conditional) = (chance.one_in(4), chance.one_in(4), chance.one_in(5));
        let end = chance.one_in(4).then(|| self.some_end());
        let spec = Spec { team, services, roles, mode, report, orphan, target, conditional, end };
        let live = |mapping: &&Mapping| mapping.phase == Phase::Live;
        let others: Vec<Spec> = self.facts().mappings.values().filter(live).map(|other| other.spec.clone()).collect();
        match chance.pick(&others) {
            // Two mappings often want the same grants.
            Some(other) if chance.one_in(3) => {
                let Spec { team, services, roles, target, conditional, end, .. } = other;
                let (conditional, end) =
                    if chance.one_in(2) { (conditional, end) } else { (spec.conditional, spec.end) };
                Spec { team, services, roles, target, conditional, end, ..spec }
            }
            _ => spec,
        }
    }

    /// Mostly a time that comes soon, seldom one that has passed, or that never comes.
    fn some_end(&self) -> Timestamp {
        let now = self.clock.now();
        let seconds = i64::try_from(self.chance.below(60)).unwrap_or(0);
        let end = match self.chance.below(6) {
            0 => now + SignedDuration::from_hours(24 * 365),
            1 => now - SignedDuration::from_secs(seconds),
            _ => now + SignedDuration::from_secs(seconds),
        };
        Timestamp::from_second(end.as_second()).unwrap_or(end)
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
        self.facts().put_mapping(key.clone(), mapping);
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
}

pub(super) fn key(number: usize) -> MappingKey {
    MappingKey::new(NAMESPACE, MAPPINGS[number % MAPPINGS.len()]).expect("a key")
}

/// The ids of people and groups, as members of a group.
fn ids(people: &BTreeSet<UserId>, groups: &BTreeSet<GroupId>) -> Vec<uuid::Uuid> {
    people.iter().map(|id| id.0).chain(groups.iter().map(|id| id.0)).collect()
}

pub(super) fn short(id: uuid::Uuid) -> String {
    id.to_string().chars().take(6).collect()
}
