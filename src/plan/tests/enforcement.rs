//! Orphaned, frozen, suspended and observed mappings.

use super::*;

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
fn a_grant_that_google_refuses_is_only_observed_by_a_mapping_that_observes() {
    let mut fixture = granted(0);
    fixture.want("m", INVOKER, 1, WRITE);
    fixture.want("watching", INVOKER, 1, OBSERVE);
    let plan = fixture.plan();
    let withheld = plan.restricted(&BTreeSet::new(), &BTreeSet::from([invoker(1)])).counts(None);
    let of = |name: &str| (withheld[&mapping(name)].failed, withheld[&mapping(name)].observed);
    assert_eq!((of("m"), of("watching")), ((1, 0), (0, 1)));
    let acknowledged = plan.counts(Some(&CallOutcome::Acknowledged { revision: "after".into() }));
    assert_eq!(acknowledged[&mapping("watching")].acknowledged, 1);
}
