//! Damaged rows of the ledger.

use super::*;
use crate::model::LedgerChange;
use crate::store::contract::engine::{document, row};

#[tokio::test]
async fn half_an_intent_is_damage_and_not_the_absence_of_one() {
    let (_files, home) = on_files().await;
    let d = document("s");
    home.store.record(&d, vec![LedgerChange::Put(row("user:a@x.example", &[]))], vec![]).await.unwrap();
    home.store.tamper("UPDATE grants SET intent_action = 'grant'").await;
    assert!(matches!(home.store.ledger(&d).await, Err(StoreError::Damaged { what: "grants", .. })));
}
