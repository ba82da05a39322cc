//! The audit log.

use super::*;
use crate::model::{AuditEntry, AuditOutcome, ConditionHash, DocumentKey, GrantKey, MemberKey, Role};

pub(in crate::store) fn document() -> DocumentKey {
    "run:projects/p/locations/l/services/s".parse().unwrap()
}

pub(in crate::store) fn entry(at: Timestamp, action: &str) -> AuditEntry {
    AuditEntry {
        claims: vec![],
        at,
        actor: "mapping:checkout/invokers@3".to_owned(),
        request_id: None,
        cause_seqs: vec![1, 2],
        document: Some(document()),
        resource_uid: Some("uid-1".to_owned()),
        action: action.to_owned(),
        grant: Some(GrantKey {
            role: Role::new("roles/run.invoker").unwrap(),
            condition: ConditionHash::default(),
            member: MemberKey::of("user:alice@corp.example"),
        }),
        subject: Some("0b3f".to_owned()),
        plan_hash: Some("plan".to_owned()),
        revision_before: Some("e1".to_owned()),
        revision_after: None,
        outcome: AuditOutcome::Intended,
        reason: None,
    }
}

async fn entries_read_back_as_written_in_order(home: Home) {
    let entries: Vec<_> = ["grant", "revoke", "lost"].map(|action| entry(home.now(), action)).to_vec();
    home.store.record(&document(), vec![], entries[..2].to_vec()).await.unwrap();
    home.store.record(&document(), vec![], entries[2..].to_vec()).await.unwrap();
    let rows = home.store.audit_after(0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(rows.into_iter().map(|row| row.entry).collect::<Vec<_>>(), entries);
    assert_eq!(home.store.audit_after(2, 10).await.unwrap().len(), 1);
    assert_eq!(home.store.verify_audit_chain().await.unwrap(), 3);
}

async fn a_directory_change_says_who_did_what_to_whom_and_which_event_it_was(home: Home) {
    let user = add_user(&home.store, &okta(), "a@x.example").await.facts.id;
    let group = add_group(&home.store, &okta(), "g", &[user.0]).await.group.facts.id;
    home.store.delete_user(&okta(), &origin(), user, None).await.unwrap();
    let rows = home.store.audit_after(0, 10).await.unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.entry.action.as_str(), row.entry.subject.clone().unwrap(), row.entry.cause_seqs.clone()))
        .collect();
    assert_eq!(
        told,
        [
            ("user.create", user.to_string(), vec![1]),
            ("group.create", group.to_string(), vec![2]),
            ("group.member.add", group.to_string(), vec![3]),
            ("user.delete", user.to_string(), vec![4]),
        ]
    );
    let detail: serde_json::Value = serde_json::from_str(rows[2].detail.as_deref().unwrap()).unwrap();
    assert_eq!(detail, json!({"count": 1, "before": 0, "after": 1, "member": user.to_string()}));
    for row in &rows {
        assert_eq!((row.entry.actor.as_str(), row.entry.request_id.as_deref()), ("idp:okta/a", Some("req-1")));
    }
    assert_eq!(rows[3].name.as_deref(), Some("a@x.example"));
}

contract_tests! {
    entries_read_back_as_written_in_order,
    a_directory_change_says_who_did_what_to_whom_and_which_event_it_was,
}
