//! Consistency check of ledger, policies and audit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Google;
use super::database::{Database, Grant, LedgerRow, folded, service_of, verified_rows};

/// The grants of each document that are ours by the audit.
fn owned_by_audit(database: &Database) -> BTreeMap<String, BTreeSet<Grant>> {
    let mut documents: BTreeMap<String, BTreeSet<Grant>> = BTreeMap::new();
    for row in database.audit() {
        let (Some(document), Some(grant)) = (row.document, row.grant) else { continue };
        let owned = documents.entry(document).or_default();
        let took_effect = ["acknowledged", "ambiguous"].contains(&row.outcome.as_str());
        match row.action.as_str() {
            "grant" if took_effect => drop(owned.insert(grant)),
            "adopt" => drop(owned.insert(grant)),
            "revoke" if took_effect => drop(owned.remove(&grant)),
            "lost" | "forget" => drop(owned.remove(&grant)),
            _ => {}
        }
    }
    documents
}

/// Checks that ledger, policies and audit agree. No process may be using the database.
pub(crate) async fn agree(google: &Google, path: &Path) {
    assert!(verified_rows(path) > 0, "something was audited");
    let database = Database::open(path);
    let mut by_audit = owned_by_audit(&database);
    let mut ledger: BTreeMap<String, Vec<LedgerRow>> = BTreeMap::new();
    for row in database.ledger() {
        ledger.entry(row.document.clone()).or_default().push(row);
    }
    for (document, rows) in ledger {
        let live = google.policy(service_of(&document)).await;
        let mut owned = BTreeSet::new();
        for row in rows {
            assert!(row.intent.is_none(), "{document}: an intent is left: {row:?}");
            let members: BTreeSet<String> = live.get(&row.grant.0).into_iter().flatten().map(|m| folded(m)).collect();
            let present = row.stored_as.iter().all(|member| members.contains(member));
            if row.state == "owned" {
                assert!(present, "{document}: owned and not in the policy: {:?}", row.grant);
                owned.insert(row.grant);
            }
        }
        let audited = by_audit.remove(&document).unwrap_or_default();
        assert_eq!(owned, audited, "{document}: ledger and audit differ");
    }
    for (document, owned) in by_audit {
        assert!(owned.is_empty(), "{document}: the audit says owned, the ledger knows nothing: {owned:?}");
    }
}
