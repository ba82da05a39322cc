//! Large records, quotas, and the data loaded at the start.

use super::*;
use crate::model::DirectoryChange;

pub(in crate::store) async fn snapshot(store: &Store) -> Vec<DirectoryChange> {
    let mut changes = Vec::new();
    store.snapshot(&mut |_, change| changes.push(change)).await.unwrap();
    changes
}

async fn refused(store: &Store, name: &str) -> StoreError {
    store.create_user(&okta(), &origin(), new_user(name)).await.unwrap_err()
}

async fn deactivated(store: &Store, id: UserId, more: &str) -> Result<UpdateOutcome<UserRecord, ()>, StoreError> {
    let more = more.to_owned();
    let change = move |current: &UserRecord| {
        let mut facts = current.facts.clone();
        facts.active = false;
        let mut resource = current.resource.clone();
        resource["active"] = json!(false);
        resource["title"] = json!(more);
        Ok(Some(UserUpdate { resource, facts }))
    };
    store.update_user(&okta(), &origin(), id, change).await
}

async fn above_the_quota_of_rows_everything_that_takes_away_is_accepted_and_nothing_that_adds(home: Home) {
    let store = &home.store;
    let (a, b) = (add_user(store, &okta(), "a").await.facts.id, add_user(store, &okta(), "b").await.facts.id);
    let group = add_group(store, &okta(), "g", &[a.0, b.0]).await.group.facts.id;
    assert_eq!(store.usage(&okta()).await.unwrap().rows(), 5);
    store.set_quota(Quota { rows: 3, bytes: u64::MAX });

    assert!(matches!(refused(store, "c").await, StoreError::QuotaExceeded { what: "rows", limit: 3 }));
    let group_too = store.create_group(&okta(), &origin(), new_group("h", &[])).await;
    assert!(matches!(group_too, Err(StoreError::QuotaExceeded { .. })));
    let member = change(store, &okta(), group, vec![MemberChange::Add(vec![Uuid::new_v4()])]).await;
    assert!(matches!(member, Err(StoreError::QuotaExceeded { .. })), "ids that are not known are rows, too");
    assert_eq!(member_ids(store, &okta(), group).await.len(), 2, "all or nothing");

    assert!(matches!(deactivated(store, a, "").await, Ok(UpdateOutcome::Changed(_))));
    assert!(change(store, &okta(), group, vec![MemberChange::Remove(vec![a.0])]).await.is_ok());
    assert!(change(store, &okta(), group, vec![MemberChange::Replace(vec![b.0])]).await.is_ok());
    assert!(change(store, &okta(), group, vec![MemberChange::Clear]).await.is_ok());
    store.delete_user(&okta(), &origin(), a, None).await.unwrap();
    store.delete_group(&okta(), &origin(), group, None).await.unwrap();
    assert_eq!(store.usage(&okta()).await.unwrap(), store.recount(&okta()).await);
    add_user(store, &okta(), "c").await;
    add_user(store, &provider("entra"), "another tenant has a quota of its own").await;
}

async fn above_the_quota_of_bytes_a_user_can_be_deactivated_even_if_its_record_grows_a_little(home: Home) {
    let store = &home.store;
    let a = add_user(store, &okta(), "a").await.facts.id;
    store.set_quota(Quota { rows: 1000, bytes: 1 });
    assert!(matches!(refused(store, "b").await, StoreError::QuotaExceeded { what: "bytes", .. }));
    assert!(matches!(deactivated(store, a, "left").await, Ok(UpdateOutcome::Changed(_))));
    let grown = deactivated(store, a, "was inactive already, and now gets a title that is longer").await;
    assert!(matches!(grown, Err(StoreError::QuotaExceeded { what: "bytes", .. })));
    assert_eq!(store.usage(&okta()).await.unwrap(), store.recount(&okta()).await);
}

async fn requests_of_one_batch_cannot_pass_the_quota_together(home: Home) {
    home.store.set_quota(Quota { rows: 10, bytes: u64::MAX });
    let creates = (0..40).map(|index| {
        let store = home.store.clone();
        tokio::spawn(async move { store.create_user(&okta(), &origin(), new_user(&format!("u{index}"))).await.is_ok() })
    });
    let mut count = 0;
    for create in creates.collect::<Vec<_>>() {
        count += usize::from(create.await.unwrap());
    }
    assert_eq!(count, 10);
}

async fn events_and_what_is_loaded_have_the_addresses_that_access_depends_on_and_no_others(home: Home) {
    let email = |value: &str, kind: &str, primary| EmailFact { value: value.into(), kind: Some(kind.into()), primary };
    let mut user = new_user("a");
    user.facts.emails = vec![
        email("home@x.example", "home", false),
        email("one@x.example", "Work", false),
        email("two@x.example", "work", false),
        email("main@x.example", "other", true),
    ];
    let stored = home.store.create_user(&okta(), &origin(), user).await.unwrap();
    let expected = [email("one@x.example", "Work", false), email("main@x.example", "other", true)];
    let events = home.store.events_after(0, 10).await.unwrap();
    for change in [&events[0].change, &snapshot(&home.store).await[0]] {
        let DirectoryChange::User(facts) = change else { panic!("{change:?}") };
        assert_eq!(facts.emails, expected);
    }
    let change = |current: &UserRecord| {
        let mut facts = current.facts.clone();
        facts.emails[0].value = "moved@x.example".into();
        Ok::<_, ()>(Some(UserUpdate { resource: current.resource.clone(), facts }))
    };
    home.store.update_user(&okta(), &origin(), stored.facts.id, change).await.unwrap();
    assert_eq!(home.store.highest_seq().await.unwrap(), 1, "nobody's access depends on that address");
}

async fn records_from_before_there_were_bounds_are_loaded_in_part_and_read_one_by_one(home: Home) {
    for index in 0..4 {
        let mut user = new_user(&format!("{index}{}", "x".repeat(1_000_000)));
        user.facts.external_id = Some(format!("{index}{}", "y".repeat(1_000_000)));
        let value = format!("{index}{}", "z".repeat(1_000_000));
        user.facts.emails = vec![
            EmailFact { value: value.clone(), kind: Some("home".into()), primary: true },
            EmailFact { value, kind: Some("WORK".into()), primary: false },
        ];
        home.store.create_user(&okta(), &origin(), user).await.unwrap();
    }
    for change in snapshot(&home.store).await {
        let DirectoryChange::User(facts) = change else { panic!("{change:?}") };
        let size = serde_json::to_string(&facts).unwrap().len();
        assert!(size < 8192 && facts.emails.len() == 2 && facts.emails[0].primary, "{size}");
        assert!(facts.user_name.len() > 254, "still too long for an address");
    }
    assert!(home.store.events_after(0, 500).await.unwrap().len() < 4, "read in parts");
    let plan = home
        .store
        .plan_list(
            ResourceType::User,
            &okta(),
            &ListQuery { filter: None, start_index: 1, count: 60, ..ListQuery::default() },
        )
        .await
        .unwrap();
    assert_eq!((plan.rows.len(), plan.total), (4, 4));
    assert!(plan.rows.iter().all(|row| row.bytes > 2_000_000), "known before they are read");
}

contract_tests! {
    above_the_quota_of_rows_everything_that_takes_away_is_accepted_and_nothing_that_adds,
    above_the_quota_of_bytes_a_user_can_be_deactivated_even_if_its_record_grows_a_little,
    requests_of_one_batch_cannot_pass_the_quota_together,
    events_and_what_is_loaded_have_the_addresses_that_access_depends_on_and_no_others,
    records_from_before_there_were_bounds_are_loaded_in_part_and_read_one_by_one,
}
