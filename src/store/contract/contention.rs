//! Requests that change the same resource at the same time.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use super::*;

async fn two_large_replacements_of_one_group_never_mix(home: Home) {
    let known = add_user(&home.store, &okta(), "a@x.example").await.facts.id.0;
    let group = add_group(&home.store, &okta(), "g", &[]).await.group.facts.id;
    let sets = [1_u128, 2]
        .map(|which| (0..5_000).map(|n| Uuid::from_u128(which * 1_000_000 + n)).chain([known]).collect::<Vec<Uuid>>());
    let tasks = sets.clone().map(|set| {
        let store = home.store.clone();
        tokio::spawn(async move { change(&store, &okta(), group, vec![MemberChange::Replace(set)]).await.unwrap() })
    });
    for task in tasks {
        changed(task.await.unwrap());
    }
    let now: BTreeSet<Uuid> = home.store.everybody(&okta(), group, usize::MAX).await.unwrap().into_iter().collect();
    assert!(sets.iter().any(|set| set.iter().copied().collect::<BTreeSet<_>>() == now));
}

async fn sixty_four_that_add_to_one_group_do_not_work_anything_out_twice(home: Home) {
    let group = add_group(&home.store, &okta(), "g", &[]).await.group.facts.id;
    let users: Vec<Uuid> = (0..64_u128).map(Uuid::from_u128).collect();
    let tasks: Vec<_> = users
        .iter()
        .copied()
        .map(|id| {
            let store = home.store.clone();
            // As Okta sends it: each request includes the unchanged name of the group.
            tokio::spawn(async move {
                let add = vec![MemberChange::Add(vec![id])];
                let update = |_: &GroupRecord| {
                    Ok::<_, ()>(GroupUpdate { members: add.clone().into(), ..GroupUpdate::default() })
                };
                if id.as_u128() % 2 == 0 {
                    changed(store.update_group(&okta(), &origin(), group, update).await.unwrap());
                } else {
                    changed(change(&store, &okta(), group, add.clone()).await.unwrap());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(home.store.everybody(&okta(), group, 100).await.unwrap().len(), 64);
    assert_eq!(home.store.0.retries.load(Relaxed), 0);
}

async fn changes_of_one_user_at_once_are_all_done_each_on_the_one_before(home: Home) {
    let user = add_user(&home.store, &okta(), "a@x.example").await.facts.id;
    let tasks: Vec<_> = (0..24)
        .map(|index| {
            let store = home.store.clone();
            tokio::spawn(async move {
                let set = |current: &UserRecord| {
                    let mut resource = current.resource.clone();
                    resource[format!("k{index}")] = json!(index);
                    Ok::<_, ()>(Some(UserUpdate { resource, facts: current.facts.clone() }))
                };
                changed(store.update_user(&okta(), &origin(), user, set).await.unwrap())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let after = home.store.user(&okta(), user).await.unwrap().unwrap();
    assert_eq!(after.version, 25);
    assert!((0..24).all(|index| after.resource[format!("k{index}")] == json!(index)));
}

async fn an_update_of_what_somebody_else_changed_meanwhile_is_worked_out_again(home: Home) {
    let store = &home.store;
    let user = add_user(store, &okta(), "a@x.example").await.facts.id;
    let group = add_group(store, &okta(), "g", &[]).await.group.facts.id;
    let runtime = tokio::runtime::Handle::current();
    let p = okta();
    let o = origin();
    let mut seen = Vec::new();
    let set = |current: &UserRecord| {
        seen.push(current.version);
        if seen.len() == 1 {
            let faster = store.update_user::<()>(&p, &o, user, |current| {
                let facts = UserFacts { active: false, ..current.facts.clone() };
                Ok(Some(UserUpdate { resource: json!({"userName": "a@x.example", "active": false}), facts }))
            });
            tokio::task::block_in_place(|| runtime.block_on(faster)).unwrap();
        }
        let mut resource = current.resource.clone();
        resource["title"] = json!("T");
        Ok::<_, ()>(Some(UserUpdate { resource, facts: current.facts.clone() }))
    };
    let after = changed(store.update_user(&okta(), &origin(), user, set).await.unwrap());
    assert_eq!(seen, [1, 2]);
    assert_eq!((after.version, after.facts.active, &after.resource["active"]), (3, false, &json!(false)));

    let mut seen = Vec::new();
    let set = |current: &GroupRecord| {
        seen.push(current.version);
        let version = current.version;
        if seen.len() <= 2 {
            // A change of members does not conflict with a change of the name; another change of the name does.
            let faster = async {
                change(store, &p, group, vec![MemberChange::Add(vec![Uuid::new_v4()])]).await.unwrap();
                if version == 1 {
                    let rename = |_: &GroupRecord| {
                        let resource = Some(json!({"displayName": "g", "externalId": "e"}));
                        Ok::<_, ()>(GroupUpdate { resource, ..GroupUpdate::default() })
                    };
                    changed(store.update_group(&p, &o, group, rename).await.unwrap());
                }
            };
            tokio::task::block_in_place(|| runtime.block_on(faster));
        }
        let mut resource = current.resource.clone();
        resource["x"] = json!(true);
        Ok::<_, ()>(GroupUpdate { resource: Some(resource), ..GroupUpdate::default() })
    };
    let after = changed(store.update_group(&okta(), &origin(), group, set).await.unwrap()).group;
    assert_eq!(seen, [1, 3]);
    assert_eq!(after.resource, json!({"displayName": "g", "externalId": "e", "x": true}));
    assert_eq!((after.version, after.member_count), (5, 0));
    assert_eq!(store.everybody(&okta(), group, 10).await.unwrap().len(), 2);
}

contract_tests! {
    ; multi_thread:
    two_large_replacements_of_one_group_never_mix,
    sixty_four_that_add_to_one_group_do_not_work_anything_out_twice,
    changes_of_one_user_at_once_are_all_done_each_on_the_one_before,
    an_update_of_what_somebody_else_changed_meanwhile_is_worked_out_again,
}
