//! Grants that somebody else made: taken over where that is permitted, and reported when they keep the access of people
//! who have left.

use super::*;

/// A fixture in which somebody else gave person 1 the role that mapping `m` wants for persons 1 and 2.
fn brown_field() -> Fixture {
    let mut fixture = Fixture::new(&json!([{"role": INVOKER, "members": [email(1), "user:foreign@corp.example"]}]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.want("m", INVOKER, 2, WRITE);
    fixture.reach("m");
    fixture
}

#[test]
fn a_grant_of_somebody_else_is_adopted_without_an_outage_and_revoked_like_any_other() {
    let mut fixture = brown_field();
    fixture.pass();
    assert_eq!(fixture.row(&invoker(1)).state, GrantState::Unowned);
    fixture.adopt("m");
    let plan = fixture.pass();
    assert!(plan.changes.is_none(), "what stands is not written again");
    let row = fixture.row(&invoker(1));
    assert_eq!((row.state, row.acknowledged_at.is_some(), row.verified_at.is_some()), (GrantState::Owned, true, true));
    assert_eq!(fixture.audited("adopt"), [(AuditOutcome::Verified, Some("Adopted"))]);
    fixture.pass();
    assert_eq!(fixture.audited("adopt").len(), 1);
    fixture.unwant_person(1);
    fixture.left.insert(user(1));
    fixture.pass();
    assert_eq!(fixture.members(INVOKER), ["user:foreign@corp.example", email(2).as_str()]);
}

#[test]
fn only_what_the_mapping_wants_and_may_is_adopted() {
    let mut fixture = Fixture::new(&json!([
        {"role": INVOKER, "members": [email(1), email(3)]}, {"role": VIEWER, "members": [email(1)]}
    ]));
    for role in [INVOKER, VIEWER] {
        fixture.want("m", role, 1, WRITE);
    }
    fixture.want("other", INVOKER, 3, WRITE);
    fixture.adopt("m");
    fixture.pass();
    let owned = |fixture: &Fixture, grant: &GrantKey| fixture.row(grant).state == GrantState::Owned;
    assert!(owned(&fixture, &invoker(1)));
    assert!(!owned(&fixture, &key(VIEWER, &email(1))), "the role is not permitted");
    assert!(!owned(&fixture, &invoker(3)), "the other mapping does not adopt");
}

#[test]
fn observe_mode_adopts_nothing() {
    let mut fixture = Fixture::new(&json!([{"role": INVOKER, "members": [email(1)]}]));
    fixture.want("m", INVOKER, 1, ClaimTerms { write: false, regrant: true });
    fixture.adopt("m");
    fixture.pass();
    assert!(fixture.ledger.is_empty() && fixture.audit.is_empty());
}

#[test]
fn the_access_that_a_leaver_keeps_through_somebody_else_is_reported_as_long_as_it_lasts() {
    let mut fixture = brown_field();
    fixture.pass();
    fixture.unwant_person(1);
    fixture.left.insert(user(1));
    for _ in 0..3 {
        let plan = fixture.pass();
        assert_eq!(plan.left.keys().collect::<Vec<_>>(), [&invoker(1)]);
        assert!(plan.remains.is_empty());
        assert!(plan.changes.is_none() && fixture.members(INVOKER).contains(&email(1).as_str()));
    }
    let since = fixture.row(&invoker(1)).left_at;
    assert!(since.is_some_and(|since| since < fixture.now));
    assert_eq!(fixture.audited("remains"), [(AuditOutcome::Verified, Some("LeaverHasForeignGrant"))]);
    // Somebody takes it out.
    fixture.stranger(INVOKER, &email(1), false);
    assert!(fixture.pass().left.is_empty());
    assert!(!fixture.ledger.contains_key(&invoker(1)));
    assert_eq!(fixture.audited("forget"), [(AuditOutcome::Verified, Some("AlreadyGone"))]);
}

#[test]
fn a_leaver_who_comes_back_is_no_leaver_and_a_deleted_mapping_reports_no_longer() {
    let mut fixture = brown_field();
    fixture.pass();
    fixture.unwant_person(1);
    fixture.left.insert(user(1));
    fixture.pass();
    fixture.left.clear();
    fixture.want("m", INVOKER, 1, WRITE);
    assert!(fixture.pass().left.is_empty());
    let row = fixture.row(&invoker(1));
    assert_eq!((row.state, row.left_at), (GrantState::Unowned, None));
    fixture.unwant_person(1);
    fixture.left.insert(user(1));
    fixture.pass();
    fixture.unwant("m");
    fixture.enforcement("m", Enforcement::Ended { orphan: false });
    fixture.desired.reached.clear();
    assert!(fixture.pass().left.is_empty());
    assert!(fixture.ledger.is_empty() && fixture.members(INVOKER).contains(&email(1).as_str()));
}

#[test]
fn a_spelling_that_may_be_of_somebody_else_is_not_adopted() {
    let mut fixture = brown_field();
    fixture.pass();
    // Google folded the alias of person 1 into one of these.
    let stranger = "user:foreign@corp.example".to_owned();
    fixture.stranger(INVOKER, &email(1), false);
    let row = fixture.ledger.get_mut(&invoker(1)).unwrap();
    row.stored_as = BTreeSet::from([stranger.clone()]);
    row.state = GrantState::Unowned;
    fixture.adopt("m");
    fixture.pass();
    assert_eq!(fixture.row(&invoker(1)).state, GrantState::Unowned);
    fixture.unwant_person(1);
    fixture.left.insert(user(1));
    let plan = fixture.pass();
    assert!(plan.changes.is_none() && fixture.members(INVOKER).contains(&stranger.as_str()));
}

#[test]
fn the_report_of_a_leaver_outlives_a_second_mapping_a_part_of_the_spellings_and_a_tombstone() {
    let mut fixture = brown_field();
    fixture.want("other", INVOKER, 1, WRITE);
    fixture.reach("other");
    fixture.pass();
    fixture.unwant_person(1);
    fixture.left.insert(user(1));
    fixture.pass();
    assert_eq!(fixture.row(&invoker(1)).claims.len(), 2);
    fixture.desired.reached.remove(&mapping("other"));
    fixture.enforcement("other", Enforcement::Ended { orphan: false });
    fixture.pass();
    assert_eq!(fixture.row(&invoker(1)).claims.len(), 1);
    // Off-boarding deletes the account at Google: within 30 days it may come back, with its grant.
    fixture.stranger(INVOKER, &email(1), false);
    fixture.stranger(INVOKER, &format!("deleted:{}?uid=1", email(1)), true);
    let plan = fixture.pass();
    assert_eq!((plan.left.len(), plan.changes), (1, None));
    fixture.stranger(INVOKER, &format!("deleted:{}?uid=1", email(1)), false);
    assert!(fixture.pass().left.is_empty() && !fixture.ledger.contains_key(&invoker(1)));
}

#[test]
fn a_mapping_that_reaches_the_document_no_longer_reports_no_longer() {
    let mut fixture = brown_field();
    fixture.pass();
    fixture.unwant_person(1);
    fixture.left.insert(user(1));
    fixture.pass();
    fixture.desired.reached.clear();
    let plan = fixture.pass();
    assert!(plan.left.is_empty() && !fixture.ledger.contains_key(&invoker(1)));
}

#[test]
fn a_grant_is_not_counted_as_taken_over_before_the_read_is_proven() {
    let mut fixture = brown_field();
    fixture.adopt("m");
    let mut inputs = fixture.inputs();
    inputs.evidence = Evidence::Unproven { may_prove: false };
    assert_eq!(plan(&inputs).unowned, [invoker(1)]);
}
