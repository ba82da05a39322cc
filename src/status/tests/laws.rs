use proptest::prelude::*;

use super::*;

const FAILURES: [Reason; 5] = [
    Reason::PermissionDenied,
    Reason::MemberRefused,
    Reason::Throttled,
    Reason::GoogleUnavailable,
    Reason::OutcomeUnknown,
];
const GROUPS: [Reason; 5] = [
    Reason::GroupNotFound,
    Reason::GroupDeleted,
    Reason::GroupAmbiguous,
    Reason::GroupIdentityChanged,
    Reason::NestingLimitExceeded,
];
const FREEZES: [FreezeReason; 5] = [
    FreezeReason::NotLoaded,
    FreezeReason::Observed,
    FreezeReason::TargetNotFound,
    FreezeReason::Suspended,
    FreezeReason::StoreRewound,
];

prop_compose! {
    pub(super) fn claim_counts()(n in prop::array::uniform9(0_u64..3), read in prop::bool::weighted(0.9)) -> Option<ClaimCounts> {
        let [acknowledged, pending, failed, unowned, missing, observed, revoking, held, frozen] = n;
        read.then(|| ClaimCounts {
            desired: acknowledged + pending + failed + missing + observed + frozen,
            acknowledged,
            verified: 0,
            pending,
            failed,
            unowned: unowned.min(acknowledged),
            missing,
            observed,
            frozen,
            revoking,
            held,
            held_leavers: 0,
            oldest_revoking_since: (revoking > 0).then(|| ago(5)),
        })
    }
}

prop_compose! {
    pub(super) fn outcomes()(
        name in "[a-c]{1,2}",
        claims in claim_counts(),
        pending in prop::option::of(0_i64..200),
        failures in prop::collection::vec((prop::sample::select(&FAILURES[..]), 0_i64..200), 0..3),
        held in prop::collection::vec(("[ab]", prop::collection::btree_set("[a-d]", 1..3)), 0..2),
        counts in (0_u64..2, 0_u64..2, 0_u64..2),
        lag in prop::option::of((0_i64..5000, 0_i64..100)),
        unlisted in prop::bool::weighted(0.1),
    ) -> DocumentOutcome {
        DocumentOutcome {
            claims,
            pending_since: pending.map(ago),
            failures: failures.into_iter().map(|(word, since)| failure(word, ago(since))).collect(),
            held: held.into_iter().map(|(plan_hash, members)| HeldOutcome {
                leavers: false,
                members: members.iter().map(|name| MemberKey::of(&format!("user:{name}@x.example"))).collect(),
                plan_hash,
                since: ago(30),
            }).collect(),
            unlisted,
            drift: DriftTally {
                contested: 0,
                kinds: [
                    (DriftKind::GrantRemains, counts.1),
                    (DriftKind::GrantUnexpected, counts.2),
                    (DriftKind::GrantMissing, claims.map_or(0, |claims| claims.missing)),
                ]
                .into_iter()
                .filter(|(_, n)| *n > 0)
                .collect(),
                reverted: counts.0,
                recently: Reversions {
                    grants: counts.0,
                    times: counts.0 * 3,
                    last: (counts.0 > 0).then(|| ago(i64::try_from(counts.2).unwrap_or_default() * 3000)),
                },
                recreated_at: None,
            },
            lag: lag.map(|(took, at)| Lag { took: SignedDuration::from_millis(took), at: ago(at) }),
            ..DocumentOutcome::unread(document(&name))
        }
    }
}

prop_compose! {
    pub(super) fn scenes()(
        documents in prop::collection::btree_map("[a-f]{1,2}", outcomes(), 0..5),
        subjects in prop::collection::btree_map("[a-c]", prop::option::weighted(0.2, prop::sample::select(&GROUPS[..])), 1..4),
        refused_paths in prop::collection::btree_set("[0-3]", 0..3),
        admitted in 0_u64..2,
        frozen in prop::option::weighted(0.2, prop::sample::select(&FREEZES[..])),
        unmatched in prop::collection::vec("services/[ab][*]?", 0..3),
        mode in prop::sample::select(&[MappingMode::Enforce, MappingMode::Observe, MappingMode::Suspend][..]),
        ending in prop::bool::weighted(0.1),
        problem in prop::bool::weighted(0.1),
    ) -> Scene {
        Scene {
            documents: documents
                .into_iter()
                .map(|(name, outcome)| DocumentOutcome { document: document(&name), ..outcome })
                .collect(),
            subjects: subjects.into_iter().map(|(name, problem)| SubjectOutcome { problem, ..group(&name) }).collect(),
            refused: refused_paths.iter().map(|n| refused(&format!("spec.grants[{n}]"))).collect(),
            admitted,
            frozen,
            unmatched,
            mode,
            ending,
            problem: problem.then(|| failure(Reason::InvalidManifest, ago(9))),
            ..Scene::default()
        }
    }
}

fn shuffled(scene: &Scene, turn: usize) -> Scene {
    fn turned<T: Clone>(list: &[T], turn: usize) -> Vec<T> {
        let mut list = list.to_vec();
        list.reverse();
        let by = if list.is_empty() { 0 } else { turn % list.len() };
        list.rotate_left(by);
        list
    }
    let mut other = scene.clone();
    other.documents = turned(&scene.documents, turn);
    for document in &mut other.documents {
        document.failures.reverse();
    }
    other.subjects = turned(&scene.subjects, turn);
    other.refused = turned(&scene.refused, turn);
    other.unmatched = turned(&scene.unmatched, turn);
    other
}

proptest! {
    #[test]
    fn the_order_of_outcomes_does_not_matter(scene in scenes(), turn in 0_usize..5, known in any::<bool>()) {
        let before = Scene::before();
        let previous = known.then_some(&before);
        prop_assert_eq!(scene.fold_at(previous, now()), shuffled(&scene, turn).fold_at(previous, now()));
    }

    #[test]
    fn folding_again_changes_nothing(scene in scenes()) {
        let first = scene.fold(None);
        let second = scene.fold(Some(&first));
        let third = scene.fold_at(Some(&second), now() + SignedDuration::from_secs(1)).status;
        prop_assert!(same_mapping(&second, &third), "{:#?}\n{:#?}", second, third);
        for (one, other) in second.conditions.iter().zip(&third.conditions) {
            prop_assert_eq!(&one.last_transition_time, &other.last_transition_time);
        }
    }

    #[test]
    fn time_alone_changes_nothing_before_the_status_is_due(
        scene in scenes(), known in any::<bool>(), seconds in 1_i64..8000,
    ) {
        let before = Scene::before();
        let then = now() + SignedDuration::from_secs(1);
        let new = scene.fold_at(known.then_some(&before), now()).status;
        // A status that changed is folded once more, because the previous status is an input.
        let first = scene.fold_at(Some(&new), then);
        let later = then + SignedDuration::from_secs(seconds);
        if first.revisit.is_none_or(|due| later < due) {
            let second = scene.fold_at(Some(&first.status), later).status;
            prop_assert!(same_mapping(&first.status, &second), "due {:?}\n{:#?}\n{:#?}", first.revisit, first.status, second);
        }
        prop_assert!(first.revisit.is_none_or(|due| due > then), "{:?}", first.revisit);
    }

    #[test]
    fn conditions_are_well_formed_and_do_not_contradict_each_other(scene in scenes()) {
        let status = scene.fold(Some(&Scene::before()));
        let truth = |type_: &str| get(&status.conditions, type_).map(|condition| condition.status == "True");
        let ready = truth(kind::READY).unwrap();
        prop_assert!(truth(kind::ACCEPTED).is_some());
        // Not ready: exactly one of the two says who has to act. Ready: neither.
        let moves = [truth(kind::RECONCILING), truth(kind::STALLED)].into_iter().flatten().count();
        prop_assert_eq!(moves, usize::from(!ready));
        for type_ in [kind::RECONCILING, kind::STALLED, kind::HELD, kind::DRIFTED, kind::FROZEN] {
            prop_assert!(truth(type_) != Some(false), "{} is present only when it is true", type_);
        }
        prop_assert!(!(ready && truth(kind::FROZEN) == Some(true)));
        let sum = |of: fn(&ClaimCounts) -> u64| scene.documents.iter().filter_map(|document| document.claims.as_ref()).map(of).sum::<u64>();
        let grants = status.grants.as_ref().unwrap();
        prop_assert_eq!(grants.desired, grants.acknowledged + grants.pending + grants.held + grants.failed);
        prop_assert_eq!(grants.held, i64::try_from(sum(ClaimCounts::kept_back) + sum(|claims| claims.held)).unwrap());
        let partial = grants.pending > 0 || grants.failed > 0 || sum(|claims| claims.frozen) > 0;
        let lasts = scene.documents.iter().any(|document| document.pending_since.is_some_and(|since| since <= ago(60)));
        prop_assert!(!(ready && partial && lasts), "a partial result that lasts is not Ready");
        let revoking = scene.documents.iter().filter_map(|document| document.claims).any(|claims| claims.revoking > 0);
        prop_assert!(!(ready && revoking), "access that should be gone is never Ready");
        for condition in &status.conditions {
            prop_assert!(Reason::from_word(&condition.reason).is_some(), "{} has no entry", condition.reason);
            prop_assert!(!condition.message.is_empty());
            prop_assert!(!condition.message.contains("instant"));
            prop_assert!(!condition.message.ends_with('.'));
            prop_assert_eq!(condition.observed_generation, Some(scene.generation));
        }
    }
}

#[test]
fn transition_times_move_with_the_status_and_not_with_the_reason() {
    let before = Scene::before();
    let mut scene = Scene::default();
    scene.documents[0].failures = vec![failure(Reason::Throttled, ago(3000))];
    let throttled = scene.fold_at(Some(&before), ago(50)).status;
    assert_eq!(get(&throttled.conditions, kind::READY).unwrap().last_transition_time.0, ago(50));
    assert_eq!(get(&throttled.conditions, kind::ACCEPTED).unwrap().last_transition_time.0, ago(3600));
    scene.documents[0].failures = vec![failure(Reason::GoogleUnavailable, ago(3000))];
    let unavailable = scene.fold_at(Some(&throttled), ago(40)).status;
    let ready = get(&unavailable.conditions, kind::READY).unwrap();
    assert_eq!(
        (ready.reason.clone(), ready.last_transition_time.0),
        (Reason::GoogleUnavailable.word().to_owned(), ago(50))
    );
    let well = Scene::default().fold(Some(&unavailable));
    assert_eq!(get(&well.conditions, kind::READY).unwrap().last_transition_time.0, now());
}
