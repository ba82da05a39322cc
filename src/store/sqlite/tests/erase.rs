//! Files after a person was erased.

use std::time::Duration;

use super::prune::{bytes, holds};
use super::*;
use crate::model::{DirectoryChange, MemberKey};
use crate::store::contract::erase::{alice_left, audited, document, revoked};

#[tokio::test]
async fn nothing_of_the_name_and_addresses_of_an_erased_person_is_left_in_any_file_and_the_chain_holds() {
    let (files, home) = on_files().await;
    let (home, alice, bob) = alice_left(home).await;
    let store = &home.store;
    revoked(&home).await;
    let verified = store.verify_audit_chain().await.unwrap();
    let highest = store.highest_seq().await.unwrap();
    let traces = ["alice@x.example", "alice.mail@x.example", "okta-alice-77", "secretname", "alice.married"];
    assert!(traces.iter().all(|trace| holds(&bytes(&files), trace)));

    let verb = home.open().await;
    let dry = verb.erase_person(Some(alice), None, true).await.unwrap();
    assert!(traces.iter().all(|trace| holds(&bytes(&files), trace)));
    let erased = verb.erase_person(Some(alice), None, false).await.unwrap();
    assert_eq!(erased, Erasure::Erased(Erased { events: 2, names: 4, refusals: 1, mentioned_by: 0 }));
    assert_eq!(dry, erased);
    assert!(verb.is_rewrite_due().await.unwrap());
    verb.rewrite_file().await.unwrap();
    assert!(!verb.is_rewrite_due().await.unwrap());
    let left = bytes(&files);
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

    // A second run finds nothing, and is harmless.
    for name in ["alice@x.example", ""] {
        assert_eq!(store.find_people(name).await.unwrap(), []);
    }
    let found = store.find_people(&alice.to_string()).await.unwrap();
    assert_eq!(found, [KnownPerson { id: alice, provider: okta(), deleted_at: Some(home.now()) }]);
    assert_eq!(store.erase_person(Some(alice), None, false).await.unwrap(), Erasure::Erased(Erased::default()));
    assert_eq!(store.verify_audit_chain().await.unwrap(), verified + 1);
}

#[tokio::test]
async fn person_whose_rows_were_pruned_is_erased_of_what_is_left_and_both_leave_a_chain_that_holds() {
    let (files, home) = on_files().await;
    let (home, alice, _) = alice_left(home).await;
    let store = &home.store;
    revoked(&home).await;
    home.clock.advance(Duration::from_hours(1));
    // Google shows the deleted account long after the person was deleted.
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
    assert!(!holds(&bytes(&files), "alice") && holds(&bytes(&files), "bob@x.example"));
    store.verify_audit().await.unwrap();
}
