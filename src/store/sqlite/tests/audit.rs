//! Rows that were changed without the store.

use super::*;
use crate::store::contract::audit::{document, entry};

#[tokio::test]
async fn any_change_of_a_row_is_found() {
    for tampering in [
        "UPDATE audit SET actor = 'idp:okta/b' WHERE seq = 2",
        "UPDATE audit SET at = at + 1 WHERE seq = 2",
        "UPDATE audit SET subject = NULL WHERE seq = 2",
        "UPDATE audit SET hash = (SELECT hash FROM audit WHERE seq = 3) WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 2",
    ] {
        let (_files, home) = on_files().await;
        for index in 0..4 {
            add_user(&home.store, &okta(), &format!("u{index}@x.example")).await;
        }
        assert_eq!(home.store.verify_audit_chain().await.unwrap(), 4);
        home.store.tamper(tampering).await;
        assert_eq!(home.store.verify_audit_chain().await, Err(StoreError::AuditBroken { seq: 2 }), "{tampering}");
    }
}

#[tokio::test]
async fn a_person_can_be_erased_and_the_chain_still_holds() {
    let (_files, home) = on_files().await;
    home.store.record(&document(), vec![], vec![entry(home.now(), "grant")]).await.unwrap();
    home.store.tamper("UPDATE people SET name = NULL").await;
    assert_eq!(home.store.verify_audit_chain().await.unwrap(), 1);
    let row = home.store.audit_after(0, 1).await.unwrap().remove(0);
    assert_eq!((row.name, row.entry.grant.unwrap().member.as_str()), (None, "erased"));
    assert_eq!(row.entry.subject.as_deref(), Some("0b3f"));
    let everything = home.store.read(testing::dump_audit).await.unwrap();
    assert!(!everything.contains("alice"), "{everything}");
}
