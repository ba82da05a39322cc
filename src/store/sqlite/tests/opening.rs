//! Opening: files, their modes, and the schema.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

async fn refusal(url: &str) -> StoreError {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    match Store::open(url, clock).await {
        Ok(_) => panic!("opened {url}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_copy_of_file_and_log_taken_between_commits_opens_whole() {
    let (files, home) = on_files().await;
    for index in 0..50 {
        add_user(&home.store, &okta(), &format!("u{index}@x.example")).await;
    }
    let copy = tempfile::tempdir().unwrap();
    for name in ["rolecall.db", "rolecall.db-wal"] {
        std::fs::copy(files.path().join(name), copy.path().join(name)).unwrap();
    }
    // The end of a torn write: what was committed before it counts.
    let log = copy.path().join("rolecall.db-wal");
    let mut bytes = std::fs::read(&log).unwrap();
    assert!(!bytes.is_empty());
    bytes.extend([0xAB; 3000]);
    std::fs::write(&log, bytes).unwrap();
    let store = open(copy.path(), home.clock.clone()).await;
    assert_eq!(store.highest_seq().await.unwrap(), 50);
    assert_eq!(store.counts(&okta()).await.unwrap().users, 50);
    assert_eq!(store.verify_audit_chain().await.unwrap(), 50);
}

/// The permissions of each file in a folder.
fn modes(folder: &Path) -> BTreeMap<String, u32> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mode = |entry: &std::fs::DirEntry| entry.metadata().unwrap().permissions().mode() & 0o777;
    entries.map(|entry| (entry.file_name().into_string().unwrap(), mode(&entry))).collect()
}

#[tokio::test]
async fn nobody_else_can_read_a_new_database_or_what_sqlite_keeps_beside_it() {
    let (files, home) = on_files().await;
    add_user(&home.store, &okta(), "a@x.example").await;
    let private = ["rolecall.db", "rolecall.db-shm", "rolecall.db-wal"].map(|name| (name.to_owned(), 0o600));
    assert_eq!(modes(files.path()), BTreeMap::from(private));
    // Opened through a link whose target does not exist yet.
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    std::os::unix::fs::symlink(&target, folder.path().join("rolecall.db")).unwrap();
    let _store = open(folder.path(), home.clock.clone()).await;
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn the_files_of_an_existing_database_are_made_private() {
    let (files, home) = on_files().await;
    for name in modes(files.path()).into_keys() {
        let readable = Permissions::from_mode(0o644);
        std::fs::set_permissions(files.path().join(name), readable).unwrap();
    }
    let again = home.open().await;
    assert!(modes(files.path()).values().all(|mode| *mode == 0o600), "{:?}", modes(files.path()));
    add_user(&again, &okta(), "a@x.example").await;
}

#[tokio::test]
async fn a_url_that_is_not_sqlite_is_refused_without_its_password() {
    for url in ["postgres://me:secret@db/rolecall", "rolecall.db", "sqlite:", "sqlite::memory:", ""] {
        let error = refusal(url).await;
        assert!(matches!(error, StoreError::UnsupportedUrl { .. }), "{url}: {error}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&format!("sqlite:{}/no/such/x.db", folder.path().display())).await;
    assert_eq!(error.reason(), "DatabaseCannotOpen");
    assert!(error.to_string().contains("no/such` does not exist"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_reported_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rolecall.db");
    std::fs::write(&path, "this is a shopping list, and quite a long one at that\n".repeat(100)).unwrap();
    let error = refusal(&url(folder.path())).await;
    assert_eq!(error.reason(), "NotADatabase", "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is"), "and is left alone");
    assert_ne!(modes(folder.path())["rolecall.db"], 0o600, "with its permissions");
}

#[tokio::test]
async fn a_newer_or_different_schema_is_refused() {
    for (sql, reason) in [
        (
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'later', 1, x'00', 0)",
            "SchemaNewer",
        ),
        ("UPDATE _sqlx_migrations SET checksum = x'00'", "SchemaDiffers"),
    ] {
        let (files, home) = on_files().await;
        home.store.tamper(sql).await;
        let error = refusal(&url(files.path())).await;
        assert_eq!(error.reason(), reason, "{error}");
    }
}

#[tokio::test]
async fn the_settings_that_durability_rests_on_are_in_force() {
    let (_files, home) = on_files().await;
    let settings = home.store.behind(testing::settings).await.unwrap();
    assert_eq!(
        settings,
        [("foreign_keys", "1"), ("journal_mode", "wal"), ("synchronous", "2")].map(|(k, v)| (k, v.to_owned()))
    );
}
