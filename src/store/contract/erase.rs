//! Erasing a person.

use super::*;
use crate::model::{
    AuditEntry, AuditOutcome, Claim, ConditionHash, DocumentKey, GrantKey, GrantState, Intent, IntentAction,
    LedgerChange, LedgerRow, MappingKey, MemberKey, Reach, Refusal, RefusalKey, Role, Subject,
};

pub(in crate::store) fn document() -> DocumentKey {
    "run:projects/p/locations/l/services/s".parse().unwrap()
}

pub(in crate::store) fn grant(address: &str) -> GrantKey {
    GrantKey {
        role: Role::new("roles/run.invoker").unwrap(),
        condition: ConditionHash::default(),
        member: MemberKey::of(&format!("user:{address}")),
    }
}

pub(in crate::store) fn row(address: &str, person: Option<UserId>, state: GrantState) -> LedgerRow {
    let mapping = MappingKey::new("team", "m").unwrap();
    LedgerRow {
        grant: grant(address),
        member: format!("user:{address}"),
        condition: None,
        state,
        intent: None,
        claims: person.map(|id| Claim { mapping, subject: Subject::User(id) }).into_iter().collect(),
        grounds: std::collections::BTreeMap::new(),
        acknowledged_at: None,
        verified_at: None,
        revoking_since: None,
        held: false,
        resource_uid: None,
        stored_as: std::collections::BTreeSet::new(),
        left_at: None,
    }
}

/// An audit row about a member; without a subject, as for the tombstone of a deleted account.
pub(in crate::store) fn audited(at: Timestamp, member: &str, subject: Option<UserId>) -> AuditEntry {
    AuditEntry {
        claims: vec![],
        at,
        actor: "drift".to_owned(),
        request_id: None,
        cause_seqs: vec![],
        document: Some(document()),
        resource_uid: None,
        action: "revoke".to_owned(),
        grant: Some(GrantKey { member: MemberKey::of(member), ..grant("x") }),
        subject: subject.map(|id| id.to_string()),
        plan_hash: None,
        revision_before: None,
        revision_after: None,
        outcome: AuditOutcome::Acknowledged,
        reason: None,
    }
}

pub(in crate::store) fn user(name: &str, email: &str, external: &str) -> NewUser {
    let mut user = new_user(name);
    user.facts.external_id = Some(external.to_owned());
    user.facts.emails[0].value = email.to_owned();
    user.resource = json!({"userName": name, "displayName": "Alice Secretname", "emails": [{"value": email}]});
    user
}

/// Alice was pushed, renamed, added to a group, granted a role and deleted; bob exists.
pub(in crate::store) async fn alice_left(home: Home) -> (Home, UserId, UserId) {
    let store = &home.store;
    let alice = user("Alice@x.example", "alice.mail@x.example", "okta-alice-77");
    let alice = store.create_user(&okta(), &origin(), alice).await.unwrap().facts.id;
    let bob = add_user(store, &okta(), "bob@x.example").await.facts.id;
    add_group(store, &okta(), "team", &[alice.0, bob.0]).await;
    let renamed = user("alice.married@x.example", "alice.mail@x.example", "okta-alice-77");
    let change = |_: &_| {
        let facts = UserFacts { id: alice, ..renamed.facts.clone() };
        Ok(Some(UserUpdate { resource: renamed.resource.clone(), facts }))
    };
    store.update_user::<()>(&okta(), &origin(), alice, change).await.unwrap();
    let put = LedgerChange::Put(row("alice@x.example", Some(alice), GrantState::Owned));
    let member = audited(home.now(), "user:alice@x.example", Some(alice));
    let left = audited(home.now(), "deleted:user:alice@x.example?uid=1", None);
    store.record(&document(), vec![put], vec![member, left]).await.unwrap();
    let key = |member: &str| RefusalKey {
        reach: Reach::Everywhere,
        member: Some(MemberKey::of(member)),
        role: None,
        condition: None,
    };
    let refused = ["user:alice@x.example", "user:bob@x.example"]
        .map(|member| Refusal::new(key(member), "MemberRefused", home.now()));
    store.change_refusals(refused.to_vec(), vec![]).await.unwrap();
    store.delete_user(&okta(), &origin(), alice, None).await.unwrap();
    (home, alice, bob)
}

pub(in crate::store) async fn revoked(home: &Home) {
    let remove = LedgerChange::Remove(grant("alice@x.example"));
    home.store.record(&document(), vec![remove], vec![]).await.unwrap();
}

async fn nobody_is_erased_who_is_there_or_has_a_grant_or_a_removal_that_is_still_to_be_done(home: Home) {
    let (home, alice, bob) = alice_left(home).await;
    let store = &home.store;
    let before = store.highest_audit_seq().await.unwrap();
    assert_eq!(store.erase_person(Some(bob), None, false).await.unwrap(), Erasure::NotDeleted(okta()));
    let nobody = UserId(Uuid::from_u128(5));
    assert_eq!(store.erase_person(Some(nobody), None, false).await.unwrap(), Erasure::Unknown);
    let intent = Intent {
        action: IntentAction::Revoke,
        revision_before: "e".to_owned(),
        present_before: true,
        at: home.now(),
        plan_hash: "p".to_owned(),
    };
    let owned = row("alice@x.example", Some(alice), GrantState::Owned);
    for (row, what) in [
        (owned.clone(), "owned"),
        (LedgerRow { intent: Some(intent), ..owned.clone() }, "revoking"),
        (row("alice@x.example", Some(alice), GrantState::Lost), "lost"),
        (row("alice@x.example", None, GrantState::Owned), "without a claim"),
    ] {
        store.record(&document(), vec![LedgerChange::Put(row)], vec![]).await.unwrap();
        for dry in [true, false] {
            let refused = store.erase_person(Some(alice), None, dry).await.unwrap();
            assert_eq!(refused, Erasure::Granted([document()].into()), "{what}");
        }
    }
    assert_eq!(store.highest_audit_seq().await.unwrap(), before);
    assert_eq!(store.find_people("alice@x.example").await.unwrap().len(), 1);
    assert!(!store.is_rewrite_due().await.unwrap());
    // The same address of another person is that person's grant.
    let again = add_user(store, &okta(), "alice@x.example").await.facts.id;
    let put = LedgerChange::Put(row("alice@x.example", Some(again), GrantState::Owned));
    store.record(&document(), vec![put], vec![]).await.unwrap();
    let erased = store.erase_person(Some(alice), None, false).await.unwrap();
    assert!(matches!(erased, Erasure::Erased(Erased { events: 2, mentioned_by: 1, .. })), "{erased:?}");
    let kept = store.audit_after(0, 100).await.unwrap();
    let kept = kept.iter().filter(|row| row.entry.subject == Some(again.to_string()));
    assert!(kept.clone().count() > 0 && kept.clone().all(|row| row.name.as_deref() == Some("alice@x.example")));
}

async fn people_are_found_by_id_and_by_every_name_they_had_and_all_of_them(home: Home) {
    let (home, alice, bob) = alice_left(home).await;
    let store = &home.store;
    let gone = KnownPerson { id: alice, provider: okta(), deleted_at: Some(home.now()) };
    for name in ["ALICE@x.example", "alice.married@x.example", "alice.mail@X.example", "okta-alice-77"] {
        assert_eq!(store.find_people(name).await.unwrap(), std::slice::from_ref(&gone), "{name}");
    }
    let there = KnownPerson { id: bob, provider: okta(), deleted_at: None };
    assert_eq!(store.find_people("Bob@x.example").await.unwrap(), std::slice::from_ref(&there));
    assert_eq!(store.find_people(&bob.to_string()).await.unwrap(), [there]);
    for name in ["", "carol@x.example", "alice", "team", "11111111-1111-4111-8111-111111111111"] {
        assert_eq!(store.find_people(name).await.unwrap(), [], "{name}");
    }
    let entra = provider("entra");
    let again = add_user(store, &entra, "alice@x.example").await.facts.id;
    let mut both = vec![gone, KnownPerson { id: again, provider: entra, deleted_at: None }];
    both.sort_unstable_by_key(|person| person.id);
    assert_eq!(store.find_people("alice@x.example").await.unwrap(), both);
}

contract_tests! {
    nobody_is_erased_who_is_there_or_has_a_grant_or_a_removal_that_is_still_to_be_done,
    people_are_found_by_id_and_by_every_name_they_had_and_all_of_them,
}
