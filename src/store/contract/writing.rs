//! Requests that share a commit.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::*;

async fn a_bad_request_does_not_hurt_those_that_share_its_commit(home: Home) {
    let user = add_user(&home.store, &okta(), "taken@x.example").await.facts.id.0;
    let group = add_group(&home.store, &okta(), "g", &[user]).await.group;
    let (p, o, store) = (okta(), origin(), &home.store);
    // The id of a text that is not an id: the writer finds that the group has no such member.
    let no_id = uuid::Builder::from_custom_bytes([7; 16]).into_uuid();
    // Where requests are queued, all are in the queue before the writer runs, and share one transaction.
    let (first, taken, panicked, stranger, second) = tokio::join!(
        store.create_user(&p, &o, new_user("one@x.example")),
        store.create_user(&p, &o, new_user("TAKEN@x.example")),
        store.panicking(),
        change(store, &p, group.facts.id, vec![MemberChange::Remove(vec![user, no_id])]),
        store.create_user(&p, &o, new_user("two@x.example")),
    );
    assert_eq!(taken, Err(StoreError::Taken { attribute: "userName" }));
    assert!(matches!(panicked, Err(StoreError::Internal { .. })));
    assert_eq!(stranger, Err(StoreError::NotAMember));
    for created in [first, second] {
        let created = created.unwrap();
        assert_eq!(store.user(&p, created.facts.id).await.unwrap(), Some(created));
    }
    assert_eq!(store.group(&p, group.facts.id).await.unwrap(), Some(group));
    assert_eq!(store.counts(&p).await.unwrap().users, 3);
    let seqs: Vec<_> = store.events_after(0, 100).await.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5], "user, group, its member, and the two that succeeded");
    assert_eq!(store.verify_audit_chain().await.unwrap(), 5);
}

async fn changes_of_one_group_in_one_commit_see_each_other_and_nothing_of_one_that_failed(home: Home) {
    let (p, o, store) = (okta(), origin(), &home.store);
    let mut users = Vec::new();
    for index in 0..3 {
        users.push(add_user(store, &p, &format!("u{index}@x.example")).await.facts.id.0);
    }
    let group = add_group(store, &p, "g", &[]).await.group.facts.id;
    let other = add_group(store, &p, "other", &[]).await.group.facts.id;
    let add = |index: usize| vec![MemberChange::Add(vec![users[index]])];
    let no_id = uuid::Builder::from_custom_bytes([7; 16]).into_uuid();
    let failing = vec![MemberChange::Add(vec![users[2]]), MemberChange::Remove(vec![no_id])];
    let rename = |current: &GroupRecord| {
        let facts = GroupFacts { display_name: "h".to_owned(), ..current.facts.clone() };
        Ok::<_, ()>(GroupUpdate { facts: Some(facts), ..GroupUpdate::default() })
    };
    // Where requests are queued, all are in the queue before the writer runs, and share one transaction.
    let (first, elsewhere, failed, second, renamed) = tokio::join!(
        change(store, &p, group, add(0)),
        change(store, &p, other, add(2)),
        change(store, &p, group, failing),
        change(store, &p, group, add(1)),
        store.update_group(&p, &o, group, rename),
    );
    assert_eq!(failed, Err(StoreError::NotAMember));
    let [first, elsewhere, second] = [first, elsewhere, second].map(|outcome| changed(outcome.unwrap()).group);
    let renamed = changed(renamed.unwrap()).group;
    let mut seen = [&first, &second, &renamed].map(|group| (group.member_count, group.version));
    // The order in which they are written is not guaranteed.
    seen.sort_unstable();
    assert_eq!(seen, [(1, 2), (2, 3), (2, 4)]);
    assert_eq!(store.group(&p, group).await.unwrap(), Some(renamed));
    assert_eq!(store.group(&p, other).await.unwrap(), Some(elsewhere));
    assert_eq!(member_ids(store, &p, group).await, sorted(users[..2].to_vec()));
}

async fn what_others_see_of_a_commit_is_all_of_it(home: Home) {
    let mut hint = home.store.subscribe();
    assert_eq!(*hint.borrow_and_update(), 0);
    let users = join_all((0..20).map(|index| {
        let store = home.store.clone();
        async move { add_user(&store, &okta(), &format!("u{index}@x.example")).await }
    }));
    assert_eq!(users.await.len(), 20);
    // Callers are answered before the position is announced.
    assert_eq!(*hint.wait_for(|seq| *seq == 20).await.unwrap(), 20);
    hint.mark_unchanged();
    assert_eq!(home.store.highest_seq().await.unwrap(), 20);
    home.store.put_pins(vec![]).await.unwrap();
    assert!(!hint.has_changed().unwrap(), "no event, no hint");
}

async fn parallel_adds_and_removes_on_one_group_equal_a_set(home: Home) {
    let mut users = Vec::new();
    for index in 0..60 {
        users.push(add_user(&home.store, &okta(), &format!("u{index}@x.example")).await.facts.id.0);
    }
    let (stay, go) = users.split_at(30);
    let group = add_group(&home.store, &okta(), "g", go).await.group.facts.id;
    let adds = stay.iter().map(|id| MemberChange::Add(vec![*id]));
    let removes = go.iter().map(|id| MemberChange::Remove(vec![*id]));
    let tasks: Vec<_> = adds
        .zip(removes)
        .flat_map(|(add, remove)| [add, remove])
        .map(|delta| {
            let store = home.store.clone();
            tokio::spawn(async move { changed(change(&store, &okta(), group, vec![delta]).await.unwrap()) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let expected: BTreeSet<_> = stay.iter().copied().collect();
    assert_eq!(member_ids(&home.store, &okta(), group).await.into_iter().collect::<BTreeSet<_>>(), expected);
    let now = home.store.group(&okta(), group).await.unwrap().unwrap();
    assert_eq!((now.member_count, now.version), (30, 61));
}

async fn two_writers_on_one_file_keep_one_log(home: Home) {
    let other = home.open().await;
    for index in 0..4 {
        let store = if index % 2 == 0 { &home.store } else { &other };
        add_user(store, &okta(), &format!("u{index}@x.example")).await;
    }
    let seqs: Vec<_> = other.events_after(0, 10).await.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    assert_eq!(home.store.verify_audit_chain().await.unwrap(), 4);
}

contract_tests! {
    a_bad_request_does_not_hurt_those_that_share_its_commit,
    changes_of_one_group_in_one_commit_see_each_other_and_nothing_of_one_that_failed,
    what_others_see_of_a_commit_is_all_of_it,
    two_writers_on_one_file_keep_one_log,
    ; multi_thread:
    parallel_adds_and_removes_on_one_group_equal_a_set,
}
