//! Property test with delayed reads, lost answers, restarts and foreign edits in any order. Nobody who left keeps
//! access, no foreign grant is removed, and the delay causes no writes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::fixtures::*;
use super::*;
use crate::model::{Enforcement, Revision};

const PEOPLE: u128 = 5;

/// A document with all its versions, and what the store records about them.
struct Lagging {
    fixture: Fixture,
    /// All versions, oldest first; the last one is in force.
    versions: Vec<Live>,
    revision: Option<Revision>,
    superseded: BTreeSet<String>,
    /// Revisions on which a write met a conflict, or that a write failed to prove.
    conflicted: BTreeSet<String>,
    proofs: BTreeMap<String, u32>,
    sent: u32,
}

#[derive(Debug, Clone)]
enum Event {
    Comes(u128),
    Goes(u128),
    Stranger(u8),
    StrangerTakesOurs(u128),
    Planner { age: usize, end: End },
}

#[derive(Debug, Clone, Copy)]
enum End {
    Answered,
    AnswerLost,
    NeverArrived,
    KilledBeforeTheCall,
}

fn any_event() -> impl Strategy<Value = Event> {
    let end = prop_oneof![
        5 => Just(End::Answered),
        1 => Just(End::AnswerLost),
        1 => Just(End::NeverArrived),
        1 => Just(End::KilledBeforeTheCall),
    ];
    prop_oneof![
        3 => (1..=PEOPLE).prop_map(Event::Comes),
        3 => (1..=PEOPLE).prop_map(Event::Goes),
        1 => any::<u8>().prop_map(Event::Stranger),
        1 => (1..=PEOPLE).prop_map(Event::StrangerTakesOurs),
        8 => (0..6_usize, end).prop_map(|(age, end)| Event::Planner { age, end }),
    ]
}

impl Lagging {
    fn new() -> Self {
        let mut fixture = Fixture::new(&json!([]));
        fixture.enforcement("m", Enforcement::Live { keep: crate::model::Keep::Nothing });
        let versions = vec![fixture.live.clone()];
        Self {
            fixture,
            versions,
            revision: None,
            superseded: BTreeSet::new(),
            conflicted: BTreeSet::new(),
            proofs: BTreeMap::new(),
            sent: 0,
        }
    }

    fn newest(&self) -> Live {
        self.versions.last().cloned().unwrap()
    }

    /// A foreign edit of the version in force.
    fn edit(&mut self, edit: impl Fn(&mut Fixture)) {
        self.fixture.live = self.newest();
        edit(&mut self.fixture);
        self.versions.push(self.fixture.live.clone());
    }

    /// Simulates the target's answer to a call.
    fn set(&mut self, plan: &Plan) -> Option<Live> {
        self.sent += 1;
        if plan.read().revision != self.newest().revision {
            return None;
        }
        self.fixture.live = plan.read().after(plan.changes.as_ref().unwrap());
        self.fixture.touch();
        self.versions.push(self.fixture.live.clone());
        Some(self.fixture.live.clone())
    }

    /// Runs one reconcile that reads the version that is `age` versions old.
    fn pass(&mut self, age: usize, end: End) {
        self.fixture.later(1);
        let read = self.versions[self.versions.len().saturating_sub(age + 1)].clone();
        let rows: Vec<LedgerRow> = self.fixture.ledger.values().cloned().collect();
        let superseded = self.superseded.contains(&read.revision);
        let evidence = match super::age(&read.revision, self.revision.as_ref(), superseded, &rows) {
            ReadAge::Stale => return,
            ReadAge::Current => Evidence::Current,
            ReadAge::Unproven => Evidence::Unproven { may_prove: !self.conflicted.contains(&read.revision) },
        };
        if self.conflicted.contains(&read.revision) && read.revision != self.newest().revision {
            return;
        }
        let plan = plan(&Inputs {
            live: Arc::new(read.clone()),
            evidence,
            revision: self.revision.clone(),
            ..self.fixture.inputs()
        });
        if plan.changes.is_none() {
            return self.fixture.record((plan.ledger.clone(), plan.audit.clone()));
        }
        if plan.add.is_empty() && plan.remove.is_empty() {
            *self.proofs.entry(read.revision.clone()).or_default() += 1;
        }
        let before: Vec<LedgerRow> = rows;
        self.fixture.record(plan.intend(self.fixture.now));
        self.fixture.later(1);
        match end {
            End::KilledBeforeTheCall => {}
            End::NeverArrived => self.fixture.record(plan.settle(&CallOutcome::Unknown, self.fixture.now)),
            End::AnswerLost => {
                self.set(&plan);
                self.fixture.record(plan.settle(&CallOutcome::Unknown, self.fixture.now));
            }
            End::Answered => {
                if let Some(answer) = self.set(&plan) {
                    let settlement = plan.settle_answer(&answer, self.fixture.now);
                    self.fixture.record((settlement.changes, settlement.audit));
                    let write = settlement.write.unwrap();
                    self.superseded.extend(write.superseded);
                    self.revision = Some(write.revision);
                } else {
                    self.conflicted.insert(read.revision.clone());
                    self.fixture.record(plan.settle(&CallOutcome::Conflict, self.fixture.now));
                    for row in before.iter().filter(|row| row.state == GrantState::Owned) {
                        let after = self.fixture.ledger.get(&row.grant).map(|row| row.state);
                        assert_eq!(after, Some(GrantState::Owned), "a conflict changes nothing");
                    }
                }
            }
        }
    }

    fn play(&mut self, event: &Event, strangers: &mut BTreeSet<String>) {
        match event {
            Event::Comes(person) => self.fixture.want("m", INVOKER, *person, WRITE),
            Event::Goes(person) => self.fixture.unwant_person(*person),
            Event::Stranger(n) => {
                let member = format!("user:stranger{n}@elsewhere.example");
                if strangers.insert(member.clone()) {
                    self.edit(|fixture| fixture.stranger(INVOKER, &member, true));
                }
            }
            Event::StrangerTakesOurs(person) => {
                self.edit(|fixture| fixture.stranger(INVOKER, &email(*person), false));
            }
            Event::Planner { age, end } => self.pass(*age, *end),
        }
    }

    fn converge(&mut self) {
        for _ in 0..8 {
            self.pass(0, End::Answered);
        }
    }

    fn invokers(&self) -> BTreeSet<String> {
        let newest = self.newest();
        newest.grants().map(|(_, member)| member.to_owned()).collect()
    }

    fn wanted(&self) -> BTreeSet<String> {
        self.fixture.desired.grants.values().map(|grant| grant.member.to_string()).collect()
    }
}

proptest! {
    #[test]
    fn whatever_version_is_read_no_leaver_keeps_access_and_no_foreign_grant_is_removed(
        events in prop::collection::vec(any_event(), 0..50),
    ) {
        let mut lagging = Lagging::new();
        let mut strangers = BTreeSet::new();
        for event in &events {
            lagging.play(event, &mut strangers);
            prop_assert!(strangers.is_subset(&lagging.invokers()), "a stranger's member went");
        }
        lagging.converge();
        prop_assert_eq!(lagging.invokers(), &lagging.wanted() | &strangers);
        for row in lagging.fixture.ledger.values() {
            prop_assert!(row.state == GrantState::Owned && row.intent.is_none(), "{row:?}");
        }
        for everybody in 1..=PEOPLE {
            lagging.fixture.unwant_person(everybody);
        }
        lagging.converge();
        prop_assert_eq!(lagging.invokers(), strangers);
        prop_assert!(lagging.fixture.ledger.is_empty());
    }

    #[test]
    fn without_other_editors_and_lost_answers_each_revision_is_sent_at_most_once_however_old_the_reads(
        events in prop::collection::vec(any_event(), 0..50),
    ) {
        let mut lagging = Lagging::new();
        let mut strangers = BTreeSet::new();
        for event in &events {
            match event {
                Event::Stranger(_) | Event::StrangerTakesOurs(_) => {}
                Event::Planner { age, .. } => lagging.pass(*age, End::Answered),
                event => lagging.play(event, &mut strangers),
            }
        }
        // Every call was acknowledged, so there is one further version for each call.
        prop_assert_eq!(usize::try_from(lagging.sent).unwrap(), lagging.versions.len() - 1);
        prop_assert!(lagging.proofs.is_empty());
    }
}
