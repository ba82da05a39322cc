//! Retention.

use std::time::Duration;

use super::*;
use crate::model::{DirectoryChange, Kind, MappingKey, MappingPhase, Pin, Seq};

/// The directory built from the events up to a position, with the position of each change.
pub(in crate::store) async fn changes(store: &Store) -> Vec<(Seq, DirectoryChange)> {
    store.events_after(0, 1000).await.unwrap().into_iter().map(|event| (event.seq, event.change)).collect()
}

pub(in crate::store) fn hour() -> Duration {
    Duration::from_hours(1)
}

/// A store with a renamed user, a deleted user, a group with changed members, and a mapping with versions and pins;
/// each change is an hour after the one before.
pub(in crate::store) async fn with_history(home: Home) -> (Home, [UserId; 2], GroupId) {
    let store = &home.store;
    let alice = add_user(store, &okta(), "alice@x.example").await.facts.id;
    let bob = add_user(store, &okta(), "bob@x.example").await.facts.id;
    let group = add_group(store, &okta(), "team", &[alice.0, bob.0]).await.group.facts.id;
    home.clock.advance(hour());
    store
        .update_user::<()>(&okta(), &origin(), alice, |before| {
            let mut facts = before.facts.clone();
            facts.user_name = "alice.smith@x.example".to_owned();
            facts.emails[0].value = facts.user_name.clone();
            Ok(Some(UserUpdate { resource: json!({"userName": facts.user_name}), facts }))
        })
        .await
        .unwrap();
    home.clock.advance(hour());
    change(store, &okta(), group, vec![MemberChange::Remove(vec![bob.0])]).await.unwrap();
    for generation in 1..4 {
        home.clock.advance(hour());
        store.put_spec(spec(generation)).await.unwrap();
    }
    let pin = |group| Pin {
        mapping: MappingKey::new("team", "m").unwrap(),
        provider: okta(),
        selector: "displayName:team".to_owned(),
        group,
    };
    store.put_pins(vec![pin(GroupId(Uuid::from_u128(9)))]).await.unwrap();
    store.put_pins(vec![pin(group)]).await.unwrap();
    home.clock.advance(hour());
    store.delete_user(&okta(), &origin(), bob, None).await.unwrap();
    (home, [alice, bob], group)
}

/// The first row of the audit and the number of rows, after verifying them.
pub(in crate::store) async fn chain(store: &Store) -> (i64, u64) {
    let AuditChain { since, rows, hash } = store.verify_audit().await.unwrap();
    let last = store.audit_after(store.highest_audit_seq().await.unwrap() - 1, 1).await.unwrap().remove(0);
    assert_eq!(hash, last.hash);
    (since, rows)
}

pub(in crate::store) fn spec(generation: i64) -> StoredSpec {
    StoredSpec {
        kind: Kind::RoleMapping,
        namespace: Some("team".to_owned()),
        name: "m".to_owned(),
        generation,
        phase: MappingPhase::Live,
        source: "a.yaml".to_owned(),
        json: json!({"spec": {"generation": generation}}).to_string(),
    }
}

async fn all_that_is_older_and_not_needed_goes_and_what_stands_for_the_present_stays(home: Home) {
    let (home, [alice, bob], group) = with_history(home).await;
    let store = &home.store;
    let (highest, audited) = (store.highest_seq().await.unwrap(), store.highest_audit_seq().await.unwrap());
    home.clock.advance(hour());
    let dry = store.prune(home.now(), true).await.unwrap();
    assert_eq!(changes(store).await.len(), 7);
    let done = store.prune(home.now(), false).await.unwrap();
    assert_eq!(done, dry);
    let expected = Pruned {
        history_since: highest,
        audit_since: audited + 1,
        events: 3,
        shortened_events: 1,
        spec_versions: 2,
        history: 1,
        audit_rows: audited.unsigned_abs(),
        names: 4,
        refusals: 0,
    };
    assert_eq!(done, expected);

    let left = changes(store).await;
    let kinds: Vec<_> = left.iter().map(|(_, change)| change).collect();
    let member = DirectoryChange::Members { group, added: vec![alice], removed: vec![] };
    assert!(kinds.contains(&&member) && kinds.contains(&&DirectoryChange::UserDeleted { id: bob }), "{left:?}");
    let named = |name: &str| left.iter().any(|(_, change)| format!("{change:?}").contains(name));
    assert!(named("alice.smith@x.example") && !named("\"alice@x.example") && !named("bob@x.example"), "{left:?}");
    let versions = store.spec_versions(Kind::RoleMapping, Some("team"), "m").await.unwrap();
    assert_eq!(versions.iter().map(|version| version.generation).collect::<Vec<_>>(), [3]);
    let pins = store.pins_at(&MappingKey::new("team", "m").unwrap(), highest).await.unwrap();
    assert_eq!(pins.iter().map(|pin| pin.group).collect::<Vec<_>>(), [group]);
    // Only the row of the prune itself is left.
    let rows = store.audit_after(0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.entry.action.as_str()).collect::<Vec<_>>(), ["store.prune"]);
    assert_eq!(chain(store).await, (audited + 1, 1));
    assert_eq!(store.oldest_seq().await.unwrap(), highest);
    let mut ignored = |_, _| {};
    let before = store.catalog_at(highest - 1, &mut ignored).await;
    assert_eq!(before, Err(StoreError::HistoryNotKept { seq: highest - 1, oldest: highest }));
    store.catalog_at(highest, &mut ignored).await.unwrap();
    let again = store.prune(home.now(), false).await.unwrap();
    let nothing = Pruned { history_since: highest, audit_since: audited + 1, ..Pruned::default() };
    assert_eq!(again, nothing, "the row of the first prune is not older than now");
}

async fn neither_position_falls_when_the_last_rows_are_pruned_and_both_logs_go_on(home: Home) {
    let store = &home.store;
    store.put_spec(spec(1)).await.unwrap();
    store.remove_spec(Kind::RoleMapping, Some("team"), "m").await.unwrap();
    home.clock.advance(hour());
    let pruned = store.prune(home.now(), false).await.unwrap();
    assert_eq!((pruned.spec_versions, pruned.history_since), (2, 2), "nothing is left of what was removed");
    assert_eq!((store.highest_seq().await.unwrap(), store.highest_audit_seq().await.unwrap()), (2, 3));
    drop(home.store.clone());
    let again = home.open().await;
    assert_eq!(again.highest_seq().await.unwrap(), 2);
    let alice = add_user(&again, &okta(), "alice@x.example").await.facts.id;
    let events = changes(&again).await;
    assert!(matches!(&events[..], [(3, DirectoryChange::User(facts))] if facts.id == alice), "{events:?}");
    assert_eq!(chain(&again).await, (3, 2));
}

async fn prune_that_is_dropped_anywhere_leaves_a_store_that_holds_and_is_pruned_again(home: Home) {
    for step in 0.. {
        let home = home.another().await;
        let store = home.store.clone();
        let alice = add_user(&store, &okta(), "alice@x.example").await.facts.id;
        let group = add_group(&store, &okta(), "team", &[]).await.group.facts.id;
        for n in 0..600 {
            let change_of = if n % 2 == 0 { MemberChange::Add } else { MemberChange::Remove };
            change(&store, &okta(), group, vec![change_of(vec![alice.0])]).await.unwrap();
        }
        let highest = store.highest_seq().await.unwrap();
        home.clock.advance(hour());
        let (at, before) = (home.now(), store.clone());
        let pruning = tokio::spawn(async move { before.prune(at, false).await });
        // Each step permits one more transaction.
        let mut seen = (0, 0);
        let mut left = step;
        while left > 0 && !pruning.is_finished() {
            let now = (changes(&store).await.len(), store.verify_audit().await.unwrap().since);
            if now != seen {
                (seen, left) = (now, left - 1);
            }
            tokio::task::yield_now().await;
        }
        let finished = pruning.is_finished();
        pruning.abort();
        let _ = pruning.await;
        assert_eq!(store.highest_seq().await.unwrap(), highest);
        store.verify_audit().await.unwrap();
        let mut members = std::collections::BTreeSet::new();
        let mut sink = |_, change| {
            if let DirectoryChange::Members { added, removed, .. } = change {
                members.retain(|user| !removed.contains(user));
                members.extend(added);
            }
        };
        store.catalog_at(highest, &mut sink).await.unwrap();
        assert!(members.is_empty(), "after {step} steps");
        store.prune(at, false).await.unwrap();
        let left = changes(&store).await;
        assert_eq!(left.len(), 2, "the user and the group: {left:?}");
        assert_eq!(store.verify_audit_chain().await.unwrap(), store.audit_after(0, 10).await.unwrap().len() as u64);
        if finished {
            assert!(step > 3, "several transactions");
            break;
        }
    }
}

async fn follower_that_lags_behind_a_prune_is_told_and_one_that_does_not_goes_on(home: Home) {
    let (home, _, _) = with_history(home).await;
    let store = &home.store;
    let highest = store.highest_seq().await.unwrap();
    let (events, position) = store.follow_events(0, 2).await.unwrap();
    assert_eq!((events.len(), position), (2, 2));
    let (events, position) = store.follow_events(highest - 1, 2).await.unwrap();
    assert_eq!((events.len(), position), (1, highest));
    // Positions of the history are skipped.
    store.put_spec(spec(9)).await.unwrap();
    let (events, position) = store.follow_events(highest, 2).await.unwrap();
    assert_eq!((events.len(), position), (0, highest + 1));
    home.clock.advance(hour());
    store.prune(home.now(), false).await.unwrap();
    assert!(store.follow_events(position, 2).await.unwrap().0.is_empty());
    let behind = store.follow_events(highest, 2).await;
    assert_eq!(behind.unwrap_err(), StoreError::HistoryNotKept { seq: highest, oldest: highest + 1 });
}

contract_tests! {
    all_that_is_older_and_not_needed_goes_and_what_stands_for_the_present_stays,
    neither_position_falls_when_the_last_rows_are_pruned_and_both_logs_go_on,
    prune_that_is_dropped_anywhere_leaves_a_store_that_holds_and_is_pruned_again,
    follower_that_lags_behind_a_prune_is_told_and_one_that_does_not_goes_on,
}
