//! Resources that are deleted or created again, and accounts that were.

use super::*;

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
