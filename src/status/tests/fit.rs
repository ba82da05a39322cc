//! The API server accepts every folded status: each is validated against the schema of the CRD.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::laws::scenes;
use super::*;
use crate::api::fit::tests::{refusals, status_schema};
use crate::api::{FindingStatus, PolicyCounts, ProviderState, ResourceCounts, TargetDrift};

/// Texts as they come from annotations, IdPs, Google and manifests: of any length and content.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z/0-9-]{1,20}",
        1 => Just(String::new()),
        1 => "\\PC{0,80}",
        2 => (1_usize..40_000, prop::sample::select(vec!["a", "é", "🦀", "\n"])).prop_map(|(n, of)| of.repeat(n)),
        1 => Just("x".repeat(300)),
    ]
}

fn many() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![4 => prop::collection::vec(texts(), 0..4), 1 => texts().prop_map(|text| vec![text; 300])]
}

fn moments() -> impl Strategy<Value = Timestamp> {
    prop_oneof![8 => (-100_000_i64..100_000).prop_map(ago), 1 => Just(Timestamp::MIN), 1 => Just(Timestamp::MAX)]
}

/// The status as the cache shows it.
fn published(status: Status, generation: i64) -> Value {
    let cache = StatusCache::new();
    let namespace = (status.kind() == Kind::RoleMapping).then(|| "checkout".to_owned());
    let metadata = Metadata { name: "a".to_owned(), namespace, generation: Some(generation), ..Metadata::default() };
    cache.publish(Item::new(metadata, None, status));
    serde_json::to_value(&cache.list().items[0].status).unwrap()
}

fn refused_by_the_schema(status: Status) -> Vec<String> {
    let kind = status.kind();
    let mut found = Vec::new();
    refusals(&status_schema(kind), &published(status, 7), "status", &mut found);
    found
}

prop_compose! {
    fn wild_scenes()(
        scene in scenes(),
        names in many(),
        words in prop::collection::vec(texts(), 8),
        many_documents in 0_usize..120,
        generation in any::<i64>(),
        counts in prop::array::uniform4(any::<u64>()),
        at in moments(),
        took in any::<i64>(),
    ) -> Scene {
        let mut scene = Scene { generation, ..scene };
        let [reconcile, detail, loading, unmatched, message, group, principal, hash] =
            <[String; 8]>::try_from(words).unwrap();
        for n in 0..many_documents {
            let mut outcome = scene.documents.first().cloned().unwrap_or_else(|| settled("a", 1));
            outcome.document = document(&format!("s{n}"));
            outcome.failures = vec![Failure { reason: Reason::PolicyRefused, message: message.clone(), since: at }];
            outcome.samples = vec![DriftSample {
                kind: DriftKind::GrantMissing,
                resource: outcome.document.resource(),
                role: group.clone(),
                principal: principal.clone(),
            }];
            outcome.held = vec![HeldOutcome {
                leavers: false,
                members: names.iter().map(|name| MemberKey::of(name)).collect(),
                plan_hash: format!("{hash}{n}"),
                since: at,
            }];
            outcome.drift = DriftTally {
                contested: 0,
                kinds: BTreeMap::from([(DriftKind::GrantUnexpected, counts[1]), (DriftKind::GrantRemains, counts[2])]),
                reverted: counts[0],
                recently: Reversions { grants: counts[0], times: counts[1], last: Some(at) },
                recreated_at: Some(at),
            };
            outcome.lag = Some(Lag { took: SignedDuration::from_millis(took), at });
            let claims = outcome.claims.get_or_insert_default();
            (claims.pending, claims.desired) = (counts[3], counts[3].saturating_add(claims.acknowledged));
            claims.oldest_revoking_since = Some(at);
            scene.documents.push(outcome);
        }
        scene.subjects = names
            .iter()
            .map(|name| SubjectOutcome {
                identity_provider: name.clone(),
                display_name: Some(group.clone()),
                external_id: Some(principal.clone()),
                id: Some(hash.clone()),
                members: counts[0],
                problem: None,
                nesting: Some((Reason::NestingCycle, group.clone())),
                left_out: BTreeMap::from([(Reason::PrincipalInvalid, counts[1])]),
            })
            .collect();
        scene.refused = names
            .iter()
            .map(|name| RefusedPath { path: name.clone(), resource: group.clone(), role: message.clone(), reason: None })
            .collect();
        scene.unmatched = vec![unmatched];
        (scene.reconcile, scene.frozen_detail, scene.loading) = (Some(reconcile), detail, Some(loading));
        scene
    }
}

proptest! {
    #![proptest_config(crate::model::cases::cases(48))]

    #[test]
    fn any_outcome_of_a_mapping_gives_a_status_that_the_schema_accepts(scene in wild_scenes(), at in moments()) {
        let folded = scene.fold_at(None, at).status;
        let again = scene.fold_at(Some(&folded), now()).status;
        for status in [folded, again] {
            prop_assert_eq!(refused_by_the_schema(Status::RoleMapping(Box::new(status))), Vec::<String>::new());
        }
    }

    #[test]
    fn any_mapping_that_is_not_applied_gives_a_status_that_the_schema_accepts(message in texts(), generation in any::<i64>()) {
        let status = not_taken_in(Some(generation), Reason::InvalidManifest, &message, None, now());
        prop_assert_eq!(refused_by_the_schema(Status::RoleMapping(Box::new(status))), Vec::<String>::new());
    }

    #[test]
    fn any_outcome_of_a_target_gives_a_status_that_the_schema_accepts(
        names in many(),
        text in texts(),
        counts in prop::array::uniform4(any::<i64>()),
        at in moments(),
    ) {
        let drift: Vec<TargetDrift> = names
            .iter()
            .map(|name| TargetDrift {
                kind: DriftKind::GrantUnexpected,
                resource: name.clone(),
                role: text.clone(),
                principal: name.clone(),
                first_seen: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at)),
            })
            .collect();
        let listing = ListingOutcome {
            resources: ResourceCounts { services: counts[0], jobs: counts[1], worker_pools: counts[2] },
            unreachable: names.clone(),
            lacking: names.clone(),
            unlisted: names.clone(),
            failure: Some(Failure { reason: Reason::GoogleUnavailable, message: text.clone(), since: at }),
            complete_at: Some(at),
        };
        let input = TargetInput {
            generation: counts[3],
            problem: None,
            overlapped_by: Some(&text),
            frozen: None,
            project_number: Some(&text),
            listing: Some(&listing),
            missing_permissions: &names,
            untested_permissions: Some(&names),
            permissions_matter: true,
            orphaned: counts[0].unsigned_abs(),
            policies: PolicyCounts { in_sync: counts[0], drifted: counts[1], held: counts[2], failed: counts[3], frozen: 0 },
            drift: &drift,
            drift_tally: &DriftTally::default(),
            nearly_full: &names.iter().map(|name| (name.clone(), crate::model::Capacity { used: 9, limit: 9, ..crate::model::Capacity::default() })).collect::<Vec<_>>(),
            last_handled_reconcile_at: Some(&text),
        };
        let status = fold_target(&input, None, at).status;
        prop_assert_eq!(refused_by_the_schema(Status::CloudRunTarget(Box::new(status))), Vec::<String>::new());
    }

    #[test]
    fn any_outcome_of_a_provider_gives_a_status_that_the_schema_accepts(
        names in many(),
        text in texts(),
        count in any::<i64>(),
        at in moments(),
    ) {
        let tokens: Vec<TokenOutcome> = names
            .iter()
            .map(|name| TokenOutcome { name: name.clone(), not_after: Some(at), last_used: Some(at), problem: None })
            .collect();
        let findings: Vec<FindingStatus> = names
            .iter()
            .map(|name| FindingStatus { code: name.clone(), pointer: text.clone(), hint: text.clone(), count, last_seen: None })
            .collect();
        let input = ProviderInput {
            ignored_nestings: 0,
            capture: None,
            generation: count,
            problem: None,
            frozen: None,
            state: ProviderState::Active,
            endpoint: &text,
            token_endpoint: Some(&text),
            dialect: Some(&text),
            users: count.unsigned_abs(),
            groups: 0,
            last_request: Some(at),
            stale_after: Some(Duration::MAX),
            tokens: &tokens,
            findings: &findings,
            store_id: &text,
            operator_namespace: Some(&text),
            quota: crate::status::QuotaOutcome { rows: 3, max_rows: 100, bytes: 900, max_bytes: 10_000, refused_at: Some(at) },
            last_handled_reconcile_at: Some(&text),
        };
        let status = fold_provider(&input, None, now()).status;
        prop_assert_eq!(refused_by_the_schema(Status::IdentityProvider(Box::new(status))), Vec::<String>::new());
    }

    #[test]
    fn the_replacement_of_a_refused_status_is_one_that_the_schema_accepts(refusal in texts(), generation in any::<i64>()) {
        let statuses = [
            Status::IdentityProvider(Box::default()),
            Status::CloudRunTarget(Box::default()),
            Status::RoleMapping(Box::new(Scene::default().fold(None))),
        ];
        for status in statuses {
            let instead = super::super::refused::refused(&status, &refusal, Some(generation), now());
            prop_assert_eq!(line(instead.conditions()), "Ready=False/StatusRefused Stalled=True/StatusRefused");
            prop_assert_eq!(refused_by_the_schema(instead), Vec::<String>::new());
        }
    }
}

#[test]
fn a_long_annotation_is_cut_and_nothing_else_is_lost() {
    let scene = Scene { reconcile: Some("x".repeat(300)), ..Scene::default() };
    let shown = published(Status::RoleMapping(Box::new(scene.fold(None))), 7);
    let echo = shown["lastHandledReconcileAt"].as_str().unwrap();
    assert_eq!((echo.chars().count(), echo.ends_with("x…")), (256, true));
    assert_eq!(shown["grants"]["summary"], "8/8");
}
