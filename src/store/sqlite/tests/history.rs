//! Databases and copies from before the history.

use std::path::PathBuf;

use super::*;
use crate::model::{ClaimDisposal, FreezeReason, Kind, MappingKey, MappingPhase};
use crate::store::contract::history::{spec, versions};

#[tokio::test]
async fn older_copy_that_lacks_only_a_version_of_a_spec_is_known_by_its_position() {
    let (files, home) = on_files().await;
    add_user(&home.store, &okta(), "a@x.example").await;
    let copy = tempfile::tempdir().unwrap();
    for name in ["rolecall.db", "rolecall.db-wal"] {
        std::fs::copy(files.path().join(name), copy.path().join(name)).unwrap();
    }
    home.store.put_spec(spec("m", 1, &json!({}))).await.unwrap();
    let restored = open(copy.path(), home.clock.clone()).await;
    let (seen, now) = (home.store.highest_seq().await.unwrap(), restored.highest_seq().await.unwrap());
    assert!(now < seen, "{now} {seen}");
}

/// A database with the schema steps from before the history.
async fn before_history(folder: &Path, sql: &'static str) -> PathBuf {
    let path = folder.join("rolecall.db");
    let store = open(folder, Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH))).await;
    drop(store);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "DROP TABLE spec_versions; DROP TABLE history; DELETE FROM meta WHERE key = 'history_since'; ALTER TABLE claims DROP COLUMN mapping_uid; \
         ALTER TABLE claims DROP COLUMN generation; DELETE FROM _sqlx_migrations WHERE version = 9;",
    )
    .unwrap();
    db.execute_batch(sql).unwrap();
    path
}

#[tokio::test]
async fn history_of_an_older_database_begins_with_what_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    before_history(
        folder.path(),
        r#"INSERT INTO events VALUES (5, 'okta', 0, '{"kind":"userDeleted","id":"00000000-0000-0000-0000-000000000001"}');
        INSERT INTO specs VALUES
            ('CloudRunTarget', '', 't', 3, 'active', 'cluster', '{"metadata":{"uid":"u-t","resourceVersion":"9"},"spec":{}}'),
            ('RoleMapping', 'team', 'going', 1, 'ending', 'a.yaml', '{"spec":{}}'),
            ('RoleMapping', 'team', 'gone', 1, 'vanished', 'a.yaml', '{"spec":{}}'),
            ('Secret', 'rolecall', 's', 1, 'active', 'a.yaml', '{"a":"5e88"}');
        INSERT INTO pins VALUES ('team/m', 'okta', 'displayName:a b', x'00000000000040008000000000000007');"#,
    )
    .await;
    let store = open(folder.path(), Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH))).await;
    store.begin_epoch("test").await.unwrap();
    let target = &store.spec_versions(Kind::CloudRunTarget, None, "t").await.unwrap()[0];
    assert_eq!(
        (target.seq, target.uid.as_str(), target.generation, target.phase),
        (6, "u-t", 3, Some(MappingPhase::Live))
    );
    assert_eq!(target.json.as_deref(), Some(r#"{"metadata":{"uid":"u-t"},"spec":{}}"#));
    let phases = [
        ("going", Some(MappingPhase::Terminating(ClaimDisposal::Revoke))),
        ("gone", Some(MappingPhase::Missing(FreezeReason::MappingMissing))),
    ];
    for (name, phase) in phases {
        let kept = versions(&store, name).await;
        assert_eq!((kept.len(), kept[0].phase, kept[0].uid.len()), (1, phase, 32));
    }
    assert_eq!(store.spec_versions(Kind::Secret, Some("rolecall"), "s").await.unwrap(), []);
    assert_eq!(store.highest_seq().await.unwrap(), 9);
    assert_eq!(store.oldest_seq().await.unwrap(), 9);
    let before = store.catalog_at(8, &mut |_, _| {}).await;
    assert_eq!(before, Err(StoreError::HistoryNotKept { seq: 8, oldest: 9 }));
    assert_eq!(store.catalog_at(9, &mut |_, _| {}).await.unwrap().specs.len(), 3);
    let key = MappingKey::new("team", "m").unwrap();
    assert_eq!(store.pins_at(&key, 8).await.unwrap(), []);
    assert_eq!(store.pins_at(&key, 9).await.unwrap(), store.pins().await.unwrap());
    store.put_pins(store.pins().await.unwrap()).await.unwrap();
    assert_eq!(store.highest_seq().await.unwrap(), 9, "nothing changed");
    let same = store.put_spec_version(spec("gone", 1, &json!({"spec": {}})), None).await.unwrap().unwrap();
    assert_eq!((same.seq, same.is_new), (10, true), "it is back");
    assert_eq!(same.uid, versions(&store, "gone").await[0].uid, "and still the same object");
}

#[tokio::test]
async fn a_stored_row_of_an_unknown_kind_is_skipped_and_taken_for_no_other_kind() {
    let folder = tempfile::tempdir().unwrap();
    before_history(
        folder.path(),
        "INSERT INTO specs VALUES ('RoleMaping', 'team', 'm', 1, 'active', 'a.yaml', '{}'), \
         ('RoleMapping', 'team', 'm', 1, 'active', 'a.yaml', '{}');",
    )
    .await;
    let store = open(folder.path(), Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH))).await;
    let specs = store.specs().await.unwrap();
    assert_eq!(specs.iter().map(|spec| spec.kind).collect::<Vec<_>>(), [Kind::RoleMapping]);
    let past = store.catalog_at(store.highest_seq().await.unwrap(), &mut |_, _| {}).await.unwrap();
    assert_eq!(past.specs.iter().map(|version| version.kind).collect::<Vec<_>>(), [Kind::RoleMapping]);
}
