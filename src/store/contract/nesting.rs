//! People who are moved between direct and nested membership: whoever follows the log sees them in the group all the time.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::{DirectoryChange, DirectoryEvent, Seq};
use crate::store::groups::SLICE;

/// The direct and nested members of groups, as the log tells them.
#[derive(Default)]
struct Followed {
    people: BTreeMap<GroupId, BTreeSet<Uuid>>,
    nested: BTreeMap<GroupId, BTreeSet<GroupId>>,
}

impl Followed {
    fn apply(&mut self, event: &DirectoryEvent) {
        match &event.change {
            DirectoryChange::Members { group, added, removed } => {
                let people = self.people.entry(*group).or_default();
                people.extend(added.iter().map(|id| id.0));
                people.retain(|id| !removed.contains(&UserId(*id)));
            }
            DirectoryChange::Nested { group, added, removed } => {
                let nested = self.nested.entry(*group).or_default();
                nested.extend(added);
                nested.retain(|id| !removed.contains(id));
            }
            _ => {}
        }
    }

    /// Everybody in a group; here, nesting is one level deep.
    fn everybody(&self, group: GroupId) -> BTreeSet<Uuid> {
        let inner = self.nested.get(&group).into_iter().flatten();
        inner.chain([&group]).filter_map(|group| self.people.get(group)).flatten().copied().collect()
    }
}

/// Follows the log to its end. Whoever is in the group before and after is in it after each event.
async fn nobody_is_missing_meanwhile(store: &Store, group: GroupId, before: &mut Followed, position: &mut Seq) {
    let events = store.events_after(*position, 10_000).await.unwrap();
    let was = before.everybody(group);
    let mut prefixes = Vec::new();
    for event in &events {
        before.apply(event);
        prefixes.push(before.everybody(group));
        *position = event.seq;
    }
    let stays: BTreeSet<Uuid> = was.intersection(&before.everybody(group)).copied().collect();
    for (event, there) in events.iter().zip(&prefixes) {
        let missing = stays.difference(there).count();
        assert_eq!(missing, 0, "after {event:?}, of {} people", stays.len());
    }
}

async fn who_moves_between_direct_and_nested_membership_is_never_gone(home: Home) {
    let (store, p) = (&home.store, okta());
    let mut users = Vec::new();
    for index in 0..4 {
        users.push(add_user(store, &p, &format!("u{index}@x.example")).await.facts.id.0);
    }
    let group = add_group(store, &p, "group", &users).await.group.facts.id;
    let one = add_group(store, &p, "one", &users).await.group.facts.id.0;
    let other = add_group(store, &p, "other", &users[1..]).await.group.facts.id.0;
    let (mut followed, mut position) = (Followed::default(), 0);
    nobody_is_missing_meanwhile(store, group, &mut followed, &mut position).await;
    let requests = [
        vec![MemberChange::Replace(vec![one])],
        vec![MemberChange::Replace(vec![other, users[0]])],
        vec![MemberChange::Add(vec![one]), MemberChange::Remove(vec![other, users[0]])],
        vec![MemberChange::Replace(users.clone())],
    ];
    for request in requests {
        change(store, &p, group, request).await.unwrap();
        nobody_is_missing_meanwhile(store, group, &mut followed, &mut position).await;
        assert_eq!(followed.everybody(group), users.iter().copied().collect());
    }
}

async fn who_moves_in_a_request_of_several_slices_is_never_gone(home: Home) {
    let (store, p) = (&home.store, okta());
    let user = add_user(store, &p, "u@x.example").await.facts.id.0;
    let parked: Vec<Uuid> = (0..=SLICE as u128).map(|id| Uuid::from_u128(id << 64)).collect();
    let group = add_group(store, &p, "group", &[&parked[..], &[user]].concat()).await.group.facts.id;
    let inner = add_group(store, &p, "inner", &[user]).await.group.facts.id.0;
    let (mut followed, mut position) = (Followed::default(), 0);
    nobody_is_missing_meanwhile(store, group, &mut followed, &mut position).await;
    let others: Vec<Uuid> = (0..=SLICE as u128).map(|id| Uuid::from_u128(id << 80 | 1)).collect();
    for members in [[&others[..], &[inner]].concat(), [&parked[..], &[user]].concat()] {
        change(store, &p, group, vec![MemberChange::Replace(members)]).await.unwrap();
        nobody_is_missing_meanwhile(store, group, &mut followed, &mut position).await;
        assert_eq!(followed.everybody(group), BTreeSet::from([user]));
    }
}

contract_tests! {
    who_moves_between_direct_and_nested_membership_is_never_gone,
    who_moves_in_a_request_of_several_slices_is_never_gone,
}
