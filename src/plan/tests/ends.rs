//! Grants that end at a time of their own, and grants that move to another condition.

use super::*;
use crate::model::{Condition, ConditionHash};

fn at(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

fn condition(title: &str) -> Condition {
    Condition { title: title.to_owned(), expression: "true".to_owned(), ..Condition::default() }
}

fn under(condition: Option<&Condition>, n: u128) -> GrantKey {
    GrantKey { condition: ConditionHash::of(condition), ..invoker(n) }
}

/// Wants the invoker role for a person under a condition, until a time.
fn want(fixture: &mut Fixture, n: u128, condition: Option<&Condition>, not_after: Option<&str>) {
    fixture.want("m", INVOKER, n, WRITE);
    let mut grant = fixture.desired.grants.remove(&invoker(n)).unwrap();
    grant.condition = condition.cloned();
    let ground = Ground {
        provider: crate::model::ProviderName::new("okta").unwrap(),
        groups: BTreeSet::new(),
        through: BTreeSet::new(),
        mapping_uid: None,
        generation: None,
        not_after: not_after.map(at),
    };
    grant.grounds = grant.claims.keys().map(|claim| (claim.clone(), ground.clone())).collect();
    fixture.desired.grants.insert(under(condition, n), grant);
}

fn everybody(fixture: &mut Fixture, people: u128, condition: Option<&Condition>, not_after: Option<&str>) {
    fixture.unwant("m");
    for n in 1..=people {
        want(fixture, n, condition, not_after);
    }
}

fn causes(steps: &[Step]) -> BTreeSet<Cause> {
    steps.iter().map(|step| step.cause).collect()
}

#[test]
fn what_has_ended_goes_without_the_guard_and_is_audited_as_expiry() {
    let mut fixture = granted(0);
    everybody(&mut fixture, 60, None, Some("2026-02-01T00:00:00Z"));
    fixture.pass();
    fixture.pass();
    assert_eq!(fixture.row(&invoker(1)).grounds.values().next().unwrap().not_after, Some(at("2026-02-01T00:00:00Z")));
    fixture.unwant("m");
    fixture.desired.as_of = at("2026-02-01T00:00:00Z");
    let plan = fixture.pass();
    assert_eq!((plan.remove.len(), plan.asks.len(), plan.held.is_empty()), (60, 0, true));
    assert_eq!(causes(&plan.remove), BTreeSet::from([Cause::Expired]));
    assert!(fixture.ledger.is_empty() && fixture.members(INVOKER) == ["user:foreign@corp.example"]);
    let rows = fixture.audit.iter().filter(|entry| entry.action == "revoke");
    assert!(rows.into_iter().all(|entry| entry.actor == "expiry" && entry.reason.as_deref() == Some("Expired")));
}

#[test]
fn an_end_that_was_moved_into_the_past_is_no_matter_of_the_guard() {
    let mut fixture = granted(0);
    everybody(&mut fixture, 60, None, Some("2027-02-01T00:00:00Z"));
    fixture.pass();
    fixture.unwant("m");
    fixture.desired.as_of = fixture.now;
    assert!(!fixture.plan().held.is_empty(), "the people left the group at once");
    fixture.desired.ended.insert(mapping("m"), BTreeSet::from([invoker(1).role]));
    let plan = fixture.pass();
    assert_eq!((plan.remove.len(), causes(&plan.remove)), (60, BTreeSet::from([Cause::Expired])));
}

#[test]
fn a_frozen_grant_ends_on_time_unless_everything_is_in_doubt() {
    for (reason, goes) in [
        (FreezeReason::MappingMissing, true),
        (FreezeReason::Suspended, true),
        (FreezeReason::IdentityProviderNotFound, true),
        (FreezeReason::InventoryIncomplete, true),
        (FreezeReason::NotLoaded, false),
        (FreezeReason::StoreMismatch, false),
    ] {
        let mut fixture = granted(0);
        everybody(&mut fixture, 1, None, Some("2026-02-01T00:00:00Z"));
        fixture.pass();
        fixture.unwant("m");
        fixture.enforcement("m", Enforcement::Frozen(reason));
        fixture.desired.as_of = at("2026-01-31T23:59:59Z");
        let plan = fixture.pass();
        assert_eq!((plan.remove.len(), plan.recheck_at), (0, Some(at("2026-02-01T00:00:00Z"))), "{reason:?}");
        fixture.desired.as_of = at("2026-02-01T00:00:00Z");
        let plan = fixture.pass();
        assert_eq!(plan.remove.len(), usize::from(goes), "{reason:?}");
        if !goes {
            continue;
        }
        assert_eq!(plan.remove[0].cause, Cause::Expired);
    }
}

#[test]
fn a_target_that_permits_a_suspended_mapping_to_keep_leavers_keeps_what_has_ended() {
    let mut fixture = granted(0);
    everybody(&mut fixture, 1, None, Some("2026-02-01T00:00:00Z"));
    fixture.pass();
    fixture.unwant("m");
    fixture.enforcement("m", Enforcement::Frozen(FreezeReason::Suspended));
    fixture.desired.may_suspend.insert(mapping("m"), BTreeSet::from([invoker(1).role]));
    fixture.desired.as_of = at("2026-02-01T00:00:00Z");
    assert_eq!(fixture.pass().remove.len(), 0);
}

#[test]
fn another_condition_moves_everybody_in_one_write_without_the_guard() {
    let mut fixture = granted(0);
    everybody(&mut fixture, 60, None, None);
    fixture.pass();
    fixture.pass();
    let hours = condition("office-hours");
    everybody(&mut fixture, 60, Some(&hours), None);
    let plan = fixture.pass();
    assert_eq!((plan.add.len(), plan.remove.len(), plan.asks.len()), (60, 60, 0));
    assert_eq!(causes(&plan.remove), BTreeSet::from([Cause::Moved]));
    assert!(fixture.live.has(&under(Some(&hours), 1)) && !fixture.live.has(&invoker(1)));
    assert_eq!(fixture.pass().changes, None, "it is settled");
    fixture.unwant("m");
    assert!(!fixture.pass().held.is_empty(), "who is not wanted at all is a matter of the guard");
}

#[test]
fn a_move_fits_into_a_full_policy_and_waits_whole_for_what_google_refuses() {
    let mut fixture = granted(0);
    let people = LIMIT as u128 - 1;
    everybody(&mut fixture, people, None, None);
    fixture.pass();
    let hours = condition("office-hours");
    everybody(&mut fixture, people, Some(&hours), None);
    want(&mut fixture, people + 1, Some(&hours), None);
    let plan = fixture.plan();
    assert_eq!((plan.add.len(), plan.remove.len()), (LIMIT - 1, LIMIT - 1));
    assert_eq!(plan.limit.as_ref().unwrap().withheld, [under(Some(&hours), people + 1)], "the new one does not fit");

    let mut fixture = granted(0);
    everybody(&mut fixture, 2, None, None);
    fixture.pass();
    everybody(&mut fixture, 1, Some(&hours), None);
    let plan = fixture.plan();
    let refused = BTreeSet::from([under(Some(&hours), 1)]);
    let part = plan.restricted(&BTreeSet::new(), &refused);
    let removed: Vec<&GrantKey> = part.remove.iter().map(Step::grant).collect();
    assert!(removed.contains(&&invoker(2)) && !removed.contains(&&invoker(1)), "{removed:?}");
    let outcome = CallOutcome::Acknowledged { revision: "after".into() };
    assert_eq!(part.counts(Some(&outcome))[&mapping("m")].revoking, 1, "it is said that the former one stays");
}

#[test]
fn a_grant_without_condition_stands_beside_one_that_ends() {
    let mut fixture = granted(0);
    let ending = condition("rolecall-not-after");
    want(&mut fixture, 1, Some(&ending), Some("2026-02-01T00:00:00Z"));
    fixture.want("other", INVOKER, 1, WRITE);
    fixture.pass();
    assert!(fixture.live.has(&invoker(1)) && fixture.live.has(&under(Some(&ending), 1)));
    fixture.unwant("m");
    fixture.desired.as_of = at("2026-02-01T00:00:00Z");
    let plan = fixture.pass();
    assert_eq!((plan.remove.len(), plan.remove[0].cause), (1, Cause::Expired));
    assert!(fixture.live.has(&invoker(1)) && !fixture.live.has(&under(Some(&ending), 1)));
}

#[test]
fn a_changed_condition_of_ours_is_drift_and_the_changed_binding_stays() {
    let mut fixture = granted(0);
    let hours = condition("office-hours");
    want(&mut fixture, 1, Some(&hours), None);
    fixture.pass();
    fixture.pass();
    let changed = condition("always");
    fixture.live.grants.remove(&under(Some(&hours), 1));
    put(&mut fixture.live, INVOKER, ConditionHash::of(Some(&changed)), &email(1));
    fixture.touch();
    let plan = fixture.pass();
    assert_eq!((plan.lost.len(), plan.add.len(), plan.remove.len(), plan.foreign), (1, 1, 0, 2));
    assert!(fixture.live.has(&under(Some(&hours), 1)) && fixture.live.has(&under(Some(&changed), 1)));
}
