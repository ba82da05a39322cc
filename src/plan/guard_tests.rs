//! Tests of the guard: what it holds, what it lets pass, and what releases held removals.

use std::collections::BTreeSet;

use super::fixtures::*;
use super::*;
use crate::model::{AuditOutcome, Enforcement, Keep};

/// Number of people for whom removals are held, by mapping and kind.
fn held(plan: &Plan) -> Vec<(String, bool, usize)> {
    let of = |part: &HeldPart| {
        let people: BTreeSet<_> = part.removals.iter().map(|removal| removal.claim.subject).collect();
        (part.mapping.name().to_owned(), part.leavers, people.len())
    };
    plan.held.parts.iter().map(of).collect()
}

fn removals(n: usize) -> Vec<(String, bool, usize)> {
    vec![("m".to_owned(), false, n)]
}

fn leavers(n: usize) -> Vec<(String, bool, usize)> {
    vec![("m".to_owned(), true, n)]
}

fn hash(fixture: &Fixture, plan: &Plan) -> String {
    let part = &plan.held.parts[0];
    held_hash(&part.mapping, part.leavers, std::iter::once((&fixture.document, part)))
}

fn leave(fixture: &mut Fixture, person: u128) {
    fixture.unwant_person(person);
    fixture.left.insert(user(person));
}

#[test]
fn mass_removal_is_held_listed_and_released_while_additions_go_on() {
    let mut fixture = granted(20);
    fixture.unwant("m");
    for person in 11..=20 {
        fixture.want("m", INVOKER, person, WRITE);
    }
    assert_eq!(fixture.plan().held, Held::default(), "ten people");
    fixture.unwant("m");
    for person in 21..=60 {
        fixture.want("m", INVOKER, person, WRITE);
    }
    let first = fixture.pass();
    assert_eq!((held(&first), first.held.grants(false).len(), first.add.len()), (removals(20), 20, 40));
    let name = hash(&fixture, &first);
    assert_eq!(name.len(), 16);
    assert_eq!(fixture.audited("revoke"), vec![(AuditOutcome::Held, Some("MassRemoval")); 20]);
    let counts = first.counts(Some(&CallOutcome::Acknowledged { revision: String::new() }))[&mapping("m")];
    assert_eq!((counts.held, counts.held_leavers, counts.acknowledged, counts.revoking), (20, 0, 40, 0));

    let second = fixture.pass();
    assert_eq!(second.held, first.held, "additions do not dilute it");
    assert_eq!(hash(&fixture, &second), name, "neither time nor revision change its hash");
    assert_eq!(fixture.audited("revoke").len(), 20, "said once");
    fixture.later(86_400);
    assert_eq!(fixture.pass().held, first.held, "it does not drain as the hour slides");

    fixture.release(&first.held);
    let third = fixture.pass();
    assert_eq!((third.remove.len(), held(&third)), (20, vec![]));
    assert_eq!(fixture.members(INVOKER).len(), 41);
}

#[test]
fn release_applies_to_the_shown_removals_and_no_others() {
    let mut fixture = granted(40);
    for person in 1..=26 {
        fixture.unwant_person(person);
    }
    let shown = fixture.pass();
    let before = hash(&fixture, &shown);
    fixture.unwant_person(27);
    let more = fixture.pass();
    assert_eq!(held(&more), removals(27));
    assert_ne!(hash(&fixture, &more), before);
    fixture.release(&shown.held);
    let rest = fixture.pass();
    assert_eq!((rest.remove.len(), held(&rest)), (26, removals(1)));
    assert!(fixture.members(INVOKER).contains(&email(27).as_str()));
}

#[test]
fn exactly_half_is_held_as_often_as_it_is_tried() {
    let mut fixture = granted(50);
    for person in 1..=25 {
        fixture.unwant_person(person);
    }
    assert_eq!(held(&fixture.pass()), removals(25), "25 of 50");
    for (first, last) in [(26, 37), (38, 43), (44, 46), (47, 48), (49, 49)] {
        for person in first..=last {
            fixture.unwant_person(person);
        }
        let plan = fixture.pass();
        assert_eq!((plan.remove.len(), held(&plan)), (0, removals(usize::try_from(last).unwrap())));
    }
    assert_eq!(fixture.members(INVOKER).len(), 51);
}

#[test]
fn less_than_half_passes_up_to_the_limit_of_the_hour_one_after_the_other() {
    let mut fixture = granted(100);
    for person in 1..=25 {
        fixture.unwant_person(person);
        assert_eq!((fixture.pass().remove.len(), person), (1, person));
    }
    fixture.unwant_person(26);
    assert_eq!(held(&fixture.pass()), removals(1), "the 26th within the hour");
    fixture.later(3600);
    fixture.unwant_person(27);
    let plan = fixture.pass();
    assert_eq!((plan.remove.len(), held(&plan)), (1, removals(1)), "an hour later; what is held stays held");
}

#[test]
fn everybody_deactivated_one_after_the_other_is_stopped_at_half() {
    let mut fixture = granted(60);
    for person in 1..=60 {
        leave(&mut fixture, person);
        fixture.pass();
    }
    assert_eq!(held(&fixture.plan()), leavers(31));
    assert_eq!(fixture.members(INVOKER).len(), 32, "29 of 60 passed, and a stranger is there");
    let counts = fixture.plan().counts(None)[&mapping("m")];
    assert_eq!((counts.held, counts.held_leavers), (31, 31));
}

#[test]
fn up_to_ten_leavers_pass_beside_a_held_mass_removal() {
    let mut fixture = granted(30);
    fixture.unwant("m");
    fixture.left.extend((1..=10).map(user));
    let plan = fixture.pass();
    assert_eq!((plan.remove.len(), held(&plan)), (10, removals(20)));
    assert!(plan.remove.iter().all(|step| step.cause == Cause::Leaver));
}

#[test]
fn many_leavers_at_once_are_held_and_a_single_later_one_still_passes() {
    let mut fixture = granted(40);
    for person in 1..=30 {
        leave(&mut fixture, person);
    }
    let plan = fixture.pass();
    assert_eq!((plan.remove.len(), held(&plan)), (0, leavers(30)));
    leave(&mut fixture, 31);
    let next = fixture.pass();
    assert_eq!((next.remove.len(), &next.held), (1, &plan.held));
}

#[test]
fn a_single_leaver_beside_held_ones_passes_again_after_a_conflict_a_refusal_and_a_crash() {
    for outcome in [CallOutcome::Conflict, refused(), CallOutcome::Unknown] {
        let mut fixture = granted(20);
        for person in 1..=12 {
            leave(&mut fixture, person);
        }
        let before = fixture.pass();
        assert_eq!(held(&before), leavers(12));
        assert!(fixture.row(&invoker(1)).held);
        leave(&mut fixture, 13);
        for _ in 0..3 {
            let plan = fixture.pass_with(&outcome);
            assert_eq!(plan.remove.iter().map(Step::grant).collect::<Vec<_>>(), [&invoker(13)], "{outcome:?}");
        }
        let plan = fixture.pass();
        assert_eq!((plan.remove.len(), &plan.held), (1, &before.held), "{outcome:?}");
        assert!(!fixture.ledger.contains_key(&invoker(13)));
        fixture.want("m", INVOKER, 1, WRITE);
        fixture.left.remove(&user(1));
        fixture.pass();
        assert!(!fixture.row(&invoker(1)).held, "who is wanted again starts afresh");
    }
}

#[test]
fn a_person_held_as_a_member_is_removed_as_a_leaver() {
    let mut fixture = granted(20);
    fixture.unwant("m");
    assert_eq!(held(&fixture.pass()), removals(20));
    fixture.left.insert(user(7));
    let plan = fixture.pass();
    assert_eq!((plan.remove.len(), held(&plan)), (1, removals(19)));
}

#[test]
fn what_one_mapping_holds_does_not_keep_another_that_is_deleted_with_one_person() {
    let mut fixture = granted(20);
    fixture.want("other", INVOKER, 1, WRITE);
    fixture.want("other", VIEWER, 30, WRITE);
    fixture.pass();
    fixture.unwant("m");
    fixture.unwant("other");
    fixture.enforcement("m", Enforcement::Ended { orphan: false });
    fixture.enforcement("other", Enforcement::Ended { orphan: false });
    let plan = fixture.pass();
    assert_eq!(held(&plan), removals(20));
    assert_eq!(plan.remove.iter().map(Step::grant).collect::<Vec<_>>(), [&key(VIEWER, &email(30))]);
    let claims = fixture.ledger.values().flat_map(|row| &row.claims);
    assert!(claims.into_iter().all(|claim| claim.mapping == mapping("m")), "the other mapping is done with");
}

#[test]
fn release_of_one_mapping_leaves_what_another_holds_on_the_same_policy() {
    let mut fixture = granted(20);
    for person in 1..=40 {
        fixture.want("other", if person > 20 { INVOKER } else { VIEWER }, person, WRITE);
    }
    fixture.pass();
    fixture.unwant("m");
    fixture.unwant("other");
    let plan = fixture.pass();
    assert_eq!(held(&plan), [("m".to_owned(), false, 20), ("other".to_owned(), false, 40)]);
    let [m, other] = &plan.held.parts[..] else { panic!("two parts") };
    let name = |part: &HeldPart| held_hash(&part.mapping, part.leavers, std::iter::once((&fixture.document, part)));
    assert_ne!(name(m), name(other));
    fixture.release(&Held { parts: vec![m.clone()] });
    let rest = fixture.pass();
    assert_eq!((rest.remove.len(), held(&rest)), (20, vec![("other".to_owned(), false, 40)]));
}

#[test]
fn the_same_person_by_two_mappings_is_held_by_either_and_counted_once_as_a_leaver() {
    let mut fixture = granted(12);
    for person in 1..=12 {
        fixture.want("other", VIEWER, person, WRITE);
    }
    fixture.enforcement("other", Enforcement::Live { keep: Keep::Nothing });
    fixture.pass();
    for person in 1..=10 {
        leave(&mut fixture, person);
    }
    let plan = fixture.pass();
    assert_eq!((plan.remove.len(), held(&plan)), (20, vec![]), "ten people and twenty grants");
}

/// Largest number of people of a scope who may lose access within an hour.
fn allowed(people: u128) -> usize {
    usize::try_from((people - 1) / 2).unwrap().clamp(10, 100)
}

proptest::proptest! {
    #[test]
    fn no_order_of_reconciles_removes_more_people_than_the_hour_allows(
        people in 1_u128..80,
        left in proptest::prelude::any::<bool>(),
        batches in proptest::collection::vec((1_u128..30, 0_i64..120), 1..20),
    ) {
        let mut fixture = granted(people);
        let mut next = 1;
        let mut went = 0;
        for (size, pause) in batches {
            fixture.later(pause);
            for person in next..(next + size).min(people + 1) {
                if left { leave(&mut fixture, person) } else { fixture.unwant_person(person) }
            }
            next += size;
            went += fixture.pass().remove.len();
        }
        let most = if left { allowed(people) } else { allowed(people).min(25) };
        proptest::prop_assert!(went <= most, "{went} of {people}");
        let rest = fixture.plan();
        let held = rest.held.grants(false).len();
        proptest::prop_assert_eq!(held + went, usize::try_from((next - 1).min(people)).unwrap());
        fixture.later(3600);
        proptest::prop_assert!(fixture.pass().remove.is_empty(), "it does not drain");
    }
}
