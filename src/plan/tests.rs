use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use uuid::Uuid;

use super::fixtures::*;
use super::*;
use crate::model::{
    AuditOutcome, Claim, ClaimTerms, Enforcement, FreezeReason, GrantState, Ground, GroupId, Intent, Keep, KeptGroups,
};

#[test]
fn a_wanted_member_is_added_and_everybody_else_is_foreign() {
    let mut fixture = Fixture::new(&json!([
        {"role": VIEWER, "members": []},
        {"role": "roles/owner", "members": ["user:Boss@Corp.example"]},
        {"role": INVOKER, "members": ["allUsers"], "condition": {"title": "t", "expression": "true"}},
        {"role": INVOKER, "members": ["deleted:user:p1@corp.example?uid=7"]},
    ]));
    fixture.want("m", INVOKER, 1, WRITE);
    let plan = fixture.plan();
    let addition = Addition { grant: invoker(1), member: email(1), condition: None };
    assert_eq!(plan.changes, Some(Changes { add: vec![addition], remove: BTreeSet::new() }));
    assert_eq!((plan.foreign, plan.add.len(), plan.remove.len()), (3, 1, 0));
}

#[test]
fn an_acknowledged_grant_is_verified_by_the_next_read_and_then_nothing_changes() {
    let mut fixture = granted(1);
    assert_eq!(
        fixture.audited("grant"),
        [
            (AuditOutcome::Intended, Some("Wanted")),
            (AuditOutcome::Acknowledged, Some("Wanted")),
            (AuditOutcome::Verified, None)
        ]
    );
    let plan = fixture.pass();
    assert!(plan.changes.is_none() && plan.ledger.is_empty() && plan.audit.is_empty());
    let counts = plan.counts(None)[&mapping("m")];
    assert_eq!((counts.desired, counts.acknowledged, counts.verified, plan.foreign), (1, 1, 1, 1));
}

#[test]
fn a_removed_member_is_revoked_and_forgotten_whatever_its_spelling_in_the_policy() {
    let mut fixture = granted(2);
    for stored in fixture.live.grants.values_mut() {
        stored.member = stored.member.replace("user:p1@corp", "user:P1@Corp");
    }
    fixture.unwant_person(1);
    let plan = fixture.pass();
    assert_eq!(plan.remove[0].cause, Cause::NotWanted);
    assert_eq!(fixture.members(INVOKER), ["user:foreign@corp.example", "user:p2@corp.example"]);
    assert!(!fixture.ledger.contains_key(&invoker(1)));
    assert_eq!(plan.counts(Some(&CallOutcome::Acknowledged { revision: String::new() }))[&mapping("m")].revoking, 0);
}

#[test]
fn a_leaver_is_removed_with_the_cause_leaver_while_an_addition_rides_along() {
    let mut fixture = granted(1);
    fixture.unwant_person(1);
    fixture.left.insert(user(1));
    fixture.want("m", INVOKER, 2, WRITE);
    let plan = fixture.plan();
    assert_eq!((plan.remove[0].cause, plan.add[0].cause), (Cause::Leaver, Cause::Wanted));
    let alone = plan.removals_only().unwrap();
    assert!(alone.add.is_empty() && alone.remove.len() == 1);
    assert!(fixture.audited("revoke").is_empty());
}

#[test]
fn a_refused_mixed_write_is_tried_again_with_the_removals_alone() {
    let mut fixture = granted(1);
    fixture.unwant_person(1);
    fixture.want("m", INVOKER, 2, WRITE);
    fixture.later(1);
    let whole = fixture.plan();
    fixture.record(whole.intend(fixture.now));
    fixture.record(whole.settle(&refused(), fixture.now));
    assert_eq!(whole.counts(Some(&refused()))[&mapping("m")].failed, 1);
    let alone = whole.removals_only().unwrap();
    fixture.record(alone.intend(fixture.now));
    fixture.commit(&alone);
    let outcome = CallOutcome::Acknowledged { revision: "e".into() };
    fixture.record(alone.settle(&outcome, fixture.now));
    assert_eq!(fixture.members(INVOKER), ["user:foreign@corp.example"]);
    assert_eq!(fixture.row(&invoker(2)).state, GrantState::Wanted);
    let counts = alone.counts(Some(&outcome))[&mapping("m")];
    assert_eq!((counts.failed, counts.acknowledged, counts.revoking), (1, 0, 0));
    assert!(whole.removals_only().unwrap().removals_only().is_none());
}

#[test]
fn a_grant_removed_by_somebody_else_is_reported_once_and_granted_again() {
    let mut fixture = granted(1);
    fixture.stranger(INVOKER, &email(1), false);
    let plan = fixture.pass();
    assert_eq!(plan.lost, [LostGrant { grant: invoker(1), first_seen: true, regranted: true }]);
    assert_eq!(plan.add[0].cause, Cause::Missing);
    assert_eq!(fixture.row(&invoker(1)).state, GrantState::Owned);
    assert_eq!(fixture.audited("lost").len(), 1);
    assert!(fixture.audit.iter().any(|entry| entry.actor == "drift" && entry.action == "grant"));
}

#[test]
fn with_on_missing_report_a_lost_grant_stays_lost_and_is_not_owned_when_somebody_else_restores_it() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, REPORT);
    fixture.pass();
    fixture.stranger(INVOKER, &email(1), false);
    for first_seen in [true, false] {
        let plan = fixture.pass();
        assert!(plan.changes.is_none());
        assert_eq!(plan.lost, [LostGrant { grant: invoker(1), first_seen, regranted: false }]);
        assert_eq!(plan.counts(None)[&mapping("m")].missing, 1);
    }
    fixture.stranger(INVOKER, &email(1), true);
    fixture.pass();
    assert_eq!(fixture.row(&invoker(1)).state, GrantState::Unowned);
    fixture.unwant("m");
    assert_eq!(fixture.pass().remains.len(), 1);
    assert_eq!(fixture.members(INVOKER), [email(1)]);
}

#[test]
fn a_foreign_member_is_kept_and_counted() {
    let mut fixture = granted(1);
    fixture.stranger(INVOKER, "user:other@corp.example", true);
    let plan = fixture.pass();
    assert_eq!((plan.foreign, plan.changes), (2, None));
}

#[test]
fn a_grant_that_was_there_before_is_unowned_stays_and_is_reported_as_remaining() {
    let mut fixture = Fixture::new(&json!([{"role": INVOKER, "members": [email(1)]}]));
    fixture.want("m", INVOKER, 1, WRITE);
    let plan = fixture.pass();
    assert!(plan.changes.is_none());
    assert_eq!(plan.unowned, [invoker(1)]);
    assert_eq!(plan.counts(None)[&mapping("m")].unowned, 1);
    fixture.unwant("m");
    fixture.enforcement("m", Enforcement::Ended { orphan: false });
    let plan = fixture.pass();
    assert_eq!(plan.remains, [(invoker(1), BTreeSet::from([mapping("m")]))]);
    assert_eq!(fixture.audited("remains"), [(AuditOutcome::Verified, Some("GrantRemains"))]);
    assert!(fixture.ledger.is_empty());
    assert_eq!(fixture.members(INVOKER), [email(1)]);
}

#[test]
fn an_unowned_grant_that_its_owner_takes_away_is_granted_by_us_without_drift() {
    let mut fixture = Fixture::new(&json!([{"role": INVOKER, "members": [email(1)]}]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass();
    fixture.stranger(INVOKER, &email(1), false);
    let plan = fixture.pass();
    assert!(plan.lost.is_empty());
    assert_eq!(fixture.row(&invoker(1)).state, GrantState::Owned);
}

#[test]
fn a_shared_grant_stays_until_its_last_claim_ends() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("a", INVOKER, 1, WRITE);
    fixture.want("b", INVOKER, 1, WRITE);
    fixture.pass();
    fixture.unwant("a");
    fixture.enforcement("a", Enforcement::Ended { orphan: false });
    fixture.pass();
    assert_eq!(fixture.members(INVOKER), [email(1)]);
    assert_eq!(fixture.row(&invoker(1)).claims.len(), 1);
    fixture.unwant("b");
    fixture.enforcement("b", Enforcement::Ended { orphan: false });
    let plan = fixture.pass();
    assert_eq!(plan.remove[0].cause, Cause::MappingDeleted);
    assert!(fixture.live.grants.is_empty() && fixture.ledger.is_empty());
}

#[test]
fn another_role_in_the_spec_moves_the_grant_in_one_write() {
    let mut fixture = granted(1);
    fixture.unwant("m");
    fixture.want("m", VIEWER, 1, WRITE);
    let plan = fixture.pass();
    assert_eq!((plan.add.len(), plan.remove.len()), (1, 1));
    assert_eq!((fixture.members(VIEWER).len(), fixture.members(INVOKER).len()), (1, 1));
}

#[test]
fn orphan_leaves_the_grant_and_forgets_it_unless_another_mapping_claims_it() {
    let mut fixture = granted(2);
    fixture.want("other", INVOKER, 2, WRITE);
    fixture.pass();
    fixture.unwant("m");
    fixture.enforcement("m", Enforcement::Ended { orphan: true });
    fixture.permit_orphan("m");
    let plan = fixture.pass();
    assert_eq!((plan.orphaned.as_slice(), plan.changes), ([invoker(1)].as_slice(), None));
    assert_eq!(fixture.audited("forget"), [(AuditOutcome::Verified, Some("Orphan"))]);
    assert_eq!(fixture.ledger.keys().collect::<Vec<_>>(), [&invoker(2)]);
    assert_eq!(fixture.members(INVOKER).len(), 3);
    fixture.unwant("other");
    fixture.pass();
    assert_eq!(fixture.members(INVOKER).len(), 2);
}

#[test]
fn orphan_does_not_rescue_a_removal_that_was_under_way_or_a_leaver() {
    let mut fixture = granted(2);
    fixture.unwant_person(1);
    fixture.pass_with(&refused());
    assert!(fixture.row(&invoker(1)).revoking_since.is_some());
    fixture.unwant("m");
    fixture.enforcement("m", Enforcement::Ended { orphan: true });
    fixture.permit_orphan("m");
    fixture.left.insert(user(2));
    let plan = fixture.pass();
    assert_eq!((plan.remove.len(), plan.orphaned.len()), (2, 0));
    assert!(fixture.ledger.is_empty());
}

#[test]
fn orphan_that_the_target_does_not_permit_keeps_the_rows_until_the_person_leaves() {
    let mut fixture = granted(3);
    fixture.stranger(INVOKER, &email(3), false);
    fixture.unwant("m");
    fixture.enforcement("m", Enforcement::Ended { orphan: true });
    let plan = fixture.pass();
    assert_eq!((plan.orphaned.len(), plan.remove.len(), plan.add.len()), (0, 0, 0));
    assert_eq!(fixture.ledger.keys().collect::<Vec<_>>(), [&invoker(1), &invoker(2)], "what is gone is forgotten");
    fixture.left.insert(user(1));
    assert_eq!(fixture.pass().remove.len(), 1);
    assert!(fixture.pass().ledger.is_empty());
    fixture.permit_orphan("m");
    assert_eq!(fixture.pass().orphaned, [invoker(2)], "its owner permits it later");
    assert!(fixture.ledger.is_empty() && fixture.members(INVOKER).contains(&email(2).as_str()));
}

#[test]
fn suspension_keeps_leavers_only_for_the_roles_for_which_it_may() {
    for reason in [FreezeReason::Suspended, FreezeReason::Observed] {
        let mut fixture = granted(2);
        fixture.want("m", VIEWER, 1, WRITE);
        fixture.pass();
        fixture.unwant("m");
        fixture.enforcement("m", Enforcement::Frozen(reason));
        fixture.left.insert(user(1));
        fixture.desired.may_suspend.insert(mapping("m"), BTreeSet::from([key(VIEWER, "x").role]));
        let plan = fixture.pass();
        assert_eq!(plan.remove.iter().map(Step::grant).collect::<Vec<_>>(), [&invoker(1)], "{reason:?}");
        fixture.desired.may_suspend.clear();
        assert_eq!(fixture.pass().remove.len(), 1);
    }
}

#[test]
fn frozen_and_unknown_claimants_lose_nothing_and_get_nothing() {
    for enforcement in [None, Some(Enforcement::Frozen(FreezeReason::TargetNotFound))] {
        let mut fixture = granted(2);
        fixture.unwant("m");
        fixture.desired.enforcements.clear();
        fixture.desired.enforcements.extend(enforcement.map(|enforcement| (mapping("m"), enforcement)));
        fixture.desired.uncovered = true;
        fixture.left.insert(user(1));
        let plan = fixture.pass();
        assert!(plan.changes.is_none() && plan.ledger.is_empty());
        assert_eq!(plan.counts(None)[&mapping("m")].acknowledged, 2);
        fixture.stranger(INVOKER, &email(1), false);
        let plan = fixture.pass();
        assert_eq!((plan.lost.len(), plan.changes), (1, None), "what is frozen is reported missing, not granted");
    }
}

#[test]
fn a_leaver_is_removed_in_spite_of_a_freeze_only_where_the_directory_is_known_to_be_right() {
    let freezes = [
        (FreezeReason::MappingMissing, true),
        (FreezeReason::ManifestsMissing, true),
        (FreezeReason::InventoryIncomplete, true),
        (FreezeReason::NotLoaded, false),
        (FreezeReason::StoreMismatch, false),
        (FreezeReason::StoreRewound, false),
        (FreezeReason::Suspended, true),
        (FreezeReason::Observed, true),
        (FreezeReason::IdentityProviderNotFound, true),
        (FreezeReason::TargetNotFound, true),
    ];
    for (reason, goes) in freezes {
        let mut fixture = granted(3);
        fixture.unwant("m");
        fixture.enforcement("m", Enforcement::Frozen(reason));
        fixture.left.insert(user(3));
        let plan = fixture.pass();
        assert_eq!(plan.remove.len(), usize::from(goes), "{reason:?}");
        assert!(plan.remove.iter().all(|step| step.cause == Cause::Leaver), "{reason:?}");
        let stays = if goes { vec![email(1), email(2)] } else { vec![email(1), email(2), email(3)] };
        assert_eq!(fixture.members(INVOKER)[1..], stays, "{reason:?}");
    }
}

#[test]
fn kept_subjects_stay_while_the_others_of_the_mapping_go() {
    let mut fixture = granted(3);
    fixture.unwant("m");
    fixture.enforcement("m", Enforcement::Live { keep: Keep::Subjects(BTreeMap::from([(user(2), None)])) });
    fixture.pass();
    assert_eq!(fixture.members(INVOKER), ["user:foreign@corp.example", &email(2)]);
}

#[test]
fn a_mapping_with_an_unresolved_group_keeps_everything_but_its_leavers() {
    let mut fixture = granted(3);
    fixture.unwant("m");
    fixture.enforcement("m", Enforcement::Live { keep: Keep::Everything(FreezeReason::GroupIdentityChanged) });
    fixture.left.insert(user(3));
    let plan = fixture.pass();
    assert_eq!(plan.remove.len(), 1);
    assert_eq!(fixture.members(INVOKER), ["user:foreign@corp.example", &email(1), &email(2)]);
}

#[test]
fn leavers_go_under_every_freeze_that_leaves_the_directory_in_no_doubt() {
    use FreezeReason::*;
    let reasons = [
        NotLoaded,
        MappingMissing,
        ManifestsMissing,
        IdentityProviderNotFound,
        TargetNotFound,
        Suspended,
        OverlappingTarget,
        GroupAmbiguous,
        GroupNotFound,
        GroupIdentityChanged,
        InventoryIncomplete,
        StoreMismatch,
        StoreRewound,
    ];
    for reason in reasons {
        for enforcement in [Enforcement::Frozen(reason), Enforcement::Live { keep: Keep::Everything(reason) }] {
            let mut fixture = granted(2);
            fixture.unwant("m");
            fixture.enforcement("m", enforcement);
            fixture.left.insert(user(1));
            let plan = fixture.pass();
            assert_eq!(plan.remove.len(), usize::from(reason.lets_leavers_go()), "{reason:?}");
            assert!(plan.remove.iter().all(|step| step.cause == Cause::Leaver));
            assert!(fixture.members(INVOKER).contains(&email(2).as_str()), "{reason:?}");
        }
    }
}

#[test]
fn observe_reports_what_it_would_do_and_writes_nothing() {
    let mut fixture = granted(2);
    fixture.unwant("m");
    fixture.want("m", INVOKER, 2, OBSERVE);
    fixture.want("m", INVOKER, 3, OBSERVE);
    fixture.enforcement("m", Enforcement::Frozen(FreezeReason::Observed));
    let plan = fixture.pass();
    assert!(plan.changes.is_none() && plan.ledger.is_empty());
    assert_eq!(plan.observed, Observed { add: vec![invoker(3)], remove: vec![invoker(1)] });
    let counts = plan.counts(None)[&mapping("m")];
    assert_eq!((counts.desired, counts.acknowledged, counts.observed), (3, 2, 1));
}

#[test]
fn an_observed_claim_does_not_hold_what_nobody_else_wants() {
    let mut fixture = granted(1);
    fixture.unwant("m");
    fixture.want("other", INVOKER, 1, OBSERVE);
    fixture.enforcement("other", Enforcement::Frozen(FreezeReason::Observed));
    assert_eq!(fixture.pass().remove.len(), 1);
}

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

#[test]
fn a_recreated_resource_gets_all_its_grants_again() {
    let mut fixture = granted(12);
    fixture.live = Live { revision: "never".into(), never_set: true, ..Live::default() };
    let plan = fixture.pass();
    assert_eq!((plan.lost.len(), plan.add.len(), plan.held.grants(false).len()), (12, 12, 0));
}

#[test]
fn our_member_that_google_marks_deleted_is_missing_and_the_mark_is_swept_out() {
    let mut fixture = granted(1);
    fixture.stranger(INVOKER, &email(1), false);
    fixture.stranger(INVOKER, "deleted:user:p1@corp.example?uid=1", true);
    let plan = fixture.pass();
    assert_eq!((plan.lost.len(), plan.foreign), (1, 2));
    assert_eq!(fixture.members(INVOKER), ["user:foreign@corp.example", "user:p1@corp.example"]);
}

#[test]
fn the_tombstone_of_an_account_is_removed_with_the_person_and_an_earlier_one_stays() {
    let mut fixture = granted(1);
    fixture.unwant_person(1);
    fixture.stranger(INVOKER, &email(1), false);
    fixture.stranger(INVOKER, "deleted:user:p1@corp.example?uid=1", true);
    let plan = fixture.pass();
    assert_eq!(plan.remove.len(), 1);
    assert_eq!(fixture.members(INVOKER), ["user:foreign@corp.example"]);

    let mut fixture = Fixture::new(&json!([{"role": INVOKER, "members": ["deleted:user:p1@corp.example?uid=1"]}]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass();
    fixture.unwant_person(1);
    fixture.pass();
    assert_eq!(fixture.members(INVOKER), ["deleted:user:p1@corp.example?uid=1"]);
}

#[test]
fn the_tombstone_of_an_account_is_removed_with_the_person_whom_google_refused_again() {
    let mut fixture = granted(1);
    fixture.stranger(INVOKER, &email(1), false);
    fixture.stranger(INVOKER, "deleted:user:p1@corp.example?uid=1", true);
    assert_eq!(fixture.pass_with(&refused()).lost.len(), 1);
    fixture.unwant_person(1);
    fixture.pass();
    assert_eq!(fixture.members(INVOKER), ["user:foreign@corp.example"]);
    assert!(fixture.ledger.is_empty());
}

#[test]
fn a_read_that_may_show_the_past_begins_no_removal_that_the_guard_or_the_mapping_has_not_decided_about() {
    let mut fixture = granted(30);
    for person in 1..=30 {
        fixture.unwant_person(person);
    }
    let there = fixture.live.clone();
    // An old version, and a write to prove it that comes too late.
    let past = Fixture::new(&json!([{"role": INVOKER, "members": ["user:foreign@corp.example"]}])).live;
    let doubtful = plan(&Inputs {
        live: Arc::new(Live { revision: "past".into(), ..past }),
        evidence: Evidence::Unproven { may_prove: true },
        leavers: BTreeSet::new(),
        ..fixture.inputs()
    });
    assert_eq!(doubtful.counts(None)[&mapping("m")].revoking, 30);
    fixture.record(doubtful.intend(fixture.now));
    fixture.record(doubtful.settle(&CallOutcome::Conflict, fixture.now));
    fixture.live = there;
    let plan = fixture.plan();
    assert_eq!((plan.remove.len(), plan.held.grants(false).len()), (0, 30));
    fixture.enforcement("m", Enforcement::Ended { orphan: true });
    fixture.permit_orphan("m");
    let plan = fixture.plan();
    assert_eq!((plan.remove.len(), plan.orphaned.len()), (0, 30));
}

#[test]
fn grants_on_a_deleted_service_are_forgotten_and_made_afresh_when_it_returns() {
    for terms in [WRITE, REPORT] {
        let mut fixture = granted(2);
        let (there, here) = (fixture.desired.clone(), fixture.live.clone());
        for person in 1..=2 {
            fixture.want("m", INVOKER, person, ClaimTerms { write: false, ..terms });
        }
        fixture.desired.absent = true;
        let plan = fixture.pass();
        assert!(plan.changes.is_none() && plan.ledger.is_empty(), "a list alone removes and forgets nothing");
        fixture.live = Live { revision: "never".into(), never_set: true, ..Live::default() };
        assert!(fixture.plan().ledger.iter().all(|change| matches!(change, LedgerChange::Put(_))));

        fixture.live = Live::default();
        fixture.enforcement("m", Enforcement::Frozen(FreezeReason::StoreRewound));
        assert!(fixture.plan().ledger.iter().all(|change| matches!(change, LedgerChange::Put(_))));
        fixture.enforcement("m", Enforcement::Live { keep: Keep::Nothing });
        let plan = fixture.pass();
        assert!(plan.changes.is_none() && plan.lost.is_empty() && plan.counts(None).is_empty());
        assert!(fixture.ledger.is_empty());
        assert_eq!(fixture.audited("forget"), [(AuditOutcome::Verified, Some("ResourceGone")); 2]);

        fixture.live = Live { grants: BTreeMap::new(), ..here };
        fixture.desired = there;
        for person in 1..=2 {
            fixture.want("m", INVOKER, person, terms);
        }
        assert_eq!(fixture.pass().add.len(), 2);
    }
}

#[test]
fn a_call_that_may_still_land_is_remembered_after_its_service_is_gone_until_it_cannot() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.pass_with(&CallOutcome::Unknown);
    fixture.desired.absent = true;
    fixture.live = Live::default();
    assert!(fixture.pass().recheck_at.is_some_and(|at| at > fixture.now));
    assert_eq!(fixture.ledger.len(), 1);
    fixture.later(600);
    assert!(fixture.pass().recheck_at.is_none() && fixture.ledger.is_empty());
}

#[test]
fn additions_that_do_not_fit_are_withheld_and_removals_are_written() {
    let mut fixture = granted(2);
    for n in 0..LIMIT - 4 {
        fixture.stranger(VIEWER, &format!("user:f{n}@other.example"), true);
    }
    fixture.touch();
    fixture.unwant_person(1);
    for person in 3..=6 {
        fixture.want("m", INVOKER, person, WRITE);
    }
    let plan = fixture.pass();
    let limit = plan.limit.clone().unwrap();
    assert_eq!((limit.appearances, limit.limit), (LIMIT + 2, LIMIT));
    assert_eq!(limit.withheld, [invoker(5), invoker(6)]);
    assert_eq!((plan.add.len(), plan.remove.len()), (2, 1));
    assert_eq!(plan.counts(None)[&mapping("m")].failed, 2);
    assert!(!fixture.ledger.contains_key(&invoker(5)), "a crowd that does not fit is not written down one by one");
    assert!(plan.ledger.iter().all(|change| !matches!(change, LedgerChange::Put(row) if row.grant == invoker(6))));
}

#[test]
fn a_group_bound_as_one_principal_is_a_subject_like_a_person() {
    let mut fixture = Fixture::new(&json!([]));
    let group = Subject::Group(GroupId(Uuid::from_u128(9)));
    fixture.want("m", INVOKER, 1, WRITE);
    let grant = fixture.desired.grants.get_mut(&invoker(1)).unwrap();
    grant.claims = BTreeMap::from([(Claim { mapping: mapping("m"), subject: group }, WRITE)]);
    fixture.pass();
    assert!(fixture.audit.iter().all(|entry| entry.subject == Some(Uuid::from_u128(9).to_string())));
}

#[test]
fn audit_rows_name_the_generation_of_the_mapping() {
    let mut fixture = Fixture::new(&json!([]));
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.desired.generations.insert(mapping("m"), 7);
    fixture.pass();
    assert_eq!(fixture.audit[0].actor, "mapping:team/m@7");
    assert_eq!(fixture.audit[0].revision_before.as_deref(), Some("e0"));
    assert_eq!(fixture.audit[1].revision_after.as_deref(), Some("after"));
}

#[test]
fn a_row_put_by_the_bookkeeping_is_not_put_twice_before_the_call() {
    let mut fixture = granted(1);
    fixture.unwant("m");
    fixture.want("m", VIEWER, 1, WRITE);
    let (changes, _) = fixture.plan().intend(fixture.now);
    let grants: BTreeSet<&GrantKey> = changes
        .iter()
        .map(|change| match change {
            LedgerChange::Put(row) => &row.grant,
            LedgerChange::Remove(grant) => grant,
        })
        .collect();
    assert_eq!(changes.len(), grants.len());
}

#[test]
fn a_group_that_cannot_be_resolved_keeps_what_it_could_have_given_and_nothing_else() {
    let group = |n: u128| GroupId(Uuid::from_u128(1000 + n));
    let ground = |groups: &[u128]| Ground {
        provider: crate::model::ProviderName::new("okta").unwrap(),
        groups: groups.iter().map(|n| group(*n)).collect(),
        mapping_uid: None,
        generation: None,
    };
    let mut fixture = Fixture::new(&json!([]));
    // Grounds: group 1, group 2, both, a group that is no longer named, and none, as in a row of the first version.
    for (person, groups) in [(1, &[1][..]), (2, &[2]), (3, &[1, 2]), (4, &[7])] {
        fixture.want("m", INVOKER, person, WRITE);
        let wanted = fixture.desired.grants.get_mut(&invoker(person)).unwrap();
        let claim = wanted.claims.keys().next().unwrap().clone();
        wanted.grounds.insert(claim, ground(groups));
    }
    fixture.want("m", INVOKER, 5, WRITE);
    fixture.pass();
    fixture.pass();
    let keeping = |unresolved: &[u128], known: &[u128]| Enforcement::Live {
        keep: Keep::Groups(KeptGroups {
            reason: FreezeReason::GroupNotFound,
            unresolved: unresolved.iter().map(|n| group(*n)).collect(),
            known: known.iter().map(|n| group(*n)).collect(),
            subjects: BTreeMap::new(),
        }),
    };
    fixture.unwant("m");
    let gone = |fixture: &Fixture, enforcement: Enforcement| {
        let mut after =
            Fixture { ledger: fixture.ledger.clone(), live: fixture.live.clone(), ..Fixture::new(&json!([])) };
        after.enforcement("m", enforcement);
        after.plan().remove.iter().map(|step| step.grant().clone()).collect::<BTreeSet<_>>()
    };
    let of = |people: &[u128]| people.iter().map(|n| invoker(*n)).collect::<BTreeSet<_>>();
    assert_eq!(gone(&fixture, keeping(&[], &[1])), of(&[1, 2, 3, 4]), "one that was never pushed gave nothing");
    assert_eq!(gone(&fixture, keeping(&[2], &[1])), of(&[1, 4]), "one whose name means another now");
    assert_eq!(gone(&fixture, keeping(&[], &[])), of(&[]), "nothing is known of any group: it may have been renamed");
    fixture.enforcement("m", keeping(&[2], &[1]));
    fixture.left.insert(user(2));
    assert!(fixture.pass().remove.iter().any(|step| *step.grant() == invoker(2)), "who left goes");
    assert!(fixture.row(&invoker(3)).grounds.values().all(|known| *known == ground(&[1, 2])));
}
