//! Ownership of a directory by an `IdentityProvider`.

use super::*;
use crate::model::{Kind, MappingPhase};
use crate::store::{DirectoryUse, Purged};

async fn claims(home: &Home, uid: &str) -> bool {
    home.store.claim_directory(&okta(), uid).await.unwrap()
}

async fn an_empty_directory_belongs_to_whoever_claims_it_and_a_populated_one_to_who_claimed_it_first(home: Home) {
    assert!(claims(&home, "one").await && claims(&home, "two").await);
    add_user(&home.store, &okta(), "a@x.example").await;
    assert!(claims(&home, "two").await);
    assert!(!claims(&home, "three").await && !claims(&home, "three").await);
    assert_eq!(home.store.directory_use(&okta()).await.unwrap(), DirectoryUse::Disputed);
    // The former one is back, and the other one is deleted: nothing waits any more.
    assert!(claims(&home, "two").await);
    assert!(!home.store.accept_directory(&okta()).await.unwrap());
    assert!(!claims(&home, "three").await);
    assert!(home.store.accept_directory(&okta()).await.unwrap());
    assert!(claims(&home, "three").await && !claims(&home, "two").await);
}

async fn who_left_a_directory_has_to_be_accepted_again_unless_nobody_is_in_it(home: Home) {
    assert!(claims(&home, "folder").await);
    home.store.leave_directory(&okta()).await.unwrap();
    assert!(claims(&home, "folder").await);
    add_user(&home.store, &okta(), "a@x.example").await;
    home.store.leave_directory(&okta()).await.unwrap();
    assert_eq!(home.store.directory_use(&okta()).await.unwrap(), DirectoryUse::Unclaimed);
    assert!(!claims(&home, "folder").await);
    assert!(home.store.accept_directory(&okta()).await.unwrap());
    assert!(claims(&home, "folder").await);
}

async fn a_database_of_the_first_version_belongs_to_the_object_that_was_in_force(home: Home) {
    for (json, uid, ours) in [
        (Some(r#"{"metadata": {"name": "okta", "uid": "one"}}"#), "one", true),
        (Some(r#"{"metadata": {"name": "okta", "uid": "one"}}"#), "two", false),
        (Some(r#"{"metadata": {"name": "okta"}}"#), "folder", true),
        (None, "one", false),
    ] {
        let home = home.another().await;
        add_user(&home.store, &okta(), "a@x.example").await;
        if let Some(json) = json {
            let spec = StoredSpec {
                kind: Kind::IdentityProvider,
                namespace: None,
                name: "okta".into(),
                generation: 1,
                phase: MappingPhase::Live,
                source: String::new(),
                json: json.into(),
            };
            home.store.put_spec(spec).await.unwrap();
        }
        assert_eq!(claims(&home, uid).await, ours, "{json:?} {uid}");
    }
}

async fn a_purge_deletes_the_people_and_groups_of_one_name_with_an_event_for_each(home: Home) {
    let entra = ProviderName::new("entra").unwrap();
    assert!(claims(&home, "one").await);
    for n in 0..250 {
        add_user(&home.store, &okta(), &format!("u{n}@x.example")).await;
    }
    add_user(&home.store, &entra, "a@x.example").await;
    let before = home.store.highest_seq().await.unwrap();
    let origin = Origin { token: "purge".into(), request_id: None };
    let purged = home.store.purge_directory(&okta(), &origin).await.unwrap();
    assert_eq!(purged, Purged { users: 250, groups: 0, resources: 0 });
    assert_eq!(home.store.highest_seq().await.unwrap(), before + 250);
    assert_eq!(home.store.counts(&okta()).await.unwrap().users, 0);
    assert_eq!(home.store.counts(&entra).await.unwrap().users, 1);
    assert!(claims(&home, "two").await);
}

contract_tests! {
    an_empty_directory_belongs_to_whoever_claims_it_and_a_populated_one_to_who_claimed_it_first,
    who_left_a_directory_has_to_be_accepted_again_unless_nobody_is_in_it,
    a_database_of_the_first_version_belongs_to_the_object_that_was_in_force,
    a_purge_deletes_the_people_and_groups_of_one_name_with_an_event_for_each,
}
