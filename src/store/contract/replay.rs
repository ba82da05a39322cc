//! A snapshot is the fold of the log, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::DirectoryChange;

/// The directory as a follower of changes builds it.
#[derive(Debug, Default, PartialEq)]
struct Model {
    users: BTreeMap<(ProviderName, UserId), Option<UserFacts>>,
    groups: BTreeMap<(ProviderName, GroupId), Option<GroupFacts>>,
    members: BTreeSet<(ProviderName, GroupId, UserId)>,
    nested: BTreeSet<(ProviderName, GroupId, GroupId)>,
}

impl Model {
    fn apply(&mut self, p: ProviderName, change: DirectoryChange) {
        match change {
            DirectoryChange::User(facts) => drop(self.users.insert((p, facts.id), Some(facts))),
            DirectoryChange::Group(facts) => drop(self.groups.insert((p, facts.id), Some(facts))),
            DirectoryChange::UserDeleted { id } => {
                self.members.retain(|(provider, _, member)| (provider, *member) != (&p, id));
                self.users.remove(&(p, id));
            }
            DirectoryChange::GroupDeleted { id } => {
                self.members.retain(|(provider, group, _)| (provider, *group) != (&p, id));
                self.nested.retain(|(provider, group, nested)| *provider != p || (*group != id && *nested != id));
                self.groups.remove(&(p, id));
            }
            DirectoryChange::Nested { group, added, removed } => {
                for nested in removed {
                    assert!(self.nested.remove(&(p.clone(), group, nested)), "removed what was not there");
                }
                for nested in added {
                    assert!(self.nested.insert((p.clone(), group, nested)), "added what was there");
                }
            }
            DirectoryChange::Members { group, added, removed } => {
                for member in removed {
                    assert!(self.members.remove(&(p.clone(), group, member)), "removed what was not there");
                }
                for member in added {
                    assert!(self.members.insert((p.clone(), group, member)), "added what was there");
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    CreateUser(usize),
    SetActive(usize, bool),
    DeleteUser(usize),
    CreateGroup(usize, Vec<usize>),
    Rename(usize),
    Patch(usize, Vec<(u8, Vec<usize>)>),
    DeleteGroup(usize),
}

const IDS: usize = 6;

fn op() -> impl Strategy<Value = Op> {
    // Ids beyond the users are groups and ids that do not exist.
    let ids = prop::collection::vec(0..2 * IDS + 1, 0..5);
    prop_oneof![
        4 => (0..IDS).prop_map(Op::CreateUser),
        2 => (0..IDS, any::<bool>()).prop_map(|(user, active)| Op::SetActive(user, active)),
        1 => (0..IDS).prop_map(Op::DeleteUser),
        3 => (0..IDS, ids.clone()).prop_map(|(group, members)| Op::CreateGroup(group, members)),
        1 => (0..IDS).prop_map(Op::Rename),
        6 => (0..IDS, prop::collection::vec((0..4u8, ids), 1..4)).prop_map(|(group, changes)| Op::Patch(group, changes)),
        1 => (0..IDS).prop_map(Op::DeleteGroup),
    ]
}

fn id(p: usize, index: usize) -> Uuid {
    Uuid::from_u128(((p as u128 + 1) << 64) | (index as u128 + 1))
}

async fn run(store: &Store, p: usize, op: Op) {
    let name = [okta(), provider("entra")][p].clone();
    let ids = |indexes: &[usize]| indexes.iter().map(|index| id(p, *index)).collect::<Vec<_>>();
    let o = origin();
    match op {
        Op::CreateUser(index) => {
            let mut user = new_user(&format!("u{index}@x.example"));
            user.facts.id = UserId(id(p, index));
            let _taken = store.create_user(&name, &o, user).await;
        }
        Op::SetActive(index, active) => {
            let set = move |user: &UserRecord| {
                let facts = UserFacts { active, ..user.facts.clone() };
                Ok(Some(UserUpdate { resource: user.resource.clone(), facts }))
            };
            store.update_user::<()>(&name, &o, UserId(id(p, index)), set).await.unwrap();
        }
        Op::DeleteUser(index) => drop(store.delete_user(&name, &o, UserId(id(p, index)), None).await.unwrap()),
        Op::CreateGroup(index, members) => {
            let mut group = new_group(&format!("g{index}"), &ids(&members));
            group.facts.id = GroupId(id(p, index + IDS));
            let _taken = store.create_group(&name, &o, group).await;
        }
        Op::Rename(index) => {
            let rename = |group: &GroupRecord| {
                let facts = GroupFacts { external_id: Some(group.version.to_string()), ..group.facts.clone() };
                Ok(GroupUpdate { facts: Some(facts), ..GroupUpdate::default() })
            };
            let _taken = store.update_group::<()>(&name, &o, GroupId(id(p, index + IDS)), rename).await;
        }
        Op::Patch(index, changes) => {
            let changes = changes
                .into_iter()
                .map(|(kind, members)| match kind {
                    0 => MemberChange::Add(ids(&members)),
                    1 => MemberChange::Remove(ids(&members)),
                    2 => MemberChange::Replace(ids(&members)),
                    _ => MemberChange::Clear,
                })
                .collect();
            match change(store, &name, GroupId(id(p, index + IDS)), changes).await {
                Ok(_) | Err(StoreError::NoKnownMember { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Op::DeleteGroup(index) => {
            store.delete_group(&name, &o, GroupId(id(p, index + IDS)), None).await.unwrap();
        }
    }
}

async fn compare(store: &Store) {
    let mut replayed = Model::default();
    let mut after = 0;
    loop {
        let events = store.events_after(after, 7).await.unwrap();
        let Some(last) = events.last() else { break };
        assert_eq!(last.seq, after + i64::try_from(events.len()).unwrap(), "no gaps");
        after = last.seq;
        for event in events {
            replayed.apply(event.provider, event.change);
        }
    }
    let mut snapshot = Model::default();
    let seq = store.snapshot(&mut |provider, change| snapshot.apply(provider, change)).await.unwrap();
    assert_eq!(seq, after);
    assert_eq!(snapshot, replayed);

    for (p, group) in snapshot.groups.iter().filter_map(|((p, id), facts)| facts.as_ref().map(|_| (p, *id))) {
        let record = store.group(p, group).await.unwrap().unwrap();
        let members = store.members(p, group).await.unwrap();
        assert_eq!(record.member_count, members.len() as u64);
        let users: BTreeSet<_> = members.iter().filter(|m| m.kind == MemberKind::User).map(|m| UserId(m.id)).collect();
        let expected: BTreeSet<_> =
            snapshot.members.iter().filter(|(q, g, _)| (q, *g) == (p, group)).map(|m| m.2).collect();
        assert_eq!(users, expected);
    }
    for p in [okta(), provider("entra")] {
        let counts = store.counts(&p).await.unwrap();
        let users = snapshot.users.iter().filter(|((q, _), facts)| *q == p && facts.is_some()).count();
        let groups = snapshot.groups.iter().filter(|((q, _), facts)| *q == p && facts.is_some()).count();
        assert_eq!((counts.users, counts.groups), (users as u64, groups as u64));
        assert_eq!(store.usage(&p).await.unwrap(), store.recount(&p).await);
    }
    store.verify_audit_chain().await.unwrap();
}

proptest! {
    #![proptest_config(crate::model::cases::cases(40))]

    #[test]
    fn a_snapshot_equals_the_fold_of_the_log(ops in prop::collection::vec((0..2usize, op()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for backend in backends() {
            let ops = ops.clone();
            runtime.block_on(async {
                let home = Home::on(backend).await;
                for (p, op) in ops {
                    run(&home.store, p, op).await;
                }
                compare(&home.store).await;
            });
        }
    }
}
