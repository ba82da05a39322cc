//! What follows from the answer to a call, and from none.

use super::*;

#[test]
fn after_a_refusal_a_member_added_by_somebody_else_is_not_owned_and_stays() {
    for seen_between in [true, false] {
        let mut fixture = Fixture::new(&json!([]));
        fixture.want("m", INVOKER, 1, WRITE);
        let plan = fixture.pass_with(&refused());
        assert_eq!(plan.counts(Some(&refused()))[&mapping("m")].failed, 1);
        assert_eq!((fixture.row(&invoker(1)).state, &fixture.row(&invoker(1)).intent), (GrantState::Wanted, &None));
        fixture.stranger(INVOKER, &email(1), true);
        if seen_between {
            fixture.pass();
            assert_eq!(fixture.row(&invoker(1)).state, GrantState::Unowned);
        }
        fixture.unwant("m");
        fixture.enforcement("m", Enforcement::Ended { orphan: false });
        assert_eq!(fixture.pass().remains.len(), 1);
        assert_eq!(fixture.members(INVOKER), [email(1)]);
        assert!(fixture.ledger.is_empty());
    }
}

#[test]
fn a_refused_revocation_stays_owned_and_records_its_start() {
    let mut fixture = granted(1);
    fixture.unwant("m");
    fixture.later(5);
    fixture.pass_with(&refused());
    let since = fixture.row(&invoker(1)).revoking_since;
    let plan = fixture.pass_with(&refused());
    assert_eq!(fixture.row(&invoker(1)).state, GrantState::Owned);
    let counts = plan.counts(Some(&refused()))[&mapping("m")];
    assert_eq!((counts.revoking, counts.oldest_revoking_since), (1, since));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass();
    assert_eq!(fixture.row(&invoker(1)).revoking_since, None);
}

#[test]
fn a_conflict_clears_the_intents_and_the_next_reconcile_converges() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass_with(&CallOutcome::Conflict);
    assert_eq!(fixture.row(&invoker(1)).intent, None);
    fixture.stranger(VIEWER, "user:x@y.z", true);
    fixture.pass();
    assert_eq!(fixture.row(&invoker(1)).state, GrantState::Owned);
    assert_eq!(fixture.audited("grant")[1], (AuditOutcome::Failed, Some("Conflict")));
}

#[test]
fn a_grant_committed_behind_a_timeout_is_ours_and_its_attribution_is_audited() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, WRITE);
    let plan = fixture.pass_with(&CallOutcome::Unknown);
    fixture.commit(&plan);
    fixture.unwant("m");
    let plan = fixture.pass();
    assert_eq!(plan.remove.len(), 1, "no orphan, even if it is no longer wanted");
    assert_eq!(fixture.audited("grant")[1], (AuditOutcome::Ambiguous, Some("AttributionAmbiguous")));
    assert!(fixture.live.grants.is_empty());
}

#[test]
fn an_uncommitted_grant_is_planned_again_and_a_late_first_call_is_still_ours_after_the_conflict() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, WRITE);
    let first = fixture.pass_with(&CallOutcome::Unknown);
    let second = fixture.pass_with(&CallOutcome::Conflict);
    assert_eq!(second.add.len(), 1);
    assert!(fixture.row(&invoker(1)).intent.is_some(), "the first call may be what the second one met");
    fixture.commit(&first);
    fixture.pass();
    assert_eq!(fixture.row(&invoker(1)).state, GrantState::Owned);
    assert!(fixture.row(&invoker(1)).intent.is_none());
}

#[test]
fn a_second_call_that_is_acknowledged_closes_the_first_as_not_committed() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass_with(&CallOutcome::Unknown);
    fixture.pass();
    let outcomes: Vec<_> = fixture.audited("grant").into_iter().map(|(outcome, _)| outcome).collect();
    let closed = [AuditOutcome::Intended, AuditOutcome::Intended, AuditOutcome::Failed, AuditOutcome::Acknowledged];
    assert_eq!(outcomes, closed);
}

#[test]
fn a_call_that_may_still_land_and_that_nobody_wants_any_more_is_fenced_off_by_a_write_that_changes_nothing() {
    let mut fixture = Fixture::new(&json!([{"role": INVOKER, "members": ["user:foreign@corp.example"]}]));
    fixture.want("m", INVOKER, 1, WRITE);
    let first = fixture.pass_with(&CallOutcome::Unknown);
    fixture.unwant("m");
    fixture.later(100_000);
    let fence = fixture.plan();
    assert!(fence.add.is_empty() && fence.remove.is_empty());
    assert_eq!(fence.changes, Some(Changes::default()));

    // Whatever prevents the fence also keeps the intent: the call may still arrive.
    for outcome in [CallOutcome::Unknown, CallOutcome::Conflict, refused()] {
        assert!(fixture.pass_with(&outcome).changes.is_some());
        assert!(fixture.row(&invoker(1)).intent.is_some());
    }
    let live = fixture.live.clone();
    fixture.commit(&first);
    assert_eq!(fixture.plan().remove.len(), 1, "if it lands it is ours");
    fixture.live = live;

    assert!(fixture.pass().changes.is_some());
    assert!(fixture.ledger.is_empty() && fixture.live.revision != first.read().revision);
    assert_eq!(fixture.audited("grant")[1], (AuditOutcome::Failed, Some("NotCommitted")));
    assert!(fixture.plan().changes.is_none());
}

#[test]
fn an_acknowledgement_that_leaves_the_revision_fences_nothing_off() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass_with(&CallOutcome::Unknown);
    fixture.unwant("m");
    let plan = fixture.plan();
    let revision = fixture.live.revision.clone();
    assert_eq!(plan.settle(&CallOutcome::Acknowledged { revision }, fixture.now), (vec![], vec![]));
}

#[test]
fn an_earlier_call_is_fenced_off_by_whatever_is_written() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass_with(&CallOutcome::Unknown);
    fixture.unwant("m");
    fixture.want("m", INVOKER, 2, WRITE);
    assert_eq!(fixture.pass().add.len(), 1);
    assert_eq!(fixture.ledger.keys().collect::<Vec<_>>(), [&invoker(2)]);
    assert!(fixture.pass().changes.is_none());
}

#[test]
fn what_may_not_be_written_on_any_ground_is_not_fenced_off_and_not_forgotten() {
    for enforcement in
        [Some(Enforcement::Frozen(FreezeReason::Observed)), Some(Enforcement::Frozen(FreezeReason::StoreRewound)), None]
    {
        let mut fixture = Fixture::new(&json!([]));
        fixture.want("m", INVOKER, 1, WRITE);
        fixture.pass_with(&CallOutcome::Unknown);
        fixture.unwant("m");
        match enforcement {
            Some(enforcement) => fixture.enforcement("m", enforcement),
            None => fixture.desired.enforcements.clear(),
        }
        fixture.later(100_000);
        assert!(fixture.pass().changes.is_none());
        assert!(fixture.row(&invoker(1)).intent.is_some());
        fixture.enforcement("m", Enforcement::Ended { orphan: false });
        assert!(fixture.pass().changes.is_some());
        assert!(fixture.ledger.is_empty());
    }
}

#[test]
fn an_addition_that_google_refused_leaves_an_earlier_call_for_it_fenced_off() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass_with(&CallOutcome::Unknown);
    let plan = fixture.pass_with(&refused());
    let alone = plan.with_additions(|_| false).unwrap();
    assert!(alone.add.is_empty() && alone.changes == Some(Changes::default()));
    fixture.commit(&alone);
    fixture.record(alone.settle(&CallOutcome::Acknowledged { revision: "after".into() }, fixture.now));
    assert_eq!(fixture.row(&invoker(1)).intent, None);
}

#[test]
fn a_revocation_committed_behind_a_timeout_is_done_and_no_drift() {
    for wanted_again in [false, true] {
        let mut fixture = granted(1);
        fixture.unwant("m");
        let plan = fixture.pass_with(&CallOutcome::Unknown);
        fixture.commit(&plan);
        if wanted_again {
            fixture.want("m", INVOKER, 1, WRITE);
        }
        let plan = fixture.pass();
        assert!(plan.lost.is_empty());
        assert_eq!(fixture.members(INVOKER).len(), if wanted_again { 2 } else { 1 });
        assert_eq!(fixture.ledger.len(), usize::from(wanted_again));
        assert!(fixture.audited("revoke").contains(&(AuditOutcome::Ambiguous, Some("AttributionAmbiguous"))));
    }
}

#[test]
fn a_revocation_that_may_still_land_is_fenced_off_when_the_member_is_wanted_again_and_no_drift_if_it_lands_first() {
    let mut fixture = granted(1);
    fixture.unwant("m");
    let late = fixture.pass_with(&CallOutcome::Unknown);
    fixture.want("m", INVOKER, 1, WRITE);
    let plan = fixture.pass_with(&CallOutcome::Conflict);
    assert!(plan.changes.is_some() && plan.add.is_empty() && plan.remove.is_empty());
    let live = fixture.live.clone();
    fixture.commit(&late);
    let plan = fixture.plan();
    assert!(plan.lost.is_empty());
    assert_eq!(plan.add.len(), 1);

    fixture.live = live;
    fixture.pass();
    assert_eq!((fixture.row(&invoker(1)).state, &fixture.row(&invoker(1)).intent), (GrantState::Owned, &None));
    assert_eq!(fixture.members(INVOKER).len(), 2);
    assert!(fixture.pass().changes.is_none());
}

#[test]
fn a_member_that_was_present_before_the_call_is_not_ours_after_it() {
    let mut fixture = Fixture::new(&json!([{"role": INVOKER, "members": [email(1)]}]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass();
    let mut row = fixture.row(&invoker(1)).clone();
    row.state = GrantState::Wanted;
    row.intent = Some(Intent {
        action: IntentAction::Grant,
        revision_before: "older".into(),
        present_before: true,
        at: fixture.now,
        plan_hash: String::new(),
    });
    fixture.ledger.insert(invoker(1), row);
    fixture.pass();
    assert_eq!((fixture.row(&invoker(1)).state, &fixture.row(&invoker(1)).intent), (GrantState::Unowned, &None));
}
