//! The steps of a simulated installation, drawn from the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::driver::{Simulation, okta, origin};
use super::facts::{
    DOMAIN, Mapping, Person, Phase, Provider, ROLES, SERVICES, Spec, TEAMS, Target, Team, address, document, grant,
    role,
};
use super::process::Changed;
use crate::api::MappingMode;
use crate::model::{
    DocumentKey, EmailFact, GrantKey, GroupFacts, GroupId, MappingKey, MemberKey, Stored, UserFacts, UserId,
};
use crate::store::{GroupUpdate, MemberChange, NewGroup, NewUser, UserUpdate};
use crate::target::RefusalCause;
use crate::target::scripted::{Chances, Rule};

/// Number of addresses.
const ADDRESSES: usize = 6;
/// Largest number of people, groups and mappings at a time.
const PEOPLE: usize = 6;
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
            0..3 => self.create_person().await,
            3..8 => self.change_members().await,
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
        if self.idp().create_user(&okta(), &origin(), NewUser { resource, facts }).await.is_ok() {
            self.facts().people.insert(id, person);
        }
    }

    fn somebody(&self, is: impl Fn(&Person) -> bool) -> Option<UserId> {
        let of: Vec<UserId> =
            self.facts().people.iter().filter(|(_, person)| !person.deleted && is(person)).map(|(id, _)| *id).collect();
        self.chance.pick(&of)
    }

    fn some_team(&self) -> Option<GroupId> {
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
        if self.idp().update_user::<()>(&okta(), &origin(), id, update).await.is_ok() {
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
    }

    async fn delete_person(&mut self) {
        let Some(id) = self.somebody(|_| true) else { return };
        self.say(format!("delete {}", self.name(id)));
        let now = self.now();
        if self.idp().delete_user(&okta(), &origin(), id, None).await.is_err() {
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
        self.say(format!("create group {name} as {} with {} members", short(id.0), members.len()));
        let facts = GroupFacts { id, display_name: name.to_owned(), external_id: None };
        let group = NewGroup {
            resource: json!({"displayName": name}),
            facts,
            members: members.iter().map(|id| id.0).collect(),
        };
        if self.idp().create_group(&okta(), &origin(), group).await.is_ok() {
            self.facts().teams.insert(id, Team { name: name.to_owned(), deleted: false, members });
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
        if self.idp().update_group::<()>(&okta(), &origin(), id, update).await.is_ok()
            && let Some(team) = self.facts().teams.get_mut(&id)
        {
            team.name.clone_from(&name);
        }
    }

    async fn delete_team(&mut self) {
        let Some(id) = self.some_team() else { return };
        self.say(format!("delete group {}", short(id.0)));
        if self.idp().delete_group(&okta(), &origin(), id, None).await.is_ok()
            && let Some(team) = self.facts().teams.get_mut(&id)
        {
            team.deleted = true;
        }
    }

    async fn change_members(&mut self) {
        let (Some(team), Some(person)) = (self.some_team(), self.somebody(|_| true)) else { return };
        let members = self.facts().teams.get(&team).map(|team| team.members.clone()).unwrap_or_default();
        let mut after = members.clone();
        let change = if self.chance.one_in(6) {
            let people: Vec<UserId> =
                self.facts().people.iter().filter(|(_, person)| !person.deleted).map(|(id, _)| *id).collect();
            after = people.into_iter().filter(|_| self.chance.one_in(2)).collect();
            MemberChange::Replace(after.iter().map(|id| id.0).collect())
        } else if members.contains(&person) {
            after.remove(&person);
            MemberChange::Remove(vec![person.0])
        } else {
            after.insert(person);
            MemberChange::Add(vec![person.0])
        };
        self.say(format!("members of {}: {change:?}", short(team.0)));
        if self.idp().change_members::<()>(&okta(), &origin(), team, vec![change]).await.is_ok()
            && let Some(team) = self.facts().teams.get_mut(&team)
        {
            team.members = after;
        }
    }

    fn change_resources(&mut self) {
        match self.chance.below(20) {
            0..8 => self.apply_mapping(self.chance.below(MAPPINGS.len())),
            8..11 => self.end_mapping(Phase::Terminating),
            11..13 => self.end_mapping(Phase::Missing),
            13 => self.accept_group(),
            14..16 => self.change_target(),
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
        Spec { team, services, roles, mode, report: chance.one_in(4), orphan: chance.one_in(4) }
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

    fn change_target(&mut self) {
        let known = self.facts().target.clone();
        let next = match known {
            Some(_) if self.chance.one_in(3) => None,
            Some(target) => {
                let roles = ROLES.iter().filter(|_| !self.chance.one_in(3)).map(|role| (*role).to_owned()).collect();
                Some(Target { generation: target.generation + 1, roles, ..target })
            }
            None => Some(Target { generation: 1, asked: 0, roles: ROLES.map(str::to_owned).to_vec() }),
        };
        self.say(format!("target: {next:?}"));
        self.facts().target = next;
        self.tell(&Changed::Target);
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

    fn edit_by_hand(&mut self) {
        let documents = self.target.documents();
        let Some(on) = self.chance.pick(&documents) else { return };
        let there: Vec<GrantKey> = self.target.grants(&on).into_iter().collect();
        let role_name = ROLES[self.chance.below(2)];
        let number = self.chance.below(ADDRESSES);
        match self.chance.below(6) {
            0 => self.add_by_hand(&on, &grant(role_name, &format!("s{number}@elsewhere.example"))),
            1 | 2 => self.add_by_hand(&on, &grant(role_name, &address(number))),
            _ => {
                let Some(grant) = self.chance.pick(&there) else { return };
                self.say(format!("somebody removes {} from {}", grant.member, on.short()));
                self.target.edit(&on, |grants| drop(grants.remove(&grant)));
                if self.chance.one_in(4) {
                    self.add_by_hand(&on, &grant);
                }
            }
        }
    }

    fn add_by_hand(&mut self, on: &DocumentKey, grant: &GrantKey) {
        self.say(format!("somebody adds {} to {}", grant.member, on.short()));
        let stored = Stored { member: grant.member.to_string(), times: 1 };
        self.target.edit(on, |grants| {
            grants.entry(grant.clone()).or_insert(stored);
        });
    }

    fn change_services(&mut self) {
        let there = self.target.documents();
        let service = document(SERVICES[self.chance.below(SERVICES.len())]);
        match (self.chance.below(5), there.contains(&service)) {
            (0, true) => {
                self.say(format!("{} is deleted", service.short()));
                self.target.delete(&service);
            }
            (1 | 2, true) => {
                self.say(format!("{} is deleted and made again", service.short()));
                self.target.delete(&service);
                self.target.create(&service);
                if self.chance.one_in(2) {
                    self.add_by_hand(&service, &grant(ROLES[0], &address(self.chance.below(ADDRESSES))));
                }
            }
            (_, true) => {
                self.say(format!("lists lack {}, or have it again", service.short()));
                if !self.hidden.remove(&service) {
                    self.hidden.insert(service);
                }
                self.target.hide(self.hidden.clone());
            }
            (_, false) => {
                self.say(format!("{} is made", service.short()));
                self.target.create(&service);
            }
        }
    }

    fn change_faults(&mut self) {
        match self.chance.below(6) {
            0 | 1 => {
                let rule = self.some_rule();
                self.say(format!("refused from here on: {rule:?}"));
                let mut rules = self.rules.clone();
                rules.push(rule);
                self.change_rules(rules);
            }
            2 => {
                self.say("nothing is refused any more");
                self.change_rules(Vec::new());
            }
            3 => {
                let Some(on) = self.chance.pick(&self.target.documents()) else { return };
                self.say(format!("{} is denied, or not any more", on.short()));
                if !self.denied.remove(&on) {
                    self.denied.insert(on);
                }
                self.target.deny(self.denied.clone());
            }
            4 => {
                let most = (!self.chance.one_in(3)).then(|| u32::try_from(self.chance.below(4)).unwrap_or(1));
                self.say(format!("writes a minute: {most:?}"));
                self.target.allow_writes(most);
            }
            _ => {
                let heavy = self.chance.below(5) as u64;
                self.chances = Chances { slow: 20 * heavy, stale: 60 * heavy, lost: 80 * heavy, ..self.chances };
                self.say(format!("{:?}", self.chances));
                self.target.on_chance(Some((self.chances, self.chance.fork())));
            }
        }
    }

    fn some_rule(&self) -> Rule {
        let chance = &self.chance;
        let member = MemberKey::of(&format!("user:{}", address(chance.below(ADDRESSES))));
        let of_role = role(ROLES[chance.below(2)]);
        let causes = [RefusalCause::PrincipalUnknown, RefusalCause::DomainRestricted, RefusalCause::Other];
        let (member, role, cause) = match chance.below(8) {
            0..4 => (Some(member), None, causes[chance.below(3)]),
            4 | 5 => (
                None,
                Some(of_role),
                if chance.one_in(2) { RefusalCause::RoleNotSupported } else { RefusalCause::Other },
            ),
            6 => (Some(member), Some(of_role), RefusalCause::Other),
            _ => (None, None, RefusalCause::OrganizationPolicy),
        };
        Rule { member, role, cause, named: chance.one_in(2), whole: chance.one_in(8) }
    }

    async fn change_processes(&mut self) {
        match self.chance.below(8) {
            0..4 if self.leader.is_some() => {
                self.say("the process is killed");
                self.crash().await;
            }
            4 | 5 => {
                self.say("another process takes over");
                self.counts.takeovers += 1;
                self.start().await;
            }
            6 => self.former.clear(),
            _ => self.release_held().await,
        }
    }

    fn name(&self, id: UserId) -> String {
        let address = self.facts().people.get(&id).and_then(|person| person.address.clone());
        format!("{} ({})", short(id.0), address.as_deref().unwrap_or("-").trim_end_matches(&format!("@{DOMAIN}")))
    }
}

pub(super) fn key(number: usize) -> MappingKey {
    MappingKey::new("team", MAPPINGS[number % MAPPINGS.len()]).expect("a key")
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
