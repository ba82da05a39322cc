//! Steps of a simulation: groups in groups.

use std::collections::BTreeSet;
use std::time::Duration;

use super::driver::Simulation;
use crate::model::{GroupId, UserId};
use crate::store::MemberChange;

impl Simulation {
    /// Makes a group a member of another one or of itself, or ends that.
    pub(super) async fn change_nested(&mut self) {
        let (Some(team), Some(other)) = (self.some_team(), self.some_team()) else { return };
        let change = if self.facts().teams[&team].nested.contains(&other) {
            MemberChange::Remove(vec![other.0])
        } else {
            // A group seldom contains itself.
            if team == other && !self.chance.one_in(4) {
                return;
            }
            MemberChange::Add(vec![other.0])
        };
        self.update_members(team, vec![change].into()).await;
    }

    /// A person who is a member of a group directly and through a nested one leaves it directly, after the nested one was
    /// put a level deeper. That may be beyond those that are followed.
    pub(super) async fn hide_group(&mut self) {
        let Some(person) = self.somebody(|person| person.active) else { return };
        let teams: BTreeSet<GroupId> = (0..12).filter_map(|_| self.some_team()).collect();
        let mut left: Vec<GroupId> = teams.into_iter().collect();
        if left.len() < 3 {
            return self.change_nested().await;
        }
        let mut draw = || left.swap_remove(self.chance.below(left.len()));
        let (outer, inner, core) = (draw(), draw(), draw());
        self.put(core, &[person], &[]).await;
        self.put(outer, &[person], &[core]).await;
        self.pass(Duration::from_secs(10) + self.chance.millis(20_000)).await;
        self.put(inner, &[], &[core]).await;
        self.put(outer, &[], &[inner]).await;
        self.update_members(outer, vec![MemberChange::Remove(vec![core.0])].into()).await;
        self.pass(Duration::from_secs(1) + self.chance.millis(20_000)).await;
        self.update_members(outer, vec![MemberChange::Remove(vec![person.0])].into()).await;
    }

    /// Adds people and groups to a group.
    async fn put(&mut self, team: GroupId, people: &[UserId], groups: &[GroupId]) {
        let added = people.iter().map(|person| person.0).chain(groups.iter().map(|group| group.0)).collect();
        self.update_members(team, vec![MemberChange::Add(added)].into()).await;
    }
}
