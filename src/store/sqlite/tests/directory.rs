//! Plans of statements.

use super::*;
use crate::scim::ResourceTypes;

#[tokio::test]
async fn no_look_up_scans_a_table() {
    let (_files, home) = on_files().await;
    let id = Uuid::new_v4();
    let users = [
        "userName eq \"x\"".to_owned(),
        "externalId eq \"x\"".to_owned(),
        "emails[type eq \"x\"].value eq \"x\"".to_owned(),
        format!("manager eq \"x\" and id eq \"{id}\""),
        "userName eq \"x\" or emails eq \"y\" and title pr or externalId eq \"z\"".to_owned(),
        "meta.lastModified gt \"2026-01-01T00:00:00Z\"".to_owned(),
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:employeeNumber eq \"x\"".to_owned(),
    ];
    let groups = ["displayName eq \"x\"".to_owned(), format!("members eq \"{id}\""), format!("id eq \"{id}\"")];
    let users = users.into_iter().map(|text| (ResourceType::User, text));
    let groups = groups.into_iter().map(|text| (ResourceType::Group, text));
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(include_str!("../../../../tests/fixtures/scim/schemas.yaml")).unwrap();
    let devices = ResourceTypes::registered(&documents).unwrap().others[0];
    let others = [format!("id eq \"{id}\""), "externalId eq \"x\"".to_owned()].into_iter().map(|text| (devices, text));
    stays_small(&home.store, testing::select_all(devices, &okta())).await;
    for (of, text) in users.chain(groups).chain(others) {
        let select = testing::select(of, &okta(), &filter(of, &text));
        stays_small(&home.store, select).await;
    }
}

#[tokio::test]
async fn no_write_of_a_request_walks_a_table() {
    let (_files, home) = on_files().await;
    // Deleting a group is not included, because it also deletes all of the group's memberships.
    for statement in testing::WRITES {
        stays_small(&home.store, statement.to_owned()).await;
    }
}

/// Fails when the plan of a statement scans a table, or a whole tenant, document or group in it.
async fn stays_small(store: &Store, statement: String) {
    let text = statement.clone();
    for detail in store.read(move |db| testing::plan(db, &text)).await.unwrap() {
        let given = detail.contains("VIRTUAL TABLE") || detail.contains("CONSTANT ROW");
        assert!(!detail.contains("SCAN") || given, "{statement}: {detail}");
        for prefix in ["(provider=?)", "(document=?)", "(provider=? AND group_id=?)"] {
            assert!(!detail.contains(prefix), "{statement}: {detail}");
        }
    }
}
