//! Steps outside of rolecall and its users: edits by somebody else, resources that come and go, and faults.

use std::time::Duration;

use super::driver::Simulation;
use super::facts::{ROLES, SERVICES, address, document, grant, role};
use super::steps::ADDRESSES;
use crate::model::{DocumentKey, GrantKey, MemberKey, Stored};
use crate::target::RefusalCause;
use crate::target::scripted::{Chances, Rule};

impl Simulation {
    pub(super) fn edit_by_hand(&mut self) {
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

    /// Somebody takes a grant away as often as it is made again.
    pub(super) async fn take_away_again_and_again(&mut self) {
        let documents = self.target.documents();
        let Some(on) = self.chance.pick(&documents) else { return };
        let there: Vec<GrantKey> = self.target.grants(&on).into_iter().collect();
        let Some(grant) = self.chance.pick(&there) else { return };
        for _ in 0..3 + self.chance.below(4) {
            if self.target.grants(&on).contains(&grant) {
                self.say(format!("somebody takes {} away from {} again", grant.member, on.short()));
                self.target.edit(&on, |grants| drop(grants.remove(&grant)));
            }
            let seconds = 30 + self.chance.below(120) as u64;
            self.pass(Duration::from_secs(seconds)).await;
        }
    }

    pub(super) fn add_by_hand(&mut self, on: &DocumentKey, grant: &GrantKey) {
        self.say(format!("somebody adds {} to {}", grant.member, on.short()));
        let stored = Stored { member: grant.member.to_string(), times: 1 };
        self.target.edit(on, |grants| {
            grants.entry(grant.clone()).or_insert(stored);
        });
    }

    pub(super) fn change_services(&mut self) {
        let there = self.target.documents();
        let service = document(SERVICES[self.chance.below(SERVICES.len())]);
        match (self.chance.below(5), there.contains(&service)) {
            (0, true) => {
                self.say(format!("{} is deleted", service.short()));
                self.target.delete(&service);
                let now = self.now();
                self.memory.forget(&service, now);
            }
            (1 | 2, true) => {
                self.say(format!("{} is deleted and made again", service.short()));
                self.target.delete(&service);
                let now = self.now();
                self.memory.forget(&service, now);
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

    pub(super) fn change_faults(&mut self) {
        match self.chance.below(7) {
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
            5 => {
                let of_thousand = [0, 4, 25, 100][self.chance.below(4)];
                self.say(format!("of a thousand calls, the store refuses {of_thousand}"));
                self.refuse(of_thousand);
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
        let removals = cause == RefusalCause::OrganizationPolicy && chance.one_in(2);
        Rule { member, role, cause, named: chance.one_in(2), whole: chance.one_in(8), removals }
    }
}
