use std::time::Duration;

use super::prune::{bytes, holds};
use super::*;
use crate::model::{
    AuditEntry, AuditOutcome, Claim, ConditionHash, DirectoryChange, DocumentKey, GrantKey, GrantState, Intent,
    IntentAction, LedgerChange, LedgerRow, MappingKey, MemberKey, Reach, Refusal, RefusalKey, Role, Subject,
};

fn document() -> DocumentKey {
    "run:projects/p/locations/l/services/s".parse().unwrap()
}

fn grant(address: &str) -> GrantKey {
    GrantKey {
        role: Role::new("roles/run.invoker").unwrap(),
        condition: ConditionHash::default(),
        member: MemberKey::of(&format!("user:{address}")),
    }
}

fn row(address: &str, person: Option<UserId>, state: GrantState) -> LedgerRow {
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
    }
}

/// An audit row about a member; without a subject as of what Google leaves of a deleted account.
fn audited(at: Timestamp, member: &str, subject: Option<UserId>) -> AuditEntry {
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

fn user(name: &str, email: &str, external: &str) -> NewUser {
    let mut user = new_user(name);
    user.facts.external_id = Some(external.to_owned());
    user.facts.emails[0].value = email.to_owned();
    user.resource = json!({"userName": name, "displayName": "Alice Secretname", "emails": [{"value": email}]});
    user
}

/// Alice was pushed, renamed, in a group, granted something and deleted; bob is there.
async fn alice_left() -> (Home, UserId, UserId) {
    let home = Home::new().await;
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
    let key = |member: &str| RefusalKey { reach: Reach::Everywhere, member: Some(MemberKey::of(member)), role: None };
    let refused = ["user:alice@x.example", "user:bob@x.example"]
        .map(|member| Refusal::new(key(member), "MemberRefused", home.now()));
    store.change_refusals(refused.to_vec(), vec![]).await.unwrap();
    store.delete_user(&okta(), &origin(), alice, None).await.unwrap();
    (home, alice, bob)
}

async fn revoked(home: &Home) {
    let remove = LedgerChange::Remove(grant("alice@x.example"));
    home.store.record(&document(), vec![remove], vec![]).await.unwrap();
}

#[tokio::test]
async fn nothing_of_the_name_and_addresses_of_an_erased_person_is_left_in_any_file_and_the_chain_holds() {
    let (home, alice, bob) = alice_left().await;
    let store = &home.store;
    revoked(&home).await;
    let verified = store.verify_audit_chain().await.unwrap();
    let highest = store.highest_seq().await.unwrap();
    let traces = ["alice@x.example", "alice.mail@x.example", "okta-alice-77", "secretname", "alice.married"];
    assert!(traces.iter().all(|trace| holds(&bytes(&home), trace)));

    let verb = open(home.folder.path(), home.clock.clone()).await;
    let dry = verb.erase_person(Some(alice), None, true).await.unwrap();
    assert!(traces.iter().all(|trace| holds(&bytes(&home), trace)));
    let erased = verb.erase_person(Some(alice), None, false).await.unwrap();
    assert_eq!(erased, Erasure::Erased(Erased { events: 2, names: 4, refusals: 1, mentioned_by: 0 }));
    assert_eq!(dry, erased);
    assert!(verb.is_rewrite_due().await.unwrap());
    verb.rewrite_file().await.unwrap();
    assert!(!verb.is_rewrite_due().await.unwrap());
    let left = bytes(&home);
    for trace in traces.iter().chain(&["alice"]) {
        assert!(!holds(&left, trace), "{trace}");
    }
    assert!(holds(&left, "bob@x.example") && holds(&left, &alice.to_string()));

    assert_eq!(store.verify_audit_chain().await.unwrap(), verified + 1);
    let last = store.audit_after(verified.cast_signed(), 1).await.unwrap().remove(0);
    assert_eq!((last.entry.action.as_str(), last.entry.subject), ("person.erase", Some(alice.to_string())));
    assert_eq!((last.entry.actor.as_str(), last.name), ("command", None));
    assert_eq!(store.highest_seq().await.unwrap(), highest, "ids and positions stay");
    let events = store.events_after(0, 100).await.unwrap();
    let facts: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.change {
            DirectoryChange::User(facts) if facts.id == alice => Some(facts),
            _ => None,
        })
        .collect();
    assert!(facts.len() == 2 && facts.iter().all(|facts| facts.active && facts.user_name.is_empty()), "{facts:?}");
    let refused: Vec<_> =
        store.refusals().await.unwrap().into_iter().filter_map(|refusal| refusal.key.member).collect();
    assert_eq!(refused, [MemberKey::of("user:bob@x.example")]);
    assert_eq!(store.user(&okta(), bob).await.unwrap().unwrap().facts.user_name, "bob@x.example");

    // Once more finds nothing, and does no harm.
    for name in ["alice@x.example", ""] {
        assert_eq!(store.find_people(name).await.unwrap(), []);
    }
    let found = store.find_people(&alice.to_string()).await.unwrap();
    assert_eq!(found, [KnownPerson { id: alice, provider: okta(), deleted_at: Some(home.now()) }]);
    assert_eq!(store.erase_person(Some(alice), None, false).await.unwrap(), Erasure::Erased(Erased::default()));
    assert_eq!(store.verify_audit_chain().await.unwrap(), verified + 1);
}

#[tokio::test]
async fn nobody_is_erased_who_is_there_or_has_a_grant_or_a_removal_that_is_still_to_be_done() {
    let (home, alice, bob) = alice_left().await;
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
    assert!(holds(&bytes(&home), "alice@x.example") && !store.is_rewrite_due().await.unwrap());
    // The same address of somebody else is that person's grant.
    let again = add_user(store, &okta(), "alice@x.example").await.facts.id;
    let put = LedgerChange::Put(row("alice@x.example", Some(again), GrantState::Owned));
    store.record(&document(), vec![put], vec![]).await.unwrap();
    let erased = store.erase_person(Some(alice), None, false).await.unwrap();
    assert!(matches!(erased, Erasure::Erased(Erased { events: 2, mentioned_by: 1, .. })), "{erased:?}");
    let kept = store.audit_after(0, 100).await.unwrap();
    let kept = kept.iter().filter(|row| row.entry.subject == Some(again.to_string()));
    assert!(kept.clone().count() > 0 && kept.clone().all(|row| row.name.as_deref() == Some("alice@x.example")));
}

#[tokio::test]
async fn people_are_found_by_id_and_by_every_name_they_had_and_all_of_them() {
    let (home, alice, bob) = alice_left().await;
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

#[tokio::test]
async fn person_whose_rows_were_pruned_is_erased_of_what_is_left_and_both_leave_a_chain_that_holds() {
    let (home, alice, _) = alice_left().await;
    let store = &home.store;
    revoked(&home).await;
    home.clock.advance(Duration::from_hours(1));
    // Google shows the deleted account long after the person is gone.
    let late = audited(home.now(), "deleted:user:alice@x.example?uid=2", None);
    store.record(&document(), vec![], vec![late]).await.unwrap();
    let pruned = store.prune(home.now(), false).await.unwrap();
    assert_eq!(pruned.refusals, 1, "bob is there");
    assert_eq!(store.erase_person(Some(alice), None, false).await.unwrap(), Erasure::Erased(Erased::default()));
    assert_eq!(store.find_people("alice@x.example").await.unwrap(), []);
    for name in ["carol@x.example", "team", ""] {
        assert_eq!(store.erase_person(None, Some(name), false).await.unwrap(), Erasure::Unknown, "{name}");
    }
    let erased = store.erase_person(None, Some("Alice@x.example"), false).await.unwrap();
    assert_eq!(erased, Erasure::Erased(Erased { names: 1, ..Erased::default() }));
    store.rewrite_file().await.unwrap();
    assert!(!holds(&bytes(&home), "alice") && holds(&bytes(&home), "bob@x.example"));
    store.verify_audit().await.unwrap();
}
