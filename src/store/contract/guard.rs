//! The guard's count of people whose grants are removed.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::engine::{document, mapping, row};
use super::*;
use crate::model::guard_book::{Facts, GuardBook};
use crate::model::{
    Claim, DocumentKey, GrantState, LedgerChange, LedgerRow, Removal, RemovalLimits, RemovalScope, Subject,
};

fn person(n: u128) -> Subject {
    Subject::User(UserId(Uuid::from_u128(n)))
}

/// The grant of a person through a mapping.
fn granted(n: u128, by: &str, at: Timestamp) -> LedgerRow {
    let mut row = row(&format!("user:p{n}@x.example"), &[(by, person(n))]);
    row.state = GrantState::Owned;
    row.acknowledged_at = Some(at);
    row
}

fn asks(people: impl IntoIterator<Item = u128>, by: &str, leaver: bool) -> Vec<Removal> {
    let of = |n| Removal {
        grant: row(&format!("user:p{n}@x.example"), &[]).grant,
        claim: Claim { mapping: mapping(by), subject: person(n) },
        leaver,
    };
    people.into_iter().map(of).collect()
}

impl Home {
    async fn grant(&self, on: &DocumentKey, people: impl IntoIterator<Item = u128>, by: &str) {
        let at = self.now() - jiff::SignedDuration::from_secs(1);
        let puts = people.into_iter().map(|n| LedgerChange::Put(granted(n, by, at))).collect();
        self.store.record(on, puts, vec![]).await.unwrap();
    }

    /// Number of people held among those in question.
    async fn held(&self, on: &DocumentKey, asks: &[Removal]) -> usize {
        self.store.guard(on, asks.to_vec(), RemovalLimits::default()).await.unwrap().len()
    }

    async fn user(&self, n: u128) {
        let mut user = new_user(&format!("p{n}@x.example"));
        user.facts.id = UserId(Uuid::from_u128(n));
        self.store.create_user(&okta(), &origin(), user).await.unwrap();
    }
}

async fn people_are_counted_over_documents_passes_and_restarts_and_each_once(home: Home) {
    let (one, two) = (document("one"), document("two"));
    home.grant(&one, 1..=100, "m").await;
    home.grant(&two, 1..=100, "m").await;
    assert_eq!(home.held(&one, &asks(1..=20, "m", false)).await, 0);
    assert_eq!(home.held(&two, &asks(1..=20, "m", false)).await, 0, "the same people");
    let store = home.open().await;
    store.begin_epoch("again").await.unwrap();
    let held = store.guard(&two, asks(21..=26, "m", false), RemovalLimits::default()).await.unwrap();
    assert_eq!(held.len(), 6, "the 26th is among them, and they are held together");
    let held = store.guard(&one, asks(21..=22, "m", false), RemovalLimits::default()).await.unwrap();
    assert_eq!(held.len(), 2, "who is held on one document is held on the other");
    home.clock.advance(Duration::from_hours(30));
    let held = store.guard(&one, asks(21..=22, "m", false), RemovalLimits::default()).await.unwrap();
    assert_eq!(held.len(), 2, "it does not drain as the hour slides");
    let held = store.guard(&one, asks(21..=24, "m", false), RemovalLimits::default()).await.unwrap();
    assert_eq!(held.len(), 4, "nor on another document");
}

async fn people_on_a_thousand_services_are_counted_once_and_held_on_each_of_them(home: Home) {
    let services: Vec<_> = (0..1000).map(|n| document(&format!("s{n}"))).collect();
    for on in &services {
        home.grant(on, 1..=20, "m").await;
    }
    for on in &services {
        assert_eq!(home.held(on, &asks(1..=10, "m", false)).await, 0, "ten people are ten, on {on:?}");
    }
    for on in &services {
        assert_eq!(home.held(on, &asks(1..=11, "m", false)).await, 1, "the eleventh is more than half, on {on:?}");
    }
}

async fn intents_are_recorded_with_the_decision_of_the_guard_or_not_at_all(home: Home) {
    let d = document("s");
    home.grant(&d, 1..=100, "m").await;
    let intents = |people: std::ops::RangeInclusive<u128>| {
        let going = people.map(|n| LedgerRow { revoking_since: Some(home.now()), ..granted(n, "m", home.now()) });
        going.map(LedgerChange::Put).collect::<Vec<_>>()
    };
    let going = async || {
        let rows = home.store.ledger(&d).await.unwrap();
        rows.iter().filter(|row| row.revoking_since.is_some()).count()
    };
    let ask = |people| Some((asks(people, "m", false), RemovalLimits::default()));
    let held = home.store.record_intents(&d, intents(1..=20), vec![], ask(1..=20)).await.unwrap();
    assert_eq!((held.len(), going().await), (0, 20));
    let held = home.store.record_intents(&d, intents(21..=30), vec![], ask(21..=30)).await.unwrap();
    assert_eq!((held.len(), going().await), (10, 20), "nothing is recorded, not even for those who would pass alone");
    assert_eq!(home.held(&d, &asks(21..=30, "m", false)).await, 10, "the decision is");
    home.store.record_intents(&d, intents(31..=31), vec![], None).await.unwrap();
    assert_eq!(going().await, 21, "without a question there is no decision");
}

async fn what_is_not_asked_about_any_more_is_forgotten_and_what_is_released_passes_until_it_is_gone(home: Home) {
    let d = document("s");
    home.grant(&d, 1..=40, "m").await;
    let all = asks(1..=30, "m", false);
    assert_eq!(home.held(&d, &all).await, 30);
    assert_eq!(home.held(&d, &[]).await, 0);
    assert_eq!(home.held(&d, &all[..1]).await, 0, "one person who was wanted again in between");
    assert_eq!(home.held(&d, &all).await, 29, "and passes within the hour");

    home.store.release_removals(vec![(d.clone(), all[1..].to_vec())], vec![]).await.unwrap();
    home.clock.advance(Duration::from_hours(2));
    assert_eq!(home.held(&d, &all[1..]).await, 0);
    let other = document("other");
    home.grant(&other, 1..=40, "m").await;
    assert_eq!(home.held(&other, &all).await, 30, "nobody was shown the other document");
    let row = granted(2, "m", home.now());
    home.store.record(&d, vec![LedgerChange::Remove(row.grant.clone())], vec![]).await.unwrap();
    home.store.record(&d, vec![LedgerChange::Put(row)], vec![]).await.unwrap();
    assert_eq!(home.held(&d, &all[1..2]).await, 1, "what is granted again is not released");
}

async fn leavers_are_counted_by_provider_and_half_is_of_those_with_grants(home: Home) {
    for n in 1..=60 {
        home.user(n).await;
    }
    for n in 1..=5 {
        home.store.delete_user(&okta(), &origin(), UserId(Uuid::from_u128(n)), None).await.unwrap();
    }
    let documents = [document("a"), document("b"), document("c")];
    for (at, d) in documents.iter().enumerate() {
        let first = at as u128 * 10 + 1;
        home.grant(d, first..first + 10, &format!("m{at}")).await;
    }
    // 30 of 60 people have grants; ten of each mapping leave.
    assert_eq!(home.held(&documents[0], &asks(1..=10, "m0", true)).await, 0);
    assert_eq!(home.held(&documents[1], &asks(11..=14, "m1", true)).await, 0);
    assert_eq!(home.held(&documents[1], &asks(11..=15, "m1", true)).await, 1, "the 15th is half of 30");
    assert_eq!(home.held(&documents[2], &asks(21..=30, "m2", true)).await, 10);
}

#[derive(Debug, Clone)]
enum Act {
    Ask { on: usize, people: BTreeSet<u128>, leaver: bool },
    Release { on: usize },
    Wait(u64),
}

fn any_act() -> impl Strategy<Value = Act> {
    let people = (1_u128..40, 0_u128..30).prop_map(|(first, more)| (first..=first + more).collect());
    prop_oneof![
        8 => (0..3_usize, people, any::<bool>()).prop_map(|(on, people, leaver)| Act::Ask { on, people, leaver }),
        1 => (0..3_usize).prop_map(|on| Act::Release { on }),
        2 => (1..4000_u64).prop_map(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(crate::model::cases::cases(24))]
    #[test]
    fn store_decides_as_the_book_does(acts in prop::collection::vec(any_act(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for backend in backends() {
            runtime.block_on(async {
                let home = Home::on(backend).await;
                let documents = [document("a"), document("b"), document("c")];
                let begin = home.now();
                for d in &documents {
                    home.grant(d, 1..=70, "m").await;
                }
                home.clock.advance(Duration::from_secs(1));
                let mut book = GuardBook::default();
                let mut last: Vec<Vec<Removal>> = vec![vec![]; 3];
                for act in acts.clone() {
                    match act {
                        Act::Wait(seconds) => home.clock.advance(Duration::from_secs(seconds)),
                        Act::Release { on } => {
                            let removals = std::mem::take(&mut last[on]);
                            book.release(&documents[on], &removals);
                            home.store.release_removals(vec![(documents[on].clone(), removals)], vec![]).await.unwrap();
                        }
                        Act::Ask { on, people, leaver } => {
                            let asked = asks(people, "m", leaver);
                            let facts = Facts {
                                limits: RemovalLimits::default(),
                                now: home.now(),
                                provider: &|_| None,
                                people: &|scope, since| match scope {
                                    RemovalScope::Mapping(_) if begin < since => (1..=70).map(person).collect(),
                                    _ => BTreeSet::new(),
                                },
                            };
                            let expected = book.decide(&documents[on], &asked, &facts);
                            let found = home.store.guard(&documents[on], asked, RemovalLimits::default()).await.unwrap();
                            prop_assert_eq!(&found, &expected);
                            last[on] = expected.into_iter().collect();
                        }
                    }
                }
                Ok(())
            })?;
        }
    }
}

contract_tests! {
    people_are_counted_over_documents_passes_and_restarts_and_each_once,
    intents_are_recorded_with_the_decision_of_the_guard_or_not_at_all,
    people_on_a_thousand_services_are_counted_once_and_held_on_each_of_them,
    what_is_not_asked_about_any_more_is_forgotten_and_what_is_released_passes_until_it_is_gone,
    leavers_are_counted_by_provider_and_half_is_of_those_with_grants,
}
