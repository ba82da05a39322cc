//! The history of specs, pins and inventory.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::{
    ClaimDisposal, DocumentKey, FreezeReason, Kind, MappingKey, MappingPhase, Pin, ResourceKind, TargetName,
};

const MAPPING: Kind = Kind::RoleMapping;

pub(in crate::store) fn spec(name: &str, generation: i64, json: &serde_json::Value) -> StoredSpec {
    StoredSpec {
        kind: MAPPING,
        namespace: Some("team".to_owned()),
        name: name.to_owned(),
        generation,
        phase: MappingPhase::Live,
        source: "a.yaml".to_owned(),
        json: json.to_string(),
    }
}

pub(in crate::store) async fn versions(store: &Store, name: &str) -> Vec<SpecVersion> {
    store.spec_versions(MAPPING, Some("team"), name).await.unwrap()
}

pub(in crate::store) fn shape(versions: &[SpecVersion]) -> Vec<(i64, Option<MappingPhase>, bool)> {
    versions.iter().map(|version| (version.generation, version.phase, version.json.is_some())).collect()
}

async fn every_version_of_a_spec_is_kept_and_a_restart_that_applies_the_same_adds_none(home: Home) {
    let store = &home.store;
    let first = json!({"metadata": {"uid": "u1", "resourceVersion": "7"}, "spec": {"mode": "Observe"}});
    let by = |name: &str| Some(name.to_owned());
    let version = store.put_spec_version(spec("m", 1, &first), by("kubectl")).await.unwrap().unwrap();
    assert_eq!((version.seq, version.uid.as_str(), version.is_new), (1, "u1", true));
    let second = json!({"metadata": {"uid": "u1", "resourceVersion": "8"}, "spec": {"mode": "Enforce"}});
    store.put_spec_version(spec("m", 2, &second), by("flux")).await.unwrap();
    store
        .set_spec_phase(MAPPING, Some("team"), "m", MappingPhase::Missing(FreezeReason::MappingMissing))
        .await
        .unwrap();
    store
        .set_spec_phase(MAPPING, Some("team"), "m", MappingPhase::Missing(FreezeReason::MappingMissing))
        .await
        .unwrap();
    store.put_spec_version(spec("m", 2, &second), None).await.unwrap();
    let again = home.open().await;
    again.begin_epoch("again").await.unwrap();
    // The API server increases the resource version with its own writes, such as those of a status.
    let same = json!({
        "spec": {"mode": "Enforce"}, "status": {"observedGeneration": 2},
        "metadata": {"resourceVersion": "9", "uid": "u1", "managedFields": [{"manager": "rolecall"}]},
    });
    let version = again.put_spec_version(spec("m", 2, &same), by("kubectl")).await.unwrap().unwrap();
    assert_eq!((version.seq, version.is_new), (4, false));
    again.set_spec_phase(MAPPING, Some("team"), "m", MappingPhase::Terminating(ClaimDisposal::Revoke)).await.unwrap();
    again.remove_spec(MAPPING, Some("team"), "m").await.unwrap();
    again.remove_spec(MAPPING, Some("team"), "m").await.unwrap();

    let kept = versions(&again, "m").await;
    let live = Some(MappingPhase::Live);
    let missing = Some(MappingPhase::Missing(FreezeReason::MappingMissing));
    let terminating = Some(MappingPhase::Terminating(ClaimDisposal::Revoke));
    let shapes = [(1, live), (2, live), (2, missing), (2, live), (2, terminating), (2, None)];
    assert_eq!(shape(&kept), shapes.map(|(generation, phase)| (generation, phase, phase.is_some())));
    assert_eq!(kept.iter().map(|version| version.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(kept[1].written_by.as_deref(), Some("flux"));
    assert_eq!(kept[1].json.as_deref(), Some(r#"{"metadata":{"uid":"u1"},"spec":{"mode":"Enforce"}}"#));
    assert!(kept.iter().all(|version| version.uid == "u1"));
}

async fn mapping_of_a_folder_that_is_made_again_is_another_object_although_its_generation_is_the_same(home: Home) {
    let text = json!({"metadata": {"name": "m"}, "spec": {}});
    let put = || home.store.put_spec_version(spec("m", 1, &text), Some("a.yaml".to_owned()));
    let first = put().await.unwrap().unwrap();
    assert_eq!(put().await.unwrap(), Some(VersionRef { is_new: false, ..first.clone() }));
    home.store.remove_spec(MAPPING, Some("team"), "m").await.unwrap();
    let second = put().await.unwrap().unwrap();
    assert_ne!(first.uid, second.uid);
    let kept = versions(&home.store, "m").await;
    assert_eq!(
        shape(&kept).iter().map(|(_, phase, _)| *phase).collect::<Vec<_>>(),
        [Some(MappingPhase::Live), None, Some(MappingPhase::Live)]
    );
    assert_eq!(kept[1].uid, first.uid);
}

async fn tokens_have_no_history(home: Home) {
    let hashes = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    let secret = StoredSpec { kind: Kind::Secret, ..spec("tokens", 1, &json!({"a": hashes})) };
    assert_eq!(home.store.put_spec_version(secret, Some("a.yaml".to_owned())).await.unwrap(), None);
    home.store.remove_spec(Kind::Secret, Some("team"), "tokens").await.unwrap();
    assert_eq!(home.store.spec_versions(Kind::Secret, Some("team"), "tokens").await.unwrap(), []);
    assert_eq!(home.store.highest_seq().await.unwrap(), 0);
}

async fn history_and_directory_share_one_sequence_and_the_feed_sees_the_directory_only(home: Home) {
    let store = &home.store;
    let mut hint = store.subscribe();
    store.put_spec(spec("m", 1, &json!({}))).await.unwrap();
    let user = add_user(store, &okta(), "a@x.example").await;
    store.put_spec(spec("m", 2, &json!({}))).await.unwrap();
    assert_eq!(store.highest_seq().await.unwrap(), 3);
    assert_eq!(*hint.wait_for(|seq| *seq >= 3).await.unwrap(), 3);
    let events = store.events_after(0, 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2]);
    assert_eq!(store.events_after(2, 10).await.unwrap(), []);
    let audit = store.audit_after(0, 10).await.unwrap();
    assert_eq!(
        audit.iter().find(|row| row.entry.subject == Some(user.facts.id.to_string())).unwrap().entry.cause_seqs,
        [2]
    );

    // A failed request uses no position.
    let taken = store.create_user(&okta(), &origin(), new_user("a@x.example")).await.unwrap_err();
    assert_eq!(taken.reason(), "Uniqueness");
    add_user(store, &okta(), "b@x.example").await;
    assert_eq!(store.events_after(2, 10).await.unwrap()[0].seq, 4);

    let mut loaded = 0;
    assert_eq!(store.snapshot(&mut |_, _| loaded += 1).await.unwrap(), 4);
    let again = home.open().await;
    assert_eq!(*again.subscribe().borrow(), 4);
}

async fn pins_can_be_read_as_they_were_and_what_does_not_change_one_adds_nothing(home: Home) {
    let store = &home.store;
    let pin = |selector: &str, group: u128| Pin {
        mapping: MappingKey::new("team", "m").unwrap(),
        provider: okta(),
        selector: selector.to_owned(),
        group: GroupId(Uuid::from_u128(group)),
    };
    let (red, blue) = ("displayName:red team", "externalId:blue");
    store.put_pins(vec![pin(red, 1), pin(blue, 2)]).await.unwrap();
    store.put_pins(vec![pin(red, 1), pin(blue, 2)]).await.unwrap();
    let again = home.open().await;
    again.begin_epoch("again").await.unwrap();
    again.put_pins(vec![pin(red, 1), pin(blue, 3)]).await.unwrap();
    again.remove_pins(&pin(red, 1).mapping).await.unwrap();
    again.remove_pins(&pin(red, 1).mapping).await.unwrap();
    assert_eq!(again.highest_seq().await.unwrap(), 5);
    let expected = [vec![], vec![pin(red, 1)], vec![pin(red, 1), pin(blue, 2)], vec![pin(red, 1), pin(blue, 3)]];
    for (seq, expected) in (0..).zip(&expected) {
        assert_eq!(again.pins_at(&pin(red, 1).mapping, seq).await.unwrap(), *expected, "at {seq}");
    }
    assert_eq!(again.pins_at(&pin(red, 1).mapping, 5).await.unwrap(), []);
}

fn resource(region: &str, name: &str, label: &str) -> ResourceRecord {
    ResourceRecord {
        document: DocumentKey::try_from(format!("run:projects/p/locations/{region}/services/{name}")).unwrap(),
        uid: format!("uid-{name}"),
        labels: BTreeMap::from([("team".to_owned(), label.to_owned())]),
        invoker_iam_disabled: label == "open",
    }
}

fn listing(resources: &[ResourceRecord], unlisted: &[&str]) -> ListingRecord {
    let unlisted = unlisted.iter().map(|region| ((*region).to_owned(), ResourceKind::Service)).collect();
    ListingRecord { resources: Some(resources.to_vec()), unlisted }
}

async fn inventory_is_kept_as_differences_and_can_be_read_as_it_was(home: Home) {
    let store = &home.store;
    let target = TargetName::new("t").unwrap();
    let (a, b) = (resource("l", "a", "red"), resource("k", "b", "open"));
    assert_eq!(store.listing_at(&target, i64::MAX).await.unwrap(), None);
    assert_eq!(store.record_listing(&target, &listing(&[a.clone(), b.clone()], &[])).await.unwrap(), 3);
    assert_eq!(store.record_listing(&target, &listing(&[b.clone(), a.clone()], &[])).await.unwrap(), 0);
    let again = home.open().await;
    again.begin_epoch("again").await.unwrap();
    let other = TargetName::new("u").unwrap();
    let unlisted = ListingRecord::default();
    assert_eq!(again.record_listing(&other, &unlisted).await.unwrap(), 1);
    assert_eq!(again.listing_at(&other, 4).await.unwrap(), Some((unlisted, true)), "never listed");
    assert_eq!(again.record_listing(&target, &listing(&[a.clone(), b.clone()], &[])).await.unwrap(), 0);
    // Another label; and a region that could not be listed, where absences prove nothing.
    let blue = resource("l", "a", "blue");
    assert_eq!(again.record_listing(&target, &listing(std::slice::from_ref(&blue), &["k"])).await.unwrap(), 2);
    // Nothing could be listed: everything stays.
    let failed = ListingRecord { resources: None, unlisted: BTreeSet::new() };
    assert_eq!(again.record_listing(&target, &failed).await.unwrap(), 1);
    assert_eq!(again.record_listing(&target, &failed).await.unwrap(), 0);
    assert_eq!(again.record_listing(&target, &listing(std::slice::from_ref(&blue), &[])).await.unwrap(), 2);

    let at = async |seq| again.listing_at(&target, seq).await.unwrap();
    assert_eq!(at(3).await, Some((listing(&[b.clone(), a], &[]), false)));
    assert_eq!(at(6).await, Some((listing(&[b.clone(), blue.clone()], &["k"]), false)));
    assert_eq!(at(7).await, Some((listing(&[b, blue.clone()], &["k"]), true)));
    assert_eq!(at(9).await, Some((listing(&[blue], &[]), false)));
    assert_eq!(again.highest_seq().await.unwrap(), 9);
}

async fn target_that_lists_other_resources_or_goes_has_no_inventory_until_its_next_list(home: Home) {
    let store = &home.store;
    let target = TargetName::new("t").unwrap();
    let put = async |generation, project: &str| {
        let json = json!({"spec": {"project": project, "locations": ["l"]}}).to_string();
        let spec = StoredSpec {
            kind: Kind::CloudRunTarget,
            namespace: None,
            name: "t".to_owned(),
            generation,
            phase: MappingPhase::Live,
            source: String::new(),
            json,
        };
        store.put_spec(spec).await.unwrap();
        store.highest_seq().await.unwrap()
    };
    put(1, "p").await;
    let listed = listing(&[resource("l", "a", "red")], &[]);
    store.record_listing(&target, &listed).await.unwrap();
    put(2, "p").await;
    assert_eq!(store.listing_at(&target, i64::MAX).await.unwrap(), Some((listed.clone(), false)));
    let moved = put(3, "q").await;
    assert_eq!(store.listing_at(&target, moved).await.unwrap(), None);
    assert_eq!(store.record_listing(&target, &listed).await.unwrap(), 2, "known again");
    store.remove_spec(Kind::CloudRunTarget, None, "t").await.unwrap();
    assert_eq!(store.listing_at(&target, i64::MAX).await.unwrap(), None);
}

async fn labels_of_a_namespace_are_stored_once_for_each_change(home: Home) {
    let labels = BTreeMap::from([("team".to_owned(), "checkout".to_owned())]);
    for labels in [&labels, &labels, &BTreeMap::new(), &BTreeMap::new(), &labels] {
        home.store.record_namespace("team", labels).await.unwrap();
    }
    home.store.record_namespace("bare", &BTreeMap::new()).await.unwrap();
    assert_eq!(home.store.highest_seq().await.unwrap(), 3);
}

async fn what_people_change_is_in_the_audit_once_with_who_it_was_and_without_any_token(home: Home) {
    let store = &home.store;
    let target = StoredSpec {
        kind: Kind::CloudRunTarget,
        namespace: None,
        source: "cluster".to_owned(),
        ..spec("t", 1, &json!({"spec": {"allow": [{"namespaces": {"matchLabels": {"team": "a"}}}]}}))
    };
    store.put_spec_version(target, Some("kubectl".to_owned())).await.unwrap();
    for mode in ["observe", "observe", "enforce"] {
        store.record_mode(mode).await.unwrap();
    }
    for generation in [1, 1, 2] {
        store.put_spec_version(spec("m", generation, &json!({})), Some("a.yaml".to_owned())).await.unwrap();
    }
    store.set_spec_phase(MAPPING, Some("team"), "m", MappingPhase::Terminating(ClaimDisposal::Revoke)).await.unwrap();
    store.remove_spec(MAPPING, Some("team"), "m").await.unwrap();
    let secret = |hash: &str| StoredSpec { kind: Kind::Secret, ..spec("tokens", 1, &json!({"token": {"Ok": hash}})) };
    for hash in ["the-first-hash", "the-first-hash", "the-second-hash"] {
        store.put_spec(secret(hash)).await.unwrap();
    }
    store.remove_spec(Kind::Secret, Some("team"), "tokens").await.unwrap();
    store.remove_spec(Kind::Secret, Some("team"), "tokens").await.unwrap();
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    store.record_namespace("team", &labels(&[("team", "a")])).await.unwrap();
    store.record_namespace("team", &labels(&[("team", "a"), ("cost", "1")])).await.unwrap();
    store.record_namespace("team", &BTreeMap::new()).await.unwrap();
    store.set_trust(Trust::Accepted).await.unwrap();
    let mapping = MappingKey::new("team", "m").unwrap();
    for _ in 0..2 {
        store.put_decision(Decision::ReleaseMapping(mapping.clone()), home.now()).await.unwrap();
        store.put_decision(Decision::Uninstall(UninstallMode::Revoke), home.now()).await.unwrap();
    }
    store.put_decision(Decision::Uninstalled, home.now()).await.unwrap();
    store.cancel_uninstall().await.unwrap();
    store.cancel_uninstall().await.unwrap();
    store.purge_directory(&okta(), &origin()).await.unwrap();

    let rows = store.audit_after(0, 100).await.unwrap();
    let lines: Vec<String> = rows
        .iter()
        .map(|AuditRow { entry, .. }| format!("{} {} {}", entry.actor, entry.action, entry.subject.as_deref().unwrap()))
        .collect();
    assert_eq!(
        lines,
        [
            "manager:kubectl target.apply t",
            "command mode.change enforce",
            "file:a.yaml mapping.apply team/m",
            "file:a.yaml mapping.change team/m",
            "file:a.yaml mapping.delete team/m",
            "file:a.yaml mapping.remove team/m",
            "file:a.yaml token.add team/tokens",
            "file:a.yaml token.change team/tokens",
            "file:a.yaml token.remove team/tokens",
            "cluster delegation.change team",
            "cluster delegation.change team",
            "command store.accept store",
            "command release-mapping team/m",
            "command uninstall-revoke all",
            "command uninstall.cancel all",
            "command provider.purge okta",
        ]
    );
    let versions = versions(store, "m").await;
    assert_eq!(rows[3].entry.cause_seqs, [versions[1].seq]);
    let detail: serde_json::Value = serde_json::from_str(rows[3].detail.as_deref().unwrap()).unwrap();
    assert_eq!((&detail["uid"], &detail["generation"]), (&json!(versions[1].uid), &json!(2)));
    assert_eq!(detail["specHash"].as_str().map(str::len), Some(64));
    let dump = format!("{:?}", store.audit_after(0, 100).await.unwrap());
    assert!(!dump.contains("the-first-hash") && !dump.contains("the-second-hash"), "{dump}");
    assert_eq!(store.verify_audit_chain().await.unwrap(), 16);
}

contract_tests! {
    every_version_of_a_spec_is_kept_and_a_restart_that_applies_the_same_adds_none,
    mapping_of_a_folder_that_is_made_again_is_another_object_although_its_generation_is_the_same,
    tokens_have_no_history,
    history_and_directory_share_one_sequence_and_the_feed_sees_the_directory_only,
    pins_can_be_read_as_they_were_and_what_does_not_change_one_adds_nothing,
    inventory_is_kept_as_differences_and_can_be_read_as_it_was,
    target_that_lists_other_resources_or_goes_has_no_inventory_until_its_next_list,
    labels_of_a_namespace_are_stored_once_for_each_change,
    what_people_change_is_in_the_audit_once_with_who_it_was_and_without_any_token,
}
