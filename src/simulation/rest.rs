//! The end of a simulation: faults and edits stop, and everything has to become idle.

use std::time::Duration;

use super::driver::Simulation;
use super::facts::{Phase, Provider, ROLES, TARGETS, Target};
use super::process::Changed;
use crate::api::MappingMode;
use crate::model::{FreezeReason, MappingKey};
use crate::store::{Decision, UninstallMode};
use crate::target::scripted::Chances;

/// Longest time until everything is idle. Refused additions are retried after an hour at most, and so is a policy whose
/// budget of writes for isolating refused members is used up.
const PATIENCE: Duration = Duration::from_hours(6);

impl Simulation {
    /// Waits twice until everything is idle: as it is, and after everybody has left.
    pub(super) async fn end(&mut self) {
        self.calm().await;
        if !self.chance.one_in(3) {
            self.unfreeze();
        }
        self.rest("at rest").await;
        if !self.problems.is_empty() || self.chance.one_in(2) {
            return;
        }
        if self.chance.one_in(3) {
            self.uninstall().await;
            return;
        }
        self.unfreeze();
        self.everybody_leaves().await;
        self.rest("when everybody has left").await;
    }

    /// Stops all faults and foreign edits.
    async fn calm(&mut self) {
        self.say("faults end");
        self.target.on_chance(Some((Chances::default(), self.chance.fork())));
        self.denied.clear();
        self.hidden.clear();
        self.target.deny(self.denied.clone());
        self.target.hide(self.hidden.clone());
        self.target.allow_writes(None);
        self.refuse(0);
        let keeps = self.chance.one_in(3);
        let rules = self.rules.iter().filter(|rule| keeps && !rule.whole && !rule.removals).cloned().collect();
        self.change_rules(rules);
        if self.facts().observes {
            self.say("another process enforces");
            self.facts().observes = false;
            self.note_facts();
            self.start().await;
        }
        if self.leader.is_none() {
            self.start().await;
        }
    }

    /// Uninstalls, with crashes and requests of the IdP meanwhile.
    async fn uninstall(&mut self) {
        let mode = if self.chance.one_in(3) { UninstallMode::Orphan } else { UninstallMode::Revoke };
        self.say(format!("uninstall: {mode:?}"));
        self.store().put_decision(Decision::Uninstall(mode), self.now()).await.expect("a decision");
        self.facts().uninstall = Some(mode);
        self.note_facts();
        self.counts.uninstalls += 1;
        for _ in 0..self.chance.below(6) {
            self.step_while_uninstalling().await;
        }
        self.calm().await;
        self.rest("when it is uninstalled").await;
    }

    /// Restores what is missing, and enforces everything.
    fn unfreeze(&mut self) {
        self.say("what is missing comes back");
        {
            let mut facts = self.facts();
            let generation = |known: Option<i64>| known.map_or(1, |generation| generation + 1);
            if facts.provider.as_ref().is_none_or(|provider| provider.suspended) {
                let generation = generation(facts.provider.as_ref().map(|provider| provider.generation));
                facts.provider = Some(Provider { generation, suspended: false });
            }
            if !facts.is_covered() {
                facts.objects += 1;
                facts.targets[0] = Some(Target {
                    generation: 1,
                    asked: 0,
                    roles: ROLES.map(str::to_owned).to_vec(),
                    age: i64::try_from(facts.objects).unwrap_or(0),
                });
            }
            facts.labelled = true;
            let target = facts.owner_index();
            for (key, mapping) in facts.mappings.clone() {
                let mut mapping = mapping;
                if mapping.phase == Phase::Missing {
                    facts.objects += 1;
                    (mapping.phase, mapping.uid, mapping.generation) = (Phase::Live, facts.objects, 0);
                }
                if mapping.phase == Phase::Live {
                    mapping.spec.mode = MappingMode::Enforce;
                    mapping.spec.target = target;
                    mapping.generation += 1;
                    facts.vanished.remove(&key);
                    facts.mappings.insert(key, mapping);
                }
            }
        }
        self.tell(&Changed::Provider);
        self.tell(&Changed::Labels);
        for index in 0..TARGETS.len() {
            self.tell(&Changed::Target(index));
        }
        let keys: Vec<MappingKey> = self.facts().mappings.keys().cloned().collect();
        for key in keys {
            self.tell(&Changed::Mapping(key));
        }
        self.note_facts();
    }

    /// Releases what the guard holds.
    pub(super) async fn release_held(&mut self) {
        let Some(process) = &self.leader else { return };
        let (engine, cache) = (process.engine.clone(), process.cache.clone());
        for key in engine.mappings() {
            let held = cache.mapping(&key).and_then(|status| status.held).unwrap_or_default();
            for plan in held.plans {
                self.say(format!("{key}: release {}", plan.plan_hash));
                // A release that the store does not accept is repeated.
                let hash = plan.plan_hash.clone();
                self.decide(async { engine.release_plan(&hash).await.map(drop) }).await;
            }
        }
    }

    /// Accepts the store, if it is doubted.
    pub(super) async fn accept(&mut self) {
        let Some(process) = &self.leader else { return };
        if process.engine.frozen() == Some(FreezeReason::StoreMismatch) {
            self.say("the store is accepted");
            let (store, now) = (self.store().clone(), self.now());
            self.decide(store.put_decision(Decision::AcceptStore, now)).await;
        }
    }

    async fn rest(&mut self, when: &str) {
        let begun = tokio::time::Instant::now();
        let (mut wait, mut calm) = (Duration::from_secs(3), 0);
        while self.problems.is_empty() {
            self.pass(wait).await;
            if self.leader.is_none() {
                // The process is restarted by its supervisor.
                self.start().await;
            }
            self.release_held().await;
            self.accept().await;
            let unrest = self.unrest(calm == 1).await;
            if unrest.is_empty() {
                calm += 1;
                if calm == 2 {
                    return self.statuses_are_current(when).await;
                }
                wait = Duration::from_secs(10);
                continue;
            }
            calm = 0;
            wait = wait.mul_f64(1.5).min(Duration::from_mins(10));
            if begun.elapsed() > PATIENCE {
                self.problems.extend(unrest.into_iter().map(|problem| format!("{when}: {problem}")));
            }
        }
    }

    /// Folds all statuses again, once none of them is due: none may change by that.
    async fn statuses_are_current(&mut self, when: &str) {
        let folds = |simulation: &Self| simulation.leader.as_ref().is_some_and(|leader| leader.engine.folds());
        for _ in 0..60 {
            if !folds(self) {
                break;
            }
            self.pass(Duration::from_secs(1)).await;
        }
        let outdated = self.leader.as_ref().map(|leader| leader.engine.outdated_statuses()).unwrap_or_default();
        self.problems.extend(outdated.into_iter().map(|status| format!("{when}: outdated status of {status}")));
    }
}
