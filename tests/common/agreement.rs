//! Consistency check of ledger, policies and audit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rolecall::model::{AuditOutcome, DocumentKey, GrantState, MemberKey, SystemClock};
use rolecall::store::Store;

use super::Google;

/// Checks that ledger, policies and audit agree. No process may be using the database.
pub async fn agree(google: &Google, database: &Path) {
    let url = format!("sqlite:{}", database.display());
    let store = Store::open(&url, Arc::new(SystemClock)).await.expect("the store");
    let rows = store.verify_audit_chain().await.expect("the audit chain holds");
    assert!(rows > 0, "something was audited");
    let mut owned_by_audit: BTreeMap<DocumentKey, BTreeSet<(String, MemberKey)>> = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = store.audit_after(after, 1000).await.expect("audit rows");
        let Some(last) = page.last() else { break };
        after = last.seq;
        for row in &page {
            let (Some(document), Some(grant)) = (&row.entry.document, &row.entry.grant) else { continue };
            let key = (grant.role.to_string(), grant.member.clone());
            let owned = owned_by_audit.entry(document.clone()).or_default();
            let took_effect = matches!(row.entry.outcome, AuditOutcome::Acknowledged | AuditOutcome::Ambiguous);
            match row.entry.action.as_str() {
                "grant" if took_effect => drop(owned.insert(key)),
                "revoke" if took_effect => drop(owned.remove(&key)),
                "lost" | "forget" => drop(owned.remove(&key)),
                _ => {}
            }
        }
    }
    for (document, _) in store.ledger_documents().await.expect("documents") {
        let live = google.policy(document.name()).await;
        let mut owned = BTreeSet::new();
        for row in store.ledger(&document).await.expect("the ledger") {
            assert!(row.intent.is_none(), "{document}: an intent is left: {row:?}");
            let role = row.grant.role.to_string();
            let members = live.get(&role);
            let stands =
                |member: &MemberKey| members.is_some_and(|all| all.iter().any(|m| MemberKey::of(m) == *member));
            let present = row.spellings().all(|spelling| stands(&spelling.member));
            if row.state == GrantState::Owned {
                assert!(present, "{document}: owned and not in the policy: {:?}", row.grant);
                owned.insert((role, row.grant.member.clone()));
            }
        }
        let audited = owned_by_audit.remove(&document).unwrap_or_default();
        assert_eq!(owned, audited, "{document}: ledger and audit differ");
    }
    for (document, owned) in owned_by_audit {
        assert!(owned.is_empty(), "{document}: the audit says owned, the ledger knows nothing: {owned:?}");
    }
}
