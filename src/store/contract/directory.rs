//! Users, groups, their members, and lists.

use super::*;
use crate::model::DirectoryChange;

async fn a_user_reads_back_as_created(home: Home) {
    let mut user = new_user("Alice@Corp.example");
    user.facts.external_id = Some("00u1".to_owned());
    let created = home.store.create_user(&okta(), &origin(), user.clone()).await.unwrap();
    assert_eq!(created.facts, user.facts);
    assert_eq!((created.version, created.created_at, created.updated_at), (1, home.now(), home.now()));
    assert_eq!(home.store.user(&okta(), user.facts.id).await.unwrap(), Some(created));
    assert_eq!(home.store.counts(&okta()).await.unwrap(), Counts { users: 1, groups: 0, pending: 0 });
}

async fn a_user_name_in_another_case_is_taken_and_nothing_is_left_of_the_attempt(home: Home) {
    add_user(&home.store, &okta(), "Émile@corp.example").await;
    let refused = home.store.create_user(&okta(), &origin(), new_user("éMILE@CORP.example")).await;
    assert_eq!(refused, Err(StoreError::Taken { attribute: "userName" }));
    assert_eq!(home.store.counts(&okta()).await.unwrap().users, 1);
    assert_eq!(home.store.highest_seq().await.unwrap(), 1);
    assert_eq!(home.store.audit_after(0, 10).await.unwrap().len(), 1);
}

async fn an_external_id_may_be_shared_and_the_write_that_shares_it_says_so(home: Home) {
    let with = |name: &str, external: &str| {
        let mut user = new_user(name);
        user.facts.external_id = Some(external.to_owned());
        user
    };
    let store = &home.store;
    let create = async |name: &str, external: &str| {
        let created = store.create_user(&okta(), &origin(), with(name, external)).await.unwrap();
        created.shares_external_id
    };
    assert!(!create("a@x.example", "e1").await);
    assert!(!create("b@x.example", "E1").await, "an externalId is case-exact");
    assert!(create("c@x.example", "e1").await);
    let mut group = new_group("g", &[]);
    group.facts.external_id = Some("e1".to_owned());
    let created = store.create_group(&okta(), &origin(), group).await.unwrap();
    assert!(!created.group.shares_external_id, "users and groups have nothing in common");
}

async fn a_display_name_in_another_case_is_taken(home: Home) {
    add_group(&home.store, &okta(), "Team", &[]).await;
    let refused = home.store.create_group(&okta(), &origin(), new_group("tEAM", &[])).await;
    assert_eq!(refused.unwrap_err(), StoreError::Taken { attribute: "displayName" });
    let other = add_group(&home.store, &okta(), "Other", &[]).await.group;
    let mut facts = other.facts.clone();
    facts.display_name = "TEAM".to_owned();
    let renamed = home
        .store
        .update_group::<()>(&okta(), &origin(), other.facts.id, move |_| {
            Ok(GroupUpdate { facts: Some(facts.clone()), ..GroupUpdate::default() })
        })
        .await;
    assert_eq!(renamed.unwrap_err(), StoreError::Taken { attribute: "displayName" });
    assert_eq!(home.store.group(&okta(), other.facts.id).await.unwrap(), Some(other));
}

async fn an_update_moves_version_and_time_only_when_something_changed(home: Home) {
    let user = add_user(&home.store, &okta(), "a@x.example").await;
    home.clock.advance(std::time::Duration::from_mins(1));
    let same = user.clone();
    let outcome = home
        .store
        .update_user::<()>(&okta(), &origin(), user.facts.id, move |_| {
            Ok(Some(UserUpdate { resource: same.resource.clone(), facts: same.facts.clone() }))
        })
        .await
        .unwrap();
    assert_eq!(outcome, UpdateOutcome::Unchanged(user.clone()));
    assert_eq!(home.store.audit_after(0, 10).await.unwrap().len(), 1);

    let outcome = home
        .store
        .update_user::<()>(&okta(), &origin(), user.facts.id, |user| {
            let mut facts = user.facts.clone();
            facts.active = false;
            Ok(Some(UserUpdate { resource: json!({"userName": "a@x.example", "active": false}), facts }))
        })
        .await
        .unwrap();
    let after = changed(outcome);
    assert_eq!((after.version, after.created_at, after.updated_at), (2, user.created_at, home.now()));
    assert!(!after.facts.active);
    assert_eq!(home.store.user(&okta(), user.facts.id).await.unwrap(), Some(after.clone()));
    let events = home.store.events_after(1, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].change, DirectoryChange::User(after.facts));
    assert_eq!(home.store.audit_after(1, 10).await.unwrap()[0].entry.action, "user.deactivate");
}

async fn an_update_that_its_caller_refuses_changes_nothing(home: Home) {
    let user = add_user(&home.store, &okta(), "a@x.example").await;
    let outcome = home.store.update_user(&okta(), &origin(), user.facts.id, |_| Err("no")).await.unwrap();
    assert_eq!(outcome, UpdateOutcome::Refused("no"));
    assert_eq!(home.store.user(&okta(), user.facts.id).await.unwrap(), Some(user));
    let nobody = UserId(Uuid::new_v4());
    let outcome = home.store.update_user::<()>(&okta(), &origin(), nobody, |_| Ok(None)).await.unwrap();
    assert_eq!(outcome, UpdateOutcome::NotFound);
}

async fn a_renamed_user_is_found_by_the_new_name_and_address_only(home: Home) {
    let user = add_user(&home.store, &okta(), "old@x.example").await;
    home.store
        .update_user::<()>(&okta(), &origin(), user.facts.id, |user| {
            let mut facts = user.facts.clone();
            facts.user_name = "New@x.example".to_owned();
            facts.emails[0].value = "New@x.example".to_owned();
            Ok(Some(UserUpdate { resource: user.resource.clone(), facts }))
        })
        .await
        .unwrap();
    for (name, found) in [("OLD@x.example", 0), ("new@X.example", 1)] {
        let by_name = home.store.users(&okta(), &users_with(&format!("userName eq \"{name}\""))).await.unwrap();
        let email = users_with(&format!("emails[type eq \"WORK\"].value eq \"{name}\""));
        let by_email = home.store.users(&okta(), &email).await.unwrap();
        assert_eq!((by_name.total, by_email.total), (found, found), "{name}");
    }
    add_user(&home.store, &okta(), "old@x.example").await;
}

async fn deltas_of_members_are_applied_and_reported(home: Home) {
    let mut users = Vec::new();
    for index in 0..4 {
        users.push(add_user(&home.store, &okta(), &format!("u{index}@x.example")).await.facts.id.0);
    }
    let created = add_group(&home.store, &okta(), "g", &users[..2]).await;
    let group = created.group.facts.id;
    assert_eq!(created.members, MemberDelta { after: 2, added: 2, ..MemberDelta::default() });

    let nested = add_group(&home.store, &okta(), "nested", &[]).await.group.facts.id;
    let unknown = Uuid::new_v4();
    let add = MemberChange::Add(vec![users[1], users[2], nested.0, unknown, unknown]);
    let outcome = changed(change(&home.store, &okta(), group, vec![add]).await.unwrap());
    assert_eq!(outcome.members, MemberDelta { before: 2, after: 4, added: 2, removed: 0, nested: 1, parked: 1 });
    assert_eq!((outcome.group.member_count, outcome.group.version), (4, 2));
    assert_eq!(home.store.group(&okta(), group).await.unwrap(), Some(outcome.group));
    let members = home.store.members(&okta(), group).await.unwrap();
    assert!(members.contains(&MemberRecord { id: nested.0, kind: MemberKind::Group }));
    assert_eq!(members.len(), 4);

    let outcome =
        changed(change(&home.store, &okta(), group, vec![MemberChange::Replace(vec![users[3]])]).await.unwrap());
    assert_eq!(outcome.members, MemberDelta { before: 4, after: 1, added: 1, removed: 4, nested: 0, parked: 0 });
    assert_eq!(member_ids(&home.store, &okta(), group).await, vec![users[3]]);
    assert_eq!(home.store.counts(&okta()).await.unwrap().pending, 0, "a replace takes parked ids too");

    let outcome = changed(change(&home.store, &okta(), group, vec![MemberChange::Clear]).await.unwrap());
    assert_eq!((outcome.members.removed, outcome.group.member_count), (1, 0));
}

async fn changes_that_cancel_each_other_leave_the_group_unchanged(home: Home) {
    let user = add_user(&home.store, &okta(), "a@x.example").await.facts.id.0;
    let group = add_group(&home.store, &okta(), "g", &[user]).await.group;
    let seq = home.store.highest_seq().await.unwrap();
    for changes in [
        vec![MemberChange::Remove(vec![user]), MemberChange::Add(vec![user])],
        vec![MemberChange::Add(vec![user])],
        vec![MemberChange::Remove(vec![Uuid::new_v4()])],
        vec![MemberChange::Replace(vec![user])],
        vec![],
    ] {
        let outcome = change(&home.store, &okta(), group.facts.id, changes).await.unwrap();
        assert!(matches!(outcome, UpdateOutcome::Unchanged(_)), "{outcome:?}");
    }
    assert_eq!(home.store.group(&okta(), group.facts.id).await.unwrap(), Some(group));
    assert_eq!(home.store.highest_seq().await.unwrap(), seq);
}

async fn a_replacement_that_names_nobody_known_changes_nothing(home: Home) {
    let user = add_user(&home.store, &okta(), "a@x.example").await.facts.id.0;
    let group = add_group(&home.store, &okta(), "g", &[user]).await.group;
    let changes = vec![MemberChange::Remove(vec![user]), MemberChange::Replace(vec![Uuid::new_v4(), Uuid::new_v4()])];
    let refused = change(&home.store, &okta(), group.facts.id, changes).await;
    assert_eq!(refused.unwrap_err(), StoreError::NoKnownMember { given: 2 });
    assert_eq!(member_ids(&home.store, &okta(), group.facts.id).await, vec![user]);
    assert_eq!(home.store.group(&okta(), group.facts.id).await.unwrap(), Some(group));
}

async fn a_parked_id_becomes_a_member_when_it_exists(home: Home) {
    let (user, nested) = (new_user("late@x.example"), new_group("late", &[]));
    let ids = [user.facts.id.0, nested.facts.id.0];
    let group = add_group(&home.store, &okta(), "g", &ids).await;
    assert_eq!((group.members.parked, group.group.member_count), (2, 0));
    assert_eq!(home.store.counts(&okta()).await.unwrap().pending, 2);
    assert!(member_ids(&home.store, &okta(), group.group.facts.id).await.is_empty());

    home.store.create_user(&okta(), &origin(), user.clone()).await.unwrap();
    home.store.create_group(&okta(), &origin(), nested).await.unwrap();
    assert_eq!(member_ids(&home.store, &okta(), group.group.facts.id).await, sorted(ids.to_vec()));
    let now = home.store.group(&okta(), group.group.facts.id).await.unwrap().unwrap();
    assert_eq!((now.member_count, now.version), (2, 3));
    let joined = DirectoryChange::Members { group: now.facts.id, added: vec![user.facts.id], removed: vec![] };
    let nested = DirectoryChange::Nested { group: now.facts.id, added: vec![GroupId(ids[1])], removed: vec![] };
    let events = home.store.events_after(0, 100).await.unwrap();
    let joins: Vec<_> =
        events.iter().map(|event| &event.change).filter(|change| [&joined, &nested].contains(change)).collect();
    assert_eq!(joins, [&joined, &nested]);
}

async fn groups_in_groups_are_events_with_causes_and_follow_names_and_deletions(home: Home) {
    let outer = add_group(&home.store, &okta(), "outer", &[]).await.group.facts.id;
    let inner = add_group(&home.store, &okta(), "inner", &[]).await.group.facts.id;
    let later = add_group(&home.store, &okta(), "later", &[]).await.group.facts.id;
    let seq = home.store.highest_seq().await.unwrap();
    let nested = |added: &[GroupId], removed: &[GroupId]| DirectoryChange::Nested {
        group: outer,
        added: added.to_vec(),
        removed: removed.to_vec(),
    };
    change(&home.store, &okta(), outer, vec![MemberChange::Add(vec![inner.0, outer.0])]).await.unwrap();
    change(&home.store, &okta(), outer, vec![MemberChange::Replace(vec![later.0])]).await.unwrap();
    let events: Vec<_> = home.store.events_after(seq, 100).await.unwrap();
    let mut both = [inner, outer];
    both.sort_unstable();
    let changes: Vec<_> = events.iter().map(|event| event.change.clone()).collect();
    assert_eq!(changes, [nested(&both, &[]), nested(&[later], &[]), nested(&[], &both)]);
    let audit = home.store.audit_after(0, 100).await.unwrap();
    let cause =
        |action: &str| audit.iter().rev().find(|row| row.entry.action == action).unwrap().entry.cause_seqs.clone();
    assert_eq!((cause("group.member.remove"), cause("group.member.add")), (vec![seq + 3], vec![seq + 2]));

    // The snapshot has what is left, and a group that is deleted takes its membership along.
    let mut loaded = Vec::new();
    home.store.snapshot(&mut |_, change| loaded.push(change)).await.unwrap();
    assert_eq!(loaded.last(), Some(&nested(&[later], &[])));
    home.store.delete_group(&okta(), &origin(), later, None).await.unwrap();
    loaded.clear();
    home.store.snapshot(&mut |_, change| loaded.push(change)).await.unwrap();
    assert!(!loaded.iter().any(|change| matches!(change, DirectoryChange::Nested { .. })), "{loaded:?}");
    assert!(home.store.before_nesting().await.unwrap().is_empty());
}

async fn a_group_created_again_under_another_id_is_no_member_even_where_its_external_id_was(home: Home) {
    let named = |name: &str, external_id: &str| {
        let mut group = new_group(name, &[]);
        group.facts.external_id = Some(external_id.to_owned());
        group
    };
    let text = "G-2".to_owned();
    let by_name = crate::scim::member_id(&text);
    let outer = add_group(&home.store, &okta(), "outer", &[]).await.group.facts.id;
    let members = MemberChanges {
        list: vec![MemberChange::Add(vec![by_name])],
        texts: std::collections::BTreeMap::from([(by_name, text)]),
    };
    home.store.change_members::<()>(&okta(), &origin(), outer, members).await.unwrap();
    let first = home.store.create_group(&okta(), &origin(), named("inner", "G-2")).await.unwrap().group.facts.id;
    assert_eq!(member_ids(&home.store, &okta(), outer).await, [first.0]);
    home.store.delete_group(&okta(), &origin(), first, None).await.unwrap();
    let again = home.store.create_group(&okta(), &origin(), named("inner", "G-2")).await.unwrap().group.facts.id;
    assert_ne!(first, again);
    assert!(member_ids(&home.store, &okta(), outer).await.is_empty());
    assert_eq!(home.store.group(&okta(), outer).await.unwrap().unwrap().member_count, 0);
}

async fn groups_of_a_user_are_those_within_ten_levels_in_a_circle_too(home: Home) {
    let user = add_user(&home.store, &okta(), "a@x.example").await.facts.id;
    let mut ids = vec![add_group(&home.store, &okta(), "g0", &[user.0]).await.group.facts.id];
    for level in 1..=12 {
        let inner = ids[level - 1].0;
        ids.push(add_group(&home.store, &okta(), &format!("g{level}"), &[inner]).await.group.facts.id);
    }
    let shown = |groups: Vec<UserGroup>| groups.into_iter().map(|group| group.id).collect::<Vec<_>>();
    assert_eq!(shown(home.store.groups_of(&okta(), user).await.unwrap()), ids[..=10]);
    change(&home.store, &okta(), ids[0], vec![MemberChange::Add(vec![ids[3].0])]).await.unwrap();
    assert_eq!(shown(home.store.groups_of(&okta(), user).await.unwrap()), ids[..=10]);
    let mut rows = [PlannedRow { position: 1, bytes: 1, members: 0 }];
    home.store.count_groups(&okta(), &mut rows, 100).await.unwrap();
    assert_eq!(rows[0].members, 11);
}

async fn a_large_change_is_several_events_of_bounded_size(home: Home) {
    let mut users = Vec::new();
    for index in 0..2100 {
        let store = home.store.clone();
        users.push(tokio::spawn(
            async move { add_user(&store, &okta(), &format!("u{index}@x.example")).await.facts.id },
        ));
    }
    let mut ids = Vec::new();
    for user in users {
        ids.push(user.await.unwrap().0);
    }
    let seq = home.store.highest_seq().await.unwrap();
    let group = add_group(&home.store, &okta(), "all", &ids).await.group;
    assert_eq!(group.member_count, 2100);
    let sizes: Vec<_> = home
        .store
        .events_after(seq, 100)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|event| match event.change {
            DirectoryChange::Members { added, .. } => Some(added.len()),
            _ => None,
        })
        .collect();
    assert_eq!(sizes, [1000, 1000, 100]);
}

async fn a_deleted_user_leaves_its_groups_and_is_never_known_again(home: Home) {
    let user = add_user(&home.store, &okta(), "a@x.example").await;
    let id = user.facts.id;
    let group = add_group(&home.store, &okta(), "g", &[id.0]).await.group.facts.id;
    let of = home.store.memberships(&okta(), id.0).await.unwrap();
    assert_eq!(of, [Membership { group, display_name: "g".to_owned() }]);

    let wrong = home.store.delete_user(&okta(), &origin(), id, Some(7)).await.unwrap();
    assert_eq!(wrong, DeleteOutcome::VersionDiffers);
    assert_eq!(home.store.delete_user(&okta(), &origin(), id, Some(1)).await.unwrap(), DeleteOutcome::Deleted);
    assert_eq!(home.store.delete_user(&okta(), &origin(), id, None).await.unwrap(), DeleteOutcome::NotFound);
    assert_eq!(home.store.user(&okta(), id).await.unwrap(), None);
    let now = home.store.group(&okta(), group).await.unwrap().unwrap();
    assert_eq!((now.member_count, now.version), (0, 2));
    assert!(member_ids(&home.store, &okta(), group).await.is_empty());
    let again = changed(change(&home.store, &okta(), group, vec![MemberChange::Add(vec![id.0])]).await.unwrap());
    assert_eq!(again.members.parked, 1);
    assert_eq!(home.store.users(&okta(), &users_with("emails eq \"a@x.example\"")).await.unwrap().total, 0);
}

async fn a_deleted_group_takes_its_memberships_along_and_leaves_the_groups_it_was_in(home: Home) {
    let user = add_user(&home.store, &okta(), "a@x.example").await.facts.id;
    let inner = add_group(&home.store, &okta(), "inner", &[user.0]).await.group.facts.id;
    let outer = add_group(&home.store, &okta(), "outer", &[inner.0]).await.group.facts.id;
    assert_eq!(home.store.delete_group(&okta(), &origin(), inner, None).await.unwrap(), DeleteOutcome::Deleted);
    assert_eq!(home.store.group(&okta(), inner).await.unwrap(), None);
    assert!(home.store.memberships(&okta(), user.0).await.unwrap().is_empty());
    assert_eq!(home.store.group(&okta(), outer).await.unwrap().unwrap().member_count, 0);
    assert_eq!(home.store.counts(&okta()).await.unwrap(), Counts { users: 1, groups: 1, pending: 0 });
    add_group(&home.store, &okta(), "Inner", &[]).await;
}

async fn lists_page_in_the_order_of_creation_with_exact_totals(home: Home) {
    for index in 0..25 {
        add_user(&home.store, &okta(), &format!("u{index:02}@x.example")).await;
        add_user(&home.store, &provider("entra"), &format!("u{index:02}@x.example")).await;
    }
    let page = |start_index, count| {
        let store = home.store.clone();
        async move {
            let page = store
                .users(&okta(), &ListQuery { filter: None, start_index, count, ..ListQuery::default() })
                .await
                .unwrap();
            let names: Vec<_> =
                page.items.iter().map(|user| user.facts.user_name.trim_end_matches("@x.example").to_owned()).collect();
            (names.join(" "), page.total)
        }
    };
    assert_eq!(page(1, 3).await, ("u00 u01 u02".to_owned(), 25));
    assert_eq!(page(0, 1).await, ("u00".to_owned(), 25));
    assert_eq!(page(23, 10).await, ("u22 u23 u24".to_owned(), 25));
    assert_eq!(page(26, 10).await, (String::new(), 25));
    assert_eq!(page(1000, 10).await, (String::new(), 25));
    assert_eq!(page(1, 0).await, (String::new(), 25));
    let all = ListQuery { filter: None, start_index: 1, count: 5, ..ListQuery::default() };
    assert_eq!(home.store.users(&provider("ping"), &all).await.unwrap().total, 0);
}

async fn every_filter_finds_what_it_names_and_nothing_else(home: Home) {
    let mut alice = new_user("alice@x.example");
    alice.facts.external_id = Some("00u1".to_owned());
    alice.facts.emails.push(EmailFact { value: "A@home.example".to_owned(), kind: None, primary: false });
    let manager = Uuid::new_v4().to_string();
    let enterprise = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
    alice.resource[enterprise] = json!({"manager": {"value": manager}});
    let alice = home.store.create_user(&okta(), &origin(), alice).await.unwrap().facts.id;
    let bob = add_user(&home.store, &okta(), "bob@x.example").await.facts.id;
    let group = add_group(&home.store, &okta(), "Team", &[alice.0]).await.group.facts.id;
    add_group(&home.store, &okta(), "Empty", &[]).await;

    for (text, expected) in [
        ("userName eq \"ALICE@x.example\"".to_owned(), vec![alice]),
        ("userName eq \"ali\"".to_owned(), vec![]),
        ("externalId eq \"00u1\"".to_owned(), vec![alice]),
        ("externalId eq \"00U1\"".to_owned(), vec![]),
        (format!("id eq \"{bob}\""), vec![bob]),
        ("id eq \"not an id\"".to_owned(), vec![]),
        ("emails eq \"a@HOME.example\"".to_owned(), vec![alice]),
        ("emails[value eq \"a@HOME.example\"]".to_owned(), vec![alice]),
        ("emails[type eq \"work\"].value eq \"a@home.example\"".to_owned(), vec![]),
        ("emails[type eq \"Work\"].value eq \"bob@x.example\"".to_owned(), vec![bob]),
        ("emails[value eq \"bob@x.example\" and type eq \"work\"]".to_owned(), vec![bob]),
        (format!("manager eq \"{manager}\" and id eq \"{alice}\""), vec![alice]),
        (format!("manager eq \"{manager}\" and id eq \"{bob}\""), vec![]),
        ("emails eq \"bob@x.example\" and userName eq \"alice@x.example\"".to_owned(), vec![]),
    ] {
        let page = home.store.users(&okta(), &users_with(&text)).await.unwrap();
        let found: Vec<_> = page.items.iter().map(|user| user.facts.id).collect();
        assert_eq!((found, page.total), (expected.clone(), expected.len() as u64), "{text}");
        let counted = ListQuery { count: 0, ..users_with(&text) };
        assert_eq!(home.store.users(&okta(), &counted).await.unwrap().total, expected.len() as u64, "{text}");
    }
    for (text, expected) in [
        ("displayName eq \"TEAM\"".to_owned(), vec![group]),
        (format!("members eq \"{alice}\""), vec![group]),
        (format!("members[value eq \"{alice}\"]"), vec![group]),
        (format!("members eq \"{bob}\""), vec![]),
        (format!("id eq \"{group}\" and members eq \"{alice}\""), vec![group]),
        (format!("id eq \"{group}\" and members eq \"{bob}\""), vec![]),
        ("members eq \"x\"".to_owned(), vec![]),
    ] {
        let page = home.store.groups(&okta(), &groups_with(&text)).await.unwrap();
        let found: Vec<_> = page.items.iter().map(|group| group.facts.id).collect();
        assert_eq!(found, expected, "{text}");
    }
    for refused in [matching(Filter::And(vec![])), groups_with(&format!("id eq \"{bob}\" and members eq \"x\""))] {
        let answer = home.store.users(&okta(), &refused).await;
        assert!(matches!(answer, Err(StoreError::UnsupportedFilter { .. })), "{refused:?}");
    }
}

async fn tenants_with_the_same_names_never_mix(home: Home) {
    let (okta, entra) = (okta(), provider("entra"));
    let store = &home.store;
    let mut user = new_user("alice@x.example");
    user.facts.external_id = Some("e".to_owned());
    let ours = store.create_user(&okta, &origin(), user.clone()).await.unwrap().facts.id;
    user.facts.id = UserId(Uuid::new_v4());
    let theirs = store.create_user(&entra, &origin(), user).await.unwrap().facts.id;
    let our_group = add_group(store, &okta, "team", &[ours.0]).await.group.facts.id;
    let their_group = add_group(store, &entra, "team", &[theirs.0]).await.group.facts.id;

    assert_eq!(store.user(&entra, ours).await.unwrap(), None);
    assert_eq!(store.group(&entra, our_group).await.unwrap(), None);
    assert!(store.members(&entra, our_group).await.unwrap().is_empty());
    assert!(store.memberships(&entra, ours.0).await.unwrap().is_empty());
    let update = store.update_user::<()>(&entra, &origin(), ours, |_| panic!("not reached")).await.unwrap();
    assert_eq!(update, UpdateOutcome::NotFound);
    assert_eq!(store.delete_user(&entra, &origin(), ours, None).await.unwrap(), DeleteOutcome::NotFound);
    assert_eq!(store.delete_group(&entra, &origin(), our_group, None).await.unwrap(), DeleteOutcome::NotFound);
    assert_eq!(change(store, &entra, our_group, vec![MemberChange::Clear]).await.unwrap(), UpdateOutcome::NotFound);

    // An id of another tenant is an unknown id, and stays one.
    let parked = changed(change(store, &okta, our_group, vec![MemberChange::Add(vec![theirs.0])]).await.unwrap());
    assert_eq!((parked.members.parked, parked.members.added), (1, 0));
    let refused = change(store, &okta, our_group, vec![MemberChange::Replace(vec![theirs.0])]).await;
    assert_eq!(refused.unwrap_err(), StoreError::NoKnownMember { given: 1 });
    for (p, user, group) in [(&okta, ours, our_group), (&entra, theirs, their_group)] {
        assert_eq!(member_ids(store, p, group).await, vec![user.0]);
        for text in ["userName eq \"alice@x.example\"", "externalId eq \"e\"", "emails eq \"alice@x.example\""] {
            let page = store.users(p, &users_with(text)).await.unwrap();
            assert_eq!(page.items.iter().map(|user| user.facts.id).collect::<Vec<_>>(), [user]);
        }
        let page = store.groups(p, &groups_with(&format!("members eq \"{user}\""))).await.unwrap();
        assert_eq!(page.items.iter().map(|group| group.facts.id).collect::<Vec<_>>(), [group]);
    }
    store.delete_user(&okta, &origin(), ours, None).await.unwrap();
    assert_eq!(member_ids(store, &entra, their_group).await, vec![theirs.0]);
}

contract_tests! {
    a_user_reads_back_as_created,
    a_user_name_in_another_case_is_taken_and_nothing_is_left_of_the_attempt,
    an_external_id_may_be_shared_and_the_write_that_shares_it_says_so,
    a_display_name_in_another_case_is_taken,
    an_update_moves_version_and_time_only_when_something_changed,
    an_update_that_its_caller_refuses_changes_nothing,
    a_renamed_user_is_found_by_the_new_name_and_address_only,
    deltas_of_members_are_applied_and_reported,
    changes_that_cancel_each_other_leave_the_group_unchanged,
    a_replacement_that_names_nobody_known_changes_nothing,
    a_parked_id_becomes_a_member_when_it_exists,
    groups_in_groups_are_events_with_causes_and_follow_names_and_deletions,
    a_group_created_again_under_another_id_is_no_member_even_where_its_external_id_was,
    groups_of_a_user_are_those_within_ten_levels_in_a_circle_too,
    a_large_change_is_several_events_of_bounded_size,
    a_deleted_user_leaves_its_groups_and_is_never_known_again,
    a_deleted_group_takes_its_memberships_along_and_leaves_the_groups_it_was_in,
    lists_page_in_the_order_of_creation_with_exact_totals,
    every_filter_finds_what_it_names_and_nothing_else,
    tenants_with_the_same_names_never_mix,
}
