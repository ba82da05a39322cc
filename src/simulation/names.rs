//! Members named by `externalId`: what requests make of people, groups and memberships, according to the model.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::facts::{Facts, Person, Team};
use crate::model::{GroupId, MemberChange, MemberChanges, UserId};
use crate::scim::member_id;

/// The values of `externalId`. The last two name the same members, since an id is compared without case.
pub(super) const EXTERNAL_IDS: [&str; 4] =
    ["e0", "e1", "6F9619FF-8b86-4D01-B42D-00CF4FC964FF", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"];

/// The user or group that a member id means.
enum Meant {
    /// The one with this `id`, by it or as the only one with an `externalId`.
    One(Uuid),
    Nobody,
    Several,
}

/// Changes of members of which some are named by these texts.
pub(super) fn naming(list: Vec<MemberChange>, texts: &[&str]) -> MemberChanges {
    let named = texts.iter().map(|text| (member_id(text), (*text).to_owned()));
    let texts: BTreeMap<Uuid, String> = named.filter(|(id, text)| id.to_string() != *text).collect();
    MemberChanges { list, texts }
}

impl Facts {
    fn meant(&self, id: Uuid) -> Meant {
        let people = self.people.iter().filter(|(_, person)| !person.deleted);
        let people = people.map(|(id, person)| (id.0, person.external_id.as_deref()));
        let teams = self.teams.iter().filter(|(_, team)| !team.deleted);
        let mut named = Vec::new();
        for (known, text) in people.chain(teams.map(|(id, team)| (id.0, team.external_id.as_deref()))) {
            if known == id {
                return Meant::One(id);
            }
            named.extend(text.filter(|text| member_id(text) == id).map(|_| known));
        }
        match named.as_slice() {
            [] => Meant::Nobody,
            [only] => Meant::One(*only),
            _ => Meant::Several,
        }
    }

    fn is_person(&self, id: Uuid) -> bool {
        self.people.contains_key(&UserId(id))
    }

    /// The group after changes of its members; none when the request has to be refused.
    pub(super) fn changed(&self, team: &Team, changes: &MemberChanges) -> Option<Team> {
        let waited = team.waiting.clone();
        let mut team = team.clone();
        for change in &changes.list {
            match change {
                MemberChange::Add(ids) => self.add(&mut team, ids),
                MemberChange::Remove(ids) => {
                    // One that is named twice is removed once.
                    if !ids.iter().all(|id| self.remove(&mut team, *id) || waited.contains(id)) {
                        return None;
                    }
                }
                MemberChange::Replace(ids) => {
                    team.empty();
                    self.add(&mut team, ids);
                    if !ids.is_empty() && team.members.is_empty() && team.nested.is_empty() {
                        return None;
                    }
                }
                MemberChange::Clear => team.empty(),
            }
        }
        Some(team)
    }

    fn add(&self, team: &mut Team, ids: &[Uuid]) {
        for id in ids {
            match self.meant(*id) {
                Meant::One(meant) => {
                    team.waiting.remove(id);
                    team.join(meant, self.is_person(meant));
                }
                Meant::Nobody | Meant::Several => drop(team.waiting.insert(*id)),
            }
        }
    }

    /// Returns false when somebody else may be meant, who would stay.
    fn remove(&self, team: &mut Team, id: Uuid) -> bool {
        let has_waited = team.waiting.remove(&id);
        match self.meant(id) {
            Meant::One(meant) => {
                team.members.remove(&UserId(meant));
                team.nested.remove(&GroupId(meant));
                true
            }
            Meant::Nobody => has_waited || id.get_version_num() != 8,
            Meant::Several => has_waited,
        }
    }

    /// Stores a person.
    pub(super) fn put_person(&mut self, id: UserId, person: Person) {
        let (is_active, external_id) = (person.active, person.external_id.clone());
        let before = self.people.insert(id, person);
        let was_active = before.as_ref().is_some_and(|before| before.active);
        let former = before.and_then(|before| before.external_id);
        if was_active && !is_active {
            self.end_waits(former.as_deref());
            self.end_waits(external_id.as_deref());
        }
        if former != external_id {
            self.end_wait_of_the_only(former.as_deref());
            self.end_wait_of_the_only(external_id.as_deref());
        }
    }

    /// Stores a new group, to which the changes add members.
    pub(super) fn put_team(&mut self, id: GroupId, team: Team, changes: &MemberChanges) {
        let external_id = team.external_id.clone();
        self.teams.insert(id, team);
        self.end_wait_of_the_only(external_id.as_deref());
        let with_members = self.changed(&self.teams[&id], changes);
        self.teams.extend(with_members.map(|team| (id, team)));
    }

    pub(super) fn delete_person(&mut self, id: UserId, now: Timestamp) {
        for team in self.teams.values_mut() {
            team.members.remove(&id);
        }
        let Some(person) = self.people.get_mut(&id) else { return };
        (person.deleted, person.active) = (true, false);
        person.left_at.get_or_insert(now);
        let external_id = person.external_id.clone();
        self.end_waits(external_id.as_deref());
    }

    pub(super) fn delete_team(&mut self, id: GroupId) {
        for team in self.teams.values_mut() {
            team.nested.remove(&id);
        }
        let Some(team) = self.teams.get_mut(&id) else { return };
        team.deleted = true;
        team.nested.clear();
        team.waiting.clear();
        let external_id = team.external_id.clone();
        self.end_waits(external_id.as_deref());
    }

    /// Ends the wait of a name whose owner leaves.
    fn end_waits(&mut self, external_id: Option<&str>) {
        let Some(name) = external_id.map(member_id) else { return };
        for team in self.teams.values_mut() {
            team.waiting.remove(&name);
        }
    }

    /// Makes the only one who has a name a member where it waits.
    fn end_wait_of_the_only(&mut self, external_id: Option<&str>) {
        let Some(name) = external_id.map(member_id) else { return };
        let Meant::One(id) = self.meant(name) else { return };
        let is_person = self.is_person(id);
        for team in self.teams.values_mut() {
            if team.waiting.remove(&name) {
                team.join(id, is_person);
            }
        }
    }
}

impl Team {
    fn join(&mut self, id: Uuid, is_person: bool) {
        if is_person {
            self.members.insert(UserId(id));
        } else {
            self.nested.insert(GroupId(id));
        }
    }

    fn empty(&mut self) {
        self.members.clear();
        self.nested.clear();
        self.waiting.clear();
    }
}
