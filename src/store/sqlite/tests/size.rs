//! Large records, quotas, and the data loaded at the start.

use super::*;
use crate::model::DirectoryChange;
use crate::store::contract::size::snapshot;

#[tokio::test]
async fn a_database_from_before_quotas_is_counted_when_it_is_opened() {
    let old = rusqlite::Connection::open_in_memory().unwrap();
    for sql in [
        include_str!("../migrations/0001_first.sql"),
        "INSERT INTO users (provider, id, active, user_name, user_name_fold, emails, resource, version, created_at, updated_at) \
         VALUES ('okta', x'01', 1, 'a', 'a', '[]', '{\"userName\":\"ä\"}', 1, 0, 0); \
         INSERT INTO groups (provider, id, display_name, display_name_fold, resource, member_count, version, created_at, updated_at) \
         VALUES ('okta', x'02', 'g', 'g', '{}', 1, 1, 0, 0); \
         INSERT INTO members VALUES ('okta', x'02', x'01', 'user'), ('okta', x'02', x'03', 'pending'); \
         INSERT INTO counters VALUES ('okta', 1, 1), ('entra', 0, 0)",
        include_str!("../migrations/0006_usage.sql"),
    ] {
        old.execute_batch(sql).unwrap();
    }
    let sql = "SELECT users, groups, members, bytes FROM counters WHERE provider = 'okta'";
    let counted = old.query_row(sql, [], |row| (0..4).map(|index| row.get(index)).collect::<Result<Vec<i64>, _>>());
    let counted = counted.unwrap();
    assert_eq!(counted, [1, 1, 2, 19]);
}

#[tokio::test]
async fn deleted_ones_are_loaded_only_where_something_still_refers_to_them() {
    let (_files, home) = on_files().await;
    let store = &home.store;
    let mut gone = Vec::new();
    for name in ["a", "b", "c"] {
        let user = add_user(store, &okta(), name).await.facts.id;
        store.delete_user(&okta(), &origin(), user, None).await.unwrap();
        gone.push(user);
    }
    assert!(snapshot(store).await.is_empty());
    // A claim of the first one, as in the ledger.
    store
        .tamper(
            "INSERT INTO grants (document, role, condition_hash, member_key, member, state, held) \
             VALUES ('d', 'r', '', 'm', 'user:m@x.example', 'owned', 0); \
             INSERT INTO claims (document, role, condition_hash, member_key, mapping, subject_kind, subject_id) \
             SELECT 'd', 'r', '', 'm', 'ns/m', 'user', id FROM tombstones ORDER BY deleted_at, id LIMIT 1",
        )
        .await;
    let loaded = snapshot(store).await;
    assert_eq!(loaded.len(), 1);
    assert!(matches!(loaded[0], DirectoryChange::UserDeleted { id } if gone.contains(&id)), "{loaded:?}");
}
