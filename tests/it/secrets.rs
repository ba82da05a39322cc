//! Tokens that are too easy to guess, and files that others could read.

use std::os::unix::fs::PermissionsExt as _;

use reqwest::Method;

use crate::support::*;

#[tokio::test]
async fn token_of_fewer_than_32_characters_is_refused_and_the_provider_reports_it() {
    let (short, enough) = ("t".repeat(31), "t".repeat(32));
    let fixture = Fixture::start(&[("provider.yaml", provider("okta", &short))]).await;
    let users = async |token: &str| fixture.scim("okta", token).send(Method::GET, "/Users", None).await.0;
    let tokens_valid = async |value: &str, reason: &str| {
        eventually("TokensValid", async || {
            let status = fixture.status("IdentityProvider", "okta").await;
            if has(&status, "TokensValid", value, reason) { Ok(()) } else { Err(format!("{status:#}")) }
        })
        .await;
    };
    tokens_valid("False", "TokenWeak").await;
    assert_eq!(users(&short).await, 401);
    fixture.write("provider.yaml", &provider("okta", &enough));
    tokens_valid("True", "TokensValid").await;
    assert_eq!((users(&enough).await, users(&short).await), (200, 401));
}

#[tokio::test]
async fn database_and_checkpoint_can_be_read_by_nobody_else() {
    let mut fixture = Fixture::start(&base()).await;
    fixture.scim("okta", TOKEN).create_user("alice@example.com").await;
    let files = ["rolecall.db", "rolecall.db-wal", "rolecall.db-shm", ".manifests.rolecall-store.json"];
    let paths = files.map(|name| fixture.folder.path().join(name));
    let modes = || paths.each_ref().map(|path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777);
    assert_eq!(modes(), [0o600; 4]);
    for path in &paths {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o664)).expect("as an older rolecall left it");
    }
    fixture.restart().await;
    assert_eq!(modes(), [0o600; 4]);
}
