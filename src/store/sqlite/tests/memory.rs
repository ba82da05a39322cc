//! An in-memory database, whose statements run in the caller's poll.

use super::*;

fn opened(database: &MemoryDatabase) -> Store {
    let clock = Arc::new(ManualClock::new("2026-11-21T08:00:00Z".parse().unwrap()));
    Store::open_inline(database, clock).unwrap()
}

#[tokio::test]
async fn store_in_memory_survives_the_process_that_wrote_it_and_begins_empty_elsewhere() {
    let database = MemoryDatabase::new(1).unwrap();
    let store = opened(&database);
    store.begin_epoch("one").await.unwrap();
    let (id, user) = (store.id(), add_user(&store, &okta(), "a@x.example").await);
    let group = add_group(&store, &okta(), "g", &[user.facts.id.0]).await.group;
    drop(store);
    let (one, two) = (opened(&database), opened(&database));
    assert_eq!((one.id(), two.id()), (id, id));
    assert_eq!(one.group(&okta(), group.facts.id).await.unwrap(), Some(group));
    two.begin_epoch("two").await.unwrap();
    assert!(matches!(one.put_pins(vec![]).await, Err(StoreError::StaleEpoch { .. })), "it never began one");
    assert_eq!(two.verify_audit_chain().await.unwrap(), 3);
    let mut snapshot = 0;
    two.snapshot(&mut |_, _| snapshot += 1).await.unwrap();
    assert_eq!(snapshot, 3);
    let other = opened(&MemoryDatabase::new(1).unwrap());
    assert_eq!((other.id(), other.highest_seq().await.unwrap()), (id, 0), "ids follow from the seed");
    assert_ne!(opened(&MemoryDatabase::new(2).unwrap()).id(), id);
}

#[tokio::test]
async fn request_to_a_store_in_memory_is_run_whole_or_not_at_all_wherever_its_caller_goes_away() {
    let database = MemoryDatabase::new(1).unwrap();
    let store = opened(&database);
    let (p, o) = (okta(), origin());
    for polls in 0..3 {
        let name = format!("u{polls}@x.example");
        let user = new_user(&name);
        let id = user.facts.id;
        let mut request = Box::pin(store.create_user(&p, &o, user));
        for _ in 0..polls {
            assert!(futures::poll!(request.as_mut()).is_pending());
        }
        drop(request);
        assert_eq!(store.user(&p, id).await.unwrap().is_some(), polls == 2, "after {polls} polls");
    }
    assert_eq!(store.counts(&p).await.unwrap().users, 1);
    let bad = store.create_user(&p, &o, new_user("U2@x.example")).await;
    assert_eq!(bad, Err(StoreError::Taken { attribute: "userName" }));
    assert!(matches!(store.panicking().await, Err(StoreError::Internal { .. })));
    add_user(&store, &p, "next@x.example").await;
    store.verify_audit_chain().await.unwrap();
}
