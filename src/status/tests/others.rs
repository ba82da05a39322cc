use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::api::{FindingStatus, IdentityProviderStatus, PolicyCounts, ProviderState, ResourceCounts, TargetDrift};

fn listing() -> ListingOutcome {
    ListingOutcome {
        resources: ResourceCounts { services: 3, jobs: 1, worker_pools: 0 },
        unreachable: Vec::new(),
        lacking: Vec::new(),
        failure: None,
        unlisted: Vec::new(),
        complete_at: Some(ago(10)),
    }
}

fn target(listing: Option<&ListingOutcome>) -> TargetInput<'_> {
    static NONE: DriftTally = DriftTally {
        contested: 0,
        kinds: BTreeMap::new(),
        reverted: 0,
        recently: Reversions { grants: 0, times: 0, last: None },
        recreated_at: None,
    };
    let tally = &NONE;
    TargetInput {
        orphaned: 0,
        generation: 3,
        problem: None,
        overlapped_by: None,
        frozen: None,
        project_number: Some("4242"),
        listing,
        missing_permissions: &[],
        untested_permissions: Some(&[]),
        permissions_matter: false,
        policies: PolicyCounts { in_sync: 3, ..PolicyCounts::default() },
        drift: &[],
        drift_tally: tally,
        nearly_full: &[],
        last_handled_reconcile_at: None,
    }
}

#[track_caller]
fn target_row(input: &TargetInput<'_>, expected: &str) {
    let status = fold_target(input, None, now()).status;
    assert_eq!(line(&status.conditions), expected, "{:#?}", status.conditions);
}

#[test]
fn target_that_was_listed_is_ready() {
    let listing = listing();
    target_row(
        &target(Some(&listing)),
        "Ready=True/Converged Accepted=True/Accepted Drifted=False/NoDrift Reachable=True/Reachable PermissionsValid=True/PermissionsValid",
    );
    let status = fold_target(&target(Some(&listing)), None, now()).status;
    assert_eq!(status.resources.unwrap().services, 3);
    assert_eq!(status.last_discovery_time.unwrap().0, ago(10));
}

#[test]
fn target_that_was_not_listed_yet_is_not_ready() {
    target_row(
        &target(None),
        "Ready=False/Progressing Accepted=True/Accepted Reconciling=True/Progressing Drifted=False/NoDrift Reachable=False/Progressing PermissionsValid=True/PermissionsValid",
    );
}

#[test]
fn target_with_unreachable_regions_concludes_nothing_from_absence() {
    let listing =
        ListingOutcome { unreachable: vec!["us-east1".to_owned()], lacking: vec!["us-east1".to_owned()], ..listing() };
    target_row(
        &target(Some(&listing)),
        "Ready=False/InventoryIncomplete Accepted=True/Accepted Reconciling=True/InventoryIncomplete Drifted=False/NoDrift Reachable=False/InventoryIncomplete PermissionsValid=True/PermissionsValid",
    );
}

#[test]
fn target_whose_list_failed_reports_the_answer() {
    let listing = ListingOutcome { failure: Some(failure(Reason::ProjectNotFound, ago(1))), ..listing() };
    let status = fold_target(&target(Some(&listing)), None, now()).status;
    let ready = get(&status.conditions, kind::READY).unwrap();
    assert_eq!(ready.reason, Reason::ProjectNotFound);
    assert!(ready.message.contains("Google said so"), "{}", ready.message);
}

#[test]
fn target_that_an_older_one_overlaps_is_not_accepted() {
    let listing = listing();
    target_row(
        &TargetInput { overlapped_by: Some("shop-dev-old"), ..target(Some(&listing)) },
        "Ready=False/OverlappingTarget Accepted=False/OverlappingTarget Stalled=True/OverlappingTarget Drifted=False/NoDrift Reachable=True/Reachable PermissionsValid=True/PermissionsValid",
    );
}

#[test]
fn target_without_permission_names_it() {
    let (listing, missing) = (listing(), vec!["run.services.setIamPolicy".to_owned()]);
    let input = TargetInput { missing_permissions: &missing, permissions_matter: true, ..target(Some(&listing)) };
    target_row(
        &input,
        "Ready=False/PermissionDenied Accepted=True/Accepted Stalled=True/PermissionDenied Drifted=False/NoDrift Reachable=True/Reachable PermissionsValid=False/PermissionDenied",
    );
    let status = fold_target(&input, None, now()).status;
    assert_eq!(status.missing_permissions, missing);
}

#[test]
fn target_with_drift_lists_it_bounded() {
    let listing = listing();
    let drift: Vec<TargetDrift> = (0..70)
        .map(|n| TargetDrift {
            kind: if n == 69 { DriftKind::GrantMissing } else { DriftKind::GrantUnexpected },
            resource: format!("projects/p/locations/l/services/s{n:02}"),
            role: "roles/run.invoker".to_owned(),
            principal: "user:a@x.example".to_owned(),
            first_seen: None,
        })
        .collect();
    let tally = DriftTally {
        contested: 0,
        kinds: BTreeMap::from([(DriftKind::GrantMissing, 1), (DriftKind::GrantUnexpected, 69)]),
        ..DriftTally::default()
    };
    let input = TargetInput {
        drift: &drift,
        drift_tally: &tally,
        policies: PolicyCounts { drifted: 70, ..PolicyCounts::default() },
        ..target(Some(&listing))
    };
    let status = fold_target(&input, None, now()).status;
    assert_eq!(status.drift.len(), 50);
    assert_eq!(status.drift[0].kind, DriftKind::GrantMissing, "what matters most comes first");
    assert_eq!(get(&status.conditions, kind::DRIFTED).unwrap().reason, Reason::DriftReported);
    let counts = status.drift_counts.unwrap();
    assert_eq!((counts.missing, counts.foreign), (1, 69), "counts are exact");
    assert_eq!(get(&status.conditions, kind::READY).unwrap().status, "True");
}

fn token(name: &str) -> TokenOutcome {
    TokenOutcome { name: name.to_owned(), not_after: None, last_used: None, problem: None }
}

fn provider(tokens: &[TokenOutcome]) -> ProviderInput<'_> {
    ProviderInput {
        capture: None,
        operator_namespace: None,
        generation: 2,
        problem: None,
        frozen: None,
        state: ProviderState::Active,
        endpoint: "https://scim.corp.example/idp/okta/scim/v2",
        token_endpoint: None,
        dialect: Some("Okta"),
        users: 2,
        groups: 1,
        ignored_nestings: 0,
        last_request: Some(ago(60)),
        stale_after: None,
        tokens,
        findings: &[],
        quota: QuotaOutcome { rows: 3, max_rows: 100, bytes: 900, max_bytes: 10_000, refused_at: None },
        store_id: "5f0c",
        last_handled_reconcile_at: None,
    }
}

#[track_caller]
fn provider_row(input: &ProviderInput<'_>, expected: &str) {
    let status = fold_provider(input, None, now()).status;
    assert_eq!(line(&status.conditions), expected, "{:#?}", status.conditions);
}

#[test]
fn provider_that_pushes_is_ready() {
    let tokens = [token("a")];
    provider_row(&provider(&tokens), "Ready=True/Accepted Fresh=True/Fresh TokensValid=True/TokensValid");
}

#[test]
fn provider_that_ignores_nested_groups_because_its_directory_is_older_says_so() {
    let tokens = [token("a")];
    let input = ProviderInput { ignored_nestings: 3, ..provider(&tokens) };
    provider_row(
        &input,
        "Ready=True/Accepted NestedGroups=False/NestingIgnored Fresh=True/Fresh TokensValid=True/TokensValid",
    );
    let status = fold_provider(&input, None, now()).status;
    let message = &get(&status.conditions, kind::NESTED_GROUPS).unwrap().message;
    assert!(message.contains("3 memberships") && message.contains("nestedGroups: Resolve"), "{message}");
}

#[test]
fn provider_that_is_refused_what_it_pushes_is_not_ready() {
    let tokens = [token("a")];
    let quota = provider(&tokens).quota;
    let exceeded = "Ready=False/QuotaExceeded Stalled=True/QuotaExceeded QuotaExceeded=True/QuotaExceeded \
                    Fresh=True/Fresh TokensValid=True/TokensValid";
    for quota in [
        QuotaOutcome { rows: 100, ..quota },
        QuotaOutcome { bytes: 10_001, ..quota },
        QuotaOutcome { refused_at: Some(ago(3600)), ..quota },
    ] {
        provider_row(&ProviderInput { quota, ..provider(&tokens) }, exceeded);
    }
    let long_ago = QuotaOutcome { refused_at: Some(ago(100_000)), ..quota };
    let input = ProviderInput { quota: long_ago, ..provider(&tokens) };
    provider_row(&input, "Ready=True/Accepted Fresh=True/Fresh TokensValid=True/TokensValid");
}

#[test]
fn provider_without_any_request_reports_what_to_enter_at_the_idp() {
    let tokens = [token("a")];
    let input = ProviderInput { last_request: None, ..provider(&tokens) };
    provider_row(&input, "Ready=True/WaitingForFirstRequest Fresh=False/NeverSeen TokensValid=True/TokensValid");
    let status = fold_provider(&input, None, now()).status;
    assert!(get(&status.conditions, kind::READY).unwrap().message.contains("status.endpoint"));
}

#[test]
fn provider_that_is_silent_is_stale_and_the_moment_is_known_before() {
    let tokens = [token("a")];
    let input = ProviderInput { stale_after: Some(Duration::from_mins(1)), ..provider(&tokens) };
    provider_row(&input, "Ready=True/Accepted Fresh=False/Stale TokensValid=True/TokensValid");
    let input = ProviderInput { stale_after: Some(Duration::from_secs(61)), ..provider(&tokens) };
    let folded = fold_provider(&input, None, now());
    assert_eq!(get(&folded.status.conditions, kind::FRESH).unwrap().status, "True");
    assert_eq!(folded.revisit, Some(now() + SignedDuration::from_secs(1)));
}

#[test]
fn expired_token_is_reported_and_another_keeps_the_provider_ready() {
    let expired = TokenOutcome { not_after: Some(now()), ..token("a") };
    let tokens =
        [expired.clone(), TokenOutcome { not_after: Some(now() + SignedDuration::from_hours(1)), ..token("b") }];
    provider_row(&provider(&tokens), "Ready=True/Accepted Fresh=True/Fresh TokensValid=False/TokenExpired");
    let folded = fold_provider(&provider(&tokens), None, now());
    assert_eq!(folded.status.tokens[0].reason.as_deref(), Some("TokenExpired"));
    assert_eq!(folded.revisit, Some(now() + SignedDuration::from_hours(1)));
    provider_row(
        &provider(&[expired]),
        "Ready=False/TokenExpired Stalled=True/TokenExpired Fresh=True/Fresh TokensValid=False/TokenExpired",
    );
}

#[test]
fn token_that_ends_within_14_days_is_named_with_the_time_and_the_moment_is_known_before() {
    let warning = SignedDuration::from_hours(14 * 24);
    let soon = TokenOutcome { not_after: Some(now() + warning), ..token("a") };
    let later = TokenOutcome { not_after: Some(now() + warning + SignedDuration::from_secs(9)), ..token("b") };
    let (both, alone) = ([soon, later.clone(), token("c")], [later]);
    let expiring = "Ready=True/Accepted Fresh=True/Fresh TokensValid=True/TokenExpiring";
    provider_row(&provider(&both), expiring);
    let status = fold_provider(&provider(&both), None, now()).status;
    let message = &get(&status.conditions, kind::TOKENS_VALID).unwrap().message;
    let end = (now() + warning).to_string();
    assert!(message.contains(&format!("token `a` expires at {end}")) && !message.contains("`b`"), "{message}");
    assert_eq!(status.tokens[0].reason, None, "it can be used");
    provider_row(&provider(&alone), "Ready=True/Accepted Fresh=True/Fresh TokensValid=True/TokensValid");
    assert_eq!(fold_provider(&provider(&alone), None, now()).revisit, Some(now() + SignedDuration::from_secs(9)));
}

#[test]
fn provider_whose_secret_is_applied_with_it_is_not_stalled_before_the_secret_had_time_to_arrive() {
    let tokens = [TokenOutcome { problem: Some(Reason::TokenSecretNotFound), ..token("a") }];
    let input = provider(&tokens);
    let mut first = fold_provider(&input, None, now());
    let turn = |status: &IdentityProviderStatus, kind: &str| get(&status.conditions, kind).is_some();
    assert!(turn(&first.status, kind::RECONCILING) && !turn(&first.status, kind::STALLED));
    assert_eq!(first.revisit, Some(now() + SignedDuration::from_secs(10)));
    let ready = first.status.conditions.iter_mut().find(|condition| condition.type_ == kind::READY).unwrap();
    ready.last_transition_time = Time(ago(10));
    let late = fold_provider(&input, Some(&first.status), now());
    assert!(turn(&late.status, kind::STALLED) && !turn(&late.status, kind::RECONCILING));
    assert_eq!(late.revisit, None);
}

#[test]
fn token_used_by_two_providers_is_reported() {
    let tokens = [TokenOutcome { problem: Some(Reason::TokenShared), ..token("a") }];
    provider_row(
        &provider(&tokens),
        "Ready=False/TokenShared Stalled=True/TokenShared Fresh=True/Fresh TokensValid=False/TokenShared",
    );
}

#[test]
fn provider_that_is_suspended_or_frozen_is_not_ready() {
    let tokens = [token("a")];
    let suspended = ProviderInput { state: ProviderState::Suspended, ..provider(&tokens) };
    provider_row(
        &suspended,
        "Ready=False/Suspended Stalled=True/Suspended Fresh=True/Fresh TokensValid=True/TokensValid",
    );
    let frozen = ProviderInput { frozen: Some(FreezeReason::StoreMismatch), ..provider(&tokens) };
    provider_row(
        &frozen,
        "Ready=False/StoreMismatch Stalled=True/StoreMismatch Fresh=True/Fresh TokensValid=True/TokensValid",
    );
    let observed = ProviderInput { frozen: Some(FreezeReason::Observed), ..provider(&tokens) };
    provider_row(&observed, "Ready=True/Accepted Fresh=True/Fresh TokensValid=True/TokensValid");
}

#[test]
fn times_and_last_seen_values_are_no_news() {
    let tokens = [token("a")];
    let finding = FindingStatus { code: "StringBoolean".to_owned(), count: 1, ..FindingStatus::default() };
    let one = ProviderInput { findings: std::slice::from_ref(&finding), ..provider(&tokens) };
    let used = [TokenOutcome { last_used: Some(now()), ..token("a") }];
    let often = FindingStatus { count: 9, ..finding.clone() };
    let other =
        ProviderInput { findings: std::slice::from_ref(&often), last_request: Some(now()), tokens: &used, ..one };
    let before = fold_provider(&one, None, ago(5)).status;
    let after = fold_provider(&other, None, now()).status;
    assert_ne!(before, after);
    assert!(same_provider(&before, &after));
    let more = fold_provider(&ProviderInput { users: 3, ..one }, None, ago(5)).status;
    assert!(!same_provider(&before, &more));

    let listing = listing();
    let listed_again = ListingOutcome { complete_at: Some(now()), ..listing.clone() };
    let before = fold_target(&target(Some(&listing)), None, ago(5)).status;
    let after = fold_target(&target(Some(&listed_again)), None, now()).status;
    assert!(before != after && same_target(&before, &after));
}

#[test]
fn a_store_that_is_not_trusted_does_not_replace_the_recorded_one() {
    let tokens = [token("a")];
    let first =
        fold_provider(&ProviderInput { operator_namespace: Some("a"), ..provider(&tokens) }, None, now()).status;
    assert_eq!((first.store_id.as_deref(), first.operator_namespace.as_deref()), (Some("5f0c"), Some("a")));
    let other = ProviderInput {
        store_id: "77aa",
        operator_namespace: Some("b"),
        frozen: Some(FreezeReason::StoreMismatch),
        ..provider(&tokens)
    };
    let frozen = fold_provider(&other, Some(&first), now()).status;
    assert_eq!((frozen.store_id.as_deref(), frozen.operator_namespace.as_deref()), (Some("5f0c"), Some("a")));
    assert_eq!(fold_provider(&other, None, now()).status.store_id, None);
    let accepted = fold_provider(&ProviderInput { frozen: None, ..other }, Some(&frozen), now()).status;
    assert_eq!((accepted.store_id.as_deref(), accepted.operator_namespace.as_deref()), (Some("77aa"), Some("b")));
}

#[test]
fn mapping_that_is_not_applied_reports_why_and_who_has_to_act() {
    let of = |word: Reason| {
        let status = crate::status::not_taken_in(Some(3), word, "because", None, now());
        assert_eq!(status.observed_generation, Some(3));
        line(&status.conditions)
    };
    let invalid = of(Reason::InvalidManifest);
    assert!(invalid.contains("Ready=False/InvalidManifest") && invalid.contains("Stalled=True"), "{invalid}");
    assert!(invalid.contains("Accepted=False"), "{invalid}");
    let refused = of(Reason::FinalizerRefused);
    assert!(refused.contains("Ready=False/FinalizerRefused") && refused.contains("Reconciling=True"), "{refused}");
    assert!(!refused.contains("Accepted"), "{refused}");
}
