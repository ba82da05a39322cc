//! State after a restart.

use super::*;

async fn a_reopened_store_has_its_id_and_all_that_was_answered(home: Home) {
    let id = home.store.id();
    let user = add_user(&home.store, &okta(), "a@x.example").await;
    // A second opening beside the first sees what a restart after a kill sees: the file and the log, without an orderly
    // close.
    let again = home.open().await;
    assert_eq!(again.id(), id);
    assert_eq!(*again.subscribe().borrow(), 1);
    assert_eq!(again.user(&okta(), user.facts.id).await.unwrap(), Some(user));
    assert_ne!(home.another().await.store.id(), id);
}

contract_tests! {
    a_reopened_store_has_its_id_and_all_that_was_answered,
}
