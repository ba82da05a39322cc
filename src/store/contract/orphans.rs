//! Orphaned claims.

use super::engine::{document, mapping, row, someone};
use super::*;
use crate::model::{AuditOutcome, ClaimDisposal, Kind, LedgerChange, LedgerRow, MappingPhase};

fn put(row: &LedgerRow) -> LedgerChange {
    LedgerChange::Put(row.clone())
}

fn counts(of: &[(&str, u64)]) -> std::collections::BTreeMap<crate::model::DocumentKey, u64> {
    of.iter().map(|(name, count)| (document(name), *count)).collect()
}

/// Claims of `gone` and `stays` on two documents.
async fn claimed(home: Home) -> (Home, LedgerRow) {
    let (one, two) = (someone(), someone());
    let both = row("user:a@x.example", &[("gone", one), ("gone", two)]);
    let rows = [both.clone(), row("user:b@x.example", &[("gone", two)]), row("user:c@x.example", &[("stays", one)])];
    home.store.record(&document("s"), rows.iter().map(put).collect(), vec![]).await.unwrap();
    let shared = row("user:a@x.example", &[("gone", one), ("stays", one)]);
    home.store.record(&document("t"), vec![put(&shared)], vec![]).await.unwrap();
    (home, both)
}

async fn orphaned_claims_are_counted_by_grant_and_audited_by_document(home: Home) {
    let (home, _) = claimed(home).await;
    assert_eq!(home.store.orphaned().await.unwrap(), counts(&[]));
    assert_eq!(home.store.orphan_claims(&mapping("gone")).await.unwrap(), 4);
    assert_eq!(home.store.orphaned().await.unwrap(), counts(&[("s", 2), ("t", 1)]));
    let audit = home.store.audit_after(0, 10).await.unwrap();
    let said: Vec<_> = audit
        .iter()
        .map(|row| (row.entry.document.clone().unwrap(), row.entry.action.as_str(), row.detail.as_deref().unwrap()))
        .collect();
    let audited = |name, detail| (document(name), "abandon", detail);
    assert_eq!(said, [audited("s", "{\"claims\":3}"), audited("t", "{\"claims\":1}")]);
    assert!(
        audit.iter().all(|row| row.entry.actor == "mapping:checkout/gone" && row.entry.outcome == AuditOutcome::Failed)
    );

    assert_eq!(home.store.orphan_claims(&mapping("gone")).await.unwrap(), 0, "said once");
    assert_eq!(home.store.orphan_claims(&mapping("unknown")).await.unwrap(), 0);
    assert_eq!(home.store.verify_audit_chain().await.unwrap(), 2);
}

async fn orphaned_claims_stay_in_the_ledger_over_puts_and_a_restart_until_they_are_settled(home: Home) {
    let (home, mut both) = claimed(home).await;
    home.store.orphan_claims(&mapping("gone")).await.unwrap();
    assert_eq!(home.store.claimed_documents(&mapping("gone")).await.unwrap(), [document("s"), document("t")]);
    both.revoking_since = Some(home.now());
    home.store.record(&document("s"), vec![put(&both)], vec![]).await.unwrap();
    let again = home.open().await;
    assert_eq!(again.orphaned().await.unwrap(), counts(&[("s", 2), ("t", 1)]));
    assert!(again.ledger(&document("s")).await.unwrap().contains(&both));

    home.store.record(&document("s"), vec![LedgerChange::Remove(both.grant)], vec![]).await.unwrap();
    assert_eq!(home.store.orphaned().await.unwrap(), counts(&[("s", 1), ("t", 1)]));
    // The grant stays because of another claim, and only this claim ends.
    let mut shared = home.store.ledger(&document("t")).await.unwrap().remove(0);
    shared.claims.retain(|claim| claim.mapping != mapping("gone"));
    home.store.record(&document("t"), vec![put(&shared)], vec![]).await.unwrap();
    assert_eq!(home.store.orphaned().await.unwrap(), counts(&[("s", 1)]));
}

async fn claims_of_a_mapping_that_is_stored_as_active_again_are_not_orphaned_any_more(home: Home) {
    let (home, _) = claimed(home).await;
    let spec = |name: &str, phase| StoredSpec {
        kind: Kind::RoleMapping,
        namespace: Some("checkout".to_owned()),
        name: name.to_owned(),
        generation: 1,
        phase,
        source: String::new(),
        json: "{}".to_owned(),
    };
    home.store.orphan_claims(&mapping("gone")).await.unwrap();
    let orphaned = home.store.orphaned().await.unwrap();
    home.store.put_spec(spec("gone", MappingPhase::Terminating(ClaimDisposal::Revoke))).await.unwrap();
    home.store.put_spec(spec("stays", MappingPhase::Live)).await.unwrap();
    assert_eq!(home.store.orphaned().await.unwrap(), orphaned);
    home.store.put_spec(spec("gone", MappingPhase::Live)).await.unwrap();
    assert_eq!(home.store.orphaned().await.unwrap(), counts(&[]));
    assert_eq!(home.store.claimed_documents(&mapping("gone")).await.unwrap().len(), 2);
}

async fn process_that_lost_the_database_orphans_nothing(home: Home) {
    let (home, _) = claimed(home).await;
    let new = home.open().await;
    new.begin_epoch("new").await.unwrap();
    assert!(matches!(home.store.orphan_claims(&mapping("gone")).await, Err(StoreError::StaleEpoch { .. })));
    assert_eq!(new.orphaned().await.unwrap(), counts(&[]));
    assert_eq!(new.highest_audit_seq().await.unwrap(), 0);
}

contract_tests! {
    orphaned_claims_are_counted_by_grant_and_audited_by_document,
    orphaned_claims_stay_in_the_ledger_over_puts_and_a_restart_until_they_are_settled,
    claims_of_a_mapping_that_is_stored_as_active_again_are_not_orphaned_any_more,
    process_that_lost_the_database_orphans_nothing,
}
