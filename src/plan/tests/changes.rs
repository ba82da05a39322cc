//! What is added, removed, lost, foreign and unowned.

use super::*;

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
fn a_claim_whose_person_left_the_group_that_gave_it_ends_although_the_other_groups_are_not_known() {
    let mut fixture = granted(3);
    for person in [1, 2, 3] {
        fixture.unwant_person(person);
    }
    let group = GroupId(Uuid::from_u128(1001));
    let keep = Keep::Groups(KeptGroups {
        reason: FreezeReason::NestingLimitExceeded,
        unresolved: BTreeSet::from([group]),
        known: BTreeSet::from([group]),
        subjects: BTreeMap::new(),
    });
    fixture.enforcement("m", Enforcement::Live { keep });
    fixture.lapsed.insert((invoker(2).member, Claim { mapping: mapping("m"), subject: user(2) }));
    // Another grant of the same person.
    fixture.lapsed.insert((invoker(2).member, Claim { mapping: mapping("m"), subject: user(1) }));
    fixture.left.insert(user(3));
    let removed = |fixture: &Fixture| -> Vec<_> {
        let plan = fixture.plan();
        assert!(plan.add.is_empty());
        plan.remove.iter().map(|step| step.grant().clone()).collect()
    };
    assert_eq!(removed(&fixture), [invoker(2), invoker(3)]);
    let keep = Keep::Everything(FreezeReason::Suspended);
    fixture.enforcement("m", Enforcement::Live { keep });
    assert_eq!(removed(&fixture), [invoker(3)], "something else keeps the claim");
}

#[test]
fn what_gave_a_claim_is_not_forgotten_while_it_may_still_give_it() {
    let group = |n: u128| GroupId(Uuid::from_u128(1000 + n));
    let of = |groups: &[u128]| groups.iter().map(|n| group(*n)).collect::<BTreeSet<_>>();
    let ground = |groups: &[u128], through: &[u128]| Ground {
        provider: crate::model::ProviderName::new("okta").unwrap(),
        groups: of(groups),
        through: of(through),
        mapping_uid: None,
        generation: None,
        not_after: None,
    };
    let beyond = |unresolved: &[u128]| Enforcement::Live {
        keep: Keep::Groups(KeptGroups {
            reason: FreezeReason::NestingLimitExceeded,
            unresolved: of(unresolved),
            known: of(&[1, 2]),
            subjects: BTreeMap::new(),
        }),
    };
    let everything = || Enforcement::Live { keep: Keep::Everything(FreezeReason::Suspended) };
    let observed = || Enforcement::Frozen(FreezeReason::Observed);
    let nothing = || Enforcement::Live { keep: Keep::Nothing };
    for (what, enforcement, now, expected) in [
        ("beyond a bound", beyond(&[1]), ground(&[2], &[]), ground(&[1, 2], &[8])),
        ("directly, beyond a bound", beyond(&[1]), ground(&[1], &[]), ground(&[1], &[8])),
        ("another is beyond a bound", beyond(&[3]), ground(&[2], &[9]), ground(&[2], &[9])),
        ("another provider is suspended", everything(), ground(&[2], &[9]), ground(&[1, 2], &[8, 9])),
        ("observed", observed(), ground(&[2], &[]), ground(&[1, 2], &[8])),
        ("all is known", nothing(), ground(&[2], &[]), ground(&[2], &[])),
    ] {
        let mut fixture = Fixture::new(&json!([]));
        let want = |fixture: &mut Fixture, ground: Ground| {
            fixture.want("m", INVOKER, 1, WRITE);
            let claim = Claim { mapping: mapping("m"), subject: user(1) };
            fixture.desired.grants.get_mut(&invoker(1)).unwrap().grounds.insert(claim.clone(), ground);
            claim
        };
        want(&mut fixture, ground(&[1, 2], &[8]));
        fixture.pass();
        let claim = want(&mut fixture, now);
        fixture.enforcement("m", enforcement);
        for _ in 0..2 {
            fixture.pass();
            assert_eq!(fixture.row(&invoker(1)).grounds[&claim], expected, "{what}");
        }
        assert!(fixture.plan().ledger.is_empty(), "{what}: nothing to record twice");
    }
}

#[test]
fn a_group_that_cannot_be_resolved_keeps_what_it_could_have_given_and_nothing_else() {
    let group = |n: u128| GroupId(Uuid::from_u128(1000 + n));
    let ground = |groups: &[u128]| Ground {
        provider: crate::model::ProviderName::new("okta").unwrap(),
        groups: groups.iter().map(|n| group(*n)).collect(),
        through: BTreeSet::new(),
        mapping_uid: None,
        generation: None,
        not_after: None,
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
