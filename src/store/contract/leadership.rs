//! Permission to write the engine's state.

use super::engine::{document, mapping, row, someone};
use super::*;
use crate::model::{AuditEntry, AuditOutcome, ClaimDisposal, Kind, LedgerChange, MappingPhase, Pin};

fn entry(at: Timestamp) -> AuditEntry {
    AuditEntry {
        claims: vec![],
        at,
        actor: "drift".to_owned(),
        request_id: None,
        cause_seqs: vec![],
        document: Some(document("s")),
        resource_uid: None,
        action: "grant".to_owned(),
        grant: None,
        subject: None,
        plan_hash: None,
        revision_before: None,
        revision_after: None,
        outcome: AuditOutcome::Intended,
        reason: None,
    }
}

fn put(member: &str) -> Vec<LedgerChange> {
    vec![LedgerChange::Put(row(member, &[("m", someone())]))]
}

fn spec() -> StoredSpec {
    StoredSpec {
        kind: Kind::RoleMapping,
        namespace: Some("checkout".to_owned()),
        name: "m".to_owned(),
        generation: 1,
        phase: MappingPhase::Live,
        source: String::new(),
        json: "{}".to_owned(),
    }
}

async fn who_was_taken_over_from_records_nothing_and_hears_of_it(home: Home) {
    let (d, old) = (document("s"), &home.store);
    old.record(&d, put("user:a@x.example"), vec![entry(home.now())]).await.unwrap();
    old.check_epoch().await.unwrap();
    let new = home.open().await;
    let epoch = new.begin_epoch("new").await.unwrap();
    assert!(!old.is_deposed(), "nobody told it yet");

    let stale = old.record(&d, put("user:b@x.example"), vec![entry(home.now())]).await.unwrap_err();
    assert!(
        matches!(stale, StoreError::StaleEpoch { ours: Some(ours), current } if ours < current && current == epoch)
    );
    assert_eq!(stale.reason(), "LeadershipLost");
    old.deposed().await;
    assert!(old.is_deposed() && old.clone().is_deposed() && !new.is_deposed());
    assert_eq!(old.check_epoch().await, Err(stale));
    assert_eq!(new.ledger(&d).await.unwrap().len(), 1);
    assert_eq!(new.highest_audit_seq().await.unwrap(), 1);

    new.record(&d, put("user:c@x.example"), vec![entry(home.now())]).await.unwrap();
    assert_eq!(new.ledger(&d).await.unwrap().len(), 2);
    assert_eq!(new.verify_audit_chain().await.unwrap(), 2);
    let leader = old.leader().await.unwrap().unwrap();
    assert_eq!((leader.epoch, leader.holder.as_str(), leader.since), (epoch, "new", home.now()));
}

async fn who_looks_hears_that_another_took_over_without_writing(home: Home) {
    let new = home.open().await;
    new.begin_epoch("new").await.unwrap();
    assert!(matches!(home.store.check_epoch().await, Err(StoreError::StaleEpoch { .. })));
    assert!(home.store.is_deposed());
}

async fn who_never_took_over_writes_the_directory_and_leaves_the_rest_alone(home: Home) {
    let verb = home.open().await;
    add_user(&verb, &okta(), "a@x.example").await;
    verb.put_decision(Decision::ReleaseManifests, home.now()).await.unwrap();
    let decision = verb.decisions().await.unwrap()[0].id;
    let pin = Pin {
        mapping: mapping("m"),
        provider: okta(),
        selector: "displayName:g".to_owned(),
        group: GroupId(Uuid::new_v4()),
    };
    let refused = [
        verb.record(&document("s"), put("user:a@x.example"), vec![]).await,
        verb.put_pins(vec![pin]).await,
        verb.remove_pins(&mapping("m")).await,
        verb.put_spec(spec()).await,
        verb.set_spec_phase(Kind::RoleMapping, Some("checkout"), "m", MappingPhase::Terminating(ClaimDisposal::Revoke))
            .await,
        verb.remove_spec(Kind::RoleMapping, Some("checkout"), "m").await,
        verb.remove_decision(decision).await,
    ];
    for refused in refused {
        assert!(matches!(refused, Err(StoreError::StaleEpoch { ours: None, .. })), "{refused:?}");
    }
    assert!(!verb.is_deposed(), "it never led");
    home.store.record(&document("s"), put("user:a@x.example"), vec![]).await.unwrap();
}

async fn requests_that_share_the_transaction_of_a_stale_one_are_stored(home: Home) {
    let new = home.open().await;
    new.begin_epoch("new").await.unwrap();
    let (p, o, d, old) = (okta(), origin(), document("s"), &home.store);
    // All are in the queue before the writer runs, so they share one transaction.
    let (before, stale, after) = tokio::join!(
        old.create_user(&p, &o, new_user("one@x.example")),
        old.record(&d, put("user:b@x.example"), vec![entry(home.now())]),
        old.create_user(&p, &o, new_user("two@x.example")),
    );
    assert!(matches!(stale, Err(StoreError::StaleEpoch { .. })));
    for created in [before.unwrap(), after.unwrap()] {
        assert_eq!(new.user(&p, created.facts.id).await.unwrap(), Some(created));
    }
    assert!(new.ledger(&d).await.unwrap().is_empty());
    assert_eq!(new.verify_audit_chain().await.unwrap(), 2);
}

async fn epochs_grow_over_restarts_and_every_take_over_counts(home: Home) {
    let mut last = home.store.leader().await.unwrap().unwrap().epoch;
    for _ in 0..3 {
        let store = home.open().await;
        let epoch = store.begin_epoch("again").await.unwrap();
        assert!(epoch > last);
        last = epoch;
    }
}

contract_tests! {
    who_was_taken_over_from_records_nothing_and_hears_of_it,
    who_looks_hears_that_another_took_over_without_writing,
    who_never_took_over_writes_the_directory_and_leaves_the_rest_alone,
    requests_that_share_the_transaction_of_a_stale_one_are_stored,
    epochs_grow_over_restarts_and_every_take_over_counts,
}
