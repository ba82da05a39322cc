use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

#[track_caller]
fn row(scene: &Scene, previous: Option<&RoleMappingStatus>, expected: &str) -> RoleMappingStatus {
    let status = scene.fold(previous);
    assert_eq!(line(&status.conditions), expected, "{:#?}", status.conditions);
    status
}

fn held(name: &str, members: &[&str], hash: &str) -> DocumentOutcome {
    let mut outcome = with_claims(name, |claims| claims.held = members.len() as u64);
    outcome.held = vec![HeldOutcome {
        leavers: false,
        members: members.iter().map(|member| MemberKey::of(member)).collect(),
        plan_hash: hash.to_owned(),
        since: ago(300),
    }];
    outcome
}

#[test]
fn converged() {
    let status = row(&Scene::default(), None, "Ready=True/Converged Accepted=True/Accepted");
    let grants = status.grants.unwrap();
    assert_eq!((grants.summary.as_str(), grants.desired, grants.verified), ("8/8", 8, 8));
    assert_eq!((grants.pending, grants.held, grants.failed, grants.revoking), (0, 0, 0, 0));
    assert_eq!(status.observed_generation, Some(7));
    assert_eq!(status.resources[0].grants, "4/4");
    assert_eq!(status.resources[0].reason, None);
}

#[test]
fn change_pending_under_a_minute_is_churn_when_the_generation_was_ready() {
    let mut scene = Scene::default();
    scene.documents[0] = with_claims("checkout-api", |claims| (claims.acknowledged, claims.pending) = (3, 1));
    scene.documents[0].pending_since = Some(ago(59));
    let folded = scene.fold_at(Some(&Scene::before()), now());
    assert_eq!(line(&folded.status.conditions), "Ready=True/Converged Accepted=True/Accepted");
    assert_eq!(folded.revisit, Some(now() + SignedDuration::from_secs(1)), "time alone will change it");
}

#[test]
fn change_pending_longer_is_reconciling() {
    let mut scene = Scene::default();
    scene.documents[0] = with_claims("checkout-api", |claims| (claims.acknowledged, claims.pending) = (3, 1));
    scene.documents[0].pending_since = Some(ago(60));
    row(&scene, Some(&Scene::before()), "Ready=False/Progressing Accepted=True/Accepted Reconciling=True/Progressing");
}

#[test]
fn change_of_the_spec_is_not_churn() {
    let mut scene = Scene { generation: 8, ..Scene::default() };
    scene.documents[0].pending_since = Some(ago(1));
    row(&scene, Some(&Scene::before()), "Ready=False/Progressing Accepted=True/Accepted Reconciling=True/Progressing");
}

#[test]
fn new_mapping_is_not_ready_before_its_policies_were_read() {
    let scene = Scene { documents: vec![DocumentOutcome::unread(document("checkout-api"))], ..Scene::default() };
    let status = row(&scene, None, "Ready=False/Progressing Accepted=True/Accepted Reconciling=True/Progressing");
    assert_eq!(status.resources[0].reason.as_deref(), Some("Progressing"));
}

#[test]
fn backing_off_longer_than_a_minute_reports_the_last_answer() {
    let mut scene = Scene::default();
    scene.documents[0].failures = vec![failure(Reason::Throttled, ago(61))];
    let status =
        row(&scene, Some(&Scene::before()), "Ready=False/Throttled Accepted=True/Accepted Reconciling=True/Throttled");
    let message = &get(&status.conditions, kind::READY).unwrap().message;
    assert!(message.contains("services/checkout-api: Google said so"), "{message}");
}

#[test]
fn revocation_that_is_not_acknowledged_is_reported_at_once() {
    let mut scene = Scene::default();
    scene.documents[0] = with_claims("checkout-api", |claims| {
        claims.revoking = 1;
        claims.oldest_revoking_since = Some(ago(2));
    });
    let status = row(
        &scene,
        Some(&Scene::before()),
        "Ready=False/RevocationPending Accepted=True/Accepted Reconciling=True/RevocationPending",
    );
    assert_eq!(status.oldest_revoking_since.unwrap().0, ago(2));
    let message = &get(&status.conditions, kind::READY).unwrap().message;
    assert!(message.contains("1 grant") && message.contains("2027-01-31T11:59:58Z"), "{message}");
}

#[test]
fn revocation_that_google_refuses_waits_for_a_person() {
    let mut scene = Scene::default();
    scene.documents[0] = with_claims("checkout-api", |claims| claims.revoking = 1);
    scene.documents[0].failures = vec![failure(Reason::PermissionDenied, ago(2))];
    row(
        &scene,
        Some(&Scene::before()),
        "Ready=False/RevocationPending Accepted=True/Accepted Stalled=True/PermissionDenied",
    );
}

#[test]
fn not_delegated_at_all() {
    let scene = Scene {
        admitted: 0,
        refused: vec![refused("spec.grants[0].roles[0]")],
        documents: Vec::new(),
        ..Scene::default()
    };
    let status = row(&scene, None, "Ready=False/NotDelegated Accepted=False/NotDelegated Stalled=True/NotDelegated");
    let message = &get(&status.conditions, kind::ACCEPTED).unwrap().message;
    assert!(message.contains("spec.grants[0].roles[0]"), "{message}");
    assert_eq!(status.refused.len(), 1);
}

#[test]
fn partly_delegated_is_ready_for_the_rest() {
    let scene = Scene { refused: vec![refused("spec.grants[0].roles[1]")], ..Scene::default() };
    row(&scene, None, "Ready=True/Converged Accepted=False/PartlyDelegated");
}

#[test]
fn missing_references_freeze_and_stall_once_new_objects_had_time_to_arrive() {
    for why in [FreezeReason::TargetNotFound, FreezeReason::IdentityProviderNotFound] {
        let word = why.reason();
        let scene = Scene { frozen: Some(why), ..Scene::default() };
        let line =
            |turn: &str| format!("Ready=False/{word} Accepted=False/{word} {turn}=True/{word} Frozen=True/{word}");
        let status = row(&scene, Some(&Scene::before()), &line("Stalled"));
        row(&scene, Some(&status), &line("Stalled"));
        let mut status = row(&scene, None, &line("Reconciling"));
        let ready = status.conditions.iter_mut().find(|condition| condition.type_ == kind::READY).unwrap();
        ready.last_transition_time = Time(ago(10));
        row(&scene, Some(&status), &line("Stalled"));
    }
    let word = FreezeReason::OverlappingTarget.reason();
    let scene = Scene { frozen: Some(FreezeReason::OverlappingTarget), ..Scene::default() };
    row(
        &scene,
        Some(&Scene::before()),
        &format!("Ready=False/{word} Accepted=False/{word} Stalled=True/{word} Frozen=True/{word}"),
    );
}

#[test]
fn manifest_that_cannot_be_read_is_not_accepted_and_reports_where() {
    let problem = Failure {
        reason: Reason::InvalidManifest,
        message: "mapping.yaml:12:5 spec.grants[0].roles[0]: not a role".to_owned(),
        since: ago(5),
    };
    let scene = Scene { problem: Some(problem), ..Scene::default() };
    let status = row(
        &scene,
        Some(&Scene::before()),
        "Ready=False/InvalidManifest Accepted=False/InvalidManifest Stalled=True/InvalidManifest",
    );
    for type_ in [kind::ACCEPTED, kind::READY] {
        let message = &get(&status.conditions, type_).unwrap().message;
        assert!(message.contains("mapping.yaml:12:5 spec.grants[0].roles[0]"), "{message}");
    }
}

#[test]
fn group_not_found_reconciles_for_ten_minutes_and_then_stalls() {
    let mut scene = Scene::default();
    scene.subjects[0].problem = Some(Reason::GroupNotFound);
    let waits =
        "Ready=False/GroupNotFound Accepted=True/Accepted Reconciling=True/GroupNotFound Frozen=True/GroupNotFound";
    let first = scene.fold_at(None, now());
    assert_eq!(line(&first.status.conditions), waits);
    assert_eq!(first.revisit, Some(now() + SignedDuration::from_mins(10)));
    let late = scene.fold_at(Some(&first.status), now() + SignedDuration::from_secs(599));
    assert_eq!(line(&late.status.conditions), waits);
    let stalled = scene.fold_at(Some(&late.status), now() + SignedDuration::from_mins(10));
    assert_eq!(
        line(&stalled.status.conditions),
        "Ready=False/GroupNotFound Accepted=True/Accepted Stalled=True/GroupNotFound Frozen=True/GroupNotFound"
    );
    let message = &get(&stalled.status.conditions, kind::READY).unwrap().message;
    assert!(message.contains("`team-checkout` of okta"), "{message}");
}

#[test]
fn group_whose_name_means_another_one_or_several_is_frozen() {
    for word in [Reason::GroupIdentityChanged, Reason::GroupAmbiguous] {
        let mut scene = Scene::default();
        scene.subjects.push(SubjectOutcome { problem: Some(word), ..group("other") });
        row(
            &scene,
            Some(&Scene::before()),
            &format!("Ready=False/{word} Accepted=True/Accepted Stalled=True/{word} Frozen=True/{word}"),
        );
    }
}

#[test]
fn nested_groups_beyond_a_bound_freeze_and_circles_and_ignored_ones_are_reported() {
    let mut scene = Scene::default();
    let word = Reason::NestingLimitExceeded;
    scene.subjects[0].problem = Some(word);
    scene.subjects[0].nesting = Some((word, String::new()));
    row(
        &scene,
        Some(&Scene::before()),
        &format!(
            "Ready=False/{word} Accepted=True/Accepted Stalled=True/{word} Frozen=True/{word} NestedGroups=False/{word}"
        ),
    );
    for (word, status) in [(Reason::NestingCycle, "True"), (Reason::NestingIgnored, "False")] {
        let mut scene = Scene::default();
        scene.subjects[0].nesting = Some((word, "`inner` contains itself".to_owned()));
        let status = row(
            &scene,
            Some(&Scene::before()),
            &format!("Ready=True/Converged Accepted=True/Accepted NestedGroups={status}/{word}"),
        );
        let message = &get(&status.conditions, kind::NESTED_GROUPS).unwrap().message;
        assert!(message.contains("`team-checkout` of okta: `inner` contains itself: "), "{message}");
    }
}

#[test]
fn group_that_was_deleted_waits_for_a_person() {
    let mut scene = Scene::default();
    scene.subjects[0].problem = Some(Reason::GroupDeleted);
    row(&scene, None, "Ready=False/GroupDeleted Accepted=True/Accepted Stalled=True/GroupDeleted");
}

#[test]
fn permission_missing_at_google() {
    for word in [Reason::PermissionDenied, Reason::MemberRefused, Reason::PolicyFull] {
        let mut scene = Scene::default();
        scene.documents[1] = with_claims("checkout-web", |claims| (claims.acknowledged, claims.failed) = (3, 1));
        scene.documents[1].failures = vec![failure(word, ago(1))];
        let status = row(
            &scene,
            Some(&Scene::before()),
            &format!("Ready=False/{word} Accepted=True/Accepted Stalled=True/{word}"),
        );
        assert_eq!(status.resources[1].reason.as_deref(), Some(word.word()));
        assert_eq!(status.grants.unwrap().summary, "7/8");
    }
}

#[test]
fn held_by_the_guard_is_ready_and_reports_the_hash() {
    let scene = Scene {
        documents: vec![
            held("checkout-api", &["user:a@x.example", "user:b@x.example"], "beef"),
            held("checkout-web", &["user:B@x.example", "user:c@x.example"], "cafe"),
        ],
        ..Scene::default()
    };
    let status = row(&scene, None, "Ready=True/Converged Accepted=True/Accepted Held=True/MassRemoval");
    let grants = status.grants.unwrap();
    assert_eq!((grants.desired, grants.acknowledged, grants.held, grants.revoking), (12, 8, 4, 0));
    let held = status.held.unwrap();
    assert_eq!(held.people, 3, "nobody is counted twice");
    assert_eq!(held.plan_hash, "beef,cafe");
    assert_eq!(held.since.unwrap().0, ago(300));
    assert_eq!(held.plans.len(), 2);
    let message = &get(&status.conditions, kind::HELD).unwrap().message;
    assert!(message.contains("beef,cafe") && message.contains("3 people"), "{message}");
}

#[test]
fn a_held_leaver_is_not_ready_and_reports_what_releases_it() {
    let mut outcome = held("checkout-api", &["user:a@x.example"], "beef");
    outcome.held[0].leavers = true;
    outcome.claims = outcome.claims.map(|claims| ClaimCounts { held_leavers: 1, ..claims });
    let scene = Scene { documents: vec![outcome], ..Scene::default() };
    let expected = "Ready=False/RevocationPending Accepted=True/Accepted Reconciling=True/RevocationPending \
                    Held=True/MassRemoval";
    let status = row(&scene, None, expected);
    let message = &get(&status.conditions, kind::READY).unwrap().message;
    assert!(message.contains("rolecall release plan beef"), "{message}");
}

#[test]
fn drift_and_foreign_members_are_ready_and_drifted() {
    type Change = fn(&mut DocumentOutcome);
    let cases: [(Change, Reason); 5] = [
        (
            |outcome| {
                let claims = outcome.claims.as_mut().unwrap();
                (claims.acknowledged, claims.missing) = (3, 1);
                outcome.drift.kinds.insert(DriftKind::GrantMissing, 1);
            },
            Reason::DriftReported,
        ),
        (|outcome| outcome.drift.kinds = [(DriftKind::GrantUnexpected, 2)].into(), Reason::ForeignMembers),
        (|outcome| outcome.drift.kinds = [(DriftKind::GrantRemains, 1)].into(), Reason::GrantRemains),
        (|outcome| outcome.drift.kinds = [(DriftKind::PublicPrincipal, 1)].into(), Reason::PublicPrincipal),
        (|outcome| outcome.drift.kinds = [(DriftKind::Tombstone, 1)].into(), Reason::Tombstone),
    ];
    for (change, word) in cases {
        let mut scene = Scene::default();
        change(&mut scene.documents[0]);
        row(
            &scene,
            Some(&Scene::before()),
            &format!("Ready=True/Converged Accepted=True/Accepted Drifted=True/{word}"),
        );
    }
}

/// A grant that was granted again just now, so many times.
fn reverted(outcome: &mut DocumentOutcome, times: u64) {
    outcome.drift.reverted = 1;
    outcome.drift.recently = Reversions { grants: 1, times, last: Some(now()) };
}

#[test]
fn one_grant_that_was_granted_again_many_times_is_one_grant() {
    let mut scene = Scene::default();
    reverted(&mut scene.documents[0], 15);
    let status = scene.fold(Some(&Scene::before()));
    let message = &get(&status.conditions, kind::DRIFTED).unwrap().message;
    assert!(message.contains("1 grant was") && message.contains("15 times"), "{message}");
    assert_eq!(status.drift.unwrap().reverted, 1);
}

#[test]
fn grant_that_was_granted_again_is_shown_for_an_hour_and_stays_counted() {
    let mut scene = Scene::default();
    reverted(&mut scene.documents[0], 1);
    let shown = "Ready=True/Converged Accepted=True/Accepted Drifted=True/Reverted";
    let first = scene.fold_at(Some(&Scene::before()), now());
    assert_eq!(line(&first.status.conditions), shown);
    let hour = SignedDuration::from_hours(1);
    assert_eq!(first.revisit, Some(now() + hour));
    let later = scene.fold_at(Some(&first.status), now() + hour - SignedDuration::from_secs(1));
    assert_eq!(line(&later.status.conditions), shown);
    let after = scene.fold_at(Some(&later.status), now() + hour);
    assert_eq!(line(&after.status.conditions), "Ready=True/Converged Accepted=True/Accepted");
    assert_eq!(after.status.drift.unwrap().reverted, 1);
}

#[test]
fn grant_that_was_granted_again_is_reported_as_long_beside_other_differences() {
    for (foreign, missing) in [(3, 0), (0, 1), (3, 1)] {
        let mut scene = Scene::default();
        if missing > 0 {
            scene.documents[0] = with_claims("checkout-api", |claims| (claims.acknowledged, claims.missing) = (3, 1));
            scene.documents[0].drift.kinds.insert(DriftKind::GrantMissing, missing);
        }
        scene.documents[0].drift.kinds.insert(DriftKind::GrantUnexpected, foreign);
        let long_before = scene.fold_at(None, ago(7200)).status;
        reverted(&mut scene.documents[0], 1);
        let told = |status: &RoleMappingStatus| {
            get(&status.conditions, kind::DRIFTED).is_some_and(|drifted| drifted.message.contains("granted again"))
        };
        let first = scene.fold_at(Some(&long_before), now());
        let next = scene.fold_at(Some(&first.status), now() + SignedDuration::from_secs(5));
        assert!(told(&first.status) && told(&next.status), "{foreign} foreign, {missing} missing");
        assert!(!told(&scene.fold_at(Some(&next.status), now() + SignedDuration::from_hours(1)).status));
    }
}

#[test]
fn observe_is_ready_by_mode_by_ceiling_and_by_freeze() {
    let observed = || with_claims("checkout-api", |claims| (claims.acknowledged, claims.observed) = (0, 4));
    let base = Scene { documents: vec![observed()], ..Scene::default() };
    for scene in [
        Scene { mode: MappingMode::Observe, ..base.clone() },
        Scene { ceiling_observes: true, ..base.clone() },
        Scene { frozen: Some(FreezeReason::Observed), ..base.clone() },
    ] {
        let status = row(&scene, None, "Ready=True/Observed Accepted=True/Accepted");
        let message = &get(&status.conditions, kind::READY).unwrap().message;
        assert!(message.contains("4 grants would be written"), "{message}");
    }
}

#[test]
fn every_other_freeze_is_frozen_and_stalled() {
    use FreezeReason::{
        InventoryIncomplete, ManifestsMissing, MappingMissing, NotLoaded, StoreMismatch, StoreRewound, Suspended,
    };
    for why in
        [InventoryIncomplete, ManifestsMissing, MappingMissing, NotLoaded, StoreMismatch, StoreRewound, Suspended]
    {
        let word = why.reason();
        let mut scene = Scene { frozen: Some(why), ..Scene::default() };
        scene.documents[0].pending_since = Some(ago(300));
        let status = row(
            &scene,
            Some(&Scene::before()),
            &format!("Ready=False/{word} Accepted=True/Accepted Stalled=True/{word} Frozen=True/{word}"),
        );
        assert_eq!(get(&status.conditions, kind::FROZEN).unwrap().message, why.message());
    }
}

/// Five people joined while the list of services was empty.
fn ten_of_fifteen(since: Timestamp) -> Scene {
    let claims = ClaimCounts { desired: 15, acknowledged: 10, verified: 10, pending: 5, ..ClaimCounts::default() };
    let outcome = DocumentOutcome {
        claims: Some(claims),
        unlisted: true,
        pending_since: Some(since),
        ..DocumentOutcome::unread(document("checkout-api"))
    };
    Scene { documents: vec![outcome], unmatched: vec!["shop-dev: services/checkout-*".to_owned()], ..Scene::default() }
}

#[test]
fn grants_on_a_resource_that_the_list_lacks_are_pending_and_frozen_when_it_lasts() {
    let passing = ten_of_fifteen(ago(59)).fold_at(Some(&Scene::before()), now());
    assert_eq!(line(&passing.status.conditions), "Ready=True/Converged Accepted=True/Accepted");
    assert_eq!(passing.revisit, Some(now() + SignedDuration::from_secs(1)));
    let word = Reason::InventoryIncomplete;
    let frozen = format!("Ready=False/{word} Accepted=True/Accepted Stalled=True/{word} Frozen=True/{word}");
    let status = row(&ten_of_fifteen(ago(60)), Some(&Scene::before()), &frozen);
    let grants = status.grants.unwrap();
    assert_eq!((grants.summary.as_str(), grants.desired, grants.pending), ("10/15", 15, 5));
    let message = &get(&status.conditions, kind::READY).unwrap().message;
    assert!(message.contains("services/checkout-api") && message.contains("10 of 15"), "{message}");
    assert_eq!(status.resources[0].reason.as_deref(), Some(word.word()));
    row(&ten_of_fifteen(ago(1)), None, &frozen);
}

#[test]
fn whatever_is_wanted_and_lacking_for_a_minute_is_not_ready() {
    type Change = fn(&mut ClaimCounts);
    let cases: [Change; 3] = [|claims| claims.pending = 1, |claims| claims.failed = 1, |claims| claims.frozen = 1];
    for change in cases {
        let mut scene = Scene::default();
        scene.documents[0] = with_claims("checkout-api", |claims| {
            claims.acknowledged = 3;
            change(claims);
        });
        scene.documents[0].pending_since = Some(ago(60));
        let status = row(
            &scene,
            Some(&Scene::before()),
            "Ready=False/Progressing Accepted=True/Accepted Reconciling=True/Progressing",
        );
        assert_eq!(status.resources[0].reason.as_deref(), Some("Progressing"));
    }
}

#[test]
fn suspended_mapping_is_frozen_by_its_mode() {
    let scene = Scene { mode: MappingMode::Suspend, ..Scene::default() };
    row(&scene, None, "Ready=False/Suspended Accepted=True/Accepted Stalled=True/Suspended Frozen=True/Suspended");
}

#[test]
fn name_that_matches_no_resource_is_reported() {
    let scene = Scene { unmatched: vec!["services/typo".to_owned()], ..Scene::default() };
    let status =
        row(&scene, None, "Ready=False/ResourceNotFound Accepted=True/Accepted Reconciling=True/ResourceNotFound");
    assert!(get(&status.conditions, kind::READY).unwrap().message.contains("`services/typo`"));
}

#[test]
fn pattern_that_matches_nothing_is_reported_only_when_nothing_else_matches() {
    let scene = Scene { unmatched: vec!["jobs/checkout-*".to_owned()], ..Scene::default() };
    row(&scene, None, "Ready=True/Converged Accepted=True/Accepted");
    let scene = Scene { documents: Vec::new(), ..scene };
    row(&scene, None, "Ready=False/ResourceNotFound Accepted=True/Accepted Reconciling=True/ResourceNotFound");
}

#[test]
fn deleted_mapping_waits_for_its_last_grants() {
    let scene = Scene { ending: true, ..Scene::default() };
    row(&scene, Some(&Scene::before()), "Ready=False/Progressing Accepted=True/Accepted Reconciling=True/Progressing");
}

#[test]
fn people_who_get_nothing_are_counted_and_do_not_make_the_mapping_unready() {
    let mut scene = Scene::default();
    scene.subjects[0].left_out = BTreeMap::from([(Reason::PrincipalInvalid, 2), (Reason::PrincipalCollision, 1)]);
    let status = row(&scene, None, "Ready=True/Converged Accepted=True/Accepted");
    let message = &get(&status.conditions, kind::READY).unwrap().message;
    assert!(message.contains("2 people get nothing") && message.contains("1 person gets nothing"), "{message}");
    assert_eq!(status.subjects[0].reason.as_deref(), Some("PrincipalCollision"));
}

#[test]
fn grants_that_are_not_ours_are_reported() {
    let mut scene = Scene::default();
    scene.documents[0] = with_claims("checkout-api", |claims| claims.unowned = 1);
    scene.documents[1].invoker_iam_disabled = true;
    let status = row(&scene, None, "Ready=True/Converged Accepted=True/Accepted");
    let message = &get(&status.conditions, kind::READY).unwrap().message;
    assert!(message.contains("1 was there before rolecall"), "{message}");
    assert!(message.contains("roles/run.invoker"), "{message}");
    assert_eq!(status.resources[1].reason.as_deref(), Some("InvokerIamDisabled"));
}

#[test]
fn lag_is_that_of_the_last_change_and_stays_until_the_next() {
    let mut scene = Scene::default();
    let lag = |millis, at| Some(Lag { took: SignedDuration::from_millis(millis), at });
    scene.documents[0].lag = lag(60_000, ago(100));
    scene.documents[1].lag = lag(1_849, ago(10));
    let status = scene.fold(None);
    assert_eq!(status.lag.as_deref(), Some("1.8s"));
    let quiet = Scene::default().fold(Some(&status));
    assert_eq!(quiet.lag.as_deref(), Some("1.8s"));
    for (millis, said) in [(85, "85ms"), (42_300, "42s"), (185_000, "3m5s"), (7_440_000, "2h4m"), (-3, "0ms")] {
        scene.documents[1].lag = lag(millis, ago(1));
        assert_eq!(scene.fold(None).lag.as_deref(), Some(said));
    }
}

#[test]
fn lists_are_bounded_and_counts_are_exact() {
    let documents: Vec<DocumentOutcome> = (0..200)
        .map(|n| {
            let mut outcome = held(&format!("s{n:03}"), &["user:a@x.example"], &format!("{n:016x}"));
            outcome.samples = vec![DriftSample {
                kind: DriftKind::GrantMissing,
                resource: outcome.document.resource(),
                role: "roles/run.invoker".to_owned(),
                principal: "user:a@x.example".to_owned(),
            }];
            outcome
        })
        .collect();
    let scene = Scene {
        documents,
        subjects: (0..60).map(|n| group(&format!("g{n}"))).collect(),
        refused: (0..60).map(|n| refused(&format!("spec.grants[{n}]"))).collect(),
        ..Scene::default()
    };
    let status = scene.fold(None);
    assert_eq!((status.resources.len(), status.subjects.len(), status.refused.len()), (50, 50, 50));
    let held = status.held.unwrap();
    assert_eq!((held.plans.len(), held.people), (50, 1));
    assert!(held.plan_hash.len() <= 4096);
    assert_eq!(status.drift.unwrap().samples.len(), 10);
    assert_eq!(status.grants.unwrap().desired, 1000);
}
