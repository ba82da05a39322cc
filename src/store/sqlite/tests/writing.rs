//! A full disk, and callers that go away.

use futures::future::join_all;

use super::*;

#[tokio::test]
async fn a_full_disk_is_said_to_everybody_and_leaves_nothing_half_written() {
    let (_files, home) = on_files().await;
    let store = &home.store;
    let user = add_user(store, &okta(), "a@x.example").await;
    let group = add_group(store, &okta(), "g", &[user.facts.id.0]).await.group;
    let seq = store.highest_seq().await.unwrap();
    store.behind(|tx| testing::limit_pages(tx, 1)).await.unwrap();

    let large = |index: usize| {
        let mut user = new_user(&format!("large{index}@x.example"));
        user.resource["nickName"] = "x".repeat(20_000).into();
        user
    };
    let (p, o) = (okta(), origin());
    let (users, small) = tokio::join!(
        join_all((0..4).map(|index| store.create_user(&p, &o, large(index)))),
        change(store, &p, group.facts.id, vec![MemberChange::Remove(vec![user.facts.id.0])]),
    );
    for refused in users {
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    }
    assert!(matches!(small, Err(StoreError::Unavailable { .. })), "it shared the commit: {small:?}");
    assert_eq!(store.highest_seq().await.unwrap(), seq);
    assert_eq!(store.counts(&okta()).await.unwrap(), Counts { users: 1, groups: 1, pending: 0 });
    assert_eq!(store.group(&okta(), group.facts.id).await.unwrap(), Some(group.clone()));
    assert_eq!(member_ids(store, &okta(), group.facts.id).await, [user.facts.id.0]);

    store.behind(|tx| testing::limit_pages(tx, 1_000_000)).await.unwrap();
    store.create_user(&p, &o, large(0)).await.unwrap();
    assert_eq!(store.highest_seq().await.unwrap(), seq + 1);
    store.verify_audit_chain().await.unwrap();
}

#[tokio::test]
async fn a_request_whose_caller_went_away_is_stored_whole() {
    let (_files, home) = on_files().await;
    let user = new_user("a@x.example");
    let id = user.facts.id;
    let (p, o) = (okta(), origin());
    {
        let mut request = Box::pin(home.store.create_user(&p, &o, user));
        assert!(futures::poll!(request.as_mut()).is_pending());
    }
    // The writer takes requests in order, so this one is answered after it.
    home.store.put_pins(vec![]).await.unwrap();
    assert!(home.store.user(&p, id).await.unwrap().is_some());
    assert_eq!(home.store.highest_seq().await.unwrap(), 1);
}
