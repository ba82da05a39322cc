//! Files and damaged rows after a prune.

use std::time::Duration;

use super::*;
use crate::model::{Kind, MappingPhase};
use crate::store::contract::prune::{chain, changes, hour, with_history};

#[tokio::test]
async fn younger_rows_are_not_touched_and_a_clock_that_was_set_back_leaves_more() {
    let (_files, home) = on_files().await;
    let (home, _, _) = with_history(home).await;
    let store = &home.store;
    let whole = changes(store).await;
    let rows = store.highest_audit_seq().await.unwrap();
    // The first three rows are from the first hour.
    let first = home.now() - hour() * 6 + Duration::from_secs(1);
    let pruned = store.prune(first, false).await.unwrap();
    assert_eq!((pruned.history_since, pruned.events, pruned.shortened_events), (4, 0, 0));
    assert_eq!((pruned.audit_rows, pruned.names), (4, 2), "bob's name stands in a younger row");
    assert_eq!(changes(store).await, whole, "all of it is still what the directory was then");
    assert_eq!(chain(store).await, (5, rows.unsigned_abs() - 4 + 1));
    store.tamper("UPDATE events SET at = 9000000000000000000 WHERE seq = 1").await;
    store.tamper("UPDATE spec_versions SET at = 9000000000000000000").await;
    home.clock.advance(hour());
    let pruned = store.prune(home.now(), false).await.unwrap();
    assert_eq!((pruned.history_since, pruned.events, pruned.spec_versions), (4, 0, 0));
}

#[tokio::test]
async fn versions_that_a_claim_was_made_under_stay() {
    let (_files, home) = on_files().await;
    let (home, [alice, _], _) = with_history(home).await;
    let store = &home.store;
    let uid = store.spec_versions(Kind::RoleMapping, Some("team"), "m").await.unwrap()[0].uid.clone();
    let sql = format!(
        "INSERT INTO grants (document, role, condition_hash, member_key, member, state, held) \
             VALUES ('run:projects/p/locations/l/services/s', 'roles/run.invoker', '', 'user:a', 'user:a', 'owned', 0); \
         INSERT INTO claims (document, role, condition_hash, member_key, mapping, subject_kind, subject_id, mapping_uid, \
             generation) VALUES ('run:projects/p/locations/l/services/s', 'roles/run.invoker', '', 'user:a', 'team/m', \
             'user', x'{}', '{uid}', 1)",
        alice.0.simple()
    );
    store.tamper(sql.leak()).await;
    store.remove_spec(Kind::RoleMapping, Some("team"), "m").await.unwrap();
    home.clock.advance(hour());
    store.prune(home.now(), false).await.unwrap();
    let left = store.spec_versions(Kind::RoleMapping, Some("team"), "m").await.unwrap();
    let left: Vec<_> = left.iter().map(|version| (version.generation, version.phase)).collect();
    // Without the last row the mapping would be in force again at a past position.
    assert_eq!(left, [(1, Some(MappingPhase::Live)), (3, None)]);
}

#[tokio::test]
async fn rows_missing_without_a_recorded_prune_are_found_and_a_broken_chain_is_not_pruned() {
    let pruned = async || {
        let (_files, home) = on_files().await;
        let (home, _, _) = with_history(home).await;
        home.clock.advance(hour());
        let first = home.now() - hour() * 5;
        home.store.prune(first, false).await.unwrap();
        home.store.verify_audit().await.unwrap();
        home
    };
    for tampering in [
        "UPDATE meta SET value = json_array(6, (SELECT hash FROM audit WHERE seq = 6)) WHERE key = 'audit_anchor'; \
         DELETE FROM audit WHERE seq <= 6",
        "UPDATE meta SET value = json_array(value ->> 0, 'forged') WHERE key = 'audit_anchor'",
        "DELETE FROM meta WHERE key = 'audit_anchor'",
        "UPDATE audit SET detail = NULL WHERE action = 'store.prune'",
        "DELETE FROM audit WHERE seq = (SELECT min(seq) FROM audit)",
    ] {
        let home = pruned().await;
        home.store.tamper(tampering).await;
        let broken = home.store.verify_audit().await.unwrap_err();
        assert!(matches!(broken, StoreError::AuditBroken { .. }), "{tampering}: {broken}");
        let left = changes(&home.store).await;
        assert_eq!(home.store.prune(home.now(), false).await, Err(broken), "{tampering}");
        assert_eq!(changes(&home.store).await, left);
    }
    // Without a row of a prune, there is no record that rows were meant to be removed.
    let (_files, home) = on_files().await;
    let (home, _, _) = with_history(home).await;
    home.store
        .tamper(
            "INSERT INTO meta SELECT 'audit_anchor', json_array(seq, hash) FROM audit WHERE seq = 2; \
             DELETE FROM audit WHERE seq <= 2",
        )
        .await;
    assert_eq!(home.store.verify_audit().await, Err(StoreError::AuditBroken { seq: 3 }));
}

/// The bytes of a database and of its log.
pub(super) fn bytes(files: &Files) -> Vec<u8> {
    let files = std::fs::read_dir(files.path()).unwrap().map(|entry| entry.unwrap().path());
    files.flat_map(|file| std::fs::read(file).unwrap()).collect()
}

/// True when the bytes contain a text, in either case.
pub(super) fn holds(bytes: &[u8], text: &str) -> bool {
    let bytes = bytes.to_ascii_lowercase();
    bytes.windows(text.len()).any(|window| window == text.to_ascii_lowercase().as_bytes())
}

#[tokio::test]
async fn nothing_of_what_was_pruned_is_left_in_a_file_that_was_rewritten() {
    let (files, home) = on_files().await;
    let (home, _, _) = with_history(home).await;
    let other = home.open().await;
    home.clock.advance(hour());
    other.prune(home.now(), false).await.unwrap();
    assert!(holds(&bytes(&files), "bob@x.example"));
    other.rewrite_file().await.unwrap();
    assert!(!holds(&bytes(&files), "bob@x.example") && holds(&bytes(&files), "alice.smith@x.example"));
    add_user(&home.store, &okta(), "carol@x.example").await;
    assert_eq!(home.store.verify_audit_chain().await.unwrap(), 2);
}
